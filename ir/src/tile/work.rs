//! What one thread block of a schedule does: instructions, bytes and products, before it is
//! compiled. [`super::cost`] turns these counts into times.
//!
//! Counts are per thread block over its whole walk along K, padding included: a padded weight
//! costs what a real one costs. A lane-instruction is one instruction of one lane; a warp
//! instruction is 32 of them. The instruction counts below were fitted to the machine code of
//! kernels for `sm_90a`; a test keeps some of them.

use super::cost::SCATTER_WAVEFRONTS;
use super::lower::{FRAGMENT_N, PIECE_K};
use crate::arch::WGMMA_MACS_PER_CLOCK;
use crate::dequant::{reads_nested, PairTable};
use crate::{
    Accumulate, Arch, GemvSchedule, LibraryGemm, MmaSchedule, Problem, Schedule, WeightSpec,
    WgmmaSchedule, FOLDED_SUMS, GROUP_ROWS, MAP_COPIES, NESTED_CODES,
};

/// Bytes of one wavefront: what the L1 and shared memory move per clock (CUDA C++ Programming
/// Guide, "Shared Memory": 32 banks of 4 bytes).
pub(super) const WAVEFRONT_BYTES: f64 = 128.0;
/// 16-byte loads of 16-bit activations for the 32 weights of a `gemv` piece.
const PIECE_X_LOADS: f64 = PIECE_K as f64 / 8.0;
/// Per 16-byte load of staged activations: the load; its address is shared by four of them.
const X_SHARED: f64 = 1.25;
/// Per 16 bytes of activations from global memory when a step uses them: bounds of tokens and k,
/// address, load, zeros where it does not load, scale. With half2 sums the compiler puts the code
/// after the bounds check there twice.
const X_GLOBAL_HALF2: f64 = 60.0;
/// The same with f32 sums.
const X_GLOBAL_F32: f64 = 30.0;
/// The same when they are staged.
const X_STAGING: f64 = 15.0;
/// The same when they are sorted on the way: eight places taken apart, eight addresses, eight stores.
const X_SORTING: f64 = X_STAGING + 8.0 * 7.0;
/// Bytes of the place of an input feature among sorted columns.
const PLACE_BYTES: f64 = 2.0;
/// Per `gemv` piece: the first load of the weights and its address; others lie at fixed distances.
const PIECE_LOAD: f64 = 2.0;
/// Per piece: the group parameters, loaded and spread over both halves, and their address.
const PIECE_PARAMS: f64 = 6.0;
/// Per piece and token with half2 sums: two halves widened and added in f32.
const PIECE_FLUSH: f64 = 3.0;
/// The same where tensor cores add four sums at once.
const PIECE_FOLD: f64 = 1.0 / FOLDED_SUMS as f64;
/// Per batch of a `gemv` main loop: counter, compare, branch, pointer steps.
const BATCH_LOOP: f64 = 8.0;
/// Per step of a batch of several: whether there is such a step, for its loads and for its use.
const STEP_GUARD: f64 = 6.0;
/// Per stage of an `mma` main loop and warp: wait, barrier, ring index, addresses of the parts of
/// a stage, compare, branch.
const STAGE_LOOP: f64 = 60.0;
/// Per 16 bytes of weights through `cp.async`: the instruction and its address.
const COPY: f64 = 2.0;
/// The same for activations, whose rows are padded.
const COPY_X: f64 = 4.0;
/// Per fragment and quant group: parameters loaded and spread.
const SEGMENT_PARAMS: f64 = 4.0;
/// Lane-instructions per 16-byte store of a table of pairs: its values and its address.
const TABLE_FILL: f64 = 18.0;
/// The same of a map of nested scales: a load, a share of its index, the store.
const MAP_FILL: f64 = 5.0;
/// Rows whose scales a warp of fragments looks up at once: four lanes share each.
const MAP_ROWS: f64 = 8.0;
/// Cycles until the first values of a table are computed and the last are seen by all warps.
const TABLE_CYCLES: f64 = 150.0;
/// Per stage of a `wgmma` main loop and consumer warp: wait, ring index and phase, addresses,
/// release of the stage, compare, branch.
const GROUP_STAGE_LOOP: f64 = 31.0;
/// What stream-K adds to that: the ring runs on from tile to tile, so that slots are no constants.
/// Fitted to what the compiler takes with stages of 128 and of 256.
const GROUP_STREAM_LOOP: f64 = 26.0;
/// Per `wgmma`: the instruction, and its shared-memory descriptor in uniform registers.
const GROUP_MULTIPLY: f64 = 1.0 + 2.1;
/// Per unit of four `wgmma`: the load of the codes and its address, fence and wait.
const GROUP_UNIT: f64 = 4.0;
/// Per row tile of a warpgroup and quant group: parameters loaded and spread.
const GROUP_SEGMENT_PARAMS: f64 = 12.0;
/// Instructions of the producer per stage.
const PRODUCER_STAGE: f64 = 40.0;
/// Share of the activations that a second warp of a block finds evicted from L1 when they are
/// not staged. Not measured: warps drift apart while weights stream past L1.
const L1_MISS: f64 = 0.25;
/// Wavefronts of `ldmatrix` when eight rows of a fragment start in the same bank.
const CONFLICT: f64 = 8.0;
/// Cycles from one `shfl` to its result (microbenchmarks of Ampere and Hopper, arXiv 2206.02874
/// and 2402.13499: about 23).
const SHUFFLE_CYCLES: f64 = 25.0;
/// Cycles of a block-wide barrier with its write and read of shared memory.
const BARRIER_CYCLES: f64 = 60.0;

