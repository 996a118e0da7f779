//! The trial log of one search: what is written when, and what an earlier search left behind.

use crate::answers::Answers;
use crate::candidate::Candidate;
use crate::ladder::Climb;
use crate::request::Task;
use qtune_cache::trial_log::{self, Outcome, RunHeader, TrialEvent, TrialLog};
use qtune_cache::{CacheError, Evidence, Poisoned};
use qtune_device::Timing;
use std::collections::{HashMap, HashSet};

/// Schedules that must not be launched again, by problem key.
pub(crate) type Poison = HashMap<String, HashSet<String>>;

/// A trial log that is being written.
pub(crate) struct Log<'a> {
    trials: &'a mut TrialLog,
    evidence: Evidence,
    /// Whether a launch could take the machine down.
    dangerous: bool,
}

impl<'a> Log<'a> {
    /// Reads what launches an earlier search never came back from, stores them as poisoned, and
    /// begins a new run. Returns all poisoned schedules of the request's arch; none for a replay,
    /// whose outcome its own log decides.
    pub fn begin(
        trials: &'a mut TrialLog,
        answers: &Answers<'_>,
        tasks: &[Task],
    ) -> Result<(Log<'a>, Poison), CacheError> {
        let Answers { request, bed, store } = *answers;
        let arch = request.arch.fingerprint();
        let mut poison = Poison::new();
        if !bed.replays() {
            for (problem, schedule) in trial_log::poison(&trial_log::read(trials.path())?) {
                let reason = "launched, and the search never came back from it".to_owned();
                let (arch, compile_limit_s) = (arch.clone(), None);
                let entry = Poisoned { problem, arch, schedule, reason, compile_limit_s };
                store.put_poison(&entry)?;
            }
            let limit = bed.compile_limit();
            let holds = |entry: &Poisoned| entry.arch == arch && entry.holds_for(limit);
            for entry in store.poison()?.into_iter().filter(holds) {
                poison.entry(entry.problem).or_default().insert(entry.schedule);
            }
        }
        let evidence = bed.evidence();
        let first = tasks.first().map(|task| answers.key(task).fingerprint);
        let dangerous = evidence == Evidence::Timed && !bed.replays();
        let log = Log { trials, evidence, dangerous };
        log.trials.append(&TrialEvent::Start(RunHeader {
            problems: tasks.iter().map(|task| task.problem.to_string()).collect(),
            arch,
            fingerprint: first.unwrap_or_default(),
            seed: request.seed,
            limits: request.effort.limits().named(),
            qtune_version: env!("CARGO_PKG_VERSION").into(),
        }))?;
        Ok((log, poison))
    }

    /// What the rungs kept for a problem.
    pub fn proposed(&mut self, task: &Task, climb: &Climb) -> Result<(), CacheError> {
        let event = |candidate: &Candidate| TrialEvent::Proposed {
            problem: task.problem.to_string(),
            schedule: candidate.text.clone(),
            rung: candidate.rung,
            predicted_us: candidate.estimate.time_us,
        };
        self.trials.append_all(&climb.kept.iter().map(event).collect::<Vec<_>>())
    }

    /// What the model says of a candidate that compiled.
    pub fn compiled(&mut self, task: &Task, candidate: &Candidate) -> Result<(), CacheError> {
        self.trials.append(&TrialEvent::Compiled {
            problem: task.problem.to_string(),
            schedule: candidate.text.clone(),
            predicted_us: candidate.estimate.time_us,
        })
    }

    /// A launch that could take the machine down is about to happen. The simulator's cannot, nor can
    /// one that a log tells of.
    pub fn launch(&mut self, task: &Task, schedule: &str) -> Result<(), CacheError> {
        if !self.dangerous {
            return Ok(());
        }
        self.trials.append(&TrialEvent::Launch {
            problem: task.problem.to_string(),
            schedule: schedule.into(),
        })
    }

    /// A GPU timed a kernel.
    pub fn timed(
        &mut self,
        task: &Task,
        schedule: &str,
        timing: &Timing,
    ) -> Result<(), CacheError> {
        self.trials.append(&TrialEvent::Timed {
            problem: task.problem.to_string(),
            schedule: schedule.into(),
            samples_us: timing.samples_us.clone(),
            discarded: timing.discarded,
            clock_mhz: timing.clock_mhz,
            power_mw: timing.power_mw,
        })
    }

    /// What came of a schedule.
    pub fn result(
        &mut self,
        task: &Task,
        schedule: &str,
        outcome: Outcome,
        time_us: Option<f64>,
    ) -> Result<(), CacheError> {
        self.trials.append(&TrialEvent::Result {
            problem: task.problem.to_string(),
            schedule: schedule.into(),
            outcome,
            time_us,
            evidence: self.evidence,
        })
    }

    /// A winner was stored.
    pub fn winner(&mut self, task: &Task, winner: &qtune_cache::Winner) -> Result<(), CacheError> {
        self.trials.append(&TrialEvent::Winner {
            problem: task.problem.to_string(),
            schedule: winner.schedule.clone(),
            time_us: winner.time_us,
            evidence: winner.evidence,
            error_over_bound: winner.error_over_bound,
        })
    }

    /// The search ended in good order.
    pub fn end(&mut self, winners: usize, early: bool) -> Result<(), CacheError> {
        self.trials.append(&TrialEvent::End { winners: winners as u32, interrupted: early })
    }
}
