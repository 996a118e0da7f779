//! Rows of what is done to a sum before it is stored.

use super::Meaning::Read;
use super::{Arg, Intrinsic};
use crate::kir::Type;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: "silu",
        args: &[Arg::In(Type::F32)],
        result: Some(Type::F32),
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, __expf() (ex2.approx.f32) and __fdividef() \
                 (div.approx.f32)",
        meaning: Read("a / (1 + e^-a), to within the units of the approximate functions"),
        text: "float silu(float a) { return __fdividef(a, 1.0f + __expf(-a)); }",
    },
    Intrinsic {
        name: "load_own_u16",
        args: &[Arg::Global],
        result: Some(Type::U16),
        capability: (5, 0),
        source: "PTX ISA, ld.global: the element may be one that this thread overwrites next, so \
                 neither the read-only path nor what the compiler knows of pointers will do",
        meaning: Read("16 bits"),
        text: "unsigned short load_own_u16(const unsigned short* p) {
  unsigned short d;
  asm volatile(\"ld.global.u16 %0, [%1];\" : \"=h\"(d) : \"l\"(p) : \"memory\");
  return d;
}",
    },
    Intrinsic {
        name: "load_own_f32",
        args: &[Arg::Global],
        result: Some(Type::F32),
        capability: (5, 0),
        source: "PTX ISA, ld.global: as load_own_u16",
        meaning: Read("an f32"),
        text: "float load_own_f32(const float* p) {
  float d;
  asm volatile(\"ld.global.f32 %0, [%1];\" : \"=f\"(d) : \"l\"(p) : \"memory\");
  return d;
}",
    },
];
