//! Scales of two levels in the families that multiply fragments. Levels are packed apart; the lanes that
//! share rows compute from them, once for each stage, the operands of the rows' weights, and leave them to
//! each other in shared memory.

use super::{params_once, scales_inside, Schedule};
use crate::dequant::{fields, packed_param_bytes, Levels};
use crate::WeightSpec;

/// Lanes that have weights of the same rows in a fragment of `m16n8k16`: each computes the operands of
/// some quant groups for all of them.
pub const ROW_LANES: u32 = 4;
/// Most operands of weights that are fixed within a quant group: a scale and an offset.
pub const MOST_OPERANDS: u32 = 2;
/// Bytes of one, a 16-bit float.
const OPERAND_BYTES: u32 = 2;

/// The levels that group parameters are packed by, where stages cover `block_k` and a warp `warp_k` of
/// them; `None` where each group has an entry with all of its parameters. The term reads both levels, and
/// reads them inside of its sum: coefficients of sums are needed in registers.
pub(super) fn of_fragments(
    dequant: &str,
    spec: &WeightSpec,
    k: u32,
    (block_k, warp_k): (u32, u32),
) -> Option<Levels> {
    if !spec.has_two_levels() || !scales_inside(dequant) {
        return None;
    }
    let levels = Levels::of(fields(dequant, spec))?;
    let (group, span) = (spec.group.size(k), spec.group.size(k) * levels.groups);
    let nested = |tile: u32| tile % span == 0 || span % tile == 0;
    // Groups are dealt to lanes evenly.
    let even = levels.groups % ROW_LANES == 0 && (warp_k / group).is_power_of_two();
    (group < k && nested(block_k) && nested(warp_k) && even).then_some(levels)
}

/// Lanes that share the operands of their rows where a term reads both levels of such a tile.
pub(super) fn row_lanes(spec: &WeightSpec, k: u32, tile: (u32, u32)) -> u32 {
    of_fragments("", spec, k, tile).map_or(1, |_| ROW_LANES)
}

/// Bytes of shared memory for the operands of so many rows and quant groups.
pub(super) fn operand_bytes(rows: u32, groups: u32) -> u32 {
    rows * groups * MOST_OPERANDS * OPERAND_BYTES
}

impl Schedule {
    /// The levels that group parameters are packed by; `None` where each group has an entry with all of
    /// its parameters.
    pub fn levels(&self, spec: &WeightSpec, k: u32) -> Option<Levels> {
        match self {
            Schedule::Gemv(s) => s.levels(spec, k),
            Schedule::Mma(s) => s.levels(spec, k),
            Schedule::Wgmma(s) => s.levels(spec, k),
            // Reads every parameter once for a slab of floats.
            Schedule::Dequant(_) => None,
        }
    }

    /// Whether the group parameters of a ring are copied once for all stages: see
    /// [`MmaSchedule::once_param_bytes`].
    pub fn has_params_once(&self, spec: &WeightSpec, k: u32) -> bool {
        match self {
            Schedule::Mma(s) => params_once(s.split, spec, k),
            Schedule::Wgmma(s) => params_once(s.split, spec, k),
            Schedule::Gemv(_) | Schedule::Dequant(_) => false,
        }
    }

    /// Bytes of packed parameters for a row and quant group, those that groups share in parts.
    pub fn param_bytes(&self, spec: &WeightSpec, k: u32) -> f64 {
        let of_stage = |bytes: u32, groups: u32| f64::from(bytes) / f64::from(groups);
        match self {
            Schedule::Gemv(s) => s.param_bytes(spec, k),
            Schedule::Mma(s) => of_stage(s.row_param_bytes(spec, k), s.groups_per_stage(spec, k)),
            Schedule::Wgmma(s) => of_stage(s.row_param_bytes(spec, k), s.groups_per_stage(spec, k)),
            Schedule::Dequant(_) => packed_param_bytes(self.dequant(), spec).into(),
        }
    }
}
