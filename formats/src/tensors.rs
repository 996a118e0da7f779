//! All tensors of a checkpoint by name, whichever file they lie in.

use crate::error::{shown, FormatError};
use crate::safetensors::{ElementType, SafetensorsFile};
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One stored tensor: what its header says, and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// The file that holds it.
    pub path: &'a Path,
    /// Its full name.
    pub name: &'a str,
    /// Element type.
    pub element: ElementType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major little-endian elements, not necessarily aligned.
    pub bytes: &'a [u8],
}

impl TensorRef<'_> {
    /// An error about this tensor.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> FormatError {
        FormatError::Tensor {
            path: self.path.into(),
            tensor: self.name.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// The tensors of one checkpoint.
#[derive(Debug)]
pub struct TensorTable {
    files: Vec<SafetensorsFile>,
    /// Index into `files` of each tensor, by name.
    file_of: BTreeMap<String, usize>,
}

impl TensorTable {
    /// Joins files; a name that two of them hold is an error.
    pub fn new(files: Vec<SafetensorsFile>) -> Result<TensorTable, FormatError> {
        let mut file_of: BTreeMap<String, usize> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.header().tensors.keys() {
                match file_of.entry(name.clone()) {
                    Entry::Vacant(free) => free.insert(index),
                    Entry::Occupied(taken) => {
                        let other = files[*taken.get()].path().display();
                        return Err(FormatError::Tensor {
                            path: file.path().into(),
                            tensor: name.clone(),
                            problem: format!("is also in {}", shown(&other.to_string())),
                            remedy: "keep the files of one checkpoint only in the folder".into(),
                        });
                    }
                };
            }
        }
        Ok(TensorTable { files, file_of })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<TensorRef<'_>> {
        let (name, index) = self.file_of.get_key_value(name)?;
        let file = &self.files[*index];
        let entry = file.header().tensors.get(name)?;
        Some(TensorRef {
            path: file.path(),
            name,
            element: entry.element,
            shape: &entry.shape,
            bytes: file.bytes(entry),
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    /// The files, in the order in which they were opened.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(SafetensorsFile::path)
    }

    /// The tensors of the module at `path`.
    pub fn module<'a>(&'a self, path: &'a str) -> Module<'a> {
        Module { table: self, path }
    }
}

/// The tensors whose names start with one module path: what a format's reader looks at.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    table: &'a TensorTable,
    /// Path of the module: `model.layers.0.self_attn.q_proj`.
    pub path: &'a str,
}

impl<'a> Module<'a> {
    /// The tensor `<path>.<suffix>`.
    pub fn get(&self, suffix: &str) -> Option<TensorRef<'a>> {
        self.table.get(&format!("{}.{suffix}", self.path))
    }

    /// The tensor `<path>.<suffix>`, or an error that names it and `beside`, a tensor of the same
    /// module that cannot be read without it.
    pub fn require(&self, suffix: &str, beside: &str) -> Result<TensorRef<'a>, FormatError> {
        self.get(suffix).ok_or_else(|| FormatError::Tensor {
            path: self.any_path(),
            tensor: format!("{}.{suffix}", self.path),
            problem: format!("is missing, but `{}` is there", shown(beside)),
            remedy: "the checkpoint is incomplete: download or export it again".into(),
        })
    }

    /// The file that a message about a missing tensor of this module names.
    fn any_path(&self) -> PathBuf {
        let prefix = format!("{}.", self.path);
        let after = self.table.file_of.range(prefix.clone()..).next();
        let sibling = after.filter(|(name, _)| name.starts_with(&prefix)).map(|(_, file)| *file);
        let file = self.table.files.get(sibling.unwrap_or(0));
        file.map_or_else(PathBuf::new, |file| file.path().into())
    }
}
