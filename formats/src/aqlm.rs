//! AQLM: sums of vectors from several codebooks, times a scale for every row (Egiazarian et al., "Extreme
//! Compression of Large Language Models via Additive Quantization", ICML 2024).
//!
//! `codes` `[N, K/v, M]`, two's complement, names for every `v` weights of a row one vector of each of
//! `M` codebooks, f16 `[M, 2^bits, 1, v]`; `scales` f16 `[N, 1, 1, 1]`. Vectors of several rows are not
//! read. Kernels look up vectors of eight weights whose codes fit 16 bits; a layer of others holds a number
//! for every weight, see [`crate::numbers`].

use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::{FormatName, Modifier};
use crate::nibbles::pack;
use crate::numbers;
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use crate::vectors::Vectors;
use half::f16;
use qtune_ir::{vector_shares, Group, ParamType, VECTOR_SHARE_BITS, VECTOR_WEIGHTS};
use rayon::prelude::*;
use std::sync::Arc;

/// The paper and the library.
const SOURCE: &str = "Egiazarian et al., AQLM, ICML 2024 (arXiv 2401.06118); aqlm 1.1";

/// The registry row of what kernels read.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "aqlm",
    doc: "AQLM, vectors of 8 weights with a scale per row; codebooks and bits of their codes",
    source: SOURCE,
    packing: "integers [N, K/8, M]; codebooks f16 [M, 2^bits, 1, 8]; scales f16 [N, 1, 1, 1]",
    names: "aqlm-<BOOKS>x<BITS>",
    examples: &["aqlm-1x16", "aqlm-2x8"],
    groups: GroupNames::WholeRow,
    variants: &[
        variant(&[Modifier::Codebooks(1, 16)]),
        variant(&[Modifier::Codebooks(2, 8)]),
        variant(&[Modifier::Codebooks(1, 8)]),
        variant(&[Modifier::Codebooks(1, 12)]),
        variant(&[Modifier::Codebooks(1, 13)]),
        variant(&[Modifier::Codebooks(1, 14)]),
        variant(&[Modifier::Codebooks(1, 15)]),
    ],
    anchors: &["codebooks"],
    companions: SUFFIXES,
    claims: |module, _| Ok(module.get("codebooks").is_some_and(|books| known(&books).is_some())),
    inspect: |module, _| {
        let parts = Parts::of(module)?;
        let modifiers = known(&parts.codebooks).into_iter().collect();
        let family = ROW.family.into();
        let name = FormatName { family, bits: None, grouping: None, modifiers };
        let (layout, group) = (parts.layout(), Group::Channel);
        Ok(LayerHeader { name, layout, n: parts.n, k: parts.k, group })
    },
    load: load_vectors,
    quantize: None,
};

/// The registry row of other shapes.
pub(crate) static OTHERS: FormatRow = FormatRow {
    family: "aqlm-any",
    doc: "AQLM with vectors and codebooks of other sizes; decoded only",
    source: SOURCE,
    packing: "integers [N, K/v, M]; codebooks f16 [M, 2^bits, 1, v]; scales f16 [N, 1, 1, 1]",
    names: "aqlm-any",
    examples: &["aqlm-any"],
    groups: numbers::GROUPS,
    variants: numbers::VARIANTS,
    anchors: &["codebooks"],
    companions: SUFFIXES,
    claims: |_, _| Ok(true),
    inspect: |module, _| {
        let parts = Parts::of(module)?;
        Ok(numbers::header(OTHERS.family, parts.layout(), parts.n, parts.k))
    },
    load: load_numbers,
    quantize: None,
};

/// All tensors of a layer.
const SUFFIXES: &[&str] = &["codes", "codebooks", "scales", "bias"];

/// What a weight is worth, by how many codebooks there are.
const fn variant(modifiers: &'static [Modifier]) -> Variant {
    let params = &[("s", ParamType::F16)];
    Variant { bits: VECTOR_SHARE_BITS, modifiers, params, expr: "(* (vector q) s)", codebook: &[] }
}

/// The modifier of codebooks of this shape, where kernels read them.
fn known(codebooks: &TensorRef<'_>) -> Option<Modifier> {
    let &[books, entries, 1, VECTOR_WEIGHTS] = codebooks.shape else { return None };
    let bits = entries.is_power_of_two().then(|| entries.ilog2())?;
    let modifier = Modifier::Codebooks(books.try_into().ok()?, bits.try_into().ok()?);
    ROW.variants.iter().any(|variant| variant.modifiers == [modifier]).then_some(modifier)
}

/// The tensors of a layer.
struct Parts<'a> {
    codes: TensorRef<'a>,
    codebooks: TensorRef<'a>,
    scales: TensorRef<'a>,
    bias: Option<TensorRef<'a>>,
    n: usize,
    k: usize,
    /// Codebooks, vectors in each, numbers in a vector.
    sizes: [usize; 3],
}

/// Longest vectors that are read: a code of one byte becomes no more than so many weights.
const VECTOR_MAX: usize = 8;

