//! mbarrier objects: what every instruction does, the order it gives, and its misuse (PTX ISA
//! 9.7.13.15).

use qtune_sim::{FindingKind, RunOptions};

use crate::support::kernel;
use crate::support::schedules::{caught, clean, words, Shape};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.13", "9.7.9"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    a_ring_of_stages_hands_values_from_warp_to_warp,
    waiting_costs_few_instructions_and_is_counted,
    a_missing_wait_or_one_of_the_wrong_parity_is_found,
    relaxed_arrivals_and_waits_give_no_order,
    an_initialisation_must_be_visible_and_its_bytes_left_alone,
    states_tell_phases_and_pending_counts,
    dropped_arrivals_do_not_count_in_later_phases,
    bytes_are_expected_and_completed,
    counts_that_an_mbarrier_cannot_hold_are_found,
    asynchronous_copies_arrive_when_they_have_landed,
    arrivals_reach_mbarriers_of_other_blocks,
    a_phase_that_passes_twice_while_a_warp_waits_for_it_is_an_overrun,
    malformed_forms_are_refused_with_a_reason,
];

const BLOCK: Shape = ([1, 1, 1], 64, [1, 1, 1]);
const WARP: Shape = ([1, 1, 1], 32, [1, 1, 1]);

/// Declares `data` and mbarriers of 8 bytes, puts the thread into `%r1`, the warp into `%r2`, the
/// address of the thread's output word into `%rd9`.
fn with_barriers(body: &str) -> String {
    kernel(&format!(
        ".shared .align 16 .b8 data[1024]; .shared .align 8 .b8 bars[64];
        mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; mul.wide.u32 %rd8, %r1, 4;
        add.u64 %rd9, %rd1, %rd8; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r2, 0;
        and.b32 %r3, %r1, 31; shl.b32 %r4, %r3, 2; mov.u32 %r5, data; add.u32 %r6, %r5, %r4;
        {body}"
    ))
}

fn wait(label: &str, barrier: u32, parity: &str) -> String {
    format!(
        "{label}: mbarrier.try_wait.parity.shared::cta.b64 %p9, [bars+{}], {parity};
        @!%p9 bra {label};",
        8 * barrier
    )
}

/// Warp 1 hands eight values per lane to warp 0 through a ring of two stages; bars 0 and 1 are
/// full, 2 and 3 empty.
fn ring() -> String {
    let produce = format!(
        "{} add.u32 %r20, %r10, %r3; st.shared.u32 [%r12], %r20;
        mbarrier.arrive.shared::cta.b64 _, [%r13];",
        wait("WE", 0, "%r15").replace("[bars+0]", "[%r14]")
    );
    let consume = format!(
        "{} ld.shared.u32 %r20, [%r12]; add.u32 %r21, %r21, %r20;
        mbarrier.arrive.shared::cta.b64 _, [%r14];",
        wait("WF", 0, "%r16").replace("[bars+0]", "[%r13]")
    );
    with_barriers(&format!(
        "@!%p1 bra I; mbarrier.init.shared::cta.b64 [bars], 32; mbarrier.init.shared.b64 [bars+8], 32;
        mbarrier.init.shared.b64 [bars+16], 32; mbarrier.init.shared.b64 [bars+24], 32;
        I: bar.sync 0;
        mov.u32 %r10, 0; mov.u32 %r21, 0; mov.u32 %r17, bars;
        L: and.b32 %r11, %r10, 1; shl.b32 %r18, %r11, 7; add.u32 %r12, %r6, %r18;
        shl.b32 %r18, %r11, 3; add.u32 %r13, %r17, %r18; add.u32 %r14, %r13, 16;
        shr.u32 %r16, %r10, 1; and.b32 %r16, %r16, 1; xor.b32 %r15, %r16, 1;
        @%p2 bra C;
        {produce} bra N;
        C: {consume}
        N: add.u32 %r10, %r10, 1; setp.lt.u32 %p3, %r10, 8; @%p3 bra L;
        st.global.u32 [%rd9], %r21;"
    ))
}

#[test]
fn a_ring_of_stages_hands_values_from_warp_to_warp() {
    let words = clean(&ring(), BLOCK, 64);
    let expected: Vec<u32> = (0..64).map(|t| if t < 32 { 28 + 8 * t } else { 0 }).collect();
    assert_eq!(words, expected);
}

