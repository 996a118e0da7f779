//! Carrying a launch out.

use super::buffers::{read, Arguments, Outputs};
use super::compare::Difference;
use super::launch_file::LaunchFile;
use super::partners::{self, Axes};
use super::report::{self, Ran, Verdict};
use super::target;
use crate::exit::Exit;
use crate::output;
use anyhow::{bail, Context};
use clap::ValueEnum;
use qtune_sim::{
    AsyncSchedule, Blocks, FindingKind, Launch, Module, Report, RunOptions, WarpOrder,
};
use std::path::{Path, PathBuf};

/// Options of `sim run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// PTX file
    kernel: PathBuf,
    /// Shape and arguments of the launch, as docs/cli.md describes them
    #[arg(long, value_name = "LAUNCH.json")]
    launch: PathBuf,
    /// When asynchronous copies land: lazy is at the wait, eager at issue; both compares the two
    #[arg(long, value_enum, default_value_t = Schedule::Both)]
    schedule: Schedule,
    /// Order in which warps take turns: forward, reversed, or the seed of a random one
    #[arg(long, value_parser = order, default_value = "forward")]
    order: WarpOrder,
    /// Run this many random thread blocks and the corners of the grid [default: all]
    #[arg(long, value_name = "N")]
    sample_blocks: Option<usize>,
    /// Seed of the sample
    #[arg(long, default_value_t = 1, requires = "sample_blocks")]
    seed: u64,
    /// Blocks that differ along these grid axes alone work together (split-K): of a sampled one all
    /// partners run [default: the axes along which neighbours change the same elements]
    #[arg(long, value_name = "AXES", requires = "sample_blocks", value_parser = partners::parse)]
    partners: Option<Axes>,
    /// GPU whose limits hold [default: by the .target of the PTX]
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// Warp instructions of one thread block after which it counts as an endless loop
    #[arg(long, value_name = "N", default_value_t = 1 << 32)]
    instruction_limit: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Schedule {
    Lazy,
    Eager,
    Both,
}

impl Schedule {
    fn list(self) -> &'static [AsyncSchedule] {
        match self {
            Schedule::Lazy => &[AsyncSchedule::Lazy],
            Schedule::Eager => &[AsyncSchedule::Eager],
            Schedule::Both => &[AsyncSchedule::Lazy, AsyncSchedule::Eager],
        }
    }
}

fn order(text: &str) -> Result<WarpOrder, String> {
    match text {
        "forward" => Ok(WarpOrder::Forward),
        "reversed" => Ok(WarpOrder::Reversed),
        seed => match seed.parse() {
            Ok(seed) => Ok(WarpOrder::Seeded(seed)),
            Err(_) => Err("not forward, reversed or a number".into()),
        },
    }
}

/// Runs the kernel, writes its outputs and tells the verdict.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let text = |path: &Path| {
        String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))
    };
    let of_kernel = || args.kernel.display().to_string();
    let of_launch = || args.launch.display().to_string();
    let launch = LaunchFile::parse(&text(&args.launch)?).with_context(of_launch)?;
    let module = Module::parse(&text(&args.kernel)?).with_context(of_kernel)?;
    let folder = args.launch.parent().unwrap_or(Path::new(""));
    let mut job = Job {
        args,
        entry: entry(&module, launch.entry.as_deref()).with_context(of_kernel)?,
        options: options(args, &module).with_context(of_kernel)?,
        arguments: Arguments::load(&launch, folder).with_context(of_launch)?,
        launch,
        module: &module,
    };
    job.options.blocks = job.blocks().with_context(of_launch)?;
    let runs = job.runs().with_context(of_launch)?;
    let verdict = job.verdict(&runs);
    job.arguments.write(&runs[0].1)?;
    report::tell(&verdict, &runs[0].0);
    if args.json {
        output::json(&report::json(&verdict, &runs[0].0))?;
    }
    Ok(if verdict.passed { Exit::Success } else { Exit::VerificationFailed })
}

/// The kernel that the launch names, or the module's only one.
fn entry(module: &Module, named: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let entries: Vec<&str> = module.entries().collect();
    match entries.as_slice() {
        [only] => Ok(only.to_string()),
        [] => bail!("there is no kernel (.entry) in the module"),
        several => {
            bail!("several kernels: {}; the launch file names one as `entry`", several.join(", "))
        }
    }
}

fn options(args: &Args, module: &Module) -> anyhow::Result<RunOptions> {
    Ok(RunOptions {
        warp_order: args.order,
        instruction_limit: args.instruction_limit,
        limits: target::limits(args.gpu.as_deref(), module.target())?,
        ..RunOptions::default()
    })
}

