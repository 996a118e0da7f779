//! QuIP#: 2 bits for a weight, eight weights to a point of a lattice, after a random rotation (Tseng et
//! al., "QuIP#: Even Better LLM Quantization with Hadamard Incoherence and Lattice Codebooks", ICML 2024).
//!
//! A layer is `diag(SV) H Q H diag(SU) * Wscale`, with Hadamard matrices `H` that are made orthonormal.
//! Reading it undoes the rotation: what a layer holds is a number for every weight, see
//! [`crate::numbers`]. No kernel serves such layers, which would rotate activations instead.
//!
//! `Qidxs` int64 `[N, K/32]` holds tiles of 16 by 64 weights, eight rows of four words. A word has four
//! bytes that name vectors, two pairs of neighbours in two rows, and 32 signs, those of each vector four
//! bits apart.

mod lattice;

use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::numbers;
use crate::registry::{FormatRow, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use rayon::prelude::*;

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "quip",
    doc: "QuIP#, 2 bits: points of the E8 lattice after a rotation; decoded only",
    source: "Tseng et al., QuIP#, ICML 2024 (arXiv 2402.04396); quip-sharp, E8P12",
    packing: "int64 [N, K/32] of lattice points, SU and SV f16, Wscale",
    names: "quip",
    examples: &["quip"],
    groups: numbers::GROUPS,
    variants: numbers::VARIANTS,
    anchors: &["Qidxs"],
    companions: &["Qidxs", "SU", "SV", "Wscale", "codebook_id", "bias"],
    claims: |_, _| Ok(true),
    inspect: |module, _| {
        let parts = Parts::of(module)?;
        Ok(numbers::header(ROW.family, "E8P12", parts.n, parts.k))
    },
    load,
    quantize: None,
};

/// The tensors of a layer.
struct Parts<'a> {
    points: TensorRef<'a>,
    /// Factors of input and of output features.
    signs: [TensorRef<'a>; 2],
    scale: TensorRef<'a>,
    bias: Option<TensorRef<'a>>,
    n: usize,
    k: usize,
}

/// Rows and columns of a tile, and words of its rows.
const TILE: [usize; 2] = [16, 64];
const TILE_WORDS: [usize; 2] = [8, 4];
/// Weights of a word.
const WORD: usize = 32;
/// The number of the codebook that is read.
const E8P12: i64 = 7;

impl<'a> Parts<'a> {
    fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let require = |suffix| module.require(suffix, "Qidxs");
        let points = require("Qidxs")?;
        let [n, words] = points.matrix(ElementType::I64)?;
        let k = words.saturating_mul(WORD);
        points.check_size(n, k)?;
        if let Some(codebook) = module.get("codebook_id") {
            let number = codebook.integer()?;
            if number != E8P12 {
                let problem =
                    format!("names the codebook {number}, which this version does not read");
                return Err(codebook.error(problem, "use a checkpoint of 2 bits (E8P12)"));
            }
        }
        if n % TILE[0] != 0 || k % TILE[1] != 0 || !n.is_power_of_two() || !k.is_power_of_two() {
            let problem = format!("is of {n} x {k} weights, of which only powers of two are read");
            return Err(points.error(problem, "use a checkpoint of another format"));
        }
        let signs = [require("SU")?, require("SV")?];
        for (signs, count) in signs.iter().zip([k, n]) {
            signs.expect(ElementType::F16, &[count], "a factor per feature")?;
        }
        let scale = require("Wscale")?;
        if scale.stored != ElementType::F32 || scale.bytes.len() != 4 {
            return Err(scale.error(
                format!("is {} {:?}, not one F32", scale.stored, scale.shape),
                EXPORT_AGAIN,
            ));
        }
        let bias = module.get("bias");
        bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
        Ok(Parts { points, signs, scale, bias, n, k })
    }

    /// The points `[N, K]`, before the rotation is undone.
    fn lattice(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.n * self.k];
        let tiles = self.k / TILE[1];
        let rows = values.par_chunks_mut(TILE[0] * self.k).enumerate();
        rows.for_each(|(band, rows)| {
            for at in 0..tiles * TILE_WORDS[0] * TILE_WORDS[1] {
                let (tile, pair, column) =
                    (at / WORD, at % WORD / TILE_WORDS[1], at % TILE_WORDS[1]);
                let index = band * tiles * WORD + at;
                let (vectors, signs) =
                    (self.points.word(2 * index), self.points.word(2 * index + 1));
                for part in 0..4 {
                    let bit = |j: u32| (signs >> (4 * j + part as u32) & 1) << j;
                    let code = (vectors >> (8 * part) & 0xff) << 8 | (0..8).map(bit).sum::<u32>();
                    let (row, octet) = (2 * pair + part % 2, 8 * tile + 2 * column + part / 2);
                    let place = row * self.k + 8 * octet;
                    rows[place..place + 8].copy_from_slice(&lattice::point(code as u16));
                }
            }
        });
        values
    }
}

/// See [`FormatRow::load`].
fn load(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let [of_inputs, of_outputs] = parts.signs.map(|signs| signs.floats());
    let scale = f64::from(parts.scale.floats()[0]);
    for (tensor, values) in parts.signs.iter().zip([&of_inputs, &of_outputs]) {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let problem = format!("holds {} for feature {at}", values[at]);
            return Err(tensor.error(problem, VALUE_REMEDY));
        }
    }
    if !scale.is_finite() {
        return Err(parts.scale.error(format!("holds {scale}"), VALUE_REMEDY));
    }
    let mut values = parts.lattice();
    values.par_chunks_mut(parts.k).for_each(|row| rotate(row, 1));
    rotate(&mut values, parts.k);
    let size = (parts.n as f64 * parts.k as f64).sqrt();
    let weight = |(at, value): (usize, &f64)| {
        let (n, k) = (at / parts.k, at % parts.k);
        let signs = f64::from(of_outputs[n]) * f64::from(of_inputs[k]);
        (value / size * signs * scale) as f32
    };
    let weights = values.par_iter().enumerate().map(weight).collect();
    let bias = parts.bias.map(|bias| bias.bias(parts.n)).transpose()?;
    numbers::layer(&ROW, header, weights, bias)
}

/// The Hadamard transform of elements that are runs of `width` numbers, without its factor: sums and
/// differences of elements 1, 2, 4 and so on apart.
fn rotate(values: &mut [f64], width: usize) {
    let mut apart = width;
    while apart < values.len() {
        for pair in values.chunks_exact_mut(2 * apart) {
            let (low, high) = pair.split_at_mut(apart);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        apart *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_is_its_own_inverse_but_for_the_size() {
        let mut values = [1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0];
        let original = values;
        rotate(&mut values, 1);
        assert_eq!(values[..2], [59.0, -11.0]);
        rotate(&mut values, 1);
        assert_eq!(values, original.map(|value| 8.0 * value));
        rotate(&mut values, 4);
        assert_eq!(values[0], 8.0 * (1.0 + 7.0));
    }
}
