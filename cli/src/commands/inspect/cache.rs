//! What is in a cache folder.

use super::Report;
use crate::cache_dir::{winner_table, CacheArgs};
use qtune_cache::Store;
use serde_json::json;
use std::path::Path;

/// Opens the store and lists its winners.
pub fn report(path: &Path) -> anyhow::Result<Report> {
    let store = CacheArgs { dir: Some(path.into()) }.open()?;
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
        "cache {}: {} winner(s), {} poisoned schedule(s)\n\n{}",
        path.display(),
        winners.len(),
        poisoned.len(),
        winner_table(&winners)
    );
    Ok(Report { text, json })
}
