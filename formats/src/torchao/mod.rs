//! TorchAO's int4 weights: codes of 4 bits with a scale and an offset for every group, both bf16.
//!
//! A weight is `(q - 8) * s + z`, where `z` is the middle of the group's range. A tensor subclass is taken
//! apart into tensors `weight:qdata` (or `._weight_qdata` in recent releases) and so on; the metadata
//! of the file says which class it was, and its logical shape.
//!
//! - `Int4Tensor` (plain): `qdata` `[N, K/2]`, signed nibbles, the even column low; `scale` and
//!   `zero_point` `[K/g, N]`.
//! - `Int4TilePackedTo4dTensor`: int32 words in the order of the tensor cores' operands, `[N/8, K/128,
//!   32, 4]`, of a matrix that is padded to multiples of 8 and 1024; `scale_and_zero` `[K/g, N, 2]`.
//!
//! The library computes the plain ones in f32; of the others it rounds the product and the sum to bf16.

mod decode;
mod layout;

use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "torchao-int4",
    doc:
        "TorchAO weight-only codes of 4 bits, a bf16 scale and offset per group, plain or in tiles",
    source: "torchao 0.14, Int4Tensor and Int4TilePackedTo4dTensor; tinygemm",
    packing:
        "bytes [N, K/2], signed nibbles; int32 [N/8, K/128, 32, 4] in the order of tensor cores",
    names: "torchao-int4-g<SIZE> | torchao-int4-ch",
    examples: &["torchao-int4-g128", "torchao-int4-g64", "torchao-int4-g32"],
    groups: GroupNames::Rows,
    variants: &[Variant {
        bits: 4,
        modifiers: &[],
        params: &[("s", ParamType::F32), ("z", ParamType::F32)],
        expr: "(+ (* (- q 8) s) z)",
        codebook: &[],
    }],
    anchors: &["weight:qdata", "._weight_qdata"],
    companions: &[
        "weight:qdata",
        "weight:scale",
        "weight:zero_point",
        "weight:scale_and_zero",
        "._weight_qdata",
        "._weight_scale",
        "._weight_zero_point",
        "._weight_scale_and_zero",
        "bias",
    ],
    claims: |module, _| Ok(layout::claims(module)),
    inspect: |module, _| layout::inspect(module, ROW.family),
    load: |module, header| decode::load(module, header, &ROW),
    quantize: None,
};