#[test]
fn waiting_costs_few_instructions_and_is_counted() {
    let (_, report) = words(&ring(), BLOCK, 64, &RunOptions::default()).unwrap();
    let waits = report.counters.failed_waits;
    assert!((1..=16).contains(&waits), "{waits} failed waits");
}

#[test]
fn a_missing_wait_or_one_of_the_wrong_parity_is_found() {
    let full = ring().replace("@!%p9 bra WF;", "");
    caught(&full, BLOCK, 64, FindingKind::SharedRace);
    let empty = ring().replace("@!%p9 bra WE;", "");
    caught(&empty, BLOCK, 64, FindingKind::SharedRace);
    // The producer waits for a phase that only comes after its own.
    let parity = ring().replace("xor.b32 %r15, %r16, 1", "mov.u32 %r15, %r16");
    let report = caught(&parity, BLOCK, 64, FindingKind::Deadlock);
    let text = &report.findings[0].message;
    assert!(text.contains("phase 0, 32 of 32 arrivals and 0 bytes pending"), "{text}");
}

#[test]
fn relaxed_arrivals_and_waits_give_no_order() {
    let arrive = "mbarrier.arrive.shared::cta.b64 _, [%r13];";
    let relaxed = ring().replace(arrive, "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r13];");
    caught(&relaxed, BLOCK, 64, FindingKind::SharedRace);
    let released = ring().replace(arrive, "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r13];");
    clean(&released, BLOCK, 64);
    let wait = ring().replace("try_wait.parity.shared", "try_wait.parity.relaxed.cta.shared");
    caught(&wait, BLOCK, 64, FindingKind::SharedRace);
}

#[test]
fn an_initialisation_must_be_visible_and_its_bytes_left_alone() {
    let hidden = ring().replace("I: bar.sync 0;", "I:");
    caught(&hidden, BLOCK, 64, FindingKind::MbarrierMisuse);
    for access in ["ld.shared.u64 %rd5, [bars+8];", "st.shared.u8 [bars+9], %r1;"] {
        let text = ring().replace("mov.u32 %r10, 0;", &format!("mov.u32 %r10, 0; {access}"));
        caught(&text, BLOCK, 64, FindingKind::MbarrierMisuse);
    }
    let twice =
        ring().replace("I: bar.sync 0;", "mbarrier.init.shared.b64 [bars], 32; I: bar.sync 0;");
    caught(&twice, BLOCK, 64, FindingKind::MbarrierMisuse);
    // After mbarrier.inval the bytes are data, and can be initialised again.
    clean(
        &ring().replace(
            "I: bar.sync 0;",
            "mbarrier.inval.shared.b64 [bars]; st.shared.u32 [bars], %r1;
            mbarrier.init.shared.b64 [bars], 32; I: bar.sync 0;",
        ),
        BLOCK,
        64,
    );
}

/// One lane works on one mbarrier of count 3 and stores `%r20`.
fn single(body: &str) -> String {
    with_barriers(&format!(
        "@!%p1 bra E; mbarrier.init.shared.b64 [bars], 3; {body} st.global.u32 [%rd9], %r20; E:"
    ))
}

const TEST: &str = "mbarrier.test_wait.shared.b64 %p4, [bars], %rd5; selp.u32 %r20, 1, 0, %p4;";

#[test]
fn states_tell_phases_and_pending_counts() {
    let arrive = "mbarrier.arrive.shared.b64 %rd5, [bars];";
    let two = format!("{arrive} mbarrier.arrive.shared.b64 _, [bars];");
    let run = |body: &str| clean(&single(body), WARP, 1)[0];
    assert_eq!(run(&format!("{two} {TEST}")), 0);
    assert_eq!(run(&format!("{two} mbarrier.arrive.shared.b64 _, [bars]; {TEST}")), 1);
    assert_eq!(run(&format!("{arrive} mbarrier.arrive.shared.b64 _, [bars], 2; {TEST}")), 1);
    let count = "mbarrier.pending_count.b64 %r20, %rd5;";
    assert_eq!(run(&format!("{two} mbarrier.arrive.shared.b64 %rd5, [bars]; {count}")), 1);
    assert_eq!(run(&format!("mbarrier.arrive.noComplete.shared.b64 %rd5, [bars], 2; {count}")), 3);
    // Generic addresses work alike.
    let generic =
        "mov.u64 %rd6, bars; cvta.shared.u64 %rd7, %rd6; mbarrier.arrive.b64 %rd5, [%rd7], 3;
        mbarrier.try_wait.b64 %p4, [%rd7], %rd5, 100; selp.u32 %r20, 1, 0, %p4;";
    assert_eq!(run(generic), 1);
}

