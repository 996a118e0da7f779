//! Writing a matrix so that a reader sees all of it or nothing.

use crate::error::FormatError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Values converted to bytes at a time: large enough to hide the system call, small enough to
/// stay in the cache.
const CHUNK_VALUES: usize = 1 << 16;

/// Writes one f32 tensor `name` of shape `[n, k]`, row-major, as a safetensors file.
///
/// The file appears at `path` only when it is complete and on disk: it is written beside its
/// destination, synchronised and renamed. On any error the destination is as it was before.
///
/// # Panics
///
/// If `values` does not hold `n * k` values.
pub fn write_f32(
    path: &Path,
    name: &str,
    n: usize,
    k: usize,
    values: &[f32],
) -> Result<(), FormatError> {
    assert_eq!(values.len(), n * k, "a matrix of {n} x {k} values");
    let bytes = std::mem::size_of_val(values);
    let mut json = serde_json::json!({
        name: { "dtype": "F32", "shape": [n, k], "data_offsets": [0, bytes] }
    })
    .to_string();
    // The data starts at a multiple of 8, so readers that map the file see aligned values.
    json.push_str(&" ".repeat(json.len().wrapping_neg() % 8));
    replace_atomically(path, |file| {
        file.write_all(&(json.len() as u64).to_le_bytes())?;
        file.write_all(json.as_bytes())?;
        for chunk in values.chunks(CHUNK_VALUES) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// Creates or replaces the file at `path` by what `fill` writes.
fn replace_atomically(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FormatError> {
    let Some(file_name) = path.file_name() else {
        return Err(FormatError::file(path, "is not a file name", "name the file to write"));
    };
    // A rename would replace a device or a pipe by a plain file instead of writing to it.
    if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
        return Err(FormatError::file(path, "is not a regular file", "name the file to write"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(file_name);
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let io = |cause| FormatError::io(path, "write", cause);
    let temporary = Temporary(folder.join(temporary_name));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary.0)
        .map_err(io)?;
    fill(&mut file).and_then(|()| file.sync_all()).map_err(io)?;
    drop(file);
    fs::rename(&temporary.0, path).map_err(io)?;
    // The rename itself lives in the folder; not every system lets a folder be synchronised.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A file that is removed when it goes out of scope, unless it was renamed away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is left to do about a failure; after the rename it is the expected one.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_reference_reader_sees_the_matrix_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        fs::write(&path, "older content").unwrap();
        let values = [1.0f32, -0.0, f32::MIN_POSITIVE, 65504.0, 0.1, -7.5];
        write_f32(&path, "weight", 2, 3, &values).unwrap();
        let bytes = fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let weight = read.tensor("weight").unwrap();
        assert_eq!(weight.shape(), [2, 3]);
        let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(weight.data(), expected);
        assert_eq!(files_in(folder.path()), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        fs::write(&path, "older content").unwrap();
        let error = replace_atomically(&path, |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("free some space"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "older content");
        assert_eq!(files_in(folder.path()), 1);
    }

    #[test]
    fn a_folder_or_a_missing_folder_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| write_f32(path, "weight", 0, 0, &[]).unwrap_err().to_string();
        assert!(message(folder.path()).contains("is not a regular file"));
        assert!(message(&folder.path().join("no/w.safetensors")).contains("check the path"));
    }
}
