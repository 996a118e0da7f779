//! The store as callers see it: typed records over an engine's bytes.
//!
//! Whatever fails its check on the way in is moved to the `damaged` table, reported through
//! [`Store::damaged`] and treated as absent: a damaged winner is a miss and is tuned again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::blob::{self, Digest};
use crate::codec::{self, Kind};
use crate::engine::{Engine, Row, Table, Write};
use crate::error::CacheError;
use crate::folder::SetAside;
use crate::record::{key_prefix, BlobRefs, Kernel, Poisoned, Winner, WinnerKey, WinnerRecord};

/// Most bytes of a damaged record that are kept for study.
const DAMAGED_BYTES_KEPT: usize = 64 << 10;

/// Winners, their code, and poisoned schedules.
///
/// All methods take `&self` and may be called from several threads. Their errors are those of the
/// disk and of misuse: damage is never an error, see the module.
pub trait Store: Send + Sync {
    /// The winner for exactly this key, and a hit, miss or stale look-up counted.
    ///
    /// # Errors
    /// A key with a part that is empty or holds control characters; a store that cannot be read.
    fn get(&self, key: &WinnerKey) -> Result<Option<WinnerRecord>, CacheError>;

    /// Stores a winner with its code, replacing the one under the same key; durable on return.
    ///
    /// # Errors
    /// [`CacheError::Unverified`] unless `winner` is verified with an error of at most its bound;
    /// [`CacheError::BlobTooLarge`]; a disk that is full or not writable. After an error the old
    /// winner is still the one that is read, now and after a restart.
    fn put(&self, key: &WinnerKey, winner: &Winner, kernel: &Kernel) -> Result<(), CacheError>;

    /// Winners for the problem and arch of `key` under other fingerprints. They are never served;
    /// they show what an old generator or compiler had found.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn stale(&self, key: &WinnerKey) -> Result<Vec<WinnerRecord>, CacheError>;

    /// All winners, ordered by problem, arch and fingerprint.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn winners(&self) -> Result<Vec<WinnerRecord>, CacheError>;

    /// The blob with this digest; its bytes have been checked against it.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn get_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError>;

    /// The code of `record`, or `None` if any part of it is lost. The winner is then of no use:
    /// it is set aside and the next look-up misses.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn kernel(&self, record: &WinnerRecord) -> Result<Option<Kernel>, CacheError>;

    /// Records that a schedule must not be launched again; durable on return.
    ///
    /// # Errors
    /// As [`Store::put`], less the evidence.
    fn put_poison(&self, entry: &Poisoned) -> Result<(), CacheError>;

    /// All poisoned schedules, ordered by problem, arch and schedule.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn poison(&self) -> Result<Vec<Poisoned>, CacheError>;

    /// Repeats the flush that every put ends with; nothing is pending between calls.
    ///
    /// # Errors
    /// A disk that is full or not writable.
    fn flush(&self) -> Result<(), CacheError>;

    /// Look-ups since the store was opened.
    fn stats(&self) -> LookupStats;

    /// Single records set aside since the store was opened.
    fn damaged(&self) -> Vec<DamagedRecord>;

    /// Whole folders set aside since the store was opened, when the files turned out damaged
    /// while in use. What was set aside at opening is in the [`crate::OpenReport`].
    fn set_asides(&self) -> Vec<SetAside>;

    /// Reads and checks every record and every blob in use, setting aside what is damaged.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn verify(&self) -> Result<VerifyReport, CacheError>;
}

/// How look-ups went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LookupStats {
    /// Winners served.
    pub hits: u64,
    /// Look-ups that found nothing for problem and arch.
    pub misses: u64,
    /// Look-ups that found winners for problem and arch, but of another fingerprint.
    pub stale: u64,
}

