//! Operations of decoded instructions and the small types they are made of.

mod convert;
mod matrix;

pub(crate) use crate::op_async::*;
pub(crate) use convert::{
    Convert, ConvertPair, ConvertTf32, ConvertType, NarrowPair, PairSource, SmallFormat, WidenPair,
};
pub(crate) use matrix::{
    Element, Mma, MmaAccumulator, MmaF64, MmaScales, ScaleSource, Wgmma, WgmmaLeft,
};

/// Index of a register in its file.
pub(crate) type Slot = u16;

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
}

impl AtomicType {
    /// Bytes in memory.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            AtomicType::U16 | AtomicType::F16 | AtomicType::Bf16 => 2,
            AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => 8,
            _ => 4,
        }
    }

    /// The operands are in the 64-bit file.
    pub(crate) fn wide(self) -> bool {
        self.bytes() == 8
    }

    pub(crate) fn is_integer(self) -> bool {
        use AtomicType::{S32, S64, U16, U32, U64};
        matches!(self, U16 | U32 | S32 | U64 | S64)
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

    CpAsync {
        destination: Address,
        source: Address,
        bytes: u8,
        /// 32-bit register with the number of bytes read; the rest is zero-filled.
        source_bytes: Option<Slot>,
        /// Predicate: true means read nothing, zero-fill all.
        ignore_source: Option<PredicateSource>,
    },
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
