//! The decoded form of a kernel: one compact instruction array whose operands are slot numbers.
//!
//! Registers live in three files of 32 lanes each: 32-bit (also 8- and 16-bit registers, whose
//! upper bits have no meaning), 64-bit and predicate. Immediates, symbol addresses and special registers are
//! slots too, filled once per warp, so executors never look at an operand's kind.

use crate::counters::Class;
pub(crate) use crate::op::*;
use crate::ptx::ast::SourcePosition;

/// Program counter of "no such instruction": the virtual exit.
pub(crate) const NO_PC: u32 = u32::MAX;

/// An instruction with everything the interpreter needs around its operation.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub op: Op,
    pub guard: Option<PredicateSource>,
    pub class: Class,
    /// Reconvergence point of a branch: its immediate post-dominator, or [`NO_PC`].
    pub reconverge: u32,
    /// Only moves values: where one is undefined, the first use of the result is the one to report.
    pub propagates_undefined: bool,
    /// Uses registers that some `wgmma` uses too.
    pub touches_wgmma: bool,
    pub tracking: Tracking,
    /// Goes on with the next instruction in any case, and never waits.
    pub straight: bool,
    /// Range of [`Program::operands`]: first the registers read, then those written.
    pub operands_start: u32,
    pub reads: u8,
    pub writes: u8,
    pub line: u32,
    pub source: Option<SourcePosition>,
}

/// What of an instruction's registers has to be watched for being undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// Nothing: all sources are defined on every path, and nobody asks about the results.
    None,
    /// The results become defined; the sources are.
    Results,
    /// Sources and results.
    Full,
}

/// Special registers that are constant while a block runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    WarpCount,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    SmId,
    SmCount,
    GridId,
    DynamicSharedBytes,
    TotalSharedBytes,
    ClusterId(u8),
    ClusterCount(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtaRank,
    ClusterCtaCount,
}

/// A module variable in global or constant memory.
#[derive(Debug, Clone)]
pub(crate) struct StaticData {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// A decoded kernel.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub name: String,
    pub code: Vec<Instruction>,
    /// Program counters of each `.branchtargets`.
    pub tables: Vec<Vec<u32>>,
    /// Definedness indices of the registers that instructions read and write.
    pub operands: Vec<u32>,
    pub count32: usize,
    pub count64: usize,
    pub count_predicates: usize,
    pub constants32: Vec<(Slot, u32)>,
    pub constants64: Vec<(Slot, u64)>,
    pub constant_predicates: Vec<(Slot, bool)>,
    pub specials: Vec<(Slot, Special)>,
    /// Bytes of each parameter: offset, size.
    pub parameters: Vec<(u32, u32)>,
    pub parameter_bytes: u32,
    pub static_shared_bytes: u32,
    pub dynamic_shared_offset: u32,
    pub local_bytes: u32,
    pub constant_bank: Vec<u8>,
    pub globals: Vec<StaticData>,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    /// `.maxnreg` and `.minnctapersm`.
    pub max_registers: Option<u32>,
    pub min_blocks: Option<u32>,
    /// Blocks per cluster that the kernel requires.
    pub required_cluster: Option<[u32; 3]>,
    pub max_cluster_rank: Option<u32>,
    /// The kernel has to be launched with clusters.
    pub explicit_cluster: bool,
    /// Source files named by `.file`.
    pub files: Vec<(u32, String)>,
}

impl Program {
    /// Registers that an instruction reads and writes, as definedness indices.
    #[inline(always)]
    pub(crate) fn uses(&self, instruction: &Instruction) -> (&[u32], &[u32]) {
        let start = instruction.operands_start as usize;
        let written = start + usize::from(instruction.reads);
        let end = written + usize::from(instruction.writes);
        (&self.operands[start..written], &self.operands[written..end])
    }

    /// Definedness index of a 64-bit register.
    pub(crate) fn index64(&self, slot: Slot) -> usize {
        self.count32 + slot as usize
    }

    /// Definedness index of a predicate.
    pub(crate) fn index_predicate(&self, slot: Slot) -> usize {
        self.count32 + self.count64 + slot as usize
    }
}
