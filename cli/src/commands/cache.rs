//! `qtune cache ls|show|verify`: looking after the cache.

use crate::cache_dir::{winner_table, CacheArgs};
use crate::exit::{usage, Exit};
use crate::output;
use anyhow::bail;
use clap::Subcommand;
use qtune_cache::{SledStore, Store, WinnerRecord};
use serde_json::json;

/// Options of `cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Cache folder [default: $QTUNE_CACHE, $XDG_CACHE_HOME/qtune or ~/.cache/qtune]
    #[arg(long = "cache", value_name = "DIR", global = true)]
    dir: Option<std::path::PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the winners
    Ls,
    /// Show everything that is stored about one winner
    Show {
        /// Problem key, or the beginning of one
        problem: String,
    },
    /// Read and check every record; exit code 5 if some are damaged
    Verify,
}

/// Runs a subcommand on the store.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let cache = CacheArgs { dir: args.dir.clone() };
    let (dir, damaged) = (cache.dir()?, cache.open_existing_report()?);
    let Some((store, replaced)) = damaged else {
        bail!("cache folder {} holds no cache; `qtune tune` makes one", dir.display());
    };
    match &args.command {
        Command::Ls => list(&store, args.json),
        Command::Show { problem } => show(&store, problem, args.json),
        Command::Verify => verify(&store, replaced, args.json),
    }
}

fn list(store: &SledStore, json: bool) -> anyhow::Result<Exit> {
    let winners = store.winners()?;
    match json {
        true => output::json(&json!({ "winners": winners }))?,
        false => output::result(winner_table(&winners))?,
    }
    Ok(Exit::Success)
}

fn show(store: &SledStore, problem: &str, json: bool) -> anyhow::Result<Exit> {
    let mut winners = store.winners()?;
    // A whole key is also the beginning of the key with a bias.
    match winners.iter().any(|record| record.key.problem == problem) {
        true => winners.retain(|record| record.key.problem == problem),
        false => winners.retain(|record| record.key.problem.starts_with(problem)),
    }
    if winners.is_empty() {
        return Err(usage(format!("no winner for `{problem}`; `qtune cache ls` lists them")));
    }
    match json {
        true => output::json(&json!({ "winners": winners }))?,
        false => winners.iter().try_for_each(|record| output::result(described(record)))?,
    }
    Ok(Exit::Success)
}

/// One winner for people.
fn described(WinnerRecord { key, winner, blobs }: &WinnerRecord) -> String {
    let list = |items: &[String]| items.join(", ");
    let terms: Vec<String> =
        winner.cost_terms.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    let counts = &winner.counts;
    let provenance = &winner.provenance;
    [
        format!("{}@{}", key.problem, key.arch),
        format!("  schedule     {}", winner.schedule),
        format!(
            "  time         {:.2} us ({}), {:.0} % of the roof",
            winner.time_us,
            crate::cache_dir::evidence(winner.evidence),
            winner.roof_share * 100.0
        ),
        format!(
            "  verified     {}, error over bound {:.3}; {}",
            if winner.verified { "yes" } else { "no" },
            winner.error_over_bound,
            winner.verification.cases
        ),
        format!(
            "  counts       {:.2} lane-instructions per weight, {} registers, {} spill bytes, {} \
             shared bytes, {} bytes in flight per SM",
            counts.lane_instructions_per_weight,
            counts.registers,
            counts.spill_bytes,
            counts.shared_bytes,
            counts.bytes_in_flight_per_sm
        ),
        format!("  cost         {}", list(&terms)),
        format!("  rules        {}", list(&winner.derivation)),
        format!("  beat         {} other(s)", winner.beat.len()),
        format!("  fingerprint  {}", key.fingerprint),
        format!("  cubin        {}", blobs.cubin),
        format!(
            "  made by      qtune {}, {}, on {}",
            provenance.qtune_version, provenance.compiler_version, provenance.host
        ),
    ]
    .join("\n")
}

/// `replaced` says that the whole store had to make room for a fresh one.
fn verify(store: &SledStore, replaced: bool, json: bool) -> anyhow::Result<Exit> {
    let report = store.verify()?;
    let sound = report.damaged.is_empty() && !replaced;
    if json {
        output::json(&json!({ "sound": sound, "replaced": replaced, "report": report }))?;
    } else {
        output::result(format_args!(
            "{} winner(s), {} poisoned, {} blob(s) of {} bytes, {} unused, {} damaged now, {} before",
            report.winners,
            report.poisoned,
            report.blobs,
            report.blob_bytes,
            report.unused_blobs,
            report.damaged.len(),
            report.damaged_before
        ))?;
        for record in &report.damaged {
            output::warning(format_args!("{} {}: {}", record.table, record.key, record.reason));
        }
    }
    Ok(if sound { Exit::Success } else { Exit::Damaged })
}
