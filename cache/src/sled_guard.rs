//! sled 0.34 behind a guard: every call returns, in bounded time, with a value or a [`Fault`].
//!
//! What sled does when something goes wrong, and what is done about it here:
//!
//! - It panics on damaged files and after failed syncs. Calls run under `catch_unwind`; after a
//!   panic the database is never touched again, not even dropped ([`Opened::abandon`]), because
//!   its destructors flush and panic too. Panic messages still reach stderr: silencing them takes
//!   a process-wide hook, which is the application's to set. `seal.rs` keeps that case rare.
//! - Its background thread writes and syncs on its own every 500 ms and only logs what fails.
//!   It is switched off (`flush_every_ms(None)`); every commit flushes and sees its own error.
//! - `flush` waits on a condition variable that a failing I/O thread may never signal. Commits
//!   and closing run on a thread of their own with a time limit.
//! - `flush` syncs with `sync_file_range`, which leaves out the file's size and the disk's own
//!   cache. [`Opened::commit`] syncs the file itself afterwards.

use std::fs::{File, OpenOptions};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fs2::FileExt;

use crate::engine::{Row, Table, Write};

/// Memory for sled's page cache. The default of 1 GiB is meant for servers.
const PAGE_CACHE_BYTES: u64 = 64 << 20;

/// Longest a commit or a close may take. A commit writes at most a few MiB; minutes mean a dead
/// disk or network share, or an I/O thread that is gone.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(120);

/// How long a database that was just closed may take to let go of its file: sled's I/O threads
/// hold it until their last task is dropped.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Bytes that must be free on the disk before sled is opened or writes: two of its segments, a snapshot
/// and some more. A database whose disk fills up in the middle of a segment cannot be read again.
const HEADROOM: u64 = 4 << 20;

/// What went wrong inside sled.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file is locked by someone who does not use qtune's own lock.
    Busy,
    /// The system refused: no space, no permission, no file handles. The data is not at fault.
    Io(io::Error),
    /// The data is at fault, or sled is.
    Damaged(String),
    /// No answer within [`WRITE_LIMIT`].
    Stuck,
}

/// An open database.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    db: sled::Db,
    /// By [`Table`]'s discriminant.
    trees: Vec<sled::Tree>,
    file: PathBuf,
}

impl Opened {
    /// Opens or creates the database in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        has_room(folder, HEADROOM)?;
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            match guarded(|| Self::open_once(folder)) {
                Err(Fault::Busy) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    fn open_once(folder: &Path) -> sled::Result<Self> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(PAGE_CACHE_BYTES)
            .flush_every_ms(None)
            .open()?;
        let trees = Table::ALL
            .iter()
            .map(|table| db.open_tree(table.name()))
            .collect::<sled::Result<Vec<_>>>()?;
        Ok(Self { db, trees, file: folder.join("db") })
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        &self.trees[table as usize]
    }

