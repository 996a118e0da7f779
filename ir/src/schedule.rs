//! A schedule: every decision about how a problem is computed, on one line that parses back.
//!
//! Same problem, same schedule, same arch: same CUDA text, byte for byte. The dequantization term
//! is part of the schedule because codegen sees nothing else of the algebra.

mod dequant;
mod dimensions;
mod overlap;
mod sorting;
mod split;
mod text;
mod wgmma;

pub use dequant::{DenseGemm, DequantSchedule};
pub use overlap::Overlap;
pub use sorting::{Mover, Sorting};
pub use split::{Shares, Split};
pub use wgmma::{Producer, WgmmaSchedule, GROUP_ROWS, PRODUCER_REGISTERS};

use crate::dequant::{packed_param_bytes, runs_on, Context, CostParams, Engine, PairTable};
use crate::{Arch, Problem, WeightSpec, PIECE_CODES};

/// Kernel families: lowerings of schedules.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Packed or scalar FMA on CUDA cores, a few tokens.
    Gemv,
    /// `mma.sync.m16n8k16` with the weights on the 16-row side.
    Mma,
    /// `wgmma.m64nNk16` with dequantized weights as the register operand, fed by a producer warp.
    Wgmma,
    /// Weights are dequantized slab by slab through L2, then multiplied as 16-bit floats.
    Dequant,
}

impl Family {
    /// Every family, from the fewest tokens to the most.
    pub const ALL: [Family; 4] = [Family::Gemv, Family::Mma, Family::Wgmma, Family::Dequant];

    /// The word that schedules of the family begin with.
    pub fn name(self) -> &'static str {
        match self {
            Family::Gemv => "gemv",
            Family::Mma => "mma",
            Family::Wgmma => "wgmma",
            Family::Dequant => "dequant",
        }
    }
}

/// Where partial dot products of a `gemv` lane are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulate {
    /// Half2 FMAs over one 16-byte load (16 products per half), then added in f32.
    Half2,
    /// f32 FMAs throughout.
    F32,
}

/// How weights are loaded from global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightCache {
    /// Default caching.
    Normal,
    /// `L1::no_allocate`: streamed once, never reread.
    NoAllocate,
}

/// The order in which thread blocks walk the output tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Raster {
    /// Consecutive blocks take consecutive row tiles; token tiles outermost.
    Rows,
    /// Consecutive blocks take consecutive token tiles of one row tile, so that the weights that
    /// they share are in L2 when the next one asks.
    Tokens,
}

impl Raster {
    const NAMES: [(&'static str, Raster); 2] = [("rows", Raster::Rows), ("tokens", Raster::Tokens)];

    fn name(self) -> &'static str {
        match self {
            Raster::Rows => "rows",
            Raster::Tokens => "tokens",
        }
    }
}

/// k extent of one lane's piece.
const LANE_K: u32 = PIECE_CODES;
/// Most tokens of an `mma` block that converts its weights: registers for accumulators end there.
const MOST_TOKENS: u32 = 64;
/// The same where weights are floats: blocks must share more, as a float is four codes of traffic.
const MOST_TOKENS_DENSE: u32 = 128;
/// k extent of one 16-row fragment chunk: four `k16` steps fill a lane's piece.
const CHUNK_K: u32 = 64;

/// Least k that `mma` accumulates before group parameters apply to sums: one load of activations.
const SEGMENT_K: u32 = 32;

/// A `gemv` schedule. A warp covers `rows * 32/lanes` rows by `32*lanes` of k per step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GemvSchedule {
    /// Tokens that one thread block computes (1, 2 or 4).
    pub tokens: u32,
    /// Output rows per lane and step (register blocking).
    pub rows: u32,
    /// Lanes that share one output row, a power of two from 1 to 32.
    pub lanes: u32,
    /// Warps of a block along N.
    pub warps_n: u32,
    /// Warps of a block along K, reduced through shared memory.
    pub warps_k: u32,
    /// Steps whose weights are loaded before the first one is used.
    pub unroll: u32,
    /// How thread blocks share the k of output tiles; never stream-K.
    pub split: Split,
    /// Whether activations are staged in shared memory (else read from global memory each step).
    pub stage_x: bool,
    /// Where partial dot products are kept.
    pub accumulate: Accumulate,
    /// Caching of weight loads.
    pub cache: WeightCache,
    /// How the kernel meets those before and after it.
    pub overlap: Overlap,
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
}

