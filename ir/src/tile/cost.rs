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
//! | `tensor` | overlaps | multiply-accumulates of the busiest SM over the rate of `mma.sync` or `wgmma` |
//! | `fma` | overlaps | half2 or f32 FMAs of the busiest SM |
//! | `shared` | overlaps | wavefronts of shared memory and L1 of the busiest SM |
//! | `latency` | overlaps | waves times the time of a block alone (Little's law, per block) |
//! | `overlap` | adds | share of the throughput terms that do not bound |
//! | `launch`, `fill` | adds | kernel launch, first bytes |
//! | `staging` | adds | copying the activations and filling a table before the main loop, less what `fill` hides |
//! | `reduction` | adds | sums across lanes and warps |
//! | `split-k` | adds | sums across blocks |
//! | `dequantize` | adds | dequantizing all slabs, and the gaps between kernels |
//! | `sort` | adds | putting activations into the order of the columns, and the gap behind that, less what `fill` hides |
//! | `quantize` | adds | making codes of the activations, and the gap behind that, less what `fill` hides |
//!
//! Expect 30 % absolute error at best; a schedule that a device times is never ranked by this.

use super::ahead::{Behind, Prepares, Step};
use super::occupancy::{
    allocated_registers, bytes_in_flight_per_sm, grid_blocks, register_limit, registers,
    resident_blocks, Occupants,
};
use super::work::{count, Work};
use crate::{
    Arch, DequantSchedule, Epilogue, Problem, Raster, Schedule, Sorting, Split, WeightSpec,
    PAIR_CODES,
};

/// Reachable share of nominal DRAM bandwidth: load-only kernels reach 4.3 of the H200's 4.8 TB/s.
pub const DRAM_EFFICIENCY: f64 = 0.9;
/// Latency of DRAM under load in us: 700 to 900 ns on Hopper.
pub const DRAM_LATENCY_US: f64 = 0.8;
/// The same in cycles where nothing else is loaded: 450 to 800 in public microbenchmarks.
pub const IDLE_DRAM_CYCLES: f64 = 800.0;
/// From the launch of a kernel to its first instruction, in us, in a CUDA graph: 1 to 2 plus the
/// end of the kernel.
pub const LAUNCH_US: f64 = 2.5;
/// From the end of a kernel of a CUDA graph to the first instruction of one that depends on it, in us: about
/// 1.3 in published measurements of H100. Not measured here.
pub const KERNEL_GAP_US: f64 = 1.3;
/// The same, until its first loads have come from L2.
pub const BETWEEN_KERNELS_US: f64 = KERNEL_GAP_US + L2_LATENCY_US;
/// What programmatic dependent launch saves of [`KERNEL_GAP_US`] where the kernel ahead lets the next one
/// start at once, in us: 0.96 between two kernels of a CUDA graph that do nothing, in published
/// measurements of H100. Not measured here.
pub const DEPENDENT_SAVES_US: f64 = 0.96;
/// Wavefronts in which 32 lanes store to random places in shared memory: the fullest of 32 banks gets
/// 3.5 of 32 words on average (balls into bins).
pub const SCATTER_WAVEFRONTS: f64 = 3.5;
/// Lane-instructions per pair of codes and token tile where one `mma.m16n8k32` of 8-bit floats becomes 12
/// conversions, two multiplies of f16 and their sum (machine code for sm_90a): 15 for 256 pairs.
const FLOAT8_CONVERSIONS: f64 = 15.0 * 32.0 / 256.0;
/// Lane-instructions per weight of the kernel that dequantizes a slab, beside the term's own: load,
/// stores of 16 bytes, group parameters, addresses, loop.
pub const SLAB_INSTRUCTIONS: f64 = 0.6;
/// The wait of a dependent launch for a kernel ahead that has ended, in us. What it saves lies in the
/// kernel ahead (0.96 us a boundary at most) and is not modelled: only timings of a chain tell.
pub const DEPENDENT_US: f64 = 0.05;
/// From the first instruction to full bandwidth, in us.
pub const FILL_US: f64 = 1.5;
/// Publishing partial results, a fence and a counter in L2, and the last block's reads, in us.
pub const SPLIT_US: f64 = 1.0;
/// Two barriers of a cluster and a load from another block's shared memory between them, in us: about
/// 200 cycles each (arXiv 2402.13499 has 180 for such a load). Not measured here.
pub const CLUSTER_US: f64 = 0.35;
/// Latency of L2 in us: 200 to 270 cycles, on Hopper up to 150 more to the far partition.
pub const L2_LATENCY_US: f64 = 0.2;
/// Share of the nominal L2 rate that all SMs reach together: public microbenchmarks of H100 read
/// 5.5 to 7 TB/s from L2, where 64 bytes per clock and SM would be 15.
pub const L2_EFFICIENCY: f64 = 0.5;
/// Share of a throughput term that is not hidden under the longest one. Not measured.
pub const OVERLAP_LOSS: f64 = 0.02;
/// The same of the issue slots: instructions also delay the loads that are issued after them.
pub const ISSUE_LOSS: f64 = 0.05;
/// Cycles per instruction of one warp by itself: a dependent operation takes 4 to 5 cycles, and
/// unrolled dequantization has about two independent chains.
pub const CYCLES_PER_INSTRUCTION: f64 = 2.0;
/// Cycles until a barrier releases its last warp: 15 to 30.
pub const BARRIER_CYCLES: f64 = 30.0;
/// Share of L2 in which weights survive from one token tile to the next, or from the kernel that
/// dequantizes them to the one that multiplies.
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
    /// The roof in us: see [`roof_us`].
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
/// The position of `issue` in [`OVERLAPPING`].
const ISSUE: usize = 2;
/// Names of the terms that add, in the order of [`Times::adding`].
const ADDING: [&str; 9] =
    ["overlap", "launch", "fill", "staging", "reduction", "split-k", DEQUANTIZE, SORT, QUANTIZE];
