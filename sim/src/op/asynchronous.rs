//! Operations of clusters and of the asynchronous machinery.

use super::{Address, AtomicOp, AtomicType, PredicateSource, Slot, Space};

/// `cp.async`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpAsync {
    pub destination: Address,
    pub source: Address,
    pub bytes: u8,
    /// 32-bit register with the number of bytes read; the rest is zero-filled.
    pub source_bytes: Option<Slot>,
    /// Predicate: true means read nothing, zero-fill all.
    pub ignore_source: Option<PredicateSource>,
}

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

/// Base register plus a constant that fits 32 bits: operations with several addresses stay small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortAddress {
    pub base: Slot,
    /// The base is in the 64-bit file.
    pub wide: bool,
    pub offset: i32,
}

impl From<ShortAddress> for Address {
    fn from(short: ShortAddress) -> Address {
        Address { base: short.base, wide: short.wide, offset: i64::from(short.offset) }
    }
}

/// Operation and element type of a bulk reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reduction {
    pub op: AtomicOp,
    pub ty: AtomicType,
}

/// The side of a bulk copy in global memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GlobalSide {
    /// As many bytes as the 32-bit register says.
    Linear { address: ShortAddress, bytes: Slot },
    /// A tile: address of a tensor map and coordinates of the tile, innermost first.
    Tile { map: ShortAddress, coordinates: [Slot; 5], rank: u8 },
}

/// A copy into shared memory that completes on an mbarrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkLoad {
    /// `Shared` or `SharedCluster`.
    pub space: Space,
    pub destination: ShortAddress,
    pub source: GlobalSide,
    pub barrier: ShortAddress,
    /// 16-bit register with the ranks that get a copy.
    pub multicast: Option<Slot>,
}

/// A copy or reduction from shared to global memory that completes in a bulk group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkStore {
    pub destination: GlobalSide,
    pub source: ShortAddress,
    pub reduction: Option<Reduction>,
}

/// A copy or reduction into the shared memory of a block of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkExchange {
    pub destination: ShortAddress,
    pub source: ShortAddress,
    pub bytes: Slot,
    pub barrier: ShortAddress,
    pub reduction: Option<Reduction>,
}

/// `st.async` and `red.async`: registers into the shared memory of a block of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AsyncStore {
    pub destination: ShortAddress,
    pub barrier: ShortAddress,
    pub registers: [Slot; 4],
    /// Bytes of one element: 4 or 8.
    pub bytes: u8,
    pub count: u8,
    pub reduction: Option<Reduction>,
}

/// Fields of a tensor map that kernels may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapField {
    Address,
    Rank,
    Box,
    Dim,
    Stride,
    ElementStride,
    Type,
    Interleave,
    Swizzle,
    Fill,
}

impl MapField {
    /// The new value is in the 64-bit file.
    pub(crate) fn wide(self) -> bool {
        matches!(self, MapField::Address | MapField::Stride)
    }

    /// Number of entries of the field.
    pub(crate) fn entries(self) -> u32 {
        match self {
            MapField::Box | MapField::Dim | MapField::ElementStride => 5,
            MapField::Stride => 4,
            _ => 1,
        }
    }
}

/// A `tensormap.replace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplaceField {
    pub space: Space,
    pub map: ShortAddress,
    pub field: MapField,
    /// Dimension, for fields that have one value for each.
    pub ordinal: u8,
    pub value: Slot,
}

/// Bulk copies and their groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BulkOp {
    Load(BulkLoad),
    Store(BulkStore),
    Exchange(BulkExchange),
    AsyncStore(AsyncStore),
    /// Brings global memory into a cache: nothing but the tensor map is looked at.
    Prefetch(GlobalSide),
    /// `prefetch.tensormap`, `fence.proxy.tensormap` of one map.
    CheckMap {
        map: ShortAddress,
    },
    ReplaceField(ReplaceField),
    /// `tensormap.cp_fenceproxy`: copies a map from shared to global memory.
    PublishMap {
        destination: ShortAddress,
        source: ShortAddress,
    },
    Commit,
    /// Waits until at most `newest` groups of the thread are pending.
    Wait {
        newest: u32,
    },
}
