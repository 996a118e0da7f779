//! The cache folder: what is where in it, who may have it open, and how damage is moved out of
//! the way.
//!
//! ```text
//! DIR/winners/        the sled database
//! DIR/winners.seal    digests of its files, present only between a clean close and the next open
//! DIR/winners.lock    held by the process that has it open; holds that process's id
//! DIR/winners.compacting, DIR/winners.outgoing   while a database is compacted, see `compact.rs`
//! DIR/winners.damaged-SECONDS-PID/       databases set aside
//! DIR/winners.foreign-vN-SECONDS-PID/
//! ```
//!
//! Only `winners` is ever renamed, never DIR itself: DIR is the user's, may hold other things
//! (trial logs, a mistyped home folder) and may be a mount point, which cannot be renamed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fs2::FileExt;

use crate::error::CacheError;

/// Longest lock note that is read: a process id.
const LOCK_NOTE_BYTES_MAX: u64 = 16;

/// The paths inside one cache folder.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The cache folder.
    pub dir: PathBuf,
    /// The database.
    pub store: PathBuf,
    /// Its seal.
    pub seal: PathBuf,
}

/// A database that was renamed out of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it was.
    pub from: PathBuf,
    /// Where it is now.
    pub to: PathBuf,
    /// Why.
    pub reason: SetAsideReason,
}

/// Why a database was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAsideReason {
    /// It failed a check; the text says which.
    Damaged(String),
    /// Another version of qtune wrote it.
    ForeignVersion(u16),
}

impl fmt::Display for SetAsideReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetAsideReason::Damaged(detail) => write!(f, "damaged: {detail}"),
            SetAsideReason::ForeignVersion(found) => {
                let ours = crate::codec::SCHEMA_VERSION;
                write!(f, "written with schema version {found}, this qtune uses {ours}")
            }
        }
    }
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.display(), self.to.display());
        write!(f, "cache {from} was set aside as {to} ({}); a new one was started", self.reason)
    }
}

impl Place {
    /// The paths under `dir`; touches nothing.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), store: dir.join("winners"), seal: dir.join("winners.seal") }
    }

    /// Makes the cache folder if it is missing, private to this user.
    pub fn prepare(&self) -> Result<(), CacheError> {
        create_private(&self.dir).map_err(CacheError::folder(&self.dir, "create"))
    }

    /// Makes the database's folder and refuses one that other users can write: a cubin is native
    /// code with access to the whole GPU memory of the process that loads it.
    pub fn prepare_store(&self) -> Result<(), CacheError> {
        create_private(&self.store).map_err(CacheError::folder(&self.dir, "create a folder in"))?;
        sync_folder(&self.dir).map_err(CacheError::folder(&self.dir, "sync"))?;
        self.check_exposure()
    }

    /// The database that is being written to take this one's place.
    pub fn compacting(&self) -> PathBuf {
        self.dir.join("winners.compacting")
    }

    /// The database that has given way.
    fn outgoing(&self) -> PathBuf {
        self.dir.join("winners.outgoing")
    }

    /// An empty folder for a compacted database.
    pub fn make_compacting(&self) -> Result<PathBuf, CacheError> {
        let folder = self.compacting();
        self.remove(&folder)?;
        create_private(&folder).map_err(CacheError::folder(&self.dir, "create a folder in"))?;
        Ok(folder)
    }

    /// Lets the compacted database take the place of the other, which is closed and unsealed.
    pub fn swap(&self) -> Result<(), CacheError> {
        let outgoing = self.outgoing();
        let renamed = fs::rename(&self.store, &outgoing)
            .and_then(|()| fs::rename(self.compacting(), &self.store))
            .and_then(|()| sync_folder(&self.dir));
        renamed.map_err(CacheError::folder(&self.dir, "rename the databases in"))?;
        self.remove(&outgoing)
    }

    /// Finishes or undoes what a process that compacted the database left when it was killed.
    /// Called under the lock.
    pub fn recover(&self) -> Result<(), CacheError> {
        let outgoing = self.outgoing();
        if outgoing.exists() && !self.store.exists() {
            let undone = fs::rename(&outgoing, &self.store).and_then(|()| sync_folder(&self.dir));
            undone.map_err(CacheError::folder(&self.dir, "rename the database in"))?;
        }
        self.remove(&outgoing)?;
        self.remove(&self.compacting())
    }

    /// Removes a folder that qtune made, if it is there.
    fn remove(&self, folder: &Path) -> Result<(), CacheError> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CacheError::folder(&self.dir, "remove an old database from")(error))
            }
            _ => Ok(()),
        }
    }

    #[cfg(unix)]
    fn check_exposure(&self) -> Result<(), CacheError> {
        use std::os::unix::fs::PermissionsExt;
        let metadata =
            fs::metadata(&self.store).map_err(CacheError::folder(&self.dir, "look into"))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(CacheError::Exposed { dir: self.store.clone(), mode });
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn check_exposure(&self) -> Result<(), CacheError> {
        Ok(())
    }

    /// Renames the database out of the way and makes an empty folder in its place.
    pub fn set_aside(&self, reason: SetAsideReason) -> Result<SetAside, CacheError> {
        let label = match &reason {
            SetAsideReason::Damaged(_) => "damaged".to_string(),
            SetAsideReason::ForeignVersion(found) => format!("foreign-v{found}"),
        };
        let to = self.free_name(&format!("winners.{label}-{}", unix_seconds()));
        fs::rename(&self.store, &to).map_err(|source| CacheError::Damaged {
            dir: self.dir.clone(),
            detail: format!("{reason}; it cannot be renamed: {source}"),
        })?;
        self.unseal()?;
        self.prepare_store()?;
        let aside = SetAside { from: self.store.clone(), to, reason };
        tracing::warn!(%aside, "cache set aside");
        Ok(aside)
    }

    /// A path in the folder that does not exist yet: `stem-PID`, with a number where one process
    /// sets aside twice in a second.
    fn free_name(&self, stem: &str) -> PathBuf {
        let name = format!("{stem}-{}", std::process::id());
        let mut path = self.dir.join(&name);
        let mut number = 2u32;
        while path.exists() {
            path = self.dir.join(format!("{name}-{number}"));
            number += 1;
        }
        path
    }

    /// Removes the seal, durably: a seal that came back after a crash would call good data
    /// damaged.
    pub fn unseal(&self) -> Result<(), CacheError> {
        match fs::remove_file(&self.seal) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CacheError::folder(&self.dir, "remove the seal of")(error)),
        }
        sync_folder(&self.dir).map_err(CacheError::folder(&self.dir, "sync"))
    }
}

