//! Branches and barriers (PTX ISA 9.7.12, 9.7.13, 9.7.19).

use qtune_sim::{Access, FindingKind, Memory, RunOptions};

use crate::harness::*;
use crate::support::{at, kernel, launch};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.12", "9.7.13", "9.7.19"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    divergent_lanes_take_their_own_paths_and_meet_again,
    barrier_reductions_count_and_combine_predicates,
    an_indexed_branch_sends_every_lane_to_its_own_target,
    barriers_of_any_spelling_order_the_warps_that_meet,
    traps_sleeps_and_register_requests_have_their_effects,
];

#[test]
fn divergent_lanes_take_their_own_paths_and_meet_again() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    // Collatz steps: a loop that every lane leaves at its own time, with a nested branch.
    let body = "mov.u32 %r7, %r2; add.s32 %r7, %r7, 1;\n\
                T: setp.le.u32 %p1, %r7, 1;\n@%p1 bra D;\n\
                and.b32 %r8, %r7, 1; setp.eq.u32 %p2, %r8, 0;\n@%p2 bra E;\n\
                mad.lo.s32 %r7, %r7, 3, 1; bra.uni N;\nE: shr.u32 %r7, %r7, 1;\n\
                N: add.s32 %r5, %r5, 1; bra T;\nD: activemask.b32 %r6;";
    let steps = |start: u32| {
        let (mut value, mut count) = (start + 1, 0);
        while value > 1 {
            value = if value % 2 == 0 { value / 2 } else { 3 * value + 1 };
            count += 1;
        }
        count
    };
    let [counts, mask] = run(body, [&lanes, &lanes, &lanes]);
    assert_eq!(counts, std::array::from_fn(|l| steps(l as u32)));
    assert_eq!(mask, [u32::MAX; 32]);
}

#[test]
fn barrier_reductions_count_and_combine_predicates() {
    let text = kernel(
        "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 40; bar.red.popc.u32 %r2, 0, %p1;\n\
         barrier.cta.red.and.aligned.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, 64, !%p1;\n\
         selp.u32 %r3, 1, 0, %p2; selp.u32 %r4, 2, 0, %p3; add.s32 %r3, %r3, %r4;\n\
         st.global.u32 [%rd1], %r2; st.global.u32 [%rd1+4], %r3;",
    );
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8, Access::ReadWrite).unwrap();
    memory.write(p, 0, &[0; 8]).unwrap();
    let options = RunOptions::default();
    let report =
        launch(&text, ([1, 1, 1], [64, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(memory.read(p, 0, 8).unwrap(), [40, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn an_indexed_branch_sends_every_lane_to_its_own_target() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let body = |guard: &str, index: &str| {
        format!(
            "{index} setp.lt.u32 %p1, %r1, 30; mov.u32 %r5, 9;
             ts: .branchtargets A, B, A, C;
             {guard} brx.idx %r7, ts;
             bra N;
             A: mov.u32 %r5, 1; bra N; B: mov.u32 %r5, 2; bra N; C: mov.u32 %r5, 3;
             N: activemask.b32 %r6;"
        )
    };
    let expected = |l: usize| [1, 2, 1, 3][l % 4];
    let [found, mask] = run(&body("", "and.b32 %r7, %r1, 3;"), [&lanes, &lanes, &lanes]);
    assert_eq!(found, std::array::from_fn(expected));
    assert_eq!(mask, [u32::MAX; 32], "the lanes meet again");
    let [found, _] = run(&body("@%p1", "and.b32 %r7, %r1, 3;"), [&lanes, &lanes, &lanes]);
    assert_eq!(found, std::array::from_fn(|l| if l < 30 { expected(l) } else { 9 }));
    let [found, _] = run(&body("", "mov.u32 %r7, 1;"), [&lanes, &lanes, &lanes]);
    assert_eq!(found, [2; 32]);

    let mut memory = Memory::new();
    let p = memory.alloc("p", 256, Access::ReadWrite).unwrap();
    let text = kernel(&format!("mov.u32 %r1, %tid.x; {}", body("", "mov.u32 %r7, 4;")));
    let shape = ([1, 1, 1], [32, 1, 1], 0);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    let finding = &report.findings[0];
    assert!(finding.message.contains("index 4 of 4 branch targets"), "{finding}");
}

#[test]
fn barriers_of_any_spelling_order_the_warps_that_meet() {
    // The second warp reads what the first one wrote; `griddepcontrol` orders nothing here.
    for (arrive, wait) in [
        ("bar.arrive 1, 64;", "bar.sync 1, 64;"),
        ("barrier.arrive 1, 64;", "barrier.sync 1, 64;"),
        ("barrier.cta.arrive.aligned 1, 64;", "barrier.cta.sync.aligned 1, 64;"),
        ("barrier.red.popc.u32 %r8, 1, 64, %p1;", "barrier.red.popc.u32 %r8, 1, 64, %p1;"),
    ] {
        let text = kernel(&format!(
            ".shared .b32 word; griddepcontrol.launch_dependents; griddepcontrol.wait;
             mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32; @%p1 bra SECOND;
             st.shared.u32 [word], 5; {arrive} exit;
             SECOND: {wait} ld.shared.u32 %r5, [word]; st.global.u32 [%rd1], %r5;"
        ));
        let mut memory = Memory::new();
        let p = memory.alloc("p", 4, Access::ReadWrite).unwrap();
        let options = RunOptions::default();
        let shape = ([1, 1, 1], [64, 1, 1], 0);
        let report = launch(&text, shape, vec![at(p)], &mut memory, &options).unwrap();
        assert!(report.findings.is_empty(), "{arrive}: {:#?}", report.findings);
        assert_eq!(memory.read(p, 0, 4).unwrap(), [5, 0, 0, 0]);
    }
}

#[test]
fn traps_sleeps_and_register_requests_have_their_effects() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let slept = run("nanosleep.u32 100; mov.u32 %r5, %r2;", [&lanes, &lanes, &lanes])[0];
    assert_eq!(slept, lanes);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 4, Access::ReadWrite).unwrap();
    let options = RunOptions::default();
    let text = kernel("st.global.u32 [%rd1], 1; trap; st.global.u32 [%rd1], 2;");
    let report =
        launch(&text, ([1, 1, 1], [1, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::Trap);
    assert_eq!(memory.read(p, 0, 4).unwrap(), [1, 0, 0, 0], "nothing runs behind a trap");
    let text = kernel("setmaxnreg.dec.sync.aligned.u32 40; st.global.u32 [%rd1], 3;")
        .replace("(.param .u64 p)", "(.param .u64 p) .maxntid 128 .maxnreg 64");
    let report =
        launch(&text, ([1, 1, 1], [128, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(memory.read(p, 0, 4).unwrap(), [3, 0, 0, 0]);
}
