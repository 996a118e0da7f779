//! `qtune emit`: what a schedule turns into.

use crate::exit::Exit;
use crate::gpu::GpuArgs;
use crate::output;
use crate::problem::ProblemArgs;
use crate::toolchain::FetchArgs;
use anyhow::Context;
use clap::ValueEnum;
use qtune_codegen::Kernel;
use qtune_device::KernelImage;
use qtune_ir::Arch;
use std::path::PathBuf;

/// Options of `emit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gpu: GpuArgs,
    #[command(flatten)]
    problem: ProblemArgs,
    /// Schedule on one line, as `explain` and the cache print it [default: the untuned schedule]
    #[arg(long)]
    schedule: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t = What::Cuda)]
    what: What,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArgs,
}

/// What `emit` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// CUDA C++ text
    Cuda,
    /// PTX text
    Ptx,
    /// The ELF image
    Cubin,
    /// Registers, spills, shared memory and instructions by class
    SassStats,
}

/// Prints one stage of a kernel.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let arch = args.gpu.arch()?;
    let (problem, spec) = args.problem.resolve()?;
    let schedule = crate::problem::schedule(args.schedule.as_deref(), &problem, &spec, &arch)?;
    let kernel = qtune_codegen::generate(&problem, &spec, &schedule, &arch)
        .with_context(|| format!("{problem} with `{schedule}`"))?;
    output::note(format_args!("{}: {schedule}", problem.at(&arch)));
    let bytes = match args.what {
        What::Cuda => kernel.source.into_bytes(),
        What::Ptx => compile(args, kernel, &arch)?.ptx.into_bytes(),
        What::Cubin => compile(args, kernel, &arch)?.cubin,
        What::SassStats => statistics(&compile(args, kernel, &arch)?)?.into_bytes(),
    };
    match &args.out {
        Some(path) => output::file(path, &bytes)?,
        None => output::bytes(&bytes)?,
    }
    Ok(Exit::Success)
}

fn compile(args: &Args, kernel: Kernel, arch: &Arch) -> anyhow::Result<KernelImage> {
    Ok(KernelImage::compile(&args.fetch.open()?, kernel, arch)?)
}

/// What the cubin says of the kernel.
fn statistics(image: &KernelImage) -> anyhow::Result<String> {
    let resources = &image.resources;
    Ok(format!(
        "registers {}\nspill_bytes {}\nstatic_shared_bytes {}\ndynamic_shared_bytes {}\n",
        resources.registers,
        resources.spill_bytes,
        resources.static_shared_bytes,
        resources.dynamic_shared_bytes,
    ))
}
