//! A trial log as a test bed: what was found out about a schedule once is found out again, in
//! microseconds of simulated time and without a GPU or a compiler.
//!
//! So strategies are compared on real logs, and searches are repeated exactly: the noise of a
//! measurement follows from the seed, the schedule and how often it was measured, not from when.
//! Winners are kept under a fingerprint of the log. No compiler has it, so that they are never
//! served.

mod noise;
mod script;
#[cfg(test)]
mod tests;

pub(crate) use noise::Noise;
pub(crate) use script::{Entry, Fate, Script};

use crate::bed::{Checks, TestBed, Watch};
use crate::candidate::Candidate;
use crate::fault::Fault;
use crate::finalist::{Compiled, Finalist};
use crate::in_step::{Place, Step};
use crate::request::Task;
use noise::Draws;
use qtune_cache::trial_log::{self, TrialEvent};
use qtune_cache::{CacheError, Digest, Evidence};
use qtune_device::{KernelImage, Resources, Timing, TimingPlan};
use qtune_ir::Arch;
use qtune_verify::{Counts, InstructionSource, Verdict};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A trial log that answers like a device.
pub struct Replay {
    label: String,
    fingerprint: String,
    arch: String,
    evidence: Evidence,
    script: Script,
    draws: Mutex<Draws>,
}

impl Replay {
    /// Replays the log at `path`. Each sample deviates from the logged time by a normal error of
    /// `noise`, a share of it, which follows from `seed`.
    ///
    /// # Errors
    /// Those of reading the log; [`CacheError::TrialLogLine`] for one without a search in it.
    pub fn open(path: &Path, noise: f64, seed: u64) -> Result<Replay, CacheError> {
        let events = trial_log::read(path)?;
        let header = events.iter().rev().find_map(|event| match event {
            TrialEvent::Start(header) => Some(header),
            _ => None,
        });
        let Some(header) = header else {
            let (path, reason) = (path.to_path_buf(), "no search begins in this log".into());
            return Err(CacheError::TrialLogLine { path, line: 1, reason });
        };
        let measured = |event: &TrialEvent| {
            matches!(event, TrialEvent::Result { evidence: Evidence::Timed, .. })
        };
        let timed = events.iter().any(measured);
        let unreadable =
            |cause| CacheError::TrialLogIo { path: path.to_path_buf(), action: "read", cause };
        let digest = Digest::of(&fs::read(path).map_err(unreadable)?);
        let noise = Noise { relative: noise, ..Noise::default() };
        Ok(Replay {
            label: format!("replay of {}", path.display()),
            fingerprint: format!("replay-{digest}-{:?}-{seed}", noise.relative),
            arch: header.arch.clone(),
            evidence: if timed { Evidence::Timed } else { Evidence::Modelled },
            script: Script::of_log(&events),
            draws: Mutex::new(Draws::new(noise, seed)),
        })
    }

    /// A replay of what a test made up.
    #[cfg(test)]
    fn scripted(script: Script, noise: Noise, seed: u64) -> Replay {
        Replay {
            label: "a script".into(),
            fingerprint: "replay-script".into(),
            arch: String::new(),
            evidence: Evidence::Timed,
            script,
            draws: Mutex::new(Draws::new(noise, seed)),
        }
    }

    /// What it is, in words.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Fingerprint of the arch that the log's searches were for.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    fn entry(&self, task: &Task, finalist: &Finalist) -> Result<&Entry, Fault> {
        let entry = self.script.entry(&task.problem.to_string(), &finalist.candidate.text);
        entry.ok_or_else(|| Fault::Wrong(UNKNOWN.into()))
    }
}

/// Why a candidate that nobody tried is left out.
const UNKNOWN: &str = "the log does not know it";

impl TestBed for Replay {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn evidence(&self) -> Evidence {
        self.evidence
    }

    fn measures(&self) -> bool {
        true
    }

