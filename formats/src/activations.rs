//! Whether a checkpoint asks for activations that are quantized to 8 bits, with a scale per token or one that
//! it brings, and what is served instead where a GPU cannot or the caller will not.

use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::name::{FormatName, Modifier};
use crate::registry::resolve;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use qtune_ir::{ActivationScales, Arch, Group, WeightSpec, ACTIVATION_GROUP, STATIC_SCALES};
use serde_json::Value;
use std::str::FromStr;

/// The modifiers of a layer of 8-bit codes of this `kind` (`int` or `float`) and quant group.
///
/// A layer whose configuration asks for a scale that it brings and that has none, or has a zero-point beside
/// it, is served with 16-bit activations: sums would need a correction by the sums of weights.
pub(crate) fn modifiers(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
    (kind, group): (&str, Group),
) -> Result<Vec<Modifier>, FormatError> {
    let asked = asked(config, kind)?;
    Ok(match (asked, group) {
        (Some(ActivationScales::Token), Group::Channel) => vec![Modifier::EightBitActivations],
        (Some(ActivationScales::Group), Group::Size(ACTIVATION_GROUP)) if kind == "float" => {
            vec![Modifier::EightBitActivations]
        }
        (Some(ActivationScales::Layer), Group::Channel) if usable_scale(module)?.is_some() => {
            vec![Modifier::EightBitActivations, Modifier::StaticActivations]
        }
        _ => Vec::new(),
    })
}

/// The scale of a layer's activations, of one element, where there is nothing beside it.
fn usable_scale<'a>(module: &Module<'a>) -> Result<Option<TensorRef<'a>>, FormatError> {
    let zero = module.get("input_zero_point");
    if zero.is_some_and(|zero| zero.bytes.iter().any(|byte| *byte != 0)) {
        return Ok(None);
    }
    match module.get("input_scale") {
        Some(scale) if !scale.is_float() || scale.shape.iter().any(|size| *size != 1) => {
            let problem = format!("is {} {:?}, not one float", scale.stored, scale.shape);
            Err(scale.error(problem, EXPORT_AGAIN))
        }
        scale => Ok(scale),
    }
}

/// The scale of a layer's activations, where its name says that it brings one.
pub(crate) fn input_scale(
    module: &Module<'_>,
    name: &FormatName,
) -> Result<Option<f32>, FormatError> {
    if !name.modifiers.contains(&Modifier::StaticActivations) {
        return Ok(None);
    }
    let Some(scale) = usable_scale(module)? else { return Ok(None) };
    match scale.floats().first() {
        Some(value) if !STATIC_SCALES.contains(value) => {
            let problem = format!("holds {value}, which is no scale of activations");
            Err(scale.error(problem, VALUE_REMEDY))
        }
        value => Ok(value.copied()),
    }
}

/// How every layer of the configuration that has weights of 8 bits of this `kind` wants activations of the
/// same, if all do alike.
///
/// compressed-tensors says so for each group of layers. Checkpoints of plain `fp8` have a scheme for
/// all of them, which follows the blocks of weights where there are blocks (DeepSeek); those of FBGEMM have a scale
/// per token always.
fn asked(
    config: Option<&QuantConfig>,
    kind: &str,
) -> Result<Option<ActivationScales>, FormatError> {
    let Some(config) = config else { return Ok(None) };
    let float = kind == "float";
    match config.method()?.as_deref() {
        Some("compressed-tensors") => {
            let mut groups = config.children("config_groups").map(|group| of_group(group, kind));
            let first = groups.next().flatten();
            Ok(first.filter(|_| groups.all(|other| other == first)))
        }
        Some("fp8") => Ok(match config.text(&["activation_scheme"])?.as_deref() {
            Some("dynamic") if float && config.value("weight_block_size").is_some() => {
                Some(ActivationScales::Group)
            }
            Some("dynamic") if float => Some(ActivationScales::Token),
            Some("static") if float => Some(ActivationScales::Layer),
            _ => None,
        }),
        Some("fbgemm_fp8") => Ok(float.then_some(ActivationScales::Token)),
        _ => Ok(None),
    }
}

