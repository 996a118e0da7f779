//! MXFP8: floats of 8 bits (e4m3) with a power of two for every 32.

use super::packed::{is_exponents, scales, Parts};
use super::SIZE;
use crate::error::FormatError;
use crate::registry::{FormatRow, GroupNames, Variant};
use crate::safetensors::ElementType;
use crate::tensors::Module;
use qtune_ir::ParamType;

/// How its name says what shares a scale.
const GROUPS: GroupNames = GroupNames::Block(SIZE);

/// The registry row.
pub(crate) static MXFP8: FormatRow = FormatRow {
    family: "mxfp8",
    doc: "MXFP8, e4m3 codes with a power of two per 32",
    source: "OCP Microscaling Formats 1.0; compressed-tensors 0.20, MXFP8QuantizationCompressor",
    packing: "float8_e4m3 [N, K]; weight_scale uint8 or e8m0 [N, K/32]",
    names: "mxfp8-b32",
    examples: &["mxfp8-b32"],
    groups: GROUPS,
    variants: &[Variant {
        bits: 8,
        modifiers: &[],
        params: &[("s", ParamType::E8M0)],
        expr: "(* (e4m3 q) s)",
        codebook: &[],
    }],
    anchors: &["weight_scale"],
    companions: &["weight", "weight_scale", "bias"],
    claims: |module, _| Ok(claims(module)),
    inspect: |module, _| Ok(parts(module)?.header(MXFP8.family, "mxfp8-quantized", (GROUPS, SIZE))),
    load: |module, header| {
        let parts = parts(module)?;
        let codes = crate::float8::codes(&parts.codes, parts.n, parts.k)?;
        parts.layer(header, codes, parts.powers(127)?)
    },
    quantize: None,
};

/// See [`FormatRow::claims`]. A matrix of powers of two can also be one of blocks.
fn claims(module: &Module<'_>) -> bool {
    let (weight, scale) = (module.get("weight"), module.get("weight_scale"));
    let (Some(weight), Some(scale)) = (weight, scale) else { return false };
    let group = match (weight.shape, scale.shape) {
        ([n, k], [rows, groups]) => n == rows && *k == groups * SIZE as usize,
        _ => false,
    };
    weight.stored == ElementType::F8E4M3 && is_exponents(&scale) && group
}

fn parts<'a>(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
    let weight = module.require("weight", "weight_scale")?;
    let scales = (scales(module, "weight")?, SIZE);
    Parts::matrix(weight, ElementType::F8E4M3, 1, scales, module.get("bias"))
}