/// An `mma` schedule. A block covers `block_n` rows by `block_m` tokens, `block_k` of k per stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MmaSchedule {
    /// Tokens per block: a multiple of 8.
    pub block_m: u32,
    /// Output rows per block: a multiple of `16 * warps_n`.
    pub block_n: u32,
    /// k per stage: a multiple of `64 * warps_k`.
    pub block_k: u32,
    /// Warps along N.
    pub warps_n: u32,
    /// Warps along K within the block, reduced through shared memory at the end.
    pub warps_k: u32,
    /// Stages of the `cp.async` ring; 1 means load, wait, compute.
    pub stages: u32,
    /// How thread blocks share the k of output tiles.
    pub split: Split,
    /// XOR swizzle of the activation tile in shared memory.
    pub swizzle: bool,
    /// Order of thread blocks.
    pub raster: Raster,
    /// How the kernel meets those before and after it.
    pub overlap: Overlap,
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
}

/// Every decision about how a problem is computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// See [`GemvSchedule`].
    Gemv(GemvSchedule),
    /// See [`MmaSchedule`].
    Mma(MmaSchedule),
    /// See [`WgmmaSchedule`].
    Wgmma(WgmmaSchedule),
    /// See [`DequantSchedule`].
    Dequant(DequantSchedule),
}

/// A schedule that cannot be used for a problem on an arch. Data, not a failure: the search
/// reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// One line, with the numbers that decide.
    pub reason: String,
}

/// Text that is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a schedule: {why} in `{text}`")]
pub struct ScheduleError {
    why: String,
    text: String,
}

/// Quant groups in a k tile of a row of length `k`; a group that spans the row is one, however far
/// the row is padded.
fn groups_in(tile_k: u32, spec: &WeightSpec, k: u32) -> u32 {
    match spec.group.size(k) {
        group if group >= k => 1,
        group => (tile_k / group).max(1),
    }
}

fn require(condition: bool, reason: impl FnOnce() -> String) -> Result<(), Rejected> {
    if condition {
        Ok(())
    } else {
        Err(Rejected { reason: reason() })
    }
}

/// Whether the group parameters of a term apply inside of its sum, which then runs across groups.
/// A schedule whose term is still to be chosen may get such a one.
fn scales_inside(term: &str) -> bool {
    term.is_empty() || runs_on(term)
}

impl GemvSchedule {
    /// Quant groups of the weights that a lane loads at once.
    pub fn groups_per_lane(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(LANE_K, spec, k)
    }

    /// k covered by one warp step.
    pub fn step_k(&self) -> u32 {
        LANE_K * self.lanes
    }

