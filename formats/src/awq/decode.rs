//! Unpacking AWQ's codes, zero-points and scales into logical order.

use super::layout::{Layout, Parts};
use super::{GEMM_ORDER, PER_WORD};
use crate::codes::{each_tile, Codes};
use crate::container::Kept;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::registry::LayerHeader;
use crate::tensors::Module;
use half::f16;
use qtune_ir::{transpose_bytes, vectorised};
use rayon::prelude::*;

/// See [`crate::FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let layout = Layout::of(header).ok_or_else(|| {
        let problem = format!("has no AWQ packing `{}`", header.layout);
        parts.qweight.error(problem, "inspect the layer before it is loaded")
    })?;
    let spec = super::ROW.spec(&header.name)?;
    let (n, k, groups) = (header.n, header.k, header.groups());
    let scales = parts.scales;
    let (codes, second, scales, rounding) = match layout {
        Layout::Gemm => (
            gemm_codes(parts.qweight.keep(), n, k),
            gemm_zeros(parts.qzeros.bytes, n, groups),
            scales.matrix_f16(n, groups, |n, g| g * header.n + n)?,
            Rounding::F16,
        ),
        Layout::Gemv => {
            let zero_words = parts.qzeros.shape[1];
            (
                gemv_codes(parts.qweight.keep(), n, k),
                gemv_zeros(parts.qzeros.bytes, n, groups, zero_words),
                scales.matrix_f16(n, groups, |n, g| n * zero_words * PER_WORD + g)?,
                Rounding::F32,
            )
        }
        Layout::GemvFast => (
            gemv_fast_codes(parts.qweight.keep(), n, k),
            ParamValues::F16(parts.qzeros.matrix_f16(n, groups, |n, g| g * header.n + n)?),
            scales.matrix_f16(n, groups, |n, g| g * header.n + n)?,
            Rounding::F16,
        ),
    };
    // A scale is a range divided by 15, so it cannot be negative; zero and subnormals are real.
    parts.scales.check_values(&scales, groups, |value| *value >= f16::ZERO)?;
    let bias = parts.bias.map(|bias| bias.bias(n)).transpose()?;
    let values = [ParamValues::F16(scales), second];
    let named = spec.params.iter().zip(values);
    let params = named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect();
    Ok(QuantizedLinear {
        spec,
        n,
        k,
        codes,
        params,
        bias,
        rounding,
        k_order: None,
        input_scale: None,
    })
}

/// Zero-points `[N, groups]` of a `gemm` tensor `[groups, N/8]`, which have the interleave of the codes.
fn gemm_zeros(packed: &[u8], n: usize, groups: usize) -> ParamValues {
    let mut zeros = vec![0; n * groups];
    zeros.par_chunks_mut(GEMM_ROWS * groups).enumerate().for_each(|(task, rows)| {
        for g in 0..groups {
            let words = &packed[4 * (g * n + task * GEMM_ROWS) / PER_WORD..];
            for (word, rows) in words.chunks_exact(4).zip(rows.chunks_mut(PER_WORD * groups)) {
                for (nibble, row) in GEMM_ORDER.into_iter().enumerate() {
                    rows[row * groups + g] = word[nibble / 2] >> (4 * (nibble % 2)) & 15;
                }
            }
        }
    });
    ParamValues::Code(zeros)
}

/// Zero-points `[N, groups]` of a `gemv` tensor: rows of `stride` words in natural order.
fn gemv_zeros(packed: &[u8], n: usize, groups: usize, stride: usize) -> ParamValues {
    let mut zeros = vec![0; n * groups];
    let rows = zeros.par_chunks_mut(groups).zip(packed.par_chunks(4 * stride));
    rows.for_each(|(zeros, packed)| {
        for (g, zero) in zeros.iter_mut().enumerate() {
            *zero = packed[g / 2] >> (4 * (g % 2)) & 15;
        }
    });
    ParamValues::Code(zeros)
}

/// Words of a row of a `gemm` tensor that are transposed at once: a cache line.
const TILE_WORDS: usize = 16;
/// Output rows of these words.
const GEMM_ROWS: usize = TILE_WORDS * PER_WORD;
/// Words of an output row that a task has at hand before it stores them: a cache line.
const LINE: usize = 16;
/// Columns of a word of an output row.
const COLUMNS: usize = 8;
/// The lower nibble of every byte.
const LOW_NIBBLES: u32 = 0x0f0f_0f0f;

/// The words of a tile in one row of a `gemm` tensor, or those of its output rows with one place in
/// their word: what is done with all of them is one loop, which compilers turn into vector
/// instructions.
type Words = [u32; TILE_WORDS];

/// `gemm`: the code of row n, column k is in word `k * N/8 + n/8`.
fn gemm_codes(packed: Kept, n: usize, k: usize) -> Codes {
    let row_words = n / PER_WORD;
    Codes::stored([n, k], 4, move |first, rows, stride| {
        each_tile((first, rows), stride, GEMM_ROWS, |first, rows| {
            let tile = GemmTile { packed: &packed, row_words, k, first: first / PER_WORD };
            tile.transpose(rows, stride, first % PER_WORD);
        });
    })
}

/// The words of a `gemm` tensor that become a tile of output rows.
struct GemmTile<'a> {
    packed: &'a [u8],
    row_words: usize,
    k: usize,
    /// The first of the tile's words in each row.
    first: usize,
}

