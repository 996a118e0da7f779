//! Addresses, loads, stores and atomics.

use super::Slot;

/// Where an access goes. `Generic` addresses carry the space in their high bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    /// Shared memory of any block of the cluster.
    SharedCluster,
    Local,
    Param,
    Const,
    Generic,
}

/// Base register plus constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub base: Slot,
    /// The base is in the 64-bit file.
    pub wide: bool,
    pub offset: i64,
}

/// Threads for which a strong access is atomic and among which a fence orders (PTX ISA 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Block,
    Cluster,
    /// `.gpu`, and `.sys`, which is the same where there is only one device.
    Device,
}

/// How an access takes part in the memory model (PTX ISA 8.2, 8.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryOrder {
    /// Scope of a strong access; `None` makes it weak.
    pub scope: Option<Scope>,
    pub acquire: bool,
    pub release: bool,
}

/// What a load or store moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub space: Space,
    pub address: Address,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Elements: 1, 2, 4 or 8.
    pub count: u8,
    /// Sign-extend elements into a wider register.
    pub signed: bool,
    /// The data registers are in the 64-bit file.
    pub wide: bool,
    pub order: MemoryOrder,
    pub registers: [Slot; 8],
}

/// Read-modify-write operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

/// Element type of an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicType {
    U16,
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    /// Two 64-bit registers; `.exch` and `.cas` only.
    B128,
}

impl AtomicType {
    /// Bytes in memory.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            AtomicType::U16 | AtomicType::F16 | AtomicType::Bf16 => 2,
            AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => 8,
            AtomicType::B128 => 16,
            _ => 4,
        }
    }

    /// The operands are in the 64-bit file.
    pub(crate) fn wide(self) -> bool {
        self.bytes() >= 8
    }

    pub(crate) fn is_integer(self) -> bool {
        use AtomicType::{B128, S32, S64, U16, U32, U64};
        matches!(self, U16 | U32 | S32 | U64 | S64 | B128)
    }
}

/// An `atom` or `red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Atomic {
    pub op: AtomicOp,
    pub ty: AtomicType,
    pub space: Space,
    /// Never weak.
    pub order: MemoryOrder,
    pub address: Address,
    /// Registers for the old elements; `None` for `red`.
    pub old: Option<[Slot; 8]>,
    /// One operand per element (the comparand for `Cas`).
    pub operands: [Slot; 8],
    /// Replacement of `Cas`.
    pub swap: Slot,
    /// Elements: 1, or 2, 4 and 8 for vectors.
    pub count: u8,
}
