//! Codes that name vectors. These tests compile; where no NVRTC is found they say so and pass.

use super::generated::{judge, nvrtc};
use crate::default_of_family;
use qtune_codegen::{generate, Kernel, Role};
use qtune_ir::{
    Arch, Codebook, Family, Group, Param, ParamType, Problem, VectorCodes, WeightSpec,
    VECTOR_SHARE_BITS,
};

fn spec(books: u8, bits: u8) -> WeightSpec {
    WeightSpec {
        name: "odd".into(),
        bits: VECTOR_SHARE_BITS,
        group: Group::Channel,
        params: vec![Param { name: "s".into(), dtype: ParamType::F16 }],
        expr: "(* (vector q) s)".into(),
        codebook: Codebook::of_vectors(VectorCodes::new(books, bits).unwrap()),
        act_order: false,
        activations: Default::default(),
    }
}

fn kernel(family: Family, key: &str, spec: &WeightSpec) -> Kernel {
    let (problem, arch): (Problem, _) = (key.parse().unwrap(), Arch::named("h200").unwrap());
    let schedule = default_of_family(family, &problem, spec, &arch).unwrap();
    generate(&problem, spec, &schedule, &arch).unwrap()
}

#[test]
fn sums_of_vectors_are_looked_up_by_the_families_that_can() {
    let Some(nvrtc) = nvrtc() else { return };
    for (books, bits, problem) in [
        (1, 16, "f16-f16.n72.k200.m"),
        (1, 9, "bf16-f32.n40.k136.m"),
        (2, 8, "f16-f16.n33.k264.m"),
        (2, 5, "bf16-bf16.n96.k192.m"),
    ] {
        let spec = spec(books, bits);
        for (family, m) in [(Family::Gemv, 2), (Family::Dequant, 5), (Family::Dequant, 40)] {
            let key = format!("w2a16.odd.{problem}{m}+bias");
            let kernel = kernel(family, &key, &spec);
            let verdict = judge(&nvrtc, kernel, &spec);
            assert!(verdict.passed, "{books}x{bits} {key} {family:?}: {verdict:#?}");
        }
    }
}

#[test]
fn weights_between_rotations_are_checked_step_by_step() {
    let Some(nvrtc) = nvrtc() else { return };
    let spec = WeightSpec {
        codebook: Codebook::of_vectors(VectorCodes::new(1, 10).unwrap().rotated()),
        ..spec(1, 10)
    };
    for (family, problem) in [
        (Family::Gemv, "f16-f16.n64.k128.m2+bias"),
        (Family::Dequant, "bf16-f32.n32.k256.m9+residual"),
        (Family::Dequant, "f16-bf16.n128.k64.m20+bias"),
    ] {
        let kernel = kernel(family, &format!("w2a16.odd.{problem}"), &spec);
        let roles: Vec<Role> = kernel.entries.iter().map(|entry| entry.role).collect();
        assert_eq!((roles.first(), roles.last()), (Some(&Role::Turn), Some(&Role::Finish)));
        let verdict = judge(&nvrtc, kernel.clone(), &spec);
        assert!(verdict.passed, "{problem} {family:?}: {verdict:#?}");
        // The last sums and differences are left out of one of the rotations.
        for lost in [kernel.problem.k / 2, kernel.problem.n / 2] {
            let text = format!("const int high = low + {lost};");
            let source = kernel.source.replacen(&text, "const int high = low;", 1);
            assert_ne!(source, kernel.source, "{text}");
            let wrong = judge(&nvrtc, Kernel { source, ..kernel.clone() }, &spec);
            assert!(!wrong.passed, "{problem} {family:?}: {wrong:#?}");
        }
    }
}

#[test]
fn a_sample_of_a_large_matrix_is_rotated_whole() {
    let Some(nvrtc) = nvrtc() else { return };
    let spec = WeightSpec {
        codebook: Codebook::of_vectors(VectorCodes::new(1, 16).unwrap().rotated()),
        ..spec(1, 16)
    };
    let kernel = kernel(Family::Gemv, "w2a16.odd.f16-f16.n2048.k2048.m1", &spec);
    let verdict = judge(&nvrtc, kernel, &spec);
    assert!(verdict.passed && verdict.share_of_blocks_run < 0.9, "{verdict:#?}");
}

#[test]
fn families_that_decode_as_they_multiply_say_why_they_refuse() {
    let arch = Arch::named("h200").unwrap();
    let problem: Problem = "w2a16.odd.f16-f16.n4096.k4096.m64".parse().unwrap();
    for family in [Family::Mma, Family::Wgmma] {
        let refused = default_of_family(family, &problem, &spec(2, 8), &arch).unwrap_err();
        assert!(refused.reason.contains("gemv and dequant look up vectors"), "{refused}");
    }
}
