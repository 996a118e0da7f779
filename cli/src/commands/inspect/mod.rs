//! `qtune inspect PATH`: what is in a checkpoint, a cache folder or a trial log.

mod cache;
mod checkpoint;
mod trials;

use crate::exit::Exit;
use crate::output;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint folder or file, a cache folder, or a trial log (.jsonl)
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found, for people and for machines.
struct Report {
    text: String,
    json: Value,
}

/// Prints what is at a path.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let report = match kind(&args.path) {
        Kind::Cache => cache::report(&args.path)?,
        Kind::TrialLog => trials::report(&args.path)?,
        Kind::Checkpoint => checkpoint::report(&args.path)?,
    };
    match args.json {
        true => output::json(&report.json)?,
        false => output::result(report.text)?,
    }
    Ok(Exit::Success)
}

enum Kind {
    Cache,
    TrialLog,
    Checkpoint,
}

/// Told by names alone: a checkpoint's reader says best what is wrong with anything else.
fn kind(path: &Path) -> Kind {
    if path.join("winners").is_dir() {
        Kind::Cache
    } else if path.extension().is_some_and(|extension| extension == "jsonl") {
        Kind::TrialLog
    } else {
        Kind::Checkpoint
    }
}

/// A number of bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        _ => format!("{size:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_exact_below_a_thousand() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(141_557_760), "141.6 MB");
    }
}
