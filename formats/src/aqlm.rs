//! AQLM: sums of vectors from several codebooks, times a scale for every row (Egiazarian et al., "Extreme
//! Compression of Large Language Models via Additive Quantization", ICML 2024).
//!
//! `codes` `[N, K/v, M]`, two's complement, names for every `v` weights of a row one vector of each of
//! `M` codebooks, f16 `[M, 2^bits, 1, v]`; `scales` f16 `[N, 1, 1, 1]`. Vectors of several rows are not
//! read. A layer holds a number for every weight, see [`crate::numbers`]; no kernel serves it.

use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::numbers;
use crate::registry::{FormatRow, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use rayon::prelude::*;

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "aqlm",
    doc: "AQLM, sums of vectors of codebooks with a scale per row; decoded only",
    source: "Egiazarian et al., AQLM, ICML 2024 (arXiv 2401.06118); aqlm 1.1",
    packing: "integers [N, K/v, M]; codebooks f16 [M, 2^bits, 1, v]; scales f16 [N, 1, 1, 1]",
    names: "aqlm",
    examples: &["aqlm"],
    groups: numbers::GROUPS,
    variants: numbers::VARIANTS,
    anchors: &["codebooks"],
    companions: &["codes", "codebooks", "scales", "bias"],
    claims: |_, _| Ok(true),
    inspect: |module, _| {
        let parts = Parts::of(module)?;
        Ok(numbers::header(ROW.family, parts.layout(), parts.n, parts.k))
    },
    load,
    quantize: None,
};

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
fn load(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let (vectors, scales) = (finite(&parts.codebooks)?, finite(&parts.scales)?);
    let [count, entries, length] = parts.sizes;
    // The type has been checked to be of integers.
    let bytes = width(&parts.codes).unwrap_or(1);
    let mut weights = vec![0.0f32; parts.n * parts.k];
    weights.par_chunks_mut(length).enumerate().for_each(|(at, sum)| {
        for codebook in 0..count {
            let code = &parts.codes.bytes[(at * count + codebook) * bytes..][..bytes];
            let index = code.iter().rev().fold(0, |code, byte| code << 8 | usize::from(*byte));
            let vector = &vectors[(codebook * entries + index % entries) * length..][..length];
            sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
        }
        let scale = scales[at * length / parts.k];
        sum.iter_mut().for_each(|sum| *sum *= scale);
    });
    let bias = parts.bias.map(|bias| bias.bias(parts.n)).transpose()?;
    numbers::layer(&ROW, header, weights, bias)
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
