//! Integer arithmetic.

use super::Slot;

/// Width and signedness of an integer operation. Only 64-bit types use the 64-bit file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntType {
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl IntType {
    /// Operands are in the 64-bit file.
    pub(crate) fn wide(self) -> bool {
        matches!(self, IntType::U64 | IntType::S64)
    }
}

/// Two-operand integer operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int2 {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLo,
    MulHi,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

/// One-operand integer operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int1 {
    Neg,
    Abs,
    Not,
    Cnot,
    Brev,
    Popc,
    Clz,
    Bfind,
    /// `bfind.shiftamt`: how far the found bit is below the top.
    BfindShift,
}

/// Operations of extended-precision arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtendedOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// Extended-precision arithmetic (PTX ISA 9.7.2) with the carry flag as a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extended {
    pub op: ExtendedOp,
    pub ty: IntType,
    pub d: Slot,
    /// `a b`, and for the `Mad` operations the addend.
    pub sources: [Slot; 3],
    pub carry_in: Option<Slot>,
    pub carry_out: Option<Slot>,
}

/// Operations of the SIMD video instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedOp {
    Add,
    Sub,
    /// Average, a half rounded towards positive infinity unless the sum is negative.
    Average,
    /// Absolute difference.
    Distance,
    Min,
    Max,
}

/// A SIMD video instruction on two or four parts of 32-bit registers (PTX ISA 9.7.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedInt {
    pub op: PackedOp,
    /// Bits of a part, 8 or 16.
    pub bits: u32,
    /// Signedness of the parts of the result and of the two sources.
    pub signed: [bool; 3],
    /// Clamp to the range of the result's parts.
    pub sat: bool,
    /// The result is the sum of the parts and `c`.
    pub sum: bool,
    /// `d a b c`.
    pub slots: [Slot; 4],
}
