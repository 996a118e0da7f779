//! Where compressed-tensors keeps zero-points and orders; damaged layers are refused by name.

mod support;

use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::collections::BTreeMap;
use support::{checkpoint, filled, message, Tensor, Tensors};

fn shape_tensor(n: i64, k: i64) -> Tensor {
    let bytes = [n, k].iter().flat_map(|size| size.to_le_bytes()).collect();
    Tensor { dtype: Dtype::I64, shape: vec![2], bytes }
}

/// A consistent layer `l` of N = 32, K = 128 with two groups of 64 and zero-points; scales are 0.
fn layer() -> Tensors {
    BTreeMap::from([
        ("l.weight_packed".into(), filled(Dtype::I32, &[32, 16], 0x21)),
        ("l.weight_shape".into(), shape_tensor(32, 128)),
        ("l.weight_scale".into(), filled(Dtype::F16, &[32, 2], 0)),
        ("l.weight_zero_point".into(), filled(Dtype::I32, &[4, 2], 0x77)),
    ])
}

#[test]
fn zero_points_stand_along_n() {
    let mut tensors = layer();
    // Row 9, group 1: word 1 of the column, nibble 1.
    tensors.get_mut("l.weight_zero_point").unwrap().bytes[(2 + 1) * 4] = 0x37;
    let folder = checkpoint(&tensors, "");
    let loaded = Checkpoint::open(folder.path()).unwrap().load_layer("l").unwrap();
    let zero = |n: usize, group: usize| loaded.param("z").unwrap().get(n * 2 + group);
    assert_eq!((zero(9, 1), zero(9, 0), zero(8, 1), zero(10, 1)), (3.0, 7.0, 7.0, 7.0));
}

#[test]
fn contradictions_name_the_tensor() {
    assert_eq!(message(&layer(), ""), "");
    for (name, tensor, problem) in [
        ("weight_shape", shape_tensor(32, -1), "not N and K"),
        ("weight_shape", shape_tensor(32, 0), "32 x 0 weights"),
        ("weight_shape", filled(Dtype::F16, &[2], 0), "not N and K"),
        ("weight_scale", filled(Dtype::F32, &[32, 2], 0), "not F16 or BF16"),
        ("weight_scale", filled(Dtype::F16, &[31, 2], 0), "rows of scales"),
        ("weight_scale", filled(Dtype::F16, &[32, 3], 0), "zero-points packed along N"),
        ("weight_scale", filled(Dtype::F16, &[32, 2], 0xff), "not finite"),
        ("weight_zero_point", filled(Dtype::I32, &[3, 2], 0), "zero-points packed along N"),
        ("weight_g_idx", filled(Dtype::I32, &[64], 0), "quant group per input feature"),
        ("weight_g_idx", filled(Dtype::I32, &[128], 5), "into quant group"),
        ("bias", filled(Dtype::F16, &[31], 0), "float per output feature"),
    ] {
        let mut tensors = layer();
        tensors.insert(format!("l.{name}"), tensor);
        let message = message(&tensors, "");
        assert!(message.contains(problem), "{name}: {message}");
        assert!(message.contains("tensor `l."), "{name}: {message}");
    }
    let mut lonely = layer();
    lonely.remove("l.weight_shape");
    assert!(message(&lonely, "").contains("`l.weight_shape`: is missing"));
    let mut uneven = layer();
    uneven.remove("l.weight_zero_point");
    uneven.insert("l.weight_scale".into(), filled(Dtype::F16, &[32, 3], 0));
    assert!(message(&uneven, "").contains("do not divide K = 128"));
    let mut odd = layer();
    odd.insert("l.weight_packed".into(), filled(Dtype::I32, &[32, 17], 0));
    assert!(message(&odd, "").contains("compressed-tensors layer"));
}

#[test]
fn rotated_weights_are_refused() {
    let config = r#"{"quantization_config":{"quant_method":"compressed-tensors",
        "transform_config":{"config_groups":{}}}}"#;
    assert!(message(&layer(), config).contains("rotates weights"));
}
