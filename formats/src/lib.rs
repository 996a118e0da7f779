//! What the bytes of a checkpoint mean.
//!
//! - [`FORMATS`] is the registry: one [`FormatRow`] per format, with its dequantization expression,
//!   packing and reader. [`resolve`] turns a name such as `awq-g128` into a [`WeightSpec`].
//! - [`FormatName`] is the grammar of those names.
//! - [`Checkpoint`] opens a folder or file, finds the quantized layers, checks them, and decodes
//!   one into a [`QuantizedLinear`]: logical codes and group parameters, free of any packing. Codes
//!   are read from the file when they are asked for, by the block of rows.
//! - [`safetensors`] and [`gguf`] read the containers strictly; the former writes matrices atomically.
//! - [`presets`] holds the weight shapes of published models.
//!
//! Checkpoints are input from strangers: any bytes give a result or a [`FormatError`], and nothing
//! is allocated that the size of a file does not justify.
//!
//! ```
//! let spec = qtune_formats::resolve("awq-g128")?;
//! assert_eq!(spec.expr, "(* (- q z) s)");
//! # Ok::<(), qtune_formats::FormatError>(())
//! ```

mod activations;
mod aqlm;
mod awq;
mod bitsandbytes;
mod blocks;
mod checkpoint;
mod codes;
mod compressed_tensors;
mod config;
mod container;
mod error;
mod float8;
pub mod gguf;
mod gptq;
mod hqq;
mod interleave;
mod linear;
mod microscaling;
mod name;
mod nibbles;
mod numbers;
mod order;
mod plain;
pub mod presets;
mod quip;
mod qweight;
mod registry;
mod rotation;
pub mod safetensors;
mod small_scales;
mod source;
mod stream;
mod suggest;
mod tensors;
mod torchao;
mod vectors;

pub use activations::{in_act_bits, served_on, ActBits};
pub use checkpoint::{Checkpoint, Layer, PlainTensor, StoredTensor, WeightShape};
pub use codes::{CodeBlock, Codes};
pub use config::QuantConfig;
pub use container::{BadHeader, Header, HeaderEntry, Part, Stored, TensorFile};
pub use error::FormatError;
pub use linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
pub use name::{FormatName, Grouping, Modifier};
pub use order::places;
pub use plain::PlainWeight;
pub use qtune_ir::{Group, Param, ParamType, WeightSpec};
pub use registry::{resolve, FormatRow, GroupNames, LayerHeader, Variant, FORMATS};
pub use rotation::{transform, Rotation};
pub use small_scales::{LayerNumber, SmallScales};
pub use tensors::{Module, TensorRef, TensorTable};
pub use vectors::Vectors;
