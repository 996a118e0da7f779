//! Schedules of the `mma` family: tiles, warps and the `cp.async` ring.

use super::{
    check_block, check_single, check_width, groups_in, levels, params_once, require, scales_inside,
    with_table, Overlap, Raster, Rejected, Split, CHUNK_K,
};
use crate::dequant::{packed_param_bytes, Levels};
use crate::{Arch, Problem, WeightSpec};

/// Most tokens of an `mma` block that converts its weights: registers for accumulators end there.
const MOST_TOKENS: u32 = 64;
/// The same where weights are floats: blocks must share more, as a float is four codes of traffic.
const MOST_TOKENS_DENSE: u32 = 128;
/// Bytes that rows of activations are padded by: one read of a lane, so that eight rows begin in different banks.
pub(super) const PAD: u32 = 16;
/// Lanes whose 16-byte stores go to shared memory together: a quarter of a warp.
const QUARTER: u32 = 8;
/// Least k that `mma` accumulates before group parameters apply to sums: one load of activations.
const SEGMENT_K: u32 = 32;

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
    /// Whether tokens of the activation tile in shared memory lie [`PAD`] bytes further apart than their rows
    /// are long. All rows would begin in the same bank, and reads of eight of them would conflict.
    pub padded: bool,
    /// Order of thread blocks.
    pub raster: Raster,
    /// How the kernel meets those before and after it.
    pub overlap: Overlap,
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
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
        match spec.group.run(k) {
            group if group >= k => self.warp_k(),
            group => group.max(SEGMENT_K).min(self.warp_k()),
        }
    }

    /// Quant groups of such a segment.
    pub fn groups_per_segment(&self, spec: &WeightSpec, k: u32) -> u32 {
        match spec.group.run(k) {
            run if run >= k => 1,
            _ => groups_in(self.segment_k(spec, k), spec, k),
        }
    }

    /// Bytes of weights per stage.
    pub fn stage_weight_bytes(&self, spec: &WeightSpec) -> u32 {
        self.block_n * self.block_k * spec.bits as u32 / 8
    }

    /// Bytes of activations per stage.
    pub fn stage_act_bytes(&self) -> u32 {
        self.block_m * self.block_k * 2
    }

    /// Bytes from a token's activations to the next token's in shared memory.
    pub fn act_pitch(&self) -> u32 {
        self.block_k * 2 + if self.padded { PAD } else { 0 }
    }

    /// Bytes of shared memory that a stage's activations take.
    pub fn stage_act_space(&self) -> u32 {
        self.block_m * self.act_pitch()
    }

    /// Lanes that share the row of a token in copies of a stage's activations, so that all 16-byte pieces of a
    /// thread are of one token, as many pieces apart. `None` where threads take one piece after the other,
    /// whatever token it is of.
    pub fn act_lanes(&self) -> Option<u32> {
        let (row, threads) = (self.block_k * 2 / PAD, self.threads().max(1));
        let turns = self.block_m * row / threads;
        let even = turns > 0 && self.block_m * row % threads == 0 && row % turns == 0;
        let lanes = even.then(|| row / turns)?;
        // A quarter of a warp stores pieces of tokens that lie as many apart as these have lanes.
        (matches!(lanes, 2 | 4) || lanes % QUARTER == 0).then_some(lanes)
    }

    /// Addresses that a thread keeps for those copies.
    pub fn act_plans(&self) -> u32 {
        match self.act_lanes() {
            Some(_) => 1,
            None => (self.stage_act_bytes() / PAD).div_ceil(self.threads().max(1)),
        }
    }

    /// The levels that group parameters are packed by; `None` where each group has an entry with all of
    /// its parameters.
    pub fn levels(&self, spec: &WeightSpec, k: u32) -> Option<Levels> {
        levels::of_fragments(&self.dequant, spec, k, (self.block_k, self.warp_k()))
    }

    /// Lanes that share the uniform values of their rows under a term that reads both levels.
    pub(super) fn row_lanes(&self, spec: &WeightSpec, k: u32) -> u32 {
        levels::row_lanes(spec, k, (self.block_k, self.warp_k()))
    }

    /// Bytes of a row's group parameters per stage.
    pub(super) fn row_param_bytes(&self, spec: &WeightSpec, k: u32) -> u32 {
        let groups = self.groups_per_stage(spec, k);
        match self.levels(spec, k) {
            Some(levels) => levels.bytes(groups),
            None => packed_param_bytes(&self.dequant, spec) * groups,
        }
    }

    /// Bytes of group parameters per stage; none where a block copies them once.
    pub fn stage_param_bytes(&self, spec: &WeightSpec, k: u32) -> u32 {
        match params_once(self.split, spec, k) {
            true => 0,
            false => spec.group.param_rows(self.block_n) * self.row_param_bytes(spec, k),
        }
    }

    /// Bytes of group parameters that a block copies once for all of its stages: where one quant group spans
    /// K, and all stages are of one row tile.
    pub fn once_param_bytes(&self, spec: &WeightSpec, k: u32) -> u32 {
        match params_once(self.split, spec, k) {
            true => self.block_n * self.row_param_bytes(spec, k),
            false => 0,
        }
    }

    /// Bytes that one stage brings.
    pub fn stage_bytes(&self, spec: &WeightSpec, k: u32) -> u32 {
        self.stage_weight_bytes(spec) + self.stage_act_bytes() + self.stage_param_bytes(spec, k)
    }

    /// Where the operands that warps compute from levels lie in dynamic shared memory: behind all stages, and
    /// group parameters that are copied once.
    pub fn operand_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let params = self.stage_param_bytes(spec, problem.k);
        let stage = self.stage_weight_bytes(spec) + self.stage_act_space() + params;
        self.stages * stage + self.once_param_bytes(spec, problem.k)
    }

    /// Bytes of the ring, with the operands of one stage behind it.
    fn ring_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let groups = self.groups_per_stage(spec, problem.k);
        let operands =
            self.levels(spec, problem.k).map_or(0, |_| levels::operand_bytes(self.block_n, groups));
        self.operand_offset(problem, spec) + operands
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
    pub(super) fn working_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
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

    pub(super) fn check(
        &self,
        p: &Problem,
        spec: &WeightSpec,
        arch: &Arch,
    ) -> Result<(), Rejected> {
        check_width("mma", spec)?;
        check_single("mma", spec)?;
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
        let group = spec.group.run(p.k);
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
