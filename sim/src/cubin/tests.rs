//! Against cubins of NVRTC 13.0.88 and 12.9.86, whole and damaged.

use super::{Cubin, CubinError, Kernel, Param};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../sass/fixtures/", $name, ".cubin"))
    };
}

fn only_kernel(file: &[u8]) -> (u32, Kernel) {
    let mut cubin = Cubin::parse(file).expect("a cubin");
    assert_eq!(cubin.kernels.len(), 1);
    (cubin.sm, cubin.kernels.remove(0))
}

/// Expectations are those of `ptxas -v` for the same compile.
#[test]
fn resources_equal_what_ptxas_said() {
    let check = |file: &[u8], sm: u32, name: &str, registers_stack_shared: [u32; 3]| {
        let (found_sm, kernel) = only_kernel(file);
        let r = &kernel.resources;
        assert_eq!((found_sm, kernel.name.as_str()), (sm, name));
        let found = [r.registers, r.stack_bytes, r.static_shared_bytes];
        assert_eq!(found, registers_stack_shared, "{name} on sm_{sm}");
    };
    check(fixture!("gemv.sm_80"), 80, "w4_gemv", [21, 0, 16]);
    check(fixture!("gemv.sm_90a"), 90, "w4_gemv", [22, 0, 16]);
    check(fixture!("gemv.sm_120"), 120, "w4_gemv", [27, 0, 16]);
    check(fixture!("mma.sm_90a"), 90, "w4_mma", [46, 0, 0]);
    check(fixture!("wgmma.sm_90a"), 90, "wg", [42, 0, 0]);
    check(fixture!("spill.sm_90a"), 90, "spill", [32, 288, 0]);
}

#[test]
fn parameters_and_launch_bounds_are_those_of_the_source() {
    let (_, gemv) = only_kernel(fixture!("gemv.sm_90a"));
    assert_eq!(gemv.resources.max_threads, Some([128, 1, 1]));
    assert_eq!(gemv.resources.required_threads, None);
    assert_eq!(gemv.resources.barriers, 1);
    let layout: Vec<_> = gemv.resources.params.iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(layout, [(0, 8), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4)]);
    assert_eq!(gemv.resources.param_bytes, 40);
    // A tensor map is a by-value parameter of 128 bytes, placed at a multiple of 64 of its bank.
    let (_, hopper) = only_kernel(fixture!("hopper.sm_90a"));
    assert_eq!(hopper.resources.params[0].size, 128);
    assert_eq!(hopper.resources.params[3], Param { offset: 192, size: 4 });
}

#[test]
fn cubins_of_cuda_12_have_their_version_in_another_place() {
    let (sm, kernel) = only_kernel(fixture!("gemv_cuda12.sm_90a"));
    assert_eq!((sm, kernel.resources.registers), (90, 21));
}

#[test]
fn other_files_are_told_apart() {
    for file in [&b""[..], b"\x7fELF", &[0; 200]] {
        assert!(matches!(Cubin::parse(file), Err(CubinError::NotACubin { .. })));
    }
    let mut host = fixture!("gemv.sm_80").to_vec();
    host[0x12] = 62; // x86-64
    let error = Cubin::parse(&host).expect_err("a host program");
    assert_eq!(error.to_string(), "not a cubin: it is not for NVIDIA GPUs");
}

#[test]
fn every_truncation_is_an_error() {
    let file = fixture!("gemv.sm_90a");
    for len in 0..file.len() {
        assert!(Cubin::parse(&file[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn no_flipped_byte_makes_it_panic() {
    for file in [&fixture!("hopper.sm_90a")[..], fixture!("gemv_cuda12.sm_90a")] {
        let mut damaged = file.to_vec();
        let mut refused = 0;
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                damaged[at] = file[at] ^ flip;
                refused += u32::from(Cubin::parse(&damaged).is_err());
            }
            damaged[at] = file[at];
        }
        assert!(refused > 100, "only {refused} refused");
    }
}