/// Lane-instructions per weight that dequantize a slab's weights once more.
const NOTHING_TO_CONVERT: f64 = 0.0;
/// Share of the tensor pipes' rate that a main loop reaches which converts its weights: conversions
/// and multiplies take turns at the issue slots and wait for each other's registers. Published
/// kernels that convert in registers reach 0.65 to 0.9 of the dense rate. Not measured here.
const CONVERTING_SHARE: f64 = 0.85;

/// Multiply-accumulates per clock of tensor cores that have `rate` for dense weights.
fn tensor_rate(spec: &WeightSpec, rate: f64) -> f64 {
    match spec.is_dense() {
        true => rate,
        false => rate * CONVERTING_SHARE,
    }
}

/// The counts of one thread block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Weights that the block computes, padding included.
    pub weights: f64,
    /// Lane-instructions per weight, all of them.
    pub lane_instructions_per_weight: f64,
    /// Lane-instructions before the main loop: staging.
    pub setup_instructions: f64,
    /// Multiply-accumulates of tensor cores.
    pub tensor_macs: f64,
    /// Their rate per clock and SM.
    pub tensor_macs_per_clock: f64,
    /// Lane-instructions per weight on the FMA pipe, and that pipe's rate.
    pub fma: (f64, f64),
    /// Bytes from L2.
    pub l2_bytes: f64,
    /// Wavefronts of shared memory and L1.
    pub wavefronts: f64,
    /// Waits of the main loop.
    pub batches: f64,
    /// Warp instructions of one warp between two waits.
    pub batch_instructions: f64,
    /// Cycles of the tensor cores of one sub-core that a warp needs between two waits.
    pub batch_tensor_cycles: f64,
    /// Batches that are loaded ahead: 0 means load, wait, compute.
    pub ahead: u32,
    /// Steps of a batch that wait for activations from L2 each, once the weights are there.
    pub waits_for_x: u32,
    /// Bytes copied to shared memory before the main loop starts.
    pub staged_bytes: f64,
    /// Cycles in which nothing is loaded because a table is filled.
    pub fill_cycles: f64,
    /// Cycles of the reductions across lanes and warps at the end.
    pub reduction_cycles: f64,
}

/// Counts one block of a schedule, with `dequant` lane-instructions per weight that turn a packed
/// code into the operand of the multiplication.
pub(super) fn count(
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    dequant: f64,
) -> Work {
    match schedule {
        Schedule::Gemv(s) => gemv(p, spec, arch, s, dequant),
        Schedule::Mma(s) => mma(p, spec, arch, s, dequant),
        Schedule::Wgmma(s) => wgmma(p, spec, arch, s, dequant),
        Schedule::Dequant(s) => match s.multiplication() {
            Some(own) => count(p, &WeightSpec::dense(), arch, &own, NOTHING_TO_CONVERT),
            None => library(p, arch),
        },
    }
}

