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
    /// Streaming multiprocessors, the value of `%nsmid`.
    pub sm_count: u32,
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
        Limits {
            name: format!("sm_{sm}"),
            threads_per_block: 1024,
            block_axes: [1024, 1024, 64],
            grid_axes: [i32::MAX as u32, 65_535, 65_535],
            shared_per_block: shared,
            static_shared_per_block: 48 * KIB,
            blocks_per_cluster,
            sm_count,
        }
    }
}

impl Default for Limits {
    /// The limits of sm_90.
    fn default() -> Self {
        Limits::for_sm(90)
    }
}
