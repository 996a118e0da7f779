//! What came of a search.

use crate::request::Limits;
use qtune_cache::{Evidence, Extent, Winner};
use qtune_ir::Problem;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Every problem has a winner, or was given up with a reason.
    Complete,
    /// The budget ended before every problem was done.
    BudgetEnded,
    /// The user interrupted it.
    Interrupted,
}

/// Candidates that failed, by cause: counts. Causes are short and hold no numbers.
pub type Failures = BTreeMap<String, usize>;

/// One problem's winner.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct WinnerReport {
    /// What the request calls the shape.
    pub shape: String,
    /// The problem key.
    pub problem: String,
    /// The schedule on one line.
    pub schedule: String,
    /// `gemv` or `mma`.
    pub family: String,
    /// Where the time comes from.
    pub evidence: Evidence,
    /// Time of one launch in microseconds.
    pub time_us: f64,
    /// Share of the roof reached, 0 to 1.
    pub roof_share: f64,
    /// Whether the full check passed.
    pub verified: bool,
    /// Largest measured error over its bound.
    pub error_over_bound: f64,
    /// Time of the default schedule, by the same evidence; `None` if it was not compared.
    pub default_us: Option<f64>,
    /// Whether the default schedule is the winner.
    pub kept_default: bool,
    /// Whether the cache had it.
    pub from_cache: bool,
    /// How far the search for it went; one of more effort goes on.
    pub extent: Extent,
}

/// The name under which the default schedule is listed among the beaten.
pub const DEFAULT_LOST: &str = "the default schedule";

impl WinnerReport {
    /// The report of a winner for `problem`; `kept_default` says whether it is the default schedule.
    pub(crate) fn of(
        shape: &str,
        problem: &Problem,
        winner: &Winner,
        kept_default: bool,
        from_cache: bool,
    ) -> WinnerReport {
        let default = winner.beat.iter().find(|b| b.reason.starts_with(DEFAULT_LOST));
        let default_us = default.map(|b| b.time_us).or(kept_default.then_some(winner.time_us));
        WinnerReport {
            shape: shape.into(),
            problem: problem.to_string(),
            schedule: winner.schedule.clone(),
            family: winner.family.clone(),
            evidence: winner.evidence,
            time_us: winner.time_us,
            roof_share: winner.roof_share,
            verified: winner.verified,
            error_over_bound: winner.error_over_bound,
            default_us,
            kept_default,
            from_cache,
            extent: winner.extent,
        }
    }
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TuneReport {
    /// Winners in the order of the request.
    pub winners: Vec<WinnerReport>,
    /// Problems that have none, with the reason.
    pub without: Vec<(String, String)>,
    /// Candidates that failed, by cause.
    pub failures: Failures,
    /// How the search ended.
    pub stopped: Stopped,
    /// The limits that were in force.
    pub limits: Limits,
    /// Where the trial log is.
    pub trial_log: PathBuf,
}