/// Warp instructions after which a block that runs alone is taken to wait for another.
const TRIAL_INSTRUCTIONS: u64 = 20_000_000;

/// Everything about a launch that its runs share.
struct Job<'a> {
    args: &'a Args,
    module: &'a Module,
    entry: String,
    launch: LaunchFile,
    arguments: Arguments,
    options: RunOptions,
}

impl Job<'_> {
    /// The blocks to run. A sample needs to know which blocks work together.
    fn blocks(&self) -> anyhow::Result<Blocks> {
        let Some(count) = self.args.sample_blocks else { return Ok(Blocks::All) };
        let axes = match self.args.partners {
            Some(axes) => axes,
            None => self.find_partners()?,
        };
        let partners = axes.contains(&true).then(|| partners::along(axes, self.launch.grid));
        Ok(Blocks::Sample { count, seed: self.args.seed, partners })
    }

    fn find_partners(&self) -> anyhow::Result<Axes> {
        let before = self.arguments.untouched()?;
        let axes = partners::find(self.launch.grid, self.launch.cluster, |block| {
            let options = RunOptions {
                blocks: Blocks::List(vec![block]),
                checks: false,
                instruction_limit: self.options.instruction_limit.min(TRIAL_INSTRUCTIONS),
                ..self.options.clone()
            };
            let (report, outputs) = self.run_with(options).ok()?;
            let waits = report.findings.iter().any(|f| f.kind == FindingKind::Deadlock);
            if waits {
                return None;
            }
            Some(self.arguments.changed(&before, &outputs))
        });
        if axes.contains(&true) {
            let names = partners::names(axes);
            output::note(format_args!("blocks along {names} work together: all of them run"));
        }
        Ok(axes)
    }

    /// Runs under each schedule.
    ///
    /// Float atomics of thread blocks on several threads add up in any order, so where they make
    /// the schedules differ, both run again on one thread, which has one order.
    fn runs(&self) -> anyhow::Result<Vec<(Report, Outputs)>> {
        let runs = self.runs_on(0)?;
        let atomics = runs.iter().any(|(report, _)| report.counters.global_atomics.requests > 0);
        match atomics && !self.differences(&runs).is_empty() {
            true => self.runs_on(1),
            false => Ok(runs),
        }
    }

    fn runs_on(&self, threads: usize) -> anyhow::Result<Vec<(Report, Outputs)>> {
        self.args.schedule.list().iter().map(|schedule| self.run_once(*schedule, threads)).collect()
    }

    fn run_once(
        &self,
        schedule: AsyncSchedule,
        threads: usize,
    ) -> anyhow::Result<(Report, Outputs)> {
        self.run_with(RunOptions { schedule, threads, ..self.options.clone() })
    }

    fn run_with(&self, options: RunOptions) -> anyhow::Result<(Report, Outputs)> {
        let (mut memory, args) = self.arguments.place()?;
        let launch = Launch {
            grid: self.launch.grid,
            block: self.launch.block,
            cluster: self.launch.cluster,
            dynamic_shared_bytes: self.launch.dynamic_shared_bytes,
            args,
        };
        let report = qtune_sim::run(self.module, &self.entry, &launch, &mut memory, &options)?;
        let outputs = self.arguments.take(&memory, &launch.args)?;
        Ok((report, outputs))
    }

    fn differences(&self, runs: &[(Report, Outputs)]) -> Vec<Difference> {
        match runs {
            [(_, first), (_, second)] => self.arguments.differences(first, second),
            _ => Vec::new(),
        }
    }

    fn verdict(&self, runs: &[(Report, Outputs)]) -> Verdict {
        let schedules = self.args.schedule.list();
        let reports = schedules.iter().zip(runs);
        let findings = report::merge(reports.map(|(schedule, (report, _))| Ran {
            schedule: *schedule,
            findings: &report.findings,
        }));
        let (ran, all) = (runs[0].0.blocks_run, runs[0].0.blocks_total);
        let sampled = ran < all;
        // Where the second schedule left other outputs, that difference fails the launch anyway.
        let comparisons = self.arguments.compare(&runs[0].1, sampled);
        let differences = self.differences(runs);
        Verdict {
            passed: findings.is_empty()
                && differences.is_empty()
                && comparisons.iter().all(|comparison| comparison.passed),
            entry: self.entry.clone(),
            findings,
            comparisons,
            schedule_differences: differences,
            schedules: schedules.iter().map(|schedule| report::schedule_name(*schedule)).collect(),
        }
    }
}
