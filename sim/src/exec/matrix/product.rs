//! The matrix product of `mma.sync` and `wgmma`, on whole fragments.
//!
//! Lane decomposition: g = lane / 4 is a row (of A and C) or a column (of B), t = lane % 4 a pair of
//! neighbouring elements. So four neighbouring lanes of a register of A or B hold elements of
//! one row (column) in order of k, and those of a pair of registers of C hold the even and the odd
//! columns of one row.

use super::element::{four_lanes, slices, unpack};
use super::sums::Sums;
use crate::exec::machine::{Columns, Machine, Rows};
use crate::program::Element;
use crate::state::Lanes32;

/// Operands of one product of sixteen rows and eight columns.
pub(crate) struct Operands<'a> {
    pub a_type: Element,
    pub b_type: Element,
    pub a: Left<'a>,
    /// One or two registers.
    pub b: &'a [&'a Lanes32],
    /// Factors of 16, 32 or 64 consecutive elements of each row and column.
    pub scales: Option<&'a Scales>,
}

/// Where the sixteen rows of A stand.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Two registers per register of B: rows 0 to 7, rows 8 to 15.
    Registers([&'a Lanes32; 4]),
    /// As [`unpack_left`] gives them, for A that several products share.
    Unpacked(&'a [Rows; SLICES]),
}

/// Most slices of A in 32 bytes of K.
const SLICES: usize = 4;

/// Slices that are multiplied together.
const TOGETHER: usize = 2;

/// Unpacks 32 bytes of K of A, from two registers for rows 0 to 7 and two for rows 8 to 15 in turns.
#[inline(always)]
pub(crate) fn unpack_left<M: Machine>(m: M, ty: Element, a: [&Lanes32; 4]) -> [Rows; SLICES] {
    let mut rows = [[[0.0; 8]; 16]; SLICES];
    match ty {
        Element::F16 => unpack_rows(m, Element::F16, a, 0, &mut rows[..2]),
        _ => unpack_rows(m, ty, a, 0, &mut rows[..2 * slices(ty).min(2)]),
    }
    rows
}

/// Unpacks some slices of A.
#[inline(always)]
fn unpack_rows<M: Machine>(m: M, ty: Element, a: [&Lanes32; 4], first: usize, out: &mut [Rows]) {
    let parts = slices(ty);
    for slice in 0..out.len() {
        let (register, part) = ((first + slice) / parts, (first + slice) % parts);
        for row in 0..16 {
            let words = four_lanes(a[2 * register + row / 8], row % 8);
            out[slice][row] = unpack(m, ty, words, part);
        }
    }
}

/// Block scales along K: of each row of A, then of each column of B.
#[derive(Debug, Clone)]
pub(crate) struct Scales {
    pub a: [[f32; 4]; 16],
    pub b: [[f32; 4]; 8],
    /// Slices of eight elements that share a scale.
    pub slices: usize,
}

/// sums += a * b in f32 with one rounding per step, k increasing.
///
/// Sums of integer products stay below 2^24 within one instruction and are exact. The device's own
/// order and truncation of floating-point sums differ (Fasi et al. 2021), so results match to a
/// tolerance, not to the bit.
#[inline(always)]
pub(crate) fn accumulate<M: Machine>(m: M, o: &Operands<'_>, sums: &mut Sums) {
    match o.a_type {
        Element::F16 => accumulate_as(m, [Element::F16; 2], o, sums),
        Element::Bf16 => accumulate_as(m, [Element::Bf16; 2], o, sums),
        Element::Tf32 => accumulate_as(m, [Element::Tf32; 2], o, sums),
        a_type => accumulate_as(m, [a_type, o.b_type], o, sums),
    }
}

/// [`accumulate`] for formats that the compiler may know.
#[inline(always)]
fn accumulate_as<M: Machine>(
    m: M,
    [a_type, b_type]: [Element; 2],
    o: &Operands<'_>,
    sums: &mut Sums,
) {
    let parts = slices(a_type);
    let length = if a_type == Element::Tf32 { 4 } else { 8 };
    // Products of the others have at most 22 bits between 2^-48 and 2^32; those of bf16 and tf32
    // may overflow and underflow.
    let exact = !matches!(a_type, Element::Bf16 | Element::Tf32);
    let all = o.b.len() * parts;
    for first in (0..all).step_by(TOGETHER) {
        let count = TOGETHER.min(all - first);
        let mut columns = [[[0.0; 8]; 8]; TOGETHER];
        for slice in 0..count {
            let (register, part) = ((first + slice) / parts, (first + slice) % parts);
            for i in 0..8 {
                let words = four_lanes(o.b[register], column_at(i));
                columns[slice][i] = unpack(m, b_type, words, part);
            }
        }
        let columns = &mut columns[..count];
        match o.a {
            Left::Unpacked(rows) => {
                m.multiply(sums, (&rows[first..first + count], columns), length, exact);
            }
            Left::Registers(a) => {
                let mut rows = [[[0.0; 8]; 16]; TOGETHER];
                let rows = &mut rows[..count];
                unpack_rows(m, a_type, a, first, rows);
                if let Some(scales) = o.scales {
                    scale_all(rows, columns, scales, first);
                }
                m.multiply(sums, (rows, columns), length, exact);
            }
        }
    }
}

/// The column at a place of the sums, which hold the even ones first.
#[inline(always)]
fn column_at(place: usize) -> usize {
    2 * (place % 4) + place / 4
}

/// Scales slices, the first of which has a number.
#[cold]
fn scale_all(rows: &mut [Rows], columns: &mut [Columns], scales: &Scales, first: usize) {
    for (slice, (rows, columns)) in (first..).zip(rows.iter_mut().zip(columns)) {
        let at = slice / scales.slices;
        for (place, column) in columns.iter_mut().enumerate() {
            scale(column, scales.b[column_at(place)][at]);
        }
        for (row, scales) in rows.iter_mut().zip(&scales.a) {
            scale(row, scales[at]);
        }
    }
}

fn scale(values: &mut [f32; 8], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}
