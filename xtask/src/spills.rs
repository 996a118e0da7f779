//! `spills`: compiles the default schedule of every format, family, GPU and a few shapes, and fails
//! where one spills registers.
//!
//! The table of counts watches four formats on the presets' shapes; this is the sweep for all the rest.
//! Nothing is executed, and kernels that are the same text for the same target are compiled once.

use crate::sweep;
use anyhow::{bail, Result};
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_codegen::Kernel;
use qtune_device::KernelImage;
use qtune_formats::FORMATS;
use qtune_ir::{Arch, DType, Family, Problem};
use qtune_verify::default_of_family;
use rayon::prelude::*;
use std::collections::HashSet;

/// A GPU of every compile target.
const GPUS: [&str; 6] = ["a100", "a10", "l4", "h200", "b200", "rtx5090"];
/// Output and input features: a matrix that fills every GPU and one that fills none.
const SHAPES: [(u32, u32); 2] = [(22016, 4096), (1024, 1024)];
/// Tokens at which tiles change.
const TOKENS: [u32; 7] = [1, 2, 8, 16, 64, 256, 1024];

/// A kernel to compile, and the words that it is selected and reported by.
struct Candidate {
    words: String,
    kernel: Kernel,
    arch: Arch,
}

/// Compiles the default schedules whose GPU, format, family, shape or tokens are among `words`, all of
/// which must occur: `spills a100 mma m64`.
///
/// # Errors
/// A kernel spills or does not compile.
pub fn run(words: &[&str]) -> Result<()> {
    let nvrtc = Nvrtc::open(&OpenOptions::default())?;
    let candidates = candidates(words)?;
    eprintln!("{} kernels", candidates.len());
    let faults: Vec<String> =
        candidates.par_iter().filter_map(|candidate| fault(&nvrtc, candidate)).collect();
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} of {} kernels:\n{}", faults.len(), candidates.len(), faults.join("\n"))
}

/// What is wrong with a kernel's registers, if anything.
fn fault(nvrtc: &Nvrtc, candidate: &Candidate) -> Option<String> {
    let fault = match KernelImage::compile(nvrtc, candidate.kernel.clone(), &candidate.arch) {
        Ok(image) if image.resources.spill_bytes == 0 => return None,
        Ok(image) => format!("{} bytes spilled", image.resources.spill_bytes),
        Err(error) => error.to_string(),
    };
    let fault = format!("{}: {fault}", candidate.words);
    eprintln!("{fault}");
    Some(fault)
}

/// The distinct kernels that `words` select.
fn candidates(words: &[&str]) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    let mut seen = HashSet::new();
    for gpu in GPUS {
        let arch = Arch::named(gpu)?;
        for format in FORMATS.iter().flat_map(|row| row.examples.iter().copied()) {
            let spec = qtune_formats::resolve(format)?;
            for (family, (n, k), m) in cases() {
                let name = format!("{gpu} {format} {} {n}x{k} m{m}", family.name());
                if !sweep::selects(words, &name) {
                    continue;
                }
                let problem = Problem::of(&spec, [DType::F16; 2], [n, k, m]);
                // A family that refuses the problem has nothing to spill.
                let Ok(schedule) = default_of_family(family, &problem, &spec, &arch) else {
                    continue;
                };
                let kernel = qtune_codegen::generate(&problem, &spec, &schedule, &arch)?;
                if seen.insert((arch.target(), kernel.source.clone())) {
                    candidates.push(Candidate { words: name, kernel, arch: arch.clone() });
                }
            }
        }
    }
    Ok(candidates)
}

fn cases() -> impl Iterator<Item = (Family, (u32, u32), u32)> {
    let of = |family| SHAPES.into_iter().flat_map(move |s| TOKENS.map(|m| (family, s, m)));
    Family::ALL.into_iter().flat_map(of)
}