/// The term that only schedules with slabs have.
const DEQUANTIZE: &str = "dequantize";
/// The term that only launches have which sort activations first.
const SORT: &str = "sort";
/// The position of [`SORT`] in [`ADDING`].
const SORT_AT: usize = ADDING.len() - 2;
/// The term that only launches have which quantize activations first.
const QUANTIZE: &str = "quantize";
/// The position of [`QUANTIZE`] in [`ADDING`].
const QUANTIZE_AT: usize = ADDING.len() - 1;

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
    /// Copying the activations before the main loop, nothing of it hidden.
    staging_us: f64,
}

/// Bytes that any kernel must move: weights, activations, bias, residual and output.
pub fn compulsory_bytes(p: &Problem, spec: &WeightSpec) -> u64 {
    let activations = p.m as u64 * p.k as u64 * p.act.bytes() as u64;
    let bias = u64::from(p.bias) * p.n as u64;
    let matrices = 1 + u64::from(p.epilogue == Epilogue::Residual);
    let outputs = p.columns() as u64 * p.m as u64 * matrices + bias;
    spec.compulsory_bytes(p.n, p.k) + activations + outputs * p.out.bytes() as u64
}

/// What no kernel can beat, in us: the longer of compulsory bytes at nominal DRAM bandwidth and
/// multiply-accumulates at the rate of the fastest tensor instruction (Williams, Waterman and
/// Patterson, *Roofline*, CACM 52(4), 2009).
pub fn roof_us(p: &Problem, spec: &WeightSpec, arch: &Arch) -> f64 {
    let bytes_us = compulsory_bytes(p, spec) as f64 / (arch.dram_gb_per_s * 1000.0);
    // Codes of 8 bits are multiplied at twice the rate.
    let together = if spec.activations.are_quantized() { f64::from(PAIR_CODES) } else { 1.0 };
    let macs = f64::from(p.m) * f64::from(p.n) * f64::from(p.k) / together;
    let macs_per_us = arch.peak_macs_per_clock() * f64::from(arch.sm_count) * arch.clock_ghz * 1e3;
    bytes_us.max(macs / macs_per_us)
}

