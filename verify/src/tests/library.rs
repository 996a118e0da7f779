//! Slabs that a library multiplies, on the simulator: the function that dequantizes is executed as PTX, the
//! library's step as what it means. These tests compile; where no NVRTC is found they say so and pass.

use super::generated::{judge, nvrtc};
use crate::default_with_library;
use qtune_codegen::{generate, Kernel, Role};
use qtune_ir::{Arch, Problem, WeightSpec};

/// A GPU that has the library.
fn arch() -> Arch {
    Arch { library: true, ..Arch::named("h200").unwrap() }
}

fn kernel(key: &str) -> (Kernel, WeightSpec) {
    let problem: Problem = key.parse().unwrap();
    let spec = qtune_formats::resolve(&problem.format).unwrap();
    let schedule = default_with_library(&problem, &spec, &arch()).unwrap();
    (generate(&problem, &spec, &schedule, &arch()).unwrap(), spec)
}

#[test]
fn slabs_are_rows_that_a_library_multiplies() {
    let Some(nvrtc) = nvrtc() else { return };
    let problems = [
        "w4a16.awq-g128.f16-f16.n256.k512.m300",
        "w4a16.awq-g32.bf16-bf16.n100.k224.m17+bias",
        "w4a16.awq-g64.f16-f32.n72.k136.m5+residual",
        "w4a16.gptq-g128-actorder.f16-f16.n96.k256.m9+bias+residual",
        "w8a16.int8-ch.bf16-f32.n80.k200.m40",
        "w4a16.nf4-b64.f16-f16.n64.k192.m24",
        "w6a16.q6_k.f16-f16.n64.k256.m8",
        "w16a16.aqlm-1x16.f16-f16.n64.k256.m8",
    ];
    for key in problems {
        let (kernel, spec) = kernel(key);
        let verdict = judge(&nvrtc, kernel, &spec);
        assert!(verdict.passed, "{key}: {verdict:#?}");
        assert!(verdict.error_over_bound > 1e-4, "{key}: {verdict:#?}");
    }
}

#[test]
fn every_slab_takes_a_function_and_the_library_by_turns() {
    let (kernel, _) = kernel("w4a16.awq-g128.f16-f16.n8192.k16384.m64");
    let roles: Vec<Role> = kernel.steps(64).iter().map(|step| kernel.role(step)).collect();
    assert!(roles.len() > 2 && roles.len() % 2 == 0, "{roles:?}");
    assert!(roles.chunks(2).all(|pair| pair == [Role::Dequantize, Role::Multiply]));
    let names: Vec<&str> = kernel.functions().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, [kernel.coded().name.as_str()]);
    assert!(!kernel.source.contains(&kernel.main().name));
}

#[test]
fn a_weight_in_another_place_of_the_slab_is_found() {
    let Some(nvrtc) = nvrtc() else { return };
    let (kernel, spec) = kernel("w4a16.awq-g128.f16-f16.n128.k256.m16");
    let defects = [
        ("lane % 2 * 2 + lane % 4 / 2", "lane % 4"),
        ("(lane % 2 == 0) ? row_low : row_other", "(lane % 2 == 1) ? row_low : row_other"),
        ("k16 * 4 + 512", "k16 * 4 + 448"),
    ];
    for (right, wrong) in defects {
        let source = kernel.source.replacen(right, wrong, 1);
        assert_ne!(source, kernel.source, "{right}");
        let verdict = judge(&nvrtc, Kernel { source, ..kernel.clone() }, &spec);
        assert!(!verdict.passed, "{wrong}: {verdict:#?}");
    }
}
