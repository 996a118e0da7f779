//! One lane arrives at an mbarrier for its warp: what the other lanes did is released only if they
//! waited for that lane (PTX ISA 8.10, 9.7.13.2).

mod support;

use qtune_sim::FindingKind::LaneRace;
use support::schedules::{caught, clean};

/// Two warps: warp 0 runs `first`, then its lane 0 arrives at the mbarrier `b`; warp 1 waits for
/// that and runs `second`. `%r1` is the thread, `%r2` the lane, `%r3` four times the lane.
fn handover(first: &str, second: &str) -> String {
    support::kernel(&format!(
        ".shared .align 16 .b8 data[128]; .shared .align 8 .b64 b;
         mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 31; shl.b32 %r3, %r2, 2;
         setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; setp.ge.u32 %p3, %r1, 32;
         mov.u32 %r4, data; add.u32 %r5, %r4, %r3; xor.b32 %r6, %r3, 4; add.u32 %r6, %r4, %r6;
         @%p1 bra READY;
         mbarrier.init.shared.b64 [b], 1;
         READY: bar.sync 0;
         @%p3 bra SECOND;
         {first}
         @%p2 bra DONE;
         mbarrier.arrive.shared.b64 _, [b];
         bra DONE;
         SECOND:
         mbarrier.try_wait.parity.shared.b64 %p4, [b], 0;
         @!%p4 bra SECOND;
         {second}
         DONE:"
    ))
}

const SHAPE: support::schedules::Shape = ([1, 1, 1], 64, [1, 1, 1]);

#[test]
fn words_that_other_lanes_wrote_are_handed_over_by_a_synchronised_lane_only() {
    let read = "ld.shared.u32 %r7, [%r5];";
    clean(&handover("st.shared.u32 [%r5], %r1; bar.warp.sync -1;", read), SHAPE, 1);
    let report = caught(&handover("st.shared.u32 [%r5], %r1;", read), SHAPE, 1, LaneRace);
    let finding = report.findings.iter().find(|f| f.kind == LaneRace).unwrap();
    assert!(finding.message.contains("bar.warp.sync is missing"), "{finding}");
    // The last word is that of the lane farthest from the one that arrived.
    assert!(finding.warp == 1 && finding.address.is_some(), "{finding}");
}

#[test]
fn words_that_other_lanes_read_may_not_be_overwritten_either() {
    let prepared = "st.shared.u32 [%r5], %r1; bar.warp.sync -1; ld.shared.u32 %r7, [%r6];";
    let overwrite = "st.shared.u32 [%r5], %r1;";
    clean(&handover(&format!("{prepared} bar.warp.sync -1;"), overwrite), SHAPE, 1);
    caught(&handover(prepared, overwrite), SHAPE, 1, LaneRace);
}

#[test]
fn lanes_behind_are_harmless_where_nobody_touches_what_they_did() {
    let first = "st.shared.u32 [%r5], %r1;";
    // Only lane 0's word, which the arriving lane wrote itself.
    clean(&handover(first, "ld.shared.u32 %r7, [data];"), SHAPE, 1);
    clean(&handover(first, "@%p2 bra DONE; st.shared.u32 [data], %r1;"), SHAPE, 1);
}

#[test]
fn bytes_of_a_word_have_lanes_of_their_own() {
    let first = "add.u32 %r8, %r4, %r2; cvt.u16.u32 %rs1, %r1; st.shared.u8 [%r8], %rs1;";
    clean(&handover(first, "@%p2 bra DONE; ld.shared.u8 %rs2, [data];"), SHAPE, 1);
    caught(&handover(first, "@%p2 bra DONE; ld.shared.u8 %rs2, [data+1];"), SHAPE, 1, LaneRace);
}

#[test]
fn part_of_a_warp_that_waited_for_the_arriving_lane_is_released_with_it() {
    let first = "setp.ge.u32 %p5, %r2, 16; st.shared.u32 [%r5], %r1;
                 @%p5 bra JOINED; bar.warp.sync 0xFFFF; JOINED:";
    clean(&handover(first, "@%p2 bra DONE; ld.shared.u32 %r7, [data+60];"), SHAPE, 1);
    let late = handover(first, "@%p2 bra DONE; ld.shared.u32 %r7, [data+64];");
    caught(&late, SHAPE, 1, LaneRace);
}

#[test]
fn a_barrier_of_the_block_releases_every_lane() {
    let text = handover("st.shared.u32 [%r5], %r1;", "")
        .replace("DONE:", "DONE: bar.sync 0; ld.shared.u32 %r7, [%r6];");
    clean(&text, SHAPE, 1);
}

#[test]
fn lanes_that_arrive_one_by_one_release_what_they_did() {
    let text = handover("st.shared.u32 [%r5], %r1;", "ld.shared.u32 %r7, [%r5];")
        .replace("[b], 1;", "[b], 32;")
        .replace("@%p2 bra DONE;", "@%p2 mbarrier.arrive.shared.b64 _, [b]; @%p2 bra DONE;");
    clean(&text, SHAPE, 1);
}

/// One warp fills a stage by a bulk copy, reads it and lets lane 0 fill it again.
fn refill(between: &str) -> String {
    support::kernel(&format!(
        ".shared .align 128 .b8 data[128]; .shared .align 8 .b64 b;
         mov.u32 %r1, %tid.x; shl.b32 %r3, %r1, 2; setp.ne.u32 %p1, %r1, 0;
         mov.u32 %r4, data; add.u32 %r5, %r4, %r3; mov.u32 %r9, 0;
         @%p1 bra READY;
         mbarrier.init.shared.b64 [b], 1;
         fence.mbarrier_init.release.cluster;
         READY: bar.warp.sync -1;
         AGAIN:
         @%p1 bra WAIT;
         mbarrier.arrive.expect_tx.shared.b64 _, [b], 128;
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%rd1], 128, [b];
         WAIT: mbarrier.try_wait.parity.shared.b64 %p4, [b], %r9;
         @!%p4 bra WAIT;
         ld.shared.u32 %r7, [%r5];
         {between}
         add.u32 %r9, %r9, 1; setp.lt.u32 %p5, %r9, 2; @%p5 bra AGAIN;"
    ))
}

#[test]
fn a_lane_that_refills_a_stage_waits_for_the_others_of_its_warp() {
    let shape = ([1, 1, 1], 32, [1, 1, 1]);
    clean(&refill("bar.warp.sync -1;"), shape, 32);
    let report = caught(&refill(""), shape, 32, LaneRace);
    assert!(report.findings[0].message.contains("read since the last bar.warp.sync"));
}

#[test]
fn a_lane_that_stores_in_bulk_waits_for_what_the_others_wrote() {
    let text = |between: &str| {
        support::kernel(&format!(
            ".shared .align 128 .b8 data[128];
             mov.u32 %r1, %tid.x; shl.b32 %r3, %r1, 2; setp.ne.u32 %p1, %r1, 0;
             mov.u32 %r4, data; add.u32 %r5, %r4, %r3; st.shared.u32 [%r5], %r1;
             fence.proxy.async.shared::cta; {between}
             @%p1 bra DONE;
             cp.async.bulk.global.shared::cta.bulk_group [%rd1], [data], 128;
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
             DONE:"
        ))
    };
    let shape = ([1, 1, 1], 32, [1, 1, 1]);
    let words = clean(&text("bar.warp.sync -1;"), shape, 32);
    assert_eq!(words, (0..32).collect::<Vec<u32>>());
    caught(&text(""), shape, 32, LaneRace);
}
