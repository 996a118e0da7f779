//! NVRTC, NVIDIA's run-time compiler: found, fetched when missing, loaded and called.
//!
//! Nothing links against CUDA. [`Nvrtc::open`] looks for the library in a fixed order
//! ([`FoundBy`]), fetches a pinned and hash-checked wheel when there is none, and loads it by
//! absolute path. [`Nvrtc::compile`] turns one CUDA source into both PTX (what the simulator runs)
//! and a cubin (what is shipped). It needs neither a driver nor a GPU. Linux only, as are the
//! wheels.
//!
//! ```no_run
//! use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
//! let nvrtc = Nvrtc::open(&OpenOptions::default())?;
//! let compiled = nvrtc.compile("__global__ void k() {}", "k.cu", "sm_90a", &[])?;
//! assert!(compiled.ptx.contains(".entry"));
//! # Ok::<(), qtune_codegen::nvrtc::NvrtcError>(())
//! ```

mod api;
mod compile;
mod error;
mod fetch;
mod find;
mod open;
mod pin;
mod ptxas_log;
#[cfg(test)]
mod tests;

pub use compile::{Compiled, FIXED_OPTIONS};
pub use error::NvrtcError;
pub use find::{data_dir, FoundBy};
pub use open::{Nvrtc, OpenOptions};
pub use ptxas_log::{parse_ptxas_log, PtxasUsage};