    /// Quant groups that one step touches, as far as they are stored apart.
    pub fn groups_per_step(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.step_k(), spec, k)
    }

    /// Output rows of one warp.
    pub fn warp_rows(&self) -> u32 {
        self.rows * 32 / self.lanes
    }

    /// Output rows of one block.
    pub fn block_n(&self) -> u32 {
        self.warp_rows() * self.warps_n
    }

    /// Threads of one block.
    pub fn threads(&self) -> u32 {
        32 * self.warps_n * self.warps_k
    }

    /// k rounded up to whole steps: the extent of the packed weights.
    pub fn padded_k(&self, k: u32) -> u32 {
        k.next_multiple_of(self.step_k())
    }

    /// Steps along k that one block of a split walks, at most.
    pub fn steps_per_split(&self, k: u32) -> u32 {
        (self.padded_k(k) / self.step_k()).div_ceil(self.split.per_tile())
    }

    /// Chunks of eight activations between the four interleaved parts of the staged activations:
    /// padded so that the parts start two 16-byte bank groups apart.
    pub fn staged_pitch(&self, k: u32) -> u32 {
        let chunks = self.steps_per_split(k) * self.lanes;
        chunks.next_multiple_of(8) + 2
    }

    /// Bytes of staged activations.
    pub fn staged_bytes(&self, problem: &Problem) -> u32 {
        if self.stage_x {
            self.tokens * self.staged_pitch(problem.k) * 4 * 8 * problem.act.bytes()
        } else {
            0
        }
    }

    /// Bytes of staged activations and the warps' partial sums.
    fn working_bytes(&self, problem: &Problem) -> u32 {
        self.staged_bytes(problem) + self.warps_k * self.tokens * self.block_n() * 4
    }

    /// Bytes of dynamic shared memory: [`Self::working_bytes`] and the term's table.
    pub fn shared_bytes(&self, problem: &Problem) -> u32 {
        with_table(self.working_bytes(problem), &self.dequant)
    }

    fn check(&self, p: &Problem, spec: &WeightSpec, arch: &Arch) -> Result<(), Rejected> {
        check_width("gemv", spec)?;
        let group = spec.group.size(p.k);
        require(group % LANE_K == 0 || group == p.k || group * 2 == LANE_K, || {
            format!("quant group {group} is no multiple or half of a lane's {LANE_K} weights")
        })?;
        require(group == p.k || group % self.step_k() == 0 || self.step_k() % group == 0, || {
            format!("quant group {group} and step {} do not divide each other", self.step_k())
        })?;
        require(p.k % 8 == 0, || format!("K = {} is not a multiple of 8 activations", p.k))?;
        require(self.lanes.is_power_of_two() && self.lanes <= 32, || {
            format!("{} lanes per row is not a power of two up to 32", self.lanes)
        })?;
        require((1..=4).contains(&self.tokens), || format!("{} tokens is not 1..=4", self.tokens))?;
        let steps = self.padded_k(p.k) / self.step_k();
        let splits = self.split.per_tile();
        require(self.warps_k * splits <= steps, || {
            format!("{} warps along K for {steps} steps", self.warps_k * splits)
        })?;
        require(self.accumulate == Accumulate::F32 || p.act == crate::DType::F16, || {
            format!("half2 accumulation needs f16 activations, not {}", p.act)
        })?;
        require(splits <= 16, || format!("{splits} splits of K, more than 16"))?;
        require(self.split.stream().is_none(), || {
            "gemv keeps one tile's sums: no stream-K".into()
        })?;
        self.split.check(1, steps, arch)?;
        check_block(self.threads(), self.shared_bytes(p), arch)
    }
}

impl MmaSchedule {
    /// Threads of one block.
    pub fn threads(&self) -> u32 {
        32 * self.warps_n * self.warps_k
    }

    /// 16-row tiles per warp.
    pub fn row_tiles(&self) -> u32 {
        self.block_n / (16 * self.warps_n)
    }

    /// 8-token tiles per warp.
    pub fn token_tiles(&self) -> u32 {
        self.block_m / 8
    }

    /// k that one warp covers per stage.
    pub fn warp_k(&self) -> u32 {
        self.block_k / self.warps_k
    }

    /// k rounded up to whole stages: the extent of the packed weights.
    pub fn padded_k(&self, k: u32) -> u32 {
        k.next_multiple_of(self.block_k)
    }

