//! Packing codes of 4 bits by the run and by the slab, as many bytes in as out. All words of a slab are
//! put together by the same arithmetic, a loop at a time, which compilers turn into vector instructions.

use qtune_ir::dequant::CodeOrder;
use qtune_ir::{order_nibbles, transpose_bytes, vectorised};

/// The even nibbles of a word.
const LOW_NIBBLES: u32 = 0x0f0f_0f0f;
/// Rows of a fragment.
pub(super) const ROWS: usize = 16;
/// Lanes that share a pair of rows.
const LANES: usize = 4;
/// Bytes of a row in the pieces of these lanes.
pub(super) const ROW_BYTES: usize = 32;
/// Words of each lane of a pair of rows: one for each k16.
const K16S: usize = 4;
/// Pairs of words in a slab that lie 8 of k apart in one row.
const WORDS: usize = ROWS / 2 * K16S;

vectorised!(
    /// Pieces of one row: consecutive codes, in the order of the layout word by word.
    pub(super) fn row_run(codes: &[u8], order: CodeOrder, packed: &mut [u8]) = reorder
);

#[inline(always)]
fn reorder(codes: &[u8], order: CodeOrder, packed: &mut [u8]) {
    if order == CodeOrder::Sequential {
        return packed.copy_from_slice(codes);
    }
    for (place, word) in packed.chunks_exact_mut(4).zip(codes.chunks_exact(4)) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        place.copy_from_slice(&order_nibbles(word, order).to_le_bytes());
    }
}

/// Codes of the rows of a fragment, 64 of k.
pub(super) type FragmentRows<'a> = [&'a [u8; ROW_BYTES]; ROWS];
/// Pieces of all lanes of a warp.
pub(super) type Slab = [u8; ROWS * ROW_BYTES];

vectorised!(
    /// The pieces of all lanes of a warp, of fragments of sixteen rows. Of the rows `g` and `g + 8`, lane
    /// `4g + t` has a word for each k16, of the bytes `t` and `t + 4` of both.
    pub(super) fn fragment_slab(rows: &FragmentRows<'_>, order: CodeOrder, packed: &mut Slab) = fragments
);

#[inline(always)]
fn fragments(rows: &FragmentRows<'_>, order: CodeOrder, packed: &mut Slab) {
    let (first, second) = (halves(&rows[..ROWS / 2]), halves(&rows[ROWS / 2..]));
    let rotation = order.rotation();
    let mut lanes = [[0; WORDS]; LANES];
    for at in 0..WORDS {
        let [first, second] = [&first, &second].map(|[low, high]| [low[at], high[at]]);
        let bytes = match order {
            CodeOrder::Sequential | CodeOrder::Vectors => {
                [first[0], second[0], first[1], second[1]]
            }
            // A byte of the result has a nibble of either row: even columns first, then odd ones.
            CodeOrder::Split | CodeOrder::Raised => {
                let even =
                    |half: usize| first[half] & LOW_NIBBLES | (second[half] & LOW_NIBBLES) << 4;
                let odd =
                    |half: usize| first[half] >> 4 & LOW_NIBBLES | second[half] & !LOW_NIBBLES;
                [even(0), even(1), odd(0), odd(1)]
            }
        };
        for (lane, word) in lanes.iter_mut().zip(transpose_bytes(bytes)) {
            lane[at] = word.rotate_left(rotation);
        }
    }
    for (pair, pieces) in packed.chunks_exact_mut(4 * LANES * K16S).enumerate() {
        for (piece, lane) in pieces.chunks_exact_mut(4 * K16S).zip(&lanes) {
            let words = &lane[K16S * pair..K16S * (pair + 1)];
            for (place, word) in piece.chunks_exact_mut(4).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// The words of the first and of the second half of each k16, row by row.
#[inline(always)]
fn halves(rows: &[&[u8; ROW_BYTES]]) -> [[u32; WORDS]; 2] {
    let mut all = [[0; ROW_BYTES]; ROWS / 2];
    // Side by side they are one loop over words, which rows by themselves are not.
    all.iter_mut().zip(rows).for_each(|(bytes, row)| *bytes = **row);
    let mut halves = [[0; WORDS]; 2];
    for (at, k16) in all.as_flattened().chunks_exact(8).enumerate() {
        halves[0][at] = u32::from_le_bytes([k16[0], k16[1], k16[2], k16[3]]);
        halves[1][at] = u32::from_le_bytes([k16[4], k16[5], k16[6], k16[7]]);
    }
    halves
}
