//! One lane waits for its warp: what it waited for is known to the other lanes only once they
//! waited for that lane (PTX ISA 8.10, 9.7.13.2).

mod support;

use qtune_sim::FindingKind::LaneRace;
use qtune_sim::Report;
use support::schedules::{caught, clean, Shape};

const TWO_WARPS: Shape = ([1, 1, 1], 64, [1, 1, 1]);
const ONE_WARP: Shape = ([1, 1, 1], 32, [1, 1, 1]);

/// Two warps: all lanes of warp 0 run `first` and arrive at the mbarrier `b`; lane 0 of warp 1
/// waits for that, and the warp runs `second`. `%r1` is the thread, `%r2` the lane, `%r5` the
/// lane's word of shared memory, `%r6` its neighbour's, `%rd3` and `%rd4` the same in global memory.
fn handover(first: &str, second: &str) -> String {
    support::kernel(&format!(
        ".shared .align 16 .b8 data[128]; .shared .align 8 .b64 b;
         mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 31; shl.b32 %r3, %r2, 2; mov.u32 %r8, 0;
         setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; setp.ge.u32 %p3, %r1, 32;
         mov.u32 %r4, data; add.u32 %r5, %r4, %r3; xor.b32 %r7, %r3, 4; add.u32 %r6, %r4, %r7;
         cvt.u64.u32 %rd3, %r3; add.s64 %rd3, %rd1, %rd3;
         cvt.u64.u32 %rd4, %r7; add.s64 %rd4, %rd1, %rd4;
         @%p1 bra READY;
         mbarrier.init.shared.b64 [b], 32;
         READY: bar.sync 0;
         @%p3 bra SECOND;
         {first}
         mbarrier.arrive.shared.b64 _, [b];
         bra DONE;
         SECOND:
         @%p2 bra WAITED;
         WAIT: mbarrier.try_wait.parity.shared.b64 %p4, [b], 0;
         @!%p4 bra WAIT;
         WAITED:
         {second}
         DONE:"
    ))
}

/// Lines of the findings, which are all of this kind.
fn lines(report: &Report) -> Vec<u32> {
    assert!(report.findings.iter().all(|finding| finding.kind == LaneRace), "{report:#?}");
    report.findings.iter().map(|finding| finding.ptx_line).collect()
}

fn line_of(text: &str, part: &str) -> u32 {
    1 + text.lines().position(|line| line.contains(part)).unwrap() as u32
}

#[test]
fn lanes_that_did_not_wait_may_not_read_before_they_met_the_one_that_did() {
    let first = "st.shared.u32 [%r5], %r1;";
    for read in ["ld.shared.u32 %r8, [%r5];", "ld.shared.u16 %rs1, [%r6+2];"] {
        clean(&handover(first, &format!("bar.warp.sync -1; {read}")), TWO_WARPS, 1);
        let text = handover(first, read);
        let report = caught(&text, TWO_WARPS, 1, LaneRace);
        assert_eq!(lines(&report), [line_of(&text, read)]);
        let finding = &report.findings[0];
        assert!(finding.message.contains("bar.warp.sync is missing after the wait"), "{finding}");
        assert!((finding.warp, finding.lane) == (1, Some(1)), "{finding}");
    }
    // The lane that waited knows.
    clean(&handover(first, "@!%p2 ld.shared.u32 %r8, [%r6];"), TWO_WARPS, 1);
}

#[test]
fn exchanges_of_registers_order_no_memory() {
    let first = "st.shared.u32 [%r5], %r1;";
    for exchange in [
        "shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;",
        "vote.sync.any.pred %p5, %p2, -1;",
        "elect.sync %r9|%p5, -1;",
    ] {
        let text = handover(first, &format!("{exchange} ld.shared.u32 %r8, [%r5];"));
        caught(&text, TWO_WARPS, 1, LaneRace);
    }
}

#[test]
fn part_of_a_warp_that_met_the_waiting_lane_knows_with_it() {
    let meet = "setp.ge.u32 %p5, %r2, 16; @%p5 bra MET; bar.warp.sync 0xFFFF; MET:";
    let first = "st.shared.u32 [%r5], %r1;";
    let text = |read: &str| handover(first, &format!("{meet} {read}"));
    clean(&text("@!%p5 ld.shared.u32 %r8, [%r5];"), TWO_WARPS, 1);
    caught(&text("@%p5 ld.shared.u32 %r8, [%r5];"), TWO_WARPS, 1, LaneRace);
}

#[test]
fn lanes_that_did_not_wait_may_not_overwrite_what_others_read() {
    let first = "ld.global.u32 %r8, [%rd3]; st.shared.u32 [%r5], %r1; bar.warp.sync -1;
                 ld.shared.u32 %r8, [%r6];";
    let write = "st.shared.u32 [%r5], %r1;";
    clean(&handover(first, &format!("bar.warp.sync -1; {write}")), TWO_WARPS, 32);
    caught(&handover(first, write), TWO_WARPS, 32, LaneRace);
}