/// Bytes that this schedule moves from and to DRAM.
fn dram_bytes(p: &Problem, spec: &WeightSpec, arch: &Arch, schedule: &Schedule) -> f64 {
    let (block_n, block_m) = schedule.tile();
    let k = schedule.padded_k(p.k);
    let n = p.n.next_multiple_of(block_n);
    let groups = spec.group.count(p.k) as f64;
    let codes = n as f64 * k as f64 * spec.bits as f64 / 8.0;
    let param_rows = match schedule {
        Schedule::Gemv(_) => spec.group.param_rows(n),
        // A tile of fewer rows than share parameters has a copy of them.
        _ => n / block_n.max(1) * spec.group.param_rows(block_n),
    };
    let params = f64::from(param_rows) * groups * schedule.param_bytes(spec, p.k);
    let rest = compulsory_bytes(p, spec) - spec.compulsory_bytes(p.n, p.k);
    let written = match (schedule.shares(p, p.m), schedule.split().per_tile()) {
        (Some(shares), _) => shares.most_parts() as f64 * f64::from(block_n * block_m),
        (None, _) if !schedule.split().in_global() => 0.0,
        (None, blocks) => f64::from(blocks) * p.m.next_multiple_of(block_m) as f64 * n as f64,
    };
    let partials = 2.0 * written * 4.0;
    (codes + params) * weight_reads(p, spec, arch, schedule) + rest as f64 + partials
}

/// How often the weights come from DRAM: once for each token tile, unless they stay in L2 or the
/// blocks that share them run one after the other.
fn weight_reads(p: &Problem, spec: &WeightSpec, arch: &Arch, schedule: &Schedule) -> f64 {
    let kept = spec.compulsory_bytes(p.n, p.k) as f64 <= L2_KEEPS * arch.l2_bytes as f64;
    match kept || schedule.raster() == Raster::Tokens {
        true => 1.0,
        false => p.m.div_ceil(schedule.tile().1) as f64,
    }
}

/// A block by itself, in us: every wait of its main loop takes the DRAM latency, shared by the
/// batches that are loaded ahead, or the compute between two waits where that is longer.
/// Activations that are not staged are asked for when a step uses them: one more wait, for L2.
fn block_alone_us(work: &Work, clocks_per_us: f64) -> f64 {
    let compute = (work.batch_instructions * CYCLES_PER_INSTRUCTION).max(work.batch_tensor_cycles);
    let compute = compute / clocks_per_us;
    let activations = work.waits_for_x as f64 * L2_LATENCY_US;
    let batch = match work.ahead {
        0 => DRAM_LATENCY_US + activations + compute,
        ahead => (DRAM_LATENCY_US / ahead as f64).max(compute) + BARRIER_CYCLES / clocks_per_us,
    };
    work.batches * batch
}

/// The terms that overlap, in us, in the order of [`OVERLAPPING`].
fn overlapping(
    arch: &Arch,
    work: &Work,
    blocks: u64,
    waves: u64,
    dram_bytes: f64,
) -> [f64; OVERLAPPING.len()] {
    let clocks_per_us = arch.clock_ghz * 1000.0;
    // Of the busiest SM.
    let per_sm = blocks.div_ceil(arch.sm_count as u64) as f64 / clocks_per_us;
    let warp_weights = work.weights / 32.0;
    let setup = work.setup_instructions / 32.0;
    let instructions = warp_weights * work.lane_instructions_per_weight + setup;
    [
        dram_bytes / (arch.dram_gb_per_s * 1000.0 * DRAM_EFFICIENCY),
        per_sm * work.l2_bytes / (arch.l2_bytes_per_clock * L2_EFFICIENCY),
        per_sm * instructions / arch.rates.issue,
        per_sm * work.tensor_macs / work.tensor_macs_per_clock,
        per_sm * warp_weights * work.fma.0 / work.fma.1,
        per_sm * work.wavefronts,
        waves as f64 * block_alone_us(work, clocks_per_us),
    ]
}

