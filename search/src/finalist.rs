//! Compiling candidates, and ranking them again by what the compiler made of them.

use crate::bed::TestBed;
use crate::candidate::Candidate;
use crate::compiler::Compiler;
use crate::fault::Fault;
use crate::request::Task;
use qtune_device::{DeviceError, KernelImage};
use qtune_ir::tile::{self, occupancy, Estimate};
use qtune_ir::{Arch, Problem, WeightSpec};
use rayon::prelude::*;

/// A candidate that compiled.
#[derive(Clone, Debug)]
pub(crate) struct Finalist {
    /// The candidate, its estimate refined.
    pub candidate: Candidate,
    /// What is launched and stored.
    pub image: KernelImage,
}

/// What became of a candidate that was to be compiled.
#[derive(Debug)]
pub(crate) enum Compiled {
    /// It is fit to be verified.
    Fit(Box<Finalist>),
    /// Left out for a reason that is no fault.
    Rejected(Candidate, String),
    /// It did not compile: a fault of the generator.
    Failed(Candidate, String),
    /// It took the compiler's process down, or held it for too long.
    Lost(Candidate, Fault),
    /// The search ended before it was its turn.
    Skipped,
}

/// Compiles candidates in parallel; results are in the order of `candidates`. `go_on` is asked
/// before each compile, `done` told after it.
pub(crate) fn compile_all(
    task: &Task,
    arch: &Arch,
    bed: &dyn TestBed,
    candidates: Vec<Candidate>,
    go_on: &(dyn Fn() -> bool + Sync),
    done: &(dyn Fn(&Compiled) + Sync),
) -> Vec<Compiled> {
    let one = |candidate: Candidate| {
        if !go_on() {
            return Compiled::Skipped;
        }
        let compiled = bed.compile(task, arch, candidate);
        done(&compiled);
        compiled
    };
    candidates.into_par_iter().map(one).collect()
}

/// Generates a candidate and compiles it.
pub(crate) fn compile(
    task: &Task,
    arch: &Arch,
    compiler: &dyn Compiler,
    candidate: Candidate,
) -> Compiled {
    let Task { problem, spec, .. } = task;
    let kernel = match qtune_codegen::generate(problem, spec, &candidate.schedule, arch) {
        Ok(kernel) => kernel,
        Err(qtune_codegen::CodegenError::Generator(fault)) => {
            return Compiled::Failed(candidate, fault.to_string())
        }
        Err(refused) => return Compiled::Rejected(candidate, refused.to_string()),
    };
    let image = match compiler.compile(kernel, arch) {
        Ok(image) => image,
        Err(error @ (DeviceError::Lost { .. } | DeviceError::TimedOut { .. })) => {
            return Compiled::Lost(candidate, error.into())
        }
        Err(error) => return Compiled::Failed(candidate, error.to_string()),
    };
    if let Some(reason) = unfit(&image, arch) {
        return Compiled::Rejected(candidate, reason);
    }
    let estimate = refine((problem, spec, arch), &candidate, &image);
    Compiled::Fit(Box::new(Finalist { candidate: Candidate { estimate, ..candidate }, image }))
}

/// Why a compiled kernel is not worth a launch.
fn unfit(image: &KernelImage, arch: &Arch) -> Option<String> {
    let resources = &image.resources;
    if resources.spill_bytes > 0 {
        return Some(format!("it spills {} bytes of registers", resources.spill_bytes));
    }
    (resident(image, arch) == 0)
        .then(|| format!("{} registers per thread: no block fits on an SM", resources.registers))
}

fn resident(image: &KernelImage, arch: &Arch) -> u32 {
    let resources = &image.resources;
    tile::resident_blocks(
        arch,
        image.kernel.coded().threads,
        resources.registers,
        resources.shared_bytes(),
    )
}

/// The model again, with the machine code's instructions per weight, registers and residency.
fn refine(
    (problem, spec, arch): (&Problem, &WeightSpec, &Arch),
    candidate: &Candidate,
    image: &KernelImage,
) -> Estimate {
    let modelled = &candidate.estimate;
    let counted = qtune_verify::instructions_per_weight(image, spec)
        .unwrap_or(modelled.lane_instructions_per_weight);
    // What the compiler added or saved is booked on dequantization, the part that the model takes
    // from outside.
    let dequant = candidate.dequant_cost + counted - modelled.lane_instructions_per_weight;
    let estimate = tile::estimate(problem, spec, arch, &candidate.schedule, dequant.max(0.0));
    with_residency(estimate, arch, image, || {
        let registers = image.resources.registers;
        occupancy::bytes_in_flight_per_sm(problem, spec, arch, &candidate.schedule, registers)
    })
}

/// Registers and resident blocks as compiled: other waves, another `latency` term.
fn with_residency(
    mut estimate: Estimate,
    arch: &Arch,
    image: &KernelImage,
    bytes_in_flight: impl Fn() -> u64,
) -> Estimate {
    let resident = resident(image, arch);
    let waves = estimate.blocks.div_ceil(u64::from(arch.sm_count) * u64::from(resident));
    let stretch = waves as f64 / estimate.waves as f64;
    for term in estimate.terms.iter_mut().filter(|term| term.name == "latency") {
        term.us *= stretch;
        term.detail = format!("{waves} waves, {resident} resident blocks as compiled");
    }
    let longest = |e: &Estimate| {
        let overlapping = e.terms.iter().filter(|term| !term.adds);
        overlapping.max_by(|a, b| a.us.total_cmp(&b.us)).map(|term| (term.name, term.us))
    };
    if let Some((bound, us)) = longest(&estimate) {
        let adding: f64 = estimate.terms.iter().filter(|t| t.adds).map(|t| t.us).sum();
        estimate.bound = bound;
        estimate.time_us = us + adding;
    }
    estimate.resident_blocks = resident;
    estimate.registers = image.resources.registers;
    estimate.waves = waves;
    estimate.bytes_in_flight_per_sm = bytes_in_flight();
    estimate
}
