//! What one iteration of the main loop costs an SM, from the machine code.
//!
//! For every resource, cycles per iteration and thread block as if it were the only one: warp
//! instructions of the loop body by pipe over the pipe's rate, multiply-accumulates of the tensor
//! instructions over their rate, and from a simulated launch wavefronts of shared memory (bank
//! conflicts included) and bytes of global memory. The longest binds. Resident blocks say how many
//! iterations of different blocks can overlap.
//!
//! This explains a kernel that is compiled; candidates are pruned before that by the analytic
//! model, [`qtune_ir::tile::estimate`].

use crate::instructions::MainLoop;
use qtune_device::{KernelImage, LaunchOutcome};
use qtune_ir::arch::WGMMA_MACS_PER_CLOCK;
use qtune_ir::tile::cost::DRAM_EFFICIENCY;
use qtune_ir::tile::{occupancy, resident_blocks};
use qtune_ir::{Arch, DType, Schedule, WeightSpec};
use qtune_sim::sass::Class;

/// The term of tensor instructions.
const TENSOR: &str = "tensor";
/// Bytes of a sector of global memory.
const SECTOR_BYTES: f64 = 32.0;

/// Cycles that one resource needs for one iteration of one thread block.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct IterationTerm {
    /// The resource.
    pub name: &'static str,
    /// Cycles of the SM clock.
    pub cycles: f64,
    /// The numbers behind it.
    pub detail: String,
}

/// One iteration of a kernel's main loop.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Iteration {
    /// Longest first; resources that the loop does not use are left out.
    pub terms: Vec<IterationTerm>,
    /// Name of the longest term.
    pub bound: &'static str,
    /// Warp instructions of one warp, the loops inside included.
    pub instructions: f64,
    /// Warps of a thread block that execute the loop.
    pub warps: u32,
    /// Iterations of one thread block.
    pub iterations: f64,
    /// Thread blocks of the launch.
    pub blocks: u64,
    /// Thread blocks that an SM holds at once.
    pub resident_blocks: u32,
    /// Time of all iterations on the busiest SM if only the longest term counted, in microseconds.
    pub main_loop_us: f64,
}

impl Iteration {
    /// How long the tensor instructions keep their pipe busy, over the longest of all terms.
    pub fn tensor_share(&self) -> f64 {
        let cycles = |term: &IterationTerm| term.cycles;
        let tensor = self.terms.iter().find(|term| term.name == TENSOR).map_or(0.0, cycles);
        tensor / self.terms.iter().map(cycles).fold(f64::MIN_POSITIVE, f64::max)
    }
}

/// One main-loop iteration of `image`. `launch` is a simulated launch of it; without its counters
/// the terms of shared and global memory are left out. `None` if the machine code has no main
/// loop, as for very short K.
pub fn iteration(
    image: &KernelImage,
    spec: &WeightSpec,
    arch: &Arch,
    launch: &LaunchOutcome,
) -> Option<Iteration> {
    let body = MainLoop::of(image, spec)?;
    let kernel = &image.kernel;
    let warps = loop_warps(&kernel.schedule);
    let mut terms = pipe_terms(&body, arch, kernel.problem.act, f64::from(warps));
    // Pairs of 8-bit codes are multiplied at the rate of 16-bit floats.
    let pairs = kernel.schedule.in_pairs(&kernel.problem, spec).map(|pairs| pairs.schedule);
    terms.push(tensor_term(&body, arch, pairs.as_ref().unwrap_or(&kernel.schedule)));
    terms.extend(memory_terms(body.iterations, arch, launch));
    terms.retain(|term| term.cycles > 0.0);
    terms.sort_by(|a, b| b.cycles.total_cmp(&a.cycles));
    let (bound, cycles) = terms.first().map(|term| (term.name, term.cycles))?;
    let blocks = occupancy::grid_blocks(&kernel.problem, &kernel.schedule);
    let of_busiest = blocks.div_ceil(u64::from(arch.sm_count)) as f64;
    let resources = &image.resources;
    Some(Iteration {
        terms,
        bound,
        instructions: body.total(),
        warps,
        iterations: body.iterations,
        blocks,
        resident_blocks: resident_blocks(
            arch,
            kernel.coded().threads,
            resources.registers,
            resources.shared_bytes(),
        ),
        main_loop_us: of_busiest * body.iterations * cycles / (arch.clock_ghz * 1e3),
    })
}

