//! Crashes and hangs in worker processes: they cost a candidate, never the search.
//!
//! The workers are this test binary itself; what goes wrong in them is planted by a variable that
//! only `child_serves` reads.

mod support;

use qtune_cache::Store;
use qtune_codegen::nvrtc::NvrtcError;
use qtune_codegen::Kernel;
use qtune_device::{Access, Device, DeviceError, KernelImage};
use qtune_ir::Arch;
use qtune_search::{
    serve, CompilePool, Compiler, IsolatedDevice, NoProgress, TuneReport, TuneRequest,
    WorkerCommand,
};
use std::time::Duration;
use support::{arch, nvrtc, request, Lab, Scripted};

/// Says what goes wrong in a worker.
const PLANT: &str = "QTUNE_TEST_PLANT";

/// Long enough for anything that works, on a machine that is busy with other tests.
const PATIENT: Duration = Duration::from_secs(300);
/// Short enough to wait for.
const IMPATIENT: Duration = Duration::from_secs(2);

/// A worker in which this goes wrong.
fn worker(plant: &str, limit: Duration) -> WorkerCommand {
    WorkerCommand {
        program: std::env::current_exe().unwrap(),
        arguments: ["--exact", "child_serves", "--ignored", "--nocapture"].map(Into::into).into(),
        environment: vec![(PLANT.into(), plant.into())],
        limit,
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "runs as a child process of other tests"]
fn child_serves() {
    let plant = std::env::var(PLANT).expect("not run as a child");
    let at_launch = plant.clone();
    let fast_if_gemv = |text: &str| if text.starts_with("gemv") { 1.0 } else { 9.0 };
    let device = Scripted::timed(fast_if_gemv).before_launch(move |schedule| {
        match (at_launch.as_str(), schedule.starts_with("gemv")) {
            ("launch aborts", true) => std::process::abort(),
            ("launch exits", true) => std::process::exit(7),
            ("launch hangs", true) => hang(),
            _ => {}
        }
    });
    let compile = |source: &str, name: &str, target: &str| {
        match (plant.as_str(), source.contains("gemv")) {
            ("compile aborts", true) => std::process::abort(),
            ("text hangs", _) if source == "hang" => hang(),
            ("text hangs", _) => {
                let (name, arch) = (name.to_owned(), target.to_owned());
                return Err(NvrtcError::Compile { name, arch, log: "no such luck".into() });
            }
            _ => {}
        }
        nvrtc().expect("the parent has one").compile(source, name, target, &[])
    };
    serve(Some(&compile), Some(&device)).unwrap();
}

/// What a search must come to in which all `gemv` kernels take their process down: another
/// winner, the culprits poisoned, and none of them tried a second time.
fn survives(lab: &Lab, run: &dyn Fn(&TuneRequest) -> TuneReport) {
    let report = run(&request(&[1]));
    assert_eq!(report.winners.len(), 1, "{report:#?}");
    assert_eq!(report.winners[0].family, "mma");
    let down = report.failures["took its process down"];
    assert!(down >= 1);
    let poison = lab.store.poison().unwrap();
    assert_eq!(poison.len(), down);
    assert!(poison.iter().all(|entry| entry.schedule.starts_with("gemv")), "{poison:?}");
    assert!(poison.iter().all(|entry| entry.reason.contains("was lost: ")), "{poison:?}");

    run(&TuneRequest { fresh: true, ..request(&[1]) });
    let again = lab.store.poison().unwrap();
    let new = again.iter().filter(|entry| !poison.contains(entry)).count();
    assert_eq!(again.len(), down + new, "an entry was replaced");
    let won = lab.store.winners().unwrap().remove(0).winner;
    assert!(poison.iter().all(|entry| entry.schedule != won.schedule));
    assert!(won.beat.iter().all(|b| poison.iter().all(|entry| entry.schedule != b.schedule)));
}

#[test]
fn kernels_that_take_the_device_s_process_down_are_poisoned_and_the_search_goes_on() {
    for plant in ["launch aborts", "launch exits"] {
        let Some(lab) = Lab::new() else { return };
        let device = IsolatedDevice::start(worker(plant, PATIENT)).unwrap();
        survives(&lab, &|request| lab.run(request, &device));
    }
}

#[test]
fn compiles_that_take_the_compiler_s_process_down_are_poisoned_and_the_search_goes_on() {
    let Some(lab) = Lab::new() else { return };
    let fingerprint = lab.compiler.fingerprint();
    let pool = CompilePool::new(worker("compile aborts", PATIENT), fingerprint);
    let device = Scripted::modelled();
    survives(&lab, &|request| lab.run_on(request, &device, &pool, &NoProgress));
}

#[test]
fn a_compile_that_takes_too_long_is_tried_again_only_where_it_may_take_longer() {
    let Some(lab) = Lab::new() else { return };
    let fresh = TuneRequest { fresh: true, ..request(&[1]) };
    let run = |limit_s, gemv_takes_s| {
        let limit = Duration::from_secs(limit_s);
        let slow = Duration::from_secs(gemv_takes_s);
        let compiler = Slow { compiler: &lab.compiler, limit, gemv_takes: slow };
        let gemv_first = |text: &str| if text.starts_with("gemv") { 1.0 } else { 9.0 };
        lab.run_on(&fresh, &Scripted::timed(gemv_first), &compiler, &NoProgress)
    };
    let report = run(60, 90);
    let late = report.failures["took too long to compile"];
    let poison = lab.store.poison().unwrap();
    assert_eq!((poison.len(), report.winners[0].family.as_str()), (late, "mma"));
    assert!(poison.iter().all(|entry| entry.compile_limit_s == Some(60)), "{poison:?}");
    assert!(poison[0].reason.contains("no answer within 60 s"), "{poison:?}");

    let again = run(60, 1);
    let tried = |report: &TuneReport| {
        let stored = lab.store.winners().unwrap().remove(0).winner;
        let beaten = stored.beat.into_iter().map(|lost| lost.schedule);
        let tried: Vec<String> = beaten.chain([report.winners[0].schedule.clone()]).collect();
        poison.iter().filter(|entry| tried.contains(&entry.schedule)).count()
    };
    assert_eq!(tried(&again), 0, "the limit that was too short is so again");
    let longer = run(120, 90);
    assert!(tried(&longer) > 0 && longer.winners[0].family == "gemv", "{longer:?}");
}

/// A compiler to whose limit `gemv` kernels come too late, or not.
struct Slow<'a> {
    compiler: &'a dyn Compiler,
    limit: Duration,
    gemv_takes: Duration,
}

