//! The analytic cost model: what a schedule takes before it is compiled, good for ranking.
//!
//! Throughput terms overlap, so the longest counts; fixed terms add. A small share of the other
//! throughput terms adds too, because overlap is never perfect: of two schedules that the same
//! resource bounds, the one that strains the others less ranks first.
//!
//! | term | kind | what |
//! |---|---|---|
//! | `dram` | overlaps | compulsory and repeated bytes over the reachable DRAM bandwidth |
//! | `l2` | overlaps | bytes that the busiest SM takes from L2 |
//! | `issue` | overlaps | all instructions of the busiest SM over its issue slots |
//! | `tensor` | overlaps | multiply-accumulates of the busiest SM over the `mma.sync` rate |
//! | `fma` | overlaps | half2 or f32 FMAs of the busiest SM |
//! | `shared` | overlaps | wavefronts of shared memory and L1 of the busiest SM |
//! | `latency` | overlaps | waves times the time of a block alone (Little's law, per block) |
//! | `overlap` | adds | share of the throughput terms that do not bound |
//! | `launch`, `fill` | adds | kernel launch, first bytes |
//! | `staging` | adds | copying the activations before the main loop |
//! | `reduction` | adds | sums across lanes and warps |
//! | `split-k` | adds | sums across blocks |
//!
//! Expect 30 % absolute error at best; a schedule that a device times is never ranked by this.

use super::occupancy::{bytes_in_flight_per_sm, grid_blocks, registers, resident_blocks};
use super::work::{count, Work};
use crate::{Arch, Problem, Raster, Schedule, WeightSpec};

/// Reachable share of nominal DRAM bandwidth: load-only kernels reach 4.3 of the H200's 4.8 TB/s.
pub const DRAM_EFFICIENCY: f64 = 0.9;
/// Latency of DRAM under load in us: 700 to 900 ns on Hopper.
pub const DRAM_LATENCY_US: f64 = 0.8;
/// From the launch of a kernel to its first instruction, in us, in a CUDA graph: 1 to 2 plus the
/// end of the kernel.
pub const LAUNCH_US: f64 = 2.5;
/// From the first instruction to full bandwidth, in us.
pub const FILL_US: f64 = 1.5;
/// Publishing partial results, a fence and a counter in L2, and the last block's reads, in us.
pub const SPLIT_US: f64 = 1.0;
/// Latency of L2 in us: 200 to 270 cycles, on Hopper up to 150 more to the far partition.
pub const L2_LATENCY_US: f64 = 0.2;
/// Share of throughput terms that is not hidden under the longest one. Not measured.
pub const OVERLAP_LOSS: f64 = 0.02;
/// Cycles per instruction of one warp by itself: a dependent operation takes 4 to 5 cycles, and
/// unrolled dequantization has about two independent chains.
pub const CYCLES_PER_INSTRUCTION: f64 = 2.0;
/// Cycles until a barrier releases its last warp: 15 to 30.
pub const BARRIER_CYCLES: f64 = 30.0;
/// Share of L2 in which weights survive from one token tile to the next.
pub const L2_KEEPS: f64 = 0.5;

/// One term of the modelled time.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Term {
    /// Name in the table of this module.
    pub name: &'static str,
    /// Microseconds.
    pub us: f64,
    /// Whether it adds to the time; of the others only the longest counts.
    pub adds: bool,
    /// The numbers behind it.
    pub detail: String,
}

/// The modelled cost of a schedule.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Modelled time in us.
    pub time_us: f64,
    /// Where it comes from.
    pub terms: Vec<Term>,
    /// The throughput term that decides.
    pub bound: &'static str,
    /// The roof in us: compulsory bytes at nominal DRAM bandwidth.
    pub roof_us: f64,
    /// Thread blocks of the launch.
    pub blocks: u64,
    /// Registers per thread, estimated.
    pub registers: u32,
    /// Dynamic shared memory per block in bytes.
    pub shared_bytes: u32,
    /// Blocks that one SM can hold.
    pub resident_blocks: u32,
    /// Waves of blocks over all SMs.
    pub waves: u64,
    /// Bytes in flight per SM at the main loop's steady-state wait.
    pub bytes_in_flight_per_sm: u64,
    /// Lane-instructions per weight of the main loop, dequantization included.
    pub lane_instructions_per_weight: f64,
}

/// Names of the terms that overlap, in the order of [`Times::overlapping`].
const OVERLAPPING: [&str; 7] = ["dram", "l2", "issue", "tensor", "fma", "shared", "latency"];
/// Names of the terms that add, in the order of [`Times::adding`].
const ADDING: [&str; 6] = ["overlap", "launch", "fill", "staging", "reduction", "split-k"];

/// The numbers of an estimate, without text: the extractor computes this for every nest.
pub(super) struct Times {
    pub time_us: f64,
    pub registers: u32,
    pub shared_bytes: u32,
    pub resident: u32,
    overlapping: [f64; OVERLAPPING.len()],
    adding: [f64; ADDING.len()],
    work: Work,
    waves: u64,
    blocks: u64,
    dram_bytes: f64,
}

/// Bytes that any kernel must move: weights, activations, bias and output.
pub fn compulsory_bytes(p: &Problem, spec: &WeightSpec) -> u64 {
    let activations = p.m as u64 * p.k as u64 * p.act.bytes() as u64;
    let rows = p.m as u64 + u64::from(p.bias);
    let outputs = p.n as u64 * rows * p.out.bytes() as u64;
    spec.compulsory_bytes(p.n, p.k) + activations + outputs
}

/// Bytes that this schedule moves from and to DRAM.
fn dram_bytes(p: &Problem, spec: &WeightSpec, schedule: &Schedule) -> f64 {
    let (block_n, block_m) = schedule.tile();
    let k = match schedule {
        Schedule::Gemv(s) => s.padded_k(p.k),
        Schedule::Mma(s) => s.padded_k(p.k),
    };
    let n = p.n.next_multiple_of(block_n);
    let groups = spec.group.count(p.k) as f64;
    let codes = n as f64 * k as f64 * spec.bits as f64 / 8.0;
    let params = n as f64 * groups * spec.packed_param_bytes() as f64;
    let rest = compulsory_bytes(p, spec) - spec.compulsory_bytes(p.n, p.k);
    let partials = match schedule.split_k() {
        1 => 0.0,
        blocks => 2.0 * blocks as f64 * (p.m.next_multiple_of(block_m)) as f64 * n as f64 * 4.0,
    };
    (codes + params) * weight_reads(p, schedule) + rest as f64 + partials
}

/// How often the weights come from DRAM: once for each token tile, unless the blocks that share
/// them run one after the other.
fn weight_reads(p: &Problem, schedule: &Schedule) -> f64 {
    match schedule {
        Schedule::Mma(s) if s.raster == Raster::Tokens => 1.0,
        _ => p.m.div_ceil(schedule.tile().1) as f64,
    }
}

/// [`weight_reads`] where weights that stay in L2 are free after the first token tile.
fn reads_beyond_l2(p: &Problem, spec: &WeightSpec, arch: &Arch) -> bool {
    spec.compulsory_bytes(p.n, p.k) as f64 > L2_KEEPS * arch.l2_bytes as f64
}
