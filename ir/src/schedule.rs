//! A schedule: every decision about how a problem is computed, on one line that parses back.
//!
//! Same problem, same schedule, same arch: same CUDA text, byte for byte. The dequantization term
//! is part of the schedule because codegen sees nothing else of the algebra.

mod dequant;
mod dimensions;
mod eight_bit;
mod gemv;
mod levels;
mod library;
mod mma;
mod overlap;
mod rotation;
mod shared_rows;
mod sorting;
mod split;
mod structure;
mod text;
mod wgmma;

pub use dequant::{DenseGemm, DequantSchedule};
pub use eight_bit::{integer_columns, pairs_of_k, Paired, PAIR_CODES};
pub use gemv::{Accumulate, GemvSchedule, WeightCache, FOLDED_SUMS};
pub use levels::{MAP_COPIES, MOST_OPERANDS, ROW_LANES};
pub use library::LibraryGemm;
pub use mma::MmaSchedule;
pub use overlap::Overlap;
pub use sorting::{sorted_slice, Mover, Sorting};
pub use split::{Shares, Split};
pub use structure::{Sharing, Structure};
pub use wgmma::{Producer, WgmmaSchedule, GROUP_ROWS, PRODUCER_REGISTERS};

use gemv::LANE_K;

use crate::dequant::{reads_nested, runs_on, Context, CostParams, Engine, PairTable, OUT_OF_SUM};
use crate::{Arch, Group, Problem, WeightSpec};

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

/// k extent of one 16-row fragment chunk: four `k16` steps fill a lane's piece.
const CHUNK_K: u32 = 64;

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

