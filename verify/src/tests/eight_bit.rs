//! Products of codes of 8 bits on the simulator, with activations that a step of the kernel quantizes.

use super::generated::{judge, kernel, nvrtc};

const INT8: &str = "(* s (sum (* (- (real q) 128) x)))";

#[test]
fn products_of_integers_are_right_for_edges_splits_and_epilogues() {
    let Some(nvrtc) = nvrtc() else { return };
    let cases = [
        ("int8-ch-a8.f16-f16.n96.k256.m1", "8x32x128 warps=2x1 stages=2 split=1"),
        ("int8-ch-a8.bf16-f32.n40.k520.m13+bias", "16x32x256 warps=1x2 stages=3 split=2"),
        (
            "int8-ch-bf16-a8.bf16-bf16.n72.k1032.m33+silu_mul",
            "48x64x256 warps=2x2 stages=1 split=1",
        ),
        ("int8-ch-a8.f16-f16.n80.k640.m9+residual", "16x16x128 warps=1x1 stages=4 split=stream:7"),
        ("int8-ch-a8.f16-f16.n64.k512.m17", "32x64x128 warps=2x1 stages=2 split=2@cluster"),
    ];
    for (problem, shape) in cases {
        let schedule = format!("mma tile={shape} pad=16 raster=rows dequant={INT8}");
        let (kernel, spec) = kernel(&format!("w8a8.{problem}"), &schedule);
        assert_eq!(kernel.steps(1).len(), 2);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{problem} {schedule}: {verdict:#?}");
    }
}

const E4M3: &str = "(* s (sum (* (e4m3 q) x)))";

#[test]
fn products_of_small_floats_are_right_for_edges_splits_and_epilogues() {
    let Some(nvrtc) = nvrtc() else { return };
    let cases = [
        ("f16-f16.n96.k256.m1", "8x32x128 warps=2x1 stages=2 split=1"),
        ("bf16-f32.n40.k520.m13+bias", "16x32x256 warps=1x2 stages=3 split=2"),
        ("bf16-bf16.n72.k1032.m33+silu_mul", "48x64x256 warps=2x2 stages=1 split=1"),
    ];
    for (problem, shape) in cases {
        let schedule = format!("mma tile={shape} pad=16 raster=rows dequant={E4M3}");
        let (kernel, spec) = kernel(&format!("w8a8.fp8-e4m3-ch-a8.{problem}"), &schedule);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{problem} {schedule}: {verdict:#?}");
    }
}

#[test]
fn scales_that_layers_bring_are_those_of_all_tokens() {
    let Some(nvrtc) = nvrtc() else { return };
    let mma = "mma tile=16x32x128 warps=2x1 stages=3 split=2 pad=16 raster=rows";
    let wgmma = "wgmma tile=16x64x256 groups=1 stages=2 split=1 producer=warp raster=rows pdl=on";
    for (problem, shape, term) in [
        ("int8-ch-a8-static.f16-f16.n40.k520.m13", mma, INT8),
        ("int8-ch-bf16-a8-static.bf16-bf16.n72.k264.m5+silu_mul", mma, INT8),
        ("fp8-e4m3-ch-a8-static.bf16-f32.n96.k776.m9+bias", mma, E4M3),
        ("fp8-e4m3-ch-a8-static.f16-f16.n96.k520.m16", wgmma, E4M3),
    ] {
        let schedule = format!("{shape} dequant={term}");
        let (kernel, spec) = kernel(&format!("w8a8.{problem}"), &schedule);
        assert!(!kernel.source.contains("largest"), "{}", kernel.source);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{problem} {schedule}: {verdict:#?}");
    }
}

#[test]
fn sums_of_groups_are_scaled_by_their_rows_and_their_activations() {
    let Some(nvrtc) = nvrtc() else { return };
    for (problem, shape) in [
        ("f16-f16.n96.k256.m1", "mma tile=8x32x128 warps=2x1 stages=2 split=1 pad=16"),
        ("bf16-f32.n40.k520.m13+bias", "mma tile=16x32x256 warps=1x2 stages=3 split=2 pad=16"),
        (
            "bf16-bf16.n72.k1032.m33+silu_mul",
            "mma tile=48x64x512 warps=2x2 stages=1 split=1 pad=16",
        ),
        (
            "f16-f16.n80.k640.m9+residual",
            "mma tile=16x16x128 warps=1x1 stages=4 split=stream:7 pad=16",
        ),
        ("f16-f16.n40.k104.m3", "mma tile=8x16x128 warps=1x1 stages=2 split=1 pad=16"),
        ("f16-f16.n96.k520.m8", "wgmma tile=8x64x256 groups=1 stages=2 split=1 producer=warp"),
        (
            "bf16-f32.n200.k1032.m40+bias",
            "wgmma tile=48x128x256 groups=2 stages=2 split=2 producer=group",
        ),
        (
            "f16-f16.n130.k776.m40",
            "wgmma tile=40x64x256 groups=1 stages=3 split=stream:5 producer=warp",
        ),
    ] {
        let schedule = format!("{shape} raster=rows dequant={E4M3}");
        let (kernel, spec) = kernel(&format!("w8a8.fp8-e4m3-g128-a8.{problem}"), &schedule);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{problem} {schedule}: {verdict:#?}");
    }
}

#[test]
fn warpgroups_multiply_codes_from_shared_memory() {
    let Some(nvrtc) = nvrtc() else { return };
    let cases = [
        (
            "int8-ch-a8.f16-f16.n96.k520.m8",
            INT8,
            "8x64x256 groups=1 stages=2 split=1 producer=warp",
        ),
        (
            "int8-ch-bf16-a8.bf16-f32.n200.k1032.m40+bias",
            INT8,
            "48x128x256 groups=2 stages=2 split=2 producer=group",
        ),
        (
            "fp8-e4m3-ch-a8.bf16-bf16.n130.k776.m40+residual",
            E4M3,
            "40x128x256 groups=1 stages=3 split=1 producer=warp",
        ),
    ];
    for (problem, term, shape) in cases {
        let schedule = format!("wgmma tile={shape} raster=rows dequant={term}");
        let (kernel, spec) = kernel(&format!("w8a8.{problem}"), &schedule);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{problem} {schedule}: {verdict:#?}");
    }
}
