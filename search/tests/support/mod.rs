//! A search to order: a device with scripted times and defects, a compiler that counts.

// Each test binary uses a part of it.
#![allow(dead_code)]

use qtune_cache::trial_log::TrialLog;
use qtune_cache::MemoryStore;
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_codegen::{Argument, Kernel};
use qtune_device::{
    Access, ArgValue, Buffer, Device, DeviceError, Evidence, KernelImage, LaunchArgs,
    LaunchOutcome, LoadedKernel, SimDevice, Timing, TimingPlan,
};
use qtune_ir::Arch;
use qtune_search::{tune, Compiler, Effort, NoProgress, Progress, Shape, TuneReport, TuneRequest};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// NVRTC, or a printed reason why the test is skipped.
pub fn nvrtc() -> Option<&'static Nvrtc> {
    static NVRTC: OnceLock<Option<Nvrtc>> = OnceLock::new();
    let open =
        || Nvrtc::open(&OpenOptions::default()).map_err(|error| eprintln!("skipped: {error}")).ok();
    NVRTC.get_or_init(open).as_ref()
}

/// Counts compiles.
pub struct Counting {
    nvrtc: &'static Nvrtc,
    pub compiles: AtomicUsize,
}

impl Compiler for Counting {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        self.compiles.fetch_add(1, Ordering::Relaxed);
        Compiler::compile(self.nvrtc, kernel, arch)
    }

    fn fingerprint(&self) -> String {
        self.nvrtc.fingerprint().into()
    }
}

/// Says something of a schedule's text.
type Script<T> = Box<dyn Fn(&str) -> T + Send + Sync>;

/// A simulated GPU whose times and defects are in a script.
pub struct Scripted {
    sim: SimDevice,
    evidence: Evidence,
    times: Script<f64>,
    /// By how much a kernel takes longer among others.
    in_step: Script<f64>,
    wrong: Script<bool>,
    before_launch: Script<()>,
}

impl Scripted {
    /// Right kernels, ranked by the model.
    pub fn modelled() -> Scripted {
        Scripted {
            sim: SimDevice::new(&arch()),
            evidence: Evidence::Modelled,
            times: Box::new(|_| unreachable!("nothing is timed by a model")),
            in_step: Box::new(|_| 1.0),
            wrong: Box::new(|_| false),
            before_launch: Box::new(|_| ()),
        }
    }

    /// Right kernels with these times in microseconds.
    pub fn timed(times: impl Fn(&str) -> f64 + Send + Sync + 'static) -> Scripted {
        let times = Box::new(times);
        Scripted { evidence: Evidence::Timed, times, ..Scripted::modelled() }
    }

    /// The same with kernels that take so many times as long in a chain.
    pub fn in_step(self, factor: impl Fn(&str) -> f64 + Send + Sync + 'static) -> Scripted {
        Scripted { in_step: Box::new(factor), ..self }
    }

    /// The same with kernels that compute one wrong output.
    pub fn wrong(self, wrong: impl Fn(&str) -> bool + Send + Sync + 'static) -> Scripted {
        Scripted { wrong: Box::new(wrong), ..self }
    }

    /// The same with something that happens before each launch.
    pub fn before_launch(self, before: impl Fn(&str) + Send + Sync + 'static) -> Scripted {
        Scripted { before_launch: Box::new(before), ..self }
    }
}

impl Device for Scripted {
    fn arch(&self) -> &Arch {
        self.sim.arch()
    }

    fn describe(&self) -> String {
        "a scripted device".into()
    }

    fn evidence(&self) -> Evidence {
        self.evidence
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        self.sim.load(image)
    }

    fn alloc(&self, name: &str, bytes: usize, access: Access) -> Result<Buffer, DeviceError> {
        self.sim.alloc(name, bytes, access)
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.sim.upload(buffer, offset, bytes)
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        self.sim.download(buffer, offset, len)
    }

