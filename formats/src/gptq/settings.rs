//! What the configuration of a GPTQ checkpoint says.

use super::zeros::Convention;
use crate::config::QuantConfig;
use crate::error::{shown, FormatError};
use crate::qweight::WIDTHS;
use qtune_ir::Group;

/// What the configuration says about all layers; nothing where there is none.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) bits: Option<u8>,
    pub(super) group: Option<Group>,
    pub(super) sym: Option<bool>,
    pub(super) zeros: Convention,
    /// Whether single layers may differ from it, so that their shapes are believed instead.
    pub(super) overridden: bool,
    /// The file it comes from, for messages.
    pub(super) origin: String,
}

impl Settings {
    pub(super) fn read(config: Option<&QuantConfig>) -> Result<Settings, FormatError> {
        let Some(config) = config else {
            return Ok(Settings::default());
        };
        let zeros = match config.method()?.as_deref() {
            None | Some("gptq") => gptq_zeros(config)?,
            Some("auto-round" | "intel/auto-round") => auto_round_zeros(config)?,
            // The tensors are GPTQ's, so the configuration belongs to something else.
            Some(_) => return Ok(Settings::default()),
        };
        if let Some(word) = config.text(&["pack_dtype"])?.filter(|word| word != "int32") {
            let problem = format!("packs codes into {} words", shown(&word));
            return Err(config.error(problem, "export the checkpoint with pack_dtype int32"));
        }
        Ok(Settings {
            bits: bits(config)?,
            group: config.group_size()?,
            sym: config.boolean(&["sym"])?,
            zeros,
            overridden: config.has_entries("dynamic") || config.has_entries("extra_config"),
            origin: shown(&config.path().display().to_string()),
        })
    }

    /// The configured width and grouping, unless single layers may differ.
    pub(super) fn binding(&self) -> (Option<u8>, Option<Group>) {
        if self.overridden {
            (None, None)
        } else {
            (self.bits, self.group)
        }
    }
}

fn bits(config: &QuantConfig) -> Result<Option<u8>, FormatError> {
    let Some(bits) = config.integer(&["bits"])? else {
        return Ok(None);
    };
    match WIDTHS.into_iter().find(|width| i64::from(*width) == bits) {
        Some(width) => Ok(Some(width)),
        None => {
            let problem = format!("asks for {bits}-bit GPTQ");
            Err(config.error(problem, "quantize the model to 2, 3, 4 or 8 bits"))
        }
    }
}

/// AutoGPTQ and GPTQModel. GPTQModel before 7.0 packs 3-bit zero-points in a way of its own.
fn gptq_zeros(config: &QuantConfig) -> Result<Convention, FormatError> {
    let export = "export the checkpoint in the gptq or gptq_v2 format";
    if config.boolean(&["is_marlin_format"])? == Some(true) {
        return Err(config.error("says that the tensors, which are GPTQ's, are Marlin's", export));
    }
    match config.text(&["checkpoint_format", "format"])?.as_deref() {
        None | Some("gptq") if config.quantizers().any(is_old_gptqmodel) => {
            Ok(Convention::V1OldThree)
        }
        None | Some("gptq") => Ok(Convention::V1),
        Some("gptq_v2") => Ok(Convention::V2),
        Some(other) => {
            let problem = format!("has GPTQ checkpoint_format `{}`", shown(other));
            Err(config.error(problem, export))
        }
    }
}

/// Whether `quantizer` is a GPTQModel before 7.0: `gptqmodel:2.2.0`.
fn is_old_gptqmodel(quantizer: &str) -> bool {
    let version = quantizer.strip_prefix("gptqmodel:");
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < 7)
}

/// auto-round names the packing in one of two keys; its own packing has v2 zero-points.
fn auto_round_zeros(config: &QuantConfig) -> Result<Convention, FormatError> {
    let packing = config.text(&["packing_format", "backend"])?;
    let is_gptq = packing.is_some_and(|packing| packing.contains("gptq"));
    Ok(if is_gptq { Convention::V1 } else { Convention::V2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(json: &str) -> Result<Settings, FormatError> {
        let config = QuantConfig::parse(Path::new("quantize_config.json"), json.as_bytes())?;
        Settings::read(config.as_ref())
    }

    #[test]
    fn the_writer_decides_what_a_stored_zero_point_means() {
        for (json, zeros) in [
            (r#"{"bits":3}"#, Convention::V1),
            (r#"{"checkpoint_format":"gptq_v2"}"#, Convention::V2),
            (r#"{"meta":{"quantizer":["gptqmodel:2.2.0"]}}"#, Convention::V1OldThree),
            (r#"{"meta":{"quantizer":"gptqmodel:6.0.3"}}"#, Convention::V1OldThree),
            (r#"{"meta":{"quantizer":["gptqmodel:7.0.0"]}}"#, Convention::V1),
            (r#"{"quant_method":"auto-round","backend":"auto_round:auto_gptq"}"#, Convention::V1),
            (r#"{"quant_method":"auto-round"}"#, Convention::V2),
        ] {
            assert_eq!(read(json).unwrap().zeros, zeros, "{json}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        for (json, problem) in [
            (r#"{"bits":5}"#, "5-bit GPTQ"),
            (r#"{"pack_dtype":"int16"}"#, "int16 words"),
            (r#"{"checkpoint_format":"gptq_p"}"#, "`gptq_p`"),
            (r#"{"is_marlin_format":true}"#, "Marlin's"),
            (r#"{"group_size":0}"#, "group_size 0"),
        ] {
            let message = read(json).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn overrides_for_single_layers_leave_width_and_group_to_the_shapes() {
        let settings = read(r#"{"bits":4,"group_size":64,"dynamic":{"a":{"bits":8}}}"#).unwrap();
        assert_eq!(settings.binding(), (None, None));
        let settings = read(r#"{"bits":4,"group_size":64,"dynamic":{}}"#).unwrap();
        assert_eq!(settings.binding(), (Some(4), Some(Group::Size(64))));
    }
}