impl<'a> Parts<'a> {
    fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let require = |suffix| module.require(suffix, "codebooks");
        let (codes, codebooks, scales) =
            (require("codes")?, require("codebooks")?, require("scales")?);
        let sizes = match *codebooks.shape {
            [count, vectors, 1, length]
                if count > 0 && vectors.is_power_of_two() && (1..=VECTOR_MAX).contains(&length) =>
            {
                [count, vectors, length]
            }
            ref shape => {
                let problem =
                    format!("is {shape:?}, not vectors of up to {VECTOR_MAX} weights of a row");
                return Err(codebooks.error(problem, "use a checkpoint of another format"));
            }
        };
        codebooks.expect(ElementType::F16, codebooks.shape, "vectors of 16-bit floats")?;
        let [n, k] = match *codes.shape {
            [n, vectors, count] if count == sizes[0] => [n, vectors.saturating_mul(sizes[2])],
            ref shape => {
                let problem = format!("is {shape:?}, not codes of {} codebooks", sizes[0]);
                return Err(codes.error(problem, EXPORT_AGAIN));
            }
        };
        codes.check_size(n, k)?;
        let bits = width(&codes).ok_or_else(|| {
            codes.error(
                format!("is {}, not integers of 8, 16 or 32 bits", codes.stored),
                EXPORT_AGAIN,
            )
        })?;
        if sizes[1].ilog2() as usize > 8 * bits {
            let problem = format!("is {}, which names no {} vectors", codes.stored, sizes[1]);
            return Err(codes.error(problem, EXPORT_AGAIN));
        }
        scales.expect(ElementType::F16, &[n, 1, 1, 1], "a scale per output feature")?;
        let bias = module.get("bias");
        bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
        Ok(Parts { codes, codebooks, scales, bias, n, k, sizes })
    }

    /// The entry of each codebook that vector `at` of the matrix is the sum of.
    fn entries(&self, at: usize) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let [count, entries, _] = self.sizes;
        // The type has been checked to be of integers.
        let bytes = width(&self.codes).unwrap_or(1);
        (0..count).map(move |codebook| {
            let code = &self.codes.bytes[(at * count + codebook) * bytes..][..bytes];
            code.iter().rev().fold(0, |code, byte| code << 8 | usize::from(*byte)) % entries
        })
    }

    fn layout(&self) -> &'static str {
        match self.sizes[0] {
            1 => "one codebook",
            2 => "two codebooks",
            _ => "several codebooks",
        }
    }
}

/// Bytes of a code.
fn width(codes: &TensorRef<'_>) -> Option<usize> {
    let known = [(ElementType::I8, 1), (ElementType::I16, 2), (ElementType::I32, 4)];
    known.into_iter().find(|(element, _)| codes.stored == *element).map(|(_, bytes)| bytes)
}

/// See [`FormatRow::load`].
fn load_vectors(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let half = |value: f32| f16::from_f32(value);
    let values: Vec<f16> = finite(&parts.codebooks)?.into_iter().map(half).collect();
    let scales = finite(&parts.scales)?.into_iter().map(half).collect();
    let spec = ROW.spec(&header.name)?;
    let Some(named) = spec.codebook.vectors() else {
        let problem = format!("has other codebooks than {} names", header.name);
        return Err(parts.codebooks.error(problem, EXPORT_AGAIN));
    };
    let vectors = Arc::new(Vectors::new(named, values));
    let mut codes = Codes::of_vectors(parts.n, parts.k, vectors);
    let stride = VECTOR_WEIGHTS / 2;
    codes.bytes_mut().par_chunks_mut(stride).enumerate().for_each(|(at, bytes)| {
        let code = parts.entries(at).rev().fold(0, |code, entry| code << 8 | entry);
        pack(&vector_shares(code as u16), VECTOR_SHARE_BITS, bytes);
    });
    let name = spec.params[0].name.clone();
    Ok(QuantizedLinear {
        spec,
        n: parts.n,
        k: parts.k,
        codes,
        params: vec![ParamArray { name, values: ParamValues::F16(scales) }],
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: Rounding::F32,
        k_order: None,
        input_scale: None,
    })
}

/// See [`FormatRow::load`].
fn load_numbers(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let (vectors, scales) = (finite(&parts.codebooks)?, finite(&parts.scales)?);
    let [_, entries, length] = parts.sizes;
    let mut weights = vec![0.0f32; parts.n * parts.k];
    weights.par_chunks_mut(length).enumerate().for_each(|(at, sum)| {
        for (codebook, entry) in parts.entries(at).enumerate() {
            let vector = &vectors[(codebook * entries + entry) * length..][..length];
            sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
        }
        let scale = scales[at * length / parts.k];
        sum.iter_mut().for_each(|sum| *sum *= scale);
    });
    let bias = parts.bias.map(|bias| bias.bias(parts.n)).transpose()?;
    numbers::layer(&OTHERS, header, weights, bias)
}

/// The elements of a tensor, all of which must be finite.
fn finite(tensor: &TensorRef<'_>) -> Result<Vec<f32>, FormatError> {
    let values = tensor.floats();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => {
            Err(tensor.error(format!("holds {} at element {at}", values[at]), VALUE_REMEDY))
        }
    }
}
