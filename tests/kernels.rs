//! Kernels in the simulator: random legal schedules of every family, formats that nobody has,
//! and shapes at the edges.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use qtune_codegen::nvrtc::Nvrtc;
use qtune_codegen::{generate, CodegenError};
use qtune_device::{KernelImage, SimDevice};
use qtune_ir::dequant::{self, Options};
use qtune_ir::{
    Accumulate, Arch, Codebook, DType, DenseGemm, DequantSchedule, GemvSchedule, Group,
    LibraryGemm, MmaSchedule, Overlap, Param, ParamType, Problem, Producer, Raster, Schedule,
    Split, WeightCache, WeightSpec, WgmmaSchedule,
};
use qtune_tests::{archs, nvrtc};
use qtune_verify::{default_schedule, verify, Verdict, VerifyRequest};

/// Random schedules per family. Raise it with `QTUNE_RANDOM_SCHEDULES`.
fn random_cases() -> u32 {
    let asked = std::env::var("QTUNE_RANDOM_SCHEDULES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(24)
}

fn check(
    nvrtc: &Nvrtc,
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    arch: &Arch,
) -> Verdict {
    let told = || format!("{problem} on {arch}: {schedule}");
    let kernel = generate(problem, spec, schedule, arch);
    let kernel = kernel.unwrap_or_else(|error| panic!("{}: {error}", told()));
    let image = KernelImage::compile(nvrtc, kernel, arch);
    let image = image.unwrap_or_else(|error| panic!("{}: {error}", told()));
    let device = SimDevice::new(arch);
    let verdict = verify(&VerifyRequest::new(&image, spec, 7), &device);
    let verdict = verdict.unwrap_or_else(|error| panic!("{}: {error}", told()));
    let details: Vec<_> = verdict.cases.iter().filter_map(|case| case.detail.clone()).collect();
    assert!(verdict.passed, "{}\n{details:?}\n{:?}", told(), verdict.findings);
    verdict
}

/// Every dequantization term that the algebra offers for a schedule.
fn terms(problem: &Problem, spec: &WeightSpec, schedule: &Schedule, arch: &Arch) -> Vec<String> {
    let ctx = schedule.context(problem, spec);
    let params = schedule.cost_params(problem, spec);
    let useless = schedule.useless_rules(spec);
    let kept = dequant::packing_rule(spec).map(|rule| [useless, &[rule]].concat());
    let of = |disabled_rules: &[&str]| {
        let options = Options { disabled_rules, ..Options::default() };
        let found = dequant::variants(&ctx, &params, arch, &options);
        let found = found.map(|search| search.variants).unwrap_or_default();
        found.into_iter().map(|variant| variant.term.to_string())
    };
    let mut terms: Vec<String> = of(useless).collect();
    terms.extend(kept.iter().flat_map(|kept| of(kept)));
    terms
}

fn pick<T: Clone + std::fmt::Debug + 'static>(choices: &[T]) -> impl Strategy<Value = T> {
    prop::sample::select(choices.to_vec())
}

