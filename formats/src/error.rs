//! The crate's error: every message is one line that names the place and the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong between a path on the command line and decoded weights.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system refused: a missing file, a permission, a full disk.
    #[error("{}: cannot {action}: {cause}{}", shown_path(.path), io_remedy(.cause))]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What was attempted, as a verb: `open`, `write`.
        action: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// A file that is damaged, lies about its content, or is of a kind that is not read.
    #[error("{}: {problem}; {remedy}", shown_path(.path))]
    File {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// A tensor that is missing, has the wrong type or shape, or holds impossible values.
    #[error("{}: tensor `{}`: {problem}; {remedy}", shown_path(.path), shown(.tensor))]
    Tensor {
        /// The file that holds the tensor, or should.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// What is wrong.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// A layer that was asked for by name and is not a quantized layer of the checkpoint.
    #[error("{}: tensor `{}`: {problem}; {remedy}", shown_path(.path), shown(.layer))]
    NoSuchLayer {
        /// The checkpoint's path.
        path: PathBuf,
        /// The module path that was asked for.
        layer: String,
        /// Why it is not there.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// Two layers that cannot be the gate and up rows of one.
    #[error("gate and up projections differ in their {what}: {gate} and {up}; load them apart")]
    Unpaired {
        /// What differs.
        what: String,
        /// The gate's.
        gate: String,
        /// The up projection's.
        up: String,
    },
    /// A format name that is not in the registry or does not follow the grammar.
    #[error("unknown format `{}`: {problem}; known formats: {known}", shown(.name))]
    UnknownFormat {
        /// The name as given.
        name: String,
        /// Which part is wrong, with the nearest known name where there is one.
        problem: String,
        /// The names that exist.
        known: String,
    },
    /// A model preset that does not exist.
    #[error("unknown preset `{}`{suggestion}; known presets: {known}", shown(.name))]
    UnknownPreset {
        /// The name as given.
        name: String,
        /// `, did you mean ...?`, or nothing.
        suggestion: String,
        /// The names that exist.
        known: String,
    },
    /// A model that does not divide among this many GPUs.
    #[error("{model} has {size} {what}, which {ranks} GPUs cannot share evenly")]
    UnevenShards {
        /// Preset.
        model: &'static str,
        /// What does not divide.
        what: &'static str,
        /// How many there are.
        size: u32,
        /// GPUs.
        ranks: u32,
    },
}

impl FormatError {
    pub(crate) fn io(path: &Path, action: &'static str, cause: io::Error) -> FormatError {
        FormatError::Io { path: path.into(), action, cause }
    }

    pub(crate) fn file(
        path: &Path,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> FormatError {
        FormatError::File { path: path.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

/// Longest name that a message repeats: names come from files, and a file may hold megabytes.
const SHOWN_MAX: usize = 160;

/// `text` as it may stand inside a one-line message: control characters escaped, length capped.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= SHOWN_MAX {
            out.push_str("...");
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as it may stand inside a one-line message. Longer than [`shown`]: a path cut short
/// cannot be looked at.
fn shown_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The remedy for the failures that have an obvious one.
fn io_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; check the permissions of the file and its folder",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another folder"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; choose a folder that can be written",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_cannot_break_the_line_or_flood_the_terminal() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert!(shown(&"x".repeat(10_000)).len() < 200);
    }

    #[test]
    fn a_full_disk_comes_with_its_remedy() {
        let cause = io::Error::from(io::ErrorKind::StorageFull);
        let message = FormatError::io(Path::new("w.safetensors"), "write", cause).to_string();
        assert!(message.starts_with("w.safetensors: cannot write"), "{message}");
        assert!(message.ends_with("free some space or choose another folder"), "{message}");
    }
}
