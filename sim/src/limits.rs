//! What a device allows a launch to ask for.

use serde::Serialize;

/// Launch limits of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Name of the architecture, for messages.
    pub name: String,
    /// Threads per thread block.
    pub threads_per_block: u32,
    /// Threads along each axis of a block.
    pub block_axes: [u32; 3],
    /// Thread blocks along each axis of the grid.
    pub grid_axes: [u32; 3],
    /// Static plus dynamic shared bytes of one block, with the opt-in attribute set.
    pub shared_per_block: u32,
    /// Static shared bytes; more needs dynamic shared memory.
    pub static_shared_per_block: u32,
    /// Thread blocks per cluster, 1 where clusters do not exist.
    pub blocks_per_cluster: u32,
    /// Registers of one thread.
    pub registers_per_thread: u32,
    /// Streaming multiprocessors, the value of `%nsmid`.
    pub sm_count: u32,
    /// Threads that one multiprocessor runs at a time.
    pub threads_per_sm: u32,
    /// Thread blocks that one multiprocessor runs at a time.
    pub most_blocks_per_sm: u32,
    /// Shared bytes of one multiprocessor, of which each block takes its own plus
    /// [`Limits::shared_reserved_per_block`].
    pub shared_per_sm: u32,
    /// Shared bytes that the system keeps of each block.
    pub shared_reserved_per_block: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers_per_sm: u32,
}

impl Limits {
    /// Limits of a compute capability written as one number (80, 86, 89, 90, 100, 120).
    ///
    /// Unknown ones get the limits of the nearest known below; `sm_count` is that of a common
    /// product and can be overwritten.
    pub fn for_sm(sm: u32) -> Limits {
        const KIB: u32 = 1024;
        // CUDA programming guide, "Technical specifications per compute capability".
        let (shared, sm_count, blocks_per_cluster) = match sm {
            0..=85 => (163 * KIB, 108, 1),
            86..=88 => (99 * KIB, 84, 1),
            89 => (99 * KIB, 128, 1),
            90..=99 => (227 * KIB, 132, 16),
            100..=119 => (227 * KIB, 148, 16),
            _ => (99 * KIB, 170, 8),
        };
        let (threads_per_sm, most_blocks_per_sm) = match sm {
            0..=85 | 90..=119 => (2048, 32),
            86..=88 => (1536, 16),
            _ => (1536, 24),
        };
        Limits {
            name: format!("sm_{sm}"),
            threads_per_block: 1024,
            block_axes: [1024, 1024, 64],
            grid_axes: [i32::MAX as u32, 65_535, 65_535],
            shared_per_block: shared,
            static_shared_per_block: 48 * KIB,
            blocks_per_cluster,
            registers_per_thread: 255,
            sm_count,
            threads_per_sm,
            most_blocks_per_sm,
            shared_per_sm: shared + KIB,
            shared_reserved_per_block: KIB,
            registers_per_sm: 65_536,
        }
    }

    /// Thread blocks of this many threads, shared bytes and registers per thread (where known) that
    /// one multiprocessor runs at a time; 0 if not even one fits.
    ///
    /// Registers are given out in units of 256 per warp, and to warps in fours (one per
    /// sub-processor).
    pub fn blocks_per_sm(&self, threads: u32, shared: u32, registers: Option<u32>) -> u32 {
        let warps = threads.div_ceil(32).max(1);
        let by_threads = self.threads_per_sm / 32 / warps;
        let by_shared = self.shared_per_sm / (shared + self.shared_reserved_per_block).max(1);
        let by_registers = match registers {
            Some(registers) if registers > 0 => {
                let per_warp = (registers * 32).next_multiple_of(256);
                let fitting = self.registers_per_sm / per_warp / 4 * 4;
                fitting / warps.next_multiple_of(4)
            }
            _ => u32::MAX,
        };
        self.most_blocks_per_sm.min(by_threads).min(by_shared).min(by_registers)
    }
}

impl Default for Limits {
    /// The limits of sm_90.
    fn default() -> Self {
        Limits::for_sm(90)
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn residency_is_bounded_by_threads_blocks_shared_memory_and_registers() {
        let a100 = Limits::for_sm(80);
        assert_eq!(a100.blocks_per_sm(32, 0, None), 32);
        assert_eq!(a100.blocks_per_sm(1024, 0, None), 2);
        // 164 KB hold three times 48 + 1 KB; the largest block fits once.
        assert_eq!(a100.blocks_per_sm(128, 48 * 1024, None), 3);
        assert_eq!(a100.blocks_per_sm(128, a100.shared_per_block, None), 1);
        // 128 registers: 4096 per warp, 16 warps.
        assert_eq!(a100.blocks_per_sm(256, 0, Some(128)), 2);
        assert_eq!(a100.blocks_per_sm(1024, 0, Some(65)), 0);
        assert_eq!(Limits::for_sm(86).blocks_per_sm(32, 0, None), 16);
        assert_eq!(Limits::for_sm(89).blocks_per_sm(1536 / 2, 0, None), 2);
    }
}
