//! Operands of `wgmma` in shared memory.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::descriptor::Descriptor;
use crate::block::{Block, Place};
use crate::check::{FindingKind, Region};
use crate::program::Slot;
use crate::state::{Lanes32, Warp, LANES};

/// Bytes that are read together.
const PIECE: usize = 16;

/// Most operands whose ranges are kept.
const MOST_FETCHES: usize = 256;

/// Eight rows with 32 bytes of K as an `mma` holds them: register r has word t + 4r of row g.
pub(super) type Pair = [Lanes32; 2];

/// An operand in shared memory.
pub(super) struct Operand {
    bits: u64,
    descriptor: Descriptor,
    transposed: bool,
}

/// The regions of shared memory that operands are read from, by descriptor, orientation and groups
/// of eight rows: every warp of a group and every turn of a loop reads the same ones.
#[derive(Debug, Default)]
pub(crate) struct Fetches(HashMap<Fetch, Rc<Region>>);

type Fetch = (u64, bool, Range<usize>);

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
        Operand { bits, descriptor: Descriptor::new(bits), transposed }
    }

    /// What `groups` of eight rows (or columns) are read from, as far as it exists.
    pub(super) fn region(&self, block: &mut Block<'_>, groups: Range<usize>) -> Rc<Region> {
        let key = (self.bits, self.transposed, groups.clone());
        if let Some(region) = block.fetches.0.get(&key) {
            return region.clone();
        }
        let length = block.shared.len();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for at in groups.flat_map(|group| (0..16).map(move |piece| self.piece_at(group, piece))) {
            let piece = at as usize..at as usize + PIECE;
            match ranges.last_mut() {
                _ if piece.end as u64 > length => {}
                Some(last) if last.end == piece.start => last.end = piece.end,
                Some(last) if last.start == piece.end => last.start = piece.start,
                _ => ranges.push(piece),
            }
        }
        if block.fetches.0.len() == MOST_FETCHES {
            block.fetches.0.clear();
        }
        let region = Rc::new(Region::new(ranges));
        block.fetches.0.insert(key, region.clone());
        region
    }

    /// Address of one of the sixteen pieces of a group.
    fn piece_at(&self, group: usize, piece: usize) -> u32 {
        if self.transposed {
            self.descriptor.mn_major(group, piece)
        } else {
            self.descriptor.k_major(8 * group + piece / 2, piece % 2)
        }
    }

    /// Rows (or columns) 8 * `group` on, with the instruction's whole K.
    pub(super) fn load(&self, block: &mut Block<'_>, group: usize) -> Pair {
        let mut out = [[0; LANES]; 2];
        if self.transposed {
            for k in 0..16 {
                let piece = load_piece(block, self.piece_at(group, k));
                for row in 0..8 {
                    let element = piece[row / 2] >> (16 * (row % 2)) & 0xFFFF;
                    out[k / 8][4 * row + k % 8 / 2] |= element << (16 * (k % 2));
                }
            }
        } else {
            for row in 0..8 {
                for (half, register) in out.iter_mut().enumerate() {
                    let piece = load_piece(block, self.piece_at(group, 2 * row + half));
                    register[4 * row..4 * row + 4].copy_from_slice(&piece);
                }
            }
        }
        out
    }
}

/// Sixteen bytes of shared memory; zero where there is none.
#[inline(always)]
fn load_piece(block: &mut Block<'_>, at: u32) -> [u32; 4] {
    let end = u64::from(at) + PIECE as u64;
    if end > block.shared.len() {
        let message = format!("the operand reaches byte {end} of {}", block.shared.len());
        let place = Place { address: Some(u64::from(at)), ..Place::default() };
        block.report(FindingKind::InvalidDescriptor, place, message);
        return [0; 4];
    }
    block.shared.load_row(at as usize)
}
