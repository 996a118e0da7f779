//! One launch as the estimator sees it.

use super::occupancy::BlockShape;
use crate::sass::{Class, Counts};
use serde::{Deserialize, Serialize};

/// What all warps of one thread block do together. Counts may be expected values: a candidate is
/// ranked from its schedule before it is compiled, and again from its machine code afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockWork {
    /// Warp instructions of every kind.
    pub instructions: f64,
    /// Of these, on the integer pipe (packing conversions included).
    pub int: f64,
    /// Integer multiply-adds.
    pub imad: f64,
    /// Single precision.
    pub fp32: f64,
    /// Packed f16.
    pub half2: f64,
    /// Packed bf16.
    pub bf162: f64,
    /// Reduced-rate conversions.
    pub convert: f64,
    /// Transcendental functions.
    pub sfu: f64,
    /// Shuffles.
    pub shuffle: f64,
    /// Multiply-accumulates on the tensor cores, padding included.
    pub tensor_macs: f64,
    /// Shared-memory wavefronts (128 bytes each), conflicts included.
    pub shared_wavefronts: f64,
    /// Fewest cycles one warp needs for its own instructions: the sum of their stall counts.
    /// 0 if unknown.
    pub warp_stall_cycles: f64,
}

/// Which packed type a kernel computes in; machine code names both alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packed {
    /// f16 pairs.
    F16,
    /// bf16 pairs.
    Bf16,
}

impl BlockWork {
    /// Adds the instructions in `counts`, executed `times` over all warps of a block (trip count
    /// times warps). Tensor work and wavefronts are not in such counts: set
    /// [`Self::tensor_macs`] and [`Self::shared_wavefronts`] apart.
    pub fn add_counts(&mut self, counts: &Counts, times: f64, packed: Packed) {
        let of = |classes: &[Class]| times * f64::from(counts.sum(classes));
        self.instructions += times * f64::from(counts.total());
        self.int += of(&[Class::Alu, Class::Pack]);
        self.imad += of(&[Class::Imad]);
        self.fp32 += of(&[Class::Fp32]);
        match packed {
            Packed::F16 => self.half2 += of(&[Class::Half2]),
            Packed::Bf16 => self.bf162 += of(&[Class::Half2]),
        }
        self.convert += of(&[Class::Convert]);
        self.sfu += of(&[Class::Sfu]);
        self.shuffle += of(&[Class::Shuffle]);
    }
}

/// Partial sums that several blocks make of one output tile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitK {
    /// Bytes of partial sums written over the whole grid; each is read once more.
    pub partial_bytes: f64,
    /// Round trips through L2 that the last block of a tile makes one after another: waiting for
    /// its partners, reading their sums.
    pub round_trips: f64,
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Thread blocks of the grid.
    pub blocks: f64,
    /// Resources of one block.
    pub shape: BlockShape,
    /// Work of one block. Where blocks differ, the average.
    pub work: BlockWork,
    /// Bytes read from and written to DRAM by the whole grid: distinct bytes with a cold L2.
    pub dram_bytes: f64,
    /// Bytes moved between L2 and the SMs by the whole grid: everything requested.
    pub l2_bytes: f64,
    /// Bytes of DRAM loads that one block keeps outstanding in its main loop.
    pub bytes_in_flight: f64,
    /// DRAM round trips before the main loop gets its first data; 1 for a plain kernel.
    pub dependent_loads: f64,
    /// Split-K, if outputs are summed by several blocks.
    pub split_k: Option<SplitK>,
}
