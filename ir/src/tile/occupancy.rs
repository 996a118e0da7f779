//! Registers, resident blocks and bytes in flight of a schedule, before it is compiled.

use crate::arch::SHARED_RESERVE;
use crate::dequant::{packed_param_bytes, runs_on};
use crate::{Accumulate, Arch, GemvSchedule, MmaSchedule, Problem, Producer, Schedule, WeightSpec};

/// Registers that one thread can have (CUDA C++ Programming Guide, "Compute Capabilities").
pub const REGISTERS_PER_THREAD: u32 = 255;
/// Registers are given to a warp in units of this many (the same, "register allocation unit").
const REGISTER_UNIT: u32 = 256;
/// Addresses, loop counters, grid indices and masks of a `gemv` main loop. This and the following
/// were fitted to what the compiler takes for a dozen kernels on `sm_90a`.
const GEMV_REGISTERS: u32 = 22;
/// Of bounds and addresses where activations come from global memory, of widened ones for f32.
const GEMV_OPERAND_REGISTERS: u32 = 8;
/// The four vectors of eight f16 that a lane's 32 weights of a row are, from each codebook.
const VECTOR_REGISTERS: u32 = 16;
/// The same for `mma`, with a 16x16 fragment of weights before and after conversion.
const MMA_REGISTERS: u32 = 36;
/// Registers of one 16-byte load.
const LOAD_REGISTERS: u32 = 4;
/// What stream-K adds: the block's share, the tile, and where stages that are loaded ahead lie.
const STREAM_REGISTERS: u32 = 10;
/// Registers of the function that dequantizes a slab: codes of a piece, their fragment, addresses.
const SLAB_REGISTERS: u32 = 40;
/// Bytes of one load of weights by one lane.
const LOAD_BYTES: u64 = 16;

/// Whether the sum of a quant group is scaled after it is complete, which takes a second set of
/// accumulators. The reduction then stands inside the term; a term that is the reduction itself
/// has the scale on every product. Per-channel groups are scaled once, at the end.
fn sums_groups_apart(dequant: &str, problem: &Problem, spec: &WeightSpec) -> bool {
    !dequant.is_empty() && !runs_on(dequant) && spec.group.size(problem.k) < problem.k
}

/// Registers per thread, estimated: accumulators (twice if group sums are kept apart), loads in
/// flight, operands. The compiler has the last word.
pub fn registers(problem: &Problem, spec: &WeightSpec, schedule: &Schedule) -> u32 {
    if let Some(p) = schedule.in_pairs(problem, spec) {
        return registers(&p.problem, &p.spec, &p.schedule);
    }
    match schedule {
        Schedule::Gemv(s) => gemv_registers(s, spec),
        Schedule::Mma(s) => {
            let apart =
                sums_groups_apart(&s.dequant, problem, spec) || spec.activations.sums_by_stage();
            let sums_activations = !spec.is_dense() && !runs_on(&s.dequant);
            let scales = if spec.activations.are_grouped() { 2 * s.token_tiles() } else { 0 };
            mma_registers(s, 1 + u32::from(apart), sums_activations) + scales
        }
        Schedule::Wgmma(s) => s.registers(problem, spec),
        Schedule::Dequant(s) => match s.multiplication() {
            Some(own) => registers(problem, &WeightSpec::dense(), &own),
            None => SLAB_REGISTERS,
        },
    }
}

/// Registers that a thread of this schedule can have.
pub fn register_limit(schedule: &Schedule) -> u32 {
    match schedule {
        Schedule::Gemv(_) | Schedule::Mma(_) => REGISTERS_PER_THREAD,
        Schedule::Wgmma(s) => s.consumer_registers(),
        Schedule::Dequant(s) => {
            s.multiplication().map_or(REGISTERS_PER_THREAD, |own| register_limit(&own))
        }
    }
}

/// Registers per thread that a block takes of its SM where its hungriest thread needs `needed`.
pub fn allocated_registers(schedule: &Schedule, needed: u32) -> u32 {
    match schedule {
        Schedule::Wgmma(s) if s.producer == Producer::Group => s.launch_registers(),
        Schedule::Dequant(s) => {
            s.multiplication().map_or(needed, |own| allocated_registers(&own, needed))
        }
        _ => needed,
    }
}

fn gemv_registers(s: &GemvSchedule, spec: &WeightSpec) -> u32 {
    let params = packed_param_bytes(&s.dequant, spec).div_ceil(4);
    // The compiler asks for all vectors of a turn before it uses the first.
    let vectors = spec.codebook.vectors().map_or(0, |codes| codes.books() * VECTOR_REGISTERS);
    let loads = s.unroll * s.rows * (LOAD_REGISTERS + params + vectors);
    // Eight activations of each token at a time; a group's sums and the totals.
    let activations = s.tokens * 4;
    let sums = s.rows * s.tokens * 2;
    let operands = u32::from(!s.stage_x) + u32::from(s.accumulate == Accumulate::F32);
    GEMV_REGISTERS + loads + activations + sums + operands * GEMV_OPERAND_REGISTERS
}