#[test]
fn an_mbarrier_guards_global_memory_in_the_same_way() {
    let first = "st.global.u32 [%rd3], %r1;";
    let read = "ld.global.u32 %r8, [%rd3];";
    clean(&handover(first, &format!("bar.warp.sync -1; {read}")), TWO_WARPS, 32);
    let text = handover(first, read);
    assert_eq!(lines(&caught(&text, TWO_WARPS, 32, LaneRace)), [line_of(&text, read)]);
    clean(&handover(first, "@!%p2 ld.global.u32 %r8, [%rd4];"), TWO_WARPS, 32);
}

/// Two blocks: the first writes a row and raises a flag, lane 0 of the second waits for it by
/// `wait`, and its warp reads after `between`.
fn flag(wait: &str, between: &str) -> String {
    support::kernel(&format!(
        "mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; shl.b32 %r3, %r1, 2; mov.u32 %r5, 1;
         cvt.u64.u32 %rd3, %r3; add.s64 %rd3, %rd1, %rd3; add.s64 %rd2, %rd1, 128;
         setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0;
         @%p2 bra SECOND;
         st.global.u32 [%rd3], %r1;
         bar.warp.sync -1;
         @!%p1 st.release.gpu.global.u32 [%rd2], %r5;
         bra DONE;
         SECOND: @%p1 bra WAITED;
         WAIT: {wait}
         setp.ne.u32 %p3, %r4, 1; @%p3 bra WAIT;
         WAITED: {between}
         ld.global.u32 %r6, [%rd3];
         DONE:"
    ))
}

#[test]
fn a_flag_that_one_lane_polls_orders_its_warp_only_after_they_met() {
    let two_blocks = ([2, 1, 1], 32, [1, 1, 1]);
    let acquire = "ld.acquire.gpu.global.u32 %r4, [%rd2];";
    let relaxed = "ld.relaxed.gpu.global.u32 %r4, [%rd2];";
    clean(&flag(acquire, "bar.warp.sync -1;"), two_blocks, 33);
    clean(&flag(acquire, "bar.sync 0;"), two_blocks, 33);
    clean(&flag(relaxed, "bar.warp.sync -1; fence.acq_rel.gpu;"), two_blocks, 33);
    clean(&flag(relaxed, "fence.acq_rel.gpu; bar.warp.sync -1;"), two_blocks, 33);
    let read = "ld.global.u32 %r6";
    for (wait, between) in [
        (acquire, ""),
        (relaxed, "fence.acq_rel.gpu;"),
        (acquire, "shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;"),
    ] {
        let text = flag(wait, between);
        let report = caught(&text, two_blocks, 33, LaneRace);
        assert_eq!(lines(&report), [line_of(&text, read)]);
        assert!(report.findings[0].message.contains("bar.warp.sync is missing after the wait"));
    }
}

#[test]
fn a_bulk_copy_that_one_lane_waits_for_is_read_by_the_others_only_after_they_met() {
    let text = |between: &str| {
        support::kernel(&format!(
            ".shared .align 128 .b8 data[128]; .shared .align 8 .b64 b;
             mov.u32 %r1, %tid.x; shl.b32 %r3, %r1, 2; setp.ne.u32 %p1, %r1, 0;
             mov.u32 %r4, data; add.u32 %r5, %r4, %r3;
             @%p1 bra WAITED;
             mbarrier.init.shared.b64 [b], 1; fence.proxy.async;
             mbarrier.arrive.expect_tx.shared.b64 _, [b], 128;
             cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
                 [data], [%rd1], 128, [b];
             WAIT: mbarrier.try_wait.parity.shared.b64 %p4, [b], 0; @!%p4 bra WAIT;
             WAITED: {between}
             ld.shared.u32 %r7, [%r5];"
        ))
    };
    clean(&text("bar.warp.sync -1;"), ONE_WARP, 32);
    caught(&text(""), ONE_WARP, 32, LaneRace);
}

#[test]
fn a_bulk_store_that_one_lane_waits_for_frees_its_source_only_after_they_met() {
    let text = |between: &str| {
        support::kernel(&format!(
            ".shared .align 128 .b8 data[128];
             mov.u32 %r1, %tid.x; shl.b32 %r3, %r1, 2; setp.ne.u32 %p1, %r1, 0;
             mov.u32 %r4, data; add.u32 %r5, %r4, %r3; st.shared.u32 [%r5], %r1;
             fence.proxy.async.shared::cta; bar.warp.sync -1;
             @%p1 bra WAITED;
             cp.async.bulk.global.shared::cta.bulk_group [%rd1], [data], 128;
             cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;
             WAITED: {between}
             st.shared.u32 [%r5], %r3;"
        ))
    };
    clean(&text("bar.warp.sync -1;"), ONE_WARP, 32);
    caught(&text(""), ONE_WARP, 32, LaneRace);
}

#[test]
fn an_mbarrier_that_one_lane_initialised_is_used_by_the_others_only_after_they_met() {
    let text = |between: &str| {
        support::kernel(&format!(
            ".shared .align 8 .b64 b; mov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 0;
             @%p1 bra READY; mbarrier.init.shared.b64 [b], 32;
             READY: {between}
             mbarrier.arrive.shared.b64 _, [b];
             WAIT: mbarrier.try_wait.parity.shared.b64 %p4, [b], 0; @!%p4 bra WAIT;"
        ))
    };
    clean(&text("bar.warp.sync -1;"), ONE_WARP, 1);
    caught(&text(""), ONE_WARP, 1, LaneRace);
}
