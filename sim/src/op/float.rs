//! Floating-point arithmetic.

use super::Slot;

/// Floating-point formats of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatType {
    F32,
    F64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32x2,
}

/// Two-operand floating-point operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    CopySign,
}

/// One-operand floating-point operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float1 {
    Neg,
    Abs,
    Rcp,
    /// On the upper 32 bits of an f64 alone, as [`Float1::RsqrtGross`].
    RcpGross,
    RsqrtGross,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// What `testp` asks of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatProperty {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// Modifiers of floating-point operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FloatFlags {
    /// `.ftz`: subnormal inputs and results become zero (f32; f16 also when asked for).
    pub ftz: bool,
    /// `.sat`: clamp to [0, 1], NaN to 0.
    pub sat: bool,
    /// `.relu`: clamp to at least 0, NaN stays.
    pub relu: bool,
    /// `.rz .rm .rp`, f32 and f64 only.
    pub rounding: Rounding,
}

/// `min` or `max` of f32 values in a longer form than two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extreme {
    /// One of the minima and maxima.
    pub op: Float2,
    pub ftz: bool,
    /// Compare magnitudes.
    pub magnitudes: bool,
    /// The result gets the exclusive or of the signs.
    pub xor_sign: bool,
    /// The third source counts.
    pub three: bool,
    pub d: Slot,
    pub sources: [Slot; 3],
}

/// Operations on f32 with half-precision operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MixedOp {
    Add,
    Sub,
    Fma,
}

/// Sum `a + c`, difference or `a * b + c`; `a` and `b` in half precision, `c` and the result f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MixedFloat {
    pub op: MixedOp,
    /// bf16 instead of f16.
    pub bf16: bool,
    pub flags: FloatFlags,
    pub d: Slot,
    pub sources: [Slot; 3],
}

/// Rounding of a conversion; the integer roundings share the names of the floating ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Rounding {
    #[default]
    Nearest,
    Zero,
    Down,
    Up,
    /// Ties away from zero (`.rna`, tf32 only).
    NearestAway,
}
