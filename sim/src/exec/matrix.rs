//! `ldmatrix`, `stmatrix`, `movmatrix` and `mma.sync` (PTX ISA 9.7.14).
//!
//! Lane decomposition of all fragments: g = lane / 4 is a row (or column), t = lane % 4 a pair of
//! neighbouring elements.

use super::machine::Machine;
use super::memory::{
    addresses, check_shared, check_shared_read, check_shared_write, narrow, require_full_warp,
    Direction,
};
use super::product::{self, Packing};
use super::traffic::part_wavefronts;
use crate::address;
use crate::block::Block;
use crate::counters::SharedTraffic;
use crate::program::{Address, Mma, MmaAccumulator, MmaInput, Slot};
use crate::state::{each_lane, lanes, Lanes32, Lanes64, Warp, FULL, LANES};

/// Row addresses of `count` matrices; generic addresses are taken as shared.
fn row_addresses(w: &Warp, address: Address) -> Lanes64 {
    addresses(w, address).map(address::strip_window)
}

/// Lanes whose addresses a matrix access of `count` 8x8 matrices uses.
fn address_lanes(count: u8) -> u32 {
    FULL >> (LANES - 8 * usize::from(count))
}

/// Each matrix is one wavefront when its eight rows fall into distinct 16-byte bank groups.
fn count_matrices(block: &mut Block<'_>, rows: &Lanes64, count: u8) {
    let rows = narrow(rows);
    let mut shared = SharedTraffic { requests: 1, ..Default::default() };
    for matrix in 0..usize::from(count) {
        shared.ideal_wavefronts += 1;
        shared.wavefronts += part_wavefronts(&rows[8 * matrix..8 * matrix + 8], 0xFF, 16);
    }
    block.counters().shared.add(shared);
}

pub(crate) fn ldmatrix(
    block: &mut Block<'_>,
    w: &mut Warp,
    count: u8,
    transposed: bool,
    address: Address,
    registers: [Slot; 4],
    mask: u32,
) {
    require_full_warp(block, mask, "ldmatrix");
    let rows = row_addresses(w, address);
    let good = check_shared(block, &rows, address_lanes(count), 16, Direction::Load);
    count_matrices(block, &rows, count);
    for (matrix, &register) in registers.iter().take(usize::from(count)).enumerate() {
        let mut words = [[0u32; 4]; 8];
        for (row, words) in words.iter_mut().enumerate() {
            let lane = 8 * matrix + row;
            if good >> lane & 1 == 0 {
                continue;
            }
            let at = rows[lane] as usize;
            if block.checks() {
                check_shared_read(block, lane, at, 16);
            }
            *words = block.shared.load_row(at);
        }
        w.set32(register, mask, &fragment_of(&words, transposed));
    }
}

/// Element (row, column) of an 8x8 matrix of 16-bit elements held as rows of words.
#[inline(always)]
fn element(words: &[[u32; 4]; 8], row: usize, column: usize) -> u32 {
    words[row][column / 2] >> (16 * (column % 2)) & 0xFFFF
}

/// The register that holds a matrix over a warp.
fn fragment_of(words: &[[u32; 4]; 8], transposed: bool) -> Lanes32 {
    each_lane!(|lane| {
        let (g, t) = (lane / 4, lane % 4);
        if transposed {
            element(words, 2 * t, g) | element(words, 2 * t + 1, g) << 16
        } else {
            words[g][t]
        }
    })
}

/// The inverse of [`fragment_of`].
fn words_of(register: &Lanes32, transposed: bool) -> [[u32; 4]; 8] {
    let mut words = [[0u32; 4]; 8];
    for (lane, &value) in register.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        if transposed {
            words[2 * t][g / 2] |= (value & 0xFFFF) << (16 * (g % 2));
            words[2 * t + 1][g / 2] |= (value >> 16) << (16 * (g % 2));
        } else {
            words[g][t] = value;
        }
    }
    words
}

pub(crate) fn stmatrix(
    block: &mut Block<'_>,
    w: &mut Warp,
    count: u8,
    transposed: bool,
    address: Address,
    registers: [Slot; 4],
    mask: u32,
) {
    require_full_warp(block, mask, "stmatrix");
    let rows = row_addresses(w, address);
    let good = check_shared(block, &rows, address_lanes(count), 16, Direction::Store);
    count_matrices(block, &rows, count);
    for (matrix, &register) in registers.iter().take(usize::from(count)).enumerate() {
        let words = words_of(w.get32(register), transposed);
        for (row, words) in words.iter().enumerate() {
            let lane = 8 * matrix + row;
            if good >> lane & 1 == 0 {
                continue;
            }
            let at = rows[lane] as usize;
            if block.checks() {
                check_shared_write(
                    block,
                    lane,
                    at,
                    16,
                    |_| false,
                    |shared| shared.is_defined(at, 16) && shared.load_row(at) == *words,
                );
            }
            for (i, &word) in words.iter().enumerate() {
                block.shared.store(at + 4 * i, 4, u64::from(word));
            }
        }
    }
}

