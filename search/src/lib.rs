//! The search: for each problem the fastest schedule that is proven right.
//!
//! - [`tune()`] runs a [`TuneRequest`] on a device: the five rungs of the ladder, compiling,
//!   verifying, timing where the device can, storing. [`TuneReport`] says what came of it.
//!   [`tune_on_log`] does so on a trial log, a [`Replay`].
//! - [`plan`] is a dry run: what would be tried, and nothing compiled.
//! - [`explain`] derives a schedule with rule names and cost terms; [`rule_usage`] counts the rules
//!   behind stored winners.
//! - [`rankings`] says how well the cost model ranked what a device timed, by rank correlation.
//! - [`Progress`] is told what happens while it happens; [`Compiler`] is what turns kernels into
//!   images.
//! - [`CompilePool`] compiles in worker processes and [`IsolatedDevice`] drives a GPU from one, so
//!   that a crash or a hang costs a candidate and not the search; [`serve`] is their other side.
//!
//! The ladder ranks by the cost model of [`qtune_ir::tile`]. What it keeps is compiled and ranked
//! again with registers and instructions of the machine code. On a device that measures, the
//! measured time alone decides, and corrects the model on the way (`docs/search.md`). Whatever the ranking says, a kernel that does not pass
//! [`qtune_verify`] never wins.
//!
//! Files, in the order in which a problem passes through them: `answers` (what the cache has), `terms` (dequantization variants),
//! `neighbours` and `ladder` (the rungs), `warm` (winners of neighbours), `slabs` (dequantizing first, the baseline), `bed` (where candidates
//! are tried: a device, or `replay`), `finalist` (compiling and refining), `judge` (verifying),
//! `timed` with `surrogate` and `run_off` (timing), `in_step` (timing among the kernels of other
//! matrices), `record` (what is stored), `tune` (the whole).

mod answers;
mod bed;
mod candidate;
mod compiler;
mod error;
mod explain;
mod fault;
mod finalist;
mod gain;
mod in_step;
mod isolate;
mod judge;
mod ladder;
mod log;
mod neighbours;
mod plan;
mod progress;
mod rank;
mod record;
mod replay;
mod report;
mod request;
mod run_off;
mod slabs;
mod statistics;
mod surrogate;
mod terms;
mod timed;
mod timing;
mod tune;
mod warm;

pub use candidate::Candidate;
pub use compiler::Compiler;
pub use error::SearchError;
pub use explain::{explain, rule_usage, Explanation, RuleUsage};
pub use isolate::{serve, CompilePool, CompileText, IsolatedDevice, WorkerCommand};
pub use plan::{plan, PlannedProblem};
pub use progress::{Best, NoProgress, Progress, Tally};
pub use rank::{rank_correlation, rankings, RankCorrelation, Ranking};
pub use replay::Replay;
pub use report::{Failures, Stopped, TuneReport, WinnerReport, DEFAULT_LOST};
pub use request::{distinct, Effort, Limits, Shape, TuneRequest};
pub use tune::{tune, tune_on_log};
