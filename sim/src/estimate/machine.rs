//! One GPU as the estimator sees it.

use super::occupancy::SmLimits;
use serde::{Deserialize, Serialize};

/// Warp instructions per clock and SM, by pipe (CUDA programming guide, "Arithmetic
/// Instructions", divided by 32).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// All instructions: one per scheduler.
    pub issue: f64,
    /// Integer add, logic, shift, permute, compare, select; also packing conversions (`F2FP`).
    pub int: f64,
    /// Integer multiply-add, also when used as a move.
    pub imad: f64,
    /// Single precision.
    pub fp32: f64,
    /// Packed f16.
    pub half2: f64,
    /// Packed bf16.
    pub bf162: f64,
    /// Conversions at reduced rate (`I2F`, `F2F`).
    pub convert: f64,
    /// Transcendental functions.
    pub sfu: f64,
    /// Shuffles.
    pub shuffle: f64,
}

impl Rates {
    /// Rates of compute capability `sm` (90 for `sm_90a`); unknown ones get those of the nearest
    /// earlier generation.
    pub fn of_sm(sm: u32) -> Rates {
        let base = Rates {
            issue: 4.0,
            int: 2.0,
            imad: 2.0,
            fp32: 4.0,
            half2: 4.0,
            bf162: 4.0,
            convert: 2.0,
            sfu: 0.5,
            shuffle: 1.0,
        };
        match sm {
            // GA100 has half the FP32 lanes of later chips, but full-rate half precision.
            0..=80 => Rates { fp32: 2.0, bf162: 2.0, convert: 0.5, ..base },
            // The graphics chips of each generation trade half-precision rate for FP32 lanes.
            81..=89 | 120.. => Rates { half2: 2.0, bf162: 2.0, ..base },
            _ => base,
        }
    }
}

/// Rates and sizes of one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Sustained SM clock in GHz.
    pub clock_ghz: f64,
    /// Nominal DRAM bandwidth in GB/s.
    pub dram_gb_per_s: f64,
    /// L2 to SM bandwidth in bytes per clock and SM; 64 on every chip from sm_80 on.
    pub l2_bytes_per_clock: f64,
    /// Shared-memory wavefronts of 128 bytes per clock and SM; 1 on every chip.
    pub shared_wavefronts_per_clock: f64,
    /// Multiply-accumulates per clock and SM of the tensor instruction that the kernel uses.
    pub tensor_macs_per_clock: f64,
    /// Limits of one SM.
    pub limits: SmLimits,
    /// Pipe rates of one SM.
    pub rates: Rates,
    /// Latency of a DRAM load under load, in nanoseconds: 700 to 900 on data-centre chips.
    pub dram_latency_ns: f64,
    /// From launch to the first instruction, and from the last to the completion seen, in
    /// microseconds.
    pub launch_us: f64,
}

impl Machine {
    /// Loaded DRAM latency assumed unless measured, in nanoseconds: the middle of what makes
    /// Little's law agree with published kernels on H100 and H200.
    pub const DRAM_LATENCY_NS: f64 = 800.0;
    /// Launch overhead assumed unless measured, in microseconds: 1 to 2 to start the grid, the rest
    /// to drain it.
    pub const LAUNCH_US: f64 = 2.5;
    /// L2 to SM bandwidth of one SM in bytes per clock.
    pub const L2_BYTES_PER_CLOCK: f64 = 64.0;
    /// Share of the nominal DRAM bandwidth that the best kernels sustain: 4.3 of 4.8 TB/s on an
    /// H200.
    pub const DRAM_EFFICIENCY: f64 = 0.9;

    /// Sustained DRAM bandwidth in bytes per microsecond.
    pub fn dram_bytes_per_us(&self) -> f64 {
        self.dram_gb_per_s * 1e3 * Self::DRAM_EFFICIENCY
    }

    /// Cycles of the SM clock per microsecond.
    pub fn cycles_per_us(&self) -> f64 {
        self.clock_ghz * 1e3
    }

    /// The least time that reading or writing `bytes` of DRAM takes at nominal bandwidth, in
    /// microseconds: the roof that a kernel's share is stated of.
    pub fn roof_us(&self, bytes: f64) -> f64 {
        bytes / (self.dram_gb_per_s * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_generations() {
        let half2 = |sm| Rates::of_sm(sm).half2;
        assert_eq!([80, 86, 89, 90, 100, 120].map(half2), [4.0, 2.0, 2.0, 4.0, 4.0, 2.0]);
        assert_eq!(Rates::of_sm(80).fp32, 2.0);
        assert_eq!(Rates::of_sm(103), Rates::of_sm(100));
    }
}
