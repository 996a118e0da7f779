//! Operands of the conversions between number formats.

use super::{Rounding, Slot};

/// Types of `cvt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConvertType {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

/// A `cvt` between single numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Convert {
    pub to: ConvertType,
    pub from: ConvertType,
    pub rounding: Rounding,
    /// `.rni` and the like: a float rounded to a whole number.
    pub to_integral: bool,
    pub sat: bool,
    /// `.satfinite`: what is too large becomes the largest number.
    pub saturate_finite: bool,
    pub relu: bool,
    pub ftz: bool,
    pub d: Slot,
    pub d_wide: bool,
    pub a: Slot,
    pub a_wide: bool,
}

/// Two f32 to a packed half pair, `a` in the high half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvertPair {
    pub bf16: bool,
    pub truncate: bool,
    pub relu: bool,
    pub saturate_finite: bool,
    pub d: Slot,
    pub a: Slot,
    pub b: Slot,
}

/// f32 rounded to tf32 (10-bit mantissa), kept in an f32 register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvertTf32 {
    pub rounding: Rounding,
    pub relu: bool,
    pub saturate_finite: bool,
    pub d: Slot,
    pub a: Slot,
}

/// Formats of 8 bits and fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmallFormat {
    E4m3,
    E5m2,
    E3m2,
    E2m3,
    E2m1,
    /// Powers of two.
    Ue8m0,
}

impl SmallFormat {
    /// Bits of one element in a pair.
    pub(crate) fn container_bits(self) -> u32 {
        if self == SmallFormat::E2m1 {
            4
        } else {
            8
        }
    }
}

/// Where a pair to be narrowed comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairSource {
    /// Two f32 registers, the first for the high element.
    F32([Slot; 2]),
    F16x2(Slot),
    Bf16x2(Slot),
}

/// A pair to two elements of a small format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NarrowPair {
    pub format: SmallFormat,
    pub source: PairSource,
    pub rounding: Rounding,
    pub relu: bool,
    /// Without it, powers of two that are too large become NaN; the other formats require it.
    pub saturate_finite: bool,
    pub d: Slot,
}

/// Two elements of a small format to f16x2 or bf16x2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WidenPair {
    pub format: SmallFormat,
    /// To bf16x2.
    pub bf16: bool,
    pub relu: bool,
    pub d: Slot,
    pub a: Slot,
}
