//! Kernels compiled by NVRTC that use the asynchronous machinery end to end: right results without
//! findings under every schedule, and defects planted into them.

mod support;

use qtune_sim::{
    run, Access, Arg, FindingKind, Launch, Memory, Module, OutOfBoundsFill, Report, RunOptions,
    Swizzle, TensorMapSpec, TensorType,
};
use support::schedules::{kinds, schedules};
use support::{at, bytes, floats, input, ptx, Random};

/// Replaces one occurrence, counted from 0.
fn edit(text: &str, from: &str, to: &str, occurrence: usize) -> String {
    let place = text.match_indices(from).nth(occurrence);
    let (start, _) = place.unwrap_or_else(|| panic!("`{from}` is not there"));
    format!("{}{to}{}", &text[..start], &text[start + from.len()..])
}

/// The asynchronous waits of a text spin on a register; the given one succeeds at once.
fn without_wait(text: &str, occurrence: usize) -> String {
    let (start, _) =
        text.match_indices("{ .reg .pred p; mbarrier.try_wait").nth(occurrence).unwrap();
    let end = start + text[start..].find('}').unwrap() + 1;
    let result = text[start..end].split("selp.u32 ").nth(1).unwrap().split(',').next().unwrap();
    format!("{}mov.u32 {result}, 1;{}", &text[..start], &text[end..])
}

const ROWS: usize = 64;
const COLUMNS: usize = 160;

/// The transposition kernel on a matrix of 64 x 160 floats.
fn transpose(text: &str, options: &RunOptions) -> (bool, Report) {
    let values: Vec<f32> = (0..ROWS * COLUMNS).map(|i| i as f32).collect();
    let mut memory = Memory::new();
    let from = input(&mut memory, "from", &bytes(&values, f32::to_le_bytes));
    let to = memory.alloc("to", values.len() * 4, Access::ReadWrite).unwrap();
    let map = |buffer, [rows, columns]: [usize; 2], swizzle| {
        Arg::TensorMap(TensorMapSpec {
            buffer,
            offset: 0,
            dtype: TensorType::F32,
            dims: vec![columns as u64, rows as u64],
            strides_bytes: vec![columns as u64 * 4],
            box_dims: vec![32, 32],
            element_strides: vec![1, 1],
            swizzle,
            fill: OutOfBoundsFill::Zero,
        })
    };
    let args = vec![
        map(from, [ROWS, COLUMNS], Swizzle::B128),
        map(to, [COLUMNS, ROWS], Swizzle::None),
        Arg::I32(COLUMNS as i32 / 32),
    ];
    let grid = [ROWS as u32 / 32, 1, 1];
    let launch =
        Launch { grid, block: [160, 1, 1], cluster: [1; 3], dynamic_shared_bytes: 0, args };
    let module = Module::parse(text).unwrap();
    let report = run(&module, "transpose", &launch, &mut memory, options).unwrap();
    let result = floats(&memory, to);
    let right = (0..result.len()).all(|i| result[i] == values[i % ROWS * COLUMNS + i / ROWS]);
    (right, report)
}

#[test]
fn a_pipeline_of_tensor_copies_transposes_a_matrix() {
    let text = ptx("transpose", "sm90a");
    for options in schedules() {
        let (right, report) = transpose(&text, &options);
        assert_eq!(kinds(&report), [], "{:?}", report.findings);
        assert!(right);
        let counters = &report.counters;
        // Each byte is loaded once and stored once.
        assert_eq!(counters.bulk_bytes, 2 * 4 * (ROWS * COLUMNS) as u64);
        let loads = counters.buffer("from").unwrap().loads;
        assert_eq!((loads.requests, loads.sectors, loads.ideal_sectors), (10, 1280, 1280));
        let swizzled = counters.shared_loads;
        assert_eq!(swizzled.wavefronts, swizzled.ideal_wavefronts);
    }
}

