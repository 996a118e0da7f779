//! Thread blocks that wait for each other: as many run at the same time as fit the device.

mod support;

use qtune_sim::{Access, FindingKind, Limits, Memory, Report, RunOptions, SimError};
use support::{at, kernel, launch};

/// Each block waits for the flag of the next one: the first can end only after the last began.
const CHAIN: &str = "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mul.wide.u32 %rd2, %r1, 4;\n\
    add.s64 %rd3, %rd1, %rd2; mov.u32 %r3, %tid.x; setp.ne.u32 %p1, %r3, 0;\n\
    add.s32 %r4, %r1, 1; setp.eq.u32 %p2, %r4, %r2; mov.u32 %r5, 1;\n\
    or.pred %p3, %p1, %p2;\n@%p3 bra D;\n\
    W: ld.acquire.gpu.global.u32 %r5, [%rd3+4]; setp.eq.u32 %p4, %r5, 0;\n@%p4 bra W;\n\
    D: bar.sync 0;\n@%p1 bra E;\nst.release.gpu.global.u32 [%rd3], 1;\nE:";

/// A device of one multiprocessor.
fn small() -> Limits {
    Limits { sm_count: 1, ..Limits::for_sm(90) }
}

fn run(body: &str, blocks: u32, threads: u32, options: &RunOptions) -> Result<Report, SimError> {
    let mut memory = Memory::new();
    let p = memory.alloc("flags", 4096, Access::ReadWrite).unwrap();
    memory.write(p, 0, &[0; 4096]).unwrap();
    launch(&kernel(body), ([blocks, 1, 1], [threads, 1, 1], 0), vec![at(p)], &mut memory, options)
}

fn workers(threads: usize) -> RunOptions {
    RunOptions { threads, limits: small(), ..RunOptions::default() }
}

#[test]
fn blocks_that_fit_together_may_wait_for_each_other() {
    for threads in [1, 2, 3] {
        // 1024 threads per block: two blocks on one multiprocessor.
        let report = run(CHAIN, 2, 1024, &workers(threads)).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        let report = run(CHAIN, 32, 64, &workers(threads)).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

#[test]
fn waiting_for_a_block_that_cannot_start_is_a_deadlock() {
    for threads in [1, 2] {
        let report = run(CHAIN, 33, 64, &workers(threads)).unwrap();
        let [finding] = &report.findings[..] else { panic!("{:#?}", report.findings) };
        assert_eq!((finding.kind, finding.block, finding.count), (FindingKind::Deadlock, 0, 32));
        let message = &finding.message;
        assert!(message.contains("warp 0 at a loop that polls memory (PTX line"), "{message}");
        assert!(message.contains("warp 1 at barrier 0"), "{message}");
        let room = "32 of at most 32 are resident, 1 have not started";
        assert!(message.contains(room), "{message}");
        assert_eq!(report.blocks_run, 32);
    }
}

#[test]
fn registers_bound_the_residency_when_they_are_known() {
    let options = RunOptions { registers: Some(255), ..workers(1) };
    // 8192 registers per warp: 8 warps, four blocks of two (in fours: two blocks).
    assert!(run(CHAIN, 2, 64, &options).unwrap().findings.is_empty());
    assert_eq!(run(CHAIN, 3, 64, &options).unwrap().findings[0].kind, FindingKind::Deadlock);
    let error = run(CHAIN, 1, 1024, &options).unwrap_err().to_string();
    assert!(error.contains("1024 threads of 255 registers"), "{error}");
    let beyond = RunOptions { registers: Some(256), ..workers(1) };
    assert!(run(CHAIN, 1, 32, &beyond).unwrap_err().to_string().contains("allowed are 255"));
}

/// Every block takes the lock in turn.
const LOCK: &str = "mov.u32 %r3, %tid.x; setp.ne.u32 %p1, %r3, 0;\n@%p1 bra D;\n\
    W: atom.acquire.gpu.global.cas.b32 %r5, [%rd1], 0, 1; setp.ne.u32 %p4, %r5, 0;\n@%p4 bra W;\n\
    D: bar.sync 0;\n@%p1 bra E;\nld.global.u32 %r6, [%rd1+128]; add.u32 %r6, %r6, 1;\n\
    st.global.u32 [%rd1+128], %r6;\natom.release.gpu.global.exch.b32 %r7, [%rd1], 0;\nE:";

#[test]
fn a_lock_orders_its_holders_and_one_that_is_kept_is_a_deadlock() {
    for threads in [1, 2] {
        let report = run(LOCK, 64, 64, &workers(threads)).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        let kept = LOCK.replace("atom.release.gpu.global.exch.b32 %r7, [%rd1], 0;", "");
        let report = run(&kept, 64, 64, &workers(threads)).unwrap();
        let [finding] = &report.findings[..] else { panic!("{:#?}", report.findings) };
        assert_eq!(finding.kind, FindingKind::Deadlock);
        // The first block left with the lock; 32 others are resident.
        assert!(finding.message.contains("31 have not started"), "{finding}");
        let plain = LOCK.replace(".release", "").replace(".acquire", "");
        let kinds: Vec<FindingKind> = run(&plain, 64, 64, &workers(threads))
            .unwrap()
            .findings
            .iter()
            .map(|f| f.kind)
            .collect();
        assert!(kinds.contains(&FindingKind::GlobalRace), "{kinds:?}");
    }
}

#[test]
fn long_polling_of_changing_data_is_no_deadlock() {
    // One thread sums 2^16 volatile reads of a growing offset, then another that waited goes on.
    let body = "mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32; mov.u32 %r2, 0; mov.u32 %r4, 0;\n\
        @%p1 bra W;\nL: and.b32 %r3, %r2, 1023; mul.wide.u32 %rd2, %r3, 4; add.s64 %rd2, %rd1, %rd2;\n\
        ld.volatile.global.u32 %r5, [%rd2]; add.u32 %r4, %r4, %r5; add.u32 %r2, %r2, 1;\n\
        setp.lt.u32 %p2, %r2, 65536;\n@%p2 bra L;\n\
        red.global.add.u32 [%rd1], 1;\nbra E;\n\
        W: ld.volatile.global.u32 %r5, [%rd1]; setp.eq.u32 %p2, %r5, 0;\n@%p2 bra W;\nE:";
    let report = run(body, 1, 64, &workers(1)).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
