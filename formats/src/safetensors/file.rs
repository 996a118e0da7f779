//! One safetensors file, mapped into memory.

use super::header::{Header, HeaderEntry};
use crate::error::FormatError;
use memmap2::Mmap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const REMEDY: &str = "the file is damaged or incomplete: download or export it again";

/// One safetensors file: its header is checked when it is opened, its data is read when used.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl SafetensorsFile {
    /// Maps `path` and checks its header.
    pub fn open(path: &Path) -> Result<SafetensorsFile, FormatError> {
        let io = |cause| FormatError::io(path, "open", cause);
        // Asked first: opening a pipe would block, and a folder opens as a file on some systems.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(FormatError::file(path, "is not a regular file", "name a checkpoint file"));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process. Another process that
        // truncates the file while it is mapped can end this one with a signal; like every
        // reader that maps its weights, we ask that checkpoints are replaced, not rewritten.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let header = Header::parse(&map).map_err(|bad| match bad.tensor {
            Some(tensor) => FormatError::Tensor {
                path: path.into(),
                tensor,
                problem: bad.problem,
                remedy: REMEDY.into(),
            },
            None => FormatError::file(path, bad.problem, REMEDY),
        })?;
        Ok(SafetensorsFile { path: path.into(), map, header })
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of one entry of this file's header, unaligned.
    pub fn bytes(&self, entry: &HeaderEntry) -> &[u8] {
        &self.map[entry.begin..entry.end]
    }
}
