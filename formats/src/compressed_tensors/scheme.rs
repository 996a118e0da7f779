//! What the configuration of a compressed-tensors checkpoint says about weights.

use crate::config::QuantConfig;
use crate::error::{shown, FormatError};

/// What all schemes of the configuration agree on; nothing where there is no configuration.
#[derive(Debug, Default)]
pub(super) struct Scheme {
    /// Widths of codes, each once; empty if none is said.
    pub(super) widths: Vec<i64>,
    /// The only group size that is said.
    pub(super) group: Option<u32>,
}

impl Scheme {
    pub(super) fn read(config: Option<&QuantConfig>) -> Result<Scheme, FormatError> {
        let Some(config) = config else { return Ok(Scheme::default()) };
        if config.method()?.is_some_and(|method| method != "compressed-tensors") {
            // The tensors are this library's, so the configuration belongs to something else.
            return Ok(Scheme::default());
        }
        refuse_transforms(config)?;
        let mut scheme = Scheme::default();
        let mut groups = Vec::new();
        for weights in config.children("config_groups").filter_map(|group| group.get("weights")) {
            let width = weights.get("num_bits").and_then(serde_json::Value::as_i64);
            scheme.widths.extend(width.filter(|width| !scheme.widths.contains(width)));
            groups.extend(weights.get("group_size").and_then(serde_json::Value::as_u64));
        }
        groups.dedup();
        if let [only] = groups[..] {
            scheme.group = u32::try_from(only).ok().filter(|size| *size > 0);
        }
        Ok(scheme)
    }
}

/// Weights that are rotated or thinned out mean something else than their codes say.
pub(crate) fn refuse_transforms(config: &QuantConfig) -> Result<(), FormatError> {
    let remedy = "use a checkpoint that is quantized without it";
    if config.has_entries("transform_config") {
        return Err(config.error("rotates weights (transform_config)", remedy));
    }
    let sparsity = config.entry("sparsity_config", "format").and_then(|format| format.as_str());
    match sparsity.filter(|format| *format != "dense") {
        None => Ok(()),
        Some(format) => {
            Err(config.error(format!("stores sparse weights (`{}`)", shown(format)), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(json: &str) -> Result<Scheme, FormatError> {
        let config = QuantConfig::parse(Path::new("quantize_config.json"), json.as_bytes())?;
        Scheme::read(config.as_ref())
    }

    #[test]
    fn groups_that_disagree_leave_the_size_to_the_shapes() {
        let one = r#"{"config_groups":{"a":{"weights":{"num_bits":4,"group_size":64}}}}"#;
        let scheme = read(one).unwrap();
        assert_eq!((scheme.widths, scheme.group), (vec![4], Some(64)));
        let two = r#"{"config_groups":{"a":{"weights":{"num_bits":4,"group_size":64}},
            "b":{"weights":{"num_bits":8,"group_size":128}}}}"#;
        let scheme = read(two).unwrap();
        assert_eq!((scheme.widths, scheme.group), (vec![4, 8], None));
    }

    #[test]
    fn rotated_and_sparse_weights_are_refused() {
        for (json, problem) in [
            (r#"{"transform_config":{"config_groups":{}}}"#, "rotates weights"),
            (r#"{"sparsity_config":{"format":"sparse-24-bitmask"}}"#, "`sparse-24-bitmask`"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        assert!(read(r#"{"transform_config":null,"sparsity_config":{"format":"dense"}}"#).is_ok());
        assert!(read(r#"{"quant_method":"fp8","transform_config":{"a":1}}"#).is_ok());
    }
}
