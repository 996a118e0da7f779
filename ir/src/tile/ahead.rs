//! What the steps cost that prepare activations ahead of a multiplication.

use super::cost::{BETWEEN_KERNELS_US, DEPENDENT_SAVES_US, L2_EFFICIENCY, SCATTER_WAVEFRONTS};
use super::work::WAVEFRONT_BYTES;
use crate::{sorted_slice, Arch, Mover, Problem, WeightSpec};

/// Lane-instructions per activation that is quantized: widened twice, compared, multiplied, rounded,
/// packed.
const QUANTIZE_INSTRUCTIONS: f64 = 7.0;
/// Lane-instructions per activation that is sorted: its place, a bounds check, addresses, a load, a store.
const SORT_INSTRUCTIONS: f64 = 8.0;
/// Bytes of a feature's place in its slice and its column.
const ORDER_BYTES: f64 = 4.0;
/// Bytes of a feature's column.
const COLUMN_BYTES: f64 = 2.0;

/// The step that quantizes the activations, in us, and the gap to the next kernel: a block for each
/// token reads its activations twice, the second time from L1 or L2.
pub(super) fn quantize_us(p: &Problem, arch: &Arch, dependent: bool) -> f64 {
    let blocks = (f64::from(p.m) / f64::from(arch.sm_count)).ceil();
    let k = f64::from(p.k);
    let read = 2.0 * k * f64::from(p.act.bytes()) / (arch.l2_bytes_per_clock * L2_EFFICIENCY);
    let issue = k / 32.0 * QUANTIZE_INSTRUCTIONS / arch.rates.issue;
    blocks * read.max(issue) / (arch.clock_ghz * 1000.0) + gap_us(dependent)
}

/// From the end of a step to the kernel behind it.
fn gap_us(dependent: bool) -> f64 {
    BETWEEN_KERNELS_US - if dependent { DEPENDENT_SAVES_US } else { 0.0 }
}

/// What one thread block of the step that sorts does.
struct Sorted {
    blocks: u32,
    /// Activations loaded.
    loaded: f64,
    /// Activations stored.
    stored: f64,
    /// Bytes of the order.
    order: f64,
    /// Wavefronts in which 32 of them are stored.
    store: f64,
}

impl Sorted {
    fn of(p: &Problem, spec: &WeightSpec) -> Sorted {
        let act = f64::from(p.act.bytes());
        match Mover::of(p) {
            Mover::Slices(tokens) => {
                let slice = sorted_slice(p.k);
                let activations = f64::from(slice * tokens);
                // What a slice has of a quant group is a run of columns.
                let run = f64::from(slice) * f64::from(spec.group.size(p.k)) / f64::from(p.k);
                Sorted {
                    blocks: p.m.div_ceil(tokens) * p.k.div_ceil(slice),
                    loaded: activations,
                    stored: activations,
                    order: f64::from(slice) * ORDER_BYTES,
                    store: 32.0 / run.clamp(1.0, 32.0) + 1.0,
                }
            }
            Mover::Rows(columns) => Sorted {
                blocks: p.m * p.k.div_ceil(columns),
                loaded: f64::from(p.k),
                stored: f64::from(columns),
                order: f64::from(p.k) * COLUMN_BYTES,
                store: 32.0 * act / WAVEFRONT_BYTES,
            },
        }
    }
}

/// The step that sorts the activations, in us, and the gap to the next kernel.
pub(super) fn sort_us(p: &Problem, spec: &WeightSpec, arch: &Arch, dependent: bool) -> f64 {
    let Sorted { blocks, loaded, stored, order, store } = Sorted::of(p, spec);
    let act = f64::from(p.act.bytes());
    let bytes = (loaded + stored) * act + order;
    // In whole pieces from L2 and to or from shared memory; at random places of that; to L2.
    let pieces = (loaded * act + stored * act + order) / WAVEFRONT_BYTES;
    let cycles = [
        bytes / (arch.l2_bytes_per_clock * L2_EFFICIENCY),
        pieces + stored / 32.0 * (SCATTER_WAVEFRONTS + store),
        loaded / 32.0 * SORT_INSTRUCTIONS / arch.rates.issue,
    ];
    let of_busiest = f64::from(blocks.div_ceil(arch.sm_count));
    let cycles = of_busiest * cycles.into_iter().fold(0.0, f64::max);
    cycles / (arch.clock_ghz * 1000.0) + gap_us(dependent)
}