    /// Quant groups that a stage touches, as far as they are stored apart.
    pub fn groups_per_stage(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.block_k, spec, k)
    }

    /// k over which a warp accumulates before the group parameters apply.
    pub fn segment_k(&self, spec: &WeightSpec, k: u32) -> u32 {
        match spec.group.size(k) {
            group if group >= k => self.warp_k(),
            group => group.max(SEGMENT_K).min(self.warp_k()),
        }
    }

    /// Quant groups of such a segment.
    pub fn groups_per_segment(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.segment_k(spec, k), spec, k)
    }

    /// Bytes of weights per stage.
    pub fn stage_weight_bytes(&self, spec: &WeightSpec) -> u32 {
        self.block_n * self.block_k * spec.bits as u32 / 8
    }

    /// Bytes of activations per stage.
    pub fn stage_act_bytes(&self) -> u32 {
        self.block_m * self.block_k * 2
    }

    /// Bytes of group parameters per stage.
    pub fn stage_param_bytes(&self, spec: &WeightSpec, k: u32) -> u32 {
        self.block_n * packed_param_bytes(&self.dequant, spec) * self.groups_per_stage(spec, k)
    }

    /// Bytes of the ring.
    fn ring_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let stage = self.stage_weight_bytes(spec)
            + self.stage_act_bytes()
            + self.stage_param_bytes(spec, problem.k);
        self.stages * stage
    }

    /// Where the reduction buffer lies in dynamic shared memory: in the place of the ring, which is
    /// drained by then, or behind it where the next tile's stages arrive meanwhile.
    pub fn reduction_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        match self.split {
            Split::Blocks(_) | Split::Cluster(_) => 0,
            Split::Stream(_) => self.ring_bytes(problem, spec).next_multiple_of(16),
        }
    }

    /// Bytes of the ring and of the reduction buffer.
    fn working_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let reduction = self.warps_k * self.block_m * self.reduction_pitch() * 4;
        let end = self.reduction_offset(problem, spec) + reduction;
        self.ring_bytes(problem, spec).max(end)
    }

    /// Bytes of dynamic shared memory: [`Self::working_bytes`] and the term's table.
    pub fn shared_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        with_table(self.working_bytes(problem, spec), &self.dequant)
    }

    /// f32 elements between tokens in the reduction buffer: 4 more than the rows, so that the
    /// eight rows by four tokens that a warp writes at once fall into 32 banks.
    pub fn reduction_pitch(&self) -> u32 {
        self.block_n + 4
    }

    fn check(&self, p: &Problem, spec: &WeightSpec, arch: &Arch) -> Result<(), Rejected> {
        check_width("mma", spec)?;
        let pairs = self.block_m == 8 || self.block_m % 16 == 0;
        let most = if spec.is_dense() { MOST_TOKENS_DENSE } else { MOST_TOKENS };
        require(pairs && (8..=most).contains(&self.block_m), || {
            let tokens = self.block_m;
            format!("{tokens} tokens per block is neither 8 nor a multiple of 16 up to {most}")
        })?;
        require(self.block_n > 0 && self.block_n % (16 * self.warps_n) == 0, || {
            format!("{} rows over {} warps of 16-row tiles", self.block_n, self.warps_n)
        })?;
        require(self.block_k > 0 && self.block_k % (CHUNK_K * self.warps_k) == 0, || {
            format!("k tile {} over {} warps of {CHUNK_K}", self.block_k, self.warps_k)
        })?;
        let group = spec.group.size(p.k);
        let nested = |tile: u32| group == p.k || group % tile == 0 || tile % group == 0;
        require(nested(self.block_k) && nested(self.warp_k()), || {
            format!("quant group {group} and k tiles {}/{}", self.block_k, self.warp_k())
        })?;
        let split = group * 2 == SEGMENT_K && scales_inside(&self.dequant);
        require(group % SEGMENT_K == 0 || group == p.k || split, || {
            format!("quant group {group} is not k{SEGMENT_K}, nor half of it with scaled weights")
        })?;
        require(p.k % 8 == 0, || format!("K = {} is not a multiple of 8 activations", p.k))?;
        require((1..=8).contains(&self.stages), || format!("{} stages", self.stages))?;
        let tiles = u64::from(p.n.div_ceil(self.block_n)) * u64::from(p.m.div_ceil(self.block_m));
        self.split.check(tiles, self.padded_k(p.k) / self.block_k, arch)?;
        let accumulators = self.row_tiles() * self.token_tiles() * 4;
        require(accumulators <= 128, || format!("{accumulators} accumulators per lane"))?;
        check_block(self.threads(), self.shared_bytes(p, spec), arch)
    }
}