/// A record that failed its check and was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedRecord {
    /// Table it was found in.
    pub table: String,
    /// Its key, printable.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Intact winners, code included.
    pub winners: usize,
    /// Poisoned schedules.
    pub poisoned: usize,
    /// Blobs in use.
    pub blobs: usize,
    /// Bytes in them.
    pub blob_bytes: u64,
    /// Blobs, whole or in part, that no winner refers to: left by replaced winners and by puts
    /// that a crash cut short. They take space and do no harm.
    pub unused_blobs: usize,
    /// Records this check set aside.
    pub damaged: Vec<DamagedRecord>,
    /// Records that had been set aside before.
    pub damaged_before: usize,
}

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

    /// The winner in `bytes`, found under `key`; damage is set aside and `None`.
    fn winner_in(&self, key: &[u8], bytes: &[u8]) -> Option<WinnerRecord> {
        let checked = codec::decode::<WinnerRecord>(Kind::Winner, bytes)
            .map_err(|error| error.to_string())
            .and_then(|record| match record.key.to_bytes() {
                Ok(own) if own == key => Ok(record),
                _ => Err("stored under a key that is not its own".into()),
            })
            .and_then(|record| match record.winner.check_evidence(&record.key.problem) {
                Ok(()) => Ok(record),
                Err(error) => Err(error.to_string()),
            });
        checked.map_err(|reason| self.set_aside(Table::Winners, key, bytes, reason)).ok()
    }

    /// The intact winners whose keys begin with `prefix`.
    fn winners_under(&self, prefix: &[u8]) -> Result<Vec<WinnerRecord>, CacheError> {
        let rows = self.engine.scan(Table::Winners, prefix)?;
        Ok(rows.iter().filter_map(|row| self.winner_in(&row.key, &row.value)).collect())
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
        let found = self
            .engine
            .get(Table::Winners, &bytes)?
            .and_then(|value| self.winner_in(&bytes, &value));
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
        let row_key = key.to_bytes()?;
        let blobs = BlobRefs::of(kernel);
        let record = WinnerRecord { key: key.clone(), winner: winner.clone(), blobs };
        let value = codec::encode(Kind::Winner, &record)
            .map_err(|cause| CacheError::Record { what: key.problem.clone(), cause })?;

        // The winner comes last: a crash in between leaves blobs that nothing refers to, never a
        // winner without its code.
        let mut writes = self.blob_writes(&blobs.source, kernel.source.as_bytes())?;
        writes.extend(self.blob_writes(&blobs.ptx, kernel.ptx.as_bytes())?);
        writes.extend(self.blob_writes(&blobs.cubin, &kernel.cubin)?);
        writes.push(Write { table: Table::Winners, key: row_key, value: Some(value) });
        self.engine.commit(writes)
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
            let key = record.key.to_bytes()?;
            if let Some(bytes) = self.engine.get(Table::Winners, &key)? {
                self.set_aside(Table::Winners, &key, &bytes, "its code is lost".into());
            }
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
            codec::decode::<Poisoned>(Kind::Poison, &row.value)
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
        for record in self.winners()? {
            if let Some(kernel) = self.kernel(&record)? {
                report.winners += 1;
                referenced.insert(record.blobs.source, kernel.source.len());
                referenced.insert(record.blobs.ptx, kernel.ptx.len());
                referenced.insert(record.blobs.cubin, kernel.cubin.len());
            }
        }
        report.blobs = referenced.len();
        report.blob_bytes = referenced.values().map(|bytes| *bytes as u64).sum();
        let is_unused = |digest: &&Digest| !referenced.contains_key(digest);
        report.unused_blobs = self.blob_digests()?.iter().filter(is_unused).count();
        report.poisoned = self.poison()?.len();
        report.damaged = self.session().damaged[before..].to_vec();
        Ok(report)
    }
}

/// A key for people: text with its separators as `@`, or hex where it is not text.
fn printable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if text.chars().all(|c| c == '\0' || !c.is_control()) => text.replace('\0', "@"),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Seconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
