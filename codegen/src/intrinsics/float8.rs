//! Rows that convert pairs of floats of 8 bits.

use super::Arg::In;
use super::Intrinsic;
use super::Meaning::Pure;
use crate::kir::Type::U32;
use qtune_ir::dequant::e4m3;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: "float8_low",
        args: &[In(U32)],
        result: Some(U32),
        capability: (8, 9),
        source: "PTX ISA, cvt.rn.f16x2.e4m3x2",
        meaning: Pure(|a| float8x2(a[0] as u16)),
        text: "unsigned float8_low(unsigned a) {
  unsigned d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, l; }\" : \"=r\"(d) : \"r\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "float8_high",
        args: &[In(U32)],
        result: Some(U32),
        capability: (8, 9),
        source: "PTX ISA, cvt.rn.f16x2.e4m3x2",
        meaning: Pure(|a| float8x2((a[0] >> 16) as u16)),
        text: "unsigned float8_high(unsigned a) {
  unsigned d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, h; }\" : \"=r\"(d) : \"r\"(a));
  return d;
}",
    },
];

/// The f16 of two codes, that in the lower byte in the lower half.
fn float8x2(codes: u16) -> u32 {
    let half = |code: u8| {
        let value = if code & 0x7f == 0x7f { f64::NAN } else { e4m3(code) };
        u32::from(half::f16::from_f64(value).to_bits())
    };
    let [low, high] = codes.to_le_bytes();
    half(low) | half(high) << 16
}
