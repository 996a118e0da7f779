//! Rows that share parameters ([`Group::Rows`]): every column has its own, so that nothing can be added up
//! before they apply. What a lane computes of them serves all rows of theirs that it has.

use super::{require, scales_inside, DenseGemm, Rejected, Schedule};
use crate::dequant::packed_param_bytes;
use crate::{Epilogue, Group, Problem, WeightSpec};

/// Rows of a fragment.
const FRAGMENT_ROWS: u32 = 16;
/// Weights of a lane in a fragment, by the operands that they need: one for each pair of columns and each of two rows.
const WEIGHTS_PER_OPERAND: u32 = 8;

/// The weights of which a lane has that share an operand, in the cost model's units; `None` where rows have
/// parameters of their own.
pub(super) fn segment(schedule: &Schedule, spec: &WeightSpec) -> Option<u32> {
    let Group::Rows(group) = spec.group else { return None };
    Some(match schedule {
        // Both weights of a pair, of all rows.
        Schedule::Gemv(s) => 2 * s.rows,
        Schedule::Mma(s) => WEIGHTS_PER_OPERAND * s.row_tiles().min(group / FRAGMENT_ROWS).max(1),
        Schedule::Wgmma(_) | Schedule::Dequant(_) => WEIGHTS_PER_OPERAND,
    })
}

/// Whether a schedule can serve rows that share parameters.
pub(super) fn check(schedule: &Schedule, p: &Problem, spec: &WeightSpec) -> Result<(), Rejected> {
    let Group::Rows(group) = spec.group else { return Ok(()) };
    require(p.n % group == 0, || {
        format!("N = {} is no multiple of the {group} rows that share parameters", p.n)
    })?;
    require(p.epilogue != Epilogue::SiluMul, || {
        "rows that share parameters are no pairs of gate and up".into()
    })?;
    let rows = schedule.tile().0;
    match schedule {
        Schedule::Gemv(s) => require(group % s.warp_rows() == 0, || {
            format!("{group} rows share parameters, no multiple of the {} of a warp", s.warp_rows())
        })?,
        Schedule::Dequant(s) if matches!(s.gemm, DenseGemm::Library(_)) => {
            let reason =
                "a library writes rows in their order; those that share parameters have another";
            return Err(Rejected { reason: reason.into() });
        }
        Schedule::Mma(s) => check_fragments(group, rows / s.warps_n.max(1))?,
        Schedule::Wgmma(_) | Schedule::Dequant(_) => check_fragments(group, rows)?,
    }
    check_nested(group, rows)?;
    let term = schedule.dequant();
    require(scales_inside(term), || {
        "the term scales sums, and every column would have one".into()
    })?;
    let entry = packed_param_bytes(term, spec);
    require([4, 8].contains(&entry), || {
        format!("{entry} bytes of parameters for a column, not 4 or 8")
    })
}

/// Whether fragments of a warp or block of so many rows have one row of parameters each.
fn check_fragments(group: u32, rows: u32) -> Result<(), Rejected> {
    require(group % FRAGMENT_ROWS == 0, || {
        format!("{group} rows share parameters, no multiple of the {FRAGMENT_ROWS} of a fragment")
    })?;
    check_nested(group, rows)
}

/// Whether so many rows have whole rows of parameters, or one.
fn check_nested(group: u32, rows: u32) -> Result<(), Rejected> {
    require(rows > 0 && (rows % group == 0 || group % rows == 0), || {
        format!("{group} rows share parameters, of {rows} at once")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::{awq, h200, problem};
    use crate::{Param, ParamType, Schedule};

    /// Why a schedule is refused for weights of which so many rows share parameters.
    fn refusal(text: &str, rows: u32, n: u32) -> Option<String> {
        let param = |name: &str| Param { name: name.into(), dtype: ParamType::F16 };
        let params = vec![param("s"), param("z")];
        let spec = WeightSpec { group: Group::Rows(rows), params, ..awq() };
        let schedule: Schedule = text.parse().unwrap();
        schedule.check(&problem(n, 4096, 16), &spec, &h200()).err().map(|refused| refused.reason)
    }

    const MMA: &str = "mma tile=16x128x64 warps=2x1 stages=3 split=1 pad=16 raster=rows \
                       dequant=(sum (* (* (- (real q) z) s) x))";
    const GEMV: &str =
        "gemv tokens=1 rows=4 lanes=16 warps=4x1 unroll=1 split=1 x=shared acc=half2 \
                        cache=stream dequant=(sum (* (* (- (real q) z) s) x))";

    #[test]
    fn rows_that_share_parameters_are_whole_rows_of_fragments_and_warps() {
        for rows in [16, 64, 128, 1024] {
            assert_eq!(refusal(MMA, rows, 2048), None, "{rows}");
        }
        assert!(refusal(MMA, 8, 2048).unwrap().contains("the 16 of a fragment"));
        assert!(refusal(MMA, 48, 4800).unwrap().contains("of 64 at once"));
        assert!(refusal(MMA, 64, 1000).unwrap().contains("N = 1000"));
        assert_eq!(refusal(GEMV, 8, 2048), None);
        assert!(refusal(GEMV, 4, 2048).unwrap().contains("the 8 of a warp"));
    }

    #[test]
    fn no_sum_is_scaled_where_every_column_has_a_scale() {
        let outside =
            MMA.replace("(sum (* (* (- (real q) z) s) x))", "(* s (sum (* (- (real q) z) x)))");
        assert!(refusal(&outside, 64, 2048).unwrap().contains("every column"));
        let library = "dequant slab=512 gemm=library dequant=(sum (* (* (- (real q) z) s) x))";
        assert!(refusal(library, 64, 2048).unwrap().contains("library"));
    }
}
