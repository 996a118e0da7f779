//! Work that may crash or hang, in processes of its own.
//!
//! NVRTC is native code, and a kernel that loops for ever or writes where it must not takes the
//! process that launched it down, or leaves a context in which nothing works any more. So compiles
//! run in a pool of worker processes ([`CompilePool`]) and a GPU is driven by one worker process
//! ([`IsolatedDevice`]). Each request has a time limit. A worker that does not answer in time is
//! killed, one that dies is replaced, and the request fails with [`DeviceError::Lost`] or
//! [`DeviceError::TimedOut`]: the search poisons the schedule and goes on. A worker that cannot even be
//! started ([`DeviceError::NoWorker`]) says nothing of a schedule.
//!
//! A worker is the qtune binary itself with a hidden subcommand, which calls [`serve`]. Requests
//! and replies go through its stdin and stdout (`wire`), so a worker whose parent is gone sees the
//! end of its input and exits, whatever its GPU is doing.

mod child;
mod compile_pool;
mod device;
mod message;
mod serve;
mod wire;

pub use compile_pool::CompilePool;
pub use device::IsolatedDevice;
pub use serve::{serve, CompileText};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(doc)]
use qtune_device::DeviceError;

/// How workers are started, and how long they may take.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; it must end up in [`serve`].
    pub arguments: Vec<OsString>,
    /// Variables added to its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Longest time for one request. Compiles take about a second and launches far less; a
    /// kernel that was copied or timed at full size takes a few.
    pub limit: Duration,
}
