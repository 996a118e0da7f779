//! Unpacking AWQ's codes, zero-points and scales into logical order.

use super::layout::{Layout, Parts};
use super::{GEMM_ORDER, PER_WORD};
use crate::error::FormatError;
use crate::linear::{Codes, ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::registry::LayerHeader;
use crate::tensors::Module;
use half::f16;
use qtune_ir::transpose_bytes;
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
            gemm_codes(parts.qweight.bytes, n, k),
            // Zero-points have the interleave of the codes.
            zeros(n, groups, |n, g| {
                nibble(parts.qzeros.bytes, g * n_words(header) + n / PER_WORD, gemm_nibble(n))
            }),
            scales.matrix_f16(n, groups, |n, g| g * header.n + n)?,
            Rounding::F16,
        ),
        Layout::Gemv => {
            let zero_words = parts.qzeros.shape[1];
            (
                gemv_codes(parts.qweight.bytes, n, k),
                zeros(n, groups, |n, g| {
                    nibble(parts.qzeros.bytes, n * zero_words + g / PER_WORD, g % PER_WORD)
                }),
                scales.matrix_f16(n, groups, |n, g| n * zero_words * PER_WORD + g)?,
                Rounding::F32,
            )
        }
        Layout::GemvFast => (
            gemv_fast_codes(parts.qweight.bytes, n, k),
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
    Ok(QuantizedLinear { spec, n, k, codes, params, bias, rounding, k_order: None })
}

/// Words per row of a `gemm` tensor.
fn n_words(header: &LayerHeader) -> usize {
    header.n / PER_WORD
}

/// The nibble of its word that column `n` takes in the `gemm` packing.
fn gemm_nibble(n: usize) -> usize {
    // The inverse of GEMM_ORDER: even columns in the low half, odd ones in the high half.
    n % PER_WORD / 2 + n % 2 * 4
}

/// Word `index` of a packed tensor.
fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = &bytes[4 * index..4 * index + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Nibble `nibble` of word `index` of a packed tensor.
fn nibble(bytes: &[u8], index: usize, nibble: usize) -> u8 {
    (word(bytes, index) >> (4 * nibble) & 15) as u8
}

/// Zero-points `[N, groups]`, gathered by `at(n, group)`.
fn zeros(n: usize, groups: usize, at: impl Fn(usize, usize) -> u8 + Sync) -> ParamValues {
    let mut zeros = vec![0; n * groups];
    zeros.par_chunks_mut(GEMM_ROWS * groups).enumerate().for_each(|(task, rows)| {
        for g in 0..groups {
            for (row, zero) in rows[g..].iter_mut().step_by(groups).enumerate() {
                *zero = at(task * GEMM_ROWS + row, g);
            }
        }
    });
    ParamValues::Code(zeros)
}

/// Output rows that one task transposes: their 16 words of one input feature fill a cache line.
const GEMM_ROWS: usize = 16 * PER_WORD;

/// The lower nibble of every byte.
const LOW_NIBBLES: u32 = 0x0f0f_0f0f;
/// Bytes of a row that a task has at hand before it stores them: a cache line.
const LINE: usize = 64;

/// `gemm`: the code of row n, column k is in word `k * N/8 + n/8`.
fn gemm_codes(packed: &[u8], n: usize, k: usize) -> Codes {
    let mut codes = Codes::zeros(n, k, 4);
    let (stride, words) = (codes.row_stride(), n / PER_WORD);
    codes.bytes_mut().par_chunks_mut(GEMM_ROWS * stride).enumerate().for_each(|(tile, rows)| {
        let first = tile * GEMM_ROWS / PER_WORD;
        let tile_words = rows.len() / stride / PER_WORD;
        let mut lines = [[0; LINE]; GEMM_ROWS];
        for start in (0..stride).step_by(LINE) {
            let end = (start + LINE).min(stride);
            for at in (start..end).step_by(4) {
                let columns: [&[u8]; 8] = std::array::from_fn(|column| {
                    let column = 2 * at + column;
                    let line = (column < k).then(|| &packed[4 * (column * words + first)..]);
                    line.map_or(&[][..], |line| &line[..4 * tile_words])
                });
                for (index, lines) in lines.chunks_exact_mut(PER_WORD).take(tile_words).enumerate()
                {
                    let bytes = gemm_bytes(columns.map(|column| column_word(column, index)));
                    for (line, bytes) in GEMM_ORDER.into_iter().zip(bytes) {
                        lines[line][at - start..at - start + 4].copy_from_slice(&bytes);
                    }
                }
            }
            for (row, line) in rows.chunks_mut(stride).zip(&lines) {
                row[start..end].copy_from_slice(&line[..end - start]);
            }
        }
    });
    codes
}

/// Word `index` of a column; zero in a column beyond the last.
fn column_word(column: &[u8], index: usize) -> u32 {
    if column.is_empty() {
        return 0;
    }
    word(column, index)
}

/// The words of eight columns as four bytes of each of eight rows, in the order of [`GEMM_ORDER`].
fn gemm_bytes(columns: [u32; 8]) -> [[u8; 4]; PER_WORD] {
    let pair = |at: usize| (columns[2 * at], columns[2 * at + 1]);
    // A byte of a row is a code of each column.
    let low = |(even, odd): (u32, u32)| even & LOW_NIBBLES | (odd & LOW_NIBBLES) << 4;
    let high = |(even, odd): (u32, u32)| even >> 4 & LOW_NIBBLES | odd & !LOW_NIBBLES;
    let low = transpose_bytes(std::array::from_fn(|at| low(pair(at))));
    let high = transpose_bytes(std::array::from_fn(|at| high(pair(at))));
    std::array::from_fn(|nibble| [low, high][nibble % 2][nibble / 2].to_le_bytes())
}

/// `gemv`: row n is a run of words in natural order, which is how [`Codes`] keeps it.
fn gemv_codes(packed: &[u8], n: usize, k: usize) -> Codes {
    let mut codes = Codes::zeros(n, k, 4);
    codes.bytes_mut().copy_from_slice(packed);
    codes
}

/// `gemv_fast`: code (n, k) is in row n/4, element `k/64*64 + n%4*16 + k%64/32*8 + k%8`, nibble
/// `k%32/8`: each 16-bit element holds four columns, eight apart.
fn gemv_fast_codes(packed: &[u8], n: usize, k: usize) -> Codes {
    let mut codes = Codes::zeros(n, k, 4);
    let stride = codes.row_stride();
    codes.bytes_mut().par_chunks_mut(stride).enumerate().for_each(|(n, row)| {
        let quad = &packed[n / 4 * k * 2..][..k * 2];
        let code = |k: usize| {
            let element = k / 64 * 64 + n % 4 * 16 + k % 64 / 32 * 8 + k % 8;
            let nibble = k % 32 / 8;
            quad[2 * element + nibble / 2] >> (4 * (nibble % 2)) & 15
        };
        for (pair, byte) in row.iter_mut().enumerate() {
            *byte = code(2 * pair) | code(2 * pair + 1) << 4;
        }
    });
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemm_words_hold_codes_0_to_7_as_the_library_packs_them() {
        let codes = gemm_codes(&0x7531_6420u32.to_le_bytes(), 8, 1);
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
        let codes = gemm_codes(&packed, n, k);
        for column in 0..n {
            for k in 0..k {
                assert_eq!(codes.get(column, k), code(column, k), "column {column}, k {k}");
            }
        }
    }
}
