//! Whole kernels as text, reviewed like code. A change of the generator shows here first.
//! `QTUNE_BLESS=1` writes them anew.

use qtune_codegen::generate;
use qtune_ir::Arch;
use qtune_tests::{root, Case};

/// Name, problem key, schedule line.
pub const CASES: &[(&str, &str, &str)] = &[
    (
        "gemv_half2",
        "w4a16.awq-g128.f16-f16.n5120.k5120.m1",
        "gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared acc=half2 cache=stream \
         dequant=(* (* s 256) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) \
         (* 0.00390625 x))))",
    ),
    (
        "gemv_naive",
        "w4a16.awq-g32.f16-f16.n96.k64.m1",
        "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal \
         dequant=(sum (* (* (- (real q) z) s) x))",
    ),
    (
        "gemv_bf16_split",
        "w4a16.awq-g64.bf16-bf16.n1024.k4096.m2+bias",
        "gemv tokens=2 rows=1 lanes=8 warps=2x2 unroll=2 split=2 x=shared acc=f32 cache=normal \
         dequant=(* s (sum (* (- (magic q) (+ 1024 z)) x)))",
    ),
    (
        "mma_correction",
        "w4a16.awq-g128.f16-f16.n5120.k5120.m8",
        "mma tile=8x64x256 warps=2x2 stages=4 split=1 pad=16 raster=rows \
         dequant=(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))",
    ),
    (
        "mma_raised",
        "w4a16.awq-g128.f16-f16.n5120.k5120.m32",
        "mma tile=32x128x128 warps=4x1 stages=3 split=2 pad=16 raster=rows \
         dequant=(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 s) \
         (* (neg (* z s)) (* p 0.00390625))) x)))",
    ),
    (
        "mma_bf16_split",
        "w4a16.awq-g128.bf16-f32.n5120.k27648.m64+bias",
        "mma tile=64x128x128 warps=4x1 stages=3 split=2 pad=16 raster=tokens \
         dequant=(* s (sum (* (- (magic q) (+ 128 z)) x)))",
    ),
    (
        "gemv_table",
        "w4a16.nf4-b64.f16-f16.n5120.k5120.m1",
        "gemv tokens=1 rows=2 lanes=32 warps=8x2 unroll=2 split=1 x=shared acc=half2 cache=stream \
         dequant=(* (* 256 s) (sum (* (page q) (* 0.00390625 x))))",
    ),
    (
        "gemv_nested",
        "w4a16.nf4-b64-dq.f16-f16.n8192.k8192.m1",
        "gemv tokens=1 rows=4 lanes=32 warps=8x2 unroll=2 split=1 x=shared acc=half2 cache=stream \
         dequant=(* (* (nested s c n) 256) (sum (* (page q) (* 0.00390625 x))))",
    ),
    (
        "mma_nested",
        "w4a16.nf4-b64-dq.bf16-bf16.n8192.k8192.m16",
        "mma tile=16x128x256 warps=2x2 stages=3 split=1 pad=16 raster=rows \
         dequant=(sum (* (* (pair q) (nested s c n)) x))",
    ),
    (
        "mma_table",
        "w4a16.nf4-b64.bf16-bf16.n5120.k5120.m16",
        "mma tile=16x64x128 warps=2x2 stages=3 split=1 pad=16 raster=rows \
         dequant=(* s (sum (* (pair q) x)))",
    ),
    (
        "mma_registers",
        "w4a16.fp4-b64.f16-f16.n5120.k5120.m8",
        "mma tile=8x64x128 warps=2x2 stages=4 split=1 pad=16 raster=rows \
         dequant=(* (* s 0.6666666865348816) (sum (* (short q) x)))",
    ),
    (
        "mma_reference_rounding",
        "w4a16.awq-g32.f16-f16.n144.k96.m16",
        "mma tile=16x48x64 warps=3x1 stages=1 split=1 pad=0 raster=rows \
         dequant=(sum (* (* (- (real q) z) s) x))",
    ),
    (
        "mma_codes",
        "w8a8.int8-ch-bf16-a8.bf16-bf16.n5120.k5120.m16",
        "mma tile=16x64x256 warps=2x2 stages=3 split=2 pad=16 raster=rows \
         dequant=(* s (sum (* (- (real q) 128) x)))",
    ),
    (
        "mma_static_codes",
        "w8a8.fp8-e4m3-ch-a8-static.bf16-bf16.n5120.k5120.m16",
        "mma tile=16x64x256 warps=2x2 stages=3 split=1 pad=16 raster=rows pdl=on \
         dequant=(* s (sum (* (e4m3 q) x)))",
    ),
    (
        "mma_grouped_codes",
        "w8a8.fp8-e4m3-g128-a8.bf16-bf16.n7168.k2048.m16",
        "mma tile=16x64x256 warps=2x2 stages=3 split=2 pad=16 raster=rows \
         dequant=(* s (sum (* (e4m3 q) x)))",
    ),
    (
        "wgmma_grouped_codes",
        "w8a8.fp8-e4m3-g128-a8.bf16-bf16.n7168.k2048.m128",
        "wgmma tile=128x128x256 groups=2 stages=3 split=1 producer=group raster=rows \
         dequant=(* s (sum (* (e4m3 q) x)))",
    ),
    (
        "wgmma_codes",
        "w8a8.fp8-e4m3-ch-a8.bf16-bf16.n5120.k5120.m128",
        "wgmma tile=128x128x256 groups=2 stages=3 split=1 producer=group raster=rows \
         dequant=(* s (sum (* (e4m3 q) x)))",
    ),
    (
        "mma_levels",
        "w4a16.q4_k.f16-f16.n5120.k5120.m8",
        "mma tile=8x128x512 warps=1x4 stages=3 split=1 pad=16 raster=rows \
         dequant=(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 (* d i)) \
         (* (neg (* e j)) (* p 0.00390625))) x)))",
    ),
    (
        "wgmma_levels",
        "w6a16.q6_k.bf16-bf16.n5120.k5120.m64",
        "wgmma tile=64x128x128 groups=2 stages=4 split=1 producer=warp raster=rows \
         dequant=(sum (* (* (- (magic q) 160) (* d (- i 128))) x))",
    ),
    (
        "wgmma_f16",
        "w4a16.awq-g128.f16-f16.n5120.k5120.m128",
        "wgmma tile=128x128x128 groups=2 stages=4 split=1 producer=warp raster=rows \
         dequant=(sum (* (* (- (magic q) (+ 1024 z)) s) x))",
    ),
    (
        "wgmma_bf16_split",
        "w4a16.awq-g64.bf16-f32.n5120.k27648.m40+bias",
        "wgmma tile=40x256x128 groups=2 stages=4 split=2 producer=group raster=rows \
         dequant=(* s (sum (* (- (magic q) (+ 128 z)) x)))",
    ),
];

