//! Checkpoints that GPTQModel and AutoGPTQ wrote decode to the weights those libraries compute,
//! bit for bit.

mod support;

use qtune_formats::{Checkpoint, Group};
use support::{assert_decodes_to, golden_gptq, read, GPTQ_CASES};

#[test]
fn every_golden_case_decodes_bit_for_bit() {
    for case in GPTQ_CASES {
        let checkpoint = Checkpoint::open(golden_gptq(case)).unwrap();
        assert_decodes_to(&checkpoint, &read(&golden_gptq(case).join("expected.safetensors")));
    }
}

#[test]
fn layers_know_their_format_and_packing() {
    for (case, format, layout) in [
        ("autogptq_3bit_asym_g64", "gptq-w3-g64-asym", "gptq"),
        ("autogptq_4bit_asym_g128", "gptq-g128-asym", "gptq"),
        ("v1_2bit_sym_g32", "gptq-w2-g32", "gptq"),
        ("v1_3bit_sym_g128", "gptq-w3-g128", "gptq_old_3bit"),
        ("v1_4bit_asym_g128_underflow", "gptq-g128-asym", "gptq"),
        ("v1_4bit_sym_g128", "gptq-g128", "gptq"),
        ("v1_4bit_sym_g64_desc_act", "gptq-g64-actorder", "gptq"),
        ("v1_4bit_sym_tailgroup", "gptq-g64", "gptq"),
        ("v1_8bit_sym_gchan", "gptq-w8-ch", "gptq"),
        ("v2_4bit_asym_g64", "gptq-g64-asym", "gptq_v2"),
    ] {
        let checkpoint = Checkpoint::open(golden_gptq(case)).unwrap();
        let layer = &checkpoint.layers()[0];
        assert_eq!((layer.format.as_str(), layer.layout), (format, layout), "{case}");
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        assert_eq!(loaded.spec.name, format);
        assert_eq!(loaded.k_order.is_some(), format.ends_with("-actorder"), "{case}");
    }
}

#[test]
fn v1_files_decode_without_a_configuration() {
    // Only the configuration tells v2 zero-points of asymmetric layers from v1.
    for case in GPTQ_CASES.into_iter().filter(|case| !case.starts_with("v2")) {
        let folder = support::checkpoint(&read(&golden_gptq(case).join("model.safetensors")), "");
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_decodes_to(&checkpoint, &read(&golden_gptq(case).join("expected.safetensors")));
        let with = Checkpoint::open(golden_gptq(case)).unwrap();
        assert_eq!(checkpoint.layers()[0].format, with.layers()[0].format, "{case}");
    }
}

#[test]
fn a_short_last_group_has_its_own_scale() {
    let checkpoint = Checkpoint::open(golden_gptq("v1_4bit_sym_tailgroup")).unwrap();
    let layer = &checkpoint.layers()[0];
    assert_eq!((layer.k, layer.group), (160, Group::Size(64)));
    let loaded = checkpoint.load_layer(&layer.path).unwrap();
    assert_eq!(loaded.groups(), 3);
}

#[test]
fn sorted_columns_of_act_order_layers_restore_their_features() {
    let checkpoint = Checkpoint::open(golden_gptq("v1_4bit_sym_g64_desc_act")).unwrap();
    let layer = checkpoint.load_layer(&checkpoint.layers()[0].path).unwrap();
    let order = layer.k_order.clone().unwrap();
    assert!(order.windows(2).any(|pair| pair[0] > pair[1]), "the case is not in order");
    let in_group = order.chunks(64).all(|group| group.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(in_group, "the sort is stable");
    let weights = layer.dequantize();
    let sorted = qtune_formats::QuantizedLinear { k_order: None, ..layer }.dequantize();
    for (at, k) in order.iter().enumerate() {
        assert_eq!(weights[*k as usize], sorted[at]);
    }
}
