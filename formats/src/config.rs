//! What the files beside the weights say about quantization.
//!
//! Libraries put it in different places: `quantization_config` inside `config.json` (under
//! `text_config` for multimodal models, called `compression_config` by old compressed-tensors),
//! `quantize_config.json` (AutoGPTQ), or `quant_config.json` (old AutoAWQ). Where it disagrees
//! with the tensors about what is quantized, the tensors are right; it is needed for what they do
//! not show.

use crate::error::{shown, FormatError};
use crate::source::read_json;
use qtune_ir::Group;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A quantization configuration and the file it came from.
#[derive(Clone, Debug)]
pub struct QuantConfig {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl QuantConfig {
    /// The configuration of the checkpoint in `folder`; `None` if no file has one.
    pub fn find(folder: &Path) -> Result<Option<QuantConfig>, FormatError> {
        for name in ["config.json", "quantize_config.json", "quant_config.json"] {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            let bytes = read_json(&path)?;
            if let Some(config) = QuantConfig::parse(&path, &bytes)? {
                return Ok(Some(config));
            }
        }
        Ok(None)
    }

    /// The configuration in the content of one file. `config.json` holds it as a part; the other
    /// files are the configuration.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Option<QuantConfig>, FormatError> {
        let bad = |problem: String| {
            FormatError::file(path, problem, "replace it by the model's own file")
        };
        let json: Value = serde_json::from_slice(bytes)
            .map_err(|e| bad(format!("is not valid JSON: {}", shown(&e.to_string()))))?;
        let Value::Object(mut object) = json else {
            return Err(bad("is not a JSON object".into()));
        };
        if path.file_name().is_none_or(|name| name != "config.json") {
            return Ok(Some(QuantConfig { path: path.into(), fields: object }));
        }
        let found = take_quantization(&mut object).or_else(|| {
            object.get_mut("text_config").and_then(Value::as_object_mut).and_then(take_quantization)
        });
        match found {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(QuantConfig { path: path.into(), fields })),
            Some(_) => Err(bad("has a quantization_config that is not an object".into())),
        }
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `quant_method` in lower case; old files have none.
    pub fn method(&self) -> Result<Option<String>, FormatError> {
        self.text(&["quant_method"])
    }

    /// The first of `keys` that is present and not null, as a string in lower case.
    pub fn text(&self, keys: &[&str]) -> Result<Option<String>, FormatError> {
        self.get(keys, "a string", |value| value.as_str().map(str::to_ascii_lowercase))
    }

    /// The first of `keys` that is present and not null, as an integer.
    pub fn integer(&self, keys: &[&str]) -> Result<Option<i64>, FormatError> {
        self.get(keys, "an integer", Value::as_i64)
    }

    /// The first of `keys` that is present and not null, as a boolean.
    pub fn boolean(&self, keys: &[&str]) -> Result<Option<bool>, FormatError> {
        self.get(keys, "true or false", Value::as_bool)
    }

    /// The group size of AWQ's and GPTQ's configurations; -1 stands for all of K.
    pub fn group_size(&self) -> Result<Option<Group>, FormatError> {
        match self.integer(&["group_size", "q_group_size"])? {
            None => Ok(None),
            Some(-1) => Ok(Some(Group::Channel)),
            Some(size) => match u32::try_from(size) {
                Ok(size) if size > 0 => Ok(Some(Group::Size(size))),
                _ => {
                    let problem = format!("has group_size {size}");
                    Err(self.error(problem, "it must be a positive size, or -1 for all of K"))
                }
            },
        }
    }

