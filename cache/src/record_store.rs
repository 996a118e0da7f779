//! [`Store`] over any engine: typed records out of bytes, checked on the way in.
//!
//! Whatever fails its check is moved to the `damaged` table, reported through [`Store::damaged`]
//! and treated as absent: a damaged winner is a miss and is tuned again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::blob::{self, Digest};
use crate::codec::{self, CodecError, Kind};
use crate::contribution::{Contribution, WinnerRow};
use crate::engine::{Engine, Row, Table, Write};
use crate::error::CacheError;
use crate::folder::{unix_seconds, SetAside};
use crate::record::{key_prefix, BlobRefs, Kernel, Poisoned, Winner, WinnerKey, WinnerRecord};
use crate::schema_4;
use crate::store::{DamagedRecord, LookupStats, Store, VerifyReport};

/// Most bytes of a damaged record that are kept for study.
const DAMAGED_BYTES_KEPT: usize = 64 << 10;

/// A [`Store`] over any engine; see [`crate::SledStore`] and [`crate::MemoryStore`].
#[derive(Debug, Default)]
pub struct RecordStore<E> {
    engine: E,
    session: Mutex<Session>,
}

/// What happened since the store was opened.
#[derive(Debug, Default)]
struct Session {
    stats: LookupStats,
    damaged: Vec<DamagedRecord>,
}

/// A damaged record as it is kept in the `damaged` table.
#[derive(Serialize, Deserialize)]
struct StoredDamage {
    table: String,
    key: Vec<u8>,
    reason: String,
    set_aside_unix_seconds: u64,
    /// The record's first bytes, at most [`DAMAGED_BYTES_KEPT`].
    bytes: Vec<u8>,
}

impl<E: Engine> RecordStore<E> {
    /// A store over `engine`.
    pub(crate) fn over(engine: E) -> Self {
        Self { engine, session: Mutex::default() }
    }

