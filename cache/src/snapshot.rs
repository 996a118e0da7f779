//! Reading a cache in a folder that cannot be written: sled and the lock both need to write, so a
//! private copy is opened instead.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::CacheError;
use crate::folder::Place;
use crate::sled_store::{OpenReport, SledStore};

impl SledStore {
    /// Opens a copy of the store in the cache folder `dir`, which is only read. What is written to
    /// the copy is gone when it is dropped.
    ///
    /// # Errors
    /// [`CacheError::Folder`] if the folder cannot be read or there is no room for a copy;
    /// [`CacheError::Damaged`] if what was copied is not whole, which a process that writes the
    /// cache meanwhile also causes.
    pub fn open_copy(dir: &Path) -> Result<(Self, OpenReport), CacheError> {
        let error = CacheError::folder(dir, "copy");
        let copy = tempfile::tempdir().map_err(&error)?;
        let (from, to) = (Place::new(dir), Place::new(copy.path()));
        copy_files(&from.store, &to.store).map_err(&error)?;
        match fs::copy(&from.seal, &to.seal) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(error(cause)),
            _ => {}
        }
        let (store, report) = SledStore::open(copy.path())?;
        if let Some(aside) = report.set_aside {
            let detail = aside.reason.to_string();
            return Err(CacheError::Damaged { dir: dir.to_path_buf(), detail });
        }
        Ok((store.keeping(copy), report))
    }
}

/// Copies the files below `from`; the copies are private to this user.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    crate::folder::create_private(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            // Not `fs::copy`, which takes the permissions along: a read-only copy cannot be opened.
            io::copy(&mut fs::File::open(entry.path())?, &mut fs::File::create(target)?)?;
        }
    }
    Ok(())
}
