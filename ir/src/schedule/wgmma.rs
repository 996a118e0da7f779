//! Schedules of the `wgmma` family: tiles, roles and the registers that they leave.

use super::split::MOST_CLUSTER;
use super::{
    check_block, check_single, check_width, groups_in, levels, params_once, require, scales_inside,
    with_table, Overlap, Raster, Rejected, Split,
};
use crate::dequant::{packed_param_bytes, Levels};
use crate::{Arch, DType, Problem, WeightSpec};

/// Rows of one `wgmma`: 16 for each warp of a warpgroup (PTX ISA, "wgmma.mma_async").
pub const GROUP_ROWS: u32 = 64;
/// Threads of a warpgroup.
const GROUP_THREADS: u32 = 128;
/// What a lane's piece of codes covers, and the width of a row of activations in 128-byte swizzled
/// shared memory.
const UNIT_K: u32 = 64;
/// k16 steps of that.
const LONG_UNIT: u32 = 4;
/// Rows after which the 128-byte swizzle repeats (PTX ISA, "Swizzling Modes").
const SWIZZLE_ROWS: u32 = 8;
/// Most columns of one `wgmma`.
const MAX_TOKENS: u32 = 256;
/// 32-bit registers of an SM of sm_90a.
const REGISTER_FILE: u32 = 65536;
/// The register file gives out registers per thread in steps of this many (PTX ISA, `setmaxnreg`).
const REGISTER_STEP: u32 = 8;
/// What a producer that gives its registers away keeps: the least that `setmaxnreg` takes.
pub const PRODUCER_REGISTERS: u32 = 24;
/// The most that a thread can have when registers are handed out by `setmaxnreg`, which counts in
/// steps of eight.
const MOST_REGISTERS: u32 = 248;
/// Addresses, ring state and codes before conversion. Fitted to what the compiler takes on `sm_90a`.
const OPERAND_REGISTERS: u32 = 32;
/// Width of codes up to which [`OPERAND_REGISTERS`] suffice; every further bit is a word of a unit.
const NARROW_BITS: u32 = 4;
/// What stands for [`OPERAND_REGISTERS`] beside the sum of activations that corrects an offset: where
/// registers are short, and where a consumer has [`AMPLE_REGISTERS`], of which the compiler makes
/// better use. Fitted to the widest tiles whose multiplies it does not serialise.
const SHORT_CORRECTED_REGISTERS: u32 = 57;
const AMPLE_CORRECTED_REGISTERS: u32 = 12;
/// See [`SHORT_CORRECTED_REGISTERS`].
const AMPLE_REGISTERS: u32 = 240;
/// Registers of a lane's part of a 64x16 fragment.
const FRAGMENT_REGISTERS: u32 = 4;
/// What stream-K adds: the block's share, the tile, slot and phase of the ring.
const STREAM_REGISTERS: u32 = 10;
/// Group parameters of a row tile, as loaded and as operands.
const ROW_REGISTERS: u32 = 12;

/// Who copies the operands to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Producer {
    /// One extra warp; every thread has the same number of registers. Several blocks may share an
    /// SM.
    Warp,
    /// A warpgroup that gives its registers to the consumers (`setmaxnreg`).
    Group,
}

/// A `wgmma` schedule: the transposed problem `C^T = W A^T`. Weights are the register operand with
/// 64 rows per warpgroup, tokens the columns. A block covers `block_n` rows by `block_m` tokens;
/// the producer brings `block_k` of k per stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WgmmaSchedule {
    /// Tokens per block, the columns of one `wgmma`: a multiple of 8 up to 256.
    pub block_m: u32,
    /// Output rows per block: a multiple of `64 * groups`.
    pub block_n: u32,
    /// k per stage: a multiple of 64.
    pub block_k: u32,
    /// Consumer warpgroups, which share the stage's activations.
    pub groups: u32,
    /// Stages of the ring between producer and consumers.
    pub stages: u32,
    /// How thread blocks share the k of output tiles.
    pub split: Split,
    /// Who copies.
    pub producer: Producer,
    /// Order of thread blocks.
    pub raster: Raster,
    /// Thread blocks of a cluster that share one tile of tokens, 1 for none: neighbours along N,
    /// each of which copies a part of the activations to all of them.
    pub multicast: u32,
    /// How the kernel meets those before and after it.
    pub overlap: Overlap,
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
}

