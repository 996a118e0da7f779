//! Codes as they are stored, scales for every row.

use super::layout::{rows_of_scale, Parts};
use crate::activations::input_scale;
use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::registry::{row_of, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{first_but, Module, TensorRef, VALUE_REMEDY};

/// See [`crate::FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = row_of(&header.name)?.spec(&header.name)?;
    let values = scales(&parts, header.groups(), header.group.size(parts.k as u32) as usize)?;
    let named = spec.params.iter().map(|param| param.name.clone());
    Ok(QuantizedLinear {
        codes: codes(&parts.weight, parts.n, parts.k)?,
        params: named.map(|name| ParamArray { name, values: values.clone() }).collect(),
        spec,
        n: parts.n,
        k: parts.k,
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: match parts.scale.stored == ElementType::F16 {
            true => Rounding::F16,
            false => Rounding::F32ThenBf16,
        },
        k_order: None,
        input_scale: input_scale(module, &header.name)?,
    })
}

/// The bits below the sign of the codes that are no numbers.
const NAN: u8 = 0x7f;

/// Codes `[N, K]`, all of which must be numbers.
pub(crate) fn codes(weight: &TensorRef<'_>, n: usize, k: usize) -> Result<Codes, FormatError> {
    match first_but(weight.bytes, |code| code & NAN != NAN) {
        None => Ok(Codes::as_stored([n, k], 8, weight.keep())),
        Some(at) => {
            let problem =
                format!("holds NaN for output feature {}, input feature {}", at / k, at % k);
            Err(weight.error(problem, VALUE_REMEDY))
        }
    }
}

/// Scales `[N, groups]`. The shape of their tensor is that of the blocks.
fn scales(parts: &Parts<'_>, groups: usize, width: usize) -> Result<ParamValues, FormatError> {
    let stored = parts.scale.floats();
    let bad = stored.iter().position(|scale| !scale.is_finite() || *scale < 0.0);
    if let Some(at) = bad {
        let problem = format!("holds the scale {} at element {at}", stored[at]);
        return Err(parts.scale.error(problem, VALUE_REMEDY));
    }
    let rows = rows_of_scale(parts.n, stored.len() / groups, width).unwrap_or(1);
    let scale = |n: usize| &stored[n / rows * groups..][..groups];
    Ok(ParamValues::F32((0..parts.n).flat_map(scale).copied().collect()))
}