fn mma_registers(s: &MmaSchedule, copies: u32, sums_activations: bool) -> u32 {
    let accumulators = s.row_tiles() * s.token_tiles() * 4 * copies;
    // Two k16 steps of activations for every token tile, and their sums.
    let tokens = if sums_activations { 8 } else { 4 } * s.token_tiles();
    // Where a thread's pieces of activations come from and go to.
    let places = 2 * s.act_plans();
    let words = s.row_tiles() * LOAD_REGISTERS;
    let stream = s.split.stream().map_or(0, |_| STREAM_REGISTERS);
    MMA_REGISTERS + accumulators + tokens + places + words + stream
}

/// Blocks that one SM holds at once: the least of what registers, shared memory, warps and the
/// block limit allow. 0 if not even one fits.
///
/// `registers` is per thread, estimated or from the cubin; `shared` is bytes per block without the
/// system's share.
pub fn resident_blocks(arch: &Arch, threads: u32, registers: u32, shared: u32) -> u32 {
    let warps = threads.div_ceil(32).max(1);
    let by_registers = arch.sm.registers / block_registers(arch, threads, registers);
    let by_shared = arch.sm.shared_bytes / shared.saturating_add(SHARED_RESERVE);
    by_registers.min(by_shared).min(arch.sm.warps / warps).min(arch.sm.blocks)
}

/// Registers of a block.
fn block_registers(arch: &Arch, threads: u32, registers: u32) -> u32 {
    let per_warp = registers.clamp(1, arch.sm.registers).saturating_mul(32);
    per_warp.next_multiple_of(REGISTER_UNIT).saturating_mul(threads.div_ceil(32).max(1))
}

/// Thread blocks of a kernel on one SM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occupants {
    pub blocks: u32,
    /// Per block.
    pub threads: u32,
    /// Per thread.
    pub registers: u32,
    /// Per block, without the system's share.
    pub shared_bytes: u32,
}

impl Occupants {
    /// How many of these blocks an SM holds beside all of `others`.
    pub fn beside(&self, others: &Occupants, arch: &Arch) -> u32 {
        let fitting = |limit: u32, each: &dyn Fn(&Occupants) -> u32| {
            let left = limit.saturating_sub(others.blocks.saturating_mul(each(others)));
            left / each(self).max(1)
        };
        let by_registers =
            fitting(arch.sm.registers, &|k| block_registers(arch, k.threads, k.registers));
        let by_shared = fitting(arch.sm.shared_bytes, &|k| k.shared_bytes + SHARED_RESERVE);
        let by_warps = fitting(arch.sm.warps, &|k| k.threads.div_ceil(32));
        let by_blocks = fitting(arch.sm.blocks, &|_| 1);
        self.blocks.min(by_registers).min(by_shared).min(by_warps).min(by_blocks)
    }
}

/// Thread blocks that multiply in the whole launch: row tiles, token tiles, splits, or the blocks
/// of a stream-K grid.
pub fn grid_blocks(problem: &Problem, schedule: &Schedule) -> u64 {
    match schedule.shares(problem, problem.m) {
        Some(shares) => shares.blocks.into(),
        None => schedule.output_tiles(problem, problem.m) * u64::from(schedule.split().per_tile()),
    }
}

/// Bytes of loads that one block has outstanding when its main loop waits in steady state: all
/// loads of a `gemv` batch, all stages of a ring but the one that is waited for.
pub fn block_bytes_in_flight(problem: &Problem, spec: &WeightSpec, schedule: &Schedule) -> u64 {
    if let Some(p) = schedule.in_pairs(problem, spec) {
        return block_bytes_in_flight(&p.problem, &p.spec, &p.schedule);
    }
    match schedule {
        Schedule::Gemv(s) => s.threads() as u64 * (s.unroll * s.rows) as u64 * LOAD_BYTES,
        Schedule::Mma(s) => {
            stages_ahead(problem, schedule, s.stages) * u64::from(s.stage_bytes(spec, problem.k))
        }
        Schedule::Wgmma(s) => {
            stages_ahead(problem, schedule, s.stages) * u64::from(s.stage_bytes(spec, problem.k))
        }
        Schedule::Dequant(s) => match s.multiplication() {
            Some(own) => block_bytes_in_flight(problem, &WeightSpec::dense(), &own),
            // What a library has in flight is not known; what dequantizes loads a piece at a time.
            None => u64::from(schedule.threads()) * LOAD_BYTES,
        },
    }
}

