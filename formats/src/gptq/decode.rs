//! Unpacking GPTQ's codes, zero-points and scales into logical order.

use super::layout::{k_order, Parts};
use super::zeros::{self, Convention};
use crate::error::FormatError;
use crate::linear::{Codes, ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::Modifier;
use crate::nibbles::pack;
use crate::qweight::UNIT;
use crate::registry::LayerHeader;
use crate::stream;
use crate::tensors::{Module, TensorRef};
use rayon::prelude::*;

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
        let zeros = zeros::decode(&parts.qzeros, convention, spec.bits, n);
        values.push(ParamValues::Code(zeros));
    } else if !zeros::are_symmetric(&parts.qzeros, spec.bits) {
        let middle = 1 << (spec.bits - 1);
        let problem = format!("holds zero-points other than {middle} in a symmetric layer");
        return Err(parts.qzeros.error(problem, "set sym to false in the configuration"));
    }
    let k_order = k_order(&parts, header)?;
    let bias = parts.bias.map(|bias| bias.bias(n)).transpose()?;
    let named = spec.params.iter().zip(values);
    let params = named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect();
    Ok(QuantizedLinear {
        codes: codes(&parts.qweight, n, k, spec.bits, k_order.as_deref()),
        spec,
        n,
        k,
        params,
        bias,
        rounding: Rounding::F16,
        k_order,
    })
}

/// Output features that one task unpacks: their words in one row fill a cache line.
const TASK_ROWS: usize = 64;

/// Codes `[N, K]` of qweight `[K*bits/32, N]`, columns in the given order.
fn codes(qweight: &TensorRef<'_>, n: usize, k: usize, bits: u8, order: Option<&[u32]>) -> Codes {
    let mut codes = Codes::zeros(n, k, bits);
    let stride = codes.row_stride();
    codes.bytes_mut().par_chunks_mut(TASK_ROWS * stride).enumerate().for_each(|(task, rows)| {
        let first = task * TASK_ROWS;
        if order.is_none() && matches!(bits, 4 | 8) {
            return copy_words(qweight, n, first, rows, stride);
        }
        let mut natural = vec![0; TASK_ROWS * k];
        for unit in 0..k / UNIT {
            let top = unit * usize::from(bits);
            for row in 0..rows.len() / stride {
                let word = |at| qweight.word((top + at) * n + first + row);
                for (index, code) in natural[row * k + unit * UNIT..][..UNIT].iter_mut().enumerate()
                {
                    *code = stream::code(bits, index, word);
                }
            }
        }
        let mut sorted = vec![0; if order.is_some() { k } else { 0 }];
        for (row, natural) in rows.chunks_mut(stride).zip(natural.chunks(k)) {
            let Some(order) = order else {
                pack(natural, bits, row);
                continue;
            };
            for (code, k) in sorted.iter_mut().zip(order) {
                *code = natural[*k as usize];
            }
            pack(&sorted, bits, row);
        }
    });
    codes
}

/// Words of a row that are read before they are stored: a cache line.
const LINE: usize = 64;

/// Rows from `first` on of codes whose stream is what [`Codes`] keeps: word by word, in squares of cache
/// lines.
fn copy_words(qweight: &TensorRef<'_>, n: usize, first: usize, rows: &mut [u8], stride: usize) {
    let count = rows.len() / stride;
    let mut lines = [[[0; 4]; LINE]; TASK_ROWS];
    for start in (0..stride / 4).step_by(LINE) {
        let end = (start + LINE).min(stride / 4);
        for at in start..end {
            let words = &qweight.bytes[4 * (at * n + first)..][..4 * count];
            for (line, word) in lines.iter_mut().zip(words.chunks_exact(4)) {
                line[at - start].copy_from_slice(word);
            }
        }
        for (row, line) in rows.chunks_mut(stride).zip(&lines) {
            row[4 * start..4 * end].copy_from_slice(line[..end - start].as_flattened());
        }
    }
}