#[test]
fn defects_of_the_pipeline_are_found_under_every_schedule() {
    let text = ptx("transpose", "sm90a");
    let release = "mbarrier.arrive.shared::cta.b64";
    let cases = [
        ("consumers do not release stages", edit(&text, release, "// ", 0), FindingKind::Deadlock),
        (
            "half the bytes are expected",
            edit(&text, "mov.u32 \t%r145, 4096", "mov.u32 \t%r145, 2048", 0),
            FindingKind::Deadlock,
        ),
        ("consumers do not wait", without_wait(&text, 1), FindingKind::AsyncNotAwaited),
        (
            "the tile is stored without a proxy fence",
            edit(&text, "fence.proxy.async.shared::cta;", "", 1),
            FindingKind::ProxyFence,
        ),
        (
            "the stored tile is overwritten early",
            edit(&text, "cp.async.bulk.wait_group.read 0;", "", 0),
            FindingKind::AsyncRead,
        ),
        (
            "the block exits before its stores",
            edit(&text, "cp.async.bulk.wait_group 0;", "", 0),
            FindingKind::AsyncNotAwaited,
        ),
    ];
    for (what, text, kind) in cases {
        for options in schedules() {
            let (_, report) = transpose(&text, &options);
            assert!(kinds(&report).contains(&kind), "{what}, {options:?}: {:?}", report.findings);
        }
    }
}

#[test]
fn a_stage_that_is_refilled_while_it_is_read_is_found() {
    let text = without_wait(&ptx("transpose", "sm90a"), 0);
    for options in schedules() {
        let (_, report) = transpose(&text, &options);
        assert!(!report.findings.is_empty(), "{options:?}");
    }
}

/// y = W x by clusters of four blocks.
fn cluster_dot(text: &str, options: &RunOptions) -> (bool, Report) {
    let (rows, k) = (128, 512);
    let mut random = Random::new(4);
    let w: Vec<f32> = (0..rows * k).map(|_| random.small()).collect();
    let x: Vec<f32> = (0..k).map(|_| random.small()).collect();
    let mut memory = Memory::new();
    let arg_w = input(&mut memory, "w", &bytes(&w, f32::to_le_bytes));
    let arg_x = input(&mut memory, "x", &bytes(&x, f32::to_le_bytes));
    let y = memory.alloc("y", rows * 4, Access::ReadWrite).unwrap();
    let launch = Launch {
        grid: [4 * rows as u32 / 64, 1, 1],
        block: [64, 1, 1],
        cluster: [4, 1, 1],
        dynamic_shared_bytes: 0,
        args: vec![at(arg_w), at(arg_x), at(y)],
    };
    let module = Module::parse(text).unwrap();
    let report = run(&module, "cluster_dot", &launch, &mut memory, options).unwrap();
    let expected = (0..rows).map(|r| (0..k).map(|i| w[r * k + i] * x[i]).sum::<f32>());
    (floats(&memory, y).into_iter().eq(expected), report)
}

#[test]
fn a_cluster_shares_a_vector_by_multicast_and_reduces_through_shared_memory() {
    let text = ptx("cluster_dot", "sm90a");
    for options in schedules() {
        let (right, report) = cluster_dot(&text, &options);
        assert_eq!(kinds(&report), [], "{:?}", report.findings);
        assert!(right);
        // Read once per cluster, written four times.
        assert_eq!(report.counters.buffer("x").unwrap().loads.bytes, 2 * 512 * 4);
        assert_eq!(report.counters.bulk_bytes, 2 * 4 * 512 * 4);
    }
}

#[test]
fn defects_of_the_cluster_are_found_under_every_schedule() {
    let text = ptx("cluster_dot", "sm90a");
    let cases = [
        ("one block is left out", edit(&text, "%rs1, 15", "%rs1, 7", 0), FindingKind::Deadlock),
        (
            "the partial sums are not released",
            edit(&text, "arrive.release.aligned", "arrive.relaxed.aligned", 1),
            FindingKind::SharedRace,
        ),
        ("nobody waits for the vector", without_wait(&text, 0), FindingKind::AsyncNotAwaited),
    ];
    for (what, text, kind) in cases {
        for options in schedules() {
            let (_, report) = cluster_dot(&text, &options);
            assert!(kinds(&report).contains(&kind), "{what}, {options:?}: {:?}", report.findings);
        }
    }
}
