//! Defects planted into correct kernels, one at a time: each must be found, by its right name.

mod support;

use qtune_sim::{
    Access, Arg, AsyncSchedule, FindingKind, Memory, Report, RunOptions, SimError, WarpOrder,
};
use support::{at, bytes, f16, floats, input, kernel, launch, ptx};

/// Replaces the first occurrence, which must exist.
fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the kernel");
    text.replacen(from, to, 1)
}

fn lazy() -> RunOptions {
    RunOptions::default()
}

fn eager() -> RunOptions {
    RunOptions { schedule: AsyncSchedule::Eager, ..RunOptions::default() }
}

fn found(report: &Report, kind: FindingKind) -> bool {
    report.findings.iter().any(|f| f.kind == kind)
}

/// Runs the mma fixture (M = 60 of 64 rows) after an edit of its text.
fn gemm(edit: impl Fn(&str) -> String, options: &RunOptions) -> Report {
    let (m, n, k) = (60, 64, 256);
    let ones = |count: usize| bytes(&vec![1.0f32; count], |x| f16(x).to_le_bytes());
    let mut memory = Memory::new();
    let a = input(&mut memory, "a", &ones(m * k));
    let b = input(&mut memory, "b", &ones(n * k));
    let c = memory.alloc("c", m * n * 4, Access::ReadWrite).unwrap();
    let sizes = [m, n, k].map(|v| Arg::I32(v as i32));
    let args = [vec![at(a), at(b), at(c)], sizes.to_vec()].concat();
    let shape = ([1, 1, 1], [128, 1, 1], 3 * 2 * 64 * 64);
    launch(&edit(&ptx("mma", "sm80")), shape, args, &mut memory, options).unwrap()
}

#[test]
fn the_unedited_kernel_has_no_findings() {
    for options in [lazy(), eager()] {
        assert!(gemm(str::to_owned, &options).findings.is_empty());
    }
}

#[test]
fn a_dropped_barrier_is_a_race() {
    let drop_barrier = |text: &str| edit(text, "bar.sync \t0;", "");
    for options in [lazy(), eager()] {
        let report = gemm(drop_barrier, &options);
        assert!(found(&report, FindingKind::SharedRace), "{:#?}", report.findings);
    }
}

#[test]
fn a_wait_that_is_one_group_too_lax_is_found_under_both_schedules() {
    let lax = |text: &str| edit(text, "cp.async.wait_group 1;", "cp.async.wait_group 2;");
    let report = gemm(lax, &lazy());
    assert!(found(&report, FindingKind::AsyncNotAwaited), "{:#?}", report.findings);
    assert!(found(&report, FindingKind::UninitialisedShared));
    assert!(found(&gemm(lax, &eager()), FindingKind::AsyncNotAwaited));
}

#[test]
fn a_removed_row_predicate_reads_past_the_activations_and_names_the_buffer() {
    // The source size 0 of rows past M becomes 16.
    let always = |text: &str| {
        let size = text.lines().find(|l| l.contains("selp.b32") && l.contains("16, 0")).unwrap();
        text.replace("16, 0, %p", "16, 16, %p").replacen(size, &size.replace("16, 0", "16, 16"), 1)
    };
    let report = gemm(always, &lazy());
    let finding = report.findings.iter().find(|f| f.kind == FindingKind::OutOfBounds).unwrap();
    assert_eq!(finding.buffer.as_deref(), Some("a"));
    assert!(finding.message.contains("of a buffer of 30720 bytes"), "{finding}");
}

#[test]
fn a_removed_store_guard_writes_past_the_output() {
    let unguarded = |text: &str| {
        // After the last product, every guarded branch jumps over a store of a row past M.
        let (body, epilogue) = text.split_at(text.rfind("mma.sync").unwrap());
        let kept: Vec<&str> = epilogue.lines().filter(|l| !l.contains("@%p")).collect();
        format!("{body}{}", kept.join("\n"))
    };
    let edited = unguarded(&ptx("mma", "sm80"));
    assert_ne!(edited, ptx("mma", "sm80"));
    let report = gemm(unguarded, &lazy());
    let finding = report.findings.iter().find(|f| f.kind == FindingKind::OutOfBounds).unwrap();
    assert_eq!(finding.buffer.as_deref(), Some("c"));
}

