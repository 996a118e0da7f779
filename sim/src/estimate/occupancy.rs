//! How many thread blocks fit on one SM, and what keeps more from fitting.
//!
//! Rules of the CUDA programming guide's "Compute Capabilities" and of `cuda_occupancy.h`:
//! registers go to warps in units of 256, each of the four sub-cores has its own quarter of the
//! file, and every block takes a kilobyte of shared memory for the system.

use crate::cubin::SHARED_RESERVE_BYTES;
use serde::{Deserialize, Serialize};

/// Lanes of a warp.
const WARP_LANES: u32 = 32;
/// Sub-cores (schedulers) of an SM.
pub(super) const SUB_CORES: u32 = 4;
/// Registers are allocated to a warp in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is allocated to a block in units of this many bytes (from sm_80 on).
const SHARED_UNIT_BYTES: u32 = 128;

/// What one SM offers. Independent of the compiler's own description of GPUs, so that the simulator
/// crate stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmLimits {
    /// 32-bit registers.
    pub registers: u32,
    /// Most registers of one thread.
    pub registers_per_thread: u32,
    /// Shared memory in bytes.
    pub shared_bytes: u32,
    /// Shared memory that one block may ask for (opt-in maximum), in bytes.
    pub shared_bytes_per_block: u32,
    /// Resident warps.
    pub warps: u32,
    /// Resident thread blocks.
    pub blocks: u32,
    /// Most threads of one block.
    pub threads_per_block: u32,
}

/// What one thread block asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockShape {
    /// Threads, rounded up to whole warps by the hardware.
    pub threads: u32,
    /// Registers per thread at launch.
    pub registers: u32,
    /// Static and dynamic shared memory in bytes, without the system's reserve.
    pub shared_bytes: u32,
}

impl BlockShape {
    /// Its warps.
    pub fn warps(&self) -> u32 {
        self.threads.div_ceil(WARP_LANES)
    }
}

/// A resource of an SM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The register file.
    Registers,
    /// Shared memory.
    SharedMemory,
    /// Resident warps.
    Warps,
    /// Resident thread blocks.
    Blocks,
    /// Threads of one block.
    ThreadsPerBlock,
}

impl Limit {
    /// A few words for people.
    pub fn describe(self) -> &'static str {
        match self {
            Limit::Registers => "registers",
            Limit::SharedMemory => "shared memory",
            Limit::Warps => "resident warps",
            Limit::Blocks => "resident thread blocks",
            Limit::ThreadsPerBlock => "threads per block",
        }
    }
}

/// Resident blocks of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    /// Thread blocks per SM; 0 means that the kernel cannot be launched.
    pub blocks_per_sm: u32,
    /// Warps per SM.
    pub warps_per_sm: u32,
    /// The resource that admits no further block.
    pub limit: Limit,
}

/// How many blocks of `block` one SM holds.
pub fn occupancy(limits: &SmLimits, block: &BlockShape) -> Occupancy {
    let warps = block.warps().max(1);
    let none = |limit| Occupancy { blocks_per_sm: 0, warps_per_sm: 0, limit };
    if block.threads > limits.threads_per_block {
        return none(Limit::ThreadsPerBlock);
    }
    if block.registers > limits.registers_per_thread {
        return none(Limit::Registers);
    }
    if block.shared_bytes > limits.shared_bytes_per_block {
        return none(Limit::SharedMemory);
    }
    let by_resource = [
        (blocks_by_registers(limits, block.registers, warps), Limit::Registers),
        (blocks_by_shared(limits, block.shared_bytes), Limit::SharedMemory),
        (limits.warps / warps, Limit::Warps),
        (limits.blocks, Limit::Blocks),
    ];
    let (blocks_per_sm, limit) =
        by_resource.into_iter().min_by_key(|&(blocks, _)| blocks).unwrap_or((0, Limit::Blocks));
    Occupancy { blocks_per_sm, warps_per_sm: blocks_per_sm * warps, limit }
}

fn blocks_by_registers(limits: &SmLimits, registers: u32, warps: u32) -> u32 {
    let per_warp = (registers.max(1) * WARP_LANES).next_multiple_of(REGISTER_UNIT);
    let warps_per_sub_core = limits.registers / SUB_CORES / per_warp;
    warps_per_sub_core * SUB_CORES / warps
}

fn blocks_by_shared(limits: &SmLimits, shared_bytes: u32) -> u32 {
    // Cannot overflow: the opt-in maximum was checked before.
    let per_block = (shared_bytes + SHARED_RESERVE_BYTES).next_multiple_of(SHARED_UNIT_BYTES);
    limits.shared_bytes / per_block
}

#[cfg(test)]
mod tests {
    use super::super::tests::HOPPER_SM;
    use super::*;

    fn on_hopper(threads: u32, registers: u32, shared_bytes: u32) -> (u32, Limit) {
        let found = occupancy(&HOPPER_SM, &BlockShape { threads, registers, shared_bytes });
        (found.blocks_per_sm, found.limit)
    }

    /// Figures of NVIDIA's occupancy calculator for compute capability 9.0.
    #[test]
    fn each_resource_can_be_the_one_that_runs_out() {
        assert_eq!(on_hopper(256, 32, 0), (8, Limit::Registers));
        assert_eq!(on_hopper(256, 33, 0), (6, Limit::Registers));
        assert_eq!(on_hopper(384, 168, 0), (1, Limit::Registers));
        assert_eq!(on_hopper(128, 40, 48 << 10), (4, Limit::SharedMemory));
        assert_eq!(on_hopper(512, 16, 0), (4, Limit::Warps));
        assert_eq!(on_hopper(32, 16, 0), (32, Limit::Blocks));
    }

    #[test]
    fn what_cannot_be_launched_has_no_blocks_and_says_why() {
        assert_eq!(on_hopper(1056, 16, 0), (0, Limit::ThreadsPerBlock));
        assert_eq!(on_hopper(128, 256, 0), (0, Limit::Registers));
        assert_eq!(on_hopper(1024, 80, 0), (0, Limit::Registers));
        assert_eq!(on_hopper(128, 32, (227 << 10) + 1), (0, Limit::SharedMemory));
        assert_eq!(on_hopper(128, 32, 227 << 10), (1, Limit::SharedMemory));
    }

    #[test]
    fn the_kilobyte_of_the_system_counts_for_every_block() {
        // 228 KB hold two blocks of 113 KB, but not two of 114.
        assert_eq!(on_hopper(128, 32, 113 << 10).0, 2);
        assert_eq!(on_hopper(128, 32, (113 << 10) + 1).0, 1);
    }

    #[test]
    fn asking_for_more_never_gives_more_blocks() {
        let mut last = u32::MAX;
        for registers in 1..=255 {
            let (blocks, _) = on_hopper(128, registers, 0);
            assert!(blocks <= last, "{registers} registers");
            last = blocks;
        }
        let mut last = u32::MAX;
        for shared in (0..=227 << 10).step_by(512) {
            let (blocks, _) = on_hopper(128, 32, shared);
            assert!(blocks <= last, "{shared} bytes");
            last = blocks;
        }
    }
}
