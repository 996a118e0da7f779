//! What every container of tensors comes down to: one file, mapped into memory, and where each
//! tensor lies in it.

use crate::error::FormatError;
use crate::gguf::BlockType;
use crate::safetensors::ElementType;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const REMEDY: &str = "the file is damaged or incomplete: download or export it again";

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// One by one.
    Elements(ElementType),
    /// In blocks along the innermost dimension, each with its own scales.
    Blocks(&'static BlockType),
}

impl Stored {
    /// The type of the elements, if they are floats of 16 or 32 bits.
    pub fn float(self) -> Option<ElementType> {
        match self {
            Stored::Elements(
                element @ (ElementType::F16 | ElementType::Bf16 | ElementType::F32),
            ) => Some(element),
            Stored::Elements(_) | Stored::Blocks(_) => None,
        }
    }
}

impl From<ElementType> for Stored {
    fn from(element: ElementType) -> Stored {
        Stored::Elements(element)
    }
}

impl PartialEq<ElementType> for Stored {
    fn eq(&self, element: &ElementType) -> bool {
        *self == Stored::Elements(*element)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::Elements(element) => element.fmt(f),
            Stored::Blocks(blocks) => f.write_str(blocks.name),
        }
    }
}

/// Where one tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEntry {
    /// How its elements are stored.
    pub stored: Stored,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub begin: usize,
    /// One past the last byte, from the start of the file.
    pub end: usize,
}

/// One of several files that are written as one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

/// The checked content of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Tensors by name.
    pub tensors: BTreeMap<String, HeaderEntry>,
    /// Which part of a checkpoint the file says that it is.
    pub part: Option<Part>,
    /// What the file says beside its tensors, by name (`__metadata__` of safetensors).
    pub notes: BTreeMap<String, String>,
}

/// A header that cannot be believed: the tensor it is about, if any, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct BadHeader {
    /// The tensor whose entry is wrong.
    pub tensor: Option<String>,
    /// What is wrong.
    pub problem: String,
}

impl BadHeader {
    pub(crate) fn file(problem: impl Into<String>) -> BadHeader {
        BadHeader { tensor: None, problem: problem.into() }
    }

    pub(crate) fn tensor(name: &str, problem: impl Into<String>) -> BadHeader {
        BadHeader { tensor: Some(name.into()), problem: problem.into() }
    }
}

/// Bytes of a mapped file.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    map: Arc<Mmap>,
    range: Range<usize>,
}

#[cfg(test)]
impl Kept {
    /// A copy of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Kept {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(bytes);
        Kept { map: Arc::new(map.make_read_only().unwrap()), range: 0..bytes.len() }
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// One file of tensors: its header is checked when it is opened, its data is read when used.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Arc<Mmap>,
    header: Header,
}

impl TensorFile {
    /// Maps `path` and reads its header with `parse`, whose entries lie within the bytes it is
    /// given.
    pub fn open(
        path: &Path,
        parse: fn(&[u8]) -> Result<Header, BadHeader>,
    ) -> Result<TensorFile, FormatError> {
        let io = |cause| FormatError::io(path, "open", cause);
        // Asked first: opening a pipe would block, and a folder opens as a file on some systems.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(FormatError::file(path, "is not a regular file", "name a checkpoint file"));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process. Another process that
        // truncates the file while it is mapped can end this one with a signal; like every
        // reader that maps its weights, we ask that checkpoints are replaced, not rewritten.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(io)?);
        let header = parse(&map).map_err(|bad| match bad.tensor {
            Some(tensor) => FormatError::Tensor {
                path: path.into(),
                tensor,
                problem: bad.problem,
                remedy: REMEDY.into(),
            },
            None => FormatError::file(path, bad.problem, REMEDY),
        })?;
        Ok(TensorFile { path: path.into(), map, header })
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

    /// The same bytes, which stay mapped for as long as they are kept.
    pub(crate) fn keep(&self, entry: &HeaderEntry) -> Kept {
        Kept { map: self.map.clone(), range: entry.begin..entry.end }
    }
}
