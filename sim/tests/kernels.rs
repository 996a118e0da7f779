//! Kernels compiled by NVRTC, end to end: right results, no findings, expected counters.

mod support;

use qtune_sim::{Access, Arg, AsyncSchedule, Blocks, Class, Memory, Report, RunOptions, WarpOrder};
use support::{at, bytes, f16, floats, input, launch, ptx, Random, TARGETS};

/// Every combination of async schedule and warp order that tests run under.
fn schedules() -> Vec<RunOptions> {
    let mut all = Vec::new();
    for schedule in [AsyncSchedule::Lazy, AsyncSchedule::Eager] {
        for warp_order in [WarpOrder::Forward, WarpOrder::Reversed, WarpOrder::Seeded(5)] {
            all.push(RunOptions { schedule, warp_order, ..RunOptions::default() });
        }
    }
    all
}

fn assert_clean(report: &Report) {
    let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{text:#?}");
}

/// y = W x with W the 4-bit codes minus 8 times a scale per 128.
struct Gemv {
    n: usize,
    k: usize,
    codes: Vec<u32>,
    scales: Vec<f32>,
    x: Vec<f32>,
}

impl Gemv {
    fn new(n: usize, k: usize) -> Gemv {
        let mut random = Random::new(1);
        Gemv {
            n,
            k,
            codes: (0..n * k).map(|_| random.next() % 16).collect(),
            scales: (0..n * k / 128).map(|_| (1 + random.next() % 8) as f32 / 8.0).collect(),
            x: (0..k).map(|_| (random.next() % 9) as f32 / 4.0 - 1.0).collect(),
        }
    }

    fn expected(&self) -> Vec<f32> {
        let weight = |row: usize, k: usize| {
            let code = self.codes[row * self.k + k] as f32 - 8.0;
            f64::from(code * self.scales[(row * self.k + k) / 128])
        };
        (0..self.n)
            .map(|row| {
                (0..self.k).map(|k| weight(row, k) * f64::from(self.x[k])).sum::<f64>() as f32
            })
            .collect()
    }

    fn run(&self, text: &str, options: &RunOptions) -> (Vec<f32>, Report) {
        let words: Vec<u32> = self
            .codes
            .chunks_exact(8)
            .map(|c| c.iter().enumerate().fold(0, |word, (j, code)| word | code << (4 * j)))
            .collect();
        let pairs: Vec<u32> = self
            .x
            .chunks_exact(8)
            .flat_map(|x| (0..4).map(|j| u32::from(f16(x[j])) | u32::from(f16(x[j + 4])) << 16))
            .collect();
        let scales: Vec<u16> = self.scales.iter().map(|&s| f16(s)).collect();
        let mut memory = Memory::new();
        let w = input(&mut memory, "weights", &bytes(&words, u32::to_le_bytes));
        let s = input(&mut memory, "scales", &bytes(&scales, u16::to_le_bytes));
        let x = input(&mut memory, "x", &bytes(&pairs, u32::to_le_bytes));
        let y = memory.alloc("y", self.n * 4, Access::ReadWrite).unwrap();
        let args =
            vec![at(w), at(s), at(x), at(y), Arg::I32(self.n as i32), Arg::I32(self.k as i32)];
        let shape = ([self.n.div_ceil(4) as u32, 1, 1], [128, 1, 1], 0);
        let report = launch(text, shape, args, &mut memory, options).unwrap();
        (floats(&memory, y), report)
    }
}

#[test]
fn gemv_is_right_for_every_target_and_schedule() {
    let gemv = Gemv::new(10, 1024);
    let expected = gemv.expected();
    for target in TARGETS {
        for options in schedules() {
            let (y, report) = gemv.run(&ptx("gemv", target), &options);
            assert_clean(&report);
            assert_eq!(y, expected, "{target}");
        }
    }
}

#[test]
fn gemv_counters_show_coalesced_weights_read_once() {
    let gemv = Gemv::new(8, 2048);
    let (_, report) = gemv.run(&ptx("gemv", "sm80"), &RunOptions::default());
    let weights = report.counters.buffer("weights").unwrap();
    // 8 rows of 1 KB: each 512-byte request is 16 sectors, every byte exactly once.
    assert_eq!((weights.loads.requests, weights.loads.sectors), (16, 256));
    assert_eq!((weights.loads.ideal_sectors, weights.loads.bytes), (256, 8192));
    assert_eq!(weights.footprint_sectors, 256);
    let y = report.counters.buffer("y").unwrap();
    assert_eq!((y.stores.requests, y.stores.sectors, y.stores.bytes), (8, 8, 32));
    assert_eq!(report.counters.class(Class::Shfl).warp_instructions, 8 * 5);
    // 2048 weights per row: one sub and one FMA on pairs for every two.
    assert_eq!(report.counters.class(Class::Half2).lanes, 8 * 2048);
}

#[test]
fn line_information_attributes_traffic_to_the_source() {
    let gemv = Gemv::new(4, 1024);
    let (y, report) = gemv.run(&ptx("gemv", "lineinfo.sm80"), &RunOptions::default());
    assert_eq!(y, gemv.expected());
    let source = include_str!("fixtures/gemv.cu");
    // NVRTC places inline assembly at the line of its closing parenthesis.
    let line = 2 + source.lines().position(|l| l.contains("ld.global.nc.L1")).unwrap() as u32;
    let weights = report.lines.iter().find(|l| l.line == line).unwrap();
    assert_eq!((weights.file.as_str(), weights.global.sectors), ("gemv.cu", 4 * 16));
}

/// C = A B^T of the mma fixture.
fn gemm(text: &str, [m, n, k]: [usize; 3], options: &RunOptions) -> (Vec<f32>, Vec<f32>, Report) {
    let mut random = Random::new(3);
    let a: Vec<f32> = (0..m * k).map(|_| random.small()).collect();
    let b: Vec<f32> = (0..n * k).map(|_| random.small()).collect();
    let dot = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[j * k + x]).sum::<f32>();
    let expected = (0..m * n).map(|at| dot(at / n, at % n)).collect();
    let mut memory = Memory::new();
    let halves = |v: &[f32]| bytes(v, |x| f16(x).to_le_bytes());
    let a = input(&mut memory, "a", &halves(&a));
    let b = input(&mut memory, "b", &halves(&b));
    let c = memory.alloc("c", m * n * 4, Access::ReadWrite).unwrap();
    let sizes = [m, n, k].map(|v| Arg::I32(v as i32));
    let args = [vec![at(a), at(b), at(c)], sizes.to_vec()].concat();
    let shape = ([n as u32 / 64, m.div_ceil(64) as u32, 1], [128, 1, 1], 3 * 2 * 64 * 64);
    let report = launch(text, shape, args, &mut memory, options).unwrap();
    (floats(&memory, c), expected, report)
}