/// Transposes an 8x8 matrix of 16-bit elements within a register.
pub(crate) fn movmatrix(block: &mut Block<'_>, w: &mut Warp, d: Slot, a: Slot, mask: u32) {
    require_full_warp(block, mask, "movmatrix");
    let out = fragment_of(&words_of(w.get32(a), false), true);
    w.set32(d, mask, &out);
}

#[inline(always)]
pub(crate) fn mma<M: Machine>(m: M, block: &mut Block<'_>, w: &mut Warp, op: &Mma, mask: u32) {
    require_full_warp(block, mask, "mma.sync");
    let packing = match op.input {
        MmaInput::F16 => Packing::F16,
        MmaInput::Bf16 => Packing::Bf16,
        MmaInput::Tf32 => Packing::Tf32,
        MmaInput::Int8 { a_signed, b_signed } => {
            return mma_int8(w, op, [a_signed, b_signed], mask);
        }
    };
    let operands = product::Operands {
        packing,
        slices: usize::from(op.k) / packing.slice(),
        a: op.a.map(|slot| w.get32(slot)),
        b: op.b.map(|slot| w.get32(slot)),
    };
    if op.accumulator == MmaAccumulator::F16 {
        let mut sums = product::gather_f16(m, [w.get32(op.c[0]), w.get32(op.c[1])]);
        product::accumulate(m, &operands, &mut sums);
        let out = product::scatter_f16(m, &sums);
        for (&slot, values) in op.d.iter().zip(&out) {
            w.set32(slot, mask, values);
        }
    } else {
        let mut sums = product::gather_f32(op.c.map(|slot| w.get32(slot)));
        product::accumulate(m, &operands, &mut sums);
        let out = product::scatter_f32(&sums);
        for (&slot, values) in op.d.iter().zip(&out) {
            w.set32(slot, mask, values);
        }
    }
}

fn byte(word: u32, index: usize, signed: bool) -> i64 {
    let byte = (word >> (8 * index)) as u8;
    if signed {
        i64::from(byte as i8)
    } else {
        i64::from(byte)
    }
}

/// Dot product of the four bytes of two words.
fn dot4(a: u32, b: u32, signs: [bool; 2]) -> i64 {
    (0..4).map(|i| byte(a, i, signs[0]) * byte(b, i, signs[1])).sum()
}

/// s32 accumulation wraps, or saturates at the end with `.satfinite`.
fn mma_int8(w: &mut Warp, m: &Mma, signs: [bool; 2], mask: u32) {
    let saturate = m.accumulator == MmaAccumulator::S32 { saturate: true };
    let halves = usize::from(m.k) / 16;
    let mut out = [[0u32; LANES]; 4];
    for lane in lanes(FULL) {
        let (g, t) = (lane / 4, lane % 4);
        for (register, values) in out.iter_mut().enumerate() {
            let (row_half, column) = (register / 2, 2 * t + register % 2);
            let mut sum = i64::from(w.get32(m.c[register])[lane] as i32);
            for half in 0..halves {
                for quarter in 0..4 {
                    let a = w.get32(m.a[2 * half + row_half])[4 * g + quarter];
                    let b = w.get32(m.b[half])[4 * column + quarter];
                    sum += dot4(a, b, signs);
                }
            }
            if saturate {
                sum = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            }
            values[lane] = sum as u32;
        }
    }
    for (&slot, values) in m.d.iter().zip(&out) {
        w.set32(slot, mask, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_and_rows_are_inverse_in_both_orientations() {
        let words: [[u32; 4]; 8] =
            std::array::from_fn(|r| std::array::from_fn(|c| (r * 4 + c) as u32 * 0x0001_0003));
        for transposed in [false, true] {
            assert_eq!(words_of(&fragment_of(&words, transposed), transposed), words);
        }
        let register = fragment_of(&words, true);
        assert_eq!(register[4 * 3 + 1] & 0xFFFF, element(&words, 2, 3));
        assert_eq!(register[4 * 3 + 1] >> 16, element(&words, 3, 3));
    }
}