    /// What keeps the bytes.
    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine alone.
    pub(crate) fn into_engine(self) -> E {
        self.engine
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the row under `key` to the `damaged` table and remembers why. If the move itself
    /// cannot be written the row stays, is found damaged again next time, and still not served.
    fn set_aside(&self, table: Table, key: &[u8], bytes: &[u8], reason: String) {
        let record = DamagedRecord { table: table.name().into(), key: printable(key), reason };
        tracing::warn!(table = %record.table, key = %record.key, reason = %record.reason,
            "damaged cache record set aside");
        let kept = StoredDamage {
            table: record.table.clone(),
            key: key.to_vec(),
            reason: record.reason.clone(),
            set_aside_unix_seconds: unix_seconds(),
            bytes: bytes[..bytes.len().min(DAMAGED_BYTES_KEPT)].to_vec(),
        };
        let moved = codec::encode(Kind::Damaged, &kept)
            .map_err(|cause| CacheError::Record { what: "a damaged record".into(), cause })
            .and_then(|value| {
                let aside = [table.name().as_bytes(), &[0], key].concat();
                self.engine.commit(vec![
                    Write { table: Table::Damaged, key: aside, value: Some(value) },
                    Write { table, key: key.to_vec(), value: None },
                ])
            });
        if let Err(error) = moved {
            tracing::warn!(%error, "the damaged record could not be moved");
        }
        self.session().damaged.push(record);
    }

    /// The row in `bytes`, found under `key`; damage is set aside and `None`.
    fn row_in(&self, key: &[u8], bytes: &[u8]) -> Option<WinnerRow> {
        let checked = codec::decode::<WinnerRow>(Kind::Winner, bytes)
            .map_err(|error| error.to_string())
            .and_then(|row| match row.key.to_bytes() {
                Ok(own) if own == key => Ok(row),
                _ => Err("stored under a key that is not its own".into()),
            })
            .and_then(|row| row.check().map(|()| row));
        checked.map_err(|reason| self.set_aside(Table::Winners, key, bytes, reason)).ok()
    }

    /// The intact row under `key`.
    fn row(&self, key: &[u8]) -> Result<Option<WinnerRow>, CacheError> {
        let value = self.engine.get(Table::Winners, key)?;
        Ok(value.and_then(|value| self.row_in(key, &value)))
    }

    /// The intact rows whose keys begin with `prefix`.
    pub(crate) fn rows_under(&self, prefix: &[u8]) -> Result<Vec<WinnerRow>, CacheError> {
        let rows = self.engine.scan(Table::Winners, prefix)?;
        Ok(rows.iter().filter_map(|row| self.row_in(&row.key, &row.value)).collect())
    }

    /// The intact winners whose keys begin with `prefix`.
    fn winners_under(&self, prefix: &[u8]) -> Result<Vec<WinnerRecord>, CacheError> {
        Ok(self.rows_under(prefix)?.iter().filter_map(|row| row.records().next()).collect())
    }

    /// Writes `row` after the code that `kernel` adds to it. The row comes last: a crash in
    /// between leaves blobs that nothing refers to, never a winner without its code.
    fn write_row(&self, row: &WinnerRow, kernel: &Kernel) -> Result<(), CacheError> {
        let value = codec::encode(Kind::Winner, row).map_err(record_error(&row.key))?;
        let blobs = BlobRefs::of(kernel);
        let mut writes = self.blob_writes(&blobs.source, kernel.source.as_bytes())?;
        writes.extend(self.blob_writes(&blobs.ptx, kernel.ptx.as_bytes())?);
        writes.extend(self.blob_writes(&blobs.cubin, &kernel.cubin)?);
        writes.push(Write { table: Table::Winners, key: row.key.to_bytes()?, value: Some(value) });
        self.engine.commit(writes)
    }

    /// Takes a contribution whose code is lost out of its row, which is set aside as it was.
    fn drop_contribution(&self, record: &WinnerRecord) -> Result<(), CacheError> {
        let key = record.key.to_bytes()?;
        let Some(bytes) = self.engine.get(Table::Winners, &key)? else { return Ok(()) };
        let Some(mut row) = self.row_in(&key, &bytes) else { return Ok(()) };
        row.contributions.retain(|c| c.blobs != record.blobs);
        self.set_aside(Table::Winners, &key, &bytes, "its code is lost".into());
        if row.contributions.is_empty() {
            return Ok(());
        }
        let value = codec::encode(Kind::Winner, &row).map_err(record_error(&row.key))?;
        self.engine.commit(vec![Write { table: Table::Winners, key, value: Some(value) }])
    }

    /// The writes that store a blob: none if it is there and intact. Rows of it that a crash in
    /// the middle of a put has left are no damage; they are replaced.
    fn blob_writes(&self, digest: &Digest, bytes: &[u8]) -> Result<Vec<Write>, CacheError> {
        let rows = self.engine.scan(Table::Blobs, &digest.0)?;
        if !rows.is_empty() && blob::assemble(digest, &rows).is_ok() {
            return Ok(Vec::new());
        }
        let remove = |row: Row| Write { table: Table::Blobs, key: row.key, value: None };
        let mut writes: Vec<Write> = rows.into_iter().map(remove).collect();
        writes.extend(blob::rows_of(digest, bytes)?);
        Ok(writes)
    }

    /// Removes all rows of a damaged blob. The bytes are of no use without the rest, so only the
    /// fact is kept.
    fn drop_blob(&self, digest: &Digest, keys: Vec<Vec<u8>>, reason: String) {
        let writes =
            keys.into_iter().map(|key| Write { table: Table::Blobs, key, value: None }).collect();
        if let Err(error) = self.engine.commit(writes) {
            tracing::warn!(%error, "a damaged blob could not be removed");
        }
        self.set_aside(Table::Blobs, &digest.0, &[], reason);
    }

    /// The three parts of `blobs`, or `None` if one is lost.
    fn kernel_parts(&self, blobs: &BlobRefs) -> Result<Option<Kernel>, CacheError> {
        let part = |digest| self.get_blob(digest);
        let (source, ptx, cubin) = (part(&blobs.source)?, part(&blobs.ptx)?, part(&blobs.cubin)?);
        let text = |bytes: Option<Vec<u8>>| bytes.and_then(|b| String::from_utf8(b).ok());
        Ok(match (text(source), text(ptx), cubin) {
            (Some(source), Some(ptx), Some(cubin)) => Some(Kernel { source, ptx, cubin }),
            _ => None,
        })
    }

    /// Digests of all blobs with rows in the store, whole or not.
    fn blob_digests(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let rows = self.engine.scan(Table::Blobs, &[])?;
        Ok(rows.iter().filter_map(|row| row.key.first_chunk().copied().map(Digest)).collect())
    }
}

impl<E: Engine> Store for RecordStore<E> {
    fn get(&self, key: &WinnerKey) -> Result<Option<WinnerRecord>, CacheError> {
        let bytes = key.to_bytes()?;
        let found = self.row(&bytes)?.and_then(|row| row.records().next());
        let stale = found.is_none() && !self.stale(key)?.is_empty();
        let stats = &mut self.session().stats;
        match (&found, stale) {
            (Some(_), _) => stats.hits += 1,
            (None, true) => stats.stale += 1,
            (None, false) => stats.misses += 1,
        }
        Ok(found)
    }

    fn put(&self, key: &WinnerKey, winner: &Winner, kernel: &Kernel) -> Result<(), CacheError> {
        winner.check_evidence(&key.problem)?;
        let new = Contribution { winner: winner.clone(), blobs: BlobRefs::of(kernel) };
        let row = match self.row(&key.to_bytes()?)? {
            None => WinnerRow::of(key.clone(), new),
            Some(mut row) => {
                row.replace(new).map_err(record_error(key))?;
                row
            }
        };
        self.write_row(&row, kernel)
    }