    /// The value under `key`.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        guarded(|| Ok(self.tree(table).get(key)?.map(|value| value.to_vec())))
    }

    /// All rows whose keys begin with `prefix`, in key order.
    pub fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, Fault> {
        guarded(|| {
            let rows = self.tree(table).scan_prefix(prefix);
            rows.map(|row| row.map(|(key, value)| Row { key: key.to_vec(), value: value.to_vec() }))
                .collect()
        })
    }

    /// Applies `writes` in order and makes them durable.
    pub fn commit(&self, writes: Vec<Write>) -> Result<(), Fault> {
        self.has_room_for(&writes)?;
        let this = self.clone();
        bounded(move || this.write_and_sync(writes))
    }

    /// Applies `writes` in order; durable only after a later commit.
    pub fn write(&self, writes: Vec<Write>) -> Result<(), Fault> {
        self.has_room_for(&writes)?;
        guarded(|| self.apply(writes))
    }

    fn has_room_for(&self, writes: &[Write]) -> Result<(), Fault> {
        let value = |write: &Write| write.value.as_ref().map_or(0, |value| value.len() as u64);
        has_room(&self.file, HEADROOM + 2 * writes.iter().map(value).sum::<u64>())
    }

    fn apply(&self, writes: Vec<Write>) -> sled::Result<()> {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => self.tree(table).insert(key, value)?,
                None => self.tree(table).remove(key)?,
            };
        }
        Ok(())
    }

    fn write_and_sync(&self, writes: Vec<Write>) -> sled::Result<()> {
        self.apply(writes)?;
        self.db.flush()?;
        // Opened anew because sled does not hand out its own handle; a sync covers the file, not
        // the handle.
        OpenOptions::new().write(true).open(&self.file)?.sync_all()?;
        Ok(())
    }

    /// Closes the database and waits until sled has let go of its file: only then do the bytes
    /// on disk stay as they are.
    pub fn close(self) -> Result<(), Fault> {
        let path = self.file.clone();
        bounded(move || {
            drop(self);
            Ok(())
        })?;
        let file = File::open(path).map_err(Fault::Io)?;
        let deadline = Instant::now() + RELEASE_LIMIT;
        while file.try_lock_exclusive().is_err() {
            if Instant::now() > deadline {
                return Err(Fault::Busy);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Leaves the database as it is, for good: its memory and file handle are leaked, since its
    /// destructors would run the code that just failed.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

/// Whether the disk of `path`, or of its nearest parent that exists, has so many bytes left. One whose
/// room cannot be told is taken to have it.
fn has_room(path: &Path, bytes: u64) -> Result<(), Fault> {
    let existing = path.ancestors().find(|path| path.exists());
    let left = existing.and_then(|path| fs2::available_space(path).ok());
    match left {
        Some(left) if left < bytes => Err(Fault::Io(io::ErrorKind::StorageFull.into())),
        _ => Ok(()),
    }
}

/// Runs a call into sled and turns its panics and errors into faults.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    // Unwind safety: on a panic the caller abandons the database, so no state that the panic
    // left half-changed is looked at again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Fault::from),
        Err(panic) => Err(Fault::Damaged(format!("sled panicked: {}", panic_text(&*panic)))),
    }
}

/// [`guarded`] on a thread of its own, for at most [`WRITE_LIMIT`].
fn bounded<T: Send + 'static>(
    call: impl FnOnce() -> sled::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let (answer, answered) = mpsc::channel();
    thread::Builder::new()
        .name("qtune-cache".into())
        // The receiver is gone only after a time-out, when nobody wants the answer any more.
        .spawn(move || drop(answer.send(guarded(call))))
        .map_err(Fault::Io)?;
    answered.recv_timeout(WRITE_LIMIT).unwrap_or(Err(Fault::Stuck))
}

/// The first line of a panic's message.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    text.lines().next().unwrap_or_default()
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if is_lock_refusal(&error) => Fault::Busy,
            sled::Error::Io(error) if error.raw_os_error().is_some() => Fault::Io(error),
            sled::Error::Io(error) if is_environment(error.kind()) => {
                Fault::Io(error.kind().into())
            }
            other => Fault::Damaged(other.to_string().replace('\n', " ")),
        }
    }
}

/// sled reports a lock that is taken only in words.
fn is_lock_refusal(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

/// Whether the system, not the data, is to blame for an error without a system code. Errors from
/// sled's I/O threads have lost their code, kept their kind and had their text mangled; errors
/// that sled makes up about the data (`UnexpectedEof` and the like) never had a code.
fn is_environment(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::PermissionDenied
            | K::ReadOnlyFilesystem
            | K::StorageFull
            | K::QuotaExceeded
            | K::FileTooLarge
            | K::NotFound
            | K::OutOfMemory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sled_is_not_touched_where_the_disk_has_too_little_room() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("not/there/yet");
        for path in [dir.path(), nested.as_path()] {
            assert!(has_room(path, 0).is_ok());
            assert!(matches!(
                has_room(path, u64::MAX),
                Err(Fault::Io(error)) if error.kind() == io::ErrorKind::StorageFull
            ));
        }
    }

    #[test]
    fn a_full_disk_is_never_taken_for_damage_even_without_its_system_code() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Fault::from(sled::Error::Io(full)), Fault::Io(_)));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(matches!(Fault::from(sled::Error::Io(cut)), Fault::Damaged(_)));
    }

    #[test]
    fn a_panic_becomes_a_fault_with_its_first_line() {
        let fault = guarded::<()>(|| panic!("page 7\nof 9")).unwrap_err();
        match fault {
            Fault::Damaged(detail) => assert_eq!(detail, "sled panicked: page 7"),
            other => panic!("{other:?}"),
        }
    }
}