/// Least tokens of a library's output tiles: fewer take as long.
const LIBRARY_TOKENS_MIN: u32 = 64;
/// Share of the tensor pipes' rate that a library's dense multiplication reaches, everything but the ends
/// of its kernels included: published figures for large matrices of 16-bit floats on Hopper lie between
/// 0.65 and 0.8 of the nominal rate. Not measured here.
const LIBRARY_SHARE: f64 = 0.75;

/// A tile of a library's output: a roofline alone, as nothing is known of its kernels but their rate. They
/// fill all SMs alike, whatever tiles we sample: the model's count of the busiest SM's blocks comes out of it.
fn library(p: &Problem, arch: &Arch) -> Work {
    let tokens = p.m.next_multiple_of(LIBRARY_TOKENS_MIN);
    let tiles =
        u64::from(p.n.div_ceil(LibraryGemm::ROWS)) * u64::from(p.m.div_ceil(LibraryGemm::TOKENS));
    let sms = u64::from(arch.sm_count);
    let weights = f64::from(p.n) * f64::from(p.k) / (tiles.div_ceil(sms) * sms) as f64;
    Work {
        weights,
        lane_instructions_per_weight: 0.0,
        setup_instructions: 0.0,
        tensor_macs: weights * f64::from(tokens),
        tensor_macs_per_clock: arch.peak_macs_per_clock() * LIBRARY_SHARE,
        fma: (0.0, arch.rates.fp32),
        l2_bytes: 0.0,
        wavefronts: 0.0,
        batches: 0.0,
        batch_instructions: 0.0,
        batch_tensor_cycles: 0.0,
        ahead: 0,
        waits_for_x: 0,
        staged_bytes: 0.0,
        fill_cycles: 0.0,
        reduction_cycles: 0.0,
    }
}

/// What tables in shared memory add to a block: of pairs of codes, and of nested scales.
#[derive(Clone, Copy, Default)]
struct Table {
    /// Lane-instructions that fill it.
    instructions: f64,
    /// Wavefronts that fill it.
    filled: f64,
    /// Wavefronts that read it: one per pair and warp.
    read: f64,
}

impl Table {
    fn of(dequant: &str, weights: f64) -> Table {
        let Some(table) = PairTable::of_term(dequant) else { return Table::default() };
        let stores = table.fill_stores() as f64;
        Table {
            instructions: stores * TABLE_FILL,
            filled: stores * 16.0 / WAVEFRONT_BYTES,
            read: weights / 2.0 / 32.0,
        }
    }

    /// With the map of a term that makes scales of their codes, which warps do so many times. Copies of a value are in
    /// all banks: lanes do not meet.
    fn with_map(self, dequant: &str, lookups: f64) -> Table {
        if !reads_nested(dequant) {
            return self;
        }
        let stores = f64::from(NESTED_CODES as u32 * MAP_COPIES) / 4.0;
        Table {
            instructions: self.instructions + stores * MAP_FILL,
            filled: self.filled + stores * 16.0 / WAVEFRONT_BYTES,
            read: self.read + lookups,
        }
    }

    fn wavefronts(self) -> f64 {
        self.filled + self.read
    }
}

/// How often warps of fragments look up the scales of so many weights.
fn scale_lookups(spec: &WeightSpec, k: u32, segment_k: u32, weights: f64) -> f64 {
    weights / f64::from(segment_k.min(spec.group.size(k))) / MAP_ROWS
}

/// Loads of a piece of codes after the first.
fn further_loads(spec: &WeightSpec) -> f64 {
    spec.packing().map_or(0.0, |packing| (packing.loads() - 1) as f64)
}

/// Packed bytes of weights with their parameters.
fn weight_bytes(spec: &WeightSpec, s: &GemvSchedule, weights: f64, k: u32) -> f64 {
    // A warp loads what its rows share.
    let rows = spec.group.rows().min(s.warp_rows());
    let sharing = f64::from(spec.group.size(k)) * f64::from(rows);
    let params = s.param_bytes(spec, k) / sharing;
    weights * (spec.bits as f64 / 8.0 + params)
}

