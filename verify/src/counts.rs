//! What a kernel costs, in numbers that decide its speed on a GPU that is not here.
//!
//! Memory counts come from a simulated launch, instruction counts from the machine code. The
//! definitions stand in `docs/verification.md`.

use crate::instructions::{instructions_per_weight, InstructionSource};
use crate::sample::Completed;
use qtune_device::{Counters, KernelImage, LaunchOutcome};
use qtune_ir::tile::occupancy;
use qtune_ir::{Arch, Schedule, WeightSpec};

/// Bytes of one sector of global memory.
const SECTOR_BYTES: u64 = 32;

/// The counts of one kernel.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Instructions that lanes execute in loops that touch weights, over the weights used.
    pub lane_instructions_per_weight: f64,
    /// Where that number comes from.
    pub instruction_source: InstructionSource,
    /// Passes through the shared-memory banks over the least possible, whole kernel.
    pub shared_wavefronts_over_ideal: f64,
    /// 32-byte sectors that loads of weights and group parameters touch, over the least possible.
    pub global_sectors_over_ideal: f64,
    /// Bytes that those loads move, for the whole grid, over the least that hold the weights,
    /// times the token tiles.
    pub weight_bytes_over_compulsory: f64,
    /// Bytes of loads in flight per SM at the main loop's wait.
    pub bytes_in_flight_per_sm: u64,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes spilled to local memory per thread.
    pub spill_bytes: u32,
    /// Static and dynamic shared memory per thread block.
    pub shared_bytes: u32,
}

/// A simulated launch of part of a grid.
pub(crate) struct Sampled<'a> {
    pub launch: &'a LaunchOutcome,
    /// Tokens of the launch.
    pub tokens: u32,
    /// What it completed.
    pub completed: Completed,
}

/// The counts of `image`, the memory counts from a simulated launch.
pub(crate) fn count(
    image: &KernelImage,
    spec: &WeightSpec,
    arch: &Arch,
    sampled: &Sampled<'_>,
) -> Counts {
    let kernel = &image.kernel;
    let &Sampled { launch, tokens, completed } = sampled;
    let resources = &image.resources;
    let none = Counters::default();
    let counters = launch.counters.as_ref().unwrap_or(&none);
    let shared = counters.shared();
    let (sectors, ideal_sectors) = weight_sectors(counters);
    // Every output tile reads its packed weights, or they are dequantized once for all tokens.
    let (readers, sampled_readers) = match &kernel.schedule {
        Schedule::Dequant(_) => (1, completed.row_tiles as f64),
        _ => (tokens.div_ceil(kernel.schedule.tile().1), completed.work),
    };
    let all_readers = f64::from(kernel.layout.tiles()) * f64::from(readers);
    let whole_grid = (sectors * SECTOR_BYTES) as f64 * all_readers / sampled_readers.max(1.0);
    let compulsory = spec.compulsory_bytes(kernel.problem.n, kernel.problem.k) as f64;
    // Of what a library multiplies, the function that dequantizes is counted, once for all tokens.
    let tiles_used = match kernel.main().library {
        Some(_) => completed.row_tiles as f64,
        None => completed.work,
    };
    let weights_used =
        tiles_used * f64::from(kernel.layout.tile_rows()) * f64::from(kernel.problem.k);
    let (lane_instructions_per_weight, instruction_source) =
        match instructions_per_weight(image, spec) {
            Some(counted) => (counted, InstructionSource::Sass),
            None => {
                let executed = counters.lane_instructions() as f64;
                (executed / weights_used.max(1.0), InstructionSource::Ptx)
            }
        };
    Counts {
        lane_instructions_per_weight,
        instruction_source,
        shared_wavefronts_over_ideal: ratio(shared.wavefronts, shared.ideal_wavefronts),
        global_sectors_over_ideal: ratio(sectors, ideal_sectors),
        weight_bytes_over_compulsory: whole_grid / (compulsory * f64::from(readers)),
        bytes_in_flight_per_sm: occupancy::bytes_in_flight_per_sm(
            &kernel.problem,
            spec,
            arch,
            &kernel.schedule,
            resources.registers,
        ),
        registers: resources.registers,
        spill_bytes: resources.spill_bytes,
        shared_bytes: resources.shared_bytes(),
    }
}

/// Sectors touched by loads of weights and group parameters, and the fewest possible.
fn weight_sectors(counters: &Counters) -> (u64, u64) {
    let buffers = ["weights", "params"].into_iter().filter_map(|name| counters.buffer(name));
    buffers.fold((0, 0), |(sectors, ideal), buffer| {
        (sectors + buffer.loads.sectors, ideal + buffer.loads.ideal_sectors)
    })
}

/// `count / ideal`; nothing at all is ideal.
fn ratio(count: u64, ideal: u64) -> f64 {
    if ideal == 0 {
        1.0
    } else {
        count as f64 / ideal as f64
    }
}