#[test]
fn mma_with_a_ring_of_stages_is_right_for_every_target_and_schedule() {
    for target in TARGETS {
        for options in schedules() {
            let (c, expected, report) = gemm(&ptx("mma", target), [70, 128, 256], &options);
            assert_clean(&report);
            assert_eq!(c, expected, "{target}");
        }
    }
}

#[test]
fn swizzled_tiles_are_free_of_bank_conflicts() {
    let (_, _, report) = gemm(&ptx("mma", "sm80"), [64, 64, 128], &RunOptions::default());
    let counters = &report.counters;
    assert_eq!(counters.shared().wavefronts, counters.shared().ideal_wavefronts);
    // Four warps, four k steps of two halves: two ldmatrix.x4 each for A and B.
    assert_eq!(counters.class(Class::Ldmatrix).warp_instructions, 4 * 4 * 2 * 4);
    assert_eq!(counters.class(Class::Mma).warp_instructions, 4 * 4 * 2 * 8);
    assert_eq!(counters.shared_loads.wavefronts, 4 * 4 * 2 * 4 * 4);
    for name in ["a", "b"] {
        let buffer = counters.buffer(name).unwrap();
        assert_eq!(buffer.loads.bytes, 64 * 128 * 2);
        assert_eq!(buffer.loads.sectors, buffer.loads.ideal_sectors);
    }
}

#[test]
fn zero_filled_rows_are_not_counted_as_read() {
    let (_, _, report) = gemm(&ptx("mma", "sm80"), [5, 64, 64], &RunOptions::default());
    let a = report.counters.buffer("a").unwrap();
    assert_eq!(a.loads.bytes, 5 * 64 * 2);
}