/// Whether blocks of a ring copy group parameters once, ahead of their first stage: one quant group spans a
/// row, and a block has rows of one tile.
fn params_once(split: Split, spec: &WeightSpec, k: u32) -> bool {
    spec.group.size(k) >= k && split.stream().is_none()
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

/// Where a table starts that follows `bytes` of shared memory: it is filled 16 bytes at a time.
fn table_offset(bytes: u32) -> u32 {
    bytes.next_multiple_of(16)
}

/// Bytes of shared memory with the table of a term behind them, and the map of nested scales that it reads.
fn with_table(bytes: u32, dequant: &str) -> u32 {
    let bytes =
        PairTable::of_term(dequant).map_or(bytes, |table| table_offset(bytes) + table.bytes());
    match reads_nested(dequant) {
        true => table_offset(bytes) + levels::MAP_BYTES,
        false => bytes,
    }
}

/// Whether weights share parameters: those that do not are smaller as floats.
fn check_sharing(spec: &WeightSpec) -> Result<(), Rejected> {
    require(spec.group != Group::Size(1), || {
        let packed = u32::from(spec.bits) + 8 * spec.packed_param_bytes();
        format!("quant groups of one weight: packed with its parameters a weight takes {packed} bits, a float 16")
    })
}

/// Whether kernels have a packing for the format's codes.
fn check_width(family: &str, spec: &WeightSpec) -> Result<(), Rejected> {
    require(spec.packing().is_some(), || format!("{family} reads no {}-bit codes", spec.bits))
}

/// Whether codes stand for one weight each: in a fragment, where a lane has two weights of each of four
/// vectors, kernels that decode as they multiply look nothing up.
fn check_single(family: &str, spec: &WeightSpec) -> Result<(), Rejected> {
    require(spec.codebook.vectors().is_none(), || {
        format!("{family} decodes codes of single weights; gemv and dequant look up vectors")
    })
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
        check_sharing(spec)?;
        if !spec.is_dense() {
            eight_bit::check(self, p, spec, arch)?;
        }
        match self {
            // Checked as what multiplies pairs.
            _ if spec.activations.are_quantized() && !spec.is_dense() => Ok(()),
            Schedule::Gemv(s) => s.check(p, spec, arch),
            Schedule::Mma(s) => s.check(p, spec, arch),
            Schedule::Wgmma(s) => s.check(p, spec, arch),
            Schedule::Dequant(s) => s.check(p, spec, arch),
        }?;
        self.overlap().check(arch)?;
        sorting::check(p, spec)?;
        shared_rows::check(self, p, spec)?;
        levels::check_nested(self, p, spec)?;
        rotation::check(p, spec, self.overlap(), arch)?;
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

    /// The rules of the algebra whose terms the family cannot lower: a search for its terms does without.
    pub fn useless_rules(&self, spec: &WeightSpec) -> &'static [&'static str] {
        match self {
            Schedule::Dequant(_) => OUT_OF_SUM,
            // Every column would have a sum.
            _ if matches!(spec.group, Group::Rows(_)) => OUT_OF_SUM,
            Schedule::Gemv(_) | Schedule::Mma(_) | Schedule::Wgmma(_) => &[],
        }
    }

    /// What decides the cost of a dequantization term under this schedule.
    pub fn cost_params(&self, problem: &Problem, spec: &WeightSpec) -> CostParams {
        let group = spec.group.size(problem.k);
        let params = match self {
            Schedule::Gemv(s) => CostParams {
                group,
                segment: LANE_K,
                tokens: s.tokens,
                row_tiles: s.rows,
                row_lanes: 1,
            },
            Schedule::Mma(s) => CostParams {
                group,
                segment: s.segment_k(spec, problem.k),
                tokens: s.block_m,
                row_tiles: s.row_tiles(),
                row_lanes: s.row_lanes(spec, problem.k),
            },
            Schedule::Wgmma(s) => CostParams {
                group,
                segment: s.segment_k(spec, problem.k),
                tokens: s.block_m,
                row_tiles: s.row_tiles(),
                row_lanes: s.row_lanes(spec, problem.k),
            },
            Schedule::Dequant(_) => CostParams {
                group,
                segment: group.min(CHUNK_K),
                tokens: dequant::TERM_TOKENS,
                row_tiles: 1,
                row_lanes: 1,
            },
        };
        match shared_rows::segment(self, spec) {
            Some(segment) => CostParams { group: segment, segment, ..params },
            None => params,
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
            Schedule::Dequant(s) => s.gemm.own().map_or(Overlap::NONE, |own| own.overlap()),
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

    /// The same with K shared so among thread blocks; a slab has blocks enough without.
    pub fn with_split(&self, split: Split) -> Schedule {
        let mut new = self.clone();
        match &mut new {
            Schedule::Gemv(s) => s.split = split,
            Schedule::Mma(s) => s.split = split,
            Schedule::Wgmma(s) => s.split = split,
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
            Schedule::Dequant(s) => s.gemm.threads(),
        }
    }

    /// Rows and tokens of one block's output tile: `(block_n, block_m)`.
    pub fn tile(&self) -> (u32, u32) {
        match self {
            Schedule::Gemv(s) => (s.block_n(), s.tokens),
            Schedule::Mma(s) => (s.block_n, s.block_m),
            Schedule::Wgmma(s) => (s.block_n, s.block_m),
            Schedule::Dequant(s) => s.gemm.tile(),
        }
    }

    /// How thread blocks share the k of output tiles.
    pub fn split(&self) -> Split {
        match self {
            Schedule::Gemv(s) => s.split,
            Schedule::Mma(s) => s.split,
            Schedule::Wgmma(s) => s.split,
            // A slab has blocks enough without.
            Schedule::Dequant(s) => s.gemm.own().map_or(Split::NONE, |own| own.split()),
        }
    }

    /// Thread blocks that share a tile of tokens in a cluster along N, 1 where there is none.
    pub fn multicast(&self) -> u32 {
        match self {
            Schedule::Wgmma(s) => s.multicast,
            Schedule::Gemv(_) | Schedule::Mma(_) | Schedule::Dequant(_) => 1,
        }
    }

    /// Thread blocks of a cluster along x, y and z of the grid.
    pub fn cluster(&self) -> [u32; 3] {
        let shared = self.multicast();
        match (self.split().cluster(), self.raster()) {
            (Some(blocks), _) => [1, 1, blocks],
            (None, Raster::Rows) => [shared, 1, 1],
            (None, Raster::Tokens) => [1, shared, 1],
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
            Schedule::Dequant(s) => s.padded_k(k),
        }
    }

    /// The order of thread blocks.
    pub fn raster(&self) -> Raster {
        match self {
            Schedule::Gemv(_) => Raster::Rows,
            Schedule::Mma(s) => s.raster,
            Schedule::Wgmma(s) => s.raster,
            Schedule::Dequant(s) => s.gemm.raster(),
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

    /// The byte of dynamic shared memory at which the map of nested scales starts, if the term reads it.
    pub fn map_offset(&self, problem: &Problem, spec: &WeightSpec) -> Option<u32> {
        let last = || self.shared_bytes(problem, spec) - levels::MAP_BYTES;
        reads_nested(self.dequant()).then(last)
    }

    /// Bytes of dynamic shared memory.
    pub fn shared_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        if let Some(paired) = self.in_pairs(problem, spec) {
            return paired.schedule.shared_bytes(&paired.problem, &paired.spec);
        }
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
    const MMA: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows \
                       dequant=(sum (* (* (- (real q) z) s) x))";
    const STREAM: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=stream:264 pad=16 \
                          raster=rows dequant=(sum (* (* (- (real q) z) s) x))";
    const CLUSTER: &str = "gemv tokens=1 rows=2 lanes=32 warps=4x2 unroll=2 split=4@cluster \
                           x=shared acc=half2 cache=stream dequant=(sum (* (* (- (real q) z) s) x))";
    const WGMMA: &str = "wgmma tile=64x128x256 groups=2 stages=4 split=2 producer=group \
                         raster=tokens dequant=(sum (* (* (- (real q) z) s) x))";
    const DEQUANT: &str = "dequant slab=1024 gemm=mma tile=64x128x64 warps=4x1 stages=3 split=1 \
                           pad=16 raster=tokens dequant=(sum (* (* (- (real q) z) s) x))";

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
    fn weights_that_share_no_parameters_are_refused_with_what_they_would_take() {
        let spec = WeightSpec { group: Group::Size(1), ..crate::tile::tests::awq() };
        for text in [GEMV, MMA, WGMMA, DEQUANT] {
            let schedule: Schedule = text.parse().unwrap();
            let problem = crate::tile::tests::problem(5120, 5120, 1);
            let refused = schedule.check(&problem, &spec, &crate::tile::tests::h200());
            assert!(refused.unwrap_err().reason.contains("takes 36 bits, a float 16"));
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
