//! Where the codes of vectors lie, and how they get there.
//!
//! In a fragment, four lanes hold eight k of a row: two each of the same vectors. A k16 of rows `g` and
//! `g+8` has four vectors, an octet of two words. Those of a chunk's first k16 belong to the first eight
//! lanes, and so on: a load of the k16's two words, the same for four lanes and side by side for the rows,
//! brings each the vectors that it needs weights of. In `gemv`, an octet is a vector anyway.

use super::pack::CodeRow;
use super::{fragment_origin, Fragments, Kind, Layout, Spot};
use qtune_ir::{vector_code, PIECE_OCTETS, VECTOR_WEIGHTS};

/// Rows and k of a fragment's tile, and of the part of it that a vector has.
const TILE_ROWS: u32 = 16;
const CHUNK_K: u32 = 64;
const K16: u32 = 16;
const HALF: u32 = 8;

/// Where a weight's share of its vector's code lies: `row` in the tile, `k` in the step.
pub(super) fn fragment_spot(s: &Fragments, row: u32, step: u32, k: u32) -> Spot {
    let (row_tile, row) = (row / TILE_ROWS, row % TILE_ROWS);
    let (chunk, k) = (k / CHUNK_K, k % CHUNK_K);
    Spot {
        slab: (step * (s.block_n / TILE_ROWS) + row_tile) * (s.block_k / CHUNK_K) + chunk,
        lane: k / K16 * HALF + row % HALF,
        octet: k % K16 / HALF * 2 + row / HALF,
        pair: k % HALF / 2,
        half: k % 2,
    }
}

impl Layout {
    /// Row in the tile and k of the vector that is an octet of a piece, not cut at N and K.
    fn vector_origin(&self, (slab, lane): (u32, u32), octet: u32) -> (u32, u32) {
        match &self.kind {
            Kind::Gemv(_) => {
                let (row, k) = self.piece_origin(slab, lane);
                (row, k + octet * HALF)
            }
            Kind::Fragments(s) => {
                // Of the four lanes that multiply a row the first has the first k of the chunk.
                let (row, step, k) = fragment_origin(s, slab, lane % HALF * 4);
                let k = step * self.step_k() + k + lane / HALF * K16;
                (row + octet % 2 * HALF, k + octet / 2 * HALF)
            }
        }
    }

    /// The words of a piece of codes that name vectors; the first two count. `row(n)` has the codes of a row
    /// of the tile, if there is one.
    pub(super) fn vector_piece<'a>(
        &self,
        piece: (u32, u32),
        row: impl Fn(u32) -> Option<CodeRow<'a>>,
    ) -> [u32; 8] {
        let mut words = [0; 8];
        for octet in 0..PIECE_OCTETS {
            let (n, k) = self.vector_origin(piece, octet as u32);
            let Some(codes) = row(n).filter(|_| k < self.k) else { continue };
            let shares: [u8; VECTOR_WEIGHTS] = std::array::from_fn(|at| {
                let k = k + at as u32;
                if k < self.k {
                    codes.code(k)
                } else {
                    0
                }
            });
            words[octet / 2] |= u32::from(vector_code(&shares)) << (16 * (octet % 2));
        }
        words
    }
}
