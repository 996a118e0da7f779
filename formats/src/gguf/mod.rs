//! The GGUF container: reading it strictly.
//!
//! A file is `GGUF`, a version, metadata as key-value pairs, the tensors' names, dimensions, types
//! and offsets, and from the next multiple of the alignment on the tensors' data; everything
//! little-endian (see the format description in the ggml repository). Versions 2 and 3 are laid
//! out alike. The first dimension is the contiguous one, so a weight `[N, K]` says `[K, N]`.
//!
//! What ggml's own reader refuses is refused here. Metadata is walked, not kept: nothing is
//! allocated but the tensors' names and the keys, each of which lies in the file.

mod cursor;
mod header;
mod metadata;
mod split;
mod types;

pub use header::parse;
pub(crate) use split::{only, open};
pub use types::BlockType;
