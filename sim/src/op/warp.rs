//! Operations of a whole warp, barriers and clocks.

use super::{PredicateSource, Slot};

/// Lane exchange of `shfl.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `vote.sync` modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// `redux.sync` operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Participation of a warp in a numbered barrier of the thread block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BarrierUse {
    /// Register with the barrier number 0..=15.
    pub id: Slot,
    /// Register with the thread count, a multiple of 32; `None` for the whole block.
    pub threads: Option<Slot>,
    /// `.aligned`: every live lane of the warp must execute it together.
    pub aligned: bool,
    pub kind: BarrierKind,
}

/// What a barrier instruction does besides arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    /// Number of threads with a true predicate, into a 32-bit register.
    Popc {
        d: Slot,
        p: PredicateSource,
    },
    /// Conjunction or disjunction of predicates, into a predicate.
    Reduce {
        all: bool,
        d: Slot,
        p: PredicateSource,
    },
}

/// Clocks a kernel can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Low,
    High,
    Full,
}
