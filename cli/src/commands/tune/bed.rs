//! Where `tune` tries candidates: a device with a compiler, or a trial log.

use super::Args;
use crate::exit::usage;
use crate::paths::same;
use crate::progress::Reporter;
use crate::workers;
use qtune_cache::trial_log::TrialLog;
use qtune_cache::Store;
use qtune_device::Device;
use qtune_ir::Arch;
use qtune_search::{CompilePool, Replay, SearchError, TuneReport, TuneRequest};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What a device name begins with that names a trial log.
pub const REPLAY: &str = "replay:";

/// Where candidates are compiled, checked and timed.
pub enum Bed {
    /// A device and the compiler for it.
    Device(Box<dyn Device>, CompilePool),
    /// A trial log.
    Log(Replay),
}

impl Bed {
    /// Opens what `--device` names, for kernels of `arch`.
    pub fn open(args: &Args, arch: &Arch) -> anyhow::Result<Bed> {
        if let Some(log) = args.device.device.strip_prefix(REPLAY) {
            if !(0.0..=1.0).contains(&args.noise) {
                return Err(usage("--noise is a share of the time, from 0 to 1"));
            }
            if args.log.as_ref().is_some_and(|own| same(own, Path::new(log))) {
                let reason = "is the log that is replayed; what is tried now goes to another one";
                return Err(usage(format!("--log {log} {reason}")));
            }
            return Ok(Bed::Log(Replay::open(Path::new(log), args.noise, args.seed)?));
        }
        if args.noise != 0.0 {
            return Err(usage("--noise is for a trial log that is replayed: --device replay:LOG"));
        }
        let device = workers::device(args.device.choice()?, arch)?;
        let compilers = workers::compilers(&args.fetch.open()?, args.compile_timeout)?;
        Ok(Bed::Device(device, compilers))
    }

    /// The arch that kernels are made for: a GPU knows it better than `wanted`.
    pub fn arch<'a>(&'a self, wanted: &'a Arch) -> &'a Arch {
        match self {
            Bed::Device(device, _) => device.arch(),
            Bed::Log(_) => wanted,
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Bed::Device(device, _) => device.describe(),
            Bed::Log(log) => log.label().to_owned(),
        }
    }

    /// The name of the trial log of searches here. There is one for each kind of GPU, so that a
    /// schedule that took the machine down is known in the next run, and none that is replayed.
    pub fn log_name(&self, arch: &Arch) -> PathBuf {
        match self {
            Bed::Device(..) => format!("{}.jsonl", arch.key()).into(),
            Bed::Log(_) => format!("{}.replayed.jsonl", arch.key()).into(),
        }
    }

    /// Runs the search.
    pub fn tune(
        &self,
        request: &TuneRequest,
        store: &dyn Store,
        trials: &mut TrialLog,
        reporter: &Reporter,
        cancel: &AtomicBool,
    ) -> Result<TuneReport, SearchError> {
        match self {
            Bed::Device(device, compiler) => {
                let device = device.as_ref();
                qtune_search::tune(request, device, compiler, store, trials, reporter, cancel)
            }
            Bed::Log(log) => {
                qtune_search::tune_on_log(request, log, store, trials, reporter, cancel)
            }
        }
    }
}