#[test]
fn dropped_arrivals_do_not_count_in_later_phases() {
    let body = format!(
        "mbarrier.arrive_drop.shared.b64 _, [bars]; mbarrier.arrive.shared.b64 _, [bars], 2;
        mbarrier.arrive.shared.b64 %rd5, [bars], 2; {TEST}"
    );
    assert_eq!(clean(&single(&body), WARP, 1), [1]);
}

#[test]
fn bytes_are_expected_and_completed() {
    let run = |complete: u32| {
        let body = format!(
            "mbarrier.arrive.expect_tx.shared.b64 %rd5, [bars], 64;
            mbarrier.complete_tx.relaxed.cta.shared.b64 [bars], {complete};
            mbarrier.expect_tx.relaxed.cta.shared.b64 [bars], 16;
            mbarrier.complete_tx.shared.b64 [bars], 16;
            mbarrier.arrive.shared.b64 _, [bars], 2; {TEST}"
        );
        clean(&single(&body), WARP, 1)[0]
    };
    assert_eq!((run(64), run(48)), (1, 0));
}

#[test]
fn counts_that_an_mbarrier_cannot_hold_are_found() {
    let arrive =
        |count: u32| format!("mbarrier.arrive.shared.b64 _, [bars], {count}; mov.u32 %r20, 0;");
    clean(&single(&arrive(3)), WARP, 1);
    let many = caught(&single(&arrive(4)), WARP, 1, FindingKind::MbarrierMisuse);
    assert!(many.findings[0].message.contains("more arrivals than the 3"), "{:?}", many.findings);
    for body in [
        "mbarrier.expect_tx.shared.b64 [bars], 1048576; mov.u32 %r20, 0;",
        "mbarrier.complete_tx.shared.b64 [bars], 1048576; mov.u32 %r20, 0;",
        "mbarrier.arrive.noComplete.shared.b64 _, [bars], 3; mov.u32 %r20, 0;",
        "mbarrier.init.shared.b64 [bars+8], 0; mov.u32 %r20, 0;",
        "mbarrier.arrive.shared.b64 _, [bars+16]; mov.u32 %r20, 0;",
        "mbarrier.inval.shared.b64 [bars]; mbarrier.arrive.shared.b64 _, [bars]; mov.u32 %r20, 0;",
    ] {
        caught(&single(body), WARP, 1, FindingKind::MbarrierMisuse);
    }
    let misaligned = "mbarrier.init.shared.b64 [bars+4], 1; mov.u32 %r20, 0;";
    caught(&single(misaligned), WARP, 1, FindingKind::Misaligned);
    let outside = "mbarrier.init.shared.b64 [bars+64], 1; mov.u32 %r20, 0;";
    caught(&single(outside), WARP, 1, FindingKind::OutOfBounds);
}

/// Each lane of warp 1 copies a word with `cp.async` and lets bar 0 arrive; warp 0 waits.
fn copies(count: u32, arrive: &str) -> String {
    with_barriers(&format!(
        "st.global.u32 [%rd9], %r1; bar.sync 0;
        @!%p1 bra I; mbarrier.init.shared.b64 [bars], {count}; I: bar.sync 0;
        @%p2 bra C;
        cp.async.ca.shared.global [%r6], [%rd9], 4;
        {arrive} bra E;
        C: {} ld.shared.u32 %r20, [%r6]; st.global.u32 [%rd9], %r20; E:",
        wait("W", 0, "0")
    ))
}

