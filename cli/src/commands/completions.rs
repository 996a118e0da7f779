//! `qtune completions SHELL`.

use crate::exit::Exit;
use crate::{output, usage};
use clap::CommandFactory;
use clap_complete::Shell;

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that will read them
    shell: Shell,
}

/// Prints a completion script.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut usage::Cli::command(), "qtune", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Success)
}
