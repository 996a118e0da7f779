//! Accumulators: registers C and D of `mma` and `wgmma` as a dense block and back.

use super::element::four_lanes;
use crate::exec::machine::Machine;
use crate::exec::numeric::canonical;
use crate::program::{MmaAccumulator, Slot};
use crate::state::{each_lane, Lanes32, Warp, LANES};

/// 16 rows of 8 columns, the even columns first.
pub(crate) type Sums = [[f32; 8]; 16];

/// The accumulators of sixteen rows by eight columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accumulators {
    pub format: MmaAccumulator,
}

impl Accumulators {
    /// What the product is added to: the values of the registers `c`, or zero. Integers start at
    /// zero, because their sum is formed in [`Accumulators::store`].
    #[inline(always)]
    pub(crate) fn load<M: Machine>(self, m: M, w: &Warp, c: Option<&[Slot]>) -> Sums {
        match (self.format, c) {
            (MmaAccumulator::F32, Some(&[a, b, c, d])) => {
                gather_f32([w.get32(a), w.get32(b), w.get32(c), w.get32(d)])
            }
            (MmaAccumulator::F16, Some(&[a, b])) => gather_f16(m, [w.get32(a), w.get32(b)]),
            _ => [[0.0; 8]; 16],
        }
    }

    /// Writes the sums to the registers `d`; products of integers are added to `c`, when there is
    /// one, wrapping or saturating (`.satfinite`).
    #[inline(always)]
    pub(crate) fn store<M: Machine>(
        self,
        m: M,
        w: &mut Warp,
        mask: u32,
        (d, c): (&[Slot], Option<&[Slot]>),
        sums: &Sums,
    ) {
        match self.format {
            MmaAccumulator::F32 => {
                for (half, slots) in d.chunks_exact(2).enumerate() {
                    let rows = &sums[8 * half..8 * half + 8];
                    w.set32(slots[0], mask, &scatter::<0>(rows, canonical));
                    w.set32(slots[1], mask, &scatter::<1>(rows, canonical));
                }
            }
            MmaAccumulator::F16 => {
                let registers = scatter_f16(m, sums);
                for (&slot, values) in d.iter().zip(&registers) {
                    w.set32(slot, mask, values);
                }
            }
            MmaAccumulator::S32 { saturate } => {
                for (register, &slot) in d.iter().enumerate() {
                    let (rows, integer) = (&sums[register / 2 * 8..], |sum| sum as i32 as u32);
                    let product = match register % 2 {
                        0 => scatter::<0>(rows, integer),
                        _ => scatter::<1>(rows, integer),
                    };
                    let old = c.map_or([0; LANES], |c| *w.get32(c[register]));
                    w.set32(slot, mask, &add(&old, &product, saturate));
                }
            }
        }
    }
}

#[inline(always)]
fn add(a: &Lanes32, b: &Lanes32, saturate: bool) -> Lanes32 {
    if saturate {
        each_lane!(|lane| (a[lane] as i32).saturating_add(b[lane] as i32) as u32)
    } else {
        each_lane!(|lane| a[lane].wrapping_add(b[lane]))
    }
}

/// Sums from registers of f32.
#[inline(always)]
fn gather_f32(registers: [&Lanes32; 4]) -> Sums {
    let mut sums = [[0.0; 8]; 16];
    for row in 0..16 {
        let (even, odd) = (registers[row / 8 * 2], registers[row / 8 * 2 + 1]);
        for i in 0..4 {
            sums[row][i] = f32::from_bits(even[row % 8 * 4 + i]);
            sums[row][4 + i] = f32::from_bits(odd[row % 8 * 4 + i]);
        }
    }
    sums
}

/// The even (0) or odd (1) columns of eight rows as a register with one element per lane: the
/// inverse of [`gather_f32`].
#[inline(always)]
fn scatter<const ODD: usize>(rows: &[[f32; 8]], bits: impl Fn(f32) -> u32) -> Lanes32 {
    let mut register = [0; LANES];
    for lane in 0..LANES {
        register[lane] = bits(rows[lane / 4][4 * ODD + lane % 4]);
    }
    register
}

/// Sums from registers of f16 pairs.
#[inline(always)]
fn gather_f16<M: Machine>(m: M, registers: [&Lanes32; 2]) -> Sums {
    let mut sums = [[0.0; 8]; 16];
    for (row, sums) in sums.iter_mut().enumerate() {
        let v = m.widen_f16(four_lanes(registers[row / 8], row % 8));
        *sums = [v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7]];
    }
    sums
}

/// The inverse of [`gather_f16`].
#[inline(always)]
fn scatter_f16<M: Machine>(m: M, sums: &Sums) -> [Lanes32; 2] {
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
        for (half, rows) in sums.chunks_exact(8).enumerate() {
            assert_eq!(scatter::<0>(rows, canonical), registers[2 * half]);
            assert_eq!(scatter::<1>(rows, canonical), registers[2 * half + 1]);
        }
    }
}