impl WgmmaSchedule {
    /// Threads of the consumer warpgroups.
    pub fn consumer_threads(&self) -> u32 {
        self.groups * GROUP_THREADS
    }

    /// Threads of one block.
    pub fn threads(&self) -> u32 {
        self.consumer_threads()
            + match self.producer {
                Producer::Warp => 32,
                Producer::Group => GROUP_THREADS,
            }
    }

    /// 64-row tiles per warpgroup.
    pub fn row_tiles(&self) -> u32 {
        self.block_n / (GROUP_ROWS * self.groups)
    }

    /// k16 steps of a unit of work, which is that much of k of all row tiles: one unit is converted
    /// while the one before it is multiplied. Long units wait less often, but their fragments need
    /// registers; the units of a stage are even in number, as two buffers take turns.
    pub fn unit_k16(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let long = self.block_k % (2 * UNIT_K) == 0
            && self.registers_with(LONG_UNIT, problem, spec) <= self.consumer_registers();
        if long {
            LONG_UNIT
        } else {
            LONG_UNIT / 2
        }
    }

    /// f32 accumulators of one lane for one row tile.
    pub fn accumulators(&self) -> u32 {
        self.block_m / 2
    }

    /// k rounded up to whole stages: the extent of the packed weights.
    pub fn padded_k(&self, k: u32) -> u32 {
        k.next_multiple_of(self.block_k)
    }

