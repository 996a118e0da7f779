//! AWQ: activation-aware weight quantization, 4 bits with zero-points.
//!
//! Paper: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
//! Acceleration", MLSys 2024. The bytes are those of the AutoAWQ library, which has three
//! packings, named by `version` in its configuration:
//!
//! - `gemm`: nearly every published file. Codes packed along N, eight to a word, interleaved.
//! - `gemv`: packed along K in natural order; its kernel computes weights in f32.
//! - `gemv_fast` (also written by llm-awq): four rows interleaved, zero-points stored already
//!   multiplied by their scale and rounded to f16. Since that rounding is part of the weights, it
//!   is a format of its own with another expression: `awq-g128-fast`.
//!
//! Per-channel scaling of the activations is folded into the weights and the preceding norm when
//! a model is quantized, so nothing of it is left to apply.

mod decode;
mod group;
mod layout;

use crate::name::Modifier;
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// Codes in a 32-bit word.
const PER_WORD: usize = 8;
/// Column of a `gemm` word that each nibble holds, lowest nibble first.
const GEMM_ORDER: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "awq",
    doc: "AWQ, 4-bit codes with zero-points (AutoAWQ: gemm, gemv, gemv_fast)",
    source: "Lin et al., AWQ, MLSys 2024 (arXiv 2306.00978); AutoAWQ 0.2, awq/modules/linear",
    packing: "gemm: int32 [K, N/8], nibbles interleaved 0 2 4 6 1 3 5 7 along N; gemv: int32 \
              [N, K/8], natural order; gemv_fast: int16 [N/4, K], 4 rows interleaved",
    names: "awq-g<SIZE> | awq-ch, + -fast for gemv_fast files",
    examples: &["awq-g128", "awq-g64", "awq-g32", "awq-ch", "awq-g128-fast"],
    groups: GroupNames::Rows,
    variants: &[
        Variant {
            bits: 4,
            modifiers: &[],
            params: &[("s", ParamType::F16), ("z", ParamType::Code(4))],
            expr: "(* (- q z) s)",
            codebook: &[],
        },
        Variant {
            bits: 4,
            modifiers: &[Modifier::Fast],
            params: &[("s", ParamType::F16), ("t", ParamType::F16)],
            expr: "(+ (* q s) t)",
            codebook: &[],
        },
    ],
    anchors: &["qweight", "qzeros", "scaled_zeros"],
    companions: &["qweight", "qzeros", "scaled_zeros", "scales", "bias"],
    claims: layout::claims,
    inspect: layout::inspect,
    load: decode::load,
    quantize: None,
};
