//! What the steps cost that prepare activations ahead of a multiplication.
//!
//! A step asks L2 for the weights that fill the rings of the multiplication's blocks. Under programmatic dependent launch
//! these start while it runs, if they fit beside the step's: they fill their rings, and wait for activations only then.
//! What the step takes from its first instruction to its last is hidden as far as the first weights take as long.

use super::cost::{
    DEPENDENT_SAVES_US, DEPENDENT_US, DRAM_LATENCY_US, FILL_US, IDLE_DRAM_CYCLES, KERNEL_GAP_US,
    L2_EFFICIENCY, L2_LATENCY_US, SCATTER_WAVEFRONTS,
};
use super::occupancy::Occupants;
use super::work::WAVEFRONT_BYTES;
use crate::{sorted_slice, Arch, Mover, Problem, Schedule, Sorting, WeightSpec};

/// Lane-instructions per activation that is quantized: widened twice, compared, multiplied, rounded,
/// packed.
const QUANTIZE_INSTRUCTIONS: f64 = 7.0;
/// Threads of a block that quantizes.
const QUANTIZE_THREADS: u32 = 256;
/// Lane-instructions per activation that is sorted: its place, a bounds check, addresses, a load, a store.
const SORT_INSTRUCTIONS: f64 = 8.0;
/// Bytes of a feature's place in its slice and its column.
const ORDER_BYTES: f64 = 4.0;
/// Bytes of a feature's column.
const COLUMN_BYTES: f64 = 2.0;
/// Registers of a thread that sorts or quantizes, at most (machine code for sm_90a), and where blocks have as many
/// threads as they can.
const STEP_REGISTERS: u32 = 40;
const FULL_BLOCK_REGISTERS: u32 = 64;
/// From the first instruction of a dependent kernel to that of the one ahead, where that lets it start at once, and
/// from the end of the one ahead to the end of the wait, in us: no more than is left of the gap between two kernels
/// that do nothing.
const DEPENDENT_GAP_US: f64 = KERNEL_GAP_US - DEPENDENT_SAVES_US;

/// What a step prepares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepares {
    /// Activations in the order of the columns.
    Order,
    /// Codes of activations.
    Codes,
}

/// A step ahead of a multiplication.
pub(super) struct Step {
    pub prepares: Prepares,
    /// From its first instruction until what it prepares is in L2, in us.
    us: f64,
    /// Its thread blocks on the busiest SM.
    occupants: Occupants,
    /// Share of the SMs that have one: each asks L2 for as much as its own copies take.
    of_sms: f64,
}

/// The kernel behind a step.
pub(super) struct Behind {
    /// Whether it starts under programmatic dependent launch.
    pub dependent: bool,
    /// Whether the step asks for its first weights.
    pub asked: bool,
    /// Its first thread blocks on an SM.
    pub occupants: Occupants,
    /// What copying activations takes before its main loop, in us.
    pub staging_us: f64,
}

impl Step {
    /// The step that the activations of a schedule need, if one.
    pub fn of(p: &Problem, spec: &WeightSpec, arch: &Arch, schedule: &Schedule) -> Option<Step> {
        if spec.activations.are_quantized() {
            return Some(Step::quantizing(p, arch));
        }
        (schedule.sorting(spec) == Sorting::Step).then(|| Step::sorting(p, spec, arch))
    }

    /// A block for each token reads its activations twice, the second time from L1 or L2.
    fn quantizing(p: &Problem, arch: &Arch) -> Step {
        let k = f64::from(p.k);
        let read = 2.0 * k * f64::from(p.act.bytes()) / (arch.l2_bytes_per_clock * L2_EFFICIENCY);
        let issue = k / 32.0 * QUANTIZE_INSTRUCTIONS / arch.rates.issue;
        let blocks = p.m.div_ceil(arch.sm_count);
        let work = f64::from(blocks) * read.max(issue) / (arch.clock_ghz * 1000.0);
        Step {
            prepares: Prepares::Codes,
            // Two loads that wait for each other, and the store.
            us: 3.0 * L2_LATENCY_US + work,
            occupants: Occupants {
                blocks,
                threads: QUANTIZE_THREADS,
                registers: STEP_REGISTERS,
                shared_bytes: 0,
            },
            of_sms: of_sms(p.m, arch),
        }
    }

    fn sorting(p: &Problem, spec: &WeightSpec, arch: &Arch) -> Step {
        let mover = Mover::of(p);
        let Sorted { loaded, stored, order, scatter, store } = Sorted::of(p, spec, mover);
        let act = f64::from(p.act.bytes());
        let bytes = (loaded + stored) * act + order;
        // In whole pieces from L2 and to or from shared memory; at random places of that; to L2.
        let pieces = (loaded * act + stored * act + order) / WAVEFRONT_BYTES;
        let cycles = [
            bytes / (arch.l2_bytes_per_clock * L2_EFFICIENCY),
            pieces + stored / 32.0 * (scatter + store),
            loaded / 32.0 * SORT_INSTRUCTIONS / arch.rates.issue,
        ];
        let [tokens, parts] = mover.blocks(p.m, p.k);
        let of_sms = of_sms(tokens * parts, arch);
        let blocks = (tokens * parts).div_ceil(arch.sm_count);
        let cycles = f64::from(blocks) * cycles.into_iter().fold(0.0, f64::max);
        // The order is in DRAM, of which nobody asks anything before; activations were just written.
        let cycles = IDLE_DRAM_CYCLES + cycles;
        Step {
            prepares: Prepares::Order,
            us: L2_LATENCY_US + cycles / (arch.clock_ghz * 1000.0),
            occupants: Occupants {
                blocks,
                threads: mover.threads(p.k),
                registers: match mover.fills_block(p.k) {
                    true => FULL_BLOCK_REGISTERS,
                    false => STEP_REGISTERS,
                },
                shared_bytes: mover.staged(p.k) * p.act.bytes(),
            },
            of_sms,
        }
    }

