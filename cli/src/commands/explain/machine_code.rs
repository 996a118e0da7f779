//! What the compiled kernel costs: the terms of one main-loop iteration, from the machine code and
//! a simulated launch.

use anyhow::Context;
use qtune_codegen::nvrtc::Nvrtc;
use qtune_device::{KernelImage, LaunchOutcome};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use qtune_verify::{Iteration, VerifyRequest};
use std::fmt::Write;

/// Seed of the weights, activations and sampled blocks of the simulated launch.
const SEED: u64 = 1;

/// A kernel compiled with line information, and what a launch of it counted.
pub struct Compiled {
    /// The kernel's text, with what the compiler made of it.
    pub image: KernelImage,
    /// A simulated launch of a sample of thread blocks.
    pub launch: LaunchOutcome,
    /// `None` where the machine code has no main loop, as for very short K.
    pub iteration: Option<Iteration>,
}

impl Compiled {
    /// Compiles the kernel of a schedule and launches a sample of it in the simulator: `row_tiles`
    /// row tiles, or as many as cost little.
    pub fn new(
        nvrtc: &Nvrtc,
        (problem, spec, arch): (&Problem, &WeightSpec, &Arch),
        schedule: &Schedule,
        row_tiles: Option<usize>,
    ) -> anyhow::Result<Compiled> {
        let kernel = qtune_codegen::generate(problem, spec, schedule, arch)
            .with_context(|| format!("{problem} with `{schedule}`"))?;
        let image = KernelImage::compile_with_lines(nvrtc, kernel, arch)?;
        let request = VerifyRequest {
            tokens: vec![problem.m],
            sample_tiles: row_tiles,
            ..VerifyRequest::new(&image, spec, SEED)
        };
        let launch = qtune_verify::profile(&request, arch)?;
        let iteration = qtune_verify::iteration(&image, spec, arch, &launch);
        Ok(Compiled { image, launch, iteration })
    }

    /// Thread blocks that ran over those of the grid.
    pub fn share(&self) -> f64 {
        self.launch.blocks_run as f64 / self.launch.blocks_total.max(1) as f64
    }
}

/// The terms, longest first.
pub fn write(text: &mut String, compiled: &Compiled) -> std::fmt::Result {
    let resources = &compiled.image.resources;
    let Some(iteration) = &compiled.iteration else {
        return writeln!(text, "machine code: no main loop, K is too short for one\n");
    };
    writeln!(
        text,
        "machine code: one of {:.1} main-loop iterations, bound by {}",
        iteration.iterations, iteration.bound
    )?;
    for term in &iteration.terms {
        writeln!(text, "  {:<10} {:>9.1} cycles  {}", term.name, term.cycles, term.detail)?;
    }
    writeln!(
        text,
        "  {} warps of {:.0} instructions; {} registers, {} bytes of shared memory: {} blocks per SM",
        iteration.warps,
        iteration.instructions,
        resources.registers,
        resources.shared_bytes(),
        iteration.resident_blocks
    )?;
    writeln!(
        text,
        "  all iterations on the busiest SM, by {} alone: {:.2} us ({:.1} % of the blocks simulated)\n",
        iteration.bound,
        iteration.main_loop_us,
        100.0 * compiled.share()
    )
}
