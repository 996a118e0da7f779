//! What is in a cache folder.

use super::Report;
use crate::cache_dir::{winner_table, CacheArgs};
use qtune_cache::{Poisoned, Store};
use serde_json::json;
use std::path::Path;

/// Opens the store, which need not be writable, and lists its winners.
pub fn report(path: &Path) -> anyhow::Result<Report> {
    let (store, _) = CacheArgs { dir: Some(path.into()) }.open_required()?;
    let winners = store.winners()?;
    let poisoned = store.poison()?;
    let json = json!({
        "kind": "cache",
        "path": path.display().to_string(),
        "winners": winners,
        "poisoned": poisoned,
        "damaged": store.damaged(),
    });
    let text = format!(
        "cache {}: {} winner(s), {} poisoned schedule(s)\n\n{}{}",
        path.display(),
        winners.len(),
        poisoned.len(),
        winner_table(&winners),
        poisoned.iter().map(out_of_use).collect::<String>()
    );
    Ok(Report { text, json })
}

/// A poisoned schedule on a line of its own.
fn out_of_use(entry: &Poisoned) -> String {
    let until = match entry.compile_limit_s {
        Some(seconds) => format!(" (until `tune --compile-timeout` is above {seconds}s)"),
        None => String::new(),
    };
    let Poisoned { problem, schedule, reason, .. } = entry;
    format!("\npoisoned: {problem} {schedule}: {reason}{until}")
}
