//! Layers in the order of Marlin's kernel, which AutoGPTQ writes with `is_marlin_format`: 4 bits,
//! symmetric, without act-order. Undoing the permutation gives the layer that was packed.
//!
//! Kernel: Frantar et al., "MARLIN: Mixed-Precision Auto-Regressive Parallel Inference on Large Language
//! Models", PPoPP 2025. A row of `B` has a tile of 16 input features: in turn for every 64 output
//! features the four words of each of 32 lanes, whose nibbles are the lane's share of the tensor cores'
//! operands.

use crate::codes::{each_tile, Codes};
use crate::config::QuantConfig;
use crate::container::Kept;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::{FormatName, Grouping};
use crate::nibbles::join_halves;
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::{transpose_bytes, vectorised, Group};

/// The name of the packing.
pub(super) const LAYOUT: &str = "marlin";

/// Input features of a tile.
const TILE_K: usize = 16;
/// Output features of one.
const TILE_N: usize = 64;
/// Words of a tile.
const TILE_WORDS: usize = TILE_K * TILE_N / 8;
/// Bits of a code.
const BITS: u8 = 4;

/// The tensors of a layer.
struct Parts<'a> {
    codes: TensorRef<'a>,
    scales: TensorRef<'a>,
    bias: Option<TensorRef<'a>>,
    n: usize,
    k: usize,
}

/// Whether a module is packed so.
pub(super) fn claims(module: &Module<'_>) -> bool {
    let codes = module.get("B");
    codes.is_some_and(|codes| codes.stored == ElementType::I32) && module.get("s").is_some()
}

impl<'a> Parts<'a> {
    fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let codes = module.require("B", "s")?;
        let [tiles, words] = codes.matrix(ElementType::I32)?;
        let (n, k) = (words / 2, tiles.saturating_mul(TILE_K));
        codes.check_size(n, k)?;
        if words % (2 * TILE_N) != 0 {
            let problem = format!("has rows of {words} words, which are no tiles of {TILE_WORDS}");
            return Err(codes.error(problem, EXPORT_AGAIN));
        }
        Ok(Parts { codes, scales: module.require("s", "B")?, bias: module.get("bias"), n, k })
    }
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<LayerHeader, FormatError> {
    let parts = Parts::of(module)?;
    let (n, k) = (parts.n, parts.k);
    let groups = match parts.scales.shape {
        [groups, columns] if *columns == n && (1..=k).contains(groups) => *groups,
        shape => {
            let problem = format!("is {shape:?} where rows of N = {n} scales are needed");
            return Err(parts.scales.error(problem, EXPORT_AGAIN));
        }
    };
    parts.scales.expect(
        ElementType::F16,
        &[groups, n],
        "a scale per quant group and output feature",
    )?;
    parts.bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
    let stated = config.map_or(Ok(None), QuantConfig::group_size)?;
    let group = match stated {
        _ if groups == 1 => Group::Channel,
        Some(Group::Size(size)) if k.div_ceil(size as usize) == groups => Group::Size(size),
        _ if k % groups == 0 => Group::Size((k / groups) as u32),
        _ => {
            let problem = format!("has {groups} rows, which do not divide K = {k}");
            return Err(parts.scales.error(problem, "state group_size in quantize_config.json"));
        }
    };
    let grouping = Some(Grouping::from(group));
    let name =
        FormatName { family: "gptq".into(), bits: Some(BITS), grouping, modifiers: Vec::new() };
    Ok(LayerHeader { name, layout: LAYOUT, n, k, group })
}

/// See [`crate::FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let (n, k, groups) = (parts.n, parts.k, header.groups());
    let spec = super::ROW.spec(&header.name)?;
    let place = if groups == 1 { channel_place } else { group_place };
    let scales = parts.scales.matrix_f16(n, groups, |n, group| group * header.n + place(n))?;
    let named = spec.params.iter().zip([ParamValues::F16(scales)]);
    Ok(QuantizedLinear {
        params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
        codes: codes(parts.codes.keep(), n, k),
        spec,
        n,
        k,
        bias: parts.bias.map(|bias| bias.bias(n)).transpose()?,
        rounding: Rounding::F16,
        k_order: None,
        input_scale: None,
    })
}

