//! All tensors of a checkpoint by name, whichever file they lie in.

use crate::container::{HeaderEntry, Kept, Stored, TensorFile};
use crate::error::{shown, FormatError};
use crate::safetensors::ElementType;
use half::{bf16, f16};
use rayon::prelude::*;
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
    /// How its elements are stored.
    pub stored: Stored,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major little-endian elements or blocks, not necessarily aligned.
    pub bytes: &'a [u8],
    file: &'a TensorFile,
    entry: &'a HeaderEntry,
}

/// The little-endian 32-bit word `index` of bytes.
pub(crate) fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = &bytes[4 * index..4 * index + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The first value that is not good. Slices are judged as a whole, which compilers turn into vector
/// instructions, and looked through only where one is bad.
pub(crate) fn first_but<T: Sync>(values: &[T], good: impl Fn(&T) -> bool + Sync) -> Option<usize> {
    const SLICE: usize = 4096;
    let all_good = |slice: &[T]| slice.iter().fold(true, |all, value| all & good(value));
    let first = SLICE * values.par_chunks(SLICE).position_first(|slice| !all_good(slice))?;
    values[first..].iter().position(|value| !good(value)).map(|at| first + at)
}

/// Rows that one task gathers where the tensor has them as columns: several cache lines of each row.
const TASK_ROWS: usize = 64;

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

    /// Checks type and shape.
    pub(crate) fn expect(
        &self,
        element: ElementType,
        shape: &[usize],
        because: &str,
    ) -> Result<(), FormatError> {
        if self.stored == element && self.shape == shape {
            return Ok(());
        }
        let (has, has_shape) = (self.stored, self.shape);
        let problem =
            format!("is {has} {has_shape:?} where {element} {shape:?} is needed ({because})");
        Err(self.error(problem, EXPORT_AGAIN))
    }

    /// Checks that it is a matrix of `element`; its rows and columns.
    pub(crate) fn matrix(&self, element: ElementType) -> Result<[usize; 2], FormatError> {
        match self.shape {
            [rows, cols] if self.stored == element => Ok([*rows, *cols]),
            shape => {
                let problem = format!("is {} {shape:?}, not a matrix of {element}", self.stored);
                Err(self.error(problem, EXPORT_AGAIN))
            }
        }
    }

    /// The little-endian 32-bit word `index` of a packed tensor.
    pub(crate) fn word(&self, index: usize) -> u32 {
        word(self.bytes, index)
    }

    /// Its bytes for those who read them later, when the checkpoint may be closed.
    pub(crate) fn keep(&self) -> Kept {
        self.file.keep(self.entry)
    }

    /// Values `[N, groups]` of an f16 tensor, gathered by their element index; all must be finite.
    pub(crate) fn matrix_f16(
        &self,
        n: usize,
        groups: usize,
        index: impl Fn(usize, usize) -> usize + Sync,
    ) -> Result<Vec<f16>, FormatError> {
        let mut values = vec![f16::ZERO; n * groups];
        values.par_chunks_mut(TASK_ROWS * groups).enumerate().for_each(|(task, rows)| {
            // Groups outermost: where they are rows of the tensor, neighbours are read together.
            for g in 0..groups {
                for (row, value) in rows[g..].iter_mut().step_by(groups).enumerate() {
                    let at = 2 * index(task * TASK_ROWS + row, g);
                    *value = f16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
                }
            }
        });
        self.check_values(&values, groups, |value| value.is_finite())?;
        Ok(values)
    }

    /// Checks that it can hold the codes of a layer of this size.
    pub(crate) fn check_size(&self, n: usize, k: usize) -> Result<(), FormatError> {
        if n == 0 || k == 0 || u32::try_from(n).is_err() || u32::try_from(k).is_err() {
            return Err(self.error(format!("is of a layer of {n} x {k} weights"), EXPORT_AGAIN));
        }
        Ok(())
    }

    /// N and K, which it holds as two integers.
    pub(crate) fn sizes(&self) -> Result<[usize; 2], FormatError> {
        let size = |at| usize::try_from(self.integer_at(at)?).ok();
        match (self.shape, size(0), size(1)) {
            ([2], Some(n), Some(k)) => Ok([n, k]),
            (shape, ..) => {
                let problem = format!("is {} {shape:?}, not N and K", self.stored);
                Err(self.error(problem, EXPORT_AGAIN))
            }
        }
    }

    /// The only integer that it holds.
    pub(crate) fn integer(&self) -> Result<i64, FormatError> {
        let one = matches!(self.shape, [] | [1]);
        self.integer_at(0).filter(|_| one).ok_or_else(|| {
            let problem = format!("is {} {:?}, not one integer", self.stored, self.shape);
            self.error(problem, EXPORT_AGAIN)
        })
    }

    fn integer_at(&self, at: usize) -> Option<i64> {
        if self.stored == ElementType::I32 {
            let bytes = self.bytes.get(4 * at..4 * at + 4)?;
            return Some(i32::from_le_bytes(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        let bytes = self.bytes.get(8 * at..8 * at + 8)?;
        let wide = i64::from_le_bytes(<[u8; 8]>::try_from(bytes).ok()?);
        Some(wide).filter(|_| self.stored == ElementType::I64)
    }

    /// Whether its elements are floats of 16 or 32 bits.
    pub(crate) fn is_float(&self) -> bool {
        self.stored.float().is_some()
    }

    /// All elements of a tensor of floats of 16 or 32 bits, or of powers of two, which are NaN for the
    /// exponent 255 (OCP Microscaling Formats 1.0, section 5.4.1).
    pub(crate) fn floats(&self) -> Vec<f32> {
        let halves = self.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match self.stored {
            Stored::Elements(ElementType::F16) => {
                halves.map(|bits| f16::from_bits(bits).to_f32()).collect()
            }
            Stored::Elements(ElementType::Bf16) => {
                halves.map(|bits| bf16::from_bits(bits).to_f32()).collect()
            }
            Stored::Elements(ElementType::F32) => {
                (0..self.bytes.len() / 4).map(|at| f32::from_bits(self.word(at))).collect()
            }
            _ => self.bytes.iter().map(|exponent| power_of_two(*exponent, 127)).collect(),
        }
    }

    /// Checks that it is a bias of N floats, `[N]` or those of stacked matrices, of a type that [`TensorRef::bias`] reads.
    pub(crate) fn check_bias(&self, n: usize) -> Result<(), FormatError> {
        let elements = self.shape.iter().fold(1, |count: usize, size| count.saturating_mul(*size));
        if self.is_float() && elements == n {
            return Ok(());
        }
        let (has, shape) = (self.stored, self.shape);
        let problem =
            format!("is {has} {shape:?} where a float per output feature [{n}] is needed");
        Err(self.error(problem, EXPORT_AGAIN))
    }

    /// The values of a bias, all of which must be finite.
    pub(crate) fn bias(&self, n: usize) -> Result<Vec<f32>, FormatError> {
        self.check_bias(n)?;
        let values = self.floats();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(n) => {
                let problem = format!("holds {} for output feature {n}", values[n]);
                Err(self.error(problem, VALUE_REMEDY))
            }
        }
    }

    /// Checks the values `[N, groups]` that were gathered from this tensor; an error names the
    /// place of the first bad one.
    pub(crate) fn check_values(
        &self,
        values: &[f16],
        groups: usize,
        good: impl Fn(&f16) -> bool + Sync + Send,
    ) -> Result<(), FormatError> {
        match first_but(values, good) {
            None => Ok(()),
            Some(index) => {
                let (n, group, value) = (index / groups, index % groups, values[index]);
                let problem = format!("holds {value} for output feature {n}, quant group {group}");
                Err(self.error(problem, VALUE_REMEDY))
            }
        }
    }
}

/// `2^(exponent - bias)` for a bias of up to 128: a subnormal for the least exponents, NaN for 255.
pub(crate) fn power_of_two(exponent: u8, bias: i32) -> f32 {
    match exponent {
        255 => f32::NAN,
        _ => 2f64.powi(i32::from(exponent) - bias) as f32,
    }
}

/// The remedy for tensors that contradict each other.
pub(crate) const EXPORT_AGAIN: &str = "the checkpoint is damaged: download or export it again";
pub(crate) const VALUE_REMEDY: &str = "quantize the layer again, or download the checkpoint again";

/// The tensors of one checkpoint.
#[derive(Debug)]
pub struct TensorTable {
    files: Vec<TensorFile>,
    /// Index into `files` of each tensor, by name.
    file_of: BTreeMap<String, usize>,
}

impl TensorTable {
    /// Joins files; a name that two of them hold is an error.
    pub fn new(files: Vec<TensorFile>) -> Result<TensorTable, FormatError> {
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
            stored: entry.stored,
            shape: &entry.shape,
            bytes: file.bytes(entry),
            file,
            entry,
        })
    }

    /// What a file says under `name`.
    fn note(&self, name: &str) -> Option<&str> {
        self.files.iter().find_map(|file| file.header().notes.get(name)).map(String::as_str)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    /// The files, in the order in which they were opened.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(TensorFile::path)
    }

    /// The tensors of the module at `path`.
    pub fn module<'a>(&'a self, path: &'a str) -> Module<'a> {
        Module { table: self, path }
    }
}

