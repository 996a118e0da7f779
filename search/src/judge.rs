//! The court of last resort: candidates that compiled are verified, and the best right one wins.

use crate::bed::{Checks, TestBed, WRONG};
use crate::candidate::{Candidate, Preference};
use crate::fault::Fault;
use crate::finalist::{Compiled, Finalist};
use crate::ladder::without_numbers;
use crate::log::Log;
use crate::progress::{Best, Progress, Tally};
use crate::report::Failures;
use crate::request::{Limits, Task};
use crate::{timed, SearchError};
use qtune_cache::trial_log::Outcome;
use qtune_cache::{Evidence, Poisoned, Store};
use qtune_ir::Arch;
use qtune_verify::{Effort, Verdict};
use std::time::Duration;

/// What judging a problem's finalists needs.
pub(crate) struct Judge<'a> {
    pub index: usize,
    pub task: &'a Task,
    pub arch: &'a Arch,
    pub bed: &'a dyn TestBed,
    /// Where schedules that take a process down are remembered.
    pub store: &'a dyn Store,
    pub limits: Limits,
    pub seed: u64,
    pub progress: &'a dyn Progress,
    /// Asked between candidates.
    pub go_on: &'a (dyn Fn() -> bool + Sync),
    /// The default schedule's text, if the problem has one.
    pub default: Option<&'a str>,
}

/// The candidate that won, with the evidence.
#[derive(Debug)]
pub(crate) struct Won {
    pub finalist: Finalist,
    pub verdict: Verdict,
    pub time_us: f64,
    /// What `time_us` is the median of; empty where it is modelled.
    pub samples_us: Vec<f64>,
    pub evidence: Evidence,
}

/// A candidate that lost.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lost {
    pub text: String,
    /// By the model, or measured if it came that far.
    pub time_us: f64,
    pub reason: String,
}

/// The judgement on one problem.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// `None` if every candidate failed or the search ended first.
    pub won: Option<Won>,
    /// Right kernels that ran side by side with the winner and lost, all of them also in `lost`.
    pub rivals: Vec<Won>,
    pub lost: Vec<Lost>,
    pub failures: Failures,
    pub tally: Tally,
    /// Time of the default schedule, once it is known.
    pub default_us: Option<f64>,
    /// Measured time of the winner's load-only twin.
    pub load_only_us: Option<f64>,
    /// Whether it was time to stop before all was tried.
    pub cut_short: bool,
}

/// The name of a cause under which kernels are counted that hang or crash.
const LOST: &str = "took its process down";
/// The name of a cause under which kernels are counted whose compiles are given up.
const LATE: &str = "took too long to compile";

