//! `qtune emit`: what a schedule turns into.

use crate::exit::Exit;
use crate::gpu::GpuArgs;
use crate::output;
use crate::problem::{self, ProblemArgs};
use crate::toolchain::FetchArgs;
use anyhow::Context;
use clap::ValueEnum;
use qtune_codegen::Kernel;
use qtune_device::KernelImage;
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use qtune_sim::cubin::Cubin;
use qtune_sim::sass::{Counts, Program};
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
    let schedule = schedule(args, &problem, &spec, &arch)?;
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

fn schedule(
    args: &Args,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> anyhow::Result<Schedule> {
    match &args.schedule {
        Some(text) => {
            let schedule = text.parse()?;
            problem::check_schedule(&schedule, problem, spec, arch)?;
            Ok(schedule)
        }
        None => problem::untuned(problem, spec, arch, None),
    }
}

fn compile(args: &Args, kernel: Kernel, arch: &Arch) -> anyhow::Result<KernelImage> {
    Ok(KernelImage::compile(&args.fetch.open()?, kernel, arch)?)
}

/// What the cubin says of the kernel: `name value` lines, then instructions by class for the
/// whole kernel and for each loop.
fn statistics(image: &KernelImage) -> anyhow::Result<String> {
    let resources = &image.resources;
    let mut text = format!(
        "registers {}\nspill_bytes {}\nstatic_shared_bytes {}\ndynamic_shared_bytes {}\n",
        resources.registers,
        resources.spill_bytes,
        resources.static_shared_bytes,
        resources.dynamic_shared_bytes,
    );
    let cubin = Cubin::parse(&image.cubin)?;
    let kernel = cubin.kernel(&image.kernel.coded().name).context("the cubin lacks its kernel")?;
    let program = Program::decode(&kernel.text, cubin.sm)?;
    text += &classes("kernel", &program.counts());
    for (index, body) in program.loops.iter().enumerate() {
        let main = program.main_loop() == Some(index);
        let name = format!("loop {index}{}", if main { " (main)" } else { "" });
        text += &classes(&name, &body.own);
    }
    Ok(text)
}

fn classes(name: &str, counts: &Counts) -> String {
    let parts = counts.iter().map(|(class, count)| {
        let class = serde_json::to_value(class).unwrap_or_default();
        format!(" {}={count}", class.as_str().unwrap_or("other"))
    });
    format!("{name}: instructions={}{}\n", counts.total(), parts.collect::<String>())
}
