//! Unpacking GPTQ's codes, zero-points and scales into logical order.

use super::layout::{k_order, Parts};
use super::zeros::{self, Convention};
use crate::codes::{each_tile, Codes};
use crate::container::Kept;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::Modifier;
use crate::nibbles::pack;
use crate::qweight::UNIT;
use crate::registry::LayerHeader;
use crate::stream;
use crate::tensors::{word, Module};
use qtune_ir::vectorised;
use std::sync::Arc;

/// See [`crate::FormatRow::load`]. Scales may be negative: auto-round's symmetric grids use the
/// sign to reach the end of the range that has one code more.
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = super::ROW.spec(&header.name)?;
    let convention = Convention::named(header.layout).ok_or_else(|| {
        let problem = format!("has no GPTQ packing `{}`", header.layout);
        parts.qzeros.error(problem, "inspect the layer before it is loaded")
    })?;
    let (n, k, groups) = (header.n, header.k, header.groups());
    let scales = parts.scales.matrix_f16(n, groups, |n, g| g * header.n + n)?;
    let mut values = vec![ParamValues::F16(scales)];
    if header.name.modifiers.contains(&Modifier::Asym) {
        let zeros = zeros::decode(parts.qzeros.bytes, convention, spec.bits, n);
        values.push(ParamValues::Code(zeros));
    } else if !zeros::are_symmetric(parts.qzeros.bytes, spec.bits) {
        let middle = 1 << (spec.bits - 1);
        let problem = format!("holds zero-points other than {middle} in a symmetric layer");
        return Err(parts.qzeros.error(problem, "set sym to false in the configuration"));
    }
    let k_order = k_order(&parts, header)?;
    let order = k_order.as_deref().map(Arc::from);
    let bias = parts.bias.map(|bias| bias.bias(n)).transpose()?;
    let named = spec.params.iter().zip(values);
    let params = named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect();
    Ok(QuantizedLinear {
        codes: codes(parts.qweight.keep(), [n, k], spec.bits, order),
        spec,
        n,
        k,
        params,
        bias,
        rounding: Rounding::F16,
        k_order,
        input_scale: None,
    })
}

/// Output features that are unpacked at once: their words in one row fill some cache lines.
const TILE_ROWS: usize = 64;

/// Codes `[N, K]` of qweight `[K*bits/32, N]`, columns in the given order.
fn codes(qweight: Kept, [n, k]: [usize; 2], bits: u8, order: Option<Arc<[u32]>>) -> Codes {
    Codes::stored([n, k], bits, move |first, rows, stride| {
        each_tile((first, rows), stride, TILE_ROWS, |first, rows| {
            if order.is_none() && matches!(bits, 4 | 8) {
                return copy_words(&qweight, n, first, rows, stride);
            }
            let natural = natural(&qweight, [n, k], bits, (first, rows.len() / stride));
            let mut sorted = vec![0; if order.is_some() { k } else { 0 }];
            for (row, natural) in rows.chunks_mut(stride).zip(natural.chunks(k)) {
                let Some(order) = &order else {
                    pack(natural, bits, row);
                    continue;
                };
                for (code, k) in sorted.iter_mut().zip(&order[..]) {
                    *code = natural[*k as usize];
                }
                pack(&sorted, bits, row);
            }
        });
    })
}

/// The codes of so many rows from `first` on, one to a byte, columns as they are stored.
fn natural(qweight: &[u8], [n, k]: [usize; 2], bits: u8, (first, rows): (usize, usize)) -> Vec<u8> {
    let mut natural = vec![0; rows * k];
    for unit in 0..k / UNIT {
        let top = unit * usize::from(bits);
        for row in 0..rows {
            let word = |at| word(qweight, (top + at) * n + first + row);
            for (index, code) in natural[row * k + unit * UNIT..][..UNIT].iter_mut().enumerate() {
                *code = stream::code(bits, index, word);
            }
        }
    }
    natural
}

/// Words of a row that are read before they are stored: two cache lines.
const LINE: usize = 32;
/// Words of a row that are put side by side at once.
const SIDE_BY_SIDE: usize = 4;

/// The words of a tile in one row of the tensor.
type Words = [[u8; 4]; TILE_ROWS];
/// Words of a tile that follow each other in their output rows.
type Runs = [[[u8; 4]; SIDE_BY_SIDE]; TILE_ROWS];

/// Rows from `first` on of codes whose stream is what [`Codes`] gives: word by word, in squares of cache
/// lines.
fn copy_words(qweight: &[u8], n: usize, first: usize, rows: &mut [u8], stride: usize) {
    let count = rows.len() / stride;
    let mut read = [[[0; 4]; TILE_ROWS]; LINE];
    let mut runs = [[[0; 4]; SIDE_BY_SIDE]; TILE_ROWS];
    let mut lines = [[[0; 4]; LINE]; TILE_ROWS];
    for start in (0..stride / 4).step_by(LINE) {
        let end = (start + LINE).min(stride / 4);
        // All first: memory answers many reads at once that wait for nothing else.
        for (words, at) in read.iter_mut().zip(start..end) {
            let bytes = &qweight[4 * (at * n + first)..][..4 * count];
            words.as_flattened_mut()[..bytes.len()].copy_from_slice(bytes);
        }
        for (at, words) in (0..LINE).step_by(SIDE_BY_SIDE).zip(read.chunks_exact(SIDE_BY_SIDE)) {
            let Some(words) = words.first_chunk() else { continue };
            turn(words, &mut runs);
            for (line, run) in lines.iter_mut().zip(&runs) {
                line[at..at + SIDE_BY_SIDE].copy_from_slice(run);
            }
        }
        for (row, line) in rows.chunks_mut(stride).zip(&lines) {
            row[4 * start..4 * end].copy_from_slice(line[..end - start].as_flattened());
        }
    }
}

vectorised!(
    /// From words of some rows of the tensor those of its columns.
    fn turn(rows: &[Words; SIDE_BY_SIDE], columns: &mut Runs) = transpose
);

#[inline(always)]
fn transpose(rows: &[Words; SIDE_BY_SIDE], columns: &mut Runs) {
    for (at, column) in columns.iter_mut().enumerate() {
        *column = [rows[0][at], rows[1][at], rows[2][at], rows[3][at]];
    }
}