/// The numbers of [`estimate`].
pub(super) fn times(
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    dequant: f64,
) -> Times {
    let mut t = match (schedule, schedule.in_pairs(p, spec)) {
        (Schedule::Dequant(s), _) => slab_times(p, spec, arch, s, dequant),
        (_, Some(pairs)) => {
            let around = dequant + float8_conversions(spec, arch, schedule);
            kernel_times(&pairs.problem, &pairs.spec, arch, &pairs.schedule, around)
        }
        _ => kernel_times(p, spec, arch, schedule, dequant),
    };
    if let Some(step) = Step::of(p, spec, arch, schedule) {
        let added = step.adds_us(arch, &t.behind(arch, schedule));
        let at = match step.prepares {
            Prepares::Order => SORT_AT,
            Prepares::Codes => QUANTIZE_AT,
        };
        t.adding[at] = added;
        t.time_us += added;
    }
    t
}

/// Lane-instructions per pair of codes that `mma` of 8-bit floats takes where it is made of f16 ones.
fn float8_conversions(spec: &WeightSpec, arch: &Arch, schedule: &Schedule) -> f64 {
    let expanded = spec.activations.are_float8() && !arch.has_float8_mma();
    match schedule {
        Schedule::Mma(s) if expanded => FLOAT8_CONVERSIONS * f64::from(s.token_tiles()),
        _ => 0.0,
    }
}

/// Slab after slab: the multiplication of one, as often as there are slabs, but that its weights
/// come from L2; and before each of them the kernel that dequantizes it.
fn slab_times(
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    s: &DequantSchedule,
    dequant: f64,
) -> Times {
    let slabs = f64::from(s.slabs(p.n));
    let slab = Problem { n: s.slab.min(p.n), ..p.clone() };
    // A library's multiplication is known as that of the whole schedule.
    let multiplication = s.multiplication().unwrap_or_else(|| Schedule::Dequant(s.clone()));
    let mut t = kernel_times(&slab, &WeightSpec::dense(), arch, &multiplication, 0.0);
    t.waves *= u64::from(s.slabs(p.n));
    t.blocks = grid_blocks(p, &multiplication);
    t.overlapping.iter_mut().for_each(|us| *us *= slabs);
    let activations = f64::from(p.m) * f64::from(p.k) * f64::from(p.act.bytes());
    let kept = activations <= L2_KEEPS * arch.l2_bytes as f64;
    let again = if kept { 0.0 } else { (slabs - 1.0) * activations };
    let beside = compulsory_bytes(p, spec) - spec.compulsory_bytes(p.n, p.k);
    t.dram_bytes = beside as f64 + again;
    t.overlapping[0] = t.dram_bytes / (arch.dram_gb_per_s * 1000.0 * DRAM_EFFICIENCY);
    t.adding[SORT_AT - 1] = dequantize_us(p, spec, arch, s, dequant);
    let reductions = &mut t.adding[4];
    *reductions *= slabs;
    let longest = t.overlapping.iter().copied().fold(0.0, f64::max);
    let hidden = t.overlapping.iter().sum::<f64>() - longest;
    t.adding[0] = hidden * OVERLAP_LOSS + t.overlapping[ISSUE] * (ISSUE_LOSS - OVERLAP_LOSS);
    t.time_us = longest + t.adding.iter().sum::<f64>();
    t
}

