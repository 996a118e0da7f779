//! The crate's one error type.

use qtune_codegen::nvrtc::NvrtcError;
use std::time::Duration;
use thiserror::Error;

/// Why a device could not be opened, or could not do what it was asked.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No GPU of the wanted kind can be used on this machine.
    #[error("no suitable device: {reason}; `--device sim` needs no GPU")]
    NoDevice {
        /// What is missing, and of which device.
        reason: String,
    },
    /// The text is not the name of a device.
    #[error("unknown device `{text}`; known: auto, sim, cuda, cuda:INDEX")]
    UnknownDevice {
        /// The text given.
        text: String,
    },
    /// A kernel did not compile.
    #[error("kernel `{entry}`: {source}")]
    Compile {
        /// The kernel's entry name.
        entry: String,
        /// NVRTC's own account.
        #[source]
        source: NvrtcError,
    },
    /// The compiled image lacks something that every kernel has.
    #[error("kernel `{entry}`: {reason}")]
    Image {
        /// The kernel's entry name.
        entry: String,
        /// What is missing or disagrees.
        reason: String,
    },
    /// An access outside a buffer, or a buffer or kernel of another device.
    #[error("buffer `{buffer}`: {reason}")]
    Buffer {
        /// The buffer's name.
        buffer: String,
        /// The numbers that disagree.
        reason: String,
    },
    /// The arguments or limits of a launch are wrong, or it could not be carried out.
    #[error("launch of `{entry}`: {reason}")]
    Launch {
        /// The kernel's entry name.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The process that did the work crashed, or was killed because it did not answer in time.
    #[error("{what} was lost: {reason}")]
    Lost {
        /// What the process was doing.
        what: String,
        /// How it ended.
        reason: String,
    },
    /// The process that did the work had not answered when its time was up, and was killed.
    #[error("{what} was lost: no answer within {} s, killed", limit.as_secs_f64())]
    TimedOut {
        /// What the process was doing.
        what: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The process that was to do the work could not be started, which is no fault of the work.
    #[error("{what} could not be started: {reason}")]
    NoWorker {
        /// What the process was to do.
        what: String,
        /// Why there is none.
        reason: String,
    },
    /// The CUDA driver reported an error.
    #[error("CUDA driver: {0}")]
    Driver(String),
}
