//! Loads, stores, atomics and addresses (PTX ISA 9.7.9, 9.7.13.5).

use qtune_sim::{Access, Memory, RunOptions};

use crate::harness::*;
use crate::support::{at, f16, kernel, launch};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9", "9.7.13"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    loads_extend_and_stores_truncate,
    generic_addresses_reach_every_space,
    module_tables_in_constant_and_global_space_are_readable,
    atomics_return_old_values_and_sum_up,
    vector_atomics_return_and_change_every_element,
    sixteen_bytes_move_in_one_register,
    sixteen_bytes_are_exchanged_and_compared_as_one,
    hints_leave_memory_as_it_is,
    asynchronous_copies_land_at_their_wait,
    fences_change_nothing_within_a_thread,
];

#[test]
fn loads_extend_and_stores_truncate() {
    let a = integers(10);
    let body = "ld.global.s8 %r5, [%rd3+1]; ld.global.u16 %rs1, [%rd3+2]; cvt.s32.s16 %r6, %rs1;";
    let [byte, half] = run(body, [&a, &a, &a]);
    assert_eq!(byte, std::array::from_fn(|l| (a[l] >> 8) as i8 as i32 as u32));
    assert_eq!(half, std::array::from_fn(|l| (a[l] >> 16) as i16 as i32 as u32));
    let body = "st.global.u8 [%rd3+2048], %r2; ld.global.u32 %r5, [%rd3+2048];\n\
                ld.global.s32 %rd4, [%rd3]; shr.s64 %rd4, %rd4, 32; cvt.u32.u64 %r6, %rd4;";
    let [byte, sign] = run(body, [&a, &a, &a]);
    assert_eq!(byte, a.map(|v| v & 255));
    assert_eq!(sign, a.map(|v| (v as i32 >> 31) as u32));
    let body = "shl.b32 %r7, %r1, 4; st.shared.v4.b32 [%r7], {%r2, %r3, %r4, %r1}; bar.warp.sync -1;\n\
                xor.b32 %r7, %r7, 16; ld.shared.v2.u32 {_, %r5}, [%r7+8]; ld.shared.b16 %rs1, [%r7];\n\
                cvt.u32.u16 %r6, %rs1;";
    let [lane, low] = run_block(body, [&a, &a, &a], 32, 512);
    assert_eq!(lane, std::array::from_fn(|l| l as u32 ^ 1));
    assert_eq!(low, std::array::from_fn(|l| a[l ^ 1] & 0xFFFF));
}

#[test]
fn generic_addresses_reach_every_space() {
    let a = integers(11);
    let body = ".shared .align 8 .b8 tile[256]; .local .align 8 .b8 depot[16];\n\
                mov.u64 %rd4, tile; cvta.shared.u64 %rd5, %rd4; add.s64 %rd5, %rd5, %rd2;\n\
                st.u32 [%rd5], %r2; ld.u32 %r5, [%rd5];\n\
                mov.u64 %rd6, depot; cvta.local.u64 %rd7, %rd6; st.u32 [%rd7+8], %r1;\n\
                ld.local.u32 %r7, [%rd6+8]; cvta.to.shared.u64 %rd8, %rd5; cvt.u32.u64 %r8, %rd8;\n\
                ld.shared.u32 %r9, [%r8]; sub.s32 %r9, %r9, %r2; add.s32 %r6, %r7, %r9;\n\
                isspacep.shared %p1, %rd5; @!%p1 trap; isspacep.global %p2, %rd1; @!%p2 trap;";
    let [shared, local] = run(body, [&a, &a, &a]);
    assert_eq!(shared, a);
    assert_eq!(local, std::array::from_fn(|l| l as u32));
}

