//! The search: for each problem the fastest schedule that is proven right.
//!
//! - [`tune`] runs a [`TuneRequest`] on a device: the five rungs of the ladder, compiling,
//!   verifying, timing where the device can, storing. [`TuneReport`] says what came of it.
//! - [`plan`] is a dry run: what would be tried, and nothing compiled.
//! - [`explain`] derives a schedule with rule names and cost terms; [`rule_usage`] counts the rules
//!   behind stored winners.
//! - [`Progress`] is told what happens while it happens; [`Compiler`] is what turns kernels into
//!   images.
//!
//! - [`CompilePool`] compiles in worker processes and [`IsolatedDevice`] drives a GPU from one, so
//!   that a crash or a hang costs a candidate and not the search; [`serve`] is their other side.
//!
//! The ladder ranks by the cost model of [`qtune_ir::tile`]. What it keeps is compiled and ranked
//! again with registers and instructions of the machine code. On a device that measures, the
//! measured time alone decides. Whatever the ranking says, a kernel that does not pass
//! [`qtune_verify`] never wins.
//!
//! Files, in the order in which a problem passes through them: `terms` (dequantization variants),
//! `neighbours` and `ladder` (the rungs), `finalist` (compiling and refining),
//! `judge` and `timed` (verifying, timing), `record` (what is stored), `tune` (the whole).

mod candidate;
mod compiler;
mod error;
mod explain;
mod finalist;
mod isolate;
mod judge;
mod ladder;
mod log;
mod neighbours;
mod plan;
mod progress;
mod record;
mod report;
mod request;
mod terms;
mod timed;
mod timing;
mod tune;

pub use candidate::Candidate;
pub use compiler::Compiler;
pub use error::SearchError;
pub use explain::{explain, rule_usage, Explanation, RuleUsage};
pub use isolate::{serve, CompilePool, CompileText, IsolatedDevice, WorkerCommand};
pub use plan::{plan, PlannedProblem};
pub use progress::{Best, NoProgress, Progress, Tally};
pub use report::{Failures, Stopped, TuneReport, WinnerReport};
pub use request::{Effort, Limits, Shape, TuneRequest};
pub use tune::tune;