    /// Quant groups that a stage touches, as far as they are stored apart.
    pub fn groups_per_stage(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.block_k, spec, k)
    }

    /// k over which a warpgroup accumulates before the group parameters apply.
    pub fn segment_k(&self, spec: &WeightSpec, k: u32) -> u32 {
        match spec.group.run(k) {
            group if group >= k => self.block_k,
            group => group.max(UNIT_K).min(self.block_k),
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

    /// Bytes of activations per stage that a block takes from L2: its part of what its cluster shares.
    pub fn stage_own_act_bytes(&self) -> u32 {
        self.stage_act_bytes() / self.multicast.max(1)
    }

    /// The levels that group parameters are packed by; `None` where each group has an entry with all of
    /// its parameters.
    pub fn levels(&self, spec: &WeightSpec, k: u32) -> Option<Levels> {
        levels::of_fragments(&self.dequant, spec, k, (self.block_k, self.block_k))
    }

    /// Lanes that share the uniform values of their rows under a term that reads both levels.
    pub(super) fn row_lanes(&self, spec: &WeightSpec, k: u32) -> u32 {
        levels::row_lanes(spec, k, (self.block_k, self.block_k))
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

    /// f32 elements between tokens in the reduction buffer: 4 more than the rows, so that the
    /// eight rows by four tokens that a warp writes at once fall into 32 banks.
    pub fn reduction_pitch(&self) -> u32 {
        self.block_n + 4
    }

    /// Where the operands that warps compute from levels lie in dynamic shared memory: behind all stages, and
    /// group parameters that are copied once.
    pub fn operand_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        self.stages * self.stage_bytes(spec, problem.k) + self.once_param_bytes(spec, problem.k)
    }

    /// Bytes of the ring, with the operands of one stage behind it.
    fn ring_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let groups = self.groups_per_stage(spec, problem.k);
        let operands =
            self.levels(spec, problem.k).map_or(0, |_| levels::operand_bytes(self.block_n, groups));
        self.operand_offset(problem, spec) + operands
    }

    /// Where the output tile lies in dynamic shared memory: in the place of the ring, which is
    /// drained by then, or behind it where the next tile's stages arrive meanwhile.
    pub fn reduction_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        match self.split {
            Split::Blocks(_) | Split::Cluster(_) => 0,
            Split::Stream(_) => self.ring_bytes(problem, spec).next_multiple_of(16),
        }
    }

    /// Where the barriers lie in dynamic shared memory: behind the ring and the output tile.
    pub fn barrier_offset(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        let tile = self.block_m * self.reduction_pitch() * 4;
        let end = self.reduction_offset(problem, spec) + tile;
        self.ring_bytes(problem, spec).max(end).next_multiple_of(16)
    }

    /// Bytes of ring and output tile, and two barriers per stage.
    pub(super) fn working_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        self.barrier_offset(problem, spec) + self.stages * 16
    }

    /// Bytes of dynamic shared memory: those, and the term's table.
    pub fn shared_bytes(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        with_table(self.working_bytes(problem, spec), &self.dequant)
    }

    /// Registers that every thread of the block starts with, at most. The compiler deals them to
    /// whole warpgroups, also where the last one is a single warp.
    pub fn launch_registers(&self) -> u32 {
        let even = REGISTER_FILE / self.threads().next_multiple_of(GROUP_THREADS).max(1);
        (even / REGISTER_STEP * REGISTER_STEP).min(MOST_REGISTERS)
    }

    /// Registers of a consumer thread, at most: what the producer gives away is dealt evenly.
    pub fn consumer_registers(&self) -> u32 {
        let launch = self.launch_registers();
        match self.producer {
            Producer::Warp => launch,
            Producer::Group => {
                let given = (launch - PRODUCER_REGISTERS.min(launch)) * GROUP_THREADS;
                let each = launch + given / self.consumer_threads().max(1);
                (each / REGISTER_STEP * REGISTER_STEP).min(MOST_REGISTERS - REGISTER_STEP)
            }
        }
    }

    /// Whether the sums of quant groups are kept apart from the totals, which takes a second set
    /// of accumulators: the term scales them and there are several groups, or tensor cores keep too few
    /// bits of them.
    pub fn sums_apart(&self, problem: &Problem, spec: &WeightSpec) -> bool {
        let groups = !scales_inside(&self.dequant) && spec.group.size(problem.k) < problem.k;
        groups || spec.activations.sums_by_stage()
    }

    /// Registers of a consumer thread, estimated.
    pub fn registers(&self, problem: &Problem, spec: &WeightSpec) -> u32 {
        self.registers_with(self.unit_k16(problem, spec), problem, spec)
    }

    fn registers_with(&self, unit_k16: u32, problem: &Problem, spec: &WeightSpec) -> u32 {
        let copies = 1 + u32::from(self.sums_apart(problem, spec));
        let codes = u32::from(spec.bits).saturating_sub(NARROW_BITS);
        let groups = self.groups_per_segment(spec, problem.k);
        let fragments = 2 * unit_k16 * FRAGMENT_REGISTERS;
        let row_tile = self.accumulators() * copies + ROW_REGISTERS * groups + fragments + codes;
        let corrected = match self.consumer_registers() {
            AMPLE_REGISTERS.. => AMPLE_CORRECTED_REGISTERS,
            _ => SHORT_CORRECTED_REGISTERS,
        };
        // Fitted with the fragments of one row tile among them.
        let corrected = corrected + self.accumulators();
        let corrected = corrected.saturating_sub(2 * LONG_UNIT * FRAGMENT_REGISTERS);
        let operands = match self.sums_activations() {
            true => OPERAND_REGISTERS.max(corrected),
            false => OPERAND_REGISTERS,
        };
        let stream = self.split.stream().map_or(0, |_| STREAM_REGISTERS);
        // Scales of a quant group's activations, of the tokens of a lane.
        let scales = if spec.activations.are_grouped() { self.accumulators() / 2 } else { 0 };
        operands + stream + scales + self.row_tiles() * row_tile
    }

    /// Whether the term corrects an offset by the sum of activations, which takes accumulators of
    /// its own.
    fn sums_activations(&self) -> bool {
        !self.dequant.trim_start().starts_with("(sum") && self.dequant.contains("(sum x)")
    }

    pub(super) fn check(
        &self,
        p: &Problem,
        spec: &WeightSpec,
        arch: &Arch,
    ) -> Result<(), Rejected> {
        require(arch.has_wgmma(), || format!("wgmma needs sm_90a, {} is not", arch.target()))?;
        check_width("wgmma", spec)?;
        check_single("wgmma", spec)?;
        require(p.act != DType::F32, || "wgmma multiplies 16-bit floats, not f32".into())?;
        self.check_tile()?;
        self.check_multicast(p, arch)?;
        let group = spec.group.run(p.k);
        let nested = group == p.k || group % self.block_k == 0 || self.block_k % group == 0;
        require(nested, || format!("quant group {group} and k tile {}", self.block_k))?;
        let split = group % 16 == 0 && UNIT_K % group == 0 && scales_inside(&self.dequant);
        require(group % UNIT_K == 0 || group == p.k || split, || {
            format!("quant group {group} is no multiple of a unit's {UNIT_K} of k, nor a part of it with scaled weights")
        })?;
        require(p.k % 8 == 0, || format!("K = {} is not a multiple of 8 activations", p.k))?;
        require((2..=8).contains(&self.stages), || {
            format!("{} stages: the producer needs 2 to 8", self.stages)
        })?;
        let steps = self.padded_k(p.k) / self.block_k;
        let tiles = u64::from(p.n.div_ceil(self.block_n)) * u64::from(p.m.div_ceil(self.block_m));
        self.split.check(tiles, steps, arch)?;
        let has = self.consumer_registers();
        let needs = self.registers(p, spec);
        require(needs <= has, || format!("{needs} registers of a consumer's {has}"))?;
        check_block(self.threads(), self.shared_bytes(p, spec), arch)
    }

    /// A copy to all blocks of a cluster needs them to walk the same steps of the same tokens, and
    /// a part of the tokens for each that keeps the pattern of the swizzle: 8 rows.
    fn check_multicast(&self, p: &Problem, arch: &Arch) -> Result<(), Rejected> {
        let blocks = self.multicast;
        if blocks == 1 {
            return Ok(());
        }
        require(arch.has_clusters() && blocks <= MOST_CLUSTER, || {
            format!("multicast to {blocks} blocks, not 1 to {MOST_CLUSTER}")
        })?;
        require(matches!(self.split, Split::Blocks(_)), || {
            format!("multicast with split={}: one cluster, one walk over k", self.split)
        })?;
        let tiles = p.n.div_ceil(self.block_n.max(1));
        require(tiles % blocks == 0, || format!("multicast to {blocks} of {tiles} row tiles"))?;
        require(self.block_m % (SWIZZLE_ROWS * blocks) == 0, || {
            format!("{} tokens in {blocks} parts of whole {SWIZZLE_ROWS}", self.block_m)
        })
    }

    fn check_tile(&self) -> Result<(), Rejected> {
        require(self.block_m % 8 == 0 && (8..=MAX_TOKENS).contains(&self.block_m), || {
            format!("{} tokens are no multiple of 8 up to {MAX_TOKENS}", self.block_m)
        })?;
        require((1..=3).contains(&self.groups), || {
            format!("{} consumer warpgroups, not 1 to 3", self.groups)
        })?;
        require(self.producer == Producer::Warp || self.groups > 1, || {
            "one consumer warpgroup has all the registers it can use without a producer's".into()
        })?;
        require(self.block_n > 0 && self.block_n % (GROUP_ROWS * self.groups) == 0, || {
            format!("{} rows over {} warpgroups of {GROUP_ROWS}", self.block_n, self.groups)
        })?;
        require(self.block_k > 0 && self.block_k % UNIT_K == 0, || {
            format!("k tile {} is no multiple of {UNIT_K}", self.block_k)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::tile::tests::{awq, h200, problem};
    use crate::{Arch, Schedule};

    const WIDE: &str =
        "wgmma tile=128x128x128 groups=2 stages=4 split=1 producer=warp raster=rows \
                        dequant=(sum x)";

    fn refusal(from: &str, to: &str) -> String {
        let text = WIDE.replace(from, to);
        assert_ne!(text, WIDE);
        let schedule: Schedule = text.parse().unwrap();
        schedule.check(&problem(5120, 5120, 128), &awq(), &h200()).unwrap_err().reason
    }

    #[test]
    fn what_the_instruction_or_the_block_cannot_do_is_refused_with_its_numbers() {
        assert!(refusal("128x128x128", "12x128x128").contains("12 tokens"));
        assert!(refusal("128x128x128", "264x128x128").contains("264 tokens"));
        assert!(refusal("128x128x128", "128x192x128").contains("192 rows over 2"));
        assert!(refusal("128x128x128", "128x128x96").contains("k tile 96"));
        assert!(refusal("128x128x128", "256x512x64").contains("registers"));
        assert!(refusal("groups=2", "groups=4").contains("4 consumer"));
        assert!(refusal("stages=4", "stages=1").contains("1 stages"));
        assert!(refusal("stages=4", "stages=8").contains("bytes of shared memory"));
        assert!(refusal(
            "groups=2 stages=4 split=1 producer=warp",
            "groups=1 stages=2 split=1 producer=group"
        )
        .contains("one consumer"));
    }

    #[test]
    fn blocks_share_activations_in_clusters_that_divide_the_row_tiles() {
        let check = |words: &str, n: u32| {
            let text = WIDE.replace("raster=rows", words);
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
            schedule.check(&problem(n, 5120, 128), &awq(), &h200()).map_err(|e| e.reason)
        };
        for blocks in [2, 4, 8] {
            assert_eq!(check(&format!("raster=tokens multicast={blocks}"), 5120), Ok(()));
        }
        let refusal = |words: &str, n| check(words, n).unwrap_err();
        assert!(refusal("raster=rows multicast=4", 5248).contains("multicast to 4 of 41"));
        assert!(refusal("raster=rows multicast=16", 5120).contains("not 1 to 8"));
        assert!(refusal("raster=rows multicast=5", 5120).contains("128 tokens in 5 parts"));
        let streamed = WIDE.replace("split=1", "split=stream:132");
        let streamed =
            streamed.replace("raster=rows", "raster=rows multicast=2").parse::<Schedule>();
        let refused = streamed.unwrap().check(&problem(5120, 5120, 128), &awq(), &h200());
        assert!(refused.unwrap_err().reason.contains("multicast with split=stream:132"));
    }

    #[test]
    fn under_stream_k_the_output_tile_stands_behind_the_ring() {
        let of = |split: &str| match WIDE.replace("split=1", split).parse().unwrap() {
            Schedule::Wgmma(s) => s,
            other => panic!("{other}"),
        };
        let p = problem(5120, 5120, 128);
        let (one, stream) = (of("split=1"), of("split=stream:132"));
        let ring = 4 * one.stage_bytes(&awq(), p.k);
        assert_eq!((one.reduction_offset(&p, &awq()), one.barrier_offset(&p, &awq())), (0, ring));
        let tile = 128 * one.reduction_pitch() * 4;
        let offsets = (stream.reduction_offset(&p, &awq()), stream.barrier_offset(&p, &awq()));
        assert_eq!(offsets, (ring, ring + tile));
    }

    #[test]
    fn sums_of_activations_take_accumulators_of_their_own() {
        let term = "(* s (- (sum (* (magic q) x)) (* (+ 1024 z) (sum x))))";
        let check = |tokens: u32, producer: &str| {
            let text = WIDE.replace("128x128x128", &format!("{tokens}x128x128"));
            let text = text.replace("producer=warp", producer).replace("(sum x)", term);
            let schedule: Schedule = text.replace("stages=4", "stages=2").parse().unwrap();
            schedule.check(&problem(5120, 5120, 160), &awq(), &h200())
        };
        assert_eq!(check(64, "producer=warp"), Ok(()));
        assert!(check(80, "producer=warp").unwrap_err().reason.contains("registers"));
        assert_eq!(check(144, "producer=group"), Ok(()));
        assert!(check(160, "producer=group").unwrap_err().reason.contains("registers"));
    }

    #[test]
    fn other_gpus_are_refused_by_name() {
        let schedule: Schedule = WIDE.parse().unwrap();
        for gpu in ["a100", "l40s", "b200", "rtx5090"] {
            let arch = Arch::named(gpu).unwrap();
            let refused = schedule.check(&problem(5120, 5120, 128), &awq(), &arch).unwrap_err();
            assert!(refused.reason.contains(&arch.target()), "{refused}");
        }
    }

    #[test]
    fn a_producer_group_gives_its_registers_to_the_consumers() {
        let shared = |producer: &str| match WIDE.replace("producer=warp", producer).parse().unwrap()
        {
            Schedule::Wgmma(s) => (s.launch_registers(), s.consumer_registers()),
            other => panic!("{other}"),
        };
        assert_eq!(shared("producer=warp"), (168, 168));
        assert_eq!(shared("producer=group"), (168, 240));
    }
}