fn pipe_terms(body: &MainLoop, arch: &Arch, act: DType, warps: f64) -> Vec<IterationTerm> {
    let rates = &arch.rates;
    let half2 = if act == DType::Bf16 { rates.bf162 } else { rates.half2 };
    let pipe = |name, count: f64, rate: f64| IterationTerm {
        name,
        cycles: count * warps / rate,
        detail: format!("{count:.0} instructions x {warps:.0} warps, {rate} a cycle"),
    };
    let (imad, fp32) = (body.count(&[Class::Imad]), body.count(&[Class::Fp32]));
    vec![
        pipe("issue", body.total(), rates.issue),
        pipe("alu", body.count(&[Class::Alu, Class::Pack]), rates.int),
        IterationTerm {
            name: "fma",
            cycles: (imad / rates.int + fp32 / rates.fp32) * warps,
            detail: format!(
                "{imad:.0} IMAD at {} and {fp32:.0} FFMA at {} a cycle x {warps:.0} warps",
                rates.int, rates.fp32
            ),
        },
        pipe("half", body.count(&[Class::Half2]), half2),
        pipe("convert", body.count(&[Class::Convert]), rates.convert),
    ]
}

/// Warps that execute the main loop; a producer's loop only copies.
fn loop_warps(schedule: &Schedule) -> u32 {
    match schedule {
        Schedule::Wgmma(s) => s.consumer_threads() / 32,
        Schedule::Dequant(s) => match s.multiplication() {
            Some(own) => loop_warps(&own),
            None => s.gemm.threads() / 32,
        },
        other => other.threads().div_ceil(32),
    }
}

/// Tensor instructions of a loop multiply a whole tile per step.
fn tensor_term(body: &MainLoop, arch: &Arch, schedule: &Schedule) -> IterationTerm {
    let (block_k, rate) = match schedule {
        Schedule::Gemv(_) => (0, arch.mma_macs_per_clock),
        Schedule::Mma(s) => (s.block_k, arch.mma_macs_per_clock),
        Schedule::Wgmma(s) => (s.block_k, WGMMA_MACS_PER_CLOCK),
        Schedule::Dequant(s) => match s.multiplication() {
            Some(own) => return tensor_term(body, arch, &own),
            // Nothing is multiplied while a slab is dequantized for a library.
            None => (0, arch.mma_macs_per_clock),
        },
    };
    let (rows, tokens) = schedule.tile();
    let macs = f64::from(rows) * f64::from(tokens) * f64::from(block_k) * body.steps;
    IterationTerm {
        name: TENSOR,
        cycles: macs / rate,
        detail: format!("{macs:.0} multiply-accumulates, {rate:.0} a cycle"),
    }
}

/// Prologue and epilogue are spread over the iterations: the counters are of the whole kernel.
fn memory_terms(iterations: f64, arch: &Arch, launch: &LaunchOutcome) -> Vec<IterationTerm> {
    let Some(counters) = &launch.counters else { return Vec::new() };
    let runs = launch.blocks_run as f64 * iterations;
    if runs <= 0.0 {
        return Vec::new();
    }
    let wavefronts = counters.shared().wavefronts as f64 / runs;
    let requested = counters.global_loads.sectors as f64 * SECTOR_BYTES / runs;
    let weights: u64 = ["weights", "params"]
        .into_iter()
        .filter_map(|name| counters.buffer(name))
        .map(|buffer| buffer.footprint_sectors)
        .sum();
    let distinct = weights as f64 * SECTOR_BYTES / runs;
    let share = arch.dram_gb_per_s * DRAM_EFFICIENCY / arch.clock_ghz / f64::from(arch.sm_count);
    vec![
        IterationTerm {
            name: "shared",
            cycles: wavefronts,
            detail: format!("{wavefronts:.0} wavefronts, one a cycle"),
        },
        IterationTerm {
            name: "l2",
            cycles: requested / arch.l2_bytes_per_clock,
            detail: format!("{requested:.0} bytes, {} a cycle", arch.l2_bytes_per_clock),
        },
        IterationTerm {
            name: "dram",
            cycles: distinct / share,
            detail: format!("{distinct:.0} bytes of weights, {share:.1} a cycle and SM"),
        },
    ]
}
