//! Bulk copies in every direction, their mbarriers and groups, and what goes wrong with them (PTX
//! ISA 9.7.9.25.4, 9.7.9.25.5).

use qtune_sim::{Class, FindingKind, RunOptions};

use crate::support::kernel;
use crate::support::schedules::{caught, clean, kinds, schedules, words, Shape};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9", "9.7.13"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    a_bulk_load_lands_before_its_phase_completes,
    bulk_bytes_and_sectors_are_counted_once_per_copy,
    data_that_was_not_waited_for_is_found,
    a_load_over_bytes_that_are_still_used_is_found,
    a_block_that_exits_while_a_copy_is_in_flight_is_found,
    sizes_addresses_and_bounds_of_bulk_copies_are_checked,
    a_bulk_store_writes_global_memory_by_its_wait,
    reductions_add_to_global_memory_elementwise,
    stores_need_a_fence_before_and_a_wait_after,
    blocks_of_a_cluster_exchange_shared_memory_in_bulk,
    asynchronous_stores_reach_other_blocks,
    a_multicast_lands_in_every_block_of_its_mask,
    what_is_not_simulated_is_refused_with_a_reason,
];

const BLOCK: Shape = ([1, 1, 1], 64, [1, 1, 1]);
const PAIR: Shape = ([2, 1, 1], 64, [2, 1, 1]);

/// Initialises an mbarrier `bar` for one arrival; thread in `%r1`, its word of `data` in `%r6`,
/// its output word in `%rd9`, "is thread 0" in `%p1`, the rank in `%r2`.
fn with_barrier(body: &str) -> String {
    kernel(&format!(
        ".shared .align 128 .b8 data[2048]; .shared .align 8 .b8 bar[8];
        mov.u32 %r1, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r2, %cluster_ctarank;
        mad.lo.u32 %r4, %r3, 64, %r1; mul.wide.u32 %rd8, %r4, 4; add.u64 %rd9, %rd1, %rd8;
        shl.b32 %r5, %r1, 2; mov.u32 %r7, data; add.u32 %r6, %r7, %r5; mov.u32 %r8, bar;
        setp.eq.u32 %p1, %r1, 0;
        @!%p1 bra I; mbarrier.init.shared::cta.b64 [bar], 1; fence.mbarrier_init.release.cluster;
        I: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
        {body}"
    ))
}

const WAIT: &str = "W: mbarrier.try_wait.parity.shared::cta.b64 %p9, [bar], 0; @!%p9 bra W;";

/// Every thread writes its number plus 100 into global memory, then the block's words are loaded.
fn loading(copy: &str) -> String {
    with_barrier(&format!(
        "add.u32 %r10, %r4, 100; st.global.u32 [%rd9], %r10; bar.sync 0;
        @!%p1 bra C;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;
        {copy}
        C: {WAIT}
        ld.shared.u32 %r11, [%r6]; add.u32 %r11, %r11, 1; st.global.u32 [%rd9], %r11;"
    ))
}

const LOAD: &str =
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%rd9], 256, [bar];";

#[test]
fn a_bulk_load_lands_before_its_phase_completes() {
    let expected: Vec<u32> = (0..64).map(|t| t + 101).collect();
    assert_eq!(clean(&loading(LOAD), BLOCK, 64), expected);
    let own = LOAD.replace("shared::cluster", "shared::cta");
    assert_eq!(clean(&loading(&own), BLOCK, 64), expected);
    let hinted =
        LOAD.replace("bytes [", "bytes.L2::cache_hint [").replace("[bar];", "[bar], %rd1;");
    assert_eq!(clean(&loading(&hinted), BLOCK, 64), expected);
    let halves = format!(
        "{}{}",
        LOAD.replace("256", "128"),
        LOAD.replace("256", "128").replace("[data], [%rd9]", "[data+128], [%rd9+128]")
    );
    assert_eq!(clean(&loading(&halves), BLOCK, 64), expected);
}

