//! Layers of small floats with small scales that contradict themselves are refused by name.

mod support;

use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::collections::BTreeMap;
use support::{checkpoint, filled, message, refuses, Tensor};

#[test]
fn packed_codes_and_their_exponents() {
    let layer = BTreeMap::from([
        ("l.weight_packed".into(), filled(Dtype::U8, &[8, 32], 0x21)),
        ("l.weight_scale".into(), filled(Dtype::U8, &[8, 2], 127)),
    ]);
    refuses(
        layer,
        &[
            (".weight_packed", Dtype::U8, &[8, 0], 0, "8 x 0 weights"),
            (".weight_packed", Dtype::U8, &[8, 24], 0, "no quant groups of 32"),
            (".weight_packed", Dtype::U8, &[2, 4, 32], 0, "not a matrix of U8"),
            (".weight_packed", Dtype::I8, &[8, 32], 0, "does not read"),
            (".weight_scale", Dtype::U8, &[8, 3], 127, "a scale per 32 weights"),
            (".weight_scale", Dtype::U8, &[8, 2], 255, "NaN for output feature 0, quant group 0"),
            (".bias", Dtype::F16, &[7], 0, "float per output feature"),
        ],
    );
}

#[test]
fn bytes_and_their_exponents() {
    let layer = BTreeMap::from([
        ("l.weight".into(), filled(Dtype::F8_E4M3, &[8, 64], 0x38)),
        ("l.weight_scale".into(), filled(Dtype::U8, &[8, 2], 127)),
    ]);
    refuses(
        layer,
        &[
            (".weight", Dtype::F8_E4M3, &[8, 64], 0x7f, "NaN for output feature 0"),
            (".weight_scale", Dtype::U8, &[8, 3], 127, "does not read"),
            (".weight_scale", Dtype::F8_E8M0, &[8, 2], 255, "NaN for output feature 0"),
        ],
    );
}

#[test]
fn blocks_of_experts() {
    let layer = BTreeMap::from([
        ("l_blocks".into(), filled(Dtype::U8, &[2, 4, 3, 16], 0x21)),
        ("l_scales".into(), filled(Dtype::U8, &[2, 4, 3], 127)),
        ("l_bias".into(), filled(Dtype::BF16, &[2, 4], 0)),
    ]);
    refuses(
        layer,
        &[
            ("_blocks", Dtype::U8, &[2, 4, 3, 8], 0, "not blocks of 16 bytes"),
            ("_blocks", Dtype::U8, &[2, 4, 0, 16], 0, "8 x 0 weights"),
            ("_scales", Dtype::U8, &[2, 4, 2], 127, "a byte per block"),
            ("_scales", Dtype::F16, &[2, 4, 3], 127, "a byte per block"),
            ("_scales", Dtype::U8, &[2, 4, 3], 255, "NaN for output feature 0"),
            ("_bias", Dtype::BF16, &[2, 3], 0, "float per output feature"),
        ],
    );
}

#[test]
fn packed_codes_with_two_scales() {
    let layer = BTreeMap::from([
        ("l.weight_packed".into(), filled(Dtype::U8, &[8, 32], 0x21)),
        ("l.weight_scale".into(), filled(Dtype::F8_E4M3, &[8, 4], 0x38)),
        ("l.weight_global_scale".into(), filled(Dtype::F32, &[1], 0x40)),
    ]);
    refuses(
        layer.clone(),
        &[
            (".weight_packed", Dtype::U8, &[8, 28], 0, "no quant groups of 16"),
            (".weight_scale", Dtype::F8_E4M3, &[8, 2], 0, "a scale per 16 weights"),
            (".weight_scale", Dtype::F8_E4M3, &[8, 4], 0xff, "NaN for output feature 0"),
            (".weight_global_scale", Dtype::F32, &[2], 0x40, "not one float"),
            (".weight_global_scale", Dtype::I32, &[1], 0x40, "not one float"),
            (".weight_global_scale", Dtype::F32, &[1], 0, "holds 0"),
            (".weight_global_scale", Dtype::F32, &[1], 0xbf, "holds -1.49"),
            (".weight_global_scale", Dtype::F32, &[1], 0xff, "holds NaN"),
        ],
    );
    let mut lonely = layer;
    lonely.remove("l.weight_global_scale");
    assert!(message(&lonely, "").contains("`l.weight_global_scale`: is missing"));
}

#[test]
fn the_number_of_a_layer_divides_or_multiplies() {
    let two = 2.0f32.to_le_bytes().to_vec();
    let number = Tensor { dtype: Dtype::F32, shape: vec![], bytes: two };
    let scales = filled(Dtype::F8_E4M3, &[8, 4], 0x38);
    for (codes, name, weight) in
        [("weight_packed", "weight_global_scale", 0.25), ("weight", "weight_scale_2", 1.0)]
    {
        let tensors = BTreeMap::from([
            (format!("l.{codes}"), filled(Dtype::U8, &[8, 32], 0x11)),
            ("l.weight_scale".into(), scales.clone()),
            (format!("l.{name}"), number.clone()),
        ]);
        let folder = checkpoint(&tensors, "");
        let layer = Checkpoint::open(folder.path()).unwrap().load_layer("l").unwrap();
        assert!(layer.dequantize().iter().all(|w| *w == weight), "{codes}");
    }
}
