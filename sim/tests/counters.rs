//! Counters of micro-kernels whose values can be worked out by hand.

mod support;

use qtune_sim::{Access, Class, Counters, Memory, RunOptions};
use support::{at, kernel, launch};

/// Counters of one warp (or more) running `body` with `%r1` = thread number.
fn count(body: &str, threads: u32) -> Counters {
    let text = kernel(&format!("mov.u32 %r1, %tid.x;\n{body}"));
    let mut memory = Memory::new();
    let p = memory.alloc("p", 1 << 16, Access::ReadWrite).unwrap();
    memory.write(p, 0, &vec![0; 1 << 16]).unwrap();
    let shape = ([1, 1, 1], [threads, 1, 1], 8192);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    report.counters
}

/// Sectors and ideal sectors of a load of `ty` where lane l reads at `stride * l`.
fn load(ty: &str, registers: &str, stride: u32) -> (u64, u64, u64) {
    let counters = count(
        &format!(
            "mul.wide.u32 %rd2, %r1, {stride}; add.s64 %rd2, %rd1, %rd2; ld.global.{ty} {registers}, [%rd2];"
        ),
        32,
    );
    let loads = counters.buffer("p").unwrap().loads;
    assert_eq!(loads, counters.global_loads);
    assert_eq!(counters.buffer("p").unwrap().footprint_sectors, loads.sectors);
    (loads.sectors, loads.ideal_sectors, loads.bytes)
}

#[test]
fn global_loads_count_sectors_by_their_stride() {
    assert_eq!(load("u32", "%r2", 4), (4, 4, 128));
    assert_eq!(load("u32", "%r2", 8), (8, 4, 128));
    assert_eq!(load("u32", "%r2", 32), (32, 4, 128));
    assert_eq!(load("u32", "%r2", 1024), (32, 4, 128));
    assert_eq!(load("u32", "%r2", 0), (1, 1, 128));
    assert_eq!(load("u16", "%rs2", 2), (2, 2, 64));
    assert_eq!(load("v2.u32", "{%r2,%r3}", 8), (8, 8, 256));
    assert_eq!(load("nc.v4.u32", "{%r2,%r3,%r4,%r5}", 16), (16, 16, 512));
    assert_eq!(load("v4.u32", "{%r2,%r3,%r4,%r5}", 64), (32, 16, 512));
}

/// Wavefronts and ideal wavefronts of a shared store where lane l writes at `stride * l`.
fn store(ty: &str, registers: &str, stride: u32) -> (u64, u64) {
    let counters = count(
        &format!(
            "mul.lo.u32 %r2, %r1, {stride}; mov.u16 %rs1, 0; mov.u32 %r3, 7; st.shared.{ty} [%r2], {registers};"
        ),
        32,
    );
    assert_eq!(counters.shared_stores, counters.shared());
    (counters.shared_stores.wavefronts, counters.shared_stores.ideal_wavefronts)
}

#[test]
fn shared_stores_count_bank_conflicts() {
    assert_eq!(store("u32", "%r3", 4), (1, 1));
    assert_eq!(store("u32", "%r3", 8), (2, 1));
    assert_eq!(store("u32", "%r3", 16), (4, 1));
    assert_eq!(store("u32", "%r3", 32), (8, 1));
    assert_eq!(store("u32", "%r3", 36), (1, 1));
    assert_eq!(store("u32", "%r3", 0), (1, 1));
    assert_eq!(store("u16", "%rs1", 2), (1, 1));
    assert_eq!(store("v2.u32", "{%r3,%r3}", 8), (2, 2));
    assert_eq!(store("v4.u32", "{%r3,%r3,%r3,%r3}", 16), (4, 4));
    assert_eq!(store("v4.u32", "{%r3,%r3,%r3,%r3}", 32), (8, 4));
    assert_eq!(store("v4.u32", "{%r3,%r3,%r3,%r3}", 128), (32, 4));
}

/// Wavefronts and ideal wavefronts of a shared load of `threads` lanes with a stride in bytes, of
/// memory that an earlier loop has filled.
fn shared_load(ty: &str, registers: &str, stride: u32, threads: u32) -> (u64, u64) {
    let counters = count(
        &format!(
            "mov.u32 %r3, 0; shl.b32 %r2, %r1, 2;\n\
             L: st.shared.u32 [%r2], %r3; add.s32 %r2, %r2, {pitch};\n\
             setp.lt.u32 %p1, %r2, 8192;\n@%p1 bra L;\nbar.sync 0;\n\
             mul.lo.u32 %r4, %r1, {stride}; ld.shared.{ty} {registers}, [%r4];",
            pitch = threads * 4
        ),
        threads,
    );
    (counters.shared_loads.wavefronts, counters.shared_loads.ideal_wavefronts)
}

#[test]
fn conflicts_of_each_width_cost_a_pass_per_address_in_a_bank() {
    let (word, pair, four) = ("%r5", "{%r5,%r6}", "{%r5,%r6,%r7,%r8}");
    // (stride, passes) without a conflict, then two, four and eight addresses in each bank.
    for (stride, passes) in [(4, 1), (8, 2), (16, 4), (32, 8)] {
        assert_eq!(shared_load("u32", word, stride, 32), (passes, 1));
    }
    // 64 bits: half a warp at a time.
    for (stride, passes) in [(8, 2), (16, 4), (32, 8), (64, 16)] {
        assert_eq!(shared_load("v2.u32", pair, stride, 32), (passes, 2));
    }
    // 128 bits: a quarter at a time.
    for (stride, passes) in [(16, 4), (32, 8), (64, 16), (128, 32)] {
        assert_eq!(shared_load("v4.u32", four, stride, 32), (passes, 4));
    }
    // The same address for all lanes is one pass per part.
    assert_eq!(shared_load("u32", word, 0, 32), (1, 1));
    assert_eq!(shared_load("v2.u32", pair, 0, 32), (2, 2));
    assert_eq!(shared_load("v4.u32", four, 0, 32), (4, 4));
}

