//! Whether a checkpoint asks for activations that are quantized to 8 bits with a scale per token, and what
//! is served instead where a GPU cannot or the caller will not.

use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::name::{FormatName, Modifier};
use crate::registry::resolve;
use qtune_ir::{Activations, Arch, WeightSpec};
use serde_json::Value;
use std::str::FromStr;

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

/// In how many bits activations are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActBits {
    /// 16: as they are, with dequantized weights.
    Sixteen,
    /// 8: as codes, with the weights' codes. Those with a scale per token, unless the layer has codes already.
    Eight,
}

impl FromStr for ActBits {
    type Err = String;

    fn from_str(text: &str) -> Result<ActBits, String> {
        match text {
            "16" => Ok(ActBits::Sixteen),
            "8" => Ok(ActBits::Eight),
            _ => Err("activations are multiplied in 8 bits or in 16".into()),
        }
    }
}

/// The format whose weights are those of `spec`, with activations that are multiplied in `bits`, whatever
/// the checkpoint asks for.
///
/// # Errors
/// [`FormatError::UnknownFormat`] if the codes of the weights cannot be multiplied as they are.
pub fn in_act_bits(spec: WeightSpec, bits: ActBits) -> Result<WeightSpec, FormatError> {
    let wanted = bits == ActBits::Eight;
    if spec.activations.are_quantized() == wanted {
        return Ok(spec);
    }
    let mut name: FormatName = spec.name.parse()?;
    match wanted {
        true => name.modifiers.push(Modifier::EightBitActivations),
        false => name.modifiers.retain(|modifier| *modifier != Modifier::EightBitActivations),
    }
    name.modifiers.sort();
    resolve(&name.to_string())
}

/// The format as a GPU serves it: one that does not multiply 8-bit floats keeps 16-bit activations.
pub fn served_on(spec: WeightSpec, arch: &Arch) -> WeightSpec {
    if spec.activations != Activations::E4m3 || arch.multiplies_float8() {
        return spec;
    }
    // Without the modifier a name of the registry is one, too.
    in_act_bits(spec.clone(), ActBits::Sixteen).unwrap_or(spec)
}

impl QuantizedLinear {
    /// The layer as a GPU serves it: see [`served_on`].
    pub fn suited_to(self, arch: &Arch) -> QuantizedLinear {
        QuantizedLinear { spec: served_on(self.spec.clone(), arch), ..self }
    }

    /// The same weights with activations that are multiplied in `bits`: see [`in_act_bits`].
    ///
    /// # Errors
    /// As [`in_act_bits`].
    pub fn in_act_bits(self, bits: ActBits) -> Result<QuantizedLinear, FormatError> {
        Ok(QuantizedLinear { spec: in_act_bits(self.spec.clone(), bits)?, ..self })
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

    #[test]
    fn whoever_serves_a_layer_chooses_the_width_of_its_activations() {
        let in_bits = |name: &str, bits: &str| {
            let spec = in_act_bits(resolve(name).unwrap(), bits.parse().unwrap());
            spec.map(|spec| spec.name).map_err(|error| error.to_string())
        };
        for row in [&crate::compressed_tensors::INT8, &crate::float8::ROW] {
            let with = row.examples.last().unwrap();
            let without = with.strip_suffix("-a8").unwrap();
            for name in [*with, without] {
                assert_eq!(in_bits(name, "16").as_deref(), Ok(without));
                assert_eq!(in_bits(name, "8").as_deref(), Ok(*with));
            }
        }
        let groups = crate::compressed_tensors::INT8.examples[1];
        assert!(in_bits(groups, "8").unwrap_err().contains("one scale for each channel"));
        assert!("4".parse::<ActBits>().is_err());
    }
}
