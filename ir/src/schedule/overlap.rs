//! How a kernel overlaps with the ones launched before and after it.

use super::{require, Rejected};
use crate::Arch;
use std::fmt;

/// Launch options of a schedule. Printed only where they are on: a schedule without them reads as
/// it always did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Overlap {
    /// Programmatic dependent launch: the kernel may start while the one ahead of it on the stream
    /// still runs. It asks for weights and group parameters, which no kernel writes, then waits
    /// for the one ahead before it touches anything else.
    pub pdl: bool,
    /// The kernel asks L2 for the matrix that the next kernel will read, which the launch names:
    /// the DRAM is busy while the epilogue runs.
    pub prefetch: bool,
}

impl Overlap {
    /// Neither.
    pub const NONE: Overlap = Overlap { pdl: false, prefetch: false };

    /// The words of a schedule line, by name.
    pub(super) const WORDS: [&'static str; 2] = ["pdl", "prefetch"];
    /// The value of a word that is there.
    pub(super) const ON: &'static str = "on";

    /// From whether each of [`Overlap::WORDS`] is on.
    pub(super) fn of_words([pdl, prefetch]: [bool; 2]) -> Overlap {
        Overlap { pdl, prefetch }
    }

    pub(super) fn check(self, arch: &Arch) -> Result<(), Rejected> {
        require(!self.pdl || arch.has_dependent_launch(), || {
            format!("pdl needs compute capability 9.0, {} has less", arch.target())
        })
    }
}

/// ` pdl=on prefetch=on`, each where it is on.
impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = [self.pdl, self.prefetch];
        let words = Overlap::WORDS.into_iter().zip(on).filter(|(_, on)| *on);
        words.into_iter().try_for_each(|(word, _)| write!(f, " {word}={}", Overlap::ON))
    }
}
