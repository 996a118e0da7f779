//! The court of last resort: candidates that compiled are verified, and the best right one wins.

use crate::candidate::{Candidate, Preference};
use crate::finalist::{Compiled, Finalist};
use crate::ladder::without_numbers;
use crate::log::Log;
use crate::progress::{Best, Progress, Tally};
use crate::report::Failures;
use crate::request::{Limits, Task};
use crate::{timed, SearchError};
use qtune_cache::trial_log::Outcome;
use qtune_cache::{Evidence, Poisoned, Store};
use qtune_device::{Device, DeviceError};
use qtune_verify::{verify, Effort, Verdict, VerifyError, VerifyRequest};

/// What judging a problem's finalists needs.
pub(crate) struct Judge<'a> {
    pub index: usize,
    pub task: &'a Task,
    pub device: &'a dyn Device,
    /// Where schedules that take a process down are remembered.
    pub store: &'a dyn Store,
    pub limits: Limits,
    pub seed: u64,
    pub progress: &'a dyn Progress,
    /// Asked between candidates.
    pub go_on: &'a dyn Fn() -> bool,
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
    pub lost: Vec<Lost>,
    pub failures: Failures,
    pub tally: Tally,
    /// Time of the default schedule, once it is known.
    pub default_us: Option<f64>,
}

/// The name of a cause under which wrong kernels are counted.
const WRONG: &str = "failed verification";
/// The name of a cause under which kernels are counted that hang or crash.
const LOST: &str = "took its process down";

/// Why a candidate that compiled is out.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is wrong, or cannot be measured.
    Wrong(String),
    /// It took the device's process down and must never be launched again.
    Lost(String),
}

impl From<DeviceError> for Fault {
    fn from(error: DeviceError) -> Fault {
        match error {
            lost @ DeviceError::Lost { .. } => Fault::Lost(lost.to_string()),
            other => Fault::Wrong(other.to_string()),
        }
    }
}

impl From<VerifyError> for Fault {
    fn from(error: VerifyError) -> Fault {
        match error {
            VerifyError::Device(error) => error.into(),
            other => Fault::Wrong(other.to_string()),
        }
    }
}

impl Judge<'_> {
    /// Judges what was compiled.
    ///
    /// # Errors
    /// [`SearchError::Cache`] if the trial log cannot be written.
    pub fn judge(
        &self,
        compiled: Vec<Compiled>,
        tally: Tally,
        log: &mut Log<'_>,
    ) -> Result<Judgement, SearchError> {
        let mut judgement = Judgement { tally, ..Judgement::default() };
        let mut fit = Vec::new();
        for compiled in compiled {
            match compiled {
                Compiled::Fit(finalist) => fit.push(*finalist),
                Compiled::Rejected(candidate, reason) => {
                    let outcome = Outcome::Rejected { reason: reason.clone() };
                    self.lose(&mut judgement, log, &candidate, reason, outcome)?;
                }
                Compiled::Failed(candidate, reason) => {
                    let outcome = Outcome::Failed { reason: reason.clone() };
                    self.lose(&mut judgement, log, &candidate, reason, outcome)?;
                }
                Compiled::Lost(candidate, reason) => {
                    let fault = Fault::Lost(reason);
                    self.condemn(&mut judgement, log, &candidate, fault)?;
                }
                Compiled::Skipped => {}
            }
        }
        let Task { problem, spec, .. } = self.task;
        let preference = Preference::among(problem, spec, fit.iter().map(|f| &f.candidate));
        fit.sort_by(|a, b| preference.order(&a.candidate, &b.candidate));
        match self.device.evidence() {
            qtune_device::Evidence::Modelled => self.by_model(fit, &mut judgement, log)?,
            qtune_device::Evidence::Timed => timed::by_time(self, fit, &mut judgement, log)?,
        }
        judgement.lost.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
        Ok(judgement)
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
                    let evidence = Evidence::Modelled;
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
        let request = VerifyRequest {
            effort,
            sample_tiles: Some(self.limits.verified_row_tiles),
            ..VerifyRequest::new(&finalist.image, &self.task.spec, self.seed)
        };
        let verdict = verify(&request, self.device)?;
        if verdict.passed {
            return Ok(verdict);
        }
        let detail = verdict.cases.iter().find_map(|case| case.detail.as_ref());
        let detail = detail.or(verdict.findings.first());
        let detail = detail.map_or_else(|| format!("{WRONG} without a detail"), Clone::clone);
        Err(Fault::Wrong(detail))
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
                self.poison(candidate, &reason)?;
                (LOST, reason)
            }
        };
        tracing::warn!(problem = %self.task.problem, schedule = %candidate.text, %reason, cause);
        self.progress.note(&format!("{}: {cause}: {} ({reason})", self.task.name, candidate.text));
        let outcome = Outcome::Failed { reason: reason.clone() };
        self.lose(judgement, log, candidate, format!("{cause}: {reason}"), outcome)
    }

    /// Remembers for good that a schedule must not be tried again.
    fn poison(&self, candidate: &Candidate, reason: &str) -> Result<(), SearchError> {
        Ok(self.store.put_poison(&Poisoned {
            problem: self.task.problem.to_string(),
            arch: self.device.arch().fingerprint(),
            schedule: candidate.text.clone(),
            reason: reason.into(),
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
            Some((cause @ (WRONG | LOST), _)) => cause.to_owned(),
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
