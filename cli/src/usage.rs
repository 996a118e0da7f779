//! The command line itself: parsing, help, and usage errors on one line.

use crate::commands::Command;
use crate::exit::Exit;
use crate::output;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;

/// Fast, verified kernels for quantized weights.
///
/// Exit codes: 0 ok, 1 failure, 2 usage, 3 no suitable device, 4 verification failed, 5 damaged
/// cache, 6 budget ended with a partial result, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "qtune", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log more; twice for everything. QTUNE_LOG takes filter directives
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// A command line that ends here: help, the version, or an error.
#[derive(Debug)]
pub struct Done(clap::Error);

/// Parses a command line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Done> {
    let matches = Cli::command().try_get_matches_from(args).map_err(Done)?;
    Cli::from_arg_matches(&matches).map_err(Done)
}

impl Done {
    /// Prints help to stdout, or the error as one line to stderr.
    pub fn print(&self) -> anyhow::Result<Exit> {
        match self.0.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output::bytes(self.0.to_string().as_bytes())?;
                Ok(Exit::Success)
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                output::note(self.0.to_string().trim_end());
                Ok(Exit::Usage)
            }
            _ => {
                output::note(one_line(&self.0.to_string()));
                Ok(Exit::Usage)
            }
        }
    }
}

/// clap's message without the usage and the pointer to `--help` under it.
fn one_line(message: &str) -> String {
    let usage = message.find("\nUsage:").unwrap_or(message.len());
    let more = message.find("\nFor more information").unwrap_or(message.len());
    let lines = message[..usage.min(more)].lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
    format!("{text}; --help shows the usage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line_that_names_the_option() {
        let args = ["qtune", "inspect"].map(OsString::from);
        let line = one_line(&parse(args).unwrap_err().0.to_string());
        assert!(line.starts_with("error: ") && line.contains("<PATH>"), "{line}");
        assert!(!line.contains('\n') && line.ends_with("--help shows the usage"));
    }
}