    fn contribute(
        &self,
        key: &WinnerKey,
        winner: &Winner,
        kernel: &Kernel,
    ) -> Result<bool, CacheError> {
        winner.check_evidence(&key.problem)?;
        let new = Contribution { winner: winner.clone(), blobs: BlobRefs::of(kernel) };
        let row = match self.row(&key.to_bytes()?)? {
            None => WinnerRow::of(key.clone(), new),
            Some(mut row) => match row.add(new).map_err(record_error(key))? {
                true => row,
                false => return Ok(false),
            },
        };
        self.write_row(&row, kernel).map(|()| true)
    }

    fn contributions(&self, key: &WinnerKey) -> Result<Vec<WinnerRecord>, CacheError> {
        let row = self.row(&key.to_bytes()?)?;
        Ok(row.map_or_else(Vec::new, |row| row.records().collect()))
    }

    fn stale(&self, key: &WinnerKey) -> Result<Vec<WinnerRecord>, CacheError> {
        let mut records = self.winners_under(&key_prefix(&key.problem, &key.arch)?)?;
        records.retain(|record| record.key != *key);
        Ok(records)
    }

    fn winners(&self) -> Result<Vec<WinnerRecord>, CacheError> {
        self.winners_under(&[])
    }

    fn get_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        let rows = self.engine.scan(Table::Blobs, &digest.0)?;
        if rows.is_empty() {
            return Ok(None);
        }
        match blob::assemble(digest, &rows) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(reason) => {
                let keys = rows.into_iter().map(|row| row.key).collect();
                self.drop_blob(digest, keys, reason);
                Ok(None)
            }
        }
    }

    fn kernel(&self, record: &WinnerRecord) -> Result<Option<Kernel>, CacheError> {
        let kernel = self.kernel_parts(&record.blobs)?;
        if kernel.is_none() {
            self.drop_contribution(record)?;
        }
        Ok(kernel)
    }

    fn put_poison(&self, entry: &Poisoned) -> Result<(), CacheError> {
        let key = entry.to_bytes()?;
        let value = codec::encode(Kind::Poison, entry)
            .map_err(|cause| CacheError::Record { what: entry.problem.clone(), cause })?;
        self.engine.commit(vec![Write { table: Table::Poison, key, value: Some(value) }])
    }

    fn poison(&self) -> Result<Vec<Poisoned>, CacheError> {
        let rows = self.engine.scan(Table::Poison, &[])?;
        let intact = rows.iter().filter_map(|row| {
            schema_4::poisoned(&row.value)
                .map_err(|e| self.set_aside(Table::Poison, &row.key, &row.value, e.to_string()))
                .ok()
        });
        Ok(intact.collect())
    }

    fn flush(&self) -> Result<(), CacheError> {
        self.engine.commit(Vec::new())
    }

    fn stats(&self) -> LookupStats {
        self.session().stats
    }

    fn damaged(&self) -> Vec<DamagedRecord> {
        self.session().damaged.clone()
    }

    fn set_asides(&self) -> Vec<SetAside> {
        self.engine.set_asides()
    }

    fn verify(&self) -> Result<VerifyReport, CacheError> {
        let before = self.session().damaged.len();
        let damaged_before = self.engine.scan(Table::Damaged, &[])?.len();
        let mut report = VerifyReport { damaged_before, ..VerifyReport::default() };
        let mut referenced = BTreeMap::new();
        for row in self.rows_under(&[])? {
            for record in row.records() {
                let Some(kernel) = self.kernel(&record)? else { continue };
                report.contributions += 1;
                referenced.insert(record.blobs.source, kernel.source.len());
                referenced.insert(record.blobs.ptx, kernel.ptx.len());
                referenced.insert(record.blobs.cubin, kernel.cubin.len());
            }
        }
        report.winners = self.winners()?.len();
        report.blobs = referenced.len();
        report.blob_bytes = referenced.values().map(|bytes| *bytes as u64).sum();
        let is_unused = |digest: &&Digest| !referenced.contains_key(digest);
        report.unused_blobs = self.blob_digests()?.iter().filter(is_unused).count();
        report.poisoned = self.poison()?.len();
        report.damaged = self.session().damaged[before..].to_vec();
        Ok(report)
    }
}

/// A closure for `map_err`: the record of `key` could not be made.
fn record_error(key: &WinnerKey) -> impl Fn(CodecError) -> CacheError + '_ {
    move |cause| CacheError::Record { what: key.problem.clone(), cause }
}

/// A key for people: text with its separators as `@`, or hex where it is not text.
fn printable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if text.chars().all(|c| c == '\0' || !c.is_control()) => text.replace('\0', "@"),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
#[path = "record_store_tests.rs"]
mod tests;