#[test]
fn asynchronous_copies_arrive_when_they_have_landed() {
    let expected: Vec<u32> = (0..64).map(|t| 32 + t % 32).collect();
    let noinc = "cp.async.mbarrier.arrive.noinc.shared.b64 [bars];";
    assert_eq!(clean(&copies(32, noinc), BLOCK, 64), expected);
    let counted =
        "cp.async.mbarrier.arrive.shared::cta.b64 [bars]; mbarrier.arrive.shared.b64 _, [bars];";
    assert_eq!(clean(&copies(32, counted), BLOCK, 64), expected);
    // A plain arrival does not wait for the copies.
    let early = copies(32, "mbarrier.arrive.shared.b64 _, [bars];");
    caught(&early, BLOCK, 64, FindingKind::AsyncNotAwaited);
    // Waiting for the group instead makes the data the thread's own.
    let awaited = "cp.async.mbarrier.arrive.noinc.shared.b64 [bars]; cp.async.wait_all;
        ld.shared.u32 %r20, [%r6];";
    clean(&copies(32, awaited), BLOCK, 64);
}

#[test]
fn arrivals_reach_mbarriers_of_other_blocks() {
    let text = |scope: &str| {
        with_barriers(&format!(
            "mov.u32 %r7, %cluster_ctarank; xor.b32 %r8, %r7, 1;
            @!%p1 bra I; mbarrier.init.shared.b64 [bars], 32; fence.mbarrier_init.release.cluster;
            I: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
            mapa.shared::cluster.u32 %r10, %r6, %r8; mov.u32 %r11, bars;
            mapa.shared::cluster.u32 %r12, %r11, %r8;
            st.shared::cluster.u32 [%r10], %r7;
            mbarrier.arrive{scope}.shared::cluster.b64 _, [%r12];
            {} ld.shared.u32 %r20, [%r6];
            mov.u32 %r13, %ctaid.x; mul.wide.u32 %rd5, %r13, 128; add.u64 %rd9, %rd9, %rd5;
            st.global.u32 [%rd9], %r20;
            barrier.cluster.arrive.relaxed; barrier.cluster.wait;",
            wait("W", 0, "0")
        ))
    };
    let expected: Vec<u32> = (0..64).map(|t| u32::from(t < 32)).collect();
    let pair: Shape = ([2, 1, 1], 32, [2, 1, 1]);
    assert_eq!(clean(&text(".release.cluster"), pair, 64), expected);
    assert_eq!(clean(&text(""), pair, 64), expected);
    caught(&text(".relaxed.cluster"), pair, 64, FindingKind::SharedRace);
}

#[test]
fn a_phase_that_passes_twice_while_a_warp_waits_for_it_is_an_overrun() {
    // Warp 0 waits for phase 0 and is not given a turn before warp 1 completed two phases.
    let text = with_barriers(&format!(
        "@!%p1 bra I; mbarrier.init.shared.b64 [bars], 1; I: bar.sync 0;
        @%p2 bra C; @!%p3 bra P; P: setp.eq.u32 %p4, %r3, 0; @!%p4 bra E;
        mbarrier.arrive.shared.b64 _, [bars]; mbarrier.arrive.shared.b64 _, [bars];
        mbarrier.arrive.shared.b64 _, [bars]; bra E;
        C: {} E:",
        wait("W", 0, "0")
    ))
    .replace("@!%p3 bra P; P:", "");
    let (_, report) = words(&text, BLOCK, 64, &RunOptions::default()).unwrap();
    let overrun = report.findings.iter().find(|f| f.kind == FindingKind::MbarrierMisuse).unwrap();
    assert!(overrun.message.contains("from phase 0 to 3"), "{overrun}");
}

#[test]
fn malformed_forms_are_refused_with_a_reason() {
    let refuse = |instruction: &str| {
        words(&with_barriers(instruction), WARP, 1, &RunOptions::default()).unwrap_err().to_string()
    };
    assert!(refuse("mbarrier.arrive.shared.b64 [bars];").contains("the state is missing"));
    assert!(refuse("mbarrier.arrive.shared::cluster.b64 %rd5, [bars];").contains("has no state"));
    assert!(refuse("mbarrier.arrive.release.shared.b64 _, [bars];").contains("needs a scope"));
    assert!(refuse("mbarrier.arrive.expect_tx.shared.b64 _, [bars];").contains("operands"));
    assert!(refuse("mbarrier.test_wait.shared.b64 %p4, [bars], %rd5, 7;").contains("4 operands"));
}