/// Whether a tensor's suffix follows the path of its module without a point between them.
pub(crate) fn continues_path(suffix: &str) -> bool {
    suffix.starts_with(['_', '.'])
}

/// The tensors whose names start with one module path: what a format's reader looks at.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    table: &'a TensorTable,
    /// Path of the module: `model.layers.0.self_attn.q_proj`.
    pub path: &'a str,
}

impl<'a> Module<'a> {
    /// The tensor `<path>.<suffix>`, or `<path><suffix>` for a suffix that starts with `_` or
    /// a point itself.
    pub fn get(&self, suffix: &str) -> Option<TensorRef<'a>> {
        self.table.get(&self.name(suffix))
    }

    /// What a file of the checkpoint says under the name of such a tensor.
    pub fn note(&self, suffix: &str) -> Option<&'a str> {
        self.table.note(&self.name(suffix))
    }

    fn name(&self, suffix: &str) -> String {
        let point = if continues_path(suffix) { "" } else { "." };
        format!("{}{point}{suffix}", self.path)
    }

    /// The tensor `<path>.<suffix>`, or an error that names it and `beside`, a tensor of the same
    /// module that cannot be read without it.
    pub fn require(&self, suffix: &str, beside: &str) -> Result<TensorRef<'a>, FormatError> {
        self.get(suffix).ok_or_else(|| FormatError::Tensor {
            path: self.any_path(),
            tensor: self.name(suffix),
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
