//! Unpacking codes and absolute maxima into logical order.

use super::layout::{row_block, Parts};
use super::state::{Nested, State};
use super::Kind;
use crate::codes::Codes;
use crate::container::Kept;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear};
use crate::registry::{FormatRow, LayerHeader};
use crate::tensors::{Module, TensorRef};
use qtune_ir::NestedMap;
use rayon::prelude::*;
use std::sync::Arc;

/// See [`crate::FormatRow::load`].
pub(super) fn load(
    kind: &Kind,
    row: &FormatRow,
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(kind, module)?;
    let spec = row.spec(&header.name)?;
    let State { n, k, block, rounding, .. } = parts.state;
    let absmax = absmax(&parts)?;
    let mut values = vec![ParamValues::F32(row_values(&absmax, n, k, block))];
    if let (true, Some(nested), Some(tensors)) =
        (spec.has_nested_scales(), parts.state.nested, parts.nested)
    {
        values.extend(nested_values(&parts, nested, tensors));
    }
    let named = spec.params.iter().zip(values);
    Ok(QuantizedLinear {
        params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
        codes: codes(parts.weight.keep(), n, k),
        spec,
        n,
        k,
        bias: parts.bias.map(|bias| bias.bias(n)).transpose()?,
        rounding,
        k_order: None,
        input_scale: None,
    })
}

/// What blocks have, as `[N, K / run]` of the runs of columns that lie within them.
pub(super) fn row_values<T: Copy + Send + Sync>(
    of_blocks: &[T],
    n: usize,
    k: usize,
    block: usize,
) -> Vec<T> {
    let run = row_block(k, block) as usize;
    if run == block {
        return of_blocks[..n * (k / run)].to_vec();
    }
    (0..n * (k / run)).into_par_iter().map(|index| of_blocks[index * run / block]).collect()
}

/// What the maxima are made of: a code each, and the f32 that it multiplies.
fn nested_values(
    parts: &Parts<'_>,
    nested: Nested,
    [maxima, values]: [TensorRef<'_>; 2],
) -> [ParamValues; 2] {
    let State { n, k, block, .. } = parts.state;
    let of_block = |index: usize| f32::from_bits(maxima.word(index / nested.block));
    let maxima: Vec<f32> = (0..parts.blocks()).map(of_block).collect();
    let codes = row_values(parts.absmax.bytes, n, k, block);
    [
        ParamValues::Nested(codes, Arc::new(nested_map(nested, &values))),
        ParamValues::F32(row_values(&maxima, n, k, block)),
    ]
}

/// What the 8-bit codes of maxima stand for.
fn nested_map(nested: Nested, values: &TensorRef<'_>) -> NestedMap {
    NestedMap::new(std::array::from_fn(|code| f32::from_bits(values.word(code))), nested.offset)
}

/// The absolute maximum of every block, as the library computes it.
fn absmax(parts: &Parts<'_>) -> Result<Vec<f32>, FormatError> {
    let values: Vec<f32> = match (parts.state.nested, parts.nested) {
        (Some(nested), Some(tensors)) => resolved(&parts.absmax, nested, tensors),
        _ => (0..parts.blocks()).map(|block| f32::from_bits(parts.absmax.word(block))).collect(),
    };
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(block) => {
            let problem = format!("gives block {block} the maximum {}", values[block]);
            let remedy = "quantize the layer again, or download the checkpoint again";
            Err(parts.absmax.error(problem, remedy))
        }
    }
}

/// Maxima from their 8-bit codes: two roundings, in this order.
fn resolved(
    codes: &TensorRef<'_>,
    nested: Nested,
    [maxima, values]: [TensorRef<'_>; 2],
) -> Vec<f32> {
    let map = nested_map(nested, &values);
    let blocks = codes.bytes.chunks(nested.block).enumerate();
    let of_block = |(block, codes): (usize, &[u8])| -> Vec<f32> {
        let maximum = f32::from_bits(maxima.word(block));
        codes.iter().map(|code| map.scale(*code, maximum)).collect()
    };
    blocks.flat_map(of_block).collect()
}

/// Codes `[N, K]`; code `t` of the flattened matrix is in byte `t/2`, in the high nibble if `t` is
/// even.
fn codes(packed: Kept, n: usize, k: usize) -> Codes {
    Codes::stored([n, k], 4, move |first, rows, stride| {
        if k % 2 == 0 {
            for (byte, packed) in rows.iter_mut().zip(&packed[first * stride..]) {
                *byte = packed.rotate_left(4);
            }
            return;
        }
        let code = |t: usize| packed[t / 2] >> (4 * (1 - t % 2)) & 15;
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            row.fill(0);
            for column in 0..k {
                row[column / 2] |= code(n * k + column) << (4 * (column % 2));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_of_a_byte_is_in_its_high_nibble() {
        let codes = codes(Kept::of(&[0x3a, 0x10, 0xf2]), 2, 3);
        let rows = [0, 1].map(|n| [0, 1, 2].map(|k| codes.get(n, k)));
        assert_eq!(rows, [[3, 10, 1], [0, 15, 2]]);
        let even = super::codes(Kept::of(&[0x3a, 0x10]), 1, 4);
        assert_eq!([0, 1, 2, 3].map(|k| even.get(0, k)), [3, 10, 1, 0]);
    }
}