/// Where a table starts that follows `bytes` of shared memory: it is filled 16 bytes at a time.
fn table_offset(bytes: u32) -> u32 {
    bytes.next_multiple_of(16)
}

/// Bytes of shared memory with the table of a term behind them.
fn with_table(bytes: u32, dequant: &str) -> u32 {
    PairTable::of_term(dequant).map_or(bytes, |table| table_offset(bytes) + table.bytes())
}

/// Whether kernels have a packing for the format's codes.
fn check_width(family: &str, spec: &WeightSpec) -> Result<(), Rejected> {
    require(spec.packing().is_some(), || format!("{family} reads no {}-bit codes", spec.bits))
}

fn check_block(threads: u32, shared: u32, arch: &Arch) -> Result<(), Rejected> {
    require((32..=1024).contains(&threads), || format!("{threads} threads per block"))?;
    let limit = arch.sm.shared_per_block;
    require(shared <= limit, || format!("{shared} bytes of shared memory of {limit}"))
}

impl Schedule {
    /// The kernel family that lowers this schedule.
    pub fn family(&self) -> Family {
        match self {
            Schedule::Gemv(_) => Family::Gemv,
            Schedule::Mma(_) => Family::Mma,
            Schedule::Wgmma(_) => Family::Wgmma,
            Schedule::Dequant(_) => Family::Dequant,
        }
    }

    /// Whether this schedule is legal for the problem on the arch, by its numbers alone.
    ///
    /// # Errors
    /// [`Rejected`] with the reason; nothing has been compiled yet.
    pub fn check(&self, p: &Problem, spec: &WeightSpec, arch: &Arch) -> Result<(), Rejected> {
        match self {
            Schedule::Gemv(s) => s.check(p, spec, arch),
            Schedule::Mma(s) => s.check(p, spec, arch),
            Schedule::Wgmma(s) => s.check(p, spec, arch),
            Schedule::Dequant(s) => s.check(p, spec, arch),
        }?;
        self.overlap().check(arch)?;
        sorting::check(p, spec)?;
        let rows = self.tile().0;
        require(rows % p.epilogue.rows_per_column() == 0, || {
            format!("{rows} rows per block; gate and up lie in pairs of rows")
        })
    }

    /// The arithmetic that consumes the weights.
    pub fn engine(&self) -> Engine {
        match self {
            Schedule::Mma(_) | Schedule::Wgmma(_) | Schedule::Dequant(_) => Engine::Mma,
            Schedule::Gemv(s) => match s.accumulate {
                Accumulate::Half2 => Engine::Half2,
                Accumulate::F32 => Engine::F32,
            },
        }
    }

    /// What surrounds this schedule's dequantization term.
    pub fn context(&self, problem: &Problem, spec: &WeightSpec) -> Context {
        Context { act: problem.act, engine: self.engine(), spec: spec.clone() }
    }

    /// What decides the cost of a dequantization term under this schedule.
    pub fn cost_params(&self, problem: &Problem, spec: &WeightSpec) -> CostParams {
        let group = spec.group.size(problem.k);
        match self {
            Schedule::Gemv(s) => {
                CostParams { group, segment: LANE_K, tokens: s.tokens, row_tiles: s.rows }
            }
            Schedule::Mma(s) => CostParams {
                group,
                segment: s.segment_k(spec, problem.k),
                tokens: s.block_m,
                row_tiles: s.row_tiles(),
            },
            Schedule::Wgmma(s) => CostParams {
                group,
                segment: s.segment_k(spec, problem.k),
                tokens: s.block_m,
                row_tiles: s.row_tiles(),
            },
            Schedule::Dequant(_) => CostParams {
                group,
                segment: group.min(CHUNK_K),
                tokens: dequant::TERM_TOKENS,
                row_tiles: 1,
            },
        }
    }

