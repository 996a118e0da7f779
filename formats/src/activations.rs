//! Whether a checkpoint asks for activations that are quantized to 8 bits with a scale per token.

use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::name::{FormatName, Modifier};
use crate::registry::resolve;
use qtune_ir::{Activations, Arch, WeightSpec};
use serde_json::Value;

/// Whether every layer of the configuration has weights of 8 bits of this `kind` (`int` or `float`) and
/// dynamic activations of the same, with a scale per token.
///
/// compressed-tensors says so for each group of layers. Checkpoints of plain `fp8` have a scheme for
/// all of them; those of FBGEMM are always so. A static scale is none of a token: such layers are
/// served with 16-bit activations.
pub(crate) fn per_token(config: Option<&QuantConfig>, kind: &str) -> Result<bool, FormatError> {
    let Some(config) = config else { return Ok(false) };
    match config.method()?.as_deref() {
        Some("compressed-tensors") => {
            let mut groups = config.children("config_groups").peekable();
            Ok(groups.peek().is_some() && groups.all(|group| group_is_per_token(group, kind)))
        }
        Some("fp8") => {
            let scheme = config.text(&["activation_scheme"])?;
            Ok(kind == "float" && scheme.as_deref() == Some("dynamic"))
        }
        Some("fbgemm_fp8") => Ok(kind == "float"),
        _ => Ok(false),
    }
}

fn group_is_per_token(group: &Value, kind: &str) -> bool {
    let eight_bits = |part: &str| {
        let part = group.get(part)?;
        let width = part.get("num_bits").and_then(Value::as_i64);
        let is_kind = part.get("type").and_then(Value::as_str) == Some(kind);
        let symmetric = part.get("symmetric").and_then(Value::as_bool) != Some(false);
        (width == Some(8) && is_kind && symmetric).then_some(part)
    };
    let Some(input) = eight_bits("input_activations") else { return false };
    let per_token = input.get("strategy").and_then(Value::as_str) == Some("token");
    let dynamic = input.get("dynamic").and_then(Value::as_bool) == Some(true);
    eight_bits("weights").is_some() && per_token && dynamic
}

/// The format as a GPU serves it: one that does not multiply 8-bit floats keeps 16-bit activations.
pub fn served_on(spec: WeightSpec, arch: &Arch) -> WeightSpec {
    if spec.activations != Activations::E4m3 || arch.multiplies_float8() {
        return spec;
    }
    let plain = spec.name.parse::<FormatName>().and_then(|mut name| {
        name.modifiers.retain(|modifier| *modifier != Modifier::EightBitActivations);
        resolve(&name.to_string())
    });
    // Without the modifier a name of the registry is one, too.
    plain.unwrap_or(spec)
}

impl QuantizedLinear {
    /// The layer as a GPU serves it: see [`served_on`].
    pub fn suited_to(self, arch: &Arch) -> QuantizedLinear {
        QuantizedLinear { spec: served_on(self.spec.clone(), arch), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn asks(json: &str, kind: &str) -> bool {
        let config = QuantConfig::parse(Path::new("quantize_config.json"), json.as_bytes());
        per_token(config.unwrap().as_ref(), kind).unwrap()
    }

    const EIGHT: &str = r#"{"num_bits":8,"type":"int","strategy":"channel"}"#;

    fn group(input: &str) -> String {
        format!(
            r#"{{"quant_method":"compressed-tensors","config_groups":{{"a":{{"weights":{EIGHT},
            "input_activations":{input}}}}}}}"#
        )
    }

    #[test]
    fn dynamic_scales_of_tokens_are_asked_for_by_configuration() {
        let token = r#"{"num_bits":8,"type":"int","strategy":"token","dynamic":true}"#;
        assert!(asks(&group(token), "int") && !asks(&group(token), "float"));
        for other in [
            "null",
            &token.replace("true", "false"),
            &token.replace("token", "tensor"),
            &token.replace(":8", ":4"),
        ] {
            assert!(!asks(&group(other), "int"), "{other}");
        }
        assert!(asks(r#"{"quant_method":"fp8","activation_scheme":"dynamic"}"#, "float"));
        assert!(!asks(r#"{"quant_method":"fp8","activation_scheme":"static"}"#, "float"));
        assert!(!asks(r#"{"quant_method":"fp8","activation_scheme":"dynamic"}"#, "int"));
        assert!(asks(r#"{"quant_method":"fbgemm_fp8"}"#, "float"));
        assert!(!per_token(None, "int").unwrap());
    }

    #[test]
    fn a_gpu_without_multiplies_of_small_floats_keeps_wide_activations() {
        let on = |name: &str, gpu: &str| {
            served_on(resolve(name).unwrap(), &Arch::named(gpu).unwrap()).name
        };
        let float8 = crate::float8::ROW.examples[2];
        assert_eq!(on(float8, "h200"), float8);
        assert_eq!(Some(on(float8, "a100").as_str()), float8.strip_suffix("-a8"));
        let integers = crate::compressed_tensors::INT8.examples[3];
        assert_eq!(on(integers, "a100"), integers);
    }
}