impl Compiler for Slow<'_> {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        if kernel.source.contains("gemv") && self.gemv_takes > self.limit {
            let what = format!("compiler of `{}`", kernel.main().name);
            return Err(DeviceError::TimedOut { what, limit: self.limit });
        }
        self.compiler.compile(kernel, arch)
    }

    fn fingerprint(&self) -> String {
        self.compiler.fingerprint()
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.limit)
    }
}

#[test]
fn a_compiler_that_cannot_be_started_poisons_nothing() {
    let Some(lab) = Lab::new() else { return };
    let command = WorkerCommand { program: "/nowhere/qtune".into(), ..worker("nothing", PATIENT) };
    let pool = CompilePool::new(command, lab.compiler.fingerprint());
    let report = lab.run_on(&request(&[1]), &Scripted::modelled(), &pool, &NoProgress);
    assert!(report.without[0].1.contains("could not be started"), "{:?}", report.without);
    assert!(lab.store.poison().unwrap().is_empty());
}

#[test]
fn workers_find_the_winners_that_one_process_finds() {
    let Some(lab) = Lab::new() else { return };
    let gemv_first = |text: &str| if text.starts_with("gemv") { 1.0 } else { 9.0 };
    let here = lab.run(&request(&[1, 16]), &Scripted::timed(gemv_first)).winners;
    let device = IsolatedDevice::start(worker("nothing", PATIENT)).unwrap();
    let pool = CompilePool::new(worker("nothing", PATIENT), lab.compiler.fingerprint());
    // A store of its own: winners of the first run would be where the second one starts.
    let Some(other) = Lab::new() else { return };
    let there = other.run_on(&request(&[1, 16]), &device, &pool, &NoProgress).winners;
    assert_eq!(here, there);
    assert!(other.store.poison().unwrap().is_empty());
}