/// All slabs' way from packed codes to 16-bit floats in L2, in us, with the gaps between kernels.
fn dequantize_us(
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    s: &DequantSchedule,
    dequant: f64,
) -> f64 {
    let weights = f64::from(p.n) * f64::from(s.padded_k(p.k));
    let packed = spec.compulsory_bytes(p.n, s.padded_k(p.k)) as f64;
    let gpu_clocks_per_us = arch.clock_ghz * 1000.0 * f64::from(arch.sm_count);
    let l2 = arch.l2_bytes_per_clock * L2_EFFICIENCY * gpu_clocks_per_us;
    let instructions = weights * (dequant + SLAB_INSTRUCTIONS) / 32.0;
    // What L2 does not keep is written to DRAM and read again.
    let spilled = s.slab_bytes(p.k) as f64 > L2_KEEPS * arch.l2_bytes as f64;
    let through_dram = if spilled { packed + 2.0 * 2.0 * weights } else { packed };
    let pass = [
        through_dram / (arch.dram_gb_per_s * 1000.0 * DRAM_EFFICIENCY),
        (packed + 2.0 * weights) / l2,
        instructions / (arch.rates.issue * gpu_clocks_per_us),
    ];
    let kernels = 2.0 * f64::from(s.slabs(p.n)) - 1.0;
    pass.into_iter().fold(0.0, f64::max) + kernels * BETWEEN_KERNELS_US
}

/// The numbers of [`estimate`] of a schedule that is one kernel.
fn kernel_times(
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    dequant: f64,
) -> Times {
    let registers = registers(p, spec, schedule);
    let shared_bytes = schedule.shared_bytes(p, spec);
    let allocated = allocated_registers(schedule, registers);
    let resident = match registers <= register_limit(schedule) {
        true => resident_blocks(arch, schedule.threads(), allocated, shared_bytes),
        false => 0,
    };
    let work = count(p, spec, arch, schedule, dequant);
    let blocks = grid_blocks(p, schedule);
    let waves = blocks.div_ceil(arch.sm_count as u64 * resident.max(1) as u64);
    let dram_bytes = dram_bytes(p, spec, arch, schedule);
    let overlapping = overlapping(arch, &work, blocks, waves, dram_bytes);
    let longest = overlapping.iter().copied().fold(0.0, f64::max);
    let hidden = overlapping.iter().sum::<f64>() - longest;
    // Also when the issue slots bound: a term that grows must never make the time shrink.
    let overlap = hidden * OVERLAP_LOSS + overlapping[ISSUE] * (ISSUE_LOSS - OVERLAP_LOSS);
    let clocks_per_us = arch.clock_ghz * 1000.0;
    let staging = match work.staged_bytes {
        0.0 => 0.0,
        bytes => L2_LATENCY_US + bytes / (arch.l2_bytes_per_clock * L2_EFFICIENCY) / clocks_per_us,
    };
    // A block's table is filled while other blocks load; only the first wave has nothing else to do.
    let staging = staging + work.fill_cycles / clocks_per_us;
    // The first weights are on their way to L2 before.
    let asked = schedule.overlap().pdl || schedule.sorting(spec) == Sorting::Prologue;
    let exposed = if asked { (staging - FILL_US).max(0.0) } else { staging };
    let split = match schedule.split() {
        Split::NONE => 0.0,
        Split::Cluster(_) => CLUSTER_US + exchange_us(arch, schedule),
        Split::Blocks(_) | Split::Stream(_) => SPLIT_US,
    };
    let reduction = work.reduction_cycles / clocks_per_us;
    let launch = LAUNCH_US + if schedule.overlap().pdl { DEPENDENT_US } else { 0.0 };
    let fill = FILL_US + if schedule.multicast() > 1 { CLUSTER_US } else { 0.0 };
    let adding = [overlap, launch, fill, exposed, reduction, split, 0.0, 0.0, 0.0];
    Times {
        time_us: longest + adding.iter().sum::<f64>(),
        registers,
        shared_bytes,
        resident,
        overlapping,
        adding,
        work,
        waves,
        blocks,
        dram_bytes,
        staging_us: staging,
    }
}

