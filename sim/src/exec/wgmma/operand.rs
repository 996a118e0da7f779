//! Operands of `wgmma` in shared memory.

use std::ops::Range;

use super::descriptor::Descriptor;
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::program::Slot;
use crate::state::{Lanes32, Warp, LANES};

/// Bytes that are read together.
const PIECE: usize = 16;

/// Eight rows with 32 bytes of K as an `mma` holds them: register r has word t + 4r of row g.
pub(super) type Pair = [Lanes32; 2];

/// An operand in shared memory.
pub(super) struct Operand {
    descriptor: Descriptor,
    transposed: bool,
}

impl Operand {
    /// Reads the descriptor and checks what can be told before any access.
    pub(super) fn new(
        block: &mut Block<'_>,
        w: &Warp,
        slot: Slot,
        transposed: bool,
        mask: u32,
    ) -> Operand {
        let lanes = w.get64(slot);
        let bits = lanes[mask.trailing_zeros() as usize % LANES];
        if block.checks() {
            if lanes.iter().any(|&other| other != bits) {
                let message = "lanes of a warp give different matrix descriptors".to_owned();
                block.report(FindingKind::InvalidDescriptor, Place::default(), message);
            }
            if let Some(message) = Descriptor::defect(bits) {
                block.report(FindingKind::InvalidDescriptor, Place::default(), message);
            }
        }
        Operand { descriptor: Descriptor::new(bits), transposed }
    }

    /// Rows (or columns) 8 * `group` on, with the instruction's whole K. Notes the pieces read.
    pub(super) fn load(&self, block: &mut Block<'_>, group: usize, pieces: &mut Vec<u32>) -> Pair {
        let mut out = [[0; LANES]; 2];
        if self.transposed {
            for k in 0..16 {
                let piece = load_piece(block, self.descriptor.mn_major(group, k), pieces);
                for row in 0..8 {
                    let element = piece[row / 2] >> (16 * (row % 2)) & 0xFFFF;
                    out[k / 8][4 * row + k % 8 / 2] |= element << (16 * (k % 2));
                }
            }
        } else {
            for row in 0..8 {
                for (half, register) in out.iter_mut().enumerate() {
                    let at = self.descriptor.k_major(8 * group + row, half);
                    let piece = load_piece(block, at, pieces);
                    register[4 * row..4 * row + 4].copy_from_slice(&piece);
                }
            }
        }
        out
    }
}

/// Sixteen bytes of shared memory; zero where there is none.
fn load_piece(block: &mut Block<'_>, at: u32, pieces: &mut Vec<u32>) -> [u32; 4] {
    let end = u64::from(at) + PIECE as u64;
    if end > block.shared.len() {
        let message = format!("the operand reaches byte {end} of {}", block.shared.len());
        let place = Place { address: Some(u64::from(at)), ..Place::default() };
        block.report(FindingKind::InvalidDescriptor, place, message);
        return [0; 4];
    }
    pieces.push(at);
    block.shared.load_row(at as usize)
}

/// Pieces as ranges, neighbours joined.
pub(super) fn ranges(pieces: Vec<u32>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(pieces.len() / 2);
    for at in pieces {
        let at = at as usize;
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end = at + PIECE,
            Some(last) if last.start == at + PIECE => last.start = at,
            _ => ranges.push(at..at + PIECE),
        }
    }
    ranges
}