#[test]
fn a_part_of_a_warp_costs_only_the_passes_it_needs() {
    assert_eq!(shared_load("u32", "%r5", 8, 16), (1, 1));
    assert_eq!(shared_load("u32", "%r5", 8, 20), (2, 1));
    assert_eq!(shared_load("v2.u32", "{%r5,%r6}", 8, 16), (1, 1));
    assert_eq!(shared_load("v2.u32", "{%r5,%r6}", 8, 20), (2, 2));
    assert_eq!(shared_load("v4.u32", "{%r5,%r6,%r7,%r8}", 16, 12), (2, 2));
    assert_eq!(shared_load("v4.u32", "{%r5,%r6,%r7,%r8}", 128, 12), (12, 2));
    // Global: 20 lanes cover two and a half sectors; every second lane of a warp touches them all.
    let body = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2; ld.global.u32 %r2, [%rd2];";
    let loads = count(body, 20).global_loads;
    assert_eq!((loads.requests, loads.sectors, loads.ideal_sectors, loads.bytes), (1, 3, 3, 80));
    let every_second =
        body.replace("ld.global", "and.b32 %r3, %r1, 1; setp.eq.u32 %p1, %r3, 0;\n@%p1 ld.global");
    let loads = count(&every_second, 32).global_loads;
    assert_eq!((loads.requests, loads.sectors, loads.ideal_sectors, loads.bytes), (1, 4, 2, 64));
    // Two warps are two requests, each with its own sectors.
    let loads = count(body, 40).global_loads;
    assert_eq!((loads.requests, loads.sectors, loads.bytes), (2, 4 + 1, 160));
}

#[test]
fn asynchronous_copies_count_on_both_sides() {
    let counters = count(
        "shl.b32 %r2, %r1, 4; cvt.u64.u32 %rd2, %r2; add.s64 %rd2, %rd1, %rd2;\n\
         setp.lt.u32 %p1, %r1, 8; selp.u32 %r3, 16, 0, %p1;\n\
         cp.async.cg.shared.global [%r2], [%rd2], 16, %r3; cp.async.wait_all;",
        32,
    );
    let loads = counters.global_loads;
    assert_eq!((loads.requests, loads.sectors, loads.bytes), (1, 4, 128));
    assert_eq!(counters.shared_stores.wavefronts, 4);
    assert_eq!(counters.class(Class::CpAsync).warp_instructions, 2);
}

#[test]
fn ldmatrix_counts_a_wavefront_per_conflict_free_matrix() {
    let with_pitch = |pitch: u32| {
        let counters = count(
            &format!(
                "mov.u32 %r3, 0; shl.b32 %r2, %r1, 2;\n\
                 L: st.shared.u32 [%r2], %r3; add.s32 %r2, %r2, 128; setp.lt.u32 %p1, %r2, 8192;\n\
                 @%p1 bra L;\nmul.lo.u32 %r4, %r1, {pitch}; bar.sync 0;\n\
                 ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r5,%r6,%r7,%r8}}, [%r4];"
            ),
            32,
        );
        (counters.shared_loads.wavefronts, counters.shared_loads.ideal_wavefronts)
    };
    assert_eq!(with_pitch(16), (4, 4));
    assert_eq!(with_pitch(128), (32, 4));
    assert_eq!(with_pitch(64), (16, 4));
    assert_eq!(with_pitch(144), (4, 4));
}

#[test]
fn classes_lanes_branches_and_barriers_are_counted_per_warp() {
    let counters = count(
        "setp.lt.u32 %p1, %r1, 40;\n@!%p1 bra L;\nadd.s32 %r2, %r1, 1;\nL: bar.sync 0;\n\
         setp.eq.u32 %p2, %r1, 3;\n@%p2 mov.u32 %r3, 1;",
        64,
    );
    // Warp 0 is uniform, warp 1 splits after its eighth lane.
    assert_eq!(counters.divergent_branches, 1);
    assert_eq!(counters.barriers, 2);
    let int = counters.class(Class::Int);
    assert_eq!((int.warp_instructions, int.lanes), (2 + 2 + 2, 64 + 64 + 40));
    let moves = counters.class(Class::MovCvt);
    assert_eq!((moves.warp_instructions, moves.lanes), (2 + 2, 64 + 1));
    assert_eq!(counters.class(Class::Barrier).lanes, 64);
}

#[test]
fn atomics_and_stores_are_counted_apart_from_loads() {
    let counters = count(
        "mov.u32 %r2, 1; red.global.add.u32 [%rd1], %r2; st.global.u32 [%rd1+64], %r2;\n\
         ld.global.u32 %r3, [%rd1+128];",
        32,
    );
    let p = counters.buffer("p").unwrap();
    assert_eq!((p.atomics.requests, p.stores.requests, p.loads.requests), (1, 1, 1));
    assert_eq!(p.footprint_sectors, 3);
    assert_eq!(counters.warp_instructions(), 7);
    assert_eq!(counters.lane_instructions(), 7 * 32);
}