/// Whether the cache folder `dir` holds a store, also one whose compaction was cut short.
pub fn holds_store(dir: &Path) -> bool {
    let place = Place::new(dir);
    place.store.is_dir() || place.outgoing().is_dir()
}

/// Seconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Creates `dir` and its parents, mode 0700 where that means something.
pub(crate) fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Makes renames, creations and removals in `dir` durable.
pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Held while the cache is open; released when dropped, and by the system when a process dies.
///
/// sled takes a lock of its own, but only after it has begun to read; the checks before it and
/// the renaming of damaged folders must not race with another process either.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Takes the lock or says who has it.
    pub fn acquire(place: &Place) -> Result<Self, CacheError> {
        let error = |action| CacheError::folder(&place.dir, action);
        let path = place.dir.join("winners.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error("open the lock file of"))?;
        if let Err(refused) = file.try_lock_exclusive() {
            if refused.raw_os_error() == fs2::lock_contended_error().raw_os_error() {
                return Err(CacheError::Locked {
                    dir: place.dir.clone(),
                    holder: holder(&mut file),
                });
            }
            return Err(error("lock")(refused));
        }
        let note = error("write the lock file of");
        file.set_len(0).map_err(&note)?;
        file.rewind().map_err(&note)?;
        writeln!(file, "{}", std::process::id()).map_err(&note)?;
        Ok(Self { file })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Best effort: the note names nobody once the lock is free, and closing the file frees
        // the lock in any case.
        let _ = self.file.set_len(0);
        let _ = FileExt::unlock(&self.file);
    }
}

/// The process id in a lock note.
fn holder(file: &mut File) -> Option<u32> {
    let mut note = String::new();
    file.take(LOCK_NOTE_BYTES_MAX).read_to_string(&mut note).ok()?;
    note.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_aside_twice_in_a_second_keeps_both() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        let reason = || SetAsideReason::Damaged("test".into());
        fs::write(place.store.join("db"), "one").unwrap();
        let one = place.set_aside(reason()).unwrap();
        fs::write(place.store.join("db"), "two").unwrap();
        let two = place.set_aside(reason()).unwrap();
        assert_eq!(fs::read_to_string(one.to.join("db")).unwrap(), "one");
        assert_eq!(fs::read_to_string(two.to.join("db")).unwrap(), "two");
        assert!(fs::read_dir(&place.store).unwrap().next().is_none());
    }

    #[test]
    fn the_lock_names_its_holder_and_is_free_after_a_drop() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        let held = FolderLock::acquire(&place).unwrap();
        match FolderLock::acquire(&place).unwrap_err() {
            CacheError::Locked { holder, .. } => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other}"),
        }
        drop(held);
        FolderLock::acquire(&place).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        fs::set_permissions(&place.store, fs::Permissions::from_mode(0o722)).unwrap();
        let message = place.prepare_store().unwrap_err().to_string();
        assert!(message.contains("0722") && message.contains("chmod go-w"), "{message}");
    }
}