impl Judge<'_> {
    /// Judges what was compiled of `pool`, all that the ladder ranked.
    ///
    /// # Errors
    /// [`SearchError::Cache`] if the trial log cannot be written.
    pub fn judge(
        &self,
        compiled: Vec<Compiled>,
        pool: &[Candidate],
        tally: Tally,
        log: &mut Log<'_>,
    ) -> Result<Judgement, SearchError> {
        let mut judgement = Judgement { tally, ..Judgement::default() };
        let mut fit = self.admit(compiled, &mut judgement, log)?;
        let Task { problem, spec, .. } = self.task;
        let preference = Preference::among(problem, spec, fit.iter().map(|f| &f.candidate));
        fit.sort_by(|a, b| preference.order(&a.candidate, &b.candidate));
        match self.bed.measures() {
            false => self.by_model(fit, &mut judgement, log)?,
            true => timed::by_time(self, fit, pool, &mut judgement, log)?,
        }
        judgement.lost.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
        Ok(judgement)
    }

    /// What of the compiled is fit to be verified; the rest is counted and logged.
    pub fn admit(
        &self,
        compiled: Vec<Compiled>,
        judgement: &mut Judgement,
        log: &mut Log<'_>,
    ) -> Result<Vec<Finalist>, SearchError> {
        let mut fit = Vec::new();
        for compiled in compiled {
            match compiled {
                Compiled::Fit(finalist) => fit.push(*finalist),
                Compiled::Rejected(candidate, reason) => {
                    let outcome = Outcome::Rejected { reason: reason.clone() };
                    self.lose(judgement, log, &candidate, reason, outcome)?;
                }
                Compiled::Failed(candidate, reason) => {
                    let outcome = Outcome::Failed { reason: reason.clone() };
                    self.lose(judgement, log, &candidate, reason, outcome)?;
                }
                Compiled::Lost(candidate, fault) => {
                    self.condemn(judgement, log, &candidate, fault)?;
                }
                Compiled::Skipped => {}
            }
        }
        Ok(fit)
    }

    /// The first in order of preference that passes the full check wins.
    fn by_model(
        &self,
        fit: Vec<Finalist>,
        judgement: &mut Judgement,
        log: &mut Log<'_>,
    ) -> Result<(), SearchError> {
        let default = fit.iter().find(|f| self.default == Some(f.candidate.text.as_str()));
        judgement.default_us = default.map(|f| f.candidate.estimate.time_us);
        for finalist in fit {
            let (text, time_us) = (&finalist.candidate.text, finalist.candidate.estimate.time_us);
            if let Some(won) = &judgement.won {
                let reason = match time_us < won.time_us {
                    true => "as fast within the model's noise, but more instructions",
                    false => "slower by the model",
                };
                let reason = self.named(text, reason);
                judgement.lost.push(Lost { text: text.clone(), time_us, reason });
                continue;
            }
            if !(self.go_on)() {
                break;
            }
            self.best(judgement, &finalist, time_us);
            match self.check(&finalist, Effort::Full) {
                Ok(verdict) => {
                    log.result(self.task, text, Outcome::Ok, Some(time_us))?;
                    judgement.tally.verified += 1;
                    let evidence = self.bed.evidence();
                    let samples_us = Vec::new();
                    judgement.won = Some(Won { finalist, verdict, time_us, samples_us, evidence });
                }
                Err(fault) => self.condemn(judgement, log, &finalist.candidate, fault)?,
            }
            self.progress.candidate(self.index, &judgement.tally);
        }
        Ok(())
    }

    /// Verifies a finalist; the error says what is wrong with it.
    pub fn check(&self, finalist: &Finalist, effort: Effort) -> Result<Verdict, Fault> {
        let checks = Checks { effort, limits: self.limits, seed: self.seed };
        self.bed.check(self.task, finalist, &checks)
    }

    /// A kernel that is wrong, hangs or crashes: it can never win, however fast it is.
    pub fn condemn(
        &self,
        judgement: &mut Judgement,
        log: &mut Log<'_>,
        candidate: &Candidate,
        fault: Fault,
    ) -> Result<(), SearchError> {
        let (cause, reason) = match fault {
            Fault::Wrong(reason) => (WRONG, reason),
            Fault::Lost(reason) => {
                self.poison(candidate, &reason, None)?;
                (LOST, reason)
            }
            Fault::Late(reason, limit) => {
                self.poison(candidate, &reason, Some(limit))?;
                (LATE, reason)
            }
        };
        tracing::warn!(problem = %self.task.problem, schedule = %candidate.text, %reason, cause);
        self.progress.note(&format!("{}: {cause}: {} ({reason})", self.task.name, candidate.text));
        let outcome = Outcome::Failed { reason: reason.clone() };
        self.lose(judgement, log, candidate, format!("{cause}: {reason}"), outcome)
    }

    /// Remembers that a schedule must not be tried again, for good or with this limit of compiles; what a
    /// log says is remembered there.
    fn poison(
        &self,
        candidate: &Candidate,
        reason: &str,
        limit: Option<Duration>,
    ) -> Result<(), SearchError> {
        if self.bed.replays() {
            return Ok(());
        }
        Ok(self.store.put_poison(&Poisoned {
            problem: self.task.problem.to_string(),
            arch: self.arch.fingerprint(),
            schedule: candidate.text.clone(),
            reason: reason.into(),
            compile_limit_s: limit.map(|limit| limit.as_secs_f64().ceil() as u64),
        })?)
    }

    fn lose(
        &self,
        judgement: &mut Judgement,
        log: &mut Log<'_>,
        candidate: &Candidate,
        reason: String,
        outcome: Outcome,
    ) -> Result<(), SearchError> {
        let time_us = candidate.estimate.time_us;
        log.result(self.task, &candidate.text, outcome, Some(time_us))?;
        let cause = match reason.split_once(": ") {
            Some((cause @ (WRONG | LOST | LATE), _)) => cause.to_owned(),
            _ => without_numbers(reason.lines().next().unwrap_or_default()),
        };
        *judgement.failures.entry(cause).or_default() += 1;
        judgement.tally.rejected += 1;
        let reason = self.named(&candidate.text, &reason);
        judgement.lost.push(Lost { text: candidate.text.clone(), time_us, reason });
        self.progress.candidate(self.index, &judgement.tally);
        Ok(())
    }

    /// `reason`, marked if it is the default schedule's.
    pub fn named(&self, text: &str, reason: &str) -> String {
        match self.default == Some(text) {
            true => format!("{}: {reason}", crate::report::DEFAULT_LOST),
            false => reason.to_owned(),
        }
    }

    /// Tells of a new best.
    pub fn best(&self, judgement: &Judgement, finalist: &Finalist, time_us: f64) {
        let estimate = &finalist.candidate.estimate;
        self.progress.best(
            self.index,
            &Best {
                schedule: &finalist.candidate.text,
                time_us,
                roof_share: estimate.roof_us / time_us,
                default_us: judgement.default_us,
            },
        );
    }
}