fn gemv(p: &Problem, spec: &WeightSpec, arch: &Arch, s: &GemvSchedule, dequant: f64) -> Work {
    let (tokens, rows) = (s.tokens as f64, s.rows as f64);
    let piece = PIECE_K as f64;
    let steps = s.steps_per_split(p.k) as f64;
    let block_k = steps * s.step_k() as f64;
    let weights = s.block_n() as f64 * block_k;
    let (math, rate, convert) = match s.accumulate {
        Accumulate::Half2 => {
            let flush = if s.folds(spec, p.k) { PIECE_FOLD } else { PIECE_FLUSH };
            (tokens / 2.0, arch.rates.half2, flush * tokens / piece)
        }
        // Each weight and, once for all rows of the lane, each activation is widened.
        Accumulate::F32 => (tokens, arch.rates.fp32, 1.0 + tokens / rows),
    };
    let x_load = match (s.stage_x, s.accumulate) {
        (true, _) => X_SHARED,
        (false, Accumulate::Half2) => X_GLOBAL_HALF2,
        (false, Accumulate::F32) => X_GLOBAL_F32,
    };
    let loads =
        (PIECE_LOAD + further_loads(spec) + PIECE_PARAMS + PIECE_X_LOADS * x_load * tokens / rows)
            / piece;
    let guard = if s.unroll > 1 { STEP_GUARD } else { 0.0 };
    let overhead = (BATCH_LOOP / s.unroll as f64 + guard) / (piece * rows);
    let lane_instructions_per_weight = dequant + math + convert + loads + overhead;
    let batch_weights = piece * rows * s.unroll as f64;

    let packed = weight_bytes(spec, s, weights, p.k);
    let x_bytes = tokens * block_k * p.act.bytes() as f64;
    let rereads = if s.stage_x { 0.0 } else { L1_MISS * (s.warps_n - 1) as f64 };
    let x_wavefronts = PIECE_X_LOADS * tokens * s.lanes.div_ceil(8) as f64;
    let staging = Staging::of(p, spec, s, x_bytes);
    let results = s.block_n() as f64 * tokens * 4.0;
    let table = Table::of(&s.dequant, weights).with_map(&s.dequant, weights / piece / 32.0);
    Work {
        weights,
        lane_instructions_per_weight,
        setup_instructions: staging.instructions + table.instructions,
        tensor_macs: 0.0,
        tensor_macs_per_clock: arch.mma_macs_per_clock,
        fma: (math, rate),
        l2_bytes: packed + if s.stage_x { staging.bytes } else { x_bytes * (1.0 + rereads) },
        wavefronts: packed / WAVEFRONT_BYTES
            + steps * s.warps_n as f64 * x_wavefronts
            + staging.wavefronts
            + table.wavefronts(),
        batches: (steps / (s.warps_k * s.unroll) as f64).ceil(),
        batch_instructions: batch_weights * lane_instructions_per_weight,
        batch_tensor_cycles: 0.0,
        ahead: 0,
        waits_for_x: if s.stage_x { 0 } else { s.unroll },
        staged_bytes: staging.bytes,
        fill_cycles: staging.scatter_cycles
            + if table.filled > 0.0 { TABLE_CYCLES + table.filled } else { 0.0 },
        reduction_cycles: (s.lanes as f64).log2() * (SHUFFLE_CYCLES + 2.0 * rows * tokens)
            + warp_reduction(s.warps_k, results),
    }
}

/// What staging a block's activations takes before a `gemv` main loop.
#[derive(Clone, Copy, Default)]
struct Staging {
    /// Lane-instructions.
    instructions: f64,
    /// Wavefronts of shared memory and L1.
    wavefronts: f64,
    /// Bytes from L2.
    bytes: f64,
    /// Cycles of stores to random places, in which nothing else is loaded.
    scatter_cycles: f64,
}

