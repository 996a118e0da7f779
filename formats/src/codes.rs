//! The codes of a layer: as a file packs them, decoded by the block of rows when they are asked for, or
//! decoded before.
//!
//! What reads the codes of a layer reads them once, row after row. A decoder that were run for all of them
//! first would write the whole matrix to memory, for that reader to fetch it from there; a block of rows
//! stays in a core's cache. So a decoder is a function that gives any rows, and whoever reads says which.

use crate::container::Kept;
use crate::nibbles::unpack;
use crate::vectors::Vectors;
use qtune_ir::{VECTOR_SHARE_BITS, VECTOR_WEIGHTS};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Unsigned codes of a matrix, row-major. Weights of a vector have an eighth of its code each. Codes of up to 4 bits take half a byte, the even column
/// in the low nibble; wider codes take one byte. Every row starts at a byte.
#[derive(Clone, Debug)]
pub struct Codes {
    rows: usize,
    cols: usize,
    bits: u8,
    held: Held,
    vectors: Option<Arc<Vectors>>,
}

/// Writes all rows from one on that a slice has place for, so many bytes each, whatever is in it.
type Decode = dyn Fn(usize, &mut [u8], usize) + Send + Sync;

#[derive(Clone)]
enum Held {
    /// `row_stride` bytes for each row.
    Decoded(Arc<Vec<u8>>),
    Stored(Arc<Decode>),
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Decoded(bytes) => write!(f, "{} bytes", bytes.len()),
            Held::Stored(_) => f.write_str("in a file"),
        }
    }
}

/// Bytes of the rows that are best decoded at once: a part of a core's second cache, in which what becomes
/// of them has place beside them.
const BLOCK_BYTES: usize = 1 << 18;
/// The fewest and most rows to decode at once. Where neighbours of a row of a file are one column of
/// several rows, fewer rows have less than its cache lines.
const BLOCK_ROWS: [usize; 2] = [64, 256];

impl Codes {
    /// All-zero codes of `bits` (at most 8) bits.
    pub fn zeros(rows: usize, cols: usize, bits: u8) -> Codes {
        let bytes = vec![0; rows * row_stride(cols, bits)];
        Codes { rows, cols, bits, held: Held::Decoded(Arc::new(bytes)), vectors: None }
    }

    /// All-zero codes that name `vectors`; `cols` is a multiple of [`VECTOR_WEIGHTS`].
    pub fn of_vectors(rows: usize, cols: usize, vectors: Arc<Vectors>) -> Codes {
        debug_assert_eq!(cols % VECTOR_WEIGHTS, 0, "whole vectors");
        Codes { vectors: Some(vectors), ..Codes::zeros(rows, cols, VECTOR_SHARE_BITS) }
    }

    /// Codes `[rows, cols]` that `decode` gives when they are asked for: all rows from its first argument on
    /// that the second one has place for, as many bytes each as the third one says. It writes all of
    /// these bytes.
    pub(crate) fn stored(
        [rows, cols]: [usize; 2],
        bits: u8,
        decode: impl Fn(usize, &mut [u8], usize) + Send + Sync + 'static,
    ) -> Codes {
        Codes { rows, cols, bits, held: Held::Stored(Arc::new(decode)), vectors: None }
    }

    /// Codes that a file has in the form in which blocks have them.
    pub(crate) fn as_stored(sizes: [usize; 2], bits: u8, bytes: Kept) -> Codes {
        Codes::stored(sizes, bits, move |first, rows, stride| {
            rows.copy_from_slice(&bytes[first * stride..][..rows.len()]);
        })
    }

    /// The rows of `self` and of `odd`, which differ in nothing but codes, by turns.
    pub(crate) fn by_turns(&self, odd: &Codes) -> Codes {
        let both = [self.clone(), odd.clone()];
        let codes = Codes::stored([2 * self.rows, self.cols], self.bits, move |first, rows, s| {
            let pairs = first / 2..(first + rows.len() / s).div_ceil(2);
            let mut scratch = [Vec::new(), Vec::new()];
            let [even, odd] = &mut scratch;
            let blocks = [both[0].block(pairs.clone(), even), both[1].block(pairs, odd)];
            for (n, row) in (first..).zip(rows.chunks_mut(s)) {
                row.copy_from_slice(blocks[n % 2].row(n / 2));
            }
        });
        Codes { vectors: self.vectors.clone(), ..codes }
    }

