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