fn of_group(group: &Value, kind: &str) -> Option<ActivationScales> {
    let eight_bits = |part: &str| {
        let part = group.get(part)?;
        let width = part.get("num_bits").and_then(Value::as_i64);
        let is_kind = part.get("type").and_then(Value::as_str) == Some(kind);
        let symmetric = part.get("symmetric").and_then(Value::as_bool) != Some(false);
        (width == Some(8) && is_kind && symmetric).then_some(part)
    };
    let input = eight_bits("input_activations")?;
    eight_bits("weights")?;
    let dynamic = input.get("dynamic").and_then(Value::as_bool);
    match (input.get("strategy").and_then(Value::as_str), dynamic) {
        (Some("token"), Some(true)) => Some(ActivationScales::Token),
        (Some("tensor"), Some(false)) => Some(ActivationScales::Layer),
        (Some("group"), Some(true)) => {
            let size = input.get("group_size").and_then(Value::as_u64);
            (size == Some(ACTIVATION_GROUP.into())).then_some(ActivationScales::Group)
        }
        _ => None,
    }
}

/// In how many bits activations are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActBits {
    /// 16: as they are, with dequantized weights.
    Sixteen,
    /// 8: as codes, with the weights' codes. Their scales are of tokens, unless the format has some already.
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
        false => name.modifiers.retain(|modifier| !modifier.is_of_activations()),
    }
    name.modifiers.sort();
    resolve(&name.to_string())
}

/// The format as a GPU serves it: one that does not multiply 8-bit floats keeps 16-bit activations.
pub fn served_on(spec: WeightSpec, arch: &Arch) -> WeightSpec {
    if !spec.activations.are_float8() || arch.multiplies_float8() {
        return spec;
    }
    // Without these modifiers a name of the registry is one, too.
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

    fn asks_for(json: &str, kind: &str) -> Option<ActivationScales> {
        let config = QuantConfig::parse(Path::new("quantize_config.json"), json.as_bytes());
        asked(config.unwrap().as_ref(), kind).unwrap()
    }

    fn asks(json: &str, kind: &str) -> bool {
        asks_for(json, kind) == Some(ActivationScales::Token)
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
        assert_eq!(asked(None, "int").unwrap(), None);
    }

    #[test]
    fn scales_that_layers_bring_are_asked_for_by_configuration() {
        let tensor = r#"{"num_bits":8,"type":"int","strategy":"tensor","dynamic":false}"#;
        let brings = |json: &str, kind| asks_for(json, kind) == Some(ActivationScales::Layer);
        assert!(brings(&group(tensor), "int"));
        assert!(brings(r#"{"quant_method":"fp8","activation_scheme":"static"}"#, "float"));
        let groups = tensor.replace("tensor", "group").replace("false", r#"true,"group_size":128"#);
        assert_eq!(asks_for(&group(&groups), "int"), Some(ActivationScales::Group));
        assert_eq!(asks_for(&group(&groups.replace("128", "64")), "int"), None);
        let blocks =
            r#"{"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,128]}"#;
        assert_eq!(asks_for(blocks, "float"), Some(ActivationScales::Group));
        // Found anew for each tensor: the layer brings none.
        assert_eq!(asks_for(&group(&tensor.replace("false", "true")), "int"), None);
        let asymmetric = tensor.replace("{", r#"{"symmetric":false,"#);
        assert_eq!(asks_for(&group(&asymmetric), "int"), None);
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
        for with in [crate::compressed_tensors::INT8.examples[3], crate::float8::ROW.examples[2]] {
            let without = with.strip_suffix("-a8").unwrap();
            for name in [with, without] {
                assert_eq!(in_bits(name, "16").as_deref(), Ok(without));
                assert_eq!(in_bits(name, "8").as_deref(), Ok(with));
            }
            let fixed = format!("{with}-static");
            assert_eq!(in_bits(&fixed, "8").as_deref(), Ok(fixed.as_str()));
            assert_eq!(in_bits(&fixed, "16").as_deref(), Ok(without));
        }
        let groups = crate::compressed_tensors::INT8.examples[1];
        assert!(in_bits(groups, "8").unwrap_err().contains("one scale for each channel"));
        assert!("4".parse::<ActBits>().is_err());
    }
}
