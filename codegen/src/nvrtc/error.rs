//! What can go wrong between "no compiler" and a cubin.

use std::path::PathBuf;

/// Why NVRTC could not be found, fetched, loaded or why a source did not compile.
#[derive(Debug, thiserror::Error)]
pub enum NvrtcError {
    /// No usable library on this machine, and fetching was forbidden.
    #[error(
        "NVRTC was not found and fetching it is forbidden (looked at: {looked_at}); allow the \
         fetch (drop --no-fetch), or run `python3 -m pip install {requirement}`, or point \
         QTUNE_NVRTC at libnvrtc.so"
    )]
    NotFound {
        /// Every place that was tried, with the reason it was passed over.
        looked_at: String,
        /// The pip requirement that would satisfy the search.
        requirement: String,
    },
    /// `QTUNE_NVRTC` names something that is not an NVRTC library. The user's setting is never
    /// silently replaced by another library.
    #[error("QTUNE_NVRTC={} is not usable: {reason}; correct it or unset it", path.display())]
    Setting {
        /// The value of the variable.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The dynamic loader refused the library, or a function is missing from it.
    #[error("cannot load {}: {reason}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// `libnvrtc-builtins` of the same version does not lie beside the library: it would load, but
    /// every compile would fail with `NVRTC_ERROR_BUILTIN_OPERATION_FAILURE`.
    #[error(
        "{} has no libnvrtc-builtins of its version beside it; reinstall the package it came \
         from, both files belong in one folder",
        path.display()
    )]
    BuiltinsMissing {
        /// The library.
        path: PathBuf,
    },
    /// The pinned wheel could not be downloaded or unpacked.
    #[error(
        "cannot fetch {requirement}: {reason}; run `python3 -m pip install {requirement}` where \
         there is a network, or point QTUNE_NVRTC at libnvrtc.so"
    )]
    Fetch {
        /// The pip requirement.
        requirement: String,
        /// What failed.
        reason: String,
    },
    /// A downloaded wheel is not the pinned one. Nothing of it was used.
    #[error("{file} has sha256 {actual}, but {expected} is pinned; nothing of it was used")]
    Digest {
        /// The wheel's file name.
        file: String,
        /// The pinned digest.
        expected: String,
        /// The digest of what arrived.
        actual: String,
    },
    /// A file of the data folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The source did not compile; the log is the compiler's.
    #[error("{name} does not compile for {arch}:\n{log}")]
    Compile {
        /// The source's name, as given to [`Nvrtc::compile`](super::Nvrtc::compile).
        name: String,
        /// The target, for example `sm_90a`.
        arch: String,
        /// The compiler's log, with the source name and line of each error.
        log: String,
    },
    /// An NVRTC function other than the compile itself failed.
    #[error("{function} failed on {name}: {message}")]
    Call {
        /// The C function.
        function: &'static str,
        /// The source's name, or the library's path when there is no source yet.
        name: String,
        /// NVRTC's text for the result code.
        message: String,
    },
    /// A source, name or option holds a NUL byte, which C strings cannot carry.
    #[error("{what} holds a NUL byte at offset {offset}")]
    Nul {
        /// Which string.
        what: String,
        /// Where in it, in bytes.
        offset: usize,
    },
}