#[test]
fn a_removed_swizzle_shows_in_the_wavefronts() {
    // Every XOR of the kernel computes the swizzle.
    let plain = |text: &str| {
        text.lines()
            .map(|line| match line.trim_start().strip_prefix("xor.b32") {
                Some(operands) => {
                    let parts: Vec<&str> =
                        operands.trim().trim_end_matches(';').split(", ").collect();
                    format!("mov.b32 {}, {};", parts[0], parts[2])
                }
                None => line.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    let report = gemm(plain, &lazy());
    let shared = report.counters.shared_loads;
    assert!(shared.wavefronts >= 2 * shared.ideal_wavefronts, "{shared:?}");
}

/// Runs a hand-written kernel of one block on a 4 KB buffer of zeros.
fn micro(body: &str, threads: u32, options: &RunOptions) -> Result<Report, SimError> {
    let mut memory = Memory::new();
    let p = memory.alloc("p", 4096, Access::ReadWrite).unwrap();
    memory.write(p, 0, &[0; 4096]).unwrap();
    launch(&kernel(body), ([1, 1, 1], [threads, 1, 1], 1024), vec![at(p)], &mut memory, options)
}

fn only_finding(body: &str, threads: u32) -> FindingKind {
    let report = micro(body, threads, &lazy()).unwrap();
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    report.findings[0].kind
}

#[test]
fn wrong_addresses_are_named_by_their_kind() {
    assert_eq!(only_finding("ld.global.u32 %r1, [%rd1+4096];", 32), FindingKind::OutOfBounds);
    assert_eq!(only_finding("ld.global.u32 %r1, [%rd1+2];", 32), FindingKind::Misaligned);
    assert_eq!(only_finding("ld.global.u32 %r1, [16];", 32), FindingKind::OutOfBounds);
    assert_eq!(
        only_finding("mov.u32 %r2, 0; st.shared.u32 [1024], %r2;", 32),
        FindingKind::OutOfBounds
    );
    assert_eq!(
        only_finding("ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1+8];", 32),
        FindingKind::Misaligned
    );
}

#[test]
fn undefined_registers_shared_and_global_bytes_are_found() {
    let computed = "add.s32 %r1, %r2, 1; st.global.u32 [%rd1], %r1;";
    assert_eq!(only_finding(computed, 1), FindingKind::UninitialisedRegister);
    assert_eq!(only_finding("ld.shared.u32 %r1, [0];", 32), FindingKind::UninitialisedShared);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 64, Access::ReadWrite).unwrap();
    let text = kernel("ld.global.u32 %r1, [%rd1];");
    let report =
        launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![at(p)], &mut memory, &lazy()).unwrap();
    assert!(found(&report, FindingKind::UninitialisedMemory));
}

#[test]
fn a_register_defined_in_some_lanes_only_is_undefined_in_the_others() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 4;\n@%p1 mov.u32 %r2, 7;\n\
                add.s32 %r3, %r2, 1;\nshl.b32 %r4, %r1, 2;\nst.shared.u32 [%r4], %r3;";
    let report = micro(body, 32, &lazy()).unwrap();
    let finding = &report.findings[0];
    // The line of the addition, not that of the store.
    assert_eq!((finding.lane, finding.ptx_line), (Some(4), 11));
    assert!(finding.message.contains("matters in PTX line 13"), "{finding}");
    // Moving an undefined value is allowed as long as it is never used.
    let report = micro("mov.u32 %r3, %r2; mov.u32 %r4, %r3;", 32, &lazy()).unwrap();
    assert!(report.findings.is_empty());
    let kind = only_finding("mov.u32 %r3, %r2; st.global.u32 [%rd1], %r3;", 32);
    assert_eq!(kind, FindingKind::UninitialisedRegister);
}

#[test]
fn undefined_values_that_nothing_depends_on_are_no_defect() {
    for body in [
        // Computed ahead of time and dropped.
        "add.s32 %r3, %r2, 1; setp.lt.s32 %p1, %r3, 4; selp.b32 %r4, 1, %r3, %p1;",
        // The upper half of a pair that only the lower half is taken from.
        "mov.u16 %rs1, 1; mov.b32 %r3, {%rs1, %rs2}; add.f16x2 %r4, %r3, %r3;\n\
         mov.b32 {%rs3, _}, %r4; st.global.u16 [%rd1], %rs3;",
        "mov.u16 %rs1, 1; mov.b32 %r3, {%rs1, %rs2}; and.b32 %r4, %r3, 65535;\n\
         st.global.u32 [%rd1], %r4;",
        "mov.u16 %rs1, 1; mov.b32 %r3, {%rs1, %rs2}; prmt.b32 %r4, %r3, 0, 0x4410;\n\
         st.global.u32 [%rd1], %r4;",
        "mov.u32 %r3, 1; mov.b64 %rd2, {%r3, %r4}; mov.b64 {%r5, %r6}, %rd2;\n\
         st.global.u32 [%rd1], %r5;",
        // A settled condition.
        "setp.eq.u32 %p1, 1, 2; and.pred %p2, %p1, %p3; @%p2 trap;",
    ] {
        let report = micro(body, 1, &lazy()).unwrap();
        assert!(report.findings.is_empty(), "{body}: {:#?}", report.findings);
    }
}