    fn launch(
        &self,
        loaded: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let kernel = &loaded.image().kernel;
        (self.before_launch)(&kernel.schedule.to_string());
        let outcome = self.sim.launch(loaded, launch)?;
        let output = kernel.main().arguments.iter().position(|a| *a == Argument::Output);
        let last = launch.grids.last().expect("a grid");
        if let Some(ArgValue::Buffer(buffer, offset)) = output.map(|index| last.args[index]) {
            if (self.wrong)(&kernel.schedule.to_string()) {
                self.sim.upload(buffer, offset, &[0x77, 0x77])?;
            }
        }
        Ok(outcome)
    }

    fn time(
        &self,
        loaded: &LoadedKernel,
        _: &[LaunchArgs<'_>],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let kernel = &loaded.image().kernel;
        let computes = kernel.main().arguments.contains(&Argument::Activations)
            || kernel.main().arguments.contains(&Argument::ActivationMap);
        // Reading alone takes half the time.
        let share = if computes { 1.0 } else { 0.5 };
        Ok(Some(steady(share * (self.times)(&kernel.schedule.to_string()), plan)))
    }

    fn time_chain(
        &self,
        chain: &[(&LoadedKernel, LaunchArgs<'_>)],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let time = |(loaded, _): &(&LoadedKernel, LaunchArgs<'_>)| {
            let schedule = loaded.image().kernel.schedule.to_string();
            (self.times)(&schedule) * (self.in_step)(&schedule)
        };
        Ok(Some(steady(chain.iter().map(time).sum(), plan)))
    }
}

/// A time without spread.
fn steady(median_us: f64, plan: &TimingPlan) -> Timing {
    let samples_us = vec![median_us; plan.samples as usize];
    Timing { median_us, samples_us, ..Timing::default() }
}

pub fn arch() -> Arch {
    Arch::named("h200").unwrap()
}

/// A quick request for small problems with these M buckets.
pub fn request(buckets: &[u32]) -> TuneRequest {
    let shape = |m: &u32| Shape {
        name: "small".into(),
        problem: format!("w4a16.awq-g32.f16-f16.n64.k512.m{m}").parse().unwrap(),
        calls: 1,
    };
    let shapes = buckets.iter().map(shape).collect();
    TuneRequest { effort: Effort::Quick, ..TuneRequest::new(arch(), shapes) }
}

/// A store, a trial log and a compiler for several searches.
pub struct Lab {
    pub store: MemoryStore,
    pub compiler: Counting,
    pub cancel: AtomicBool,
    folder: tempfile::TempDir,
}

impl Lab {
    /// `None` where there is no NVRTC.
    pub fn new() -> Option<Lab> {
        let compiler = Counting { nvrtc: nvrtc()?, compiles: AtomicUsize::new(0) };
        let folder = tempfile::tempdir().unwrap();
        Some(Lab {
            store: MemoryStore::default(),
            compiler,
            cancel: AtomicBool::new(false),
            folder,
        })
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("trials.jsonl")
    }

    pub fn run(&self, request: &TuneRequest, device: &dyn Device) -> TuneReport {
        self.run_with(request, device, &NoProgress)
    }

    pub fn run_with(
        &self,
        request: &TuneRequest,
        device: &dyn Device,
        progress: &dyn Progress,
    ) -> TuneReport {
        self.run_on(request, device, &self.compiler, progress)
    }

    pub fn run_on(
        &self,
        request: &TuneRequest,
        device: &dyn Device,
        compiler: &dyn Compiler,
        progress: &dyn Progress,
    ) -> TuneReport {
        let mut trials = TrialLog::append_to(&self.log_path()).unwrap();
        let store = &self.store;
        tune(request, device, compiler, store, &mut trials, progress, &self.cancel).unwrap()
    }

    pub fn compiles(&self) -> usize {
        self.compiler.compiles.load(Ordering::Relaxed)
    }
}
