//! The table of defects: what is wrong, in which kernel, by which edit, and what must be found.

use super::kernels::Kernel::{self, *};
use qtune_sim::FindingKind::{self, *};

mod clusters;
mod mbarriers;
mod memory;
mod order;
mod refused;
mod warpgroups;
mod warps;

/// What a run of an edited kernel must say.
#[derive(Debug)]
pub enum Expected {
    /// A finding of one of these kinds, at an instruction whose line holds this text.
    Found(&'static [FindingKind], &'static str),
    /// The kernel is not run, or does not end, for a reason that holds this text.
    Refused(&'static str),
}

/// One planted defect.
#[derive(Debug)]
pub struct Defect {
    /// Kind of mistake; the same in two kernels.
    pub what: &'static str,
    pub kernel: Kernel,
    /// Text, number of its occurrence, and what replaces it; one after the other.
    pub edits: &'static [(&'static str, usize, &'static str)],
    pub expected: Expected,
}

impl Defect {
    /// Kinds of finding expected.
    pub fn kinds(&self) -> &'static [FindingKind] {
        match self.expected {
            Expected::Found(kinds, _) => kinds,
            Expected::Refused(_) => &[],
        }
    }
}

const fn found(
    what: &'static str,
    kernel: Kernel,
    edits: &'static [(&'static str, usize, &'static str)],
    kinds: &'static [FindingKind],
    line: &'static str,
) -> Defect {
    Defect { what, kernel, edits, expected: Expected::Found(kinds, line) }
}

const fn refused(
    what: &'static str,
    kernel: Kernel,
    edits: &'static [(&'static str, usize, &'static str)],
    reason: &'static str,
) -> Defect {
    Defect { what, kernel, edits, expected: Expected::Refused(reason) }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Defect> {
    [
        memory::ROWS,
        warps::ROWS,
        order::ROWS,
        mbarriers::ROWS,
        clusters::ROWS,
        warpgroups::ROWS,
        refused::ROWS,
    ]
    .into_iter()
    .flatten()
}
