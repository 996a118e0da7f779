//! Matrices between shared memory and registers, with the fragment layouts of PTX ISA 9.7.14.

use crate::support::registers::run;
use crate::support::Random;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.14"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    ldmatrix_distributes_rows_and_columns,
    stmatrix_is_the_inverse_of_ldmatrix_and_movmatrix_transposes,
    asynchronous_copies_fill_zero_and_obey_their_predicates,
];

#[test]
fn ldmatrix_distributes_rows_and_columns() {
    // Row r of matrix i holds elements 100 i + 8 r + column as 16-bit integers.
    let rows = "shr.u32 %r2, %r1, 3; mul.lo.s32 %r2, %r2, 100; and.b32 %r3, %r1, 7; shl.b32 %r3, %r3, 3;\n\
                add.s32 %r2, %r2, %r3; mad.lo.s32 %r2, %r2, 0x10001, 0x10000; shl.b32 %r4, %r1, 4;\n\
                add.s32 %r5, %r2, 0x20002; add.s32 %r6, %r2, 0x40004; add.s32 %r7, %r2, 0x60006;\n\
                st.shared.v4.b32 [%r4], {%r2, %r5, %r6, %r7}; bar.sync 0;";
    let element =
        |matrix: usize, row: usize, column: usize| (100 * matrix + 8 * row + column) as u32;
    for (suffix, transposed) in [("", false), (".trans", true)] {
        let body = format!(
            "{rows} ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r40, %r41, %r42, %r43}}, [%r4];"
        );
        let out = run(&body, &[], 4);
        for (matrix, register) in out.iter().enumerate() {
            for (lane, &word) in register.iter().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                let (low, high) = if transposed {
                    (element(matrix, 2 * t, g), element(matrix, 2 * t + 1, g))
                } else {
                    (element(matrix, g, 2 * t), element(matrix, g, 2 * t + 1))
                };
                assert_eq!(word, low | high << 16, "matrix {matrix} lane {lane} {suffix}");
            }
        }
        let body = format!(
            "{rows} ldmatrix.sync.aligned.m8n8.x2{suffix}.shared::cta.b16 {{%r40, %r41}}, [%r4];"
        );
        assert_eq!(run(&body, &[], 2), out[..2]);
    }
}

#[test]
fn stmatrix_is_the_inverse_of_ldmatrix_and_movmatrix_transposes() {
    let mut random = Random::new(2);
    let inputs: Vec<[u32; 32]> = (0..4).map(|_| std::array::from_fn(|_| random.next())).collect();
    for suffix in ["", ".trans"] {
        let body = format!(
            "shl.b32 %r4, %r1, 4; stmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 [%r4], {{%r10, %r11, %r12, %r13}};\n\
             bar.sync 0; ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r40, %r41, %r42, %r43}}, [%r4];"
        );
        assert_eq!(run(&body, &inputs, 4), inputs);
    }
    let body = "shl.b32 %r4, %r1, 4; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r4], {%r10};\n\
                bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r40}, [%r4];\n\
                movmatrix.sync.aligned.m8n8.trans.b16 %r41, %r10;";
    let out = run(body, &inputs, 2);
    assert_eq!(out[0], out[1]);
    assert_ne!(out[0], inputs[0]);
}

#[test]
fn asynchronous_copies_fill_zero_and_obey_their_predicates() {
    let data: [u32; 32] = std::array::from_fn(|l| 0x0101_0101 * (l as u32 + 1));
    let inputs = [data; 4];
    // Lanes 0..8 copy 16 bytes of which 16, 0, 4, 3, ... come from memory.
    let body = "setp.lt.u32 %p1, %r1, 8; shl.b32 %r2, %r1, 4; cvt.u64.u32 %rd4, %r2; add.s64 %rd5, %rd1, %rd4;\n\
                and.b32 %r3, %r1, 3; setp.eq.u32 %p2, %r3, 0; setp.eq.u32 %p3, %r3, 2; mov.u32 %r4, 0;\n\
                @%p2 mov.u32 %r4, 16;\n@%p3 mov.u32 %r4, 3;\n\
                @%p1 cp.async.ca.shared.global.L2::128B [%r2], [%rd5], 16, %r4;\n\
                add.s32 %r5, %r2, 512; setp.gt.u32 %p4, %r1, 3;\n\
                @%p1 cp.async.ca.shared.global [%r5], [%rd5], 8, %p4;\n\
                cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; mov.u32 %r40, 0; mov.u32 %r41, 0;\n\
                @%p1 ld.shared.u32 %r40, [%r2];\n@%p1 ld.shared.u32 %r41, [%r5+4];";
    let out = run(body, &inputs, 2);
    for lane in 0..8usize {
        let word = data[4 * lane];
        let expected = [word, 0, word & 0xFF_FFFF, 0][lane % 4];
        assert_eq!(out[0][lane], expected, "lane {lane}");
        let expected = if lane > 3 { 0 } else { data[4 * lane + 1] };
        assert_eq!(out[1][lane], expected, "lane {lane}");
    }
}
