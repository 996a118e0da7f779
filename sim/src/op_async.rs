//! Operations of clusters and of the asynchronous machinery.

use crate::op::Slot;

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