    /// What the step adds to the time of the kernel behind it, in us.
    pub fn adds_us(&self, arch: &Arch, behind: &Behind) -> f64 {
        let gap = if behind.dependent { DEPENDENT_GAP_US } else { KERNEL_GAP_US };
        let prepared = self.us + gap;
        let start = match behind.dependent {
            true => self.start_us(arch, behind, gap),
            false => prepared,
        };
        // What comes from DRAM meanwhile has the way from L2 left.
        let early = FILL_US.max(start + FILL_US - DRAM_LATENCY_US + L2_LATENCY_US);
        let asked = if behind.asked { self.of_sms } else { 0.0 };
        let filled = start + FILL_US - asked * (start + FILL_US - early);
        let staging = behind.staging_us.max(L2_LATENCY_US);
        if !behind.dependent {
            // Staging comes behind the first weights, as without a step.
            return filled - FILL_US;
        }
        // Without a step activations are copied while the first weights are on their way, and the wait is another one.
        filled.max(prepared + staging) - FILL_US.max(staging) - DEPENDENT_US
    }

    /// When the kernel behind it has its first instruction, on average of its blocks, in us: those that do not fit
    /// beside the step's start when these end.
    fn start_us(&self, arch: &Arch, behind: &Behind, gap: f64) -> f64 {
        let beside = behind.occupants.beside(&self.occupants, arch);
        let late = 1.0 - f64::from(beside) / f64::from(behind.occupants.blocks.max(1));
        gap + late * (self.us - gap).max(0.0)
    }
}

/// Share of the SMs that so many thread blocks keep busy.
fn of_sms(blocks: u32, arch: &Arch) -> f64 {
    (f64::from(blocks) / f64::from(arch.sm_count)).min(1.0)
}

/// What one thread block of the step that sorts does.
struct Sorted {
    /// Activations loaded.
    loaded: f64,
    /// Activations stored.
    stored: f64,
    /// Bytes of the order.
    order: f64,
    /// Wavefronts at random places for 32 of them.
    scatter: f64,
    /// Wavefronts in which 32 of them are stored.
    store: f64,
}

impl Sorted {
    fn of(p: &Problem, spec: &WeightSpec, mover: Mover) -> Sorted {
        let act = f64::from(p.act.bytes());
        match mover {
            Mover::Slices(tokens) => {
                let slice = sorted_slice(p.k);
                let activations = f64::from(slice * tokens);
                // What a slice has of a quant group is a run of columns.
                let run = f64::from(slice) * f64::from(spec.group.size(p.k)) / f64::from(p.k);
                Sorted {
                    loaded: activations,
                    stored: activations,
                    order: f64::from(slice) * ORDER_BYTES,
                    scatter: SCATTER_WAVEFRONTS,
                    store: 32.0 / run.clamp(1.0, 32.0) + 1.0,
                }
            }
            Mover::Rows(columns) => Sorted {
                loaded: f64::from(p.k),
                stored: f64::from(columns),
                order: f64::from(p.k) * COLUMN_BYTES,
                scatter: SCATTER_WAVEFRONTS,
                store: 32.0 * act / WAVEFRONT_BYTES,
            },
            Mover::Pairs => Sorted {
                loaded: 2.0 * f64::from(p.k),
                stored: 2.0 * f64::from(p.k),
                order: f64::from(p.k) * COLUMN_BYTES,
                scatter: SCATTER_WAVEFRONTS / 2.0,
                store: 32.0 * act / WAVEFRONT_BYTES,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{awq, h200, problem};
    use super::*;

    fn behind(dependent: bool, registers: u32) -> Behind {
        let occupants = Occupants { blocks: 1, threads: 384, registers, shared_bytes: 100 << 10 };
        Behind { dependent, asked: false, occupants, staging_us: 0.0 }
    }

    fn sorting(m: u32) -> Step {
        let spec = WeightSpec { act_order: true, ..awq() };
        Step::sorting(&problem(4096, 4096, m), &spec, &h200())
    }

    #[test]
    fn what_starts_beside_a_short_step_waits_for_its_launch_alone() {
        let adds = |m, behind| sorting(m).adds_us(&h200(), &behind);
        assert!((adds(16, behind(true, 100)) - (DEPENDENT_GAP_US - DEPENDENT_US)).abs() < 1e-9);
        assert!(adds(16, behind(true, 168)) > adds(16, behind(true, 100)), "no registers left");
        assert!(adds(16, behind(false, 100)) > KERNEL_GAP_US + sorting(16).us - 1e-9);
        assert!(adds(4096, behind(true, 100)) > sorting(4096).us - FILL_US, "longer than the fill");
    }

    #[test]
    fn weights_that_the_step_asks_for_are_there_when_late_blocks_start() {
        for (dependent, registers) in [(true, 168), (false, 100)] {
            let unasked = behind(dependent, registers);
            let asked = Behind { asked: true, ..behind(dependent, registers) };
            let [us, without] = [asked, unasked].map(|b| sorting(64).adds_us(&h200(), &b));
            assert!(us < without && us > 0.0, "{us} {without}");
        }
    }

    #[test]
    fn activations_that_are_staged_come_after_the_step() {
        let adds = |staging_us| {
            let behind = Behind { staging_us, ..behind(true, 100) };
            sorting(64).adds_us(&h200(), &behind)
        };
        assert!(adds(1.2) > adds(0.0));
        assert!(adds(2.0) > sorting(64).us, "none of it is hidden where staging fills the time");
    }
}
