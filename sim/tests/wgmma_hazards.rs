//! What `wgmma` and its warpgroup demand of a kernel, one violation at a time.

mod support;

use qtune_sim::FindingKind;
use support::warpgroup::*;

const FENCE: &str = "wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";

fn case() -> Case {
    let layout = Layout::KMajor(128);
    Case::new(F16, F16, 16, [layout, layout], 1)
}

fn with_registers() -> Case {
    let mut case = case();
    case.a_in_registers = true;
    case
}

/// Kinds found when the instruction of a case stands for `W` in the body.
fn found(case: &Case, body: &str) -> Vec<FindingKind> {
    let body = body.replace('W', &format!("{}\n", case.instruction()));
    let mut kinds: Vec<FindingKind> =
        execute(case, &body).1.into_iter().map(|finding| finding.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn correct_sequences_give_no_finding() {
    for body in [
        format!("{FENCE}W{COMMIT}{WAIT}"),
        // Products on the same accumulators need no fence between them.
        format!("{FENCE}WW{COMMIT}W{COMMIT}wgmma.wait_group.sync.aligned 1;\n{WAIT}"),
        // Accumulators are used between two batches.
        format!("{FENCE}W{COMMIT}{WAIT} add.u32 %r400, %r400, 0; {FENCE}W{COMMIT}{WAIT}"),
        // A copy of a register in flight is another name for it.
        format!("{FENCE}W{COMMIT} mov.b32 %r500, %r400; mov.b32 %r400, %r500; W{COMMIT}{WAIT}"),
    ] {
        assert_eq!(found(&case(), &body), [], "{body}");
    }
    let body = format!(
        "{FENCE}W{COMMIT}{WAIT} mov.b32 %r300, 0; {FENCE}W{COMMIT}{WAIT} mov.b32 %r300, 1;"
    );
    assert_eq!(found(&with_registers(), &body), []);
}

#[test]
fn a_fence_is_needed_first_and_after_accesses_to_the_registers() {
    for body in [
        format!("W{COMMIT}{WAIT}"),
        format!("{FENCE} mov.b32 %r400, 0; W{COMMIT}{WAIT}"),
        format!("{FENCE}W{COMMIT}{WAIT} add.u32 %r9, %r400, 1; W{COMMIT}{WAIT}"),
    ] {
        assert_eq!(found(&case(), &body), [FindingKind::WgmmaHazard], "{body}");
    }
    let body = format!("{FENCE}W{COMMIT}{WAIT} mov.b32 %r301, 0; W{COMMIT}{WAIT}");
    assert_eq!(found(&with_registers(), &body), [FindingKind::WgmmaHazard]);
}

#[test]
fn registers_of_a_pending_product_may_not_be_touched() {
    for body in [
        format!("{FENCE}W{COMMIT} add.u32 %r9, %r400, 1; {WAIT}"),
        format!("{FENCE}W{COMMIT} mov.b32 %r407, 0; {WAIT}"),
        format!("{FENCE}W{COMMIT} mov.b32 %r500, %r400; st.global.u32 [%rd6], %r500; {WAIT}"),
        // The wait leaves the newest batch pending.
        format!("{FENCE}W{COMMIT}wgmma.wait_group.sync.aligned 1; add.u32 %r9, %r400, 1; {WAIT}"),
        // Or covers another batch only.
        format!("{FENCE}W{WAIT} {COMMIT} {WAIT}"),
    ] {
        assert_eq!(found(&case(), &body), [FindingKind::WgmmaHazard], "{body}");
    }
    let body = format!("{FENCE}W{COMMIT} mov.b32 %r302, 0; {WAIT}");
    assert_eq!(found(&with_registers(), &body), [FindingKind::WgmmaHazard]);
}

#[test]
fn another_shape_on_accumulators_in_flight_is_found() {
    let narrow = "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 \
                  {%r400, %r401, %r402, %r403}, %rd10, %rd11, %p1, 1, 1, 0, 0;\n";
    let body = format!("{FENCE}W{narrow}{COMMIT}{WAIT}");
    assert_eq!(found(&case(), &body), [FindingKind::WgmmaHazard]);
    let body = format!("{FENCE}W{COMMIT}{WAIT}{narrow}{COMMIT}{WAIT}");
    assert_eq!(found(&case(), &body), []);
}

#[test]
fn a_product_that_nobody_waits_for_is_found_at_the_exit() {
    for end in ["", COMMIT] {
        let body = format!("{FENCE}W{end} ret;");
        assert_eq!(found(&case(), &body), [FindingKind::WgmmaHazard], "{body}");
    }
}

#[test]
fn operands_may_not_be_overwritten_before_the_wait() {
    // The last step along K begins at byte 96 of a row.
    let store = format!("mov.u32 %r9, {}; st.shared.u32 [%r9], %r1;", B_START + 96);
    let body = format!("{FENCE}W{COMMIT} bar.sync 0; setp.eq.u32 %p3, %r1, 5; @%p3 bra S; bra J; S: {store} J: {WAIT}");
    assert_eq!(found(&case(), &body), [FindingKind::AsyncRead]);
    let body = format!("{FENCE}W{COMMIT}{WAIT} bar.sync 0; setp.eq.u32 %p3, %r1, 5; @%p3 bra S; bra J; S: {store} J:");
    assert_eq!(found(&case(), &body), []);
}

#[test]
fn stores_reach_the_product_only_through_a_fence_and_a_barrier() {
    let store =
        format!("shl.b32 %r9, %r1, 2; add.s32 %r9, %r9, {B_START}; st.shared.u32 [%r9], 0;");
    let proxy = "fence.proxy.async.shared::cta;";
    let product = format!("{FENCE}W{COMMIT}{WAIT}");
    let run = |between: &str| found(&case(), &format!("{store} {between} {product}"));
    assert_eq!(run(&format!("{proxy} bar.sync 0;")), []);
    assert_eq!(run("bar.sync 0;"), [FindingKind::ProxyFence]);
    // The reader's own fence, after it has heard of the stores, will do as well.
    assert_eq!(run(&format!("bar.sync 0; {proxy}")), []);
    assert!(run(proxy).contains(&FindingKind::SharedRace));
    let early = format!("{proxy} {store} bar.sync 0; {product}");
    assert_eq!(found(&case(), &early), [FindingKind::ProxyFence]);
}

#[test]
fn descriptors_are_checked_against_shared_memory_and_their_pattern() {
    for change in [
        // Past the end of shared memory.
        format!("add.s64 %rd11, %rd11, {};", (SHARED - B_START) / 16),
        // Half a pattern further.
        "add.s64 %rd11, %rd11, 32;".to_owned(),
        // A reserved bit.
        "or.b64 %rd11, %rd11, 0x0100000000000000;".to_owned(),
        // Another one in every lane.
        "cvt.u64.u32 %rd12, %r1; add.s64 %rd11, %rd11, %rd12;".to_owned(),
    ] {
        let kinds = found(&case(), &format!("{change} {FENCE}W{COMMIT}{WAIT}"));
        assert!(kinds.contains(&FindingKind::InvalidDescriptor), "{change} {kinds:?}");
    }
    let body = format!("setp.lt.u32 %p1, %r1, 40; {FENCE}W{COMMIT}{WAIT}");
    assert_eq!(found(&case(), &body), [FindingKind::InvalidOperand]);
}

#[test]
fn all_four_warps_execute_the_same_warpgroup_instructions() {
    let product = format!("{FENCE}W{COMMIT}{WAIT}");
    for body in [
        // One warp leaves before, or skips the product.
        format!("setp.ge.u32 %p3, %r1, 96; @%p3 ret; {product}"),
        format!("setp.lt.u32 %p3, %r1, 32; @%p3 bra J; {product} J:"),
        // Warps with different descriptors, and at different places of the code.
        format!("setp.lt.u32 %p3, %r1, 64; @%p3 sub.s64 %rd11, %rd11, 2; {product}"),
        format!("setp.lt.u32 %p3, %r1, 64; @%p3 bra E; {product} bra J; E: {product} J:"),
    ] {
        assert_eq!(found(&case(), &body), [FindingKind::WarpgroupDivergence], "{body}");
    }
    let body = format!("setp.eq.u32 %p3, %r1, 7; @%p3 bra J; {product} J:");
    assert!(found(&case(), &body).contains(&FindingKind::BarrierDivergence));
}

/// Kinds and messages of a kernel of two warpgroups that start with 168 registers per thread; the
/// lower one is in `%p1`.
fn exchange(body: &str) -> Vec<(FindingKind, String)> {
    let text = format!(
        ".version 8.7\n.target sm_90a\n.address_size 64\n\
         .visible .entry k()\n.maxntid 384, 1, 1\n.minnctapersm 1\n{{\n\
         .reg .pred %p<4>; .reg .b32 %r<4>;\n\
         mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 128;\n{body}\nret;\n}}\n"
    );
    let mut memory = qtune_sim::Memory::new();
    let shape = ([1, 1, 1], [256, 1, 1], 0);
    let options = qtune_sim::RunOptions::default();
    let report = support::launch(&text, shape, Vec::new(), &mut memory, &options).unwrap();
    report.findings.into_iter().map(|finding| (finding.kind, finding.message)).collect()
}

#[test]
fn registers_are_handed_from_one_warpgroup_to_another() {
    let consumer = "G: setmaxnreg.inc.sync.aligned.u32 240;";
    let given = format!("@!%p1 bra G; setmaxnreg.dec.sync.aligned.u32 96; ret; {consumer}");
    assert_eq!(exchange(&given), []);
    let short = format!("@!%p1 bra G; setmaxnreg.dec.sync.aligned.u32 104; ret; {consumer}");
    let [(FindingKind::Deadlock, message)] = &exchange(&short)[..] else { panic!("no deadlock") };
    assert!(message.contains("setmaxnreg for 240 registers"), "{message}");
    let reversed = "setmaxnreg.dec.sync.aligned.u32 240;";
    assert!(exchange(reversed).iter().all(|(kind, _)| *kind == FindingKind::InvalidOperand));
    assert!(!exchange(reversed).is_empty());
    let alone = "setp.lt.u32 %p2, %r1, 32; @!%p2 bra E; setmaxnreg.dec.sync.aligned.u32 96; E:";
    assert_eq!(exchange(alone)[0].0, FindingKind::WarpgroupDivergence);
}
