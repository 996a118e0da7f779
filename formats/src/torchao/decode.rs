//! Unpacking codes, scales and offsets into logical order.

use super::layout::{Params, Parts, TILE, TILE_K, TILE_N};
use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::nibbles::join_halves;
use crate::registry::{FormatRow, LayerHeader};
use crate::tensors::{word, Module, TensorRef, VALUE_REMEDY};
use qtune_ir::transpose_bytes;

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
        input_scale: None,
    })
}

/// Codes `[N, K]`.
fn codes(parts: &Parts<'_>) -> Codes {
    let (sizes, stored) = ([parts.n, parts.k], parts.codes.keep());
    let tiles_k = match parts.params {
        Params::Apart { .. } => {
            return Codes::stored(sizes, BITS, move |first, rows, stride| {
                let stored = &stored[first * stride..];
                rows.iter_mut().zip(stored).for_each(|(code, stored)| *code = stored ^ SIGNS);
            });
        }
        Params::Joint(_) => parts.codes.shape[1],
    };
    Codes::stored(sizes, BITS, move |first, rows, stride| {
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            let tiles = row.chunks_mut(TILE_K / 2).zip(n / TILE_N * tiles_k..);
            tiles.for_each(|(bytes, tile)| unpack_tile(&stored, tile, n % TILE_N, bytes));
            // Padding goes on behind an odd end.
            let end = row.last_mut().filter(|_| sizes[1] % 2 == 1);
            end.into_iter().for_each(|byte| *byte &= 15);
        }
    })
}

/// The codes of a row of a tile, or the start of it. A word has four pairs of neighbours, 8 apart; four lanes
/// have all pairs of 32 codes.
fn unpack_tile(codes: &[u8], tile: usize, row: usize, bytes: &mut [u8]) {
    let [lanes, words] = TILE;
    for (at, bytes) in bytes.chunks_mut(16).enumerate() {
        let lane =
            |lane: usize| join_halves(word(codes, (tile * lanes + 4 * row + lane) * words + at));
        let runs = transpose_bytes([lane(0), lane(1), lane(2), lane(3)]);
        for (bytes, run) in bytes.chunks_mut(4).zip(runs) {
            bytes.copy_from_slice(&run.to_le_bytes()[..bytes.len()]);
        }
    }
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
