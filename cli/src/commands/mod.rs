//! The subcommands, one file each.

mod cache;
mod completions;
mod dequantize;
mod doctor;
mod emit;
mod explain;
mod inspect;
mod ir;
mod report;
mod sim;
mod tune;
mod verify;
mod worker;

use crate::exit::Exit;
use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find the fastest correct kernel for every weight shape of a model
    Tune(tune::Args),
    /// Write the weights of one layer as an f32 matrix N x K, by the reference decoder
    Dequantize(dequantize::Args),
    /// Show what is in a checkpoint, a cache folder or a trial log
    Inspect(inspect::Args),
    /// Check a kernel against the stored codes in f64, and count what it costs
    Verify(verify::Args),
    /// Print the CUDA text, PTX, cubin or machine-code statistics of a schedule
    Emit(emit::Args),
    /// Show how a schedule follows from the mathematics, what it costs and what it beat
    Explain(explain::Args),
    /// Run a kernel of any PTX file on the simulator
    Sim(sim::Args),
    /// Look at loop nests, dequantization terms and rewrite rules
    Ir(ir::Args),
    /// List, show, check, merge and clean what the cache holds
    Cache(cache::Args),
    /// Write a page that shows what a search tried and what came of it
    Report(report::Args),
    /// Check what this machine has and what is missing
    Doctor(doctor::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Compile or drive a GPU for another qtune process
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Runs a subcommand.
pub fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Tune(args) => tune::run(&args),
        Command::Dequantize(args) => dequantize::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Emit(args) => emit::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Ir(args) => ir::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Worker(args) => worker::run(&args),
    }
}
