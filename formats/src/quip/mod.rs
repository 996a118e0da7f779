//! QuIP#: 2 bits for a weight, eight weights to a point of a lattice, after a random rotation (Tseng et
//! al., "QuIP#: Even Better LLM Quantization with Hadamard Incoherence and Lattice Codebooks", ICML 2024).
//!
//! A layer is `diag(SV) H Q H diag(SU) * Wscale`, with Hadamard matrices `H` that are made orthonormal:
//! weights between rotations. The points of `Q` are a codebook of vectors that all layers share.
//!
//! `Qidxs` int64 `[N, K/32]` holds tiles of 16 by 64 weights, eight rows of four words. A word has four
//! bytes that name vectors, two pairs of neighbours in two rows, and 32 signs, those of each vector four
//! bits apart.

mod lattice;

use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::{FormatName, Modifier};
use crate::nibbles::pack;
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use crate::rotation::Rotation;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use crate::vectors::Vectors;
use half::f16;
use qtune_ir::{vector_shares, Group, ParamType, VECTOR_SHARE_BITS, VECTOR_WEIGHTS};
use rayon::prelude::*;
use std::sync::Arc;

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "quip",
    doc: "QuIP#, 2 bits: points of the E8 lattice between rotations of inputs and outputs",
    source: "Tseng et al., QuIP#, ICML 2024 (arXiv 2402.04396); quip-sharp, E8P12",
    packing: "int64 [N, K/32] of lattice points, SU and SV f16, Wscale",
    names: "quip-e8p",
    examples: &["quip-e8p"],
    groups: GroupNames::WholeRow,
    variants: &[Variant {
        bits: VECTOR_SHARE_BITS,
        modifiers: &[Modifier::Lattice],
        params: &[("s", ParamType::F32)],
        expr: "(* (vector q) s)",
        codebook: &[],
    }],
    anchors: &["Qidxs"],
    companions: &["Qidxs", "SU", "SV", "Wscale", "codebook_id", "bias"],
    claims: |_, _| Ok(true),
    inspect: |module, _| {
        let parts = Parts::of(module)?;
        let (family, modifiers) = (ROW.family.into(), vec![Modifier::Lattice]);
        let name = FormatName { family, bits: None, grouping: None, modifiers };
        Ok(LayerHeader { name, layout: "E8P12", n: parts.n, k: parts.k, group: Group::Channel })
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

    /// Fills the codes of the points, row by row: [`Codes`] of two bits for each weight.
    fn unpack(&self, codes: &mut [u8]) {
        let stride = self.k / 2;
        let tiles = self.k / TILE[1];
        let rows = codes.par_chunks_mut(TILE[0] * stride).enumerate();
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
                    let place = row * stride + VECTOR_WEIGHTS / 2 * octet;
                    let bytes = &mut rows[place..place + VECTOR_WEIGHTS / 2];
                    pack(&vector_shares(code as u16), VECTOR_SHARE_BITS, bytes);
                }
            }
        });
    }

    /// The factors of the rotations, all of which are finite.
    fn rotation(&self) -> Result<Rotation, FormatError> {
        let [inputs, outputs] = self.signs.map(|signs| {
            let values = signs.floats();
            match values.iter().position(|value| !value.is_finite()) {
                None => Ok(values.into_iter().map(f16::from_f32).collect()),
                Some(at) => {
                    let problem = format!("holds {} for feature {at}", values[at]);
                    Err(signs.error(problem, VALUE_REMEDY))
                }
            }
        });
        Ok(Rotation { inputs: inputs?, outputs: outputs? })
    }
}

/// See [`FormatRow::load`].
fn load(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let rotation = parts.rotation()?;
    let scale = parts.scale.floats()[0];
    if !scale.is_finite() {
        return Err(parts.scale.error(format!("holds {scale}"), VALUE_REMEDY));
    }
    let spec = ROW.spec(&header.name)?;
    let Some(named) = spec.codebook.vectors() else {
        let problem = format!("has other points than {} names", header.name);
        return Err(parts.points.error(problem, EXPORT_AGAIN));
    };
    let vectors = Vectors::new(named, lattice::points()).between(rotation);
    let mut codes = Codes::of_vectors(parts.n, parts.k, Arc::new(vectors));
    parts.unpack(codes.bytes_mut());
    let name = spec.params[0].name.clone();
    Ok(QuantizedLinear {
        spec,
        n: parts.n,
        k: parts.k,
        codes,
        params: vec![ParamArray { name, values: ParamValues::F32(vec![scale; parts.n]) }],
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: Rounding::F32,
        k_order: None,
        input_scale: None,
    })
}