#[test]
fn every_way_in_which_an_undefined_value_matters_is_found() {
    for body in [
        "mov.u16 %rs1, 1; mov.b32 %r3, {%rs1, %rs2}; add.f16x2 %r4, %r3, %r3;\n\
         mov.b32 {_, %rs3}, %r4; st.global.u16 [%rd1], %rs3;",
        "add.s64 %rd2, %rd1, %rd3; ld.global.u32 %r1, [%rd2];",
        "setp.eq.u32 %p1, %r1, 2; @%p1 trap;",
        "setp.eq.u32 %p1, 1, 1; and.pred %p2, %p1, %p3; @%p2 trap;",
        "or.b32 %r3, %r2, 1; shfl.sync.idx.b32 %r4, %r3, 0, 31, 1; st.global.u32 [%rd1], %r4;",
        "setp.eq.u32 %p1, %r1, 2; vote.sync.any.pred %p2, %p1, 1;",
        "cvt.f32.s32 %f1, %r2; st.shared.f32 [0], %f1;",
        "atom.global.add.u32 %r1, [%rd1], %r2;",
    ] {
        let report = micro(body, 1, &lazy()).unwrap();
        assert!(found(&report, FindingKind::UninitialisedRegister), "{body}");
    }
}

#[test]
fn sources_of_lanes_that_a_guard_or_a_selection_leaves_out_may_be_undefined() {
    let some = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 4;\n@%p1 mov.u32 %r2, 7;";
    let clean = |rest: &str| {
        let report = micro(&format!("{some}\n{rest}"), 32, &lazy()).unwrap();
        assert!(report.findings.is_empty(), "{rest}: {:#?}", report.findings);
    };
    clean("@%p1 add.s32 %r3, %r2, 1;");
    let stored = "add.s32 %r4, %r3, 1; shl.b32 %r5, %r1, 2; st.shared.u32 [%r5], %r4;";
    clean(&format!("selp.b32 %r3, %r2, 5, %p1; {stored}"));
    let wrong = format!("{some}\nselp.b32 %r3, 5, %r2, %p1; {stored}");
    assert_eq!(only_finding(&wrong, 32), FindingKind::UninitialisedRegister);
    // One lane fetches a number for all.
    clean(&format!("shfl.sync.idx.b32 %r3|%p2, %r2, 3, 31, -1; {stored}"));
    clean(&format!("and.b32 %r6, %r1, 3; shfl.sync.idx.b32 %r3, %r2, %r6, 31, -1; {stored}"));
    let beyond = format!("{some}\nshfl.sync.down.b32 %r3, %r2, 1, 31, -1; {stored}");
    assert_eq!(only_finding(&beyond, 32), FindingKind::UninitialisedRegister);
    let guard = "@%p7 add.s32 %r3, %r3, 1;";
    assert_eq!(only_finding(guard, 32), FindingKind::UninitialisedRegister);
}

#[test]
fn a_divergent_uniform_branch_is_found() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 4;\n@%p1 bra.uni L;\nL:";
    assert_eq!(only_finding(body, 32), FindingKind::BarrierDivergence);
}

#[test]
fn stores_to_read_only_buffers_are_found_and_not_done() {
    let mut memory = Memory::new();
    let p = input(&mut memory, "p", &[0; 128]);
    let text = kernel("mov.u32 %r1, 1; st.global.u32 [%rd1], %r1;");
    let report =
        launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![at(p)], &mut memory, &lazy()).unwrap();
    assert!(found(&report, FindingKind::ReadOnlyWrite));
    assert!(floats(&memory, p).iter().all(|&v| v == 0.0));
}

#[test]
fn shared_writes_of_two_warps_race_unless_a_barrier_lies_between() {
    let store = "mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 31; shl.b32 %r3, %r2, 2;\n\
                 st.shared.u32 [%r3], %r1;";
    assert_eq!(only_finding(store, 64), FindingKind::SharedRace);
    assert!(micro(store, 32, &lazy()).unwrap().findings.is_empty());
    let same_value = store.replace("[%r3], %r1", "[%r3], %r2");
    assert!(micro(&same_value, 64, &lazy()).unwrap().findings.is_empty());
    let ordered = "mov.u32 %r1, %tid.x; shr.u32 %r4, %r1, 5; setp.eq.u32 %p1, %r4, 0;\n\
                   mov.u32 %r3, 0; @%p1 st.shared.u32 [%r3], %r4; bar.sync 0;\n\
                   ld.shared.u32 %r5, [%r3];";
    assert!(micro(ordered, 64, &lazy()).unwrap().findings.is_empty());
    let racy = ordered.replace("bar.sync 0;", "");
    for warp_order in [WarpOrder::Forward, WarpOrder::Reversed, WarpOrder::Seeded(1)] {
        let report = micro(&racy, 64, &RunOptions { warp_order, ..lazy() }).unwrap();
        assert!(found(&report, FindingKind::SharedRace));
    }
}

