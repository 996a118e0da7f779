//! Every golden kernel compiles for every target, without spills.

use crate::goldens::CASES;
use qtune_codegen::generate;
use qtune_tests::{archs, nvrtc, Case};

#[test]
fn every_golden_kernel_compiles_for_every_target_without_spills() {
    let Some(nvrtc) = nvrtc() else { return };
    for arch in archs() {
        for (name, problem, schedule) in CASES {
            let case = Case::new(problem, schedule);
            let kernel = match generate(&case.problem, &case.spec, &case.schedule, &arch) {
                Ok(kernel) => kernel,
                // 100 KB parts have no room for the largest golden; the reason says so.
                Err(error) if error.to_string().contains("shared memory") => continue,
                Err(error) if error.to_string().contains("wgmma needs sm_90a") => continue,
                Err(error) if error.to_string().contains("need compute capability 8.9") => continue,
                Err(error) if error.to_string().contains("pdl needs") => continue,
                Err(error) => panic!("{name} for {arch}: {error}"),
            };
            let compiled = nvrtc
                .compile(&kernel.source, name, &arch.target(), &[])
                .unwrap_or_else(|error| panic!("{name} for {arch}: {error}"));
            let cubin = qtune_sim::cubin::Cubin::parse(&compiled.cubin)
                .unwrap_or_else(|error| panic!("{name} for {arch}: {error}"));
            let found = cubin.kernels.iter().find(|k| k.name == kernel.coded().name);
            let found = &found.expect("the entry is in the cubin").resources;
            assert_eq!(found.stack_bytes, 0, "{name} for {arch} spills");
            assert!(compiled.ptx.contains(&format!(".target {}", arch.target())));
        }
    }
}
