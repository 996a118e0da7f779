//! A kernel around `wgmma` as NVRTC compiles it: weights decoded in registers, activations in
//! swizzled shared memory.

mod support;

use qtune_sim::{Access, Arg, Class, FindingKind, Memory, Report, RunOptions};
use support::{at, bytes, f16, floats, input, launch, ptx, schedules::schedules, Random};

const SHAPE: [usize; 3] = [128, 128, 192];

/// Runs the kernel; returns C as [n][m] with what it must be.
fn run(text: &str, options: &RunOptions) -> (Vec<f32>, Vec<f32>, Report) {
    let [m, n, k] = SHAPE;
    let mut random = Random::new(3);
    let codes: Vec<u8> = (0..m * k).map(|_| (random.next() % 16) as u8).collect();
    let x: Vec<f32> = (0..n * k).map(|_| random.small()).collect();
    let packed: Vec<u8> = codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect();
    let halves: Vec<u16> = x.iter().map(|&value| f16(value)).collect();
    let mut memory = Memory::new();
    let w = input(&mut memory, "weights", &packed);
    let activations = input(&mut memory, "x", &bytes(&halves, u16::to_le_bytes));
    let c = memory.alloc("c", 4 * m * n, Access::ReadWrite).unwrap();
    let args = vec![at(w), at(activations), at(c), Arg::I32(m as i32), Arg::I32(k as i32)];
    let shape = ([(m / 64) as u32, (n / 128) as u32, 1], [128, 1, 1], 2 * 128 * 128);
    let report = launch(text, shape, args, &mut memory, options).unwrap();
    let weight = |row: usize, column: usize| f32::from(codes[row * k + column]) - 8.0;
    let expected = (0..m * n).map(|at| {
        let (column, row) = (at / m, at % m);
        (0..k).map(|i| weight(row, i) * x[column * k + i]).sum()
    });
    (floats(&memory, c), expected.collect(), report)
}

#[test]
fn the_kernel_multiplies_without_findings_under_every_schedule() {
    let text = ptx("wgmma", "sm90a");
    for options in schedules() {
        let (found, expected, report) = run(&text, &options);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert_eq!(found, expected);
        // Two tiles of four warps with three turns of the loop, four products each.
        let [m, _, k] = SHAPE;
        let products = (m / 64 * 4 * k / 16) as u64;
        let around = (m / 64 * 4 * k / 64 * 3) as u64;
        assert_eq!(report.counters.class(Class::Wgmma).warp_instructions, products + around);
    }
}

#[test]
fn each_missing_synchronisation_is_found() {
    let text = ptx("wgmma", "sm90a");
    for (removed, kind) in [
        ("fence.proxy.async.shared::cta;", FindingKind::ProxyFence),
        ("bar.sync \t0;", FindingKind::SharedRace),
        ("wgmma.fence.sync.aligned;", FindingKind::WgmmaHazard),
        ("wgmma.wait_group.sync.aligned 0;", FindingKind::WgmmaHazard),
        ("wgmma.commit_group.sync.aligned;", FindingKind::WgmmaHazard),
    ] {
        assert!(text.contains(removed), "{removed}");
        let (_, _, report) = run(&text.replace(removed, ""), &RunOptions::default());
        assert!(
            report.findings.iter().any(|f| f.kind == kind),
            "{removed}: {:#?}",
            report.findings
        );
    }
}