#[test]
fn lanes_that_exchange_through_shared_memory_need_a_warp_barrier() {
    // Each lane writes a word and reads that of its neighbour.
    let exchange = "mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; xor.b32 %r3, %r2, 4;\n\
                    st.shared.u32 [%r2], %r1;\nbar.warp.sync -1;\nld.shared.u32 %r4, [%r3];";
    assert!(micro(exchange, 32, &lazy()).unwrap().findings.is_empty());
    for missing in ["", "shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;"] {
        let racy = exchange.replace("bar.warp.sync -1;", missing);
        assert_eq!(only_finding(&racy, 64), FindingKind::LaneRace);
    }
    // Neighbours may also meet in pairs.
    let pairs = exchange.replace(
        "bar.warp.sync -1",
        "and.b32 %r6, %r1, 30; shl.b32 %r7, 3, %r6; bar.warp.sync %r7",
    );
    assert!(micro(&pairs, 32, &lazy()).unwrap().findings.is_empty());
    let further = pairs.replace("%r2, 4;", "%r2, 8;");
    assert_eq!(only_finding(&further, 32), FindingKind::LaneRace);
}

#[test]
fn lanes_of_one_store_may_write_one_word_only_with_one_value() {
    assert_eq!(
        only_finding("mov.u32 %r1, %tid.x; st.shared.u32 [0], %r1;", 32),
        FindingKind::LaneRace
    );
    let same = micro("mov.u32 %r1, 7; st.shared.u32 [0], %r1;", 32, &lazy()).unwrap();
    assert!(same.findings.is_empty());
}

#[test]
fn a_stage_refilled_while_another_warp_reads_it_races_under_both_schedules() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; shl.b32 %r2, %r1, 4;\n\
                cvt.u64.u32 %rd2, %r2; add.s64 %rd3, %rd1, %rd2; and.b32 %r3, %r2, 511;\n\
                mov.u32 %r4, 0; st.shared.v4.u32 [%r3], {%r4,%r4,%r4,%r4};\n\
                @%p1 cp.async.cg.shared.global [%r3], [%rd3], 16;\n\
                cp.async.wait_all;";
    let body = body.replace("st.shared.v4.u32 [%r3], {%r4,%r4,%r4,%r4};", "");
    let fill = "@%p1 st.shared.v4.u32 [%r3], {%r4,%r4,%r4,%r4}; bar.sync 0;\n\
                @!%p1 ld.shared.u32 %r5, [%r3];\n@%p1 cp.async.cg";
    let body = body.replace("@%p1 cp.async.cg", fill);
    for options in [lazy(), eager()] {
        for warp_order in [WarpOrder::Forward, WarpOrder::Reversed] {
            let report = micro(&body, 64, &RunOptions { warp_order, ..options.clone() }).unwrap();
            assert!(found(&report, FindingKind::SharedRace), "{:#?}", report.findings);
        }
    }
}

#[test]
fn barriers_in_divergent_code_and_missing_warps_are_found() {
    let divergent = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 7;\n@!%p1 bra L;\nbar.sync 0;\nL:";
    assert_eq!(only_finding(divergent, 32), FindingKind::BarrierDivergence);
    let named = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32;\n@!%p1 bra L;\nbar.sync 1, 64;\n\
                 L: bar.sync 0;";
    let report = micro(named, 64, &lazy()).unwrap();
    let deadlock = report.findings.iter().find(|f| f.kind == FindingKind::Deadlock).unwrap();
    assert!(deadlock.message.contains("warp 0 at barrier 1"), "{deadlock}");
    assert!(deadlock.message.contains("warp 1 at barrier 0"), "{deadlock}");
    assert_eq!(only_finding("bar.sync 1, 48;", 64), FindingKind::BarrierMisuse);
}

#[test]
fn exited_warps_do_not_hold_up_a_barrier() {
    let body = "mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32;\n@%p1 ret;\nbar.sync 0;";
    assert!(micro(body, 64, &lazy()).unwrap().findings.is_empty());
}