/// Partial sums on their way between the blocks of a cluster, in us: each block reads its part of the
/// tile from all of them, a tile's worth. Priced like reads of L2; not measured.
fn exchange_us(arch: &Arch, schedule: &Schedule) -> f64 {
    let (rows, tokens) = schedule.tile();
    let bytes = f64::from(rows * tokens) * 4.0;
    bytes / (arch.l2_bytes_per_clock * L2_EFFICIENCY) / (arch.clock_ghz * 1000.0)
}

/// Models a schedule that [`Schedule::check`] accepts.
///
/// `dequant` is lane-instructions per weight from a packed code to the operand of the
/// multiplication: unpacking, conversion, scale, zero-point and corrections, as the dequantization
/// algebra counts them, but not the multiplication nor the widening that the engine needs.
pub fn estimate(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    dequant: f64,
) -> Estimate {
    let t = times(problem, spec, arch, schedule, dequant);
    let mut bound = 0;
    for (index, us) in t.overlapping.iter().enumerate() {
        if *us > t.overlapping[bound] {
            bound = index;
        }
    }
    Estimate {
        time_us: t.time_us,
        terms: t.terms(arch, schedule),
        bound: OVERLAPPING[bound],
        roof_us: roof_us(problem, spec, arch),
        blocks: t.blocks,
        registers: t.registers,
        shared_bytes: t.shared_bytes,
        resident_blocks: t.resident,
        waves: t.waves,
        bytes_in_flight_per_sm: bytes_in_flight_per_sm(
            problem,
            spec,
            arch,
            schedule,
            allocated_registers(schedule, t.registers),
        ),
        lane_instructions_per_weight: t.work.lane_instructions_per_weight,
    }
}

impl Times {
    /// What a step ahead has to know of this kernel.
    fn behind(&self, arch: &Arch, schedule: &Schedule) -> Behind {
        let of_grid = self.blocks.div_ceil(u64::from(arch.sm_count));
        Behind {
            dependent: schedule.overlap().pdl,
            asked: arch.has_bulk_copies()
                && matches!(schedule, Schedule::Mma(_) | Schedule::Wgmma(_)),
            occupants: Occupants {
                blocks: of_grid.min(u64::from(self.resident)) as u32,
                threads: schedule.threads(),
                registers: allocated_registers(schedule, self.registers),
                shared_bytes: self.shared_bytes,
            },
            staging_us: self.staging_us,
        }
    }

