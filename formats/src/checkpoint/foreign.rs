//! Recognising tensors of quantized layers that no format of the registry claims, so that they
//! are refused by name instead of being taken for plain tensors.

use crate::container::Stored;
use crate::error::FormatError;
use crate::tensors::TensorRef;

/// Tensor suffixes that only quantized layers have, and whose they are.
const SUFFIXES: [(&str, &str); 8] = [
    ("B", "Marlin-packed GPTQ"),
    ("weight_packed", "compressed-tensors"),
    ("weight_scale", "compressed-tensors or FP8"),
    ("weight_scale_inv", "block FP8"),
    ("weight_scale_2", "ModelOpt NVFP4"),
    ("gate_up_proj_blocks", "gpt-oss MXFP4"),
    ("weight:qdata", "TorchAO"),
    ("_weight_qdata", "TorchAO"),
];

/// An error if `tensor`, which no format of the registry claims, belongs to a quantized layer.
pub(super) fn refuse(tensor: &TensorRef<'_>) -> Result<(), FormatError> {
    let unread = |problem: String| {
        let known = crate::registry::known_names();
        Err(tensor.error(problem, format!("use a checkpoint in one of: {known}")))
    };
    if let Stored::Blocks(blocks) = tensor.stored {
        return unread(format!("is {}, which this version does not read", blocks.name));
    }
    let ends =
        |suffix: &str| tensor.name.strip_suffix(suffix).is_some_and(|module| module.ends_with('.'));
    match SUFFIXES.iter().find(|(suffix, _)| ends(suffix)) {
        None => Ok(()),
        Some((_, library)) => {
            let part = "that is not whole, or of a kind that this version does not read";
            unread(format!("belongs to a {library} layer {part}"))
        }
    }
}
