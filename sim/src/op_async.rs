//! Operations of clusters and of the asynchronous machinery.

use crate::op::{Address, Slot, Space};

/// Operations of a cluster of thread blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterOp {
    /// `mapa`: the address `a` in the shared memory of block `rank`.
    MapAddress {
        wide: bool,
        /// `a` and `d` are generic addresses.
        generic: bool,
        d: Slot,
        a: Slot,
        rank: Slot,
    },
    /// `getctarank`.
    GetRank { wide: bool, d: Slot, a: Slot },
    /// `barrier.cluster.arrive`; relaxed orders no memory accesses.
    Arrive { relaxed: bool, aligned: bool },
    /// `barrier.cluster.wait`.
    Wait { aligned: bool },
}

/// An `mbarrier.arrive` of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MbarrierArrive {
    pub space: Space,
    pub address: Address,
    /// Number of arrivals, or with `expect_bytes` of bytes; one arrival when absent.
    pub count: Option<Slot>,
    /// 64-bit register for the state before.
    pub state: Option<Slot>,
    pub expect_bytes: bool,
    pub no_complete: bool,
    /// `arrive_drop`.
    pub drop: bool,
    /// `.relaxed`: orders no memory accesses.
    pub relaxed: bool,
}

/// A `test_wait` or `try_wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MbarrierWait {
    pub space: Space,
    pub address: Address,
    /// Predicate: the phase is complete.
    pub d: Slot,
    /// The phase is given by its parity in a 32-bit register, else by a state in a 64-bit one.
    pub parity: bool,
    pub phase: Slot,
    pub relaxed: bool,
}

/// Operations on mbarrier objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MbarrierOp {
    Init {
        space: Space,
        address: Address,
        count: Slot,
    },
    Invalidate {
        space: Space,
        address: Address,
    },
    /// `expect_tx`, or `complete_tx`.
    Bytes {
        space: Space,
        address: Address,
        bytes: Slot,
        complete: bool,
    },
    Arrive(MbarrierArrive),
    Wait(MbarrierWait),
    PendingCount {
        d: Slot,
        state: Slot,
    },
    /// `cp.async.mbarrier.arrive`: arrives when earlier copies of the thread are complete. With
    /// `increment` the phase expects one arrival more.
    CopyArrive {
        space: Space,
        address: Address,
        increment: bool,
    },
}