impl GemmTile<'_> {
    /// Writes output rows from row `skipped` of the tile on, `stride` bytes each, a square of cache lines
    /// at a time.
    fn transpose(&self, rows: &mut [u8], stride: usize, skipped: usize) {
        let words = (skipped + rows.len() / stride).div_ceil(PER_WORD);
        let mut lines = [[0; LINE]; GEMM_ROWS];
        let mut columns = [[[0; TILE_WORDS]; COLUMNS]; LINE];
        let mut turned = [[0; TILE_WORDS]; PER_WORD];
        for start in (0..stride).step_by(4 * LINE) {
            let end = (start + 4 * LINE).min(stride);
            let columns = &mut columns[..(end - start).div_ceil(4)];
            // All first: memory answers many reads at once that wait for nothing else.
            for (column, row) in columns.as_flattened_mut().iter_mut().zip(2 * start..) {
                self.read(row, words, column);
            }
            for (at, columns) in columns.iter().enumerate() {
                turn(columns, &mut turned);
                for (nibble, words) in GEMM_ORDER.into_iter().zip(&turned) {
                    for (lines, word) in lines.chunks_exact_mut(PER_WORD).zip(words) {
                        lines[nibble][at] = *word;
                    }
                }
            }
            for (row, line) in rows.chunks_mut(stride).zip(&lines[skipped..]) {
                store(&mut row[start..end], line);
            }
        }
    }

    /// So many of the tile's words of a row of the tensor; zeros in a row beyond the last.
    fn read(&self, row: usize, words: usize, column: &mut Words) {
        if row >= self.k {
            return column.fill(0);
        }
        let bytes = &self.packed[4 * (row * self.row_words + self.first)..][..4 * words];
        match bytes.first_chunk::<{ 4 * TILE_WORDS }>() {
            // Of a size that is known when this is compiled.
            Some(bytes) => copy_words(bytes, column),
            None => copy_words(bytes, column),
        }
    }
}

#[inline(always)]
fn copy_words(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

/// Fills `bytes` with words. Whole words by themselves: their copies are single instructions.
fn store(bytes: &mut [u8], words: &[u32; LINE]) {
    let whole = bytes.len() / 4;
    let mut chunks = bytes.chunks_exact_mut(4);
    for (bytes, word) in (&mut chunks).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let rest = chunks.into_remainder();
    if let Some(word) = words.get(whole) {
        rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
    }
}

vectorised!(
    /// From words of eight columns the words of eight rows, nibble by nibble.
    fn turn(columns: &[Words; COLUMNS], rows: &mut [Words; PER_WORD]) = transpose
);

#[inline(always)]
fn transpose(columns: &[Words; COLUMNS], rows: &mut [Words; PER_WORD]) {
    for at in 0..TILE_WORDS {
        let pair = |p: usize| (columns[2 * p][at], columns[2 * p + 1][at]);
        // A byte of a row is a code of each column.
        let low = |(even, odd): (u32, u32)| even & LOW_NIBBLES | (odd & LOW_NIBBLES) << 4;
        let high = |(even, odd): (u32, u32)| even >> 4 & LOW_NIBBLES | odd & !LOW_NIBBLES;
        let low = transpose_bytes([low(pair(0)), low(pair(1)), low(pair(2)), low(pair(3))]);
        let high = transpose_bytes([high(pair(0)), high(pair(1)), high(pair(2)), high(pair(3))]);
        for byte in 0..4 {
            rows[2 * byte][at] = low[byte];
            rows[2 * byte + 1][at] = high[byte];
        }
    }
}

/// `gemv`: row n is a run of words in natural order, which is how [`Codes`] gives it.
fn gemv_codes(packed: Kept, n: usize, k: usize) -> Codes {
    Codes::as_stored([n, k], 4, packed)
}

/// `gemv_fast`: code (n, k) is in row n/4, element `k/64*64 + n%4*16 + k%64/32*8 + k%8`, nibble
/// `k%32/8`: each 16-bit element holds four columns, eight apart.
fn gemv_fast_codes(packed: Kept, n: usize, k: usize) -> Codes {
    Codes::stored([n, k], 4, move |first, rows, stride| {
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            let quad = &packed[n / 4 * k * 2..][..k * 2];
            let code = |k: usize| {
                let element = k / 64 * 64 + n % 4 * 16 + k % 64 / 32 * 8 + k % 8;
                let nibble = k % 32 / 8;
                quad[2 * element + nibble / 2] >> (4 * (nibble % 2)) & 15
            };
            for (pair, byte) in row.iter_mut().enumerate() {
                *byte = code(2 * pair) | code(2 * pair + 1) << 4;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nibble of its word that column `n` takes in the `gemm` packing.
    fn gemm_nibble(n: usize) -> usize {
        // The inverse of GEMM_ORDER: even columns in the low half, odd ones in the high half.
        n % PER_WORD / 2 + n % 2 * 4
    }

    #[test]
    fn gemm_words_hold_codes_0_to_7_as_the_library_packs_them() {
        let codes = gemm_codes(Kept::of(&0x7531_6420u32.to_le_bytes()), 8, 1);
        assert_eq!((0..8).map(|n| codes.get(n, 0)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
        for column in 0..8 {
            assert_eq!(GEMM_ORDER[gemm_nibble(column)], column);
        }
    }

    #[test]
    fn gemm_tiles_join_where_n_is_no_multiple_of_a_tile() {
        let (n, k) = (GEMM_ROWS + 24, 5);
        let mut packed = vec![0u8; k * n / 2];
        let code = |n: usize, k: usize| ((n * 7 + k * 3) % 16) as u8;
        for k in 0..k {
            for column in 0..n {
                let bit = 4 * gemm_nibble(column);
                let byte = 4 * (k * n / PER_WORD + column / PER_WORD) + bit / 8;
                packed[byte] |= code(column, k) << (bit % 8);
            }
        }
        let codes = gemm_codes(Kept::of(&packed), n, k);
        for column in 0..n {
            for k in 0..k {
                assert_eq!(codes.get(column, k), code(column, k), "column {column}, k {k}");
            }
        }
    }
}
