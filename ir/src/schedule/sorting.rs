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
    /// A function of its own that rotates them first: see [`WeightSpec::is_rotated`].
    Rotation,
    /// Each block, while it stages its activations in shared memory: one launch, but every block
    /// reads the order.
    Prologue,
}

/// Most tokens for which the step of [`Sorting::Step`] gathers.
const GATHERED_TOKENS: u32 = 16;
/// Thread blocks that the step wants at least, and the most parts of K that it takes for that: each
/// reads a token's activations whole.
const SCATTER_BLOCKS: u32 = 128;
const SCATTER_PARTS: u32 = 4;
/// Most columns that a block of the step has in shared memory: 64 KB.
const SCATTER_COLUMNS: u32 = 1 << 15;
/// Activations of a 16-byte access.
const PIECE: u32 = 8;

/// How the step of [`Sorting::Step`] moves activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// Few tokens: threads all over the GPU gather from global memory, a sector of 32 bytes for each
    /// activation of 2.
    Gather,
    /// Many tokens: blocks read a token whole, and scatter this many columns in shared memory.
    Scatter(u32),
}

impl Mover {
    /// The better one for a problem: sectors are cheap while there are few, and a block that reads a
    /// token whole pays off once there are blocks enough.
    pub fn of(p: &Problem) -> Mover {
        if p.m <= GATHERED_TOKENS {
            return Mover::Gather;
        }
        let parts = (SCATTER_BLOCKS / p.m).clamp(1, SCATTER_PARTS);
        let parts = parts.max(p.k.div_ceil(SCATTER_COLUMNS));
        Mover::Scatter(p.k.div_ceil(PIECE * parts) * PIECE)
    }
}

impl Schedule {
    /// Who sorts the activations of a layer: staging sorts on the way, all else has it done before.
    pub fn sorting(&self, spec: &WeightSpec) -> Sorting {
        match self {
            _ if spec.is_rotated() => Sorting::Rotation,
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
    fn few_tokens_are_gathered_and_many_scattered_in_parts_that_fit() {
        let mover = |k, m| Mover::of(&problem(64, k, m));
        assert_eq!(mover(27648, 16), Mover::Gather);
        assert_eq!(mover(27648, 32), Mover::Scatter(27648 / 4));
        assert_eq!(mover(27648, 1024), Mover::Scatter(27648));
        assert_eq!(mover(1 << 16, 1024), Mover::Scatter(SCATTER_COLUMNS));
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
