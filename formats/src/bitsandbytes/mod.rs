//! bitsandbytes' formats: NF4 and FP4 of 4 bits, one absolute maximum per block of the flattened matrix.
//!
//! Paper: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", NeurIPS 2023. The bytes
//! are those of the bitsandbytes library: two codes to a byte, the first in the high nibble, rows
//! one after the other without padding. A weight is its code's entry of a codebook times its
//! block's `absmax`, computed in f32 and cast to the type of the original weights.
//!
//! - NF4's codebook has the quantiles of a normal distribution; FP4's is not the e2m1 of other
//!   libraries: its smallest magnitude is 1/192, not 1/12, of the largest.
//! - With double quantization (`-dq`) each `absmax` is itself an 8-bit code. A layer keeps both, the code and the
//!   f32 that the library makes of it, so that a kernel may read either. Codes that fewer than 256 blocks
//!   share a float for, which the library does not write, are resolved when the layer is loaded.
//! - Blocks run over the ends of rows where K is no multiple of the block size. Such a layer is
//!   decoded, and named, with the largest blocks that do not: `nf4-b32` for K = 96, blocks of 64.
//! - Its 8-bit layers (LLM.int8) have other tensors: see `bytes`.
//! - Each layer carries a `quant_state`, which is believed over the model's configuration.

mod bytes;
mod decode;
mod layout;
mod quantize;
mod state;

pub(crate) use bytes::BYTES_ROW;

use crate::name::Modifier;
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// What distinguishes the formats of the library: names, in names and files, and codebooks.
struct Kind {
    /// First word of the format's names and value of `quant_type`.
    family: &'static str,
    /// Suffix of the tensor that describes a layer.
    state_key: &'static str,
    /// Value of each code.
    codebook: &'static [f32; 16],
}

/// The first eight codes are negative or zero, the others positive.
#[rustfmt::skip]
static NF4_CODEBOOK: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// Bit 3 is the sign; the magnitudes are 0, 1/16, 8, 12, 4, 6, 2 and 3 twelfths.
#[rustfmt::skip]
static FP4_CODEBOOK: [f32; 16] = [
    0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25,
    0.0, -0.005_208_333_5, -0.666_666_7, -1.0, -0.333_333_34, -0.5, -0.166_666_67, -0.25,
];

static NF4: Kind = Kind {
    family: "nf4",
    state_key: "weight.quant_state.bitsandbytes__nf4",
    codebook: &NF4_CODEBOOK,
};

static FP4: Kind = Kind {
    family: "fp4",
    state_key: "weight.quant_state.bitsandbytes__fp4",
    codebook: &FP4_CODEBOOK,
};

/// A weight is a value of the codebook times the block's absolute maximum.
const fn plain(codebook: &'static [f32; 16]) -> Variant {
    let params = &[("s", ParamType::F32)];
    Variant { bits: 4, modifiers: &[], params, expr: "(* (lookup q) s)", codebook }
}

/// The same where the maximum is made of a code and a maximum of maxima.
const fn nested(codebook: &'static [f32; 16]) -> Variant {
    let modifiers = &[Modifier::DoubleQuant];
    let params =
        &[("s", ParamType::Resolved), ("c", ParamType::NestedCode), ("n", ParamType::NestedScale)];
    Variant { bits: 4, modifiers, params, expr: "(* (lookup q) (nested s c n))", codebook }
}

/// The registry row of NF4.
pub(crate) static NF4_ROW: FormatRow = FormatRow {
    family: NF4.family,
    doc: "NF4, 4-bit normal-float codes with an absmax per block, plain or double quantized",
    source: "Dettmers et al., QLoRA, NeurIPS 2023 (arXiv 2305.14314); bitsandbytes 0.50",
    packing: "uint8, two codes to a byte, first in the high nibble, rows joined; absmax f32, or \
              uint8 with -dq",
    names: "nf4-b<SIZE>, + -dq",
    examples: &["nf4-b64", "nf4-b64-dq", "nf4-b128", "nf4-b32"],
    groups: GroupNames::Blocks,
    variants: &[plain(&NF4_CODEBOOK), nested(&NF4_CODEBOOK)],
    anchors: &[NF4.state_key, "weight.absmax"],
    companions: &[
        "weight",
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        NF4.state_key,
        "bias",
    ],
    claims: |module, config| layout::claims(&NF4, module, config),
    inspect: |module, _| layout::inspect(&NF4, module),
    load: |module, header| decode::load(&NF4, &NF4_ROW, module, header),
    quantize: Some(|weight, name, progress| {
        quantize::quantize(&NF4, &NF4_ROW, weight, name, progress)
    }),
};

/// The registry row of FP4.
pub(crate) static FP4_ROW: FormatRow = FormatRow {
    family: FP4.family,
    doc:
        "FP4, 4-bit float codes of bitsandbytes with an absmax per block, plain or double quantized",
    names: "fp4-b<SIZE>, + -dq",
    examples: &["fp4-b64", "fp4-b64-dq", "fp4-b128", "fp4-b32"],
    variants: &[plain(&FP4_CODEBOOK), nested(&FP4_CODEBOOK)],
    anchors: &[FP4.state_key, "weight.absmax"],
    companions: &[
        "weight",
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        FP4.state_key,
        "bias",
    ],
    claims: |module, config| layout::claims(&FP4, module, config),
    inspect: |module, _| layout::inspect(&FP4, module),
    load: |module, header| decode::load(&FP4, &FP4_ROW, module, header),
    quantize: Some(|weight, name, progress| {
        quantize::quantize(&FP4, &FP4_ROW, weight, name, progress)
    }),
    ..NF4_ROW
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codebooks_hold_the_bits_that_the_library_writes() {
        let nf4: [u32; 16] = [
            0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0,
            0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3,
            0x3f800000,
        ];
        assert_eq!(NF4_CODEBOOK.map(f32::to_bits), nf4);
        let fp4 = [0, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab];
        assert_eq!(FP4_CODEBOOK.map(f32::to_bits)[..7], fp4);
        for code in 1..8 {
            assert_eq!(FP4_CODEBOOK[code + 8], -FP4_CODEBOOK[code]);
        }
        assert_eq!(FP4_CODEBOOK[8].to_bits(), 0);
    }
}
