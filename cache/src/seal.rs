//! The seal: digests of the database's files, written when it is closed in good order and
//! removed before it is opened again.
//!
//! sled 0.34 answers damaged files with panics, some on its own threads, and sometimes by quietly
//! dropping what it cannot read. A panic can be caught but its message still goes to stderr
//! through the process-wide hook, which a library must not replace. So damaged files are
//! recognised before sled sees them: a database with a seal is byte for byte what sled itself
//! left behind, or it is set aside. A database without a seal (its process was killed) goes
//! through sled's own recovery, with panics caught.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blob::Digest;
use crate::codec::{self, CodecError, Kind, HEADER_BYTES, MAX_PAYLOAD_BYTES};
use crate::error::CacheError;
use crate::folder::{sync_folder, Place, SetAsideReason};

/// What a look at the seal tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There is no database yet.
    Empty,
    /// The files are as they were closed.
    Intact,
    /// No seal: the last process did not close the database.
    Unclean,
    /// Seal and files disagree, or the seal is not ours.
    Broken(SetAsideReason),
}

/// One file of the database.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct SealedFile {
    /// Path below the database's folder, parts joined by `/`.
    path: String,
    /// Its length.
    bytes: u64,
    /// BLAKE3 of its bytes.
    digest: Digest,
}

/// Compares the database with its seal.
pub(crate) fn examine(place: &Place) -> Result<Condition, CacheError> {
    let files = sealed_files(&place.store).map_err(CacheError::folder(&place.dir, "read"))?;
    if files.is_empty() {
        return Ok(Condition::Empty);
    }
    let record = match read_capped(&place.seal) {
        Ok(record) => record,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Condition::Unclean),
        Err(error) => return Err(CacheError::folder(&place.dir, "read the seal of")(error)),
    };
    // A seal appears by rename, so a crash never leaves half of one: an unreadable seal is damage.
    let broken = |detail: String| Condition::Broken(SetAsideReason::Damaged(detail));
    Ok(match codec::decode::<Vec<SealedFile>>(Kind::Seal, &record) {
        Ok(sealed) => match difference(&sealed, &files) {
            None => Condition::Intact,
            Some(path) => broken(format!("file {path} changed since the cache was closed")),
        },
        Err(CodecError::ForeignVersion { found, .. }) => {
            Condition::Broken(SetAsideReason::ForeignVersion(found))
        }
        Err(error) => broken(format!("seal: {error}")),
    })
}

/// Writes the seal of the database as it lies there; nothing may have it open.
pub(crate) fn write(place: &Place) -> io::Result<()> {
    let files = sealed_files(&place.store)?;
    let record = codec::encode(Kind::Seal, &files).map_err(io::Error::other)?;
    let temporary = place.seal.with_extension("seal-new");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&record)?;
        file.sync_all()?;
        fs::rename(&temporary, &place.seal)?;
        sync_folder(&place.dir)
    });
    if written.is_err() {
        // Nothing is left half-written; a second failure here leaves a file nobody reads.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The first path on which the two lists, both sorted, differ.
fn difference<'a>(sealed: &'a [SealedFile], found: &'a [SealedFile]) -> Option<&'a str> {
    let differing = sealed.iter().zip(found).find(|(a, b)| a != b).map(|(a, _)| a);
    let left_over = || sealed.get(found.len()).or_else(|| found.get(sealed.len()));
    differing.or_else(left_over).map(|file| file.path.as_str())
}

/// The database's files with their digests, sorted by path.
fn sealed_files(store: &Path) -> io::Result<Vec<SealedFile>> {
    let mut files = Vec::new();
    collect(store, "", &mut files)?;
    files.sort();
    Ok(files)
}

/// Adds the files below `folder`; sled nests one level deep.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<SealedFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(entry.path())?)?;
            let digest = Digest(*hasher.finalize().as_bytes());
            files.push(SealedFile { path, bytes: hasher.count(), digest });
        }
    }
    Ok(())
}

/// The file's bytes, at most one more than a record can have.
fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let limit = (HEADER_BYTES + MAX_PAYLOAD_BYTES + 1) as u64;
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two files and their seal.
    fn sealed() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        fs::create_dir(place.store.join("blobs")).unwrap();
        fs::write(place.store.join("db"), b"log").unwrap();
        fs::write(place.store.join("blobs").join("7"), b"blob").unwrap();
        write(&place).unwrap();
        assert_eq!(examine(&place).unwrap(), Condition::Intact);
        (dir, place)
    }

    fn is_damage_in(place: &Place, what: &str) -> bool {
        match examine(place).unwrap() {
            Condition::Broken(SetAsideReason::Damaged(detail)) => detail.contains(what),
            _ => false,
        }
    }

    #[test]
    fn a_changed_missing_or_added_file_breaks_the_seal() {
        let (_dir, place) = sealed();
        fs::write(place.store.join("db"), b"lag").unwrap();
        assert!(is_damage_in(&place, "file db"));
        fs::write(place.store.join("db"), b"log").unwrap();
        fs::write(place.store.join("x"), b"").unwrap();
        assert!(is_damage_in(&place, "file x"));
        fs::remove_file(place.store.join("x")).unwrap();
        fs::remove_file(place.store.join("blobs").join("7")).unwrap();
        assert!(is_damage_in(&place, "file blobs/7"));
    }

    #[test]
    fn a_damaged_seal_is_damage_and_a_missing_one_is_not() {
        let (_dir, place) = sealed();
        let mut bytes = fs::read(&place.seal).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&place.seal, bytes).unwrap();
        assert!(is_damage_in(&place, "seal: checksum"));
        place.unseal().unwrap();
        assert_eq!(examine(&place).unwrap(), Condition::Unclean);
    }

    #[test]
    fn a_seal_of_another_version_is_foreign() {
        let (_dir, place) = sealed();
        fs::write(&place.seal, codec::encode_versioned(Kind::Seal, 7, &()).unwrap()).unwrap();
        let condition = examine(&place).unwrap();
        assert_eq!(condition, Condition::Broken(SetAsideReason::ForeignVersion(7)));
    }
}
