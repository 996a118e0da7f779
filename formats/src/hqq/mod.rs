//! HQQ: codes of 2, 3, 4 or 8 bits with a scale and a zero-point for every group, both floats, found
//! without calibration data (Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning
//! Models", 2023).
//!
//! The weight is flattened and cut into a matrix `Q` whose rows (`axis` 1) or columns (`axis` 0) are the
//! groups. Its rows are packed in parts: the first half of the rows in the high nibbles, the second in
//! the low ones, and so on for other widths.
//!
//! - Groups of axis 1 are runs of a row of the weight. Where they run over the ends of rows, a layer is
//!   decoded, and named, with the largest runs that do not.
//! - Groups of axis 0 are weights of a column. Where a row of `Q` is a number of rows of the weight, `G` rows that lie
//!   `N/G` apart share a row of parameters: they are decoded one behind the other ([`qtune_ir::Group::Rows`]).
//!   Else every weight has its own parameters, which the name says as groups of one: such a layer is decoded, but no
//!   kernel serves it. Packed with its scale and zero-point a weight would take 36 bits, more than
//!   twice those of a float.
//!
//! The library subtracts the zero-point and multiplies by the scale in the type of both, rounding twice.

mod decode;
mod layout;

use crate::name::Modifier;
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// A width with parameters of a type.
const fn variant(bits: u8, modifiers: &'static [Modifier]) -> Variant {
    let params: &'static [_] = match modifiers {
        [] | [Modifier::AcrossRows] => &[("s", ParamType::F16), ("z", ParamType::F16)],
        _ => &[("s", ParamType::F32), ("z", ParamType::F32)],
    };
    Variant { bits, modifiers, params, expr: "(* (- q z) s)", codebook: &[] }
}

const BF16: &[Modifier] = &[Modifier::Bf16Scales];
const ACROSS: &[Modifier] = &[Modifier::AcrossRows];
const BF16_ACROSS: &[Modifier] = &[Modifier::Bf16Scales, Modifier::AcrossRows];

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "hqq",
    doc: "HQQ, 2-, 3-, 4- or 8-bit codes with a float scale and zero-point per group",
    source: "Badri and Shaji, Half-Quadratic Quantization, 2023; hqq 0.2.8",
    packing:
        "uint8 [r/p, c], p parts of the rows of the regrouped matrix from the highest bits down; \
              int32 of ten 3-bit codes",
    names: "hqq[-w2|-w3|-w8]-g<SIZE> | hqq-ch, + -bf16, -axis0",
    examples: &[
        "hqq-g64",
        "hqq-g128",
        "hqq-w3-g64-bf16",
        "hqq-w2-g64",
        "hqq-w8-g64",
        "hqq-g64-axis0",
        "hqq-w3-g64-bf16-axis0",
        "hqq-g1",
    ],
    groups: GroupNames::Rows,
    variants: &[
        variant(4, &[]),
        variant(4, BF16),
        variant(2, &[]),
        variant(2, BF16),
        variant(3, &[]),
        variant(3, BF16),
        variant(8, &[]),
        variant(8, BF16),
        variant(4, ACROSS),
        variant(4, BF16_ACROSS),
        variant(2, ACROSS),
        variant(2, BF16_ACROSS),
        variant(3, ACROSS),
        variant(3, BF16_ACROSS),
        variant(8, ACROSS),
        variant(8, BF16_ACROSS),
    ],
    anchors: &["W_q"],
    companions: &[
        "W_q",
        "scale",
        "zero",
        "shape",
        "nbits",
        "group_size",
        "axis",
        "packing",
        "compute_dtype",
        "unpack_view_dtype",
        "view_as_float",
        "optimize",
        "round_zero",
        "channel_wise",
        "offload_meta",
        "encoded_state_dict",
        "stores_quant_config",
        "quant_scale",
        "quant_zero",
        "bias",
    ],
    claims: |_, _| Ok(true),
    inspect: |module, _| layout::inspect(module, ROW.family),
    load: |module, header| decode::load(module, header, &ROW),
    quantize: None,
};
