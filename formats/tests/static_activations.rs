//! Scales of activations that checkpoints bring: which are taken, and what is served without one.

mod support;

use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::collections::BTreeMap;
use support::{checkpoint, filled, message, Tensor, Tensors};

const FLOATS: &str =
    r#"{"quantization_config":{"quant_method":"fp8","activation_scheme":"static"}}"#;

/// Integers of 8 bits with activations of one scale.
const INTEGERS: &str = r#"{"quantization_config":{"quant_method":"compressed-tensors","config_groups":{
    "group_0":{"weights":{"num_bits":8,"type":"int","strategy":"channel"},
    "input_activations":{"num_bits":8,"type":"int","strategy":"tensor","dynamic":false}}}}}"#;

fn number(value: f32, shape: &[usize]) -> Tensor {
    Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes: value.to_le_bytes().into() }
}

fn floats() -> Tensors {
    BTreeMap::from([
        ("l.weight".into(), filled(Dtype::F8_E4M3, &[32, 64], 0x38)),
        ("l.weight_scale".into(), number(1.0, &[1])),
        ("l.input_scale".into(), number(0.5, &[1])),
    ])
}

fn integers() -> Tensors {
    BTreeMap::from([
        ("l.weight".into(), filled(Dtype::I8, &[32, 64], 3)),
        ("l.weight_scale".into(), filled(Dtype::F16, &[32, 1], 0x3c)),
        ("l.input_scale".into(), number(0.5, &[])),
    ])
}

/// The format of the layer and the scale of its activations that is in use.
fn loaded(tensors: &Tensors, config: &str) -> (String, Option<f32>) {
    let folder = checkpoint(tensors, config);
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert!(opened.plain_tensors().is_empty(), "scales belong to their layer");
    let layer = opened.load_layer("l").unwrap();
    (layer.spec.name.clone(), layer.activation_scale())
}

#[test]
fn a_layer_brings_the_scale_that_the_configuration_promises() {
    assert_eq!(loaded(&floats(), FLOATS), ("fp8-e4m3-ch-a8-static".into(), Some(0.5)));
    assert_eq!(loaded(&integers(), INTEGERS), ("int8-ch-a8-static".into(), Some(0.5)));
    assert_eq!(loaded(&floats(), ""), ("fp8-e4m3-ch".into(), None), "nobody asks for it");
}

#[test]
fn a_zero_point_of_activations_keeps_them_in_16_bits_unless_it_is_zero() {
    for (byte, format) in [(0, "int8-ch-a8-static"), (5, "int8-ch")] {
        let mut tensors = integers();
        tensors.insert("l.input_zero_point".into(), filled(Dtype::I8, &[1], byte));
        assert_eq!(loaded(&tensors, INTEGERS).0, format);
    }
}

#[test]
fn a_layer_without_the_scale_is_served_with_16_bit_activations() {
    let mut tensors = floats();
    tensors.remove("l.input_scale");
    assert_eq!(loaded(&tensors, FLOATS), ("fp8-e4m3-ch".into(), None));
}

#[test]
fn scales_that_are_none_name_the_tensor() {
    for (scale, problem) in [
        (number(f32::NAN, &[1]), "no scale of activations"),
        (number(0.0, &[1]), "no scale of activations"),
        (number(-1.0, &[]), "no scale of activations"),
        (number(1e-38, &[]), "no scale of activations"),
        (filled(Dtype::F32, &[2], 0x3f), "not one float"),
        (filled(Dtype::I32, &[1], 1), "not one float"),
        (filled(Dtype::F16, &[0], 1), "not one float"),
    ] {
        let mut tensors = floats();
        tensors.insert("l.input_scale".into(), scale);
        let message = message(&tensors, FLOATS);
        assert!(message.contains(problem), "{message}");
        assert!(message.contains("tensor `l.input_scale`"), "{message}");
    }
}
