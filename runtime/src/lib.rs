//! Serving quantized layers with the kernels that a search found.
//!
//! - [`Runtime`] joins a device, a compiler and a cache. For each problem it takes the winner from
//!   the cache, or the default schedule where there is none; misses are counted, never hidden, and
//!   nothing is ever tuned here.
//! - [`LinearLayer`] loads one layer of a checkpoint, packs its weights for the kernels that it
//!   needs, and multiplies: `C[M,N] = A[M,K] * W[N,K]^T (+ bias)`.
//! - [`Packer`] decodes and packs the weights of a layer, by blocks that stay in a core's cache.
//! - [`BUCKETS`] and [`bucket`] say which token counts share a kernel.
//! - [`ServedLayer`] shows a layer to the verifier as a device, so that what is verified is what is
//!   served: its packing, its buffers, its launch.

mod error;
mod layer;
mod lookup;
mod packer;
mod packing;
mod runtime;
mod served;
mod workspace;

pub use error::RuntimeError;
pub use layer::{Batch, LinearLayer, LoadOptions};
pub use lookup::{bucket, winner_key, BUCKETS};
pub use packer::{PackedTile, Packer};
pub use runtime::{Choice, Found, Lookups, Origin, Runtime};
pub use served::ServedLayer;