#[test]
fn bulk_bytes_and_sectors_are_counted_once_per_copy() {
    let (_, report) = words(&loading(LOAD), BLOCK, 64, &RunOptions::default()).unwrap();
    let counters = &report.counters;
    assert_eq!((counters.bulk_bytes, counters.class(Class::BulkCopy).warp_instructions), (256, 1));
    let loads = counters.buffer("p").unwrap().loads;
    assert_eq!((loads.requests, loads.sectors, loads.ideal_sectors, loads.bytes), (1, 8, 8, 256));
}

#[test]
fn data_that_was_not_waited_for_is_found() {
    let unwaited = loading(LOAD).replace(WAIT, "");
    caught(&unwaited, BLOCK, 64, FindingKind::AsyncNotAwaited);
    let too_few = loading(LOAD).replace("[bar], 256;\n", "[bar], 128;\n");
    caught(&too_few, BLOCK, 64, FindingKind::Deadlock);
    let too_many = loading(LOAD).replace("[bar], 256;\n", "[bar], 512;\n");
    let report = caught(&too_many, BLOCK, 64, FindingKind::Deadlock);
    let text = &report.findings[0].message;
    assert!(text.contains("phase 0, 0 of 1 arrivals and 256 bytes pending"), "{text}");
    let unannounced = loading(LOAD).replace(
        "arrive.expect_tx.shared::cta.b64 _, [bar], 256",
        "arrive.shared::cta.b64 _, [bar]",
    );
    caught(&unannounced, BLOCK, 64, FindingKind::AsyncNotAwaited);
}

#[test]
fn a_load_over_bytes_that_are_still_used_is_found() {
    // Words read or written by other threads without a barrier between.
    for access in ["ld.shared.u32 %r12, [%r6];", "st.shared.u32 [%r6], %r1;"] {
        let text = loading(LOAD).replace("@!%p1 bra C;", &format!("{access} @!%p1 bra C;"));
        for options in schedules() {
            let (_, report) = words(&text, BLOCK, 64, &options).unwrap();
            // Which it is depends on whether the copy or the other warp comes first.
            let found = [FindingKind::SharedRace, FindingKind::AsyncNotAwaited];
            assert!(
                kinds(&report).iter().any(|kind| found.contains(kind)),
                "{:?}",
                report.findings
            );
        }
    }
    let unfenced = "st.shared.u32 [%r6], %r1; bar.sync 0; @!%p1 bra C;";
    let text = loading(LOAD).replace("@!%p1 bra C;", unfenced);
    caught(&text, BLOCK, 64, FindingKind::ProxyFence);
    let fenced = "st.shared.u32 [%r6], %r1; fence.proxy.async.shared::cta; bar.sync 0;";
    clean(&loading(LOAD).replace("@!%p1 bra C;", &format!("{fenced} @!%p1 bra C;")), BLOCK, 64);
}

#[test]
fn a_block_that_exits_while_a_copy_is_in_flight_is_found() {
    let text = loading(LOAD);
    let abandoned =
        format!("{} ret; }}", &text[..text.find("C: W:").unwrap()].replace("bra C", "ret"));
    let (_, report) = words(&abandoned, BLOCK, 64, &RunOptions::default()).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::AsyncNotAwaited, "{:?}", report.findings);
}

#[test]
fn sizes_addresses_and_bounds_of_bulk_copies_are_checked() {
    let with = |from: &str, to: &str| loading(&LOAD.replace(from, to));
    caught(&with("256", "248"), BLOCK, 64, FindingKind::InvalidOperand);
    caught(&with("[data]", "[data+8]"), BLOCK, 64, FindingKind::Misaligned);
    caught(&with("[%rd9]", "[%rd9+4]"), BLOCK, 64, FindingKind::Misaligned);
    caught(&with("[data]", "[data+1920]"), BLOCK, 64, FindingKind::OutOfBounds);
    caught(&with("[%rd9]", "[%rd9+16]"), BLOCK, 64, FindingKind::OutOfBounds);
    caught(&with("[bar]", "[bar+4]"), BLOCK, 64, FindingKind::Misaligned);
    caught(&with("[bar]", "[data+1024]"), BLOCK, 64, FindingKind::MbarrierMisuse);
}

