//! `qtune verify`: is the kernel right, and what does it cost?
//!
//! Either a problem with synthetic weights ([`synthetic`]), or a layer of a checkpoint, which goes
//! through the runtime ([`checkpoint`]).

mod checkpoint;
mod report;
mod synthetic;

use crate::cache_dir::CacheArgs;
use crate::exit::{usage, Exit};
use crate::gpu::{DeviceArgs, GpuArgs};
use crate::problem::{ActBitsArgs, ElementArgs, EpilogueArgs};
use crate::toolchain::FetchArgs;
use crate::{output, problem};
use qtune_ir::{Family, Problem};
use std::path::PathBuf;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Format of synthetic weights, such as awq-g128; with --checkpoint the format that a layer which
    /// is not quantized is loaded in, such as nf4-b64
    #[arg(long, value_name = "NAME", required_unless_present = "checkpoint")]
    format: Option<String>,
    /// Output features of synthetic weights
    #[arg(long, required_unless_present = "checkpoint", conflicts_with = "act_bits")]
    n: Option<u64>,
    /// Input features of synthetic weights
    #[arg(long, required_unless_present = "checkpoint")]
    k: Option<u64>,
    /// Checkpoint whose layer is verified through the runtime
    #[arg(long, value_name = "PATH", requires = "tensor")]
    #[arg(conflicts_with_all = ["n", "k", "bias"])]
    checkpoint: Option<PathBuf>,
    /// Module path of the layer
    #[arg(long, value_name = "NAME", requires = "checkpoint")]
    tensor: Option<String>,
    /// Module path of the layer that --tensor gates; both are served as one with --silu-mul
    #[arg(long, value_name = "NAME", requires = "tensor", requires = "silu_mul")]
    up_tensor: Option<String>,
    /// Token counts, each 1 to 65536
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_name = "M,...")]
    m: Vec<u64>,
    #[command(flatten)]
    act_bits: ActBitsArgs,
    #[command(flatten)]
    types: ElementArgs,
    #[command(flatten)]
    epilogue: EpilogueArgs,
    /// Schedule to verify [default: the cached winner with --cache, else the untuned schedule]
    #[arg(long)]
    schedule: Option<String>,
    /// Kernel family of the untuned schedule: gemv, mma, wgmma or dequant
    #[arg(long, value_parser = problem::family, conflicts_with = "schedule")]
    family: Option<Family>,
    /// Multiply slabs by cuBLASLt: the untuned schedule of dequant with gemm=library
    #[arg(long, conflicts_with_all = ["schedule", "family", "checkpoint"])]
    library: bool,
    /// Seed of weights and activations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Row tiles that are run of a large matrix, edges included
    #[arg(long, value_name = "N", default_value_t = 4)]
    sample_blocks: usize,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The token counts, checked.
    fn tokens(&self) -> anyhow::Result<Vec<u32>> {
        if self.m.is_empty() {
            return Err(usage("--m names no token count"));
        }
        let token = |m: &u64| Ok(Problem::check_sizes(1, 1, *m).map(|()| *m as u32)?);
        self.m.iter().map(token).collect()
    }
}

/// Verifies every token count and prints the verdicts.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let cases = match (&args.checkpoint, &args.tensor) {
        (Some(path), Some(tensor)) => checkpoint::cases(args, path, tensor)?,
        _ => synthetic::cases(args)?,
    };
    let passed = cases.iter().all(|case| case.passed);
    if args.json {
        output::json(&serde_json::json!({ "passed": passed, "cases": cases }))?;
    } else {
        output::result(report::table(&cases))?;
    }
    Ok(if passed { Exit::Success } else { Exit::VerificationFailed })
}
