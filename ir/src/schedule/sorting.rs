//! Act-order: columns of the weights are stored sorted by quant group, and activations, which
//! arrive by input feature, have to be put into that order.

use super::{require, Rejected, Schedule};
use crate::{Problem, WeightSpec};

/// Most columns of an act-order layer: the place of a feature has 16 bits.
const MOST_COLUMNS: u32 = 1 << 16;

/// Who puts the activations into the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sorting {
    /// Nobody: columns are in the order of the features.
    None,
    /// A function of its own that runs first. The main loop then reads 16 bytes at a time, or by
    /// tensor copies, as it always does.
    Step,
    /// Each block, while it stages its activations in shared memory: one launch, but every block
    /// reads the order.
    Prologue,
}

impl Schedule {
    /// Who sorts the activations of a layer: staging sorts on the way, all else has it done before.
    pub fn sorting(&self, spec: &WeightSpec) -> Sorting {
        match self {
            _ if !spec.act_order => Sorting::None,
            Schedule::Gemv(s) if s.stage_x => Sorting::Prologue,
            _ => Sorting::Step,
        }
    }
}

/// What sorting needs of a problem.
pub(super) fn check(p: &Problem, spec: &WeightSpec) -> Result<(), Rejected> {
    require(!spec.act_order || p.k <= MOST_COLUMNS, || {
        format!("K = {}; act-order layers have at most {MOST_COLUMNS} columns", p.k)
    })?;
    require(!spec.act_order || p.act.bytes() == 2, || {
        format!("{} activations; those of act-order layers have 16 bits", p.act)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::{awq, h200, problem};

    const STAGED: &str =
        "gemv tokens=1 rows=1 lanes=8 warps=1x4 unroll=1 split=1 x=shared acc=half2 \
                          cache=stream dequant=(sum x)";

    #[test]
    fn staging_sorts_and_all_else_is_sorted_before() {
        let spec = WeightSpec { act_order: true, ..awq() };
        let sorting =
            |text: &str, spec: &WeightSpec| text.parse::<Schedule>().unwrap().sorting(spec);
        let unstaged = STAGED.replace("x=shared", "x=global");
        assert_eq!(sorting(STAGED, &spec), Sorting::Prologue);
        assert_eq!(sorting(&unstaged, &spec), Sorting::Step);
        assert_eq!(sorting(&unstaged, &awq()), Sorting::None);
    }

    #[test]
    fn places_beyond_16_bits_are_refused() {
        let spec = WeightSpec { act_order: true, ..awq() };
        let schedule: Schedule = STAGED.replace("x=shared", "x=global").parse().unwrap();
        schedule.check(&problem(64, 1 << 16, 1), &spec, &h200()).unwrap();
        let refused = schedule.check(&problem(64, 1 << 17, 1), &spec, &h200()).unwrap_err();
        assert!(refused.reason.contains("65536 columns"), "{refused}");
        schedule.check(&problem(64, 1 << 17, 1), &awq(), &h200()).unwrap();
    }
}
