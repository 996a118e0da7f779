//! `qtune sim run`: any PTX file on the simulator, for people without a GPU and for kernels that
//! qtune did not make.
//!
//! [`launch_file`] says what to run on which arguments, [`buffers`] brings the files of the
//! arguments ([`npy`]) into device memory and compares what comes out ([`number`], [`compare`]),
//! [`run`] carries the launch out under each schedule, [`report`] tells the verdict.

mod buffers;
mod compare;
mod launch_file;
mod npy;
mod number;
mod partners;
mod report;
mod run;
mod target;
mod tensor_map;

use crate::exit::Exit;
use clap::Subcommand;

/// Options of `sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a kernel of a PTX file, check it, compare its outputs and count what it does
    Run(run::Args),
}

/// Runs a subcommand.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Run(args) => run::run(args),
    }
}