    /// The dequantization term.
    pub fn dequant(&self) -> &str {
        match self {
            Schedule::Gemv(s) => &s.dequant,
            Schedule::Mma(s) => &s.dequant,
            Schedule::Wgmma(s) => &s.dequant,
            Schedule::Dequant(s) => s.gemm.dequant(),
        }
    }

    /// The same schedule with another dequantization term.
    pub fn with_dequant(&self, term: &str) -> Schedule {
        let mut new = self.clone();
        match &mut new {
            Schedule::Gemv(s) => s.dequant = term.into(),
            Schedule::Mma(s) => s.dequant = term.into(),
            Schedule::Wgmma(s) => s.dequant = term.into(),
            Schedule::Dequant(s) => s.gemm = s.gemm.with_dequant(term),
        }
        new
    }

    /// How the kernel meets those before and after it.
    pub fn overlap(&self) -> Overlap {
        match self {
            Schedule::Gemv(s) => s.overlap,
            Schedule::Mma(s) => s.overlap,
            Schedule::Wgmma(s) => s.overlap,
            Schedule::Dequant(s) => s.gemm.schedule().overlap(),
        }
    }

    /// The same schedule with other launch options. A `dequant` schedule has none: each of its
    /// launches reads what the one before it wrote.
    pub fn with_overlap(&self, overlap: Overlap) -> Schedule {
        let mut new = self.clone();
        match &mut new {
            Schedule::Gemv(s) => s.overlap = overlap,
            Schedule::Mma(s) => s.overlap = overlap,
            Schedule::Wgmma(s) => s.overlap = overlap,
            Schedule::Dequant(_) => {}
        }
        new
    }

    /// Threads per block.
    pub fn threads(&self) -> u32 {
        match self {
            Schedule::Gemv(s) => s.threads(),
            Schedule::Mma(s) => s.threads(),
            Schedule::Wgmma(s) => s.threads(),
            Schedule::Dequant(s) => s.gemm.schedule().threads(),
        }
    }

    /// Rows and tokens of one block's output tile: `(block_n, block_m)`.
    pub fn tile(&self) -> (u32, u32) {
        match self {
            Schedule::Gemv(s) => (s.block_n(), s.tokens),
            Schedule::Mma(s) => (s.block_n, s.block_m),
            Schedule::Wgmma(s) => (s.block_n, s.block_m),
            Schedule::Dequant(s) => s.gemm.schedule().tile(),
        }
    }

    /// How thread blocks share the k of output tiles.
    pub fn split(&self) -> Split {
        match self {
            Schedule::Gemv(s) => s.split,
            Schedule::Mma(s) => s.split,
            Schedule::Wgmma(s) => Split::Blocks(s.split_k),
            Schedule::Dequant(s) => s.gemm.schedule().split(),
        }
    }

    /// Output tiles of a launch with `tokens` tokens.
    pub fn output_tiles(&self, problem: &Problem, tokens: u32) -> u64 {
        let (tile_n, tile_m) = self.tile();
        u64::from(problem.n.div_ceil(tile_n)) * u64::from(tokens.div_ceil(tile_m))
    }

    /// Steps along K of one output tile: a stage's or a warp's k each.
    pub fn steps(&self, k: u32) -> u32 {
        let step = match self {
            Schedule::Gemv(s) => s.step_k(),
            Schedule::Mma(s) => s.block_k,
            Schedule::Wgmma(s) => s.block_k,
            Schedule::Dequant(s) => s.block_k(),
        };
        self.padded_k(k) / step
    }

    /// The shares of a stream-K grid in a launch with `tokens` tokens; `None` where every block has
    /// one tile.
    pub fn shares(&self, problem: &Problem, tokens: u32) -> Option<Shares> {
        let blocks = self.split().stream()?;
        Some(Shares::new(blocks, self.output_tiles(problem, tokens), self.steps(problem.k)))
    }

