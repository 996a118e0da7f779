//! Rows that quantize activations to codes of 8 bits, and multiply such codes.

use super::mma::multiply;
use super::Arg::In;
use super::Intrinsic;
use super::Meaning::Pure;
use crate::kir::Type::{F32, U32};
use qtune_ir::dequant::e4m3_nearest;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: "largest_f32",
        args: &[In(F32), In(F32)],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, max.f32 and abs.f32: a NaN loses",
        meaning: Pure(|a| f32::from_bits(a[0]).max(f32::from_bits(a[1]).abs()).to_bits()),
        text: "float largest_f32(float most, float a) { return fmaxf(most, fabsf(a)); }",
    },
    Intrinsic {
        name: "divide_f32",
        args: &[In(F32), In(F32)],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, div.rn.f32",
        meaning: Pure(|a| (f32::from_bits(a[0]) / f32::from_bits(a[1])).to_bits()),
        text: "float divide_f32(float a, float b) { return __fdiv_rn(a, b); }",
    },
    Intrinsic {
        name: "int_f32",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, cvt.rn.f32.s32",
        meaning: Pure(|a| (a[0] as i32 as f32).to_bits()),
        text: "float int_f32(unsigned a) { return __int2float_rn((int)a); }",
    },
    Intrinsic {
        name: "s8_pair",
        args: &[In(F32), In(F32)],
        result: Some(U32),
        capability: (5, 0),
        source: "PTX ISA, cvt.rni.sat.s8.f32",
        meaning: Pure(|a| {
            let code = |bits| f32::from_bits(bits).round_ties_even() as i8 as u8;
            u32::from(u16::from_le_bytes([code(a[0]), code(a[1])]))
        }),
        text: "unsigned s8_pair(float low, float high) {
  int l, h;
  asm(\"cvt.rni.sat.s8.f32 %0, %1;\" : \"=r\"(l) : \"f\"(low));
  asm(\"cvt.rni.sat.s8.f32 %0, %1;\" : \"=r\"(h) : \"f\"(high));
  return (unsigned)(l & 0xff) | (unsigned)(h & 0xff) << 8;
}",
    },
    Intrinsic {
        name: "e4m3_pair",
        args: &[In(F32), In(F32)],
        result: Some(U32),
        capability: (8, 9),
        source: "PTX ISA, cvt.rn.satfinite.e4m3x2.f32 (the first source goes to the upper byte)",
        meaning: Pure(|a| {
            let [low, high] = [a[0], a[1]].map(|bits| e4m3_nearest(f32::from_bits(bits)));
            u32::from(u16::from_le_bytes([low, high]))
        }),
        text: "unsigned e4m3_pair(float low, float high) {
  unsigned short d;
  asm(\"cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\" : \"=h\"(d) : \"f\"(high), \"f\"(low));
  return d;
}",
    },
    multiply!("mma_s8" "            ", "m16n8k32.row.col.s32.s8.s8.s32", U32 "unsigned" "r", (8, 0), "c[16x8] += a[16x32] * b[32x8] in integers"),
    multiply!("mma_e4m3" "              ", "m16n8k32.row.col.f32.e4m3.e4m3.f32", F32 "float" "f", (8, 9), "c[16x8] += a[16x32] * b[32x8]"),
];
