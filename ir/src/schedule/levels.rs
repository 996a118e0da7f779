//! Scales of two levels in the families that multiply fragments. Levels are packed apart; the lanes that
//! share rows compute from them, once for each stage, the operands of the rows' weights, and leave them to
//! each other in shared memory.

use super::{params_once, require, scales_inside, Rejected, Schedule};
use crate::dequant::{fields, packed_param_bytes, reads_nested, Levels};
use crate::{Problem, WeightSpec, NESTED_CODES};

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
    if !scales_inside(dequant) {
        return None;
    }
    let levels = match (spec.has_nested_scales(), spec.has_two_levels()) {
        (true, _) => Levels::nested(dequant, spec, k)?,
        (_, true) => Levels::of(fields(dequant, spec))?,
        _ => return None,
    };
    let (group, span) = (spec.group.size(k), spec.group.size(k) * levels.groups);
    // A nested scale's float for itself takes more bytes than the scale.
    let fewer = !levels.is_nested() || block_k > group;
    let nested = |tile: u32| tile % span == 0 || span % tile == 0;
    // Groups are dealt to lanes evenly.
    let even = levels.groups % ROW_LANES == 0 && (warp_k / group).is_power_of_two();
    (group < k && nested(block_k) && nested(warp_k) && even && fewer).then_some(levels)
}

/// Lanes that share the operands of their rows where a term reads both levels of such a tile.
pub(super) fn row_lanes(spec: &WeightSpec, k: u32, tile: (u32, u32)) -> u32 {
    of_fragments("", spec, k, tile).map_or(1, |_| ROW_LANES)
}

/// Copies of a layer's map of nested scales in shared memory, number by number: one per bank, so that lanes
/// that read different ones never wait for each other.
pub const MAP_COPIES: u32 = 32;
/// Bytes of the map with its copies.
pub(super) const MAP_BYTES: u32 = NESTED_CODES as u32 * MAP_COPIES * 4;

/// Refuses terms that have the kernel make nested scales where it cannot.
pub(super) fn check_nested(
    schedule: &Schedule,
    p: &Problem,
    spec: &WeightSpec,
) -> Result<(), Rejected> {
    if !reads_nested(schedule.dequant()) {
        return Ok(());
    }
    require(p.epilogue.rows_per_column() == 1, || {
        "nested scales of two layers by turns: each has a map of its own".into()
    })?;
    require(schedule.levels(spec, p.k).is_some(), || {
        match schedule {
        Schedule::Dequant(_) => "nested scales are made when weights are packed: dequant reads them once".into(),
        Schedule::Gemv(_) => "nested scales are made for 4 rows of a lane, and 2 groups or more that share a float".into(),
        _ => "nested scales are made inside of sums, for stages of 2 groups or more, of 4 that share a float".into(),
    }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequant::tests::nested;
    use crate::Arch;

    /// Why a schedule is refused for rows of `groups` quant groups of 128.
    fn refused(schedule: &str, term: &str, groups: u32, end: &str) -> String {
        let key = format!("w4a16.test.f16-f16.n512.k{}.m2{end}", 128 * groups);
        let schedule: Schedule = format!("{schedule} dequant={term}").parse().unwrap();
        let checked =
            schedule.check(&key.parse().unwrap(), &nested(), &Arch::named("h200").unwrap());
        checked.err().map_or_else(String::new, |refused| refused.reason)
    }

    #[test]
    fn nested_scales_are_made_where_that_takes_fewer_bytes() {
        let gemv = "gemv tokens=1 rows=4 lanes=32 warps=2x1 unroll=1 split=1 x=shared acc=half2 cache=stream";
        let outside = "(* (* (nested s c n) 256) (sum (* (prmt q) (* 0.00390625 x))))";
        assert_eq!(refused(gemv, outside, 8, ""), "");
        assert!(refused(gemv, outside, 27, "").contains("2 groups or more"));
        assert!(refused(gemv, outside, 8, "+silu_mul").contains("a map of its own"));
        let two_rows = gemv.replace("rows=4", "rows=2");
        assert!(refused(&two_rows, outside, 8, "").contains("4 rows"));
        let mma = "mma tile=16x64x256 warps=2x2 stages=2 split=1 pad=16 raster=rows";
        let inside = "(sum (* (* (prmt q) (nested s c n)) x))";
        assert_eq!(refused(mma, inside, 8, ""), "");
        let outside = "(* (nested s c n) (sum (* (prmt q) x)))";
        assert!(refused(mma, outside, 8, "").contains("inside of sums"));
        let short = mma.replace("256 warps=2x2", "128 warps=2x2");
        assert!(refused(&short, inside, 8, "").contains("stages of 2 groups"));
        let wgmma = "wgmma tile=64x128x256 groups=2 stages=2 split=1 producer=warp raster=rows";
        assert_eq!(refused(wgmma, inside, 8, ""), "");
        let slabs =
            format!("dequant slab=64 gemm={}", mma.replace("256 warps=2x2", "64 warps=2x1"));
        assert!(refused(&slabs, inside, 8, "").contains("dequant reads them once"));
    }
}
