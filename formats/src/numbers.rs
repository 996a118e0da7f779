//! Layers that are decoded to a number for every weight, because their codes stand for vectors that no
//! kernel looks up.
//!
//! The number is the weight's own parameter: quant groups are of one weight, and codes say nothing. So
//! such a layer is inspected and dequantized as all others are; no kernel takes groups of one.

use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::FormatName;
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use qtune_ir::{Group, ParamType};

/// Bits of the codes, which are all 1.
const BITS: u8 = 2;
/// A byte of them.
const ONES: u8 = 0x11;

/// How names of such formats say their groups: not at all.
pub(crate) const GROUPS: GroupNames = GroupNames::Implied(1);

/// What a weight is worth.
pub(crate) const VARIANTS: &[Variant] = &[Variant {
    bits: BITS,
    modifiers: &[],
    params: &[("w", ParamType::F32)],
    expr: "(* q w)",
    codebook: &[],
}];

/// What an inspection tells of a layer.
pub(crate) fn header(family: &str, layout: &'static str, n: usize, k: usize) -> LayerHeader {
    let family = family.into();
    let name = FormatName { family, bits: None, grouping: None, modifiers: Vec::new() };
    LayerHeader { name, layout, n, k, group: Group::Size(1) }
}

/// The layer of these weights `[N, K]`.
pub(crate) fn layer(
    row: &FormatRow,
    header: &LayerHeader,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
) -> Result<QuantizedLinear, FormatError> {
    let spec = row.spec(&header.name)?;
    let mut codes = Codes::zeros(header.n, header.k, BITS);
    codes.bytes_mut().fill(ONES);
    let named = spec.params.iter().zip([ParamValues::F32(weights)]);
    Ok(QuantizedLinear {
        params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
        codes,
        spec,
        n: header.n,
        k: header.k,
        bias,
        rounding: Rounding::F32,
        k_order: None,
        input_scale: None,
    })
}
