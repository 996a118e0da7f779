//! `ldmatrix`, `stmatrix` and `movmatrix` (PTX ISA 9.7.14.5.15 to 17): 8x8 matrices of 16-bit
//! elements between shared memory and registers.

use crate::address;
use crate::block::Block;
use crate::exec::memory::{addresses, require_full_warp, Direction};
use crate::exec::shared::{begin_request, check_reads, check_writes, Writing};
use crate::program::{Address, Slot};
use crate::shared::SharedMemory;
use crate::state::{each_lane, Lanes32, Lanes64, Warp, FULL, LANES};

/// Row addresses of `count` matrices; generic addresses are taken as shared.
#[inline(always)]
fn row_addresses(w: &Warp, address: Address) -> Lanes64 {
    let at = addresses(w, address);
    each_lane!(|lane| address::strip_window(at[lane]))
}

/// Lanes whose addresses a matrix access of `count` 8x8 matrices uses.
fn address_lanes(count: u8) -> u32 {
    FULL >> (LANES - 8 * usize::from(count))
}

#[inline(always)]
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
    // Each matrix is one wavefront when its eight rows fall into distinct 16-byte bank groups.
    let request = begin_request(block, &rows, address_lanes(count), 16, Direction::Load);
    if block.checks() {
        check_reads(block, &request);
    }
    let good = request.mask();
    for (matrix, &register) in registers.iter().take(usize::from(count)).enumerate() {
        let mut words = [[0u32; 4]; 8];
        for (row, words) in words.iter_mut().enumerate() {
            let lane = 8 * matrix + row;
            if good >> lane & 1 != 0 {
                *words = block.shared.load_row(rows[lane] as usize);
            }
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
#[inline(always)]
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
    let request = begin_request(block, &rows, address_lanes(count), 16, Direction::Store);
    let good = request.mask();
    if block.checks() {
        let unchanged = |shared: &SharedMemory, lane: usize| {
            let words = words_of(w.get32(registers[lane / 8]), transposed)[lane % 8];
            let at = rows[lane] as usize;
            shared.is_defined(at, 16) && shared.load_row(at) == words
        };
        check_writes(block, Writing::Store, &request, |_, _| false, unchanged);
    }
    for (matrix, &register) in registers.iter().take(usize::from(count)).enumerate() {
        let words = words_of(w.get32(register), transposed);
        for (row, words) in words.iter().enumerate() {
            let lane = 8 * matrix + row;
            if good >> lane & 1 == 0 {
                continue;
            }
            let at = rows[lane] as usize;
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