fn gemv() -> impl Strategy<Value = Schedule> {
    let shape = (1u32..=4, pick(&[1u32, 2, 4]), pick(&[1u32, 2, 4, 8, 16, 32]));
    let split =
        prop_oneof![(1u32..=3).prop_map(Split::Blocks), (2u32..=4).prop_map(Split::Cluster),];
    let block = (pick(&[1u32, 2, 4]), pick(&[1u32, 2, 3]), 1u32..=3, split);
    (shape, block, any::<[bool; 4]>()).prop_map(|((tokens, rows, lanes), block, flags)| {
        let (warps_n, warps_k, unroll, split) = block;
        let [stage_x, sorted_ahead, half2, stream] = flags;
        Schedule::Gemv(GemvSchedule {
            tokens,
            rows,
            lanes,
            warps_n,
            warps_k,
            unroll,
            split,
            stage_x,
            sorted_ahead,
            accumulate: if half2 { Accumulate::Half2 } else { Accumulate::F32 },
            cache: if stream { WeightCache::NoAllocate } else { WeightCache::Normal },
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    })
}

/// The ways in which blocks with a ring share K.
fn splits() -> impl Strategy<Value = Split> {
    prop_oneof![
        (1u32..=3).prop_map(Split::Blocks),
        (2u32..=4).prop_map(Split::Cluster),
        (1u32..=40).prop_map(Split::Stream),
    ]
}

fn mma() -> impl Strategy<Value = Schedule> {
    let tile = (pick(&[8u32, 16, 32, 48, 64]), pick(&[1u32, 2, 3]), pick(&[1u32, 2]));
    let block = (pick(&[1u32, 2, 4, 8]), pick(&[1u32, 2, 4, 8]), 1u32..=5, splits());
    (tile, block, any::<[bool; 2]>()).prop_map(|((block_m, rows, chunks), block, flags)| {
        let (warps_n, warps_k, stages, split) = block;
        let [padded, by_rows] = flags;
        Schedule::Mma(MmaSchedule {
            block_m,
            block_n: 16 * warps_n * rows,
            block_k: 64 * warps_k * chunks,
            warps_n,
            warps_k,
            stages,
            split,
            padded,
            raster: if by_rows { Raster::Rows } else { Raster::Tokens },
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    })
}

fn wgmma() -> impl Strategy<Value = Schedule> {
    let tile = (1u32..=16, pick(&[1u32, 2, 3]), pick(&[1u32, 2, 4]), pick(&[1u32, 2, 3]));
    let ring = (2u32..=5, splits(), pick(&[1u32, 1, 2, 4]), any::<[bool; 2]>());
    (tile, ring).prop_map(|((columns, rows, panels, groups), (stages, split, multicast, flags))| {
        let [by_rows, one_warp] = flags;
        Schedule::Wgmma(WgmmaSchedule {
            block_m: 8 * columns,
            block_n: 64 * groups * rows,
            block_k: 64 * panels,
            groups,
            stages,
            split,
            producer: if one_warp { Producer::Warp } else { Producer::Group },
            raster: if by_rows { Raster::Rows } else { Raster::Tokens },
            multicast,
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    })
}

fn dequant() -> impl Strategy<Value = Schedule> {
    // Splits of K are not for slabs; floats allow wider tiles of tokens.
    let whole = |gemm: Schedule| match gemm {
        Schedule::Mma(s) => {
            let block_m = if s.block_m == 48 { 128 } else { s.block_m };
            Schedule::Mma(MmaSchedule { split: Split::NONE, block_m, ..s })
        }
        Schedule::Wgmma(s) => {
            Schedule::Wgmma(WgmmaSchedule { split: Split::NONE, multicast: 1, ..s })
        }
        other => other,
    };
    let own = prop_oneof![mma(), wgmma()]
        .prop_map(move |gemm| DenseGemm::of(whole(gemm)).expect("a family of tensor cores"));
    let library = Just(DenseGemm::Library(LibraryGemm { dequant: String::new() }));
    (prop_oneof![2 => own, 1 => library], 1u32..=3).prop_map(|(gemm, tiles)| {
        let slab = tiles * gemm.tile().0;
        Schedule::Dequant(DequantSchedule { slab, gemm })
    })
}

fn problems() -> impl Strategy<Value = Problem> {
    let format = pick(&[
        "awq-g128",
        "awq-g64",
        "awq-g32",
        "awq-ch",
        "awq-g128-fast",
        "nf4-b64",
        "fp4-b64",
        "gptq-g64-actorder",
        "gptq-g128-asym-actorder",
    ]);
    let types = pick(&["f16-f16", "bf16-bf16", "f16-f32", "bf16-f32"]);
    let end = (pick(&["", "+bias"]), pick(&["", "+residual", "+silu_mul"]));
    (format, types, 1u32..=20, 1u32..=6, 1u32..=70, end).prop_map(
        |(format, types, n, k, m, (bias, epilogue))| {
            let (n, k) = (n * 8, k * 128);
            let key = format!("w4a16.{format}.{types}.n{n}.k{k}.m{m}{bias}{epilogue}");
            key.parse().expect("a problem key")
        },
    )
}

/// Problems whose activations are quantized: one scale to a row, K in pieces of eight.
fn eight_bit_problems() -> impl Strategy<Value = Problem> {
    let format = pick(&[
        "int8-ch-a8",
        "int8-ch-bf16-a8",
        "fp8-e4m3-ch-a8",
        "int8-ch-bf16-a8-static",
        "fp8-e4m3-ch-a8-static",
        "fp8-e4m3-g128-a8",
    ]);
    let types = pick(&["f16-f16", "bf16-bf16", "f16-f32"]);
    let end = (pick(&["", "+bias"]), pick(&["", "+residual", "+silu_mul"]));
    (format, types, 1u32..=20, 1u32..=96, 1u32..=70, end).prop_map(
        |(format, types, n, k, m, (bias, epilogue))| {
            let (n, k) = (n * 8, k * 8);
            let key = format!("w8a8.{format}.{types}.n{n}.k{k}.m{m}{bias}{epilogue}");
            key.parse().expect("a problem key")
        },
    )
}

/// Problems whose scales are quantized themselves; up to 256 quant groups share a float.
fn nested_problems() -> impl Strategy<Value = Problem> {
    let format = pick(&["nf4-b64-dq", "fp4-b32-dq", "nf4-b128-dq"]);
    let types = pick(&["f16-f16", "bf16-bf16"]);
    (format, types, 1u32..=20, 1u32..=6, 1u32..=70).prop_map(|(format, types, n, k, m)| {
        let (n, k) = (n * 8, k * 512);
        let key = format!("w4a16.{format}.{types}.n{n}.k{k}.m{m}");
        key.parse().expect("a problem key")
    })
}

fn random_schedules(family: impl Strategy<Value = Schedule>, seed: u8) {
    random_schedules_of(problems(), family, seed);
}

/// Draws legal schedules until enough have been verified; the draws are seeded.
fn random_schedules_of(
    problems: impl Strategy<Value = Problem>,
    family: impl Strategy<Value = Schedule>,
    seed: u8,
) {
    let Some(nvrtc) = nvrtc() else { return };
    let with_library = |arch| Arch { library: true, ..arch };
    let archs: Vec<Arch> = archs().into_iter().map(with_library).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let overlap = any::<[bool; 2]>().prop_map(|[pdl, prefetch]| Overlap { pdl, prefetch });
    let family = (family, overlap).prop_map(|(schedule, overlap)| schedule.with_overlap(overlap));
    let strategy = (problems, family, 0..archs.len(), any::<prop::sample::Index>());
    let mut verified = 0;
    for _ in 0..random_cases() * 1000 {
        if verified == random_cases() {
            return;
        }
        let drawn = strategy.new_tree(&mut runner).expect("a draw").current();
        let (problem, schedule, arch, term) = drawn;
        let arch = &archs[arch];
        let spec = qtune_formats::resolve(&problem.format).expect("a known format");
        if schedule.check(&problem, &spec, arch).is_err() {
            continue;
        }
        let terms = terms(&problem, &spec, &schedule, arch);
        if terms.is_empty() {
            continue;
        }
        let schedule = schedule.with_dequant(&terms[term.index(terms.len())]);
        if schedule.check(&problem, &spec, arch).is_err() {
            continue;
        }
        // What the generator refuses is not legal; what its own verifier rejects is a fault.
        match generate(&problem, &spec, &schedule, arch) {
            Ok(_) => {}
            Err(CodegenError::Generator(fault)) => panic!("{problem}: {schedule}: {fault}"),
            Err(_) => continue,
        }
        check(nvrtc, &problem, &spec, &schedule, arch);
        verified += 1;
    }
    assert_eq!(verified, random_cases(), "too few draws were legal");
}

#[test]
fn random_legal_gemv_schedules_verify() {
    random_schedules(gemv(), 1);
}

#[test]
fn random_legal_mma_schedules_verify() {
    random_schedules(mma(), 2);
}

#[test]
fn random_legal_dequant_schedules_verify() {
    random_schedules(dequant(), 4);
}

#[test]
fn random_legal_wgmma_schedules_verify() {
    random_schedules(wgmma(), 3);
}

#[test]
fn random_legal_schedules_of_codes_verify() {
    random_schedules_of(eight_bit_problems(), prop_oneof![mma(), wgmma()], 5);
}

/// `(q ^ 5) * s - t`: nobody stores weights like this, and no code knows it.
fn nobodys_format(group: Group) -> WeightSpec {
    let param = |name: &str| Param { name: name.into(), dtype: ParamType::F16 };
    WeightSpec {
        name: "nobody".into(),
        bits: 4,
        group,
        params: vec![param("s"), param("t")],
        expr: "(- (* (^ q 5) s) t)".into(),
        codebook: Default::default(),
        act_order: false,
        activations: Default::default(),
    }
}

#[test]
fn random_legal_schedules_of_nested_scales_verify() {
    random_schedules_of(nested_problems(), prop_oneof![gemv(), mma(), wgmma()], 0x0e);
}

#[test]
fn nested_scales_are_made_in_every_family_that_multiplies_codes() {
    let Some(nvrtc) = nvrtc() else { return };
    let arch = Arch::named("h200").expect("a table row");
    let gemv =
        "gemv tokens=1 rows=4 lanes=8 warps=2x1 unroll=2 split=1 x=shared acc=half2 cache=stream \
                dequant=(* (* (nested s c n) 256) (sum (* (prmt q) (* 0.00390625 x))))";
    let wide =
        "gemv tokens=2 rows=8 lanes=16 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal \
                dequant=(* (nested s c n) (sum (* (pair q) x)))";
    let mma = "mma tile=16x48x256 warps=3x1 stages=3 split=2 pad=16 raster=rows \
               dequant=(sum (* (* (prmt q) (nested s c n)) x))";
    let wgmma = "wgmma tile=24x128x128 groups=2 stages=3 split=1 producer=warp raster=rows \
                 dequant=(sum (* (* (pair q) (nested s c n)) x))";
    // 8, 48 and 20 quant groups to a row: floats are shared by 8, 16 and 4 of them.
    for (k, m) in [(512, 3), (3072, 1), (1280, 2)] {
        for line in [gemv, wide, mma, wgmma] {
            let spec = qtune_formats::resolve("nf4-b64-dq").expect("a known format");
            let problem = Problem::of(&spec, [DType::F16; 2], [56, k, m]);
            let schedule: Schedule = line.parse().expect("a schedule line");
            check(nvrtc, &problem, &spec, &schedule, &arch);
        }
    }
}

/// Small schedules of every family, for f16 and bf16 activations.
const SMALL: [(&str, &str); 6] = [
    ("f16", "gemv tokens=2 rows=2 lanes=8 warps=2x1 unroll=2 split=1 x=shared acc=half2 cache=stream dequant=q"),
    ("bf16", "gemv tokens=1 rows=1 lanes=4 warps=1x2 unroll=1 split=1 x=shared acc=f32 cache=normal dequant=q"),
    ("f16", "mma tile=16x32x128 warps=2x1 stages=3 split=1 pad=16 raster=rows dequant=q"),
    ("bf16", "mma tile=8x16x128 warps=1x2 stages=2 split=2 pad=16 raster=rows dequant=q"),
    ("f16", "wgmma tile=8x64x128 groups=1 stages=2 split=1 producer=warp raster=rows dequant=q"),
    ("bf16", "wgmma tile=16x128x64 groups=1 stages=3 split=2 producer=warp raster=rows dequant=q"),
];

/// A small problem of a format, one of [`SMALL`], and the terms that the algebra offers for it.
fn small(spec: &WeightSpec, line: usize, arch: &Arch) -> (Problem, Schedule, Vec<String>) {
    let (act, line) = SMALL[line];
    let key = format!("w{}a16.{}.{act}-{act}.n72.k384.m2", spec.bits, spec.name);
    let problem: Problem = key.parse().expect("a problem key");
    let schedule: Schedule = line.parse().expect("a schedule line");
    let terms = terms(&problem, spec, &schedule, arch);
    assert!(!terms.is_empty(), "{act}: {line}");
    (problem, schedule, terms)
}

#[test]
fn a_format_that_nobody_has_verifies_in_every_family_with_every_term() {
    let Some(nvrtc) = nvrtc() else { return };
    let arch = Arch::named("h200").expect("a table row");
    let spec = nobodys_format(Group::Size(64));
    for line in 0..SMALL.len() {
        let (problem, schedule, terms) = small(&spec, line, &arch);
        for term in terms {
            check(nvrtc, &problem, &spec, &schedule.with_dequant(&term), &arch);
        }
    }
}

/// A codebook that nobody has, read through a mixed-up code.
fn nobodys_codebook() -> WeightSpec {
    let values: Vec<f32> = (0..16u16).map(|i| (f32::from(i * 7 % 16) - 6.3) / 5.1).collect();
    WeightSpec {
        params: vec![Param { name: "s".into(), dtype: ParamType::F16 }],
        expr: "(* (lookup (^ q 5)) s)".into(),
        codebook: Codebook::new(&values),
        act_order: false,
        activations: Default::default(),
        ..nobodys_format(Group::Size(64))
    }
}

#[test]
fn a_codebook_that_nobody_has_verifies_in_every_family_with_every_term() {
    let Some(nvrtc) = nvrtc() else { return };
    let arch = Arch::named("h200").expect("a table row");
    let spec = nobodys_codebook();
    for line in 0..SMALL.len() {
        let (problem, schedule, terms) = small(&spec, line, &arch);
        for table in ["(pair ", "(page ", "(prmt "] {
            assert!(terms.iter().any(|term| term.contains(table)), "{table} {terms:?}");
        }
        for term in terms {
            check(nvrtc, &problem, &spec, &schedule.with_dequant(&term), &arch);
        }
    }
}

#[test]
fn small_floats_verify_in_every_family_with_every_term() {
    let Some(nvrtc) = nvrtc() else { return };
    for gpu in ["h200", "a100"] {
        let arch = Arch::named(gpu).expect("a table row");
        let mut ways: Vec<&str> = Vec::new();
        for format in ["fp8-e4m3-g128", "nvfp4-b16"] {
            let spec = qtune_formats::resolve(format).expect("a known format");
            for line in 0..SMALL.len() {
                let (problem, schedule, terms) = small(&spec, line, &arch);
                if schedule.check(&problem, &spec, &arch).is_err() {
                    continue;
                }
                for term in terms {
                    let known = ["(narrow ", "(wide ", "(cvt "];
                    ways.extend(known.into_iter().filter(|way| term.contains(way)));
                    check(nvrtc, &problem, &spec, &schedule.with_dequant(&term), &arch);
                }
            }
        }
        for way in ["(narrow ", "(wide "] {
            assert!(ways.contains(&way), "{way} on {gpu}");
        }
        assert_eq!(ways.contains(&"(cvt "), arch.converts_float8(), "{gpu}");
    }
}

#[test]
fn codebooks_verify_on_every_target() {
    let Some(nvrtc) = nvrtc() else { return };
    for (turn, arch) in archs().iter().enumerate() {
        for format in ["nf4-b64", "fp4-b64"] {
            let spec = qtune_formats::resolve(format).expect("a known format");
            for line in 0..SMALL.len() {
                let (problem, schedule, terms) = small(&spec, line, arch);
                if schedule.check(&problem, &spec, arch).is_err() {
                    continue;
                }
                let term = &terms[(turn + line) % terms.len()];
                check(nvrtc, &problem, &spec, &schedule.with_dequant(term), arch);
            }
        }
    }
}

#[test]
fn default_schedules_verify_on_awkward_shapes() {
    let Some(nvrtc) = nvrtc() else { return };
    let arch = Arch::named("h200").expect("a table row");
    for (format, n, k) in [
        ("awq-g128", 8, 128),
        ("awq-g32", 24, 32),
        ("awq-g64", 1000, 192),
        ("awq-ch", 40, 416),
        ("nf4-b64", 40, 64),
        ("nf4-b64-dq", 40, 64),
        ("fp4-b64-dq", 24, 27648),
        ("fp4-b32", 24, 96),
        ("fp8-e4m3-ch", 40, 136),
        ("mxfp8-b32", 24, 96),
        ("nvfp4-b16", 24, 16),
        ("hqq-w3-g64-bf16", 40, 64),
        ("hqq-g64-axis0", 192, 136),
        ("torchao-int4-g64", 1000, 192),
        ("int8-ch-a8", 40, 136),
        ("int8-ch-bf16-a8", 1000, 520),
        ("fp8-e4m3-ch-a8", 24, 8),
        ("int8-ch-a8-static", 24, 8),
        ("fp8-e4m3-ch-a8-static", 40, 136),
        ("fp8-e4m3-g128-a8", 40, 520),
    ] {
        let spec = qtune_formats::resolve(format).expect("a known format");
        for m in [1, 3, 13, 17, 33, 118] {
            let product = Problem::of(&spec, [DType::F16; 2], [n, k, m]);
            let problem = Problem { bias: true, ..product };
            let schedule = default_schedule(&problem, &spec, &arch);
            let schedule = schedule.unwrap_or_else(|refused| panic!("{problem}: {refused}"));
            check(nvrtc, &problem, &spec, &schedule, &arch);
        }
    }
}