impl Staging {
    /// Staging of `x_bytes` of activations. Who sorts them reads all of K with its places, also under
    /// split K, and stores element by element.
    fn of(p: &Problem, spec: &WeightSpec, s: &GemvSchedule, x_bytes: f64) -> Staging {
        if !s.stage_x {
            return Staging::default();
        }
        if !spec.act_order || s.sorted_ahead {
            let instructions = x_bytes / 16.0 * X_STAGING;
            let wavefronts = 2.0 * x_bytes / WAVEFRONT_BYTES;
            return Staging { instructions, wavefronts, bytes: x_bytes, scatter_cycles: 0.0 };
        }
        let (k, tokens) = (f64::from(p.k), f64::from(s.tokens));
        let read = k * (tokens * f64::from(p.act.bytes()) + PLACE_BYTES);
        let scattered = k * tokens / f64::from(s.split.per_tile()) / 32.0 * SCATTER_WAVEFRONTS;
        Staging {
            instructions: k / 8.0 * tokens * X_SORTING,
            wavefronts: read / WAVEFRONT_BYTES + scattered,
            bytes: read,
            scatter_cycles: scattered,
        }
    }
}

/// Cycles in which the warps of a block add `bytes` of results in shared memory: those of every
/// warp along K are written and read once. A single one takes the same way, for coalesced stores.
fn warp_reduction(warps_k: u32, bytes: f64) -> f64 {
    BARRIER_CYCLES + 2.0 * warps_k as f64 * bytes / WAVEFRONT_BYTES
}

fn mma(p: &Problem, spec: &WeightSpec, arch: &Arch, s: &MmaSchedule, dequant: f64) -> Work {
    let (stages, tiles) = ring_stages(p, &Schedule::Mma(s.clone()));
    let weights = s.block_n as f64 * s.block_k as f64 * stages;
    let lane_instructions_per_weight = dequant + mma_overhead(p, spec, s);
    let tile = (FRAGMENT_N * s.row_tiles() * s.warp_k()) as f64;

    let weight_bytes = s.stage_weight_bytes(spec) as f64;
    let act_bytes = s.stage_act_bytes() as f64;
    let stage_bytes = s.stage_bytes(spec, p.k) as f64;
    let conflicts = if s.padded { 1.0 } else { CONFLICT };
    let read_bytes = weight_bytes + act_bytes * s.warps_n as f64 * conflicts;
    let results = (s.block_n * s.block_m) as f64 * 4.0;
    let lookups = scale_lookups(spec, p.k, s.segment_k(spec, p.k), weights);
    let table = Table::of(&s.dequant, weights).with_map(&s.dequant, lookups);
    Work {
        weights,
        lane_instructions_per_weight,
        setup_instructions: table.instructions,
        tensor_macs: weights * s.block_m as f64,
        tensor_macs_per_clock: tensor_rate(spec, arch.mma_macs_per_clock),
        fma: (0.0, arch.rates.fp32),
        l2_bytes: stage_bytes * stages,
        wavefronts: (stage_bytes + read_bytes) * stages / WAVEFRONT_BYTES + table.wavefronts(),
        batches: stages,
        batch_instructions: tile * lane_instructions_per_weight / 32.0,
        batch_tensor_cycles: tile * s.block_m as f64 * 4.0 / arch.mma_macs_per_clock,
        ahead: s.stages - 1,
        waits_for_x: 0,
        staged_bytes: 0.0,
        // Filled while the ring's first stages are on their way.
        fill_cycles: 0.0,
        reduction_cycles: tiles * warp_reduction(s.warps_k, results),
    }
}

/// Stages of the block that has most, and the output tiles to which it adds.
fn ring_stages(p: &Problem, schedule: &Schedule) -> (f64, f64) {
    match schedule.shares(p, p.m) {
        Some(shares) => (shares.longest() as f64, shares.most_tiles() as f64),
        None => (f64::from(schedule.steps(p.k).div_ceil(schedule.split().per_tile())), 1.0),
    }
}

