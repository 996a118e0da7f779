//! Generated kernels on the simulator. These tests compile; where no NVRTC is found they say so and
//! pass.

use crate::{
    default_of_family, default_schedule, verify, Effort, Verdict, VerifyRequest, WeightSource,
};
use half::f16;
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_codegen::{generate, Kernel};
use qtune_device::{KernelImage, SimDevice};
use qtune_formats::{Codes, ParamArray, ParamValues, QuantizedLinear, Rounding};
use qtune_ir::{Arch, Family, Group, Param, ParamType, Problem, Schedule, WeightSpec};

pub(super) fn nvrtc() -> Option<Nvrtc> {
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

pub(super) fn judge(nvrtc: &Nvrtc, kernel: Kernel, spec: &WeightSpec) -> Verdict {
    let image = KernelImage::compile(nvrtc, kernel, &arch()).unwrap_or_else(|e| panic!("{e}"));
    let request = VerifyRequest { effort: Effort::Full, ..VerifyRequest::new(&image, spec, 5) };
    verify(&request, &SimDevice::new(&arch())).unwrap()
}

pub(super) fn kernel(problem: &str, schedule: &str) -> (Kernel, WeightSpec) {
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
        "w4a16.mxfp4-b32.f16-f16.n40.k96.m1",
        "w8a16.mxfp8-b32.bf16-f32.n36.k160.m17",
        "w4a16.awq-g64.f16-f32.n72.k192.m1+residual",
        "w4a16.awq-g32.bf16-bf16.n34.k160.m2+bias+silu_mul",
        "w4a16.awq-g128.bf16-bf16.n100.k256.m17+bias+residual",
        "w4a16.awq-ch.f16-f32.n100.k136.m40+silu_mul",
        "w4a16.awq-g128.f16-f16.n192.k256.m128+bias+silu_mul",
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
fn kernels_of_every_family_are_right_for_every_code_width() {
    let Some(nvrtc) = nvrtc() else { return };
    for (bits, act) in [(2, "f16"), (3, "bf16"), (5, "f16"), (6, "bf16"), (8, "f16"), (8, "bf16")] {
        let param = |name: &str, dtype| Param { name: name.into(), dtype };
        let spec = WeightSpec {
            name: "odd".into(),
            bits,
            group: Group::Size(64),
            params: vec![param("s", ParamType::F16), param("z", ParamType::Code(bits))],
            expr: "(* (- q z) s)".into(),
            codebook: Default::default(),
            act_order: false,
            activations: Default::default(),
        };
        for (m, family) in [(1, Family::Gemv), (9, Family::Mma), (24, Family::Wgmma)] {
            let problem = format!("w{bits}a16.odd.{act}-{act}.n72.k192.m{m}");
            let problem: Problem = problem.parse().unwrap();
            let schedule = default_of_family(family, &problem, &spec, &arch()).unwrap();
            let kernel = generate(&problem, &spec, &schedule, &arch()).unwrap();
            let verdict = judge(&nvrtc, kernel, &spec);
            assert!(verdict.passed, "{bits} {schedule}: {verdict:#?}");
        }
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
        input_scale: None,
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
        act_order: false,
        activations: Default::default(),
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

/// Shares end inside of tiles, some of which three blocks share; the fewer tokens, the more of them.
#[test]
fn a_share_of_stream_k_is_right_with_every_epilogue() {
    let Some(nvrtc) = nvrtc() else { return };
    let mma = "mma tile=16x32x128 warps=1x2 pad=16";
    let wgmma = "wgmma tile=16x64x128 groups=1 producer=warp";
    let schedule = |family: &str, blocks: u32, words: &str| {
        format!(
            "{family} stages=3 split=stream:{blocks} raster={words} \
             dequant=(sum (* (* (- (real q) z) s) x))"
        )
    };
    for (problem, words) in [
        ("n136.k640.m40", "rows"),
        ("n136.k640.m40+bias", "tokens"),
        ("n136.k640.m9+residual", "rows pdl=on"),
        ("n136.k640.m20+bias+silu_mul", "tokens pdl=on prefetch=on"),
    ] {
        let key = format!("w4a16.awq-g64.f16-f32.{problem}");
        for (family, blocks) in [mma, wgmma].into_iter().flat_map(|f| [1, 7, 15].map(|b| (f, b))) {
            let (kernel, spec) = kernel(&key, &schedule(family, blocks, words));
            let verdict = judge(&nvrtc, kernel, &spec);
            assert!(verdict.passed, "{key} {family} {words} {blocks}: {verdict:#?}");
        }
    }
}

#[test]
fn the_blocks_of_a_cluster_share_a_tile_with_every_epilogue() {
    let Some(nvrtc) = nvrtc() else { return };
    let term = "dequant=(sum (* (* (- (real q) z) s) x))";
    let gemv = "gemv tokens=2 rows=2 lanes=4 warps=2x2 unroll=2 split=3@cluster x=shared acc=f32 \
                cache=stream";
    let mma = "mma tile=8x32x128 warps=1x1 stages=3 split=4@cluster pad=16 raster=tokens";
    let wgmma = "wgmma tile=8x128x128 groups=2 stages=3 split=4@cluster producer=group raster=rows";
    for (problem, words) in [
        ("n72.k768.m2", ""),
        ("n72.k768.m3+bias", " pdl=on"),
        ("n72.k768.m9+residual", ""),
        ("n72.k768.m10+bias+silu_mul", " pdl=on prefetch=on"),
    ] {
        let key = format!("w4a16.awq-g64.f16-f32.{problem}");
        for family in [gemv, mma, wgmma] {
            let (kernel, spec) = kernel(&key, &format!("{family}{words} {term}"));
            assert_eq!((kernel.partials_bytes(16), kernel.counter_bytes(16)), (0, 0));
            let verdict = judge(&nvrtc, kernel, &spec);
            assert!(verdict.passed, "{key} {family} {words}: {verdict:#?}");
        }
    }
}

#[test]
fn activations_copied_to_a_cluster_are_right_with_every_epilogue() {
    let Some(nvrtc) = nvrtc() else { return };
    let rows = "groups=1 stages=3 split=2 producer=warp raster=rows";
    let tokens = "groups=1 stages=2 split=1 producer=warp raster=tokens";
    for (problem, words, blocks) in [
        ("n256.k768.m40", rows, 4),
        ("n120.k712.m40+bias", tokens, 2),
        ("n250.k640.m9+residual", rows, 2),
        ("n500.k640.m70+bias+silu_mul", tokens, 8),
    ] {
        let key = format!("w4a16.awq-ch.f16-f32.{problem}");
        for more in ["", " pdl=on prefetch=on"] {
            let block_m = 8 * blocks;
            let line = format!(
                "wgmma tile={block_m}x64x128 {words} multicast={blocks}{more} \
                 dequant=(sum (* (* (- (real q) z) s) x))"
            );
            let (kernel, spec) = kernel(&key, &line);
            let verdict = judge(&nvrtc, kernel, &spec);
            assert!(verdict.passed, "{key} {line}: {verdict:#?}");
        }
    }
}

#[test]
fn a_sample_of_stream_k_runs_all_who_share_its_tiles() {
    let Some(nvrtc) = nvrtc() else { return };
    let line = |split: &str| {
        format!(
            "mma tile=16x64x256 warps=1x4 stages=4 split={split} pad=16 raster=rows \
             dequant=(sum (* (* (- (real q) z) s) x))"
        )
    };
    let run = |split: &str| {
        let (kernel, spec) = kernel("w4a16.awq-g128.f16-f16.n5120.k5120.m16", &line(split));
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed && verdict.share_of_blocks_run < 0.3, "{verdict:#?}");
        verdict.counts
    };
    let (shared, whole) = (run("stream:264"), run("1"));
    assert!((1.0..1.05).contains(&shared.weight_bytes_over_compulsory), "{shared:?}");
    assert_eq!(shared.global_sectors_over_ideal, 1.0);
    assert_eq!(shared.spill_bytes, 0);
    let more = shared.lane_instructions_per_weight / whole.lane_instructions_per_weight;
    assert!((0.95..1.1).contains(&more), "{shared:?} {whole:?}");
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
