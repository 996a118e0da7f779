//! Unpacking codes, scales and zero-points into logical order.

use super::layout::{k_order, packing_named, Parts, Weight};
use super::Packing;
use crate::activations::input_scale;
use crate::codes::Codes;
use crate::container::Kept;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::Modifier;
use crate::nibbles::pack;
use crate::registry::{row_of, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{word, Module, TensorRef, VALUE_REMEDY};
use half::{bf16, f16};
use rayon::prelude::*;

/// See [`crate::FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = row_of(&header.name)?.spec(&header.name)?;
    let packing = packing_named(header.layout);
    let groups = header.groups();
    let k_order = k_order(&parts, groups, header.group)?;
    let mut values = vec![scales(&parts, groups)?];
    if header.name.modifiers.contains(&Modifier::Asym) {
        values.extend(parts.zeros.map(|zeros| {
            ParamValues::Code(match parts.weight {
                Weight::Packed(_) => packed_zeros(&zeros, spec.bits, packing, parts.n, groups),
                Weight::Bytes(_) => {
                    let at = |index| zeros.bytes[index % zeros.bytes.len()] ^ SIGN;
                    (0..parts.n * groups).map(at).collect()
                }
            })
        }));
    }
    let named = spec.params.iter().zip(values);
    let params = named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect();
    Ok(QuantizedLinear {
        codes: codes(&parts, spec.bits, packing, k_order.as_deref()),
        spec,
        n: parts.n,
        k: parts.k,
        params,
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: match parts.scale.stored == ElementType::Bf16 {
            true => Rounding::F32ThenBf16,
            false => Rounding::F16,
        },
        k_order,
        input_scale: input_scale(module, &header.name)?,
    })
}

/// Turns a signed byte into offset binary, and back.
const SIGN: u8 = 0x80;

/// Codes `[N, K]`, columns in the given order.
fn codes(parts: &Parts<'_>, bits: u8, packing: Packing, order: Option<&[u32]>) -> Codes {
    let (n, k, order) = (parts.n, parts.k, order.map(<[u32]>::to_vec));
    let stored = match parts.weight {
        Weight::Bytes(weight) => StoredRows { bytes: weight.keep(), k, words: None },
        Weight::Packed(packed) => {
            let words = Some((packed.shape[1], packing));
            StoredRows { bytes: packed.keep(), k, words }
        }
    };
    Codes::stored([n, k], bits, move |first, rows, stride| {
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            if let (Some((words, _)), None, 4) = (stored.words, &order, bits) {
                stored.copy_words(n, words, row);
                continue;
            }
            let natural = stored.natural(n, bits);
            match &order {
                None => pack(&natural, bits, row),
                Some(order) => {
                    let sorted: Vec<u8> = order.iter().map(|k| natural[*k as usize]).collect();
                    pack(&sorted, bits, row);
                }
            }
        }
    })
}

/// Rows of codes as a file has them.
struct StoredRows {
    bytes: Kept,
    k: usize,
    /// Words of a row and how codes lie in them; none where each is a byte.
    words: Option<(usize, Packing)>,
}

impl StoredRows {
    /// Row `n` of codes of 4 bits, whose words are what [`Codes`] gives, but for what follows the last code.
    fn copy_words(&self, n: usize, words: usize, row: &mut [u8]) {
        row.copy_from_slice(&self.bytes[4 * n * words..][..row.len()]);
        if let (Some(last), 1) = (row.last_mut(), self.k % 2) {
            *last &= 15;
        }
    }

    /// The codes of row `n`, one per byte.
    fn natural(&self, n: usize, bits: u8) -> Vec<u8> {
        match self.words {
            None => {
                self.bytes[n * self.k..(n + 1) * self.k].iter().map(|byte| byte ^ SIGN).collect()
            }
            Some((words, packing)) => {
                let code = |k| packing.code(bits, k, |at| word(&self.bytes, n * words + at));
                (0..self.k).map(code).collect()
            }
        }
    }
}

/// Scales `[N, groups]`; a single one is everybody's.
fn scales(parts: &Parts<'_>, groups: usize) -> Result<ParamValues, FormatError> {
    let stored = parts.scale.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let stored: Vec<u16> = stored.collect();
    let all = (0..parts.n * groups).map(|index| stored[index % stored.len()]);
    let check = |bad: Option<usize>| match bad {
        None => Ok(()),
        Some(at) => {
            let (n, group) = (at / groups, at % groups);
            let problem = format!("is not finite for output feature {n}, quant group {group}");
            Err(parts.scale.error(problem, VALUE_REMEDY))
        }
    };
    if parts.scale.stored == ElementType::Bf16 {
        let values: Vec<f32> = all.map(|bits| bf16::from_bits(bits).to_f32()).collect();
        check(values.iter().position(|value| !value.is_finite()))?;
        return Ok(ParamValues::F32(values));
    }
    let values: Vec<f16> = all.map(f16::from_bits).collect();
    check(values.iter().position(|value| !value.is_finite()))?;
    Ok(ParamValues::F16(values))
}

/// Zero-points `[N, groups]` of words `[_, groups]` that are packed along N.
fn packed_zeros(
    zeros: &TensorRef<'_>,
    bits: u8,
    packing: Packing,
    n: usize,
    groups: usize,
) -> Vec<u8> {
    let zero = |index: usize| {
        let (n, group) = (index / groups, index % groups);
        packing.code(bits, n, |at| zeros.word(at * groups + group))
    };
    (0..n * groups).into_par_iter().map(zero).collect()
}