#[test]
fn generated_kernels_equal_the_reviewed_ones() {
    let arch = Arch::named("h200").expect("a table row");
    let folder = root().join("tests/golden/kernels");
    let bless = std::env::var_os("QTUNE_BLESS").is_some();
    for (name, problem, schedule) in CASES {
        let case = Case::new(problem, schedule);
        let kernel = generate(&case.problem, &case.spec, &case.schedule, &arch);
        let text = kernel.unwrap_or_else(|error| panic!("{name}: {error}")).source;
        let path = folder.join(format!("{name}.cu"));
        if bless {
            std::fs::create_dir_all(&folder).expect("the golden folder");
            std::fs::write(&path, &text).expect("a golden file");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let first = text.lines().zip(golden.lines()).position(|(a, b)| a != b);
        assert!(
            text == golden,
            "{name} differs from {} at line {:?}; review the change, then run \
             QTUNE_BLESS=1 cargo test --release -p qtune-tests goldens",
            path.display(),
            first.map(|line| line + 1)
        );
    }
}

#[test]
fn the_same_schedule_gives_the_same_text() {
    let arch = Arch::named("h200").expect("a table row");
    for (_, problem, schedule) in CASES {
        let case = Case::new(problem, schedule);
        let text = || {
            let reparsed = case.schedule.to_string().parse().expect("its own print");
            generate(&case.problem, &case.spec, &reparsed, &arch).expect("a kernel").source
        };
        assert_eq!(text(), text());
    }
}
