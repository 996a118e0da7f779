//! Layers of 8-bit floats that contradict themselves are refused by name.

mod support;

use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::collections::BTreeMap;
use support::{checkpoint, filled, message, Tensor, Tensors};

/// A consistent layer `l` of N = 192, K = 320 in blocks of 128 by 128.
fn layer() -> Tensors {
    BTreeMap::from([
        ("l.weight".into(), filled(Dtype::F8_E4M3, &[192, 320], 0x38)),
        ("l.weight_scale_inv".into(), scales(&[2, 3])),
    ])
}

/// Scales 0, 1, 2 and so on.
fn scales(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let bytes = (0..count).flat_map(|at| (at as f32).to_le_bytes()).collect();
    Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

/// The configuration of a checkpoint in blocks.
fn config(block: &str) -> String {
    format!(r#"{{"quantization_config":{{"quant_method":"fp8","weight_block_size":{block}}}}}"#)
}

fn loaded(tensors: &Tensors, config: &str) -> Vec<f32> {
    let folder = checkpoint(tensors, config);
    Checkpoint::open(folder.path()).unwrap().load_layer("l").unwrap().dequantize()
}

#[test]
fn blocks_at_the_edges_may_be_ragged() {
    let weights = loaded(&layer(), "");
    let at = |n: usize, k: usize| weights[n * 320 + k];
    assert_eq!((at(0, 0), at(127, 128), at(128, 0), at(191, 319)), (0.0, 1.0, 3.0, 5.0));
}

#[test]
fn the_configuration_states_the_size_of_blocks() {
    let mut tensors = layer();
    tensors.insert("l.weight_scale_inv".into(), scales(&[3, 4]));
    let weights = loaded(&tensors, &config("[80,80]"));
    let at = |n: usize, k: usize| weights[n * 320 + k];
    assert_eq!((at(79, 79), at(80, 80), at(191, 319)), (0.0, 5.0, 11.0));
    assert_eq!(loaded(&tensors, ""), weights, "four groups of 80, and blocks are square");
    let tall = config("[64,80]");
    assert!(message(&tensors, &tall).contains("blocks of 64 x 80 weights, which are not read"));
}

#[test]
fn powers_of_two_are_scales() {
    let mut tensors = layer();
    tensors.insert("l.weight_scale_inv".into(), filled(Dtype::F8_E8M0, &[2, 3], 128));
    assert!(loaded(&tensors, "").iter().all(|weight| *weight == 2.0));
}

#[test]
fn contradictions_name_the_tensor() {
    assert_eq!(message(&layer(), &config("[128,128]")), "");
    for (name, tensor, problem) in [
        ("weight", filled(Dtype::F8_E4M3, &[192, 0], 0), "192 x 0 weights"),
        ("weight", filled(Dtype::F8_E4M3, &[192, 320], 0xff), "NaN for output feature 0"),
        ("weight", filled(Dtype::F8_E4M3, &[2, 96, 320], 0), "not a matrix"),
        ("weight", filled(Dtype::F8_E5M2, &[192, 320], 0), "does not read"),
        ("weight_scale_inv", filled(Dtype::F32, &[2, 3], 0xff), "holds the scale NaN"),
        ("weight_scale_inv", filled(Dtype::F32, &[2, 3], 0xbf), "holds the scale -1.49"),
        ("weight_scale_inv", filled(Dtype::F8_E8M0, &[2, 3], 255), "holds the scale NaN"),
        ("weight_scale_inv", scales(&[2, 3, 1]), "not scales of 192 x 320"),
        ("weight_scale_inv", scales(&[0, 3]), "not scales of 192 x 320"),
        ("weight_scale_inv", scales(&[5, 3]), "weights do not fall"),
        ("bias", filled(Dtype::F16, &[191], 0), "float per output feature"),
    ] {
        let mut tensors = layer();
        tensors.insert(format!("l.{name}"), tensor);
        let message = message(&tensors, "");
        assert!(message.contains(problem), "{name}: {message}");
        assert!(message.contains("tensor `l."), "{name}: {message}");
    }
}