/// Where a row of scales of quant groups has that of an output feature: 8 by 8 of 64 transposed.
fn group_place(n: usize) -> usize {
    n / 64 * 64 + n % 8 * 8 + n % 64 / 8
}

/// The same of a row for all input features: the pairs of columns that lanes hold in a tile of 32.
fn channel_place(n: usize) -> usize {
    n / 32 * 32 + n % 8 / 2 * 8 + n % 32 / 8 * 2 + n % 2
}

/// Codes `[N, K]`.
fn codes(packed: Kept, n: usize, k: usize) -> Codes {
    Codes::stored([n, k], BITS, move |first, rows, stride| {
        let mut whole = Vec::new();
        each_tile((first, rows), stride, TILE_N, |first, rows| {
            if rows.len() == TILE_N * stride {
                return unpack_tile(&packed, [n, k], first / TILE_N, rows);
            }
            whole.resize(TILE_N * stride, 0);
            unpack_tile(&packed, [n, k], first / TILE_N, &mut whole);
            rows.copy_from_slice(&whole[first % TILE_N * stride..][..rows.len()]);
        });
    })
}

/// Tiles of input features that are transposed before their rows are stored: a cache line.
const LINE: usize = 8;
/// Words of a tile that lie 4 apart: those of one lane of every four.
const WORDS: usize = TILE_WORDS / 4;

/// The words of a tile of one input tile.
type Tile = [u32; TILE_WORDS];
/// Parts of eight codes of rows of a tile.
type Turned = [[u32; WORDS]; 4];

/// The rows of a tile.
fn unpack_tile(packed: &[u8], [n, k]: [usize; 2], tile: usize, rows: &mut [u8]) {
    let stride = k / 2;
    let (mut words, mut turned) = ([[0; TILE_WORDS]; LINE], [[0; WORDS]; 4]);
    let mut lines = [[[0; 2]; LINE]; TILE_N];
    for start in (0..k / TILE_K).step_by(LINE) {
        let end = (start + LINE).min(k / TILE_K);
        for (words, tile_k) in words.iter_mut().zip(start..end) {
            let bytes = &packed[4 * (tile_k * 2 * n + tile * TILE_WORDS)..][..4 * TILE_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        for (place, words) in words[..end - start].iter().enumerate() {
            turn(words, &mut turned);
            for (part, words) in turned.iter().enumerate() {
                for (at, word) in words.iter().enumerate() {
                    let row = at % 4 * 16 + part / 2 * 8 + at / 4;
                    lines[row][place][part % 2] = *word;
                }
            }
        }
        for (row, line) in rows.chunks_exact_mut(stride).zip(&lines) {
            let row = row[TILE_K / 2 * start..TILE_K / 2 * end].chunks_exact_mut(4);
            for (bytes, word) in row.zip(line.as_flattened()) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

vectorised!(
    /// The words of each part of the rows: of row `at % 4 * 16 + part / 2 * 8 + at / 4` the first eight codes
    /// or the second ones, as the part is even or odd. A word has bytes of two rows, 8 apart: those of four
    /// pairs of neighbours; four lanes have all pairs of a row.
    fn turn(tile: &Tile, turned: &mut Turned) = transpose
);

#[inline(always)]
fn transpose(tile: &Tile, turned: &mut Turned) {
    for at in 0..WORDS {
        // Four words of a lane, one for every 16 rows.
        let lane = |lane: usize| join_halves(tile[at / 4 * 16 + lane * 4 + at % 4]);
        let parts = transpose_bytes([lane(0), lane(1), lane(2), lane(3)]);
        for (words, part) in turned.iter_mut().zip(parts) {
            words[at] = part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scale_has_a_place_of_its_own() {
        for place in [group_place, channel_place] {
            let places: BTreeSet<usize> = (0..128).map(place).collect();
            assert!(places.into_iter().eq(0..128));
        }
    }
}
