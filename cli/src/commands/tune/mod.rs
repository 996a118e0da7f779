//! `qtune tune`: for each weight shape and token count the fastest kernel that is proven right.

mod bed;
mod budget;
mod interrupt;
mod plan;
mod report;
mod shapes;
mod shard;
mod space;

use bed::Bed;
use shard::Shard;

use crate::cache_dir::CacheArgs;
use crate::exit::Exit;
use crate::gpu::{DeviceArgs, GpuArgs};
use crate::output;
use crate::problem::{self, ActBitsArgs, ElementArgs, EpilogueArgs};
use crate::progress::Reporter;
use crate::toolchain::FetchArgs;
use clap::ValueEnum;
use qtune_cache::trial_log::TrialLog;
use qtune_cache::trials_dir;
use qtune_ir::Arch;
use qtune_runtime::BUCKETS;
use qtune_search::{Stopped, TuneReport, TuneRequest};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Options of `tune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Format of the weights, such as awq-g128
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "model",
        conflicts_with = "act_bits"
    )]
    format: Option<String>,
    /// Checkpoint whose weight shapes and formats are tuned
    #[arg(long, value_name = "PATH", conflicts_with_all = ["format", "preset", "shape"])]
    model: Option<PathBuf>,
    /// Published model whose weight shapes are tuned
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-32b")]
    preset: String,
    /// GPUs that share the preset's matrices (tensor parallelism): one GPU's shards are tuned
    #[arg(long, value_name = "GPUS", default_value_t = 1, conflicts_with_all = ["model", "shape"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    tp: u32,
    /// Weight shapes N x K, such as 5120x27648
    #[arg(long, value_name = "NxK", value_delimiter = ',', num_args = 1..)]
    #[arg(value_parser = problem::shape, conflicts_with = "preset")]
    shape: Vec<(u64, u64)>,
    /// Token counts; each is tuned as the bucket that holds it
    #[arg(long, value_delimiter = ',', default_values_t = BUCKETS.map(u64::from))]
    #[arg(value_name = "M,...")]
    m: Vec<u64>,
    #[command(flatten)]
    act_bits: ActBitsArgs,
    #[command(flatten)]
    types: ElementArgs,
    #[command(flatten)]
    epilogue: EpilogueArgs,
    /// Each matrix of the preset with the bias and the epilogue that it has in the model
    #[arg(long, conflicts_with_all = ["model", "shape", "bias", "residual", "silu_mul"])]
    fused: bool,
    /// How much is tried
    #[arg(long, value_enum, default_value_t = Effort::Normal)]
    effort: Effort,
    /// End after this time with what is there by then, such as 10m
    #[arg(long, value_name = "TIME", value_parser = budget::parse)]
    budget: Option<Duration>,
    /// Give up on a kernel whose compile takes longer than this; it is tried again only where more time
    /// is given
    #[arg(long, value_name = "TIME", value_parser = budget::compile_limit, default_value = "60s")]
    compile_timeout: Duration,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Tune even what the cache has
    #[arg(long)]
    fresh: bool,
    /// Print the plan and end
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Where a trial log is replayed: standard deviation of the noise that its times get
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    noise: f64,
    /// Tune only problems i, i + n, i + 2n, ... of the request; the winners of all n shards, merged,
    /// are those of one run
    #[arg(long, value_name = "i/n", value_parser = shard::parse)]
    shard: Option<Shard>,
    /// Tune nothing: answer from the cache, and fail where it has no answer
    #[arg(long, conflicts_with_all = ["fresh", "dry_run"])]
    in_cache_only: bool,
    /// Where times are measured: let the finalists run again among the kernels of the model's other
    /// matrices, in the order of its layers; tunes what the cache has, too
    #[arg(long, conflicts_with_all = ["in_cache_only", "shard", "dry_run"])]
    in_step: bool,
    /// Seed of all verification inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only kernels that round weights exactly as the format's own library does
    #[arg(long)]
    exact: bool,
    /// Trial log [default: in the cache folder]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Effort {
    /// A few candidates for each problem
    Quick,
    /// What a first tuning of a model takes
    Normal,
    /// Several times as many kernels compiled
    Full,
}

impl Effort {
    fn of_search(self) -> qtune_search::Effort {
        match self {
            Effort::Quick => qtune_search::Effort::Quick,
            Effort::Normal => qtune_search::Effort::Normal,
            Effort::Full => qtune_search::Effort::Full,
        }
    }
}

/// Tunes what is not in the cache yet, and prints all winners.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let arch = args.gpu.arch()?;
    // Before anything is opened: what is wrong with the command line is the cheapest to find.
    let shapes = shapes::of(args)?;
    let shapes = match args.shard {
        Some(shard) => shard.of(&shapes),
        None => shapes,
    };
    let request = TuneRequest {
        effort: args.effort.of_search(),
        budget: args.budget,
        seed: args.seed,
        fresh: args.fresh,
        exact: args.exact,
        cache_only: args.in_cache_only,
        in_step: args.in_step,
        ..TuneRequest::new(arch, shapes)
    };
    if args.dry_run {
        return plan::run(&request, args.json);
    }
    // Production reads its cache, which need not be writable.
    let store = match args.in_cache_only {
        true => args.cache.open_required()?.0,
        false => args.cache.open()?,
    };
    let bed = Bed::open(args, &request.arch)?;
    let request = TuneRequest { arch: bed.arch(&request.arch).clone(), ..request };
    let scratch = args.in_cache_only.then(tempfile::tempdir).transpose()?;
    let mut trials = TrialLog::append_to(&trial_log(args, &bed, &request.arch, scratch.as_ref())?)?;
    plan::tell(&request, &bed.describe());
    let cancel = interrupt::flag()?;
    let reporter = Reporter::new();
    let report = bed.tune(&request, &store, &mut trials, &reporter, &cancel);
    reporter.finish();
    let report = report?;
    print(args, &report, (&request.arch, &bed.describe()), start.elapsed())?;
    Ok(end(&report))
}

/// Where trials are logged; `scratch` is for those of a run that tries nothing.
fn trial_log(
    args: &Args,
    bed: &Bed,
    arch: &Arch,
    scratch: Option<&TempDir>,
) -> anyhow::Result<PathBuf> {
    match (&args.log, scratch) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(scratch)) => Ok(scratch.path().join(bed.log_name(arch))),
        (None, None) => Ok(trials_dir(&args.cache.dir()?).join(bed.log_name(arch))),
    }
}

fn print(
    args: &Args,
    report: &TuneReport,
    device: (&Arch, &str),
    took: Duration,
) -> anyhow::Result<()> {
    let table = report::table(&report.winners);
    match args.json {
        true => output::note(table),
        false => output::result(table)?,
    }
    report::tell(report);
    let cached = report.winners.iter().filter(|winner| winner.from_cache).count();
    output::note(format_args!(
        "{} winner(s), {cached} from the cache, in {:.1} s",
        report.winners.len(),
        took.as_secs_f64()
    ));
    if args.json {
        output::json(&report::json(report, device, took))?;
    }
    Ok(())
}

/// The exit code, and what to do where the search did not come to its end.
fn end(report: &TuneReport) -> Exit {
    let command: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let resume = || {
        let command = command.join(" ");
        output::note(format_args!("winners so far are kept; to resume: {command}"));
    };
    match report.stopped {
        Stopped::Interrupted => {
            resume();
            Exit::Interrupted
        }
        Stopped::BudgetEnded => {
            resume();
            Exit::Partial
        }
        Stopped::Complete if report.without.is_empty() => Exit::Success,
        Stopped::Complete => Exit::Failure,
    }
}