    fn replays(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// The text is generated, as the winner's record needs it; there is no code.
    fn compile(&self, task: &Task, arch: &Arch, candidate: Candidate) -> Compiled {
        match self.script.entry(&task.problem.to_string(), &candidate.text).map(|e| &e.fate) {
            None => return Compiled::Rejected(candidate, UNKNOWN.into()),
            Some(Fate::Unfit(reason)) => return Compiled::Rejected(candidate, reason.clone()),
            Some(Fate::Fine | Fate::Wrong(_) | Fate::Lost(_)) => {}
        }
        let Task { problem, spec, .. } = task;
        match qtune_codegen::generate(problem, spec, &candidate.schedule, arch) {
            Err(refused) => Compiled::Rejected(candidate, refused.to_string()),
            Ok(kernel) => {
                let image = KernelImage {
                    kernel,
                    target: arch.target(),
                    ptx: String::new(),
                    cubin: Vec::new(),
                    log: String::new(),
                    resources: Resources::default(),
                };
                Compiled::Fit(Box::new(Finalist { candidate, image }))
            }
        }
    }

    fn check(&self, task: &Task, finalist: &Finalist, _: &Checks) -> Result<Verdict, Fault> {
        match &self.entry(task, finalist)?.fate {
            Fate::Fine => Ok(verdict(finalist)),
            Fate::Unfit(reason) | Fate::Wrong(reason) => Err(Fault::Wrong(reason.clone())),
            Fate::Lost(reason) => Err(Fault::Lost(reason.clone())),
        }
    }

    fn load_only(&self, _: &Task, _: &Finalist) -> Result<Option<f64>, Fault> {
        Ok(None)
    }

    fn watch<'a>(
        &'a self,
        task: &'a Task,
        finalist: &'a Finalist,
    ) -> Result<Box<dyn Watch + 'a>, Fault> {
        let (problem, entry) = (task.problem.to_string(), self.entry(task, finalist)?);
        let schedule = &finalist.candidate.text;
        Ok(Box::new(Replayed { draws: &self.draws, problem, schedule, entry }))
    }

    fn watch_in_step<'a>(&'a self, step: &Step<'a>) -> Result<Vec<Box<dyn Watch + 'a>>, Fault> {
        let watch = |contender: &&'a Finalist| -> Result<Box<dyn Watch + 'a>, Fault> {
            let kernel = |place: &Place<'a>| {
                let (task, finalist) = match *place {
                    Place::Contender => (step.task, *contender),
                    Place::Other(task, finalist) => (task, finalist),
                };
                let entry = self.entry(task, finalist)?.clone();
                let us = entry.in_step_us.unwrap_or(entry.us);
                let schedule = finalist.candidate.text.as_str();
                Ok((task.problem.to_string(), schedule, Entry { us, ..entry }))
            };
            let kernels = step.layer.iter().chain(&step.once).map(kernel);
            let kernels = kernels.collect::<Result<_, Fault>>()?;
            Ok(Box::new(ReplayedStep { draws: &self.draws, kernels }))
        };
        step.contenders.iter().map(watch).collect()
    }
}

/// A sequence of kernels whose times are replayed: the sum of theirs.
struct ReplayedStep<'a> {
    draws: &'a Mutex<Draws>,
    /// Problem, schedule and times in the sequence.
    kernels: Vec<(String, &'a str, Entry)>,
}

impl Watch for ReplayedStep<'_> {
    fn time(&self, plan: &TimingPlan) -> Result<Timing, Fault> {
        let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        let mut step = || -> f64 {
            let kernels = self.kernels.iter();
            kernels.map(|(problem, schedule, entry)| draws.sample(problem, schedule, entry)).sum()
        };
        let samples_us: Vec<f64> = (0..plan.samples).map(|_| step()).collect();
        let (median_us, spread_us) = crate::statistics::middle(&samples_us);
        Ok(Timing { median_us, samples_us, spread_us, ..Timing::default() })
    }
}

/// What a log says of a kernel's correctness: that it passed. How near it came to its bound is not
/// in the log.
fn verdict(finalist: &Finalist) -> Verdict {
    let estimate = &finalist.candidate.estimate;
    Verdict {
        cases: Vec::new(),
        passed: true,
        error_over_bound: 1.0,
        counts: Counts {
            lane_instructions_per_weight: estimate.lane_instructions_per_weight,
            // There is no machine code to count in.
            instruction_source: InstructionSource::Ptx,
            shared_wavefronts_over_ideal: 0.0,
            global_sectors_over_ideal: 0.0,
            weight_bytes_over_compulsory: 0.0,
            bytes_in_flight_per_sm: estimate.bytes_in_flight_per_sm,
            registers: estimate.registers,
            spill_bytes: 0,
            shared_bytes: estimate.shared_bytes,
        },
        findings: Vec::new(),
        share_of_blocks_run: 0.0,
    }
}

/// A schedule whose times are replayed.
struct Replayed<'a> {
    draws: &'a Mutex<Draws>,
    problem: String,
    schedule: &'a str,
    entry: &'a Entry,
}

impl Watch for Replayed<'_> {
    fn time(&self, plan: &TimingPlan) -> Result<Timing, Fault> {
        let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        let samples_us: Vec<f64> = (0..plan.samples)
            .map(|_| draws.sample(&self.problem, self.schedule, self.entry))
            .collect();
        let (median_us, spread_us) = crate::statistics::middle(&samples_us);
        Ok(Timing { median_us, samples_us, spread_us, ..Timing::default() })
    }
}
