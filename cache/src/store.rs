//! The store as callers see it. [`crate::RecordStore`] implements it over any engine.

use serde::Serialize;

use crate::blob::Digest;
use crate::error::CacheError;
use crate::folder::SetAside;
use crate::record::{Kernel, Poisoned, Winner, WinnerKey, WinnerRecord};

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

    /// Stores a winner with its code, replacing what the same machine and device had found for
    /// the key; durable on return. What is served then follows from all contributions to the key,
    /// see `contribution.rs`.
    ///
    /// # Errors
    /// [`CacheError::Unverified`] unless `winner` is verified with an error of at most its bound;
    /// [`CacheError::BlobTooLarge`]; a disk that is full or not writable. After an error the old
    /// winner is still the one that is read, now and after a restart.
    fn put(&self, key: &WinnerKey, winner: &Winner, kernel: &Kernel) -> Result<(), CacheError>;

    /// Adds what another machine found; `false` if nothing changed. Contributing in any order, or
    /// twice, gives the same store.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn contribute(
        &self,
        key: &WinnerKey,
        winner: &Winner,
        kernel: &Kernel,
    ) -> Result<bool, CacheError>;

    /// What all machines found for exactly this key, the served one first.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn contributions(&self, key: &WinnerKey) -> Result<Vec<WinnerRecord>, CacheError>;

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
    /// it is set aside, and the next look-up finds another machine's or misses.
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
    /// What machines contributed to them: as many, unless caches were merged.
    pub contributions: usize,
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
