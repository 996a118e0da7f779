//! `cache gc`: what nobody can want any more goes, and the rest takes less space.

use crate::exit::Exit;
use crate::output;
use crate::toolchain::FetchArgs;
use qtune_cache::{Compaction, SledStore, WinnerKey};
use qtune_ir::Problem;
use serde_json::json;

/// Options of `cache gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also drop what this qtune, with its compiler, would not serve
    #[arg(long)]
    stale: bool,
    /// Also drop poisoned schedules, so that searches try them again: for when the machine was at fault.
    /// Launches from which no search came back stay poisoned while their trial log is there
    #[arg(long)]
    poison: bool,
    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    fetch: FetchArgs,
}

/// Compacts the store.
pub fn run(store: SledStore, args: &Args, json: bool) -> anyhow::Result<Exit> {
    let compiler = match args.stale {
        true => Some(args.fetch.open()?.fingerprint().to_owned()),
        false => None,
    };
    let wanted = |key: &WinnerKey| compiler.as_ref().is_none_or(|c| is_current(key, c));
    let how = Compaction { wanted: &wanted, poison: !args.poison, dry_run: args.dry_run };
    let report = store.compact(&how)?;
    match json {
        true => output::json(&json!({ "dry_run": args.dry_run, "report": report }))?,
        false => output::result(format_args!(
            "{} winner(s) {}, {} kept, {} poisoned schedule(s) kept; {} bytes, were {}",
            report.dropped,
            if args.dry_run { "to drop" } else { "dropped" },
            report.kept,
            report.poisoned,
            report.bytes_after,
            report.bytes_before
        ))?,
    }
    Ok(Exit::Success)
}

/// Whether this qtune with this compiler serves a winner under `key`.
fn is_current(key: &WinnerKey, compiler: &str) -> bool {
    let Ok(problem) = key.problem.parse::<Problem>() else { return false };
    let Ok(spec) = qtune_formats::resolve(&problem.format) else { return false };
    qtune_codegen::fingerprint(&spec, compiler) == key.fingerprint
}