/// Column sums with K split over blocks.
fn column_sums(text: &str, options: &RunOptions) -> (Vec<f32>, Vec<f32>, Report) {
    let (n, k, splits) = (100usize, 90usize, 5u32);
    let mut random = Random::new(9);
    let a: Vec<f32> = (0..n * k).map(|_| random.small()).collect();
    let expected = (0..n).map(|c| (0..k).map(|r| a[r * n + c]).sum()).collect();
    let mut memory = Memory::new();
    let a = input(&mut memory, "a", &bytes(&a, f32::to_le_bytes));
    let workspace = memory.alloc("workspace", n * 5 * 4, Access::ReadWrite).unwrap();
    let arrivals = memory.alloc("arrivals", 8, Access::ReadWrite).unwrap();
    memory.write(arrivals, 0, &[0; 8]).unwrap();
    let out = memory.alloc("out", n * 4, Access::ReadWrite).unwrap();
    let args =
        vec![at(a), at(workspace), at(arrivals), at(out), Arg::I32(n as i32), Arg::I32(k as i32)];
    let shape = ([2, splits, 1], [64, 1, 1], 0);
    let report = launch(text, shape, args, &mut memory, options).unwrap();
    (floats(&memory, out), expected, report)
}

#[test]
fn the_last_arriver_sums_all_partials_in_any_block_order_and_on_any_number_of_threads() {
    for target in TARGETS {
        for threads in [1, 2, 4] {
            for list in [(0..10).collect::<Vec<u32>>(), (0..10).rev().collect()] {
                let blocks = Blocks::List(list);
                let options = RunOptions { threads, blocks, ..RunOptions::default() };
                let (out, expected, report) = column_sums(&ptx("splitk", target), &options);
                assert_clean(&report);
                assert_eq!(out, expected, "{target}");
            }
        }
    }
}

#[test]
fn a_sample_with_partners_completes_every_split_group_it_touches() {
    let partners: qtune_sim::Partners =
        std::sync::Arc::new(|block| (0..5).map(|split| block % 2 + 2 * split).collect());
    let sample = |partners| RunOptions {
        blocks: Blocks::Sample { count: 1, seed: 2, partners },
        ..RunOptions::default()
    };
    let (out, expected, report) = column_sums(&ptx("splitk", "sm80"), &sample(Some(partners)));
    assert_clean(&report);
    assert_eq!((report.blocks_run, report.blocks_total), (10, 10));
    assert_eq!(out, expected);
    let (_, _, report) = column_sums(&ptx("splitk", "sm80"), &sample(None));
    assert!(report.blocks_run < 10);
}

/// Each block waits for the flag of the next one: the first can end only after the last began.
#[test]
fn blocks_that_wait_for_later_blocks_take_turns() {
    let text = support::kernel(
        "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd3, %rd1, %rd2; mov.u32 %r3, %tid.x; setp.ne.u32 %p1, %r3, 0;\n\
         add.s32 %r4, %r1, 1; setp.eq.u32 %p2, %r4, %r2; mov.u32 %r5, 1;\n\
         or.pred %p3, %p1, %p2;\n@%p3 bra D;\n\
         W: ld.acquire.gpu.global.u32 %r5, [%rd3+4]; setp.eq.u32 %p4, %r5, 0;\n@%p4 bra W;\n\
         add.s32 %r5, %r5, 1;\n\
         D: bar.sync 0;\n@%p1 bra E;\nfence.acq_rel.gpu; st.release.gpu.global.u32 [%rd3], %r5;\nE:",
    );
    for threads in [1, 2, 0] {
        let mut memory = Memory::new();
        let p = memory.alloc("flags", 4 * 40, Access::ReadWrite).unwrap();
        memory.write(p, 0, &[0; 160]).unwrap();
        let options = RunOptions { threads, ..RunOptions::default() };
        let shape = ([40, 1, 1], [64, 1, 1], 0);
        let report = launch(&text, shape, vec![at(p)], &mut memory, &options).unwrap();
        assert_clean(&report);
        assert_eq!(memory.read(p, 0, 4).unwrap(), [40, 0, 0, 0]);
        assert_eq!(report.blocks_run, 40);
    }
}
