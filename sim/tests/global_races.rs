//! Order between thread blocks and warps through global memory.

mod support;

use qtune_sim::{Access, FindingKind, Memory, Report, RunOptions};
use support::{at, kernel, launch};

/// Runs `body` on 8 KB of zeros with `%r1` the thread, `%r2` the block, `%rd2` a flag at byte
/// 4096 and `%p1` whether the thread is the block's first.
fn run(body: &str, (blocks, threads): (u32, u32), workers: usize) -> Report {
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; add.s64 %rd2, %rd1, 4096;\n\
         mov.u32 %r3, 1; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r2, 0;\n\
         mul.wide.u32 %rd3, %r1, 4; add.s64 %rd3, %rd1, %rd3;\n{body}"
    ));
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8192, Access::ReadWrite).unwrap();
    memory.write(p, 0, &[0; 8192]).unwrap();
    let options = RunOptions { threads: workers, ..RunOptions::default() };
    launch(&text, ([blocks, 1, 1], [threads, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap()
}

/// The PTX text of the finding's line, of a body that [`run`] runs.
fn races(body: &str, shape: (u32, u32)) -> Vec<String> {
    let found = |workers: usize| -> Vec<String> {
        let lines: Vec<&str> = body.lines().collect();
        let report = run(body, shape, workers);
        assert!(report.findings.iter().all(|f| f.kind == FindingKind::GlobalRace), "{report:#?}");
        // The body starts on line 12 of the kernel.
        report.findings.iter().map(|f| lines[f.ptx_line as usize - 12].to_owned()).collect()
    };
    let (one, two) = (found(1), found(2));
    assert_eq!(one, two, "the number of worker threads must not matter");
    one
}

const NONE: [&str; 0] = [];

#[test]
fn blocks_that_write_or_read_what_another_writes_race() {
    assert_eq!(races("st.global.u32 [%rd3], %r2;", (2, 32)), ["st.global.u32 [%rd3], %r2;"]);
    // One block writes, the other reads: the finding is at the read, whoever came first.
    let body = "@%p2 st.global.u32 [%rd3], %r3;\n@!%p2 ld.global.u32 %r4, [%rd3];";
    assert_eq!(races(body, (2, 32)), ["@!%p2 ld.global.u32 %r4, [%rd3];"]);
    let apart = "mad.lo.u32 %r4, %r2, 128, 0; cvt.u64.u32 %rd4, %r4; add.s64 %rd3, %rd3, %rd4;\n\
                 st.global.u32 [%rd3], %r3;";
    assert_eq!(races(apart, (8, 32)), NONE);
    assert_eq!(races("ld.global.u32 %r4, [%rd3];", (8, 64)), NONE);
}

#[test]
fn neighbouring_bytes_of_a_sector_belong_to_different_blocks() {
    let bytes = "cvt.u64.u32 %rd4, %r2; add.s64 %rd4, %rd1, %rd4; cvt.u16.u32 %rs1, %r3;\n\
                 @%p1 st.global.u8 [%rd4], %rs1;";
    assert_eq!(races(bytes, (32, 32)), NONE);
    let overlapping = bytes.replace("st.global.u8 [%rd4], %rs1", "st.global.u8 [%rd1], %rs1");
    assert_eq!(races(&overlapping, (32, 32)), ["@%p1 st.global.u8 [%rd1], %rs1;"]);
}

#[test]
fn a_flag_is_reset_by_the_block_that_waited_for_it() {
    // Block 0 raises the flag behind a fence; block 1 sees it, fences, and puts it back plainly.
    let body = "@!%p1 bra END;\n@!%p2 bra WAIT;\n\
                fence.acq_rel.gpu; atom.relaxed.gpu.global.add.u32 %r5, [%rd2], 1;\nbra END;\n\
                WAIT: ld.relaxed.gpu.global.u32 %r4, [%rd2]; setp.ne.u32 %p3, %r4, 1; @%p3 bra WAIT;\n\
                fence.acq_rel.gpu;\nst.global.u32 [%rd2], 0;\nEND:";
    assert_eq!(races(body, (2, 32)), NONE);
    let unfenced = body.replace("fence.acq_rel.gpu;\nst", "\nst");
    assert_eq!(races(&unfenced, (2, 32)), ["st.global.u32 [%rd2], 0;"]);
}

#[test]
fn warps_of_a_block_need_a_barrier_for_global_memory_too() {
    let body = "st.global.u32 [%rd3], %r3;\nbar.sync 0;\nxor.b32 %r4, %r1, 32;\n\
                mul.wide.u32 %rd4, %r4, 4; add.s64 %rd4, %rd1, %rd4;\nld.global.u32 %r5, [%rd4];";
    assert_eq!(races(body, (1, 64)), NONE);
    let racy = body.replace("bar.sync 0;", "");
    assert_eq!(races(&racy, (1, 64)), ["ld.global.u32 %r5, [%rd4];"]);
}

#[test]
fn warps_of_a_block_may_write_the_same_value() {
    assert_eq!(races("st.global.u32 [%rd1], %r3;", (1, 64)), NONE);
    assert_eq!(races("st.global.u32 [%rd1], %r3;", (2, 32)), ["st.global.u32 [%rd1], %r3;"]);
    let body = "shr.u32 %r4, %r1, 5;\nst.global.u32 [%rd1], %r4;";
    assert_eq!(races(body, (1, 64)), ["st.global.u32 [%rd1], %r4;"]);
}

#[test]
fn lanes_of_a_warp_need_a_warp_barrier_for_global_memory_too() {
    let body = "st.global.u32 [%rd3], %r1;\nbar.warp.sync -1;\nxor.b32 %r4, %r1, 1;\n\
                mul.wide.u32 %rd4, %r4, 4; add.s64 %rd4, %rd1, %rd4;\nld.global.u32 %r5, [%rd4];";
    assert_eq!(races(body, (1, 32)), NONE);
    let racy = body.replace("bar.warp.sync -1;", "");
    let report = run(&racy, (1, 32), 1);
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!((finding.kind, finding.lane), (FindingKind::LaneRace, Some(0)));
    assert!(finding.message.contains("load of global bytes that lane 1 wrote"), "{finding}");
    // Lanes of one store may write the same value to one place, but no two values.
    assert_eq!(races("st.global.u32 [%rd1], %r3;", (1, 32)), NONE);
    let report = run("st.global.u32 [%rd1], %r1;", (1, 32), 1);
    assert_eq!(report.findings[0].kind, FindingKind::LaneRace);
}

/// Block 0 writes and raises a flag, block 1 waits for the flag and reads.
fn handover(release: &str, acquire: &str) -> String {
    format!(
        "@!%p2 bra W;\nst.global.u32 [%rd3], %r3;\nbar.sync 0;\n@!%p1 bra E;\n{release}\nbra E;\n\
         W: @!%p1 bra R;\nL: {acquire}\nsetp.eq.u32 %p4, %r5, 0;\n@%p4 bra L;\n\
         R: bar.sync 0;\nld.global.u32 %r6, [%rd3];\nE:"
    )
}

#[test]
fn a_flag_orders_when_it_is_released_and_acquired_at_the_right_scope() {
    let releases = [
        "st.release.gpu.global.u32 [%rd2], %r3;",
        "red.release.gpu.global.add.u32 [%rd2], %r3;",
        "atom.acq_rel.gpu.global.exch.b32 %r7, [%rd2], %r3;",
        "fence.acq_rel.gpu; st.relaxed.gpu.global.u32 [%rd2], %r3;",
        "membar.gl; st.volatile.global.u32 [%rd2], %r3;",
    ];
    let acquires = [
        "ld.acquire.gpu.global.u32 %r5, [%rd2];",
        "atom.acquire.gpu.global.add.u32 %r5, [%rd2], 0;",
        "ld.volatile.global.u32 %r5, [%rd2]; membar.gl;",
    ];
    for release in releases {
        for acquire in acquires {
            assert_eq!(races(&handover(release, acquire), (2, 64)), NONE, "{release} {acquire}");
        }
    }
    for (release, acquire) in [
        ("st.relaxed.gpu.global.u32 [%rd2], %r3;", acquires[0]),
        ("st.release.cta.global.u32 [%rd2], %r3;", acquires[0]),
        ("membar.cta; st.volatile.global.u32 [%rd2], %r3;", acquires[0]),
        (releases[0], "ld.relaxed.gpu.global.u32 %r5, [%rd2];"),
        (releases[0], "ld.volatile.global.u32 %r5, [%rd2]; membar.cta;"),
    ] {
        let found = races(&handover(release, acquire), (2, 64));
        assert!(found.contains(&"ld.global.u32 %r6, [%rd3];".to_owned()), "{release} {found:?}");
    }
}

#[test]
fn a_flag_without_a_barrier_orders_only_the_warp_that_touched_it() {
    let body = handover(
        "st.release.gpu.global.u32 [%rd2], %r3;",
        "ld.acquire.gpu.global.u32 %r5, [%rd2];",
    );
    let early = body.replacen("bar.sync 0;", "", 1);
    assert_eq!(races(&early, (2, 64)), ["ld.global.u32 %r6, [%rd3];"]);
    let late = body.replace("R: bar.sync 0;", "R: bar.warp.sync -1;");
    assert_eq!(races(&late, (2, 64)), ["ld.global.u32 %r6, [%rd3];"]);
}

#[test]
fn a_plain_flag_races_itself() {
    let plain = handover(
        "membar.gl; st.global.u32 [%rd2], %r3;",
        "ld.volatile.global.u32 %r5, [%rd2]; membar.gl;",
    );
    assert!(!races(&plain, (2, 64)).is_empty());
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let sums = "red.global.add.u32 [%rd1], %r3;";
    assert_eq!(races(sums, (8, 64)), NONE);
    let read = format!("{sums}\nld.global.u32 %r4, [%rd1];");
    assert_eq!(races(&read, (2, 32)), ["ld.global.u32 %r4, [%rd1];"]);
    let strong = format!("{sums}\nld.relaxed.gpu.global.u32 %r4, [%rd1];");
    assert_eq!(races(&strong, (2, 32)), NONE);
    // Atomics of block scope are atomic for their block only.
    assert_eq!(races("red.cta.global.add.u32 [%rd1], %r3;", (1, 64)), NONE);
    assert!(!races("red.cta.global.add.u32 [%rd1], %r3;", (2, 64)).is_empty());
}

#[test]
fn the_last_arriver_may_reset_the_counter() {
    let body = "@!%p1 bra E;\natom.global.add.u32 %r4, [%rd2], 1;\nsetp.eq.u32 %p3, %r4, 19;\n\
                @%p3 st.global.u32 [%rd2], %r3;\nE:";
    assert_eq!(races(body, (20, 32)), NONE);
    let everybody = body.replace("@%p3 st", "st");
    assert!(!races(&everybody, (20, 32)).is_empty());
}

#[test]
fn order_is_handed_on_through_a_chain_of_blocks() {
    // Block b waits for b arrivals; the last of four reads what the first wrote.
    let body = "setp.eq.u32 %p3, %r2, 3;\n@!%p1 bra E;\n@%p2 st.global.u32 [%rd1], %r3;\n\
                L: ld.acquire.gpu.global.u32 %r5, [%rd2];\nsetp.ne.u32 %p4, %r5, %r2;\n@%p4 bra L;\n\
                @%p3 ld.global.u32 %r6, [%rd1];\nred.release.gpu.global.add.u32 [%rd2], %r3;\nE:";
    assert_eq!(races(body, (4, 32)), NONE);
    let relaxed = body.replace("red.release.gpu", "red.relaxed.gpu");
    assert_eq!(races(&relaxed, (4, 32)), ["@%p3 ld.global.u32 %r6, [%rd1];"]);
}