    /// Whether `key` holds an object with entries.
    pub fn has_entries(&self, key: &str) -> bool {
        self.fields.get(key).and_then(Value::as_object).is_some_and(|object| !object.is_empty())
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// The value of `inner` in the object that `key` holds.
    pub fn entry(&self, key: &str, inner: &str) -> Option<&Value> {
        self.fields.get(key)?.get(inner)
    }

    /// The values of the object that `key` holds, in the order of their names.
    pub fn children(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.fields.get(key).and_then(Value::as_object).into_iter().flat_map(Map::values)
    }

    /// The programs in `meta.quantizer`, such as `gptqmodel:2.2.0`; none where it is absent or
    /// of another kind, since it is informational.
    pub fn quantizers(&self) -> impl Iterator<Item = &str> {
        let quantizer = self.fields.get("meta").and_then(|meta| meta.get("quantizer"));
        let listed = quantizer.and_then(Value::as_array).into_iter().flatten();
        listed.chain(quantizer).filter_map(Value::as_str)
    }

    /// An error about this configuration.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> FormatError {
        FormatError::file(&self.path, problem, remedy)
    }

    fn get<T>(
        &self,
        keys: &[&str],
        expected: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let mut present = keys.iter().filter_map(|key| Some((key, self.fields.get(*key)?)));
        let Some((key, value)) = present.find(|(_, value)| !value.is_null()) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| {
            let problem = format!("{key} is {}, not {expected}", shown(&value.to_string()));
            self.error(problem, "replace it by the model's own file")
        })
    }
}

/// Takes the part about quantization out of a model configuration; a null counts as absent.
fn take_quantization(object: &mut Map<String, Value>) -> Option<Value> {
    let keys = ["quantization_config", "compression_config"];
    keys.iter().filter_map(|key| object.remove(*key)).find(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(name: &str, json: &str) -> Result<Option<QuantConfig>, FormatError> {
        QuantConfig::parse(Path::new(name), json.as_bytes())
    }

    #[test]
    fn the_configuration_is_found_in_each_of_its_places() {
        for (name, json) in [
            ("config.json", r#"{"quantization_config":{"quant_method":"AWQ","bits":4}}"#),
            ("config.json", r#"{"text_config":{"quantization_config":{"quant_method":"awq"}}}"#),
            (
                "config.json",
                r#"{"quantization_config":null,"compression_config":
                {"quant_method":"awq"}}"#,
            ),
            ("quantize_config.json", r#"{"quant_method":"awq"}"#),
        ] {
            let config = parse(name, json).unwrap().unwrap();
            assert_eq!(config.method().unwrap().as_deref(), Some("awq"), "{json}");
        }
        assert!(parse("config.json", r#"{"model_type":"llama"}"#).unwrap().is_none());
    }

    #[test]
    fn old_names_of_a_key_are_read_and_nulls_are_absent() {
        let json = r#"{"bits":null,"w_bit":4,"q_group_size":64,"version":"GEMM"}"#;
        let config = parse("quant_config.json", json).unwrap().unwrap();
        assert_eq!(config.integer(&["bits", "w_bit"]).unwrap(), Some(4));
        assert_eq!(config.integer(&["group_size", "q_group_size"]).unwrap(), Some(64));
        assert_eq!(config.text(&["version"]).unwrap().as_deref(), Some("gemm"));
        assert_eq!(config.boolean(&["zero_point"]).unwrap(), None);
    }

    #[test]
    fn values_of_the_wrong_kind_name_the_file_and_the_key() {
        let config = parse("quant_config.json", r#"{"group_size":"big"}"#).unwrap().unwrap();
        let message = config.integer(&["group_size"]).unwrap_err().to_string();
        assert!(message.contains("quant_config.json: group_size is \"big\", not an integer"));
        assert!(parse("config.json", "[]").is_err());
        assert!(parse("config.json", r#"{"quantization_config":3}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_configuration_is_read_or_refused(
            json in r#"\{("(bits|group_size|quant_method|text_config|quantization_config)":("x"|-?[0-9.e]{1,9}|null|\{\}),?){0,4}\}|.{0,40}"#,
        ) {
            for name in ["config.json", "quant_config.json"] {
                if let Ok(Some(config)) = parse(name, &json) {
                    let _ = (config.method(), config.integer(&["bits"]));
                }
            }
        }
    }
}
