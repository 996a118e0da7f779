//! Correct or not at all: every kernel is checked against the stored codes and parameters, in f64,
//! within a bound that its own rounding justifies.
//!
//! [`verify`] launches a kernel on a device with inputs that show different mistakes, and compares
//! every output that it sampled. `docs/verification.md` derives the bound and the counts.
//!
//! - `weights`, `inputs`: what the kernel is fed. `sample`: which thread blocks run.
//! - `codes`, `rounding`, `reference`: the expected value and the bound of every output.
//! - `guard`, `bench`, `case`, `compare`: launching, and judging what came back.
//! - [`Counts`]: what a kernel costs, from the simulator's counters and the machine code.
//! - [`iteration`]: what one main-loop iteration costs, by resource. [`profile`]: one launch, for its
//!   counters alone.
//! - [`default_schedule`]: a legal schedule for any problem that has one.

mod bench;
mod case;
mod codes;
mod compare;
mod counts;
mod defaults;
mod epilogue;
mod error;
mod guard;
mod inputs;
mod instructions;
mod iteration;
mod random;
mod reference;
mod rotation;
mod rounding;
mod sample;
#[cfg(test)]
mod tests;
mod verify;
mod weights;

pub use counts::Counts;
pub use defaults::{default_of_family, default_schedule, default_with_library, for_any_scale};
pub use error::VerifyError;
pub use instructions::{instructions_per_weight, InstructionSource};
pub use iteration::{iteration, Iteration, IterationTerm};
pub use random::permutation;
pub use verify::{counted, profile, verify, CaseResult, Effort, Verdict, VerifyRequest};
pub use weights::WeightSource;
