//! Comparisons and predicates.

use super::{FloatType, IntType, Slot};

/// Comparison of `setp` and `set`; the `u` forms are also true for NaN operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareType {
    Int(IntType),
    Float(FloatType),
    /// f32 with subnormals taken as zero (`.ftz`).
    FlushedF32,
}

/// Predicate logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

/// A predicate source that may be negated (`!%p`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PredicateSource {
    pub slot: Slot,
    pub negated: bool,
}
