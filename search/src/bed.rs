//! The test bed: where candidates are compiled, checked and timed. A device with a compiler is one,
//! a trial log is another.

use crate::candidate::Candidate;
use crate::compiler::Compiler;
use crate::fault::Fault;
use crate::finalist::{compile, Compiled, Finalist};
use crate::in_step::{step_watches, Step};
use crate::request::{Limits, Task};
use crate::timing::Stopwatch;
use qtune_cache::Evidence;
use qtune_device::{Device, Timing, TimingPlan};
use qtune_ir::Arch;
use qtune_verify::{verify, Effort, Verdict, VerifyRequest};
use std::time::Duration;

/// Compiles, checks and times candidates. Compiles run on several threads, all else on one.
pub(crate) trait TestBed: Sync {
    /// In words: part of a winner's provenance.
    fn describe(&self) -> String;

    /// What times from here are worth.
    fn evidence(&self) -> Evidence;

    /// Whether times decide; where not, the cost model does.
    fn measures(&self) -> bool;

    /// Whether what happens here happened before: launches are no danger, and what they tell of a kernel
    /// is no news of the GPU.
    fn replays(&self) -> bool {
        false
    }

    /// Differs whenever kernels or winners might: part of every winner's key.
    fn fingerprint(&self) -> String;

    /// The time after which a compile is given up; `None` where it may take as long as it likes.
    fn compile_limit(&self) -> Option<Duration> {
        None
    }

    /// Compiles a candidate.
    fn compile(&self, task: &Task, arch: &Arch, candidate: Candidate) -> Compiled;

    /// Verifies a finalist.
    fn check(&self, task: &Task, finalist: &Finalist, checks: &Checks) -> Result<Verdict, Fault>;

    /// Times the load-only twin of a finalist, in microseconds; `None` where nothing is measured.
    fn load_only(&self, task: &Task, finalist: &Finalist) -> Result<Option<f64>, Fault>;

    /// Sets a finalist up for being timed, more than once.
    fn watch<'a>(
        &'a self,
        task: &'a Task,
        finalist: &'a Finalist,
    ) -> Result<Box<dyn Watch + 'a>, Fault>;

    /// Sets a step up for being timed, once with each contender in its places.
    fn watch_in_step<'a>(&'a self, step: &Step<'a>) -> Result<Vec<Box<dyn Watch + 'a>>, Fault>;
}

/// A finalist ready to be timed.
pub(crate) trait Watch {
    /// Times it once.
    fn time(&self, plan: &TimingPlan) -> Result<Timing, Fault>;
}

/// How a finalist is verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub effort: Effort,
    pub limits: Limits,
    pub seed: u64,
}

/// The name of a cause under which wrong kernels are counted.
pub(crate) const WRONG: &str = "failed verification";

/// A device and the compiler for it.
pub(crate) struct DeviceBed<'a> {
    pub device: &'a dyn Device,
    pub compiler: &'a dyn Compiler,
}

impl TestBed for DeviceBed<'_> {
    fn describe(&self) -> String {
        self.device.describe()
    }

    fn evidence(&self) -> Evidence {
        match self.device.evidence() {
            qtune_device::Evidence::Modelled => Evidence::Modelled,
            qtune_device::Evidence::Timed => Evidence::Timed,
        }
    }

    fn measures(&self) -> bool {
        self.evidence() == Evidence::Timed
    }

    fn fingerprint(&self) -> String {
        self.compiler.fingerprint()
    }

    fn compile_limit(&self) -> Option<Duration> {
        self.compiler.limit()
    }

    fn compile(&self, task: &Task, arch: &Arch, candidate: Candidate) -> Compiled {
        compile(task, arch, self.compiler, candidate)
    }

    fn check(&self, task: &Task, finalist: &Finalist, checks: &Checks) -> Result<Verdict, Fault> {
        let request = VerifyRequest {
            effort: checks.effort,
            sample_tiles: Some(checks.limits.verified_row_tiles),
            ..VerifyRequest::new(&finalist.image, &task.spec, checks.seed)
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

    fn load_only(&self, task: &Task, finalist: &Finalist) -> Result<Option<f64>, Fault> {
        let (Task { problem, spec, .. }, arch) = (task, self.device.arch());
        let schedule = &finalist.candidate.schedule;
        let twin = qtune_codegen::load_only(problem, spec, schedule, arch);
        let twin = twin.map_err(|error| Fault::Wrong(error.to_string()))?;
        let image = self.compiler.compile(twin, arch)?;
        let timing = Stopwatch::new(self.device, &image)?.time_launches(&TimingPlan::default())?;
        Ok(timing.map(|timing| timing.median_us))
    }

    fn watch<'a>(
        &'a self,
        _: &'a Task,
        finalist: &'a Finalist,
    ) -> Result<Box<dyn Watch + 'a>, Fault> {
        Ok(Box::new(Stopwatch::new(self.device, &finalist.image)?))
    }

    fn watch_in_step<'a>(&'a self, step: &Step<'a>) -> Result<Vec<Box<dyn Watch + 'a>>, Fault> {
        step_watches(self.device, step)
    }
}

impl Watch for Stopwatch<'_> {
    fn time(&self, plan: &TimingPlan) -> Result<Timing, Fault> {
        possible(self.time_launches(plan)?)
    }
}

/// A time that can be one.
pub(crate) fn possible(timing: Option<Timing>) -> Result<Timing, Fault> {
    let timing = timing.ok_or_else(|| Fault::Wrong("the device gave no time".into()))?;
    match timing.median_us.is_finite() && timing.median_us > 0.0 {
        true => Ok(timing),
        false => Err(Fault::Wrong(format!("the device timed it as {} us", timing.median_us))),
    }
}