/// Each thread stores a word to shared memory and thread 0 copies all of them out.
fn storing(fence: &str, copy: &str, after: &str) -> String {
    with_barrier(&format!(
        "add.u32 %r10, %r4, 7; st.shared.u32 [%r6], %r10; {fence} bar.sync 0;
        @!%p1 bra C;
        {copy}
        cp.async.bulk.commit_group;
        {after}
        C:"
    ))
}

const FENCE: &str = "fence.proxy.async.shared::cta;";
const STORE: &str = "cp.async.bulk.global.shared::cta.bulk_group [%rd9], [data], 256;";
const DONE: &str = "cp.async.bulk.wait_group 0;";

#[test]
fn a_bulk_store_writes_global_memory_by_its_wait() {
    let expected: Vec<u32> = (0..64).map(|t| t + 7).collect();
    assert_eq!(clean(&storing(FENCE, STORE, DONE), BLOCK, 64), expected);
    let read = "cp.async.bulk.wait_group.read 0; mov.u32 %r10, 1; st.shared.u32 [data], %r10;";
    assert_eq!(clean(&storing(FENCE, STORE, read), BLOCK, 64), expected);
    // The newest group may stay open: only the first of two copies is waited for.
    let two = format!("{STORE} cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;");
    let reused = format!("{two} st.shared.u32 [data], %r1;");
    caught(&storing("", &reused, DONE), BLOCK, 64, FindingKind::ProxyFence);
}

#[test]
fn reductions_add_to_global_memory_elementwise() {
    let add = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd1], [data], 256;";
    let both = clean(&storing(FENCE, add, DONE), ([2, 1, 1], 64, [1, 1, 1]), 64);
    let expected: Vec<u32> = (0..64).map(|t| t + 7 + t + 64 + 7).collect();
    assert_eq!(both, expected);
    let halves = add.replace(".add.u32", ".add.noftz.f16");
    clean(&storing(FENCE, &halves, DONE), BLOCK, 64);
}

#[test]
fn stores_need_a_fence_before_and_a_wait_after() {
    caught(&storing("", STORE, DONE), BLOCK, 64, FindingKind::ProxyFence);
    caught(&storing(FENCE, STORE, ""), BLOCK, 64, FindingKind::AsyncNotAwaited);
    let lax = "cp.async.bulk.wait_group.read 1; st.shared.u32 [data], %r1;";
    caught(&storing(FENCE, STORE, lax), BLOCK, 64, FindingKind::AsyncRead);
    let early = format!("{STORE} st.shared.u32 [data+128], %r1;");
    caught(&storing(FENCE, &early, DONE), BLOCK, 64, FindingKind::AsyncRead);
    let undefined = STORE.replace("256", "512");
    caught(&storing(FENCE, &undefined, DONE), BLOCK, 128, FindingKind::UninitialisedShared);
}

/// Both blocks of a pair store words; rank 1 gets those of rank 0, and each block writes its own.
fn exchanging(copy: &str) -> String {
    with_barrier(&format!(
        "add.u32 %r10, %r4, 7; st.shared.u32 [%r6], %r10; st.shared.u32 [%r6+256], %r10;
        {FENCE} barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
        setp.eq.u32 %p2, %r2, 0; setp.eq.u32 %p3, %r2, 1; mov.u32 %r12, 1;
        mapa.shared::cluster.u32 %r13, %r7, %r12; mapa.shared::cluster.u32 %r14, %r8, %r12;
        and.pred %p4, %p1, %p2; and.pred %p5, %p1, %p3;
        @%p5 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;
        @!%p4 bra C;
        {copy}
        C: @%p2 bra D; {WAIT} D:
        ld.shared.u32 %r11, [%r6]; st.global.u32 [%rd9], %r11;
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    ))
}

