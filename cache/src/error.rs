//! The crate's error: each message is one line that names the place and the remedy.
//!
//! Causes are part of the message, in front of the remedy, so they are not also handed out through
//! `Error::source`: printing a chain would say them twice.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::CodecError;

/// Why the cache or a trial log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder, or a file in it, cannot be used as it is: the user's machine is at fault.
    #[error("cannot {action} cache folder {}: {cause}; {}", dir.display(), remedy(cause))]
    Folder {
        /// The cache folder.
        dir: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process has the cache open.
    #[error("cache folder {} is in use by {}; wait for it or choose another folder with --cache DIR or QTUNE_CACHE", dir.display(), holder_text(*holder))]
    Locked {
        /// The cache folder.
        dir: PathBuf,
        /// Process id of the holder, from its lock note.
        holder: Option<u32>,
    },
    /// Other users can write where GPU code is kept.
    #[error("cache folder {}: mode {mode:04o} lets other users write GPU code into it; run `chmod go-w` on it", dir.display())]
    Exposed {
        /// The folder in question.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store's files are damaged and could not be replaced.
    #[error("cache folder {}: damaged ({detail}); move it away and run again", dir.display())]
    Damaged {
        /// The cache folder.
        dir: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The disk did not finish a write in time.
    #[error("cache folder {}: a write did not finish within {seconds} s; check the disk or choose another folder with --cache DIR", dir.display())]
    Stuck {
        /// The cache folder.
        dir: PathBuf,
        /// The limit.
        seconds: u64,
    },
    /// A record could not be written: a fault of the caller or of qtune.
    #[error("cache record of {what}: {cause}")]
    Record {
        /// The record, in words.
        what: String,
        /// What the codec said.
        cause: CodecError,
    },
    /// A part of a key is empty, too long or has a control character in it.
    #[error("cache key: {field} {reason}")]
    BadKey {
        /// `problem`, `arch`, `fingerprint` or `schedule`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A winner came without evidence that it is right: a fault of the caller.
    #[error("refusing to store {problem}: {reason}; only verified kernels are stored")]
    Unverified {
        /// Problem key.
        problem: String,
        /// What is missing.
        reason: String,
    },
    /// A kernel's source, PTX or cubin is too large to store.
    #[error("cannot store {bytes} bytes of kernel code, the limit is {limit}")]
    BlobTooLarge {
        /// Size of the blob.
        bytes: usize,
        /// Largest size stored.
        limit: usize,
    },
    /// A trial log cannot be opened, read or written.
    #[error("cannot {action} trial log {}: {cause}; {}", path.display(), log_remedy(action, cause))]
    TrialLogIo {
        /// The log.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A file that was to be continued as a trial log begins with something else.
    #[error("{} is no trial log and stays as it is; name another file for the log", .0.display())]
    NoTrialLog(PathBuf),
    /// Another search appends to a trial log.
    #[error("trial log {} is in use by another search; name another file with --log", .0.display())]
    TrialLogLocked(PathBuf),
    /// A line of a trial log is not an event.
    #[error("{}:{line}: {reason}; remove the line or start a new trial log", path.display())]
    TrialLogLine {
        /// The log.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// An event cannot be written as JSON: a fault of the caller.
    #[error("trial event cannot be logged: {0}")]
    BadEvent(String),
    /// An export cannot be read or written.
    #[error("cache export: {0}; check the file and the free space")]
    ExportIo(io::Error),
    /// A file is not a whole export that this qtune reads; nothing of it was taken.
    #[error("not a sound cache export: {0}; export it again")]
    BadExport(String),
    /// No folder to use was named or found.
    #[error("no cache folder: set QTUNE_CACHE, or HOME")]
    NoFolder,
}

impl CacheError {
    /// A closure for `map_err` that adds the folder and what was tried.
    pub(crate) fn folder(dir: &Path, action: &'static str) -> impl Fn(io::Error) -> Self {
        let dir = dir.to_path_buf();
        move |cause| CacheError::Folder { dir: dir.clone(), action, cause }
    }
}

/// What to do about an I/O error.
fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
            "free some space there, or choose another folder with --cache DIR or QTUNE_CACHE"
        }
        K::AlreadyExists | K::NotADirectory => {
            "it is a file or lies under one: choose a folder with --cache DIR or QTUNE_CACHE"
        }
        _ => "make it readable and writable, or choose another with --cache DIR or QTUNE_CACHE",
    }
}

/// What to do about an I/O error of a trial log: one that is only read may lie anywhere.
fn log_remedy(action: &str, error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match (action, error.kind()) {
        ("read", _) => "check its name, and that you may read it",
        (_, K::StorageFull | K::QuotaExceeded | K::FileTooLarge) => remedy(error),
        _ => "choose another with --log FILE, or another cache folder with --cache DIR",
    }
}

/// The holder of a lock, in words.
fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_string(), |pid| format!("process {pid}"))
}
