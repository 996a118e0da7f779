//! Unpacking codes, scales and offsets into logical order.

use super::layout::{Params, Parts, TILE, TILE_K, TILE_N};
use crate::error::FormatError;
use crate::linear::{pack, Codes, ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::registry::{FormatRow, LayerHeader};
use crate::tensors::{Module, TensorRef, VALUE_REMEDY};
use rayon::prelude::*;

/// Bits of a code.
const BITS: u8 = 4;
/// Turns a signed nibble into the code that is 8 more, and back: in both nibbles of a byte.
const SIGNS: u8 = 0x88;

/// See [`FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
    row: &FormatRow,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = row.spec(&header.name)?;
    let rounding = match parts.params {
        Params::Apart { .. } => Rounding::F32,
        Params::Joint(_) => Rounding::Bf16Steps,
    };
    let groups = header.groups();
    let values = match parts.params {
        Params::Apart { scale, zero } => {
            [values(&scale, &parts, groups, 1, 0)?, values(&zero, &parts, groups, 1, 0)?]
        }
        Params::Joint(joint) => {
            [values(&joint, &parts, groups, 2, 0)?, values(&joint, &parts, groups, 2, 1)?]
        }
    };
    let named = spec.params.iter().zip(values);
    Ok(QuantizedLinear {
        params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
        codes: codes(&parts),
        spec,
        n: parts.n,
        k: parts.k,
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding,
        k_order: None,
    })
}

/// Codes `[N, K]`.
fn codes(parts: &Parts<'_>) -> Codes {
    let mut codes = Codes::zeros(parts.n, parts.k, BITS);
    let stride = codes.row_stride();
    codes.bytes_mut().par_chunks_mut(stride).enumerate().for_each(|(n, row)| match parts.params {
        Params::Apart { .. } => {
            let stored = &parts.codes.bytes[n * stride..];
            row.iter_mut().zip(stored).for_each(|(code, stored)| *code = stored ^ SIGNS);
        }
        Params::Joint(_) => {
            let natural: Vec<u8> = (0..parts.k).map(|k| tiled(&parts.codes, n, k)).collect();
            pack(&natural, BITS, row);
        }
    });
    codes
}

/// The code of a weight in tiles of words.
fn tiled(codes: &TensorRef<'_>, n: usize, k: usize) -> u8 {
    let [lanes, words] = TILE;
    let tile = n / TILE_N * codes.shape[1] + k / TILE_K;
    let (lane, word, nibble) = place(n % TILE_N, k % TILE_K);
    (codes.word((tile * lanes + lane) * words + word) >> (4 * nibble) & 15) as u8
}

/// Lane, word and nibble of a code within a tile.
fn place(n: usize, k: usize) -> (usize, usize, usize) {
    let of_word = k % 32;
    let lane = 4 * n + of_word % 8 / 2;
    (lane, k / 32, 4 * (of_word % 2) + 2 * (of_word / 16) + of_word / 8 % 2)
}

/// Values `[N, groups]` of element `which` of every `width` of a tensor `[K/g, N, width]`.
fn values(
    tensor: &TensorRef<'_>,
    parts: &Parts<'_>,
    groups: usize,
    width: usize,
    which: usize,
) -> Result<ParamValues, FormatError> {
    let stored = tensor.floats();
    let at = |n: usize, group: usize| stored[(group * parts.padded_n + n) * width + which];
    let values: Vec<f32> =
        (0..parts.n * groups).map(|index| at(index / groups, index % groups)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(ParamValues::F32(values)),
        Some(index) => {
            let (n, group, value) = (index / groups, index % groups, values[index]);
            let problem = format!("holds {value} for output feature {n}, quant group {group}");
            Err(tensor.error(problem, VALUE_REMEDY))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_of_a_tile_has_a_place_of_its_own() {
        let places: BTreeSet<(usize, usize, usize)> =
            (0..TILE_N).flat_map(|n| (0..TILE_K).map(move |k| place(n, k))).collect();
        assert_eq!(places.len(), TILE_N * TILE_K);
        let inside = |(lane, word, nibble): &(usize, usize, usize)| {
            *lane < TILE[0] && *word < TILE[1] && *nibble < 8
        };
        assert!(places.iter().all(inside));
    }
}
