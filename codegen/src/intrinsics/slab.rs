//! Rows of what writes a row-major slab.

use super::Meaning::Read;
use super::{Arg, Intrinsic};
use crate::kir::Type;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: "shfl_xor_u32",
        args: &[Arg::In(Type::U32), Arg::Constant],
        result: Some(Type::U32),
        capability: (5, 0),
        source: "PTX ISA, shfl.sync.bfly",
        meaning: Read("the word of lane `lane ^ mask`; the whole warp takes part"),
        text: "unsigned shfl_xor_u32(unsigned a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }",
    },
];
