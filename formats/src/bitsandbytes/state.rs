//! The JSON that describes one layer: `quant_state`.

use super::Kind;
use crate::error::{shown, FormatError};
use crate::linear::Rounding;
use crate::tensors::{TensorRef, EXPORT_AGAIN};
use serde::Deserialize;

/// What a layer's `quant_state` says, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    pub(super) n: usize,
    pub(super) k: usize,
    /// Weights per `absmax`.
    pub(super) block: usize,
    /// How the library rounds a weight: to the type of the weights it quantized.
    pub(super) rounding: Rounding,
    /// Present where the `absmax` values are quantized.
    pub(super) nested: Option<Nested>,
}

/// How `absmax` codes are turned into numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nested {
    /// `absmax` codes per `nested_absmax`.
    pub(super) block: usize,
    /// Added to every value.
    pub(super) offset: f32,
}

/// The fields as they are stored; the library writes others, which do not matter.
#[derive(Deserialize)]
struct Fields {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

/// Longest state that is read: the library's have less than 300 bytes.
const STATE_BYTES_MAX: usize = 1 << 14;

impl State {
    /// Reads the state in `tensor`.
    pub(super) fn read(kind: &Kind, tensor: &TensorRef<'_>) -> Result<State, FormatError> {
        let bad = |problem: String| tensor.error(problem, EXPORT_AGAIN);
        if tensor.bytes.len() > STATE_BYTES_MAX {
            return Err(bad(format!("has {} bytes, too many for a state", tensor.bytes.len())));
        }
        let fields: Fields = serde_json::from_slice(tensor.bytes)
            .map_err(|e| bad(format!("is not the JSON of a state: {}", shown(&e.to_string()))))?;
        if fields.quant_type != kind.family {
            let found = shown(&fields.quant_type);
            return Err(bad(format!("says quant_type `{found}`, not `{}`", kind.family)));
        }
        let &[n, k] = &fields.shape[..] else {
            return Err(bad(format!("has a shape of {} dimensions, not 2", fields.shape.len())));
        };
        for (axis, size) in [("N", n), ("K", k)] {
            if size == 0 || u32::try_from(size).is_err() {
                return Err(bad(format!("gives the layer {axis} = {size}")));
            }
        }
        let rounding = match fields.dtype.as_str() {
            "float16" => Rounding::F32ThenF16,
            "bfloat16" => Rounding::F32ThenBf16,
            "float32" => Rounding::F32,
            other => return Err(bad(format!("has weights of type `{}`", shown(other)))),
        };
        let block = block(fields.blocksize, "blocksize").map_err(bad)?;
        Ok(State { n, k, block, rounding, nested: nested(&fields).map_err(bad)? })
    }
}

fn nested(fields: &Fields) -> Result<Option<Nested>, String> {
    let (size, offset) = match (fields.nested_blocksize, fields.nested_offset) {
        (None, None) => return Ok(None),
        (Some(size), Some(offset)) => (size, offset as f32),
        _ => return Err("has only one of nested_blocksize and nested_offset".into()),
    };
    if !offset.is_finite() {
        return Err(format!("has nested_offset {offset}"));
    }
    if fields.nested_dtype.as_ref().is_some_and(|dtype| dtype != "float32") {
        return Err("has a nested_dtype other than float32".into());
    }
    Ok(Some(Nested { block: block(size, "nested_blocksize")?, offset }))
}

/// Block sizes are powers of two; the library's largest is 4096.
fn block(size: usize, key: &str) -> Result<usize, String> {
    if size.is_power_of_two() && size <= 1 << 16 {
        Ok(size)
    } else {
        Err(format!("has {key} {size}, which is no power of two up to 65536"))
    }
}
