//! Carrying a launch out.

use super::buffers::{read, Arguments, Outputs};
use super::compare::Difference;
use super::launch_file::LaunchFile;
use super::report::{self, Ran, Verdict};
use super::target;
use crate::exit::Exit;
use crate::output;
use anyhow::{bail, Context};
use clap::ValueEnum;
use qtune_sim::{AsyncSchedule, Blocks, Launch, Module, Partners, Report, RunOptions, WarpOrder};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// partners run [default: none]
    #[arg(long, value_name = "AXES", requires = "sample_blocks", value_parser = axes)]
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

/// Grid axes by x, y, z.
type Axes = [bool; 3];

fn axes(text: &str) -> Result<Axes, String> {
    match text.chars().all(|c| "xyz".contains(c)) && !text.is_empty() {
        true => Ok(['x', 'y', 'z'].map(|axis| text.contains(axis))),
        false => Err("axes are letters of xyz".into()),
    }
}

/// The blocks of a grid that differ from one along some axes alone, itself included.
fn partners_along(axes: Axes, grid: [u32; 3]) -> Partners {
    Arc::new(move |block| {
        let at = [block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]];
        let along = |axis: usize| if axes[axis] { 0..grid[axis] } else { at[axis]..at[axis] + 1 };
        let mut all = Vec::new();
        for z in along(2) {
            for y in along(1) {
                all.extend(along(0).map(|x| x + grid[0] * (y + grid[1] * z)));
            }
        }
        all
    })
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
    let job = Job {
        args,
        entry: entry(&module, launch.entry.as_deref()).with_context(of_kernel)?,
        options: options(args, &module, launch.grid).with_context(of_kernel)?,
        arguments: Arguments::load(&launch, folder).with_context(of_launch)?,
        launch,
        module: &module,
    };
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

fn options(args: &Args, module: &Module, grid: [u32; 3]) -> anyhow::Result<RunOptions> {
    let partners = args.partners.map(|axes| partners_along(axes, grid));
    let blocks = match args.sample_blocks {
        Some(count) => Blocks::Sample { count, seed: args.seed, partners },
        None => Blocks::All,
    };
    Ok(RunOptions {
        warp_order: args.order,
        blocks,
        instruction_limit: args.instruction_limit,
        limits: target::limits(args.gpu.as_deref(), module.target())?,
        ..RunOptions::default()
    })
}

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
        let (mut memory, args) = self.arguments.place()?;
        let launch = Launch {
            grid: self.launch.grid,
            block: self.launch.block,
            cluster: self.launch.cluster,
            dynamic_shared_bytes: self.launch.dynamic_shared_bytes,
            args,
        };
        let options = RunOptions { schedule, threads, ..self.options.clone() };
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
        let sampled = self.args.sample_blocks.is_some();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_are_the_blocks_along_the_named_axes() {
        let grid = [4, 3, 2];
        let block = 1 + 4 * 2;
        assert_eq!(partners_along(axes("z").unwrap(), grid)(block), [block, block + 12]);
        assert_eq!(partners_along(axes("x").unwrap(), grid)(block), [8, 9, 10, 11]);
        assert_eq!(partners_along(axes("xyz").unwrap(), grid)(block).len(), 24);
        assert!(axes("w").is_err() && axes("").is_err());
    }
}