#[test]
fn module_tables_in_constant_and_global_space_are_readable() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let body = "and.b32 %r7, %r1, 3; mul.wide.u32 %rd4, %r7, 4; mov.u64 %rd5, table; add.s64 %rd5, %rd5, %rd4;\n\
                ld.const.f32 %f1, [%rd5]; cvt.rzi.u32.f32 %r5, %f1;\n\
                mov.u64 %rd6, words; add.s64 %rd6, %rd6, %rd4; ld.global.u32 %r6, [%rd6];";
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; {body} mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n\
         st.global.u32 [%rd3], %r5; st.global.u32 [%rd3+128], %r6;"
    ));
    let declared = ".const .align 4 .f32 table[4] = {0f3F800000, 0f40000000, 0f40400000, 0f40800000};\n\
                    .global .align 4 .b8 words[16] = {5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 255, 255, 255, 255};\n\
                    .visible .entry";
    let text = text.replace(".visible .entry", declared);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 256, Access::ReadWrite).unwrap();
    let options = RunOptions::default();
    let report =
        launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let read = memory.read(p, 0, 256).unwrap();
    let word = |i: usize| u32::from_le_bytes(read[4 * i..4 * i + 4].try_into().unwrap());
    for lane in lanes {
        assert_eq!(word(lane as usize), lane % 4 + 1);
        assert_eq!(word(32 + lane as usize), [5, 6, 7, u32::MAX][lane as usize % 4]);
    }
}

#[test]
fn atomics_return_old_values_and_sum_up() {
    let ones = [1u32; 32];
    let body = "atom.global.add.u32 %r5, [%rd1+2048], %r2; ld.global.u32 %r6, [%rd1+2048];";
    let [old, total] = run(body, [&ones, &ones, &ones]);
    let mut sorted = old;
    sorted.sort_unstable();
    assert_eq!(sorted, std::array::from_fn(|l| l as u32));
    assert_eq!(total, [32; 32]);
    let body = "mov.u32 %r7, 0; st.shared.u32 [%r7], %r7; bar.sync 0; mov.b32 %f1, 0f3F000000;\n\
                red.shared.add.f32 [%r7], %f1; bar.sync 0; ld.shared.u32 %r5, [%r7];";
    assert_eq!(run_block(body, [&ones, &ones, &ones], 32, 64)[0], [16f32.to_bits(); 32]);
    let body = "atom.global.max.s32 %r7, [%rd1+2048], %r1; atom.global.cas.b32 %r8, [%rd1+2048], 31, 99;\n\
                atom.global.inc.u32 %r9, [%rd1+2052], 4; ld.global.u32 %r5, [%rd1+2048];\n\
                ld.global.u32 %r6, [%rd1+2052];";
    let [max, wrapped] = run(body, [&ones, &ones, &ones]);
    assert_eq!((max[0], wrapped[0]), (99, 32 % 5));
    let body = "mov.u32 %r7, 0x3C003800; red.global.add.noftz.f16x2 [%rd1+2048], %r7;\n\
                ld.global.u32 %r5, [%rd1+2048];";
    let expected = u32::from(f16(32.0)) << 16 | u32::from(f16(16.0));
    assert_eq!(run(body, [&ones, &ones, &ones])[0], [expected; 32]);
}

#[test]
fn vector_atomics_return_and_change_every_element() {
    let body = "shl.b32 %r5, %r1, 4; cvt.u64.u32 %rd4, %r5; add.s64 %rd5, %rd1, %rd4;\n\
                mov.b32 %r7, 0f3F800000; mov.b32 %r8, 0f40000000;\n\
                atom.global.gpu.relaxed.add.v4.f32 {%r5, %r6, %r9, %r10}, [%rd5+1024], \
                {%r7, %r8, %r7, %r8};\n\
                ld.global.v4.u32 {%r11, %r5, %r6, %r12}, [%rd5+1024];";
    let [second, third] = run(body, [&[0; 32], &[0; 32], &[0; 32]]);
    assert_eq!(second, [2f32.to_bits(); 32]);
    assert_eq!(third, [1f32.to_bits(); 32]);
}

