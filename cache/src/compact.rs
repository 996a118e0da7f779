//! Compacting: what is still of use, rewritten into a new database that takes the old one's place.
//!
//! sled's file only grows: replaced winners, their blobs and set-aside records stay in it. So the
//! rows to keep are written to `winners.compacting` beside it, and two renames swap the folders:
//! `winners` to `winners.outgoing`, then `winners.compacting` to `winners`. A process killed at any
//! moment leaves one whole database; [`Place::recover`] finishes or undoes the rest at the next
//! opening. Until the renames the old database is only read, so a full disk loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::contribution::WinnerRow;
use crate::engine::{Engine, Row, Table, Write};
use crate::error::CacheError;
use crate::folder::Place;
use crate::merge::{self, MergeReport};
use crate::record::WinnerKey;
use crate::record_store::RecordStore;
use crate::sled_engine::cache_error;
use crate::sled_guard::{Fault, Opened};
use crate::sled_store::{write_meta, SledStore};
use crate::store::Store;

/// What of a store is to be kept, and whether that is only asked.
pub struct Compaction<'a> {
    /// Whether a winner is wanted that nothing has superseded.
    pub wanted: &'a dyn Fn(&WinnerKey) -> bool,
    /// Whether poisoned schedules stay; where they go, searches try them again.
    pub poison: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What compacting did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompactReport {
    /// Winners kept.
    pub kept: usize,
    /// Winners dropped: superseded ones, those that were not wanted, those whose code is lost.
    pub dropped: usize,
    /// Poisoned schedules kept.
    pub poisoned: usize,
    /// Size of the database before, in bytes.
    pub bytes_before: u64,
    /// Size after; that of before where nothing was done.
    pub bytes_after: u64,
}

impl SledStore {
    /// Drops winners that nobody can want and rewrites the rest, as small as it gets.
    ///
    /// Of one problem and arch only the fingerprint with the newest winner stays, and of that only
    /// what is wanted. What replayed trial logs found supersedes nothing but its like.
    ///
    /// # Errors
    /// [`CacheError::Folder`] if the disk is full or refuses; the database is then as it was.
    pub fn compact(self, how: &Compaction<'_>) -> Result<CompactReport, CacheError> {
        let place = self.engine().place().clone();
        let rows = self.rows_under(&[])?;
        let total = rows.len();
        let keys: Vec<WinnerKey> =
            newest_fingerprints(rows).into_iter().filter(|key| (how.wanted)(key)).collect();
        let mut report = CompactReport {
            kept: keys.len(),
            dropped: total - keys.len(),
            poisoned: if how.poison { self.poison()?.len() } else { 0 },
            bytes_before: bytes_in(&place)?,
            bytes_after: 0,
        };
        report.bytes_after = report.bytes_before;
        if how.dry_run {
            return Ok(report);
        }
        let copied = write_new(&place, &self, &keys, how.poison).inspect_err(|_| {
            // Best effort: what stays is removed at the next opening.
            let _ = fs::remove_dir_all(place.compacting());
        })?;
        self.into_engine().give_way()?;
        report.kept = copied.new;
        report.dropped = total - copied.new;
        report.bytes_after = bytes_in(&place)?;
        Ok(report)
    }
}

/// Of the keys that differ only in their fingerprint, the one with the newest winner.
fn newest_fingerprints(rows: Vec<WinnerRow>) -> Vec<WinnerKey> {
    let mut newest: BTreeMap<(String, String, bool), (u64, String)> = BTreeMap::new();
    for WinnerRow { key, contributions } in rows {
        let ages = contributions.iter().map(|c| c.winner.provenance.created_unix_seconds);
        let is_replay = key.is_replay();
        let age = (ages.max().unwrap_or_default(), key.fingerprint);
        let slot = newest.entry((key.problem, key.arch, is_replay)).or_default();
        *slot = age.max(std::mem::take(slot));
    }
    let key = |((problem, arch, _), (_, fingerprint))| WinnerKey { problem, arch, fingerprint };
    newest.into_iter().map(key).collect()
}

/// Writes the new database, whole and durable, beside the old one.
fn write_new(
    place: &Place,
    store: &SledStore,
    keys: &[WinnerKey],
    poison: bool,
) -> Result<MergeReport, CacheError> {
    let fault = |fault| cache_error(place, "write a compacted database in", fault);
    let opened = Opened::open(&place.make_compacting()?).map_err(fault)?;
    let new = RecordStore::over(Compacting { place: place.clone(), opened });
    let copied = merge::copy(&new, store, keys).and_then(|mut report| {
        if poison {
            merge::merge_poison(&new, store, &mut report)?;
        }
        Ok(report)
    });
    let Compacting { opened, .. } = new.into_engine();
    let finished = copied.and_then(|report| {
        write_meta(&opened).and_then(|()| opened.commit(Vec::new())).map_err(fault)?;
        Ok(report)
    });
    match finished {
        Ok(report) => opened.close().map(|()| report).map_err(fault),
        Err(error) => {
            opened.abandon();
            Err(error)
        }
    }
}

/// The engine of a database that nobody else knows yet: it is synced once, at the end.
struct Compacting {
    place: Place,
    opened: Opened,
}

impl Compacting {
    fn error(&self, fault: Fault) -> CacheError {
        cache_error(&self.place, "write a compacted database in", fault)
    }
}

impl Engine for Compacting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        self.opened.get(table, key).map_err(|fault| self.error(fault))
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, CacheError> {
        self.opened.scan(table, prefix).map_err(|fault| self.error(fault))
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), CacheError> {
        self.opened.write(writes).map_err(|fault| self.error(fault))
    }
}

/// Bytes of all files of the database.
fn bytes_in(place: &Place) -> Result<u64, CacheError> {
    bytes_below(&place.store).map_err(CacheError::folder(&place.dir, "measure the database in"))
}

fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}