#[test]
fn producer_and_consumer_warps_meet_at_named_barriers() {
    let body = "mov.u32 %r1, %tid.x; mov.u32 %r2, 5; mov.u32 %r3, 0;\n\
                setp.ge.u32 %p1, %r1, 32;\n@%p1 bra C;\n\
                st.shared.u32 [%r3], %r2; bar.arrive 1, 64; bra E;\n\
                C: bar.sync 1, 64; ld.shared.u32 %r4, [%r3]; st.global.u32 [%rd1], %r4;\nE:";
    for warp_order in [WarpOrder::Forward, WarpOrder::Reversed] {
        let report = micro(body, 64, &RunOptions { warp_order, ..lazy() }).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

#[test]
fn a_partial_barrier_does_not_order_the_warps_that_are_not_at_it() {
    // Warps 0 and 1 meet; warp 2 reads what warp 0 wrote without having met it.
    let body =
        "mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; setp.eq.u32 %p1, %r2, 2; mov.u32 %r3, 0;\n\
                setp.eq.u32 %p2, %r2, 0;\n@%p2 st.shared.u32 [%r3], %r2;\n@%p1 bra R;\n\
                bar.sync 1, 64; bra L;\nR: ld.shared.u32 %r4, [%r3];\nL: bar.sync 0;";
    let report = micro(body, 96, &lazy()).unwrap();
    assert!(found(&report, FindingKind::SharedRace), "{:#?}", report.findings);
    let all = body.replace("@%p1 bra R;", "").replace("bar.sync 1, 64; bra L;", "bar.sync 0;");
    assert!(micro(&all, 96, &lazy()).unwrap().findings.is_empty());
}

#[test]
fn a_shuffle_in_divergent_code_reads_inactive_lanes() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16;\n@!%p1 bra L;\n\
                shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;\nL:";
    assert_eq!(only_finding(body, 32), FindingKind::InactiveLane);
}

#[test]
fn member_masks_may_name_exited_lanes_but_matrices_need_the_whole_warp() {
    let some = "mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 16;\n@%p1 ret;\n";
    let shuffle = format!("{some} shfl.sync.bfly.b32 %r2, %r1, 8, 31, -1;");
    assert!(micro(&shuffle, 32, &lazy()).unwrap().findings.is_empty());
    let reads_exited = format!("{some} shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;");
    assert_eq!(only_finding(&reads_exited, 32), FindingKind::InactiveLane);
    let transpose = format!("{some} movmatrix.sync.aligned.m8n8.trans.b16 %r2, %r1;");
    assert_eq!(only_finding(&transpose, 32), FindingKind::BarrierDivergence);
}

#[test]
fn an_endless_loop_ends_with_its_place() {
    let options = RunOptions { instruction_limit: 10_000, ..lazy() };
    match micro("L: bra L;", 32, &options) {
        Err(SimError::InstructionLimit { limit: 10_000, ptx_line, .. }) => assert_eq!(ptx_line, 9),
        other => panic!("{other:?}"),
    }
}

#[test]
fn traps_and_oversized_copies_are_found() {
    assert_eq!(only_finding("trap;", 32), FindingKind::Trap);
    let copy = "mov.u32 %r1, 0; mov.u32 %r2, 17; mov.u32 %r3, %tid.x; setp.eq.u32 %p1, %r3, 0;\n\
                @%p1 cp.async.ca.shared.global [%r1], [%rd1], 16, %r2;";
    assert_eq!(only_finding(copy, 32), FindingKind::InvalidOperand);
}

#[test]
fn launches_beyond_the_device_are_refused_with_the_limit() {
    let mut memory = Memory::new();
    let p = memory.alloc("p", 64, Access::ReadWrite).unwrap();
    let text = kernel("");
    for (shape, part) in [
        (([1, 1, 1], [2048, 1, 1], 0), "block x is 2048"),
        (([1, 1, 1], [1024, 2, 1], 0), "2048 threads"),
        (([0, 1, 1], [32, 1, 1], 0), "grid x is 0"),
        (([1, 1, 1], [32, 1, 1], 300_000), "300000 shared bytes"),
    ] {
        match launch(&text, shape, vec![at(p)], &mut memory, &lazy()) {
            Err(SimError::Launch { reason, .. }) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    let missing = launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![], &mut memory, &lazy());
    assert!(missing.unwrap_err().to_string().contains("0 arguments for 1 parameters"));
    let wrong = launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![Arg::U32(1)], &mut memory, &lazy());
    assert!(wrong.unwrap_err().to_string().contains("4 bytes, not 8"));
}
