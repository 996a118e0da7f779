//! The floating-point matrix product of `mma.sync`, on whole fragments.
//!
//! Lane decomposition: g = lane / 4 is a row (of A and C) or a column (of B), t = lane % 4 a pair of
//! neighbouring elements. So four neighbouring lanes of a register of A or B hold eight elements of
//! one row (column) in order of k, and those of a pair of registers of C hold the even and the odd
//! columns of one row.

use super::machine::Machine;
use super::numeric::bf16_to_f32;
use crate::state::{Lanes32, LANES};

/// How a 32-bit register holds elements of A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    F16,
    Bf16,
    /// One element per register.
    Tf32,
}

impl Packing {
    /// Elements of k in a slice: what one register of B and two of A hold.
    pub(crate) fn slice(self) -> usize {
        match self {
            Packing::F16 | Packing::Bf16 => 8,
            Packing::Tf32 => 4,
        }
    }
}

/// C and D: 16 rows of 8 columns, the even columns first.
pub(crate) type Sums = [[f32; 8]; 16];

/// Operands of one product, of one or two slices of k.
pub(crate) struct Operands<'a> {
    pub packing: Packing,
    pub slices: usize,
    /// Two registers per slice: rows 0 to 7, rows 8 to 15.
    pub a: [&'a Lanes32; 4],
    /// One register per slice.
    pub b: [&'a Lanes32; 2],
}

/// The words of four neighbouring lanes.
#[inline(always)]
pub(crate) fn four_lanes(register: &Lanes32, g: usize) -> [u32; 4] {
    [register[4 * g], register[4 * g + 1], register[4 * g + 2], register[4 * g + 3]]
}

/// The elements in four neighbouring lanes in order of k; tf32 fills the first half.
#[inline(always)]
fn unpack<M: Machine>(m: M, packing: Packing, words: [u32; 4]) -> [f32; 8] {
    match packing {
        Packing::F16 => m.widen_f16(words),
        Packing::Bf16 => {
            let mut out = [0.0; 8];
            for i in 0..4 {
                out[2 * i] = bf16_to_f32(words[i] & 0xFFFF);
                out[2 * i + 1] = f32::from_bits(words[i] & 0xFFFF_0000);
            }
            out
        }
        Packing::Tf32 => {
            let mut out = [0.0; 8];
            for i in 0..4 {
                // The lower 13 bits of the mantissa are ignored.
                out[i] = f32::from_bits(words[i] & 0xFFFF_E000);
            }
            out
        }
    }
}

/// The product of two elements added to a sum, with one rounding.
#[inline(always)]
fn step<M: Machine>(m: M, packing: Packing, a: f32, b: f32, sum: f32) -> f32 {
    match packing {
        // 22 bits between 2^-48 and 2^32.
        Packing::F16 => m.multiply_add(a, b, sum),
        // Exact but for overflow and underflow.
        Packing::Bf16 | Packing::Tf32 => a.mul_add(b, sum),
    }
}

/// sums += a * b in f32 with one rounding per step, k increasing.
///
/// The device's own order and truncation differ (Fasi et al. 2021), so results match to a
/// tolerance, not to the bit.
#[inline(always)]
pub(crate) fn accumulate<M: Machine>(m: M, operands: &Operands<'_>, sums: &mut Sums) {
    match operands.packing {
        Packing::F16 => accumulate_packed(m, Packing::F16, operands, sums),
        Packing::Bf16 => accumulate_packed(m, Packing::Bf16, operands, sums),
        Packing::Tf32 => accumulate_packed(m, Packing::Tf32, operands, sums),
    }
}

#[inline(always)]
fn accumulate_packed<M: Machine>(m: M, packing: Packing, o: &Operands<'_>, sums: &mut Sums) {
    /// Rows that are summed up side by side, so that additions do not wait for each other.
    const ROWS: usize = 4;
    for slice in 0..o.slices.min(2) {
        let mut columns = [[0.0; 8]; 8];
        for i in 0..4 {
            columns[i] = unpack(m, packing, four_lanes(o.b[slice], 2 * i));
            columns[i + 4] = unpack(m, packing, four_lanes(o.b[slice], 2 * i + 1));
        }
        let b = m.transpose(columns);
        for block in 0..16 / ROWS {
            let register = o.a[2 * slice + block * ROWS / 8];
            let mut rows = [[0.0; 8]; ROWS];
            for row in 0..ROWS {
                rows[row] = unpack(m, packing, four_lanes(register, (block * ROWS + row) % 8));
            }
            let mut block_sums = [[0.0; 8]; ROWS];
            block_sums.copy_from_slice(&sums[block * ROWS..(block + 1) * ROWS]);
            for k in 0..packing.slice() {
                for row in 0..ROWS {
                    for column in 0..8 {
                        let sum = &mut block_sums[row][column];
                        *sum = step(m, packing, rows[row][k], b[k][column], *sum);
                    }
                }
            }
            sums[block * ROWS..(block + 1) * ROWS].copy_from_slice(&block_sums);
        }
    }
}

/// Sums from registers of f32.
#[inline(always)]
pub(crate) fn gather_f32(registers: [&Lanes32; 4]) -> Sums {
    let mut sums = [[0.0; 8]; 16];
    for (row, sums) in sums.iter_mut().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            let register = registers[2 * (row / 8) + i / 4];
            *sum = f32::from_bits(register[4 * (row % 8) + i % 4]);
        }
    }
    sums
}

/// The inverse of [`gather_f32`].
#[inline(always)]
pub(crate) fn scatter_f32(sums: &Sums) -> [Lanes32; 4] {
    let mut registers = [[0; LANES]; 4];
    for (row, sums) in sums.iter().enumerate() {
        for (i, &sum) in sums.iter().enumerate() {
            let register = &mut registers[2 * (row / 8) + i / 4];
            register[4 * (row % 8) + i % 4] = super::numeric::canonical(sum);
        }
    }
    registers
}

/// Sums from registers of f16 pairs.
#[inline(always)]
pub(crate) fn gather_f16<M: Machine>(m: M, registers: [&Lanes32; 2]) -> Sums {
    let mut sums = [[0.0; 8]; 16];
    for (row, sums) in sums.iter_mut().enumerate() {
        let v = m.widen_f16(four_lanes(registers[row / 8], row % 8));
        *sums = [v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7]];
    }
    sums
}

/// The inverse of [`gather_f16`].
#[inline(always)]
pub(crate) fn scatter_f16<M: Machine>(m: M, sums: &Sums) -> [Lanes32; 2] {
    let mut registers = [[0; LANES]; 2];
    for (row, s) in sums.iter().enumerate() {
        let words = m.narrow_f16([s[0], s[4], s[1], s[5], s[2], s[6], s[3], s[7]]);
        registers[row / 8][4 * (row % 8)..][..4].copy_from_slice(&words);
    }
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulators_gather_and_scatter_back() {
        let registers: [Lanes32; 4] = std::array::from_fn(|r| {
            std::array::from_fn(|l| (r as f32 * 32.0 + l as f32).to_bits())
        });
        let sums = gather_f32(registers.each_ref());
        // Row 9, column 3: the odd columns stand behind the even ones.
        assert_eq!(sums[9][5], f32::from_bits(registers[3][4 + 1]));
        assert_eq!(scatter_f32(&sums), registers);
    }
}
