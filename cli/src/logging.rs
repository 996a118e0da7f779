//! `-v`, `-vv` and `QTUNE_LOG`: what the libraries log, on stderr.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. `QTUNE_LOG` holds directives such as `qtune_search=debug`; without it `-v`
/// shows information and `-vv` everything.
pub fn start(verbose: u8) {
    // What sled and egg log through the `log` crate is about themselves: what matters of it comes
    // back to qtune as an error, and is told as one.
    let directives = match verbose {
        0 => "error,egg=off,sled=off",
        1 => "info,egg=warn,sled=warn",
        _ => "debug,egg=warn,sled=warn",
    };
    let filter =
        EnvFilter::try_from_env("QTUNE_LOG").unwrap_or_else(|_| EnvFilter::new(directives));
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color && std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .try_init();
    if let Err(error) = started {
        crate::output::warning(format_args!("no log: {error}"));
    }
}
