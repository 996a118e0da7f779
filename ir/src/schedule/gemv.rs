//! Schedules of the `gemv` family: how warps and lanes share rows and k.

use super::{check_block, check_width, groups_in, require, with_table, Overlap, Rejected, Split};
use crate::dequant::{fields, packed_param_bytes, Levels};
use crate::{Arch, DType, Problem, WeightSpec, PIECE_CODES};

/// k extent of one lane's piece.
pub(super) const LANE_K: u32 = PIECE_CODES;

/// Packed sums whose halves one `mma.m16n8k16` adds: a lane's registers of its A fragment.
pub const FOLDED_SUMS: u32 = 4;

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
    /// Whether a step ahead puts the activations that are staged into the order of sorted columns, else
    /// every block does as it stages them. For act-order layers only.
    pub sorted_ahead: bool,
    /// Where partial dot products are kept.
    pub accumulate: Accumulate,
    /// Caching of weight loads.
    pub cache: WeightCache,
    /// How the kernel meets those before and after it.
    pub overlap: Overlap,
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
}

impl GemvSchedule {
    /// Quant groups of the weights that a lane loads at once.
    pub fn groups_per_lane(&self, spec: &WeightSpec, k: u32) -> u32 {
        match spec.group.run(k) {
            run if run >= k => 1,
            _ => groups_in(LANE_K, spec, k),
        }
    }

    /// k covered by one warp step.
    pub fn step_k(&self) -> u32 {
        LANE_K * self.lanes
    }

    /// Whether tensor cores add the halves of packed sums, of [`FOLDED_SUMS`] of a token at a time.
    pub fn folds(&self, spec: &WeightSpec, k: u32) -> bool {
        let sums = self.rows * self.groups_per_lane(spec, k);
        self.accumulate == Accumulate::Half2 && sums % FOLDED_SUMS == 0
    }

    /// Quant groups that one step touches, as far as they are stored apart.
    pub fn groups_per_step(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.step_k(), spec, k)
    }

    /// The levels that group parameters are packed by, where the term reads both and a step has all groups
    /// that share a float; `None` where each group has an entry with all of its parameters.
    pub fn levels(&self, spec: &WeightSpec, k: u32) -> Option<Levels> {
        // A lane loads the integers of its rows in whole words.
        let whole = |levels: &Levels| self.rows * levels.code_bytes() % 4 == 0;
        if spec.has_nested_scales() {
            let levels = Levels::nested(&self.dequant, spec, k).filter(whole)?;
            let sharing = levels.sharing(self.groups_per_step(spec, k));
            return (sharing > 1 && sharing >= self.groups_per_lane(spec, k)).then_some(levels);
        }
        if !spec.has_two_levels() {
            return None;
        }
        let levels = Levels::of(fields(&self.dequant, spec))?;
        let span = spec.group.size(k) * levels.groups;
        let levels = if whole(&levels) { levels } else { levels.in_bytes() };
        (whole(&levels) && self.step_k() % span == 0).then_some(levels)
    }

    /// Bytes of packed parameters for a row and quant group, those that groups share in parts.
    pub fn param_bytes(&self, spec: &WeightSpec, k: u32) -> f64 {
        match self.levels(spec, k) {
            Some(levels) => {
                let sharing = levels.sharing(self.groups_per_step(spec, k));
                f64::from(levels.code_bytes())
                    + f64::from(levels.shared_bytes()) / f64::from(sharing)
            }
            None => packed_param_bytes(&self.dequant, spec).into(),
        }
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
    pub(super) fn working_bytes(&self, problem: &Problem) -> u32 {
        self.staged_bytes(problem) + self.warps_k * self.tokens * self.block_n() * 4
    }

    /// Bytes of dynamic shared memory: [`Self::working_bytes`] and the term's table.
    pub fn shared_bytes(&self, problem: &Problem) -> u32 {
        with_table(self.working_bytes(problem), &self.dequant)
    }

    pub(super) fn check(
        &self,
        p: &Problem,
        spec: &WeightSpec,
        arch: &Arch,
    ) -> Result<(), Rejected> {
        check_width("gemv", spec)?;
        let group = spec.group.run(p.k);
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
        require(self.accumulate == Accumulate::F32 || p.act == DType::F16, || {
            format!("half2 accumulation needs f16 activations, not {}", p.act)
        })?;
        require(!self.sorted_ahead || (self.stage_x && spec.act_order), || {
            "x=sorted is for columns that are sorted by quant group".into()
        })?;
        require(splits <= 16, || format!("{splits} splits of K, more than 16"))?;
        require(self.split.stream().is_none(), || {
            "gemv keeps one tile's sums: no stream-K".into()
        })?;
        self.split.check(1, steps, arch)?;
        check_block(self.threads(), self.shared_bytes(p), arch)
    }
}