    /// k rounded up to whole steps or stages: the extent of the packed weights.
    pub fn padded_k(&self, k: u32) -> u32 {
        match self {
            Schedule::Gemv(s) => s.padded_k(k),
            Schedule::Mma(s) => s.padded_k(k),
            Schedule::Wgmma(s) => s.padded_k(k),
            Schedule::Dequant(s) => s.gemm.schedule().padded_k(k),
        }
    }

    /// The order of thread blocks.
    pub fn raster(&self) -> Raster {
        match self {
            Schedule::Gemv(_) => Raster::Rows,
            Schedule::Mma(s) => s.raster,
            Schedule::Wgmma(s) => s.raster,
            Schedule::Dequant(s) => s.gemm.schedule().raster(),
        }
    }

    /// The byte of dynamic shared memory at which the table of the term starts, if it has one.
    pub fn table_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        table_offset(match self {
            Schedule::Gemv(s) => s.working_bytes(problem),
            Schedule::Mma(s) => s.working_bytes(problem, spec),
            Schedule::Wgmma(s) => s.working_bytes(problem, spec),
            // The table is in another kernel than the ring: the one that dequantizes.
            Schedule::Dequant(_) => 0,
        })
    }

    /// Bytes of dynamic shared memory.
    pub fn shared_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        match self {
            Schedule::Gemv(s) => s.shared_bytes(problem),
            Schedule::Mma(s) => s.shared_bytes(problem, spec),
            Schedule::Wgmma(s) => s.shared_bytes(problem, spec),
            Schedule::Dequant(s) => s.shared_bytes(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEMV: &str = "gemv tokens=1 rows=2 lanes=32 warps=4x2 unroll=2 split=1 x=shared \
                        acc=half2 cache=stream dequant=(sum (* (* (- (real q) z) s) x))";
    const MMA: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=2 swizzle=xor raster=rows \
                       dequant=(sum (* (* (- (real q) z) s) x))";
    const STREAM: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=stream:264 swizzle=xor \
                          raster=rows dequant=(sum (* (* (- (real q) z) s) x))";
    const CLUSTER: &str = "gemv tokens=1 rows=2 lanes=32 warps=4x2 unroll=2 split=4@cluster \
                           x=shared acc=half2 cache=stream dequant=(sum (* (* (- (real q) z) s) x))";
    const WGMMA: &str = "wgmma tile=64x128x256 groups=2 stages=4 split=2 producer=group \
                         raster=tokens dequant=(sum (* (* (- (real q) z) s) x))";
    const DEQUANT: &str = "dequant slab=1024 gemm=mma tile=64x128x64 warps=4x1 stages=3 split=1 \
                           swizzle=xor raster=tokens dequant=(sum (* (* (- (real q) z) s) x))";

    #[test]
    fn schedules_print_and_parse_back() {
        for text in [GEMV, CLUSTER, MMA, STREAM, WGMMA, DEQUANT] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn launch_options_are_printed_where_they_are_on() {
        for text in [GEMV, MMA, WGMMA] {
            for words in ["pdl=on ", "prefetch=on ", "pdl=on prefetch=on "] {
                let with = text.replace("dequant=", &format!("{words}dequant="));
                let schedule: Schedule = with.parse().unwrap();
                assert_eq!(schedule.to_string(), with);
                assert_eq!(schedule.with_overlap(Overlap::NONE).to_string(), text);
            }
            let off = text.replace("dequant=", "pdl=off dequant=").parse::<Schedule>();
            assert!(off.unwrap_err().to_string().contains("`pdl=off` is not one of on"));
        }
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (from, to) in [("tokens=1", "tokens=0"), ("acc=half2", "acc=int8"), ("rows=2 ", "")] {
            let error = GEMV.replace(from, to).parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains(from.split('=').next().unwrap()), "{error}");
        }
        let error = STREAM.replace("stream:264", "stream").parse::<Schedule>().unwrap_err();
        assert!(error.to_string().contains("split=stream"), "{error}");
        let error = DEQUANT.replace("gemm=mma", "gemm=gemv").parse::<Schedule>().unwrap_err();
        assert!(error.to_string().contains("gemm=gemv"), "{error}");
    }
}
