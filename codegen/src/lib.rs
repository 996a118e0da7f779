//! From a problem and a schedule to CUDA text, and from CUDA text to PTX and cubin.
//!
//! - [`layout`]: how weights are permuted offline for a schedule.
//! - [`generate`]: problem + schedule -> kernel IR -> verifier -> CUDA C++ meant to be read.
//! - [`nvrtc`]: finding, fetching and calling NVRTC.
//!
//! Generation is pure: same problem, schedule and arch give the same text, byte for byte.

mod fingerprint;
#[cfg(test)]
mod fixtures;
pub mod intrinsics;
mod kernel;
pub mod kir;
pub mod layout;
mod lower;
pub mod nvrtc;
mod slab_product;

pub use fingerprint::fingerprint;
pub use kernel::{Argument, BlockTile, Entry, Kernel, Role, Step, TensorMapSpec, LINE_BYTES};
pub use layout::{CodeRow, Layout, ParamOrder};
pub use lower::{generate, load_only, load_only_again, CodegenError, GENERATOR_VERSION};
pub use slab_product::SlabProduct;
