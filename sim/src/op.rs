//! Operations of decoded instructions and the small types they are made of.

mod asynchronous;
mod compare;
mod convert;
mod float;
mod integer;
mod matrix;
mod memory;
mod warp;

pub(crate) use asynchronous::*;
pub(crate) use compare::{BoolOp, Compare, CompareType, PredicateSource};
pub(crate) use convert::{
    Convert, ConvertPair, ConvertTf32, ConvertType, NarrowPair, PairSource, SmallFormat, WidenPair,
};
pub(crate) use float::{
    Extreme, Float1, Float2, FloatFlags, FloatProperty, FloatType, MixedFloat, MixedOp, Rounding,
};
pub(crate) use integer::{Extended, ExtendedOp, Int1, Int2, IntType, PackedInt, PackedOp};
pub(crate) use matrix::{
    Element, Mma, MmaAccumulator, MmaF64, MmaScales, ScaleSource, Wgmma, WgmmaLeft,
};
pub(crate) use memory::{Access, Address, Atomic, AtomicOp, AtomicType, MemoryOrder, Scope, Space};
pub(crate) use warp::{BarrierKind, BarrierUse, Clock, ReduxOp, ShuffleMode, VoteMode};

/// Index of a register in its file.
pub(crate) type Slot = u16;
/// One operation. Unless said otherwise slots are in the file that the type implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Int2 {
        op: Int2,
        ty: IntType,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Int1 {
        op: Int1,
        ty: IntType,
        d: Slot,
        a: Slot,
    },
    /// Result twice as wide as the factors; `c` is added when present.
    MulWide {
        ty: IntType,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Option<Slot>,
    },
    Mad {
        hi: bool,
        ty: IntType,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// Two 16-bit integers per register.
    Int16x2 {
        op: Int2,
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    /// |a - b| + c.
    Sad {
        ty: IntType,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Bfe {
        ty: IntType,
        d: Slot,
        a: Slot,
        pos: Slot,
        len: Slot,
    },
    Bfi {
        wide: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        pos: Slot,
        len: Slot,
    },
    /// `bmsk`: `b` ones from bit `a` on.
    BitMask {
        wrap: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    /// `szext`: the low `b` bits of `a`, extended.
    Extend {
        wrap: bool,
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    /// `fns`: the n-th set bit from a position.
    FindNthSet {
        d: Slot,
        a: Slot,
        base: Slot,
        n: Slot,
    },
    Prmt {
        mode: u8,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Lop3 {
        table: u8,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    FunnelShift {
        left: bool,
        wrap: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// Two 16-bit by 8-bit products; `high` takes the upper two bytes of `b`.
    Dp2a {
        high: bool,
        a_signed: bool,
        b_signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// 24-bit integers: the low or the high 32 bits of the product, plus `c` where there is one.
    Mul24 {
        hi: bool,
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Option<Slot>,
    },
    Packed(PackedInt),
    Dp4a {
        a_signed: bool,
        b_signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },

    Setp {
        compare: Compare,
        ty: CompareType,
        p: Slot,
        q: Option<Slot>,
        a: Slot,
        b: Slot,
        combine: Option<(BoolOp, PredicateSource)>,
    },
    /// `testp`.
    TestFloat {
        property: FloatProperty,
        wide: bool,
        p: Slot,
        a: Slot,
    },
    /// `set` with a 32-bit result: all ones / zero, or 1.0f / 0.0f.
    Set {
        compare: Compare,
        ty: CompareType,
        float_result: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Selp {
        wide: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        p: PredicateSource,
    },
    /// d = c >= 0 ? a : b, c a 32-bit integer or float.
    Slct {
        wide: bool,
        float: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    PredicateLogic {
        op: BoolOp,
        d: Slot,
        a: PredicateSource,
        b: PredicateSource,
    },
    PredicateMove {
        d: Slot,
        a: PredicateSource,
    },

    Move {
        wide: bool,
        d: Slot,
        a: Slot,
    },
    /// 128 bits as two 64-bit registers.
    MovePair {
        d: [Slot; 2],
        a: [Slot; 2],
    },
    /// Concatenate `count` parts of `part_bytes`, lowest first, into one register.
    Pack {
        wide: bool,
        count: u8,
        part_bytes: u8,
        d: Slot,
        parts: [Slot; 4],
    },
    /// The inverse of `Pack`.
    Unpack {
        wide: bool,
        count: u8,
        part_bytes: u8,
        a: Slot,
        parts: [Slot; 4],
    },
    ReadClock {
        clock: Clock,
        d: Slot,
    },

    Convert(Convert),
    ConvertPair(ConvertPair),
    ConvertTf32(ConvertTf32),
    NarrowPair(NarrowPair),
    WidenPair(WidenPair),
    /// Adds (to generic) or removes the window of a space.
    CastAddress {
        space: Space,
        to_generic: bool,
        d: Slot,
        a: Slot,
    },
    /// Predicate: does the generic address lie in the space?
    IsSpace {
        space: Space,
        p: Slot,
        a: Slot,
    },

    Float2 {
        op: Float2,
        ty: FloatType,
        flags: FloatFlags,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Float1 {
        op: Float1,
        ty: FloatType,
        flags: FloatFlags,
        d: Slot,
        a: Slot,
    },
    Extreme(Extreme),
    MixedFloat(MixedFloat),
    Extended(Extended),
    Fma {
        ty: FloatType,
        flags: FloatFlags,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },

    Load(Access),
    Store(Access),
    Atomic(Atomic),
    Fence {
        scope: Scope,
    },
    /// `fence.proxy.async`.
    ProxyFence,
    Cluster(ClusterOp),
    /// `fence.mbarrier_init`.
    MbarrierInitFence,
    Mbarrier(MbarrierOp),
    Bulk(BulkOp),

    Shuffle {
        mode: ShuffleMode,
        d: Slot,
        p: Option<Slot>,
        a: Slot,
        b: Slot,
        c: Slot,
        members: Slot,
    },
    /// `Ballot` writes a 32-bit register, the others a predicate.
    Vote {
        mode: VoteMode,
        d: Slot,
        p: PredicateSource,
        members: Slot,
    },
    Match {
        all: bool,
        wide: bool,
        d: Slot,
        p: Option<Slot>,
        a: Slot,
        members: Slot,
    },
    Redux {
        op: ReduxOp,
        signed: bool,
        d: Slot,
        a: Slot,
        members: Slot,
    },
    /// `redux.sync` on f32: minimum or maximum.
    ReduxFloat {
        max: bool,
        magnitudes: bool,
        nan: bool,
        d: Slot,
        a: Slot,
        members: Slot,
    },
    ActiveMask {
        d: Slot,
    },
    Elect {
        d: Slot,
        p: Slot,
        members: Slot,
    },

    CpAsync(CpAsync),
    CpAsyncCommit,
    /// Waits until at most `newest` groups of the thread are pending.
    CpAsyncWait {
        newest: u32,
    },
    CpAsyncWaitAll,
    Ldmatrix {
        count: u8,
        transposed: bool,
        address: Address,
        registers: [Slot; 4],
    },
    Stmatrix {
        count: u8,
        transposed: bool,
        address: Address,
        registers: [Slot; 4],
    },
    Movmatrix {
        d: Slot,
        a: Slot,
    },
    Mma(Mma),
    MmaF64(MmaF64),
    Wgmma(Wgmma),
    /// `wgmma.fence`.
    WgmmaFence,
    WgmmaCommit,
    /// Waits until at most `newest` batches of the warp are pending.
    WgmmaWait {
        newest: u32,
    },
    /// `setmaxnreg`, registers per thread.
    SetMaxRegisters {
        increase: bool,
        count: u16,
    },

    Branch {
        target: u32,
        uniform: bool,
    },
    /// `brx.idx`: to one of the targets of [`crate::program::Program::tables`].
    BranchIndexed {
        index: Slot,
        table: u32,
        uniform: bool,
    },
    Exit,
    Trap,
    Barrier(BarrierUse),
    WarpBarrier {
        members: Slot,
    },
    Nanosleep,
    /// No effect on results: prefetches, cache policies, programmatic dependent launch.
    Nothing,
}
