//! The `qtune` command line: results on stdout, everything for people on stderr, and an exit code
//! that tells the cause.
//!
//! - [`commands`]: one file per subcommand.
//! - [`exit`]: exit codes, and the one line that every error prints.
//! - [`output`]: the two streams. [`table`], [`progress`]: what goes to them.
//! - [`gpu`], [`problem`], [`cache_dir`], [`toolchain`], [`quantize`]: what the subcommands' options
//!   mean.
//! - [`workers`]: processes for work that may crash or hang.

mod cache_dir;
mod commands;
mod exit;
mod gpu;
mod logging;
mod output;
mod paths;
mod problem;
mod progress;
mod quantize;
mod ranking;
mod table;
mod toolchain;
mod usage;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::guard(|| {
        outlive_file_limits();
        let cli = match usage::parse(std::env::args_os()) {
            Ok(cli) => cli,
            Err(done) => return done.print(),
        };
        logging::start(cli.verbose);
        commands::run(cli.command)
    })
}

/// Has writes beyond `ulimit -f` fail like writes to a full disk, with an error that names the file,
/// instead of ending the process (setrlimit(2)).
#[cfg(unix)]
fn outlive_file_limits() {
    // SAFETY: the disposition is set before any other thread runs, and SIG_IGN is no handler that
    // could be unsafe to run.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
fn outlive_file_limits() {}
