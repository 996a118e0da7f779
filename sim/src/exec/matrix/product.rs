//! The matrix product of `mma.sync` and `wgmma`, on whole fragments.
//!
//! Lane decomposition: g = lane / 4 is a row (of A and C) or a column (of B), t = lane % 4 a pair of
//! neighbouring elements. So four neighbouring lanes of a register of A or B hold elements of
//! one row (column) in order of k, and those of a pair of registers of C hold the even and the odd
//! columns of one row.

use super::element::{four_lanes, slices, unpack};
use super::sums::Sums;
use crate::exec::machine::{Machine, Rows};
use crate::program::Element;
use crate::state::Lanes32;

/// Operands of one product of sixteen rows and eight columns.
pub(crate) struct Operands<'a> {
    pub a_type: Element,
    pub b_type: Element,
    /// Two registers per register of B: rows 0 to 7, rows 8 to 15.
    pub a: [&'a Lanes32; 4],
    /// One or two registers.
    pub b: &'a [&'a Lanes32],
    /// Factors of 16, 32 or 64 consecutive elements of each row and column.
    pub scales: Option<&'a Scales>,
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
    for slice in 0..o.b.len() * parts {
        let (register, part) = (slice / parts, slice % parts);
        let mut columns = [[0.0; 8]; 8];
        for i in 0..8 {
            columns[i] = unpack(m, b_type, four_lanes(o.b[register], column_at(i)), part);
        }
        let mut rows = [[0.0; 8]; 16];
        for row in 0..16 {
            let a = o.a[2 * register + row / 8];
            rows[row] = unpack(m, a_type, four_lanes(a, row % 8), part);
        }
        if let Some(scales) = o.scales {
            scale_all(&mut rows, &mut columns, scales, slice);
        }
        m.multiply(sums, (&rows, &columns), length, exact);
    }
}

/// The column at a place of the sums, which hold the even ones first.
#[inline(always)]
fn column_at(place: usize) -> usize {
    2 * (place % 4) + place / 4
}

#[cold]
fn scale_all(rows: &mut Rows, columns: &mut [[f32; 8]; 8], scales: &Scales, slice: usize) {
    let at = slice / scales.slices;
    for (place, column) in columns.iter_mut().enumerate() {
        scale(column, scales.b[column_at(place)][at]);
    }
    for (row, scales) in rows.iter_mut().zip(&scales.a) {
        scale(row, scales[at]);
    }
}

fn scale(values: &mut [f32; 8], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}
