//! FP8: codes that are floats of 8 bits (e4m3), with scales for a tensor, its rows or its blocks.
//!
//! `weight` F8_E4M3 `[N, K]`, and one of two tensors of scales, both of which multiply whatever they are
//! called:
//!
//! - `weight_scale` of compressed-tensors (`float-quantized`), of plain `fp8` and FBGEMM checkpoints: one
//!   number, `[N, 1]`, `[N, K/g]`, or one for each block;
//! - `weight_scale_inv` of DeepSeek and Qwen: one for each block of 128 by 128, f32 or a power of two.
//!
//! Blocks at the edges may be ragged. A block's scale is repeated for its rows, so that kernels see quant
//! groups along K; a scale of the whole tensor is one of every channel. Where the
//! configuration asks for activations that are quantized per token and rows have one scale, the layer is
//! an `-a8` one, with an `input_scale` `[1]` for all tokens an `-a8-static` one; so it is where it asks for a scale for
//! each 128 activations of a token, and rows have one for as many weights. Else weights are served with 16-bit
//! activations.
//!
//! The libraries multiply in f32 and round the product to the type of the scales, bf16 for those of
//! 32 bits. Layers with NaN codes are refused: their kernels would not compute NaN.

mod decode;
mod layout;

pub(crate) use decode::codes;

use crate::name::Modifier::{self, EightBitActivations, StaticActivations};
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// Weights, however activations are multiplied with them.
const fn with(modifiers: &'static [Modifier]) -> Variant {
    Variant {
        bits: 8,
        modifiers,
        params: &[("s", ParamType::F32)],
        expr: "(* (e4m3 q) s)",
        codebook: &[],
    }
}

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "fp8-e4m3",
    doc: "FP8 weights (e4m3), scales per tensor, channel or block; -a8 multiplies e4m3 activations",
    source: "compressed-tensors 0.20, FloatQuantizationCompressor; DeepSeek-V3, weight_dequant; OCP FP8 1.0",
    packing: "float8_e4m3 [N, K]; weight_scale per tensor, channel or group; weight_scale_inv per 128x128 block",
    names: "fp8-e4m3-g<SIZE> | fp8-e4m3-ch, + -a8 per channel or -g128, -a8-static per channel",
    examples: &["fp8-e4m3-g128", "fp8-e4m3-ch", "fp8-e4m3-ch-a8", "fp8-e4m3-ch-a8-static", "fp8-e4m3-g128-a8"],
    groups: GroupNames::Rows,
    variants: &[with(&[]), with(&[EightBitActivations]), with(&[EightBitActivations, StaticActivations])],
    anchors: &["weight_scale", "weight_scale_inv"],
    companions: &["weight", "weight_scale", "weight_scale_inv", "input_scale", "bias"],
    claims: |module, _| Ok(layout::claims(module)),
    inspect: |module, config| layout::inspect(module, config, ROW.family),
    load: decode::load,
    quantize: None,
};
