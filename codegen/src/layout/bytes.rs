//! Codes of 8 bits that are multiplied as they are: A fragments of `m16n8k32` (PTX ISA, "Matrix
//! Fragments for mma.m16n8k32"). Of 16 rows by 32 of k, lane `4g + t` has four words: rows `g` and
//! `g + 8` at k `4t..4t+4`, then the same two rows 16 of k further on. A lane's piece is four fragments,
//! 128 of k, each of them one 16-byte load.

use super::{Bits, CodeRow, LANES};
use qtune_ir::{Schedule, WeightSpec};

/// Rows of a fragment.
const ROWS: u32 = 16;
/// k of a fragment.
const FRAGMENT_K: u32 = 32;
/// k of a piece.
const CHUNK_K: u32 = 128;
/// Bytes of a fragment: one load of each lane.
const FRAGMENT_BYTES: usize = 4 * 4 * LANES as usize;

/// Tiles of byte fragments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bytes {
    pub block_n: u32,
    pub block_k: u32,
    /// What a stored code differs in from the byte that is multiplied.
    pub flip: u8,
}

impl Bytes {
    /// Where codes lie that `schedule` multiplies as they are; `None` where weights are dequantized.
    pub fn of(spec: &WeightSpec, schedule: &Schedule) -> Option<Bytes> {
        let (block_n, block_k) = match schedule {
            Schedule::Mma(s) => (s.block_n, s.block_k),
            Schedule::Wgmma(s) => (s.block_n, s.block_k),
            Schedule::Gemv(_) | Schedule::Dequant(_) => return None,
        };
        let flip = spec.activations.code_flip();
        spec.activations.are_quantized().then_some(Bytes { block_n, block_k, flip })
    }

    /// A line that identifies the layout.
    pub fn id(&self) -> String {
        format!("bytes.{}x{}.x{:02x}", self.block_n, self.block_k, self.flip)
    }

    /// Where the byte of a weight lies in its row tile.
    pub fn bits(&self, n: u32, k: u32) -> Bits {
        let (row, step, k) = (n % self.block_n, k / self.block_k, k % self.block_k);
        let (row_tile, row) = (row / ROWS, row % ROWS);
        let (chunk, k) = (k / CHUNK_K, k % CHUNK_K);
        let (fragment, k) = (k / FRAGMENT_K, k % FRAGMENT_K);
        let slab = (step * (self.block_n / ROWS) + row_tile) * (self.block_k / CHUNK_K) + chunk;
        let lane = row % 8 * 4 + k % 16 / 4;
        let word = row / 8 + 2 * (k / 16);
        let word = ((slab * 4 + fragment) * LANES + lane) * 4 + word;
        Bits { word: word as usize, shift: 8 * (k % 4), low: 0, width: 8 }
    }

    /// Packs a row tile: a word is four codes that follow each other in their row.
    pub fn pack<'a>(
        &self,
        rows: impl Fn(u32) -> Option<CodeRow<'a>>,
        k_end: u32,
        packed: &mut [u8],
    ) {
        let row_tiles = self.block_n / ROWS;
        let fragments = self.block_k / FRAGMENT_K;
        for (index, bytes) in (0..).zip(packed.chunks_exact_mut(FRAGMENT_BYTES)) {
            let (fragment, slab) = (index % fragments, index / fragments);
            let (row_tile, step) = (slab % row_tiles, slab / row_tiles);
            let k = step * self.block_k + fragment * FRAGMENT_K;
            for row in 0..ROWS {
                let Some(codes) = rows(row_tile * ROWS + row) else { continue };
                self.pack_row(codes, (row, k), k_end, bytes);
            }
        }
    }

    /// The 32 codes from `k` on of a row of a fragment.
    fn pack_row(&self, codes: CodeRow<'_>, (row, k): (u32, u32), k_end: u32, packed: &mut [u8]) {
        for quad in 0..FRAGMENT_K / 4 {
            let (lane, word) = (row % 8 * 4 + quad % 4, row / 8 + 2 * (quad / 4));
            let to = &mut packed[4 * (lane * 4 + word) as usize..][..4];
            let from = k + 4 * quad;
            match codes {
                CodeRow::Bytes(bytes) if from + 4 <= k_end => {
                    to.copy_from_slice(&bytes[from as usize..from as usize + 4]);
                    to.iter_mut().for_each(|byte| *byte ^= self.flip);
                }
                _ => {
                    for (k, byte) in (from..k_end).zip(to) {
                        *byte = codes.code(k) ^ self.flip;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bytes;
    use super::*;
    use qtune_ir::{ActivationScales, Activations};

    #[test]
    fn a_word_is_four_codes_of_a_row_with_the_sign_that_is_multiplied() {
        let code = |n: u32, k: u32| (n * 31 + k * 7) as u8;
        let rows: Vec<Vec<u8>> = (0..9).map(|n| (0..70).map(|k| code(n, k)).collect()).collect();
        let layout = bytes(9, 70, Activations::Integers(ActivationScales::Token));
        let packed = layout.pack_weight_tile(0, &|n| CodeRow::Bytes(&rows[n as usize]));
        // Row 1 of the first fragment, k 4 to 7: lane 5, its first word.
        assert_eq!(packed[80..84], [4, 5, 6, 7].map(|k| code(1, k) ^ 0x80));
        // Row 8: the second word of the lanes of row 0. K ends at 70.
        let third = 2 * FRAGMENT_BYTES;
        assert_eq!(packed[third + 20..third + 24], [code(8, 68) ^ 0x80, code(8, 69) ^ 0x80, 0, 0]);
        for (n, row) in (0..).zip(&rows) {
            assert!((0..).zip(row).all(|(k, code)| layout.code(&packed, n, k) == *code), "row {n}");
        }
    }
}