/// Stages on their way while a block waits for one: no more than it has steps for.
fn stages_ahead(problem: &Problem, schedule: &Schedule, stages: u32) -> u64 {
    let steps = match schedule.shares(problem, problem.m) {
        Some(shares) => shares.longest(),
        None => schedule.steps(problem.k).div_ceil(schedule.split().per_tile()).into(),
    };
    u64::from(stages).min(steps).saturating_sub(1).max(1)
}

/// Bytes of loads in flight per SM at the main loop's steady-state wait: resident blocks times
/// bytes outstanding. A grid that does not fill the GPU has fewer blocks per SM.
///
/// `registers` is per thread, from [`allocated_registers`] or from the cubin.
pub fn bytes_in_flight_per_sm(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    registers: u32,
) -> u64 {
    let shared = schedule.shared_bytes(problem, spec);
    let resident = resident_blocks(arch, schedule.threads(), registers, shared) as u64;
    let available = grid_blocks(problem, schedule).div_ceil(arch.sm_count as u64);
    resident.min(available) * block_bytes_in_flight(problem, spec, schedule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residency_is_the_least_of_four_limits() {
        let h200 = Arch::named("h200").unwrap();
        assert_eq!(resident_blocks(&h200, 256, 32, 0), 8, "warps");
        assert_eq!(resident_blocks(&h200, 32, 32, 0), 32, "blocks");
        assert_eq!(resident_blocks(&h200, 256, 128, 0), 2, "registers");
        assert_eq!(resident_blocks(&h200, 256, 32, 100 << 10), 2, "shared memory");
        assert_eq!(resident_blocks(&h200, 1024, 128, 0), 0, "too many registers for one block");
    }

    #[test]
    fn registers_are_allocated_in_units() {
        let h200 = Arch::named("h200").unwrap();
        // 33 registers take 40: 65536 / (40 * 32 * 8) = 6.4.
        assert_eq!(resident_blocks(&h200, 256, 33, 0), 6);
    }

    #[test]
    fn blocks_of_two_kernels_share_registers_and_shared_memory() {
        let h200 = Arch::named("h200").unwrap();
        let block = |threads, registers, shared_bytes| Occupants {
            blocks: 1,
            threads,
            registers,
            shared_bytes,
        };
        let step = block(256, 40, 32 << 10);
        let beside_step = |kernel: Occupants| kernel.beside(&step, &h200);
        assert_eq!(beside_step(block(256, 168, 128 << 10)), 1);
        assert_eq!(beside_step(block(384, 168, 128 << 10)), 0, "registers");
        assert_eq!(beside_step(block(256, 168, 200 << 10)), 0, "shared memory");
        assert_eq!(beside_step(Occupants { blocks: 8, ..block(256, 32, 0) }), 6, "registers");
        let many = Occupants { blocks: 30_000_000, ..step };
        assert_eq!(many.beside(&many, &h200), 0);
    }

    #[test]
    fn group_sums_kept_apart_double_the_accumulators() {
        let p: Problem = "w4a16.awq-g128.f16-f16.n5120.k5120.m16".parse().unwrap();
        let text = "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows dequant=";
        let count = |term: &str| {
            let spec = super::super::tests::awq();
            registers(&p, &spec, &(text.to_string() + term).parse().unwrap())
        };
        // And the sums of activations, for each of two token tiles.
        assert_eq!(count("(* s (sum (* q x)))") - count("(sum (* (* q s) x))"), 4 * 2 * 4 + 2 * 4);
    }

    #[test]
    fn bytes_in_flight_follow_the_grid_and_the_ring() {
        let arch = Arch::named("h200").unwrap();
        let spec = super::super::tests::awq();
        let p: Problem = "w4a16.awq-g128.f16-f16.n8448.k5120.m16".parse().unwrap();
        let schedule: Schedule =
            "mma tile=16x64x128 warps=1x2 stages=4 split=1 pad=16 raster=rows dequant=(sum x)"
                .parse()
                .unwrap();
        let stage = 64 * 128 / 2 + 16 * 128 * 2 + 64 * 4;
        assert_eq!(bytes_in_flight_per_sm(&p, &spec, &arch, &schedule, 64), 3 * stage);
        let short = Problem { k: 256, ..p.clone() };
        assert_eq!(bytes_in_flight_per_sm(&short, &spec, &arch, &schedule, 64), stage, "two steps");
        let taller = Problem { n: 4 * p.n, ..p };
        assert_eq!(bytes_in_flight_per_sm(&taller, &spec, &arch, &schedule, 64), 12 * stage);
    }
}