    /// The codebooks of a layer whose codes name vectors.
    pub fn vectors(&self) -> Option<&Arc<Vectors>> {
        self.vectors.as_ref()
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bits per code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Bytes per row.
    #[inline]
    pub fn row_stride(&self) -> usize {
        row_stride(self.cols, self.bits)
    }

    /// Rows that are best decoded at once; fewer take longer each.
    pub fn rows_at_once(&self) -> usize {
        let [fewest, most] = BLOCK_ROWS;
        (BLOCK_BYTES / self.row_stride().max(1) / fewest * fewest).clamp(fewest, most)
    }

    /// Some rows, decoded into `scratch` if they are not.
    pub fn block<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<u8>) -> CodeBlock<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "{rows:?} of {}", self.rows);
        let (first, stride) = (rows.start, self.row_stride());
        let bytes = match &self.held {
            Held::Decoded(bytes) => &bytes[first * stride..rows.end * stride],
            Held::Stored(decode) => {
                scratch.resize(rows.len() * stride, 0);
                if !scratch.is_empty() {
                    decode(first, scratch, stride);
                }
                scratch
            }
        };
        CodeBlock { first, stride, cols: self.cols, bits: self.bits, bytes }
    }

    /// All rows, [`Codes::row_stride`] bytes each, to be changed; decodes them all if they are not.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (stride, at_once) = (self.row_stride(), self.rows_at_once());
        if let Held::Stored(decode) = &self.held {
            let mut bytes = vec![0; self.rows * stride];
            let blocks = bytes.par_chunks_mut((at_once * stride).max(1)).enumerate();
            blocks.for_each(|(block, rows)| decode(block * at_once, rows, stride));
            self.held = Held::Decoded(Arc::new(bytes));
        }
        match &mut self.held {
            Held::Decoded(bytes) => Arc::<Vec<u8>>::make_mut(bytes),
            Held::Stored(_) => &mut [],
        }
    }

    /// The code of column `k` of row `n`, for which all of the row is decoded.
    pub fn get(&self, n: usize, k: usize) -> u8 {
        assert!(k < self.cols, "column {k} of {}", self.cols);
        let mut scratch = Vec::new();
        let block = self.block(n..n + 1, &mut scratch);
        match self.bits {
            0..=4 => block.row(n)[k / 2] >> (4 * (k % 2)) & 15,
            _ => block.row(n)[k],
        }
    }
}

fn row_stride(cols: usize, bits: u8) -> usize {
    match bits {
        0..=4 => cols.div_ceil(2),
        _ => cols,
    }
}

/// The codes of some consecutive rows.
#[derive(Clone, Copy, Debug)]
pub struct CodeBlock<'a> {
    first: usize,
    stride: usize,
    cols: usize,
    bits: u8,
    bytes: &'a [u8],
}

impl<'a> CodeBlock<'a> {
    /// The bytes of row `n` of the matrix, as [`Codes`] says.
    #[inline]
    pub fn row(&self, n: usize) -> &'a [u8] {
        &self.bytes[(n - self.first) * self.stride..][..self.stride]
    }

    /// Writes the codes of row `n` of the matrix to `out`, one per byte; `out` holds one byte per column.
    pub fn unpack_row(&self, n: usize, out: &mut [u8]) {
        assert_eq!(out.len(), self.cols, "one byte per column");
        unpack(self.row(n), self.bits, out);
    }
}

/// Cuts rows from `first` on, `stride` bytes each, where rows that are multiples of `tile` start, and calls
/// `each` with the first row and the bytes of every part.
pub(crate) fn each_tile(
    (mut first, mut rows): (usize, &mut [u8]),
    stride: usize,
    tile: usize,
    mut each: impl FnMut(usize, &mut [u8]),
) {
    while !rows.is_empty() {
        let count = (tile - first % tile).min(rows.len() / stride);
        let (part, rest) = rows.split_at_mut(count * stride);
        each(first, part);
        (first, rows) = (first + count, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of 4 bits of which byte `at` of row `n` is `16 n + at`, decoded when they are asked for.
    fn stored(rows: usize) -> Codes {
        Codes::stored([rows, 5], 4, |first, rows, stride| {
            for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
                (0..).zip(row).for_each(|(at, byte)| *byte = (16 * n + at) as u8);
            }
        })
    }

    #[test]
    fn rows_are_the_same_in_every_block() {
        let codes = stored(9);
        let mut decoded = codes.clone();
        assert_eq!(decoded.bytes_mut().len(), 9 * 3);
        for rows in [0..9, 2..7, 8..9, 4..4] {
            let mut scratch = [vec![0xff; 40], Vec::new()];
            let [first, second] = &mut scratch;
            let blocks = [codes.block(rows.clone(), first), decoded.block(rows.clone(), second)];
            for n in rows {
                let wanted = [0, 1, 2].map(|at| (16 * n + at) as u8);
                assert_eq!(blocks.map(|block| block.row(n)), [wanted; 2]);
            }
        }
    }

    #[test]
    fn codes_unpack_as_they_are_read_one_by_one() {
        for bits in [4, 8] {
            let mut codes = Codes::zeros(3, 5, bits);
            for (index, byte) in codes.bytes_mut().iter_mut().enumerate() {
                *byte = (index * 37) as u8;
            }
            let mut scratch = Vec::new();
            for n in 0..3 {
                let mut row = [0; 5];
                codes.block(0..3, &mut scratch).unpack_row(n, &mut row);
                assert_eq!(row.to_vec(), (0..5).map(|k| codes.get(n, k)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn rows_by_turns_start_with_either() {
        let both = stored(5).by_turns(&Codes::zeros(5, 5, 4));
        assert_eq!(both.rows(), 10);
        let mut scratch = Vec::new();
        let block = both.block(3..8, &mut scratch);
        let rows = [3, 4, 5, 6, 7].map(|n| block.row(n)[0]);
        assert_eq!(rows, [0, 32, 0, 48, 0]);
    }

    #[test]
    fn parts_start_at_multiples_of_a_tile() {
        let mut parts = Vec::new();
        each_tile((5, &mut [0; 22]), 2, 4, |first, rows| parts.push((first, rows.len() / 2)));
        assert_eq!(parts, [(5, 3), (8, 4), (12, 4)]);
    }
}