/// Lane-instructions per weight of an `mma` main loop beside dequantization.
fn mma_overhead(p: &Problem, spec: &WeightSpec, s: &MmaSchedule) -> f64 {
    let (token_tiles, row_tiles) = (s.token_tiles() as f64, s.row_tiles() as f64);
    let fragment = (FRAGMENT_N * 16) as f64;
    // One `mma` for each fragment and token tile; one `ldmatrix.x4` brings two k16 steps of a
    // token tile, for all row tiles of the warp.
    let multiply = token_tiles * 32.0 / fragment;
    let load_x = token_tiles * 0.5 * 32.0 / (row_tiles * fragment);
    // A copy takes 16 bytes, which is a piece of 4-bit codes.
    let copies = COPY * spec.bits as f64 / 4.0;
    let pieces = (1.0 + further_loads(spec) + copies) / PIECE_K as f64;
    let copy_x = COPY_X * (s.block_m * 2) as f64 / 16.0 / s.block_n as f64;
    let segment = s.segment_k(spec, p.k) as f64;
    let params = SEGMENT_PARAMS * 32.0 / (FRAGMENT_N as f64 * segment);
    let stage = STAGE_LOOP * 32.0 / (FRAGMENT_N as f64 * row_tiles * s.warp_k() as f64);
    multiply + load_x + pieces + copy_x + params + stage
}

fn wgmma(p: &Problem, spec: &WeightSpec, arch: &Arch, s: &WgmmaSchedule, dequant: f64) -> Work {
    let (stages, tiles) = ring_stages(p, &Schedule::Wgmma(s.clone()));
    let stage_weights = (s.block_n * s.block_k) as f64;
    let weights = stage_weights * stages;
    let lane_instructions_per_weight = dequant + wgmma_overhead(p, spec, s);
    let stage_bytes = s.stage_bytes(spec, p.k) as f64;
    // Every row tile of every warpgroup reads the activations again.
    let row_tiles = (s.block_n / GROUP_ROWS) as f64;
    let read_bytes = stage_bytes + (row_tiles - 1.0) * s.stage_act_bytes() as f64;
    let results = (s.block_n * s.block_m) as f64 * 4.0;
    let lane_weights = stage_weights / s.consumer_threads() as f64;
    let lookups = scale_lookups(spec, p.k, s.segment_k(spec, p.k), weights);
    let table = Table::of(&s.dequant, weights).with_map(&s.dequant, lookups);
    Work {
        weights,
        lane_instructions_per_weight,
        setup_instructions: table.instructions,
        tensor_macs: weights * s.block_m as f64,
        tensor_macs_per_clock: tensor_rate(spec, WGMMA_MACS_PER_CLOCK),
        fma: (0.0, arch.rates.fp32),
        l2_bytes: (stage_bytes - f64::from(s.stage_act_bytes() - s.stage_own_act_bytes())) * stages,
        wavefronts: (stage_bytes + read_bytes) * stages / WAVEFRONT_BYTES + table.wavefronts(),
        batches: stages,
        batch_instructions: lane_weights * lane_instructions_per_weight,
        batch_tensor_cycles: stage_weights * s.block_m as f64 / WGMMA_MACS_PER_CLOCK,
        ahead: s.stages - 1,
        waits_for_x: 0,
        staged_bytes: 0.0,
        // The producer copies meanwhile.
        fill_cycles: 0.0,
        reduction_cycles: tiles * warp_reduction(1, results),
    }
}

/// Lane-instructions per weight of a `wgmma` block beside dequantization, all roles.
fn wgmma_overhead(p: &Problem, spec: &WeightSpec, s: &WgmmaSchedule) -> f64 {
    let row_tiles = s.row_tiles() as f64;
    // A lane has 8 weights of each fragment; its row tiles share the descriptor.
    let multiply = (1.0 + (GROUP_MULTIPLY - 1.0) / row_tiles) / 8.0;
    let unit = (GROUP_UNIT + further_loads(spec)) / PIECE_K as f64;
    let params = GROUP_SEGMENT_PARAMS * 2.0 / s.segment_k(spec, p.k) as f64;
    let stage = GROUP_STAGE_LOOP + s.split.stream().map_or(0.0, |_| GROUP_STREAM_LOOP);
    let stage = stage * 2.0 / (row_tiles * s.block_k as f64);
    let producer = PRODUCER_STAGE * 32.0 / (s.block_n * s.block_k) as f64;
    multiply + unit + params + stage + producer
}