/// A kernel whose text is `source`.
fn kernel(source: &str) -> qtune_codegen::Kernel {
    let problem: qtune_ir::Problem = "w4a16.awq-g32.f16-f16.n64.k512.m1".parse().unwrap();
    let spec = qtune_formats::resolve(&problem.format).unwrap();
    let schedule = qtune_verify::default_schedule(&problem, &spec, &arch()).unwrap();
    let kernel = qtune_codegen::generate(&problem, &spec, &schedule, &arch()).unwrap();
    qtune_codegen::Kernel { source: source.into(), ..kernel }
}

#[test]
fn a_compile_that_hangs_is_killed_and_the_next_one_is_served() {
    let pool = CompilePool::new(worker("text hangs", IMPATIENT), "none".into());
    let compile = |source: &str| pool.compile(kernel(source), &arch()).unwrap_err();
    match compile("hang") {
        DeviceError::TimedOut { limit, .. } => assert_eq!(limit, IMPATIENT),
        other => panic!("{other}"),
    }
    match compile("anything else") {
        DeviceError::Compile { source, .. } => {
            assert!(source.to_string().contains("no such luck"), "{source}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_launch_that_hangs_is_killed_and_what_the_process_held_is_lost() {
    let Some(nvrtc) = nvrtc() else { return };
    let device = IsolatedDevice::start(worker("launch hangs", IMPATIENT)).unwrap();
    let problem: qtune_ir::Problem = "w4a16.awq-g32.f16-f16.n64.k512.m1".parse().unwrap();
    let spec = qtune_formats::resolve(&problem.format).unwrap();
    let generated = kernel("").schedule;
    assert!(generated.to_string().starts_with("gemv"), "{generated}");
    let whole = qtune_codegen::generate(&problem, &spec, &generated, &arch()).unwrap();
    let image = Compiler::compile(nvrtc, whole, &arch()).unwrap();
    let before = device.alloc("before", 64, Access::ReadWrite).unwrap();
    device.upload(&before, 0, &[7; 64]).unwrap();
    assert_eq!(device.download(&before, 8, 4).unwrap(), [7; 4]);

    let verify = qtune_verify::VerifyRequest::new(&image, &spec, 1);
    let error = qtune_verify::verify(&verify, &device).unwrap_err().to_string();
    assert!(error.contains("no answer within 2 s, killed"), "{error}");

    let error = device.download(&before, 0, 4).unwrap_err();
    assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
    let after = device.alloc("after", 16, Access::ReadWrite).unwrap();
    device.upload(&after, 0, &[9; 16]).unwrap();
    assert_eq!(device.download(&after, 0, 16).unwrap(), [9; 16]);
    let error = device.download(&before, 0, 4).unwrap_err();
    assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
}

#[test]
fn a_program_that_is_no_worker_is_an_error_and_no_hang() {
    let no_worker = |program: &str| WorkerCommand {
        program: program.into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        limit: IMPATIENT,
    };
    for program in ["true", "/nowhere/qtune"] {
        let error = IsolatedDevice::start(no_worker(program)).map(|_| ()).unwrap_err();
        assert!(matches!(error, DeviceError::NoWorker { .. }), "{error}");
    }
}
