//! The safetensors container: strict reading, atomic writing.
//!
//! A file is `u64 n`, then `n` bytes of JSON that start with `{`, then the data of all tensors,
//! everything little-endian (see the format description in the safetensors repository). The
//! header is input from strangers: every number in it is checked against the file before it is
//! used, and what is not understood is refused.

mod element;
mod header;
mod write;

pub use element::ElementType;
pub use header::{parse, HEADER_BYTES_MAX};
pub use write::write_f32;
