//! `wgmma.mma_async` against dense products, with operands laid out after PTX ISA 9.7.15.5.

use crate::support::warpgroup::*;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.15"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    every_element_type_multiplies_like_the_dense_product,
    every_number_of_columns_works,
    every_layout_of_both_operands_is_read_as_specified,
    signs_accumulators_and_scale_d_are_obeyed,
    one_element_of_a_row_or_column_is_found_at_every_position,
];

/// Runs the case with correct synchronisation and compares every element.
fn check(case: &Case) {
    let instruction = case.instruction();
    let body = format!(
        "wgmma.fence.sync.aligned;\n{instruction}\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;"
    );
    let (out, findings) = execute(case, &body);
    assert!(findings.is_empty(), "{instruction}: {findings:#?}");
    for register in 0..case.registers() {
        for thread in 0..128 {
            let expected = case.accumulator_bits(thread, register, |r, c| case.expected(r, c));
            let found = out[128 * register + thread];
            assert_eq!(found, expected, "{instruction} thread {thread} register {register}");
        }
    }
}

const PLAIN: [Layout; 2] = [Layout::KMajor(128), Layout::KMajor(128)];

#[test]
fn every_element_type_multiplies_like_the_dense_product() {
    for (seed, (a, b)) in [
        (F16, F16),
        (BF16, BF16),
        (TF32, TF32),
        (E4M3, E4M3),
        (E5M2, E5M2),
        (E4M3, E5M2),
        (E5M2, E4M3),
        (S8, S8),
        (U8, U8),
        (S8, U8),
        (U8, S8),
    ]
    .into_iter()
    .enumerate()
    {
        for in_registers in [false, true] {
            let mut case = Case::new(a, b, 64, PLAIN, seed as u64);
            case.a_in_registers = in_registers;
            check(&case);
        }
    }
}

#[test]
fn every_number_of_columns_works() {
    for n in (8..=256).step_by(8) {
        check(&Case::new(F16, F16, n, PLAIN, n as u64));
    }
}

#[test]
fn every_layout_of_both_operands_is_read_as_specified() {
    let widths = [16, 32, 64, 128];
    for width in widths {
        for other in widths {
            check(&Case::new(F16, F16, 72, [Layout::KMajor(width), Layout::KMajor(other)], 1));
            check(&Case::new(BF16, BF16, 136, [Layout::MnMajor(width), Layout::MnMajor(other)], 2));
            check(&Case::new(F16, F16, 64, [Layout::KMajor(width), Layout::MnMajor(other)], 3));
        }
        check(&Case::new(E4M3, E5M2, 24, [Layout::KMajor(width); 2], 4));
        check(&Case::new(TF32, TF32, 40, [Layout::KMajor(width); 2], 5));
        let mut case = Case::new(F16, F16, 80, [PLAIN[0], Layout::MnMajor(width)], 6);
        case.a_in_registers = true;
        check(&case);
    }
}

#[test]
fn signs_accumulators_and_scale_d_are_obeyed() {
    for signs in [[1, -1], [-1, 1], [-1, -1]] {
        let mut case = Case::new(F16, F16, 16, PLAIN, 7);
        case.signs = signs;
        check(&case);
        (case.accumulator, case.keep) = ("f16", false);
        check(&case);
    }
    for (format, accumulator) in [(F16, "f16"), (E4M3, "f16"), (S8, "s32"), (TF32, "f32")] {
        for keep in [false, true] {
            let mut case = Case::new(format, format, 32, PLAIN, 8);
            (case.accumulator, case.keep) = (accumulator, keep);
            check(&case);
        }
    }
}

#[test]
fn one_element_of_a_row_or_column_is_found_at_every_position() {
    for format in [F16, BF16, TF32, E4M3, E5M2, S8, U8] {
        for in_registers in [false, true] {
            // Rows do not meet each other, so each may have its element at another k.
            for shift in 0..format.k() {
                let mut case = Case::new(format, format, 8, PLAIN, shift as u64);
                case.a_in_registers = in_registers;
                case.a.values.fill(0.0);
                for row in 0..64 {
                    let k = case.a.step * format.k() + (row * 5 + shift) % format.k();
                    let at = row * case.a.tile_k() + k;
                    case.a.values[at] = 3.0;
                }
                check(&case);
                let mut case = Case::new(format, format, 8, PLAIN, shift as u64);
                case.a_in_registers = in_registers;
                case.b.values.fill(0.0);
                for column in 0..8 {
                    let k = case.b.step * format.k() + (column * 3 + shift) % format.k();
                    let at = column * case.b.tile_k() + k;
                    case.b.values[at] = 2.0;
                }
                check(&case);
            }
        }
    }
}