#[test]
fn blocks_of_a_cluster_exchange_shared_memory_in_bulk() {
    let copy = "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r13], [data+256], 256, [%r14];";
    let expected: Vec<u32> = (0..128).map(|t| t % 64 + 7).collect();
    assert_eq!(clean(&exchanging(copy), PAIR, 128), expected);
    let add =
        copy.replace("cp.async.bulk", "cp.reduce.async.bulk").replace("::bytes", "::bytes.add.u32");
    let sums: Vec<u32> = (0..64).map(|t| t + 7).chain((0..64).map(|t| 2 * t + 78)).collect();
    assert_eq!(clean(&exchanging(&add), PAIR, 128), sums);
    // The mbarrier has to be beside the destination.
    let elsewhere = copy.replace("[%r14]", "[bar]");
    caught(&exchanging(&elsewhere), PAIR, 128, FindingKind::MbarrierMisuse);
    let overwritten = format!("{copy} st.shared.u32 [data+256], %r1;");
    let (_, report) = words(&exchanging(&overwritten), PAIR, 128, &RunOptions::default()).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::AsyncRead, "{:?}", report.findings);
}

#[test]
fn asynchronous_stores_reach_other_blocks() {
    // Thread 0 sends sixteen bytes, of which the mbarrier is told.
    let store = "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r13], {%r4, %r12, %r12, %r10}, [%r14];";
    let text = exchanging(store).replace("[bar], 256", "[bar], 16");
    let words = clean(&text, PAIR, 128);
    assert_eq!(words[64..69], [0, 1, 1, 7, 75]);
    let add = "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r13], %r12, [%r14];";
    let text = exchanging(add).replace("[bar], 256", "[bar], 4");
    assert_eq!(clean(&text, PAIR, 128)[64..66], [72, 72]);
}

/// Rank 0 sends its words to all blocks in the mask.
fn multicasting(mask: &str) -> String {
    with_barrier(&format!(
        "add.u32 %r10, %r4, 7; st.global.u32 [%rd9], %r10;
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
        setp.eq.u32 %p2, %r2, 0; and.pred %p4, %p1, %p2; mov.u16 %rs1, {mask};
        @%p4 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [data], [%rd9], 256, [bar], %rs1;
        {WAIT}
        ld.shared.u32 %r11, [%r6]; st.global.u32 [%rd9], %r11;
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    ))
}

#[test]
fn a_multicast_lands_in_every_block_of_its_mask() {
    let expected: Vec<u32> = (0..128).map(|t| t % 64 + 7).collect();
    assert_eq!(clean(&multicasting("3"), PAIR, 128), expected);
    caught(&multicasting("1"), PAIR, 128, FindingKind::Deadlock);
    caught(&multicasting("7"), PAIR, 128, FindingKind::InvalidOperand);
}

#[test]
fn what_is_not_simulated_is_refused_with_a_reason() {
    let refuse = |instruction: &str| {
        words(&with_barrier(instruction), BLOCK, 64, &RunOptions::default())
            .unwrap_err()
            .to_string()
    };
    let im2col = "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [data], [%rd1, {%r1, %r1, %r1}], [bar], {%rs1};";
    assert!(refuse(im2col).contains(".im2col"), "{}", refuse(im2col));
    let coordinates = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%rd1, {%r1}], [bar];";
    assert!(refuse(coordinates).contains("1 coordinates for 2 dimensions"));
    let minimum = "cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f32 [%rd1], [data], 16;";
    assert!(refuse(minimum).contains("not simulated for `.f32`"));
    let masked = "cp.async.bulk.global.shared::cta.bulk_group.cp_mask [%rd1], [data], 16, %rs1;";
    assert!(refuse(masked).contains(".cp_mask"));
}
