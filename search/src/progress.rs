//! What a search tells while it runs.

use crate::WinnerReport;
use qtune_ir::Problem;

/// Candidates of one problem so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Legal schedules that the ladder ranked.
    pub proposed: usize,
    /// Schedules that were compiled.
    pub compiled: usize,
    /// Compiled schedules that were left out: spills, too slow, wrong.
    pub rejected: usize,
    /// Schedules that passed verification.
    pub verified: usize,
    /// Schedules that were timed.
    pub timed: usize,
}

/// The best of a problem so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best<'a> {
    /// The schedule on one line.
    pub schedule: &'a str,
    /// Its time in microseconds, modelled or measured.
    pub time_us: f64,
    /// Share of the roof that it reaches.
    pub roof_share: f64,
    /// Time of the default schedule, once it is known.
    pub default_us: Option<f64>,
}

/// Told of a search's progress, from several threads. Every method does nothing unless overridden.
pub trait Progress: Sync {
    /// The search begins with this many problems, cached ones included.
    fn begin(&self, problems: usize) {
        let _ = problems;
    }

    /// Work on problem `index` begins. Several may be under way.
    fn problem_started(&self, index: usize, name: &str, problem: &Problem) {
        let _ = (index, name, problem);
    }

    /// Another candidate of problem `index` has been dealt with.
    fn candidate(&self, index: usize, tally: &Tally) {
        let _ = (index, tally);
    }

    /// Problem `index` has a new best candidate. It is not a winner before it is verified.
    fn best(&self, index: usize, best: &Best<'_>) {
        let _ = (index, best);
    }

    /// Problem `index` has its winner, stored.
    fn problem_done(&self, index: usize, winner: &WinnerReport) {
        let _ = (index, winner);
    }

    /// Something that people should know, in one line.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
