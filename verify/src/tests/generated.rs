//! Generated kernels on the simulator: right ones pass, and each planted defect is caught. These
//! tests compile; where no NVRTC is found they say so and pass.

use crate::{default_schedule, verify, Effort, Verdict, VerifyRequest, WeightSource};
use half::f16;
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_codegen::{generate, Kernel};
use qtune_device::{KernelImage, SimDevice};
use qtune_formats::{Codes, ParamArray, ParamValues, QuantizedLinear, Rounding};
use qtune_ir::{Arch, Group, Param, ParamType, Problem, Schedule, WeightSpec};

const MMA_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m9+bias";
const MMA: &str = "mma tile=16x32x128 warps=1x2 stages=3 split=2 swizzle=xor raster=rows \
                   dequant=(* s (- (sum (* (magic q) x)) (* (+ 1024 z) (sum x))))";
const GEMV_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m2+bias";
const GEMV: &str = "gemv tokens=2 rows=1 lanes=4 warps=1x2 unroll=1 split=1 x=shared acc=f32 \
                    cache=stream dequant=(sum (* (* (- (real q) z) s) x))";

fn nvrtc() -> Option<Nvrtc> {
    match Nvrtc::open(&OpenOptions::default()) {
        Ok(nvrtc) => Some(nvrtc),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn arch() -> Arch {
    Arch::named("h200").unwrap()
}

fn judge(nvrtc: &Nvrtc, kernel: Kernel, spec: &WeightSpec) -> Verdict {
    let image = KernelImage::compile(nvrtc, kernel, &arch()).unwrap_or_else(|e| panic!("{e}"));
    let request = VerifyRequest { effort: Effort::Full, ..VerifyRequest::new(&image, spec, 5) };
    verify(&request, &SimDevice::new(&arch())).unwrap()
}

fn kernel(problem: &str, schedule: &str) -> (Kernel, WeightSpec) {
    let problem: Problem = problem.parse().unwrap();
    let spec = qtune_formats::resolve(&problem.format).unwrap();
    let kernel = generate(&problem, &spec, &schedule.parse().unwrap(), &arch()).unwrap();
    (kernel, spec)
}

#[test]
fn default_kernels_of_both_families_are_right() {
    let Some(nvrtc) = nvrtc() else { return };
    let problems = [
        "w4a16.awq-g128.f16-f16.n96.k256.m1",
        "w4a16.awq-g32.bf16-bf16.n33.k160.m2+bias",
        "w4a16.awq-ch.f16-f32.n40.k352.m1",
        "w4a16.awq-g64.f16-bf16.n72.k192.m3",
        "w4a16.awq-g32.bf16-f32.n100.k224.m17+bias",
        "w4a16.awq-ch.f16-f16.n48.k136.m5",
        "w4a16.nf4-b64.f16-f16.n40.k64.m1",
        "w4a16.fp4-b64.bf16-f32.n100.k192.m17+bias",
    ];
    for key in problems {
        let problem: Problem = key.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let schedule = default_schedule(&problem, &spec, &arch()).unwrap();
        let kernel = generate(&problem, &spec, &schedule, &arch()).unwrap();
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{key} {schedule}: {verdict:#?}");
        assert_eq!(verdict.counts.spill_bytes, 0, "{key} {schedule}");
    }
}

#[test]
fn the_weights_of_a_checkpoint_are_verified_with_their_bias() {
    let Some(nvrtc) = nvrtc() else { return };
    let spec = qtune_formats::resolve("awq-g32").unwrap();
    let (n, k) = (24, 64);
    let mut codes = Codes::zeros(n, k, 4);
    codes.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 37 + 11) as u8);
    let array = |name: &str, values| ParamArray { name: name.into(), values };
    let scales = (0..n * k / 32).map(|i| f16::from_f32(0.004 + i as f32 / 4096.0)).collect();
    let zeros = (0..n * k / 32).map(|i| (i * 5 % 16) as u8).collect();
    let layer = QuantizedLinear {
        spec: spec.clone(),
        n,
        k,
        codes,
        params: vec![array("s", ParamValues::F16(scales)), array("z", ParamValues::Code(zeros))],
        bias: Some((0..n).map(|i| i as f32 - 9.5).collect()),
        rounding: Rounding::F16,
        k_order: None,
    };
    let problem: Problem = "w4a16.awq-g32.f16-f16.n24.k64.m7+bias".parse().unwrap();
    let schedule = default_schedule(&problem, &spec, &arch()).unwrap();
    let kernel = generate(&problem, &spec, &schedule, &arch()).unwrap();
    let image = KernelImage::compile(&nvrtc, kernel, &arch()).unwrap();
    let request = VerifyRequest {
        weights: WeightSource::Real(&layer),
        ..VerifyRequest::new(&image, &spec, 1)
    };
    let device = SimDevice::new(&arch());
    let verdict = verify(&request, &device).unwrap();
    assert!(verdict.passed, "{verdict:#?}");
    let other = QuantizedLinear { k: 32, ..layer.clone() };
    let request = VerifyRequest { weights: WeightSource::Real(&other), ..request };
    let error = verify(&request, &device).unwrap_err().to_string();
    assert!(error.contains("24x32") && error.contains("24x64"), "{error}");
}

#[test]
fn an_expression_that_no_format_has_is_right_in_both_families() {
    let Some(nvrtc) = nvrtc() else { return };
    let param = |name: &str| Param { name: name.into(), dtype: ParamType::F16 };
    let spec = WeightSpec {
        name: "odd".into(),
        bits: 4,
        group: Group::Size(64),
        params: vec![param("s"), param("t")],
        expr: "(- (* (^ q 5) s) t)".into(),
        codebook: Default::default(),
    };
    for (m, family) in [(1, "gemv"), (16, "mma")] {
        let problem: Problem = format!("w4a16.odd.f16-f16.n64.k256.m{m}").parse().unwrap();
        let schedule = default_schedule(&problem, &spec, &arch()).unwrap();
        assert!(schedule.to_string().starts_with(family));
        let kernel = generate(&problem, &spec, &schedule, &arch()).unwrap();
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{schedule}: {verdict:#?}");
    }
}

/// A defect: what it is, the text it replaces and by what.
type Plant = (&'static str, &'static str, &'static str);

const MMA_PLANTS: [Plant; 11] = [
    ("dropped K tail", "step < last; ++step", "step < last - 1; ++step"),
    ("group off by one", "row_pairs[(slot * 2 + ", "row_pairs[(slot * 2 + 1 - "),
    ("swapped nibbles", "and_or(word >> 4,", "and_or(word >> 8,"),
    ("missing zero-point", "(1024.0f + h2_high(", "(1032.0f + 0.0f * h2_high("),
    ("bias twice", "h2_low(static_cast<unsigned>(bias", "2.0f * h2_low(static_cast<unsigned>(bias"),
    ("M edge written", "(m < tokens)", "(m <= tokens)"),
    ("lost barrier", "copy_wait<1>();\n    __syncthreads();", "copy_wait<1>();"),
    ("wait too lax", "copy_wait<1>()", "copy_wait<2>()"),
    ("lost split", "sum = sum + load_l2_f32(", "sum = 0.0f * sum + load_l2_f32("),
    ("counter left", "counters[tile_id] = 0x00000000u;", ";"),
    ("lost swizzle", "(x_chunk ^ x_token % 8)", "x_chunk"),
];

const GEMV_PLANTS: [Plant; 5] = [
    ("dropped K tail", "step < last; step += 2", "step < last - 1; step += 2"),
    ("lost lane", "shfl_xor(total[token][0], 1)", "0.0f * shfl_xor(total[token][0], 1)"),
    ("lost warp", "sum = sum + red[", "sum = sum + 0.0f * red["),
    ("lost barrier", "  __syncthreads();\n\n  // mainloop", "\n  // mainloop"),
    ("one token for all", "token_tile * 2 + token) * (K / 8)", "token_tile * 2) * (K / 8)"),
];

const TABLE_PROBLEM: &str = "w4a16.nf4-b64.f16-f16.n80.k512.m9";
const TABLE: &str = "mma tile=16x32x128 warps=1x2 stages=3 split=1 swizzle=xor raster=rows \
                     dequant=(* s (sum (* (page q) x)))";

const TABLE_PLANTS: [Plant; 5] = [
    ("one value off", "0x3c393837u", "0x3b393837u"),
    ("one half twice", "and_or(codes >> 1, 0x44444444u", "and_or(codes >> 1, 0x00000000u"),
    ("another byte", "0x00005514u", "0x00005504u"),
    ("another entry", "piece / 8 * 16", "(piece / 8 ^ 1) * 16"),
    ("half filled", "piece < 2048", "piece < 1024"),
];

fn every_plant_is_caught(problem: &str, schedule: &str, plants: &[Plant]) {
    let Some(nvrtc) = nvrtc() else { return };
    let (right, spec) = kernel(problem, schedule);
    let verdict = judge(&nvrtc, right.clone(), &spec);
    assert!(verdict.passed, "{verdict:#?}");
    for (name, from, to) in plants {
        assert!(right.source.contains(from), "`{from}` is not in the text:\n{}", right.source);
        let wrong = Kernel { source: right.source.replace(from, to), ..right.clone() };
        let verdict = judge(&nvrtc, wrong, &spec);
        assert!(!verdict.passed, "{name} passed: {verdict:#?}");
        assert!(verdict.cases.iter().any(|case| case.detail.is_some()), "{name}: no detail");
    }
}

#[test]
fn every_defect_planted_in_an_mma_kernel_is_caught() {
    every_plant_is_caught(MMA_PROBLEM, MMA, &MMA_PLANTS);
}

#[test]
fn every_defect_planted_in_a_table_is_caught() {
    every_plant_is_caught(TABLE_PROBLEM, TABLE, &TABLE_PLANTS);
}

#[test]
fn every_defect_planted_in_a_gemv_kernel_is_caught() {
    every_plant_is_caught(GEMV_PROBLEM, GEMV, &GEMV_PLANTS);
}

#[test]
fn counts_of_a_real_shape_come_from_the_machine_code() {
    let Some(nvrtc) = nvrtc() else { return };
    for key in ["w4a16.awq-g128.f16-f16.n8192.k4096.m1", "w4a16.awq-g128.f16-f16.n8192.k4096.m16"] {
        let problem: Problem = key.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let schedule: Schedule = default_schedule(&problem, &spec, &arch()).unwrap();
        let kernel = generate(&problem, &spec, &schedule, &arch()).unwrap();
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed && verdict.share_of_blocks_run < 0.1, "{verdict:#?}");
        let counts = verdict.counts;
        assert_eq!(counts.instruction_source, crate::InstructionSource::Sass);
        // Every weight takes a mask and half a packed multiplication at least.
        let instructions = counts.lane_instructions_per_weight;
        assert!((0.6..6.0).contains(&instructions), "{key}: {instructions}");
        let bytes = counts.weight_bytes_over_compulsory;
        assert!((1.0..1.1).contains(&bytes), "{key}: {bytes}");
        assert_eq!(counts.global_sectors_over_ideal, 1.0);
        assert!(counts.registers > 0 && counts.shared_bytes > 0);
    }
}
