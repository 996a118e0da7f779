//! `qtune tune`: for each weight shape and token count the fastest kernel that is proven right.

mod budget;
mod interrupt;
mod report;
mod shapes;

use crate::cache_dir::CacheArgs;
use crate::exit::Exit;
use crate::gpu::{DeviceArgs, GpuArgs};
use crate::output;
use crate::problem::{self, ActArgs, BUCKET_LIST};
use crate::progress::Reporter;
use crate::toolchain::FetchArgs;
use clap::ValueEnum;
use qtune_ir::Arch;
use qtune_search::{Stopped, TuneReport, TuneRequest};
use std::path::PathBuf;
use std::time::Duration;

/// Options of `tune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Format of the weights, such as awq-g128
    #[arg(long, value_name = "NAME", required_unless_present = "model")]
    format: Option<String>,
    /// Checkpoint whose weight shapes and formats are tuned
    #[arg(long, value_name = "PATH", conflicts_with_all = ["format", "preset", "shape"])]
    model: Option<PathBuf>,
    /// Published model whose weight shapes are tuned
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-32b")]
    preset: String,
    /// Weight shapes N x K, such as 5120x27648
    #[arg(long, value_name = "NxK", value_delimiter = ',', num_args = 1..)]
    #[arg(value_parser = problem::shape, conflicts_with = "preset")]
    shape: Vec<(u64, u64)>,
    /// Token counts; each is tuned as the bucket that holds it
    #[arg(long, value_delimiter = ',', default_value = BUCKET_LIST, value_name = "M,...")]
    m: Vec<u64>,
    #[command(flatten)]
    act: ActArgs,
    /// How much is tried
    #[arg(long, value_enum, default_value_t = Effort::Normal)]
    effort: Effort,
    /// End after this time with what is there by then, such as 10m
    #[arg(long, value_name = "TIME", value_parser = budget::parse)]
    budget: Option<Duration>,
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

impl Args {
    fn request(&self, arch: Arch) -> anyhow::Result<TuneRequest> {
        Ok(TuneRequest {
            effort: self.effort.of_search(),
            budget: self.budget,
            seed: self.seed,
            fresh: self.fresh,
            exact: self.exact,
            ..TuneRequest::new(arch, shapes::of(self)?)
        })
    }
}