    fn terms(&self, arch: &Arch, schedule: &Schedule) -> Vec<Term> {
        let w = &self.work;
        let per_sm = self.blocks.div_ceil(arch.sm_count as u64);
        let detail = |name: &str| match name {
            "dram" => {
                let rate = arch.dram_gb_per_s * DRAM_EFFICIENCY;
                format!("{:.2} MB at {rate:.0} GB/s", self.dram_bytes / 1e6)
            }
            "l2" => format!("{per_sm} blocks of {:.0} KB per SM", w.l2_bytes / 1e3),
            "issue" => format!("{:.2} instructions per weight", w.lane_instructions_per_weight),
            "tensor" => format!("{:.2} M products per block", w.tensor_macs / 1e6),
            "fma" => format!("{:.2} FMAs per weight", w.fma.0),
            "shared" => format!("{:.0} wavefronts per block", w.wavefronts),
            "latency" => format!(
                "{} waves of {} waits, {} ahead, {} resident blocks",
                self.waves, w.batches, w.ahead, self.resident
            ),
            "overlap" => {
                let (loss, issue) = (OVERLAP_LOSS * 100.0, ISSUE_LOSS * 100.0);
                format!("{loss:.0} % of the terms that do not bound, {issue:.0} % of `issue`")
            }
            "launch" => "from the launch to the first instruction".into(),
            "fill" if schedule.multicast() > 1 => {
                "to full bandwidth, two barriers of a cluster".into()
            }
            "fill" => "from the first instruction to full bandwidth".into(),
            "staging" => format!("{:.0} bytes of activations per block", w.staged_bytes),
            "reduction" => format!("{:.0} cycles across lanes and warps", w.reduction_cycles),
            DEQUANTIZE => "all slabs through L2, and the gaps between kernels".into(),
            SORT => "activations into the order of the columns, as far as not hidden".into(),
            QUANTIZE => "codes of the activations, as far as not hidden".into(),
            _ => match schedule.split() {
                Split::Blocks(blocks) => format!("{blocks} blocks per output tile"),
                Split::Cluster(blocks) => format!("{blocks} blocks of a cluster per output tile"),
                Split::Stream(_) => "the tiles in which shares end".into(),
            },
        };
        let rows = OVERLAPPING.iter().zip(&self.overlapping).map(|(name, us)| (name, us, false));
        let rows = rows.chain(ADDING.iter().zip(&self.adding).map(|(name, us)| (name, us, true)));
        let slabs = matches!(schedule, Schedule::Dequant(_));
        let rows = rows.filter(|(name, us, _)| match **name {
            DEQUANTIZE => slabs,
            SORT | QUANTIZE => **us > 0.0,
            _ => true,
        });
        rows.map(|(&name, &us, adds)| Term { name, us, adds, detail: detail(name) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{awq, h200, problem};
    use super::*;
    use crate::Group;

    const SCHEDULES: [&str; 10] = [
        "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal dequant=(sum x)",
        "gemv tokens=4 rows=2 lanes=8 warps=2x4 unroll=2 split=1 x=shared acc=half2 cache=stream dequant=(sum x)",
        "gemv tokens=1 rows=4 lanes=32 warps=4x1 unroll=4 split=4 x=global acc=half2 cache=stream dequant=(sum x)",
        "gemv tokens=1 rows=4 lanes=32 warps=4x1 unroll=4 split=4@cluster x=global acc=half2 cache=stream dequant=(sum x)",
        "mma tile=16x128x128 warps=2x2 stages=4 split=1 pad=16 raster=rows dequant=(sum x)",
        "mma tile=32x64x64 warps=1x1 stages=1 split=3 pad=0 raster=tokens dequant=(* s (sum x))",
        "mma tile=8x32x512 warps=1x4 stages=6 split=2 pad=16 raster=rows dequant=(sum x)",
        "mma tile=16x64x256 warps=1x4 stages=4 split=stream:264 pad=16 raster=rows dequant=(sum x)",
        "wgmma tile=64x128x128 groups=2 stages=4 split=1 producer=warp raster=tokens dequant=(sum x)",
        "wgmma tile=16x64x256 groups=1 stages=3 split=2 producer=warp raster=rows dequant=(* s (sum x))",
    ];

    fn schedules() -> Vec<Schedule> {
        SCHEDULES.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn time(p: &Problem, spec: &WeightSpec, arch: &Arch, schedule: &Schedule) -> f64 {
        estimate(p, spec, arch, schedule, 1.2).time_us
    }

    #[test]
    fn more_bytes_are_never_faster() {
        let (spec, arch) = (awq(), h200());
        for schedule in schedules() {
            let mut last = [0.0; 3];
            for i in 1..40 {
                let times = [
                    time(&problem(1024 * i, 5120, 16), &spec, &arch, &schedule),
                    time(&problem(5120, 1024 * i, 16), &spec, &arch, &schedule),
                    time(&problem(5120, 5120, 4 * i), &spec, &arch, &schedule),
                ];
                for (now, before) in times.iter().zip(last) {
                    assert!(*now >= before, "{schedule} at {i}: {now} < {before}");
                }
                last = times;
            }
        }
    }

    #[test]
    fn finer_groups_are_never_faster() {
        let arch = h200();
        for schedule in schedules() {
            let by_group = |size| {
                let spec = WeightSpec { group: Group::Size(size), ..awq() };
                time(&problem(55296, 5120, 16), &spec, &arch, &schedule)
            };
            assert!(by_group(32) >= by_group(64) && by_group(64) >= by_group(128));
        }
    }

    #[test]
    fn tiles_of_fewer_rows_than_share_parameters_have_copies() {
        let (p, arch) = (problem(4096, 4096, 16), h200());
        let bytes = |rows, tile: &str| {
            let spec = WeightSpec { group: Group::Rows(rows), ..awq() };
            let text = format!(
                "mma tile={tile} warps=1x1 stages=2 split=1 pad=16 raster=rows dequant=(sum x)"
            );
            dram_bytes(&p, &spec, &arch, &text.parse().unwrap()).round()
        };
        let copied = bytes(64, "16x16x64") - bytes(64, "16x64x64");
        let of_row = 4096 * awq().packed_param_bytes();
        // The roof counts one for 64 rows.
        assert_eq!(copied, f64::from((4096 / 16 - 4096 / 64) * of_row));
        assert_eq!(bytes(64, "16x64x64"), bytes(64, "16x128x64"));
    }

    #[test]
    fn more_processors_or_bandwidth_are_never_slower() {
        let (spec, p) = (awq(), problem(7168, 5120, 16));
        for schedule in schedules() {
            let with = |sm_count, dram_gb_per_s| {
                let arch = Arch { sm_count, dram_gb_per_s, ..h200() };
                time(&p, &spec, &arch, &schedule)
            };
            for sms in 1..200 {
                assert!(with(sms + 1, 4800.0) <= with(sms, 4800.0), "{schedule} on {sms}");
            }
            assert!(with(132, 4800.0) <= with(132, 3350.0));
        }
    }

    #[test]
    fn the_roof_is_bandwidth_for_few_tokens_and_arithmetic_for_many() {
        let (spec, arch) = (awq(), h200());
        let roof = |m| roof_us(&problem(7168, 5120, m), &spec, &arch);
        assert!(roof(64) < 1.2 * roof(1));
        assert!((roof(4096) / roof(2048) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_time_is_the_longest_overlapping_term_and_all_that_add() {
        let (spec, arch, p) = (awq(), h200(), problem(7168, 5120, 16));
        for schedule in schedules() {
            let e = estimate(&p, &spec, &arch, &schedule, 1.2);
            let adds: f64 = e.terms.iter().filter(|t| t.adds).map(|t| t.us).sum();
            let longest = e.terms.iter().filter(|t| !t.adds).max_by(|a, b| a.us.total_cmp(&b.us));
            let longest = longest.unwrap();
            assert_eq!(longest.name, e.bound);
            assert!((longest.us + adds - e.time_us).abs() < 1e-9);
            assert!(e.time_us > e.roof_us);
        }
    }

    #[test]
    fn what_slows_a_kernel_down_is_seen() {
        let (spec, arch) = (awq(), h200());
        let slower = |p: &Problem, from: &str, to: &str, index: usize| {
            let fast = SCHEDULES[index];
            let slow = fast.replace(from, to);
            assert_ne!(fast, slow);
            let time = |text: &str| time(p, &spec, &arch, &text.parse().unwrap());
            assert!(time(&slow) > time(fast), "{to}");
        };
        let (single, many) = (problem(55296, 5120, 1), problem(55296, 5120, 64));
        slower(&single, "warps=2x4 unroll=2", "warps=1x1 unroll=1", 1);
        slower(&many, "pad=16", "pad=0", 4);
        slower(&many, "raster=tokens", "raster=rows", 5);
        slower(&many, "stages=4", "stages=1", 4);
    }
}