#[test]
fn sixteen_bytes_move_in_one_register() {
    let (a, b) = (integers(12), integers(13));
    // Out to shared memory and back with the halves exchanged.
    let body = ".reg .b128 %q<3>;
                mov.b64 %rd4, {%r2, %r3}; mov.b64 %rd5, {%r3, %r1}; mov.b128 %q0, {%rd4, %rd5};
                shl.b32 %r7, %r1, 4; st.shared.b128 [%r7], %q0; ld.shared.v4.u32 {%r8, %r9, %r10, %r11}, [%r7];
                ld.shared.b128 %q1, [%r7]; mov.b128 %q2, %q1; mov.b128 {%rd6, %rd7}, %q2;
                mov.b64 {%r12, %r13}, %rd7; sub.u32 %r13, %r13, %r11; add.u32 %r5, %r8, %r13;
                mov.b64 {%r14, %r15}, %rd6; add.u32 %r6, %r15, %r12;";
    let [low, high] = run_block(body, [&a, &b, &a], 32, 512);
    assert_eq!(low, a);
    assert_eq!(high, b.map(|b| b.wrapping_add(b)));
    let narrow = "mov.b128 %q0, {%rd4, %rd5}; cvt.u32.u64 %r5, %q0;";
    let text = kernel(&format!(".reg .b128 %q<3>; mov.b64 %rd4, 1; mov.b64 %rd5, 2; {narrow}"));
    let refused = crate::support::recorder::parse(&text).unwrap_err().to_string();
    assert!(refused.contains("128-bit register"), "{refused}");
}

#[test]
fn sixteen_bytes_are_exchanged_and_compared_as_one() {
    let zero = [0; 32];
    for place in ["global", "shared"] {
        // Every lane puts its number on a chain: lane l finds l - 1 where it compares.
        let body = format!(
            ".reg .b128 %q<4>; .shared .align 16 .b8 cell[16];
             mov.u64 %rd8, {}; mov.b64 %rd4, 0; mov.b64 %rd5, 7;
             setp.ne.u32 %p1, %r1, 0; @%p1 bra FILLED; st.{place}.v2.b64 [%rd8], {{%rd4, %rd5}}; FILLED:
             bar.warp.sync -1;
             cvt.u64.u32 %rd6, %r1; add.u64 %rd7, %rd6, 1;
             mov.b128 %q0, {{%rd6, %rd5}}; mov.b128 %q1, {{%rd7, %rd5}};
             atom.{place}.cas.b128 %q2, [%rd8], %q0, %q1; mov.b128 {{%rd6, %rd7}}, %q2; cvt.u32.u64 %r5, %rd6;
             bar.warp.sync -1; @%p1 bra DONE;
             mov.b128 %q0, {{%rd5, %rd4}}; atom.{place}.exch.b128 %q3, [%rd8], %q0;
             mov.b128 {{%rd6, %rd7}}, %q3; cvt.u32.u64 %r6, %rd6; DONE:",
            if place == "global" { "%rd1; add.u64 %rd8, %rd8, 2048" } else { "cell" }
        );
        let [found, last] = run(&body, [&zero, &zero, &zero]);
        assert_eq!(found, std::array::from_fn(|l| l as u32), "{place}");
        assert_eq!(last[0], 32, "{place}");
    }
}

#[test]
fn hints_leave_memory_as_it_is() {
    let a = integers(14);
    let body = "createpolicy.fractional.L2::evict_last.b64 %rd4, 0f3F800000;
                prefetch.global.L2 [%rd3]; prefetch.L1 [%rd3]; prefetch.global.L2::evict_last [%rd3];
                ld.global.L2::cache_hint.u32 %r5, [%rd3], %rd4;
                ld.global.nc.L1::no_allocate.L2::128B.u32 %r6, [%rd3+128];";
    assert_eq!(run(body, [&a, &a, &a]), [a, a]);
}

#[test]
fn asynchronous_copies_land_at_their_wait() {
    let (a, b) = (integers(80), integers(81));
    let body = "shl.b32 %r7, %r1, 2; cp.async.ca.shared.global [%r7], [%rd3], 4; cp.async.commit_group;
                add.u32 %r8, %r7, 128; cp.async.ca.shared.global [%r8], [%rd3+128], 4, 0; cp.async.commit_group;
                cp.async.wait_group 1; ld.shared.u32 %r5, [%r7];
                cp.async.wait_group 0; ld.shared.u32 %r6, [%r8];";
    // A source size of 0 fills with zeros.
    assert_eq!(run_block(body, [&a, &b, &a], 32, 256), [a, [0; 32]]);
}

#[test]
fn fences_change_nothing_within_a_thread() {
    let a = integers(82);
    let body =
        "st.global.u32 [%rd3+2048], %r2; membar.gl; fence.acq_rel.gpu; fence.sc.sys; membar.cta;
                ld.global.u32 %r5, [%rd3+2048];";
    assert_eq!(run(body, [&a, &a, &a])[0], a);
}
