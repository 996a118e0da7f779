//! Damaged and contradictory bitsandbytes checkpoints: one-line errors that name file, tensor and
//! remedy.

mod support;

use proptest::prelude::*;
use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::fs;
use support::{filled, golden_bnb, message, nf4_layer, text, Tensors, BNB_CASES};

const STATE: &str = "weight.quant_state.bitsandbytes__nf4";

/// Asserts that a layer fails with a message about one tensor.
fn assert_refused(tensors: &Tensors, tensor: &str, problem: &str) {
    let message = message(tensors, "");
    assert!(message.contains(&format!("model.safetensors: tensor `l.{tensor}`: ")), "{message}");
    assert!(message.contains(problem), "{message}");
}

/// The usual layer with one tensor replaced.
fn with(name: &str, dtype: Dtype, shape: &[usize]) -> Tensors {
    let mut layer = nf4_layer();
    layer.insert(format!("l.{name}"), filled(dtype, shape, 0));
    layer
}

/// The usual layer with another state.
fn with_state(state: &str) -> Tensors {
    let mut layer = nf4_layer();
    layer.insert(format!("l.{STATE}"), text(state));
    layer
}

/// The usual layer, double quantized.
fn nested() -> Tensors {
    let mut layer = with_state(
        r#"{"quant_type":"nf4","blocksize":64,"dtype":"float16","shape":[4,96],
            "nested_blocksize":256,"nested_dtype":"float32","nested_offset":0.5}"#,
    );
    layer.insert("l.weight.absmax".into(), filled(Dtype::U8, &[6], 0));
    layer.insert("l.weight.nested_absmax".into(), filled(Dtype::F32, &[1], 0));
    layer.insert("l.weight.nested_quant_map".into(), filled(Dtype::F32, &[256], 0));
    layer
}

#[test]
fn the_unchanged_layers_are_accepted() {
    assert_eq!(message(&nf4_layer(), ""), "");
    assert_eq!(message(&nested(), ""), "");
    assert_eq!(message(&with("bias", Dtype::BF16, &[4]), ""), "");
    assert_eq!(message(&with("weight", Dtype::F32, &[48, 1]), ""), "", "codes of any type");
}

#[test]
fn missing_companions_are_named() {
    for missing in ["weight", "weight.absmax", "weight.quant_map", STATE] {
        let mut layer = nf4_layer();
        layer.remove(&format!("l.{missing}"));
        let config = r#"{"quantization_config":{"bnb_4bit_quant_type":"nf4"}}"#;
        let message = message(&layer, config);
        assert!(message.contains(&format!("tensor `l.{missing}`: is missing")), "{message}");
    }
    for missing in ["nested_absmax", "nested_quant_map"] {
        let mut layer = nested();
        layer.remove(&format!("l.weight.{missing}"));
        assert_refused(&layer, &format!("weight.{missing}"), "is missing");
    }
}

#[test]
fn shapes_and_types_that_disagree_are_refused() {
    for (name, dtype, shape, problem) in [
        ("weight", Dtype::U8, vec![191, 1], "has 191 bytes where 4 x 96 weights"),
        ("weight.absmax", Dtype::F32, vec![7], "F32 [6] is needed"),
        ("weight.absmax", Dtype::U8, vec![6], "F32 [6] is needed"),
        ("weight.quant_map", Dtype::F32, vec![15], "F32 [16] is needed"),
        ("weight.quant_map", Dtype::F32, vec![16], "gives code 0 the value 0, not -1 as nf4"),
        ("weight.nested_absmax", Dtype::F32, vec![1], "says nothing of double quantization"),
        ("bias", Dtype::F16, vec![5], "a float per output feature [4]"),
        ("bias", Dtype::I32, vec![4], "a float per output feature [4]"),
    ] {
        assert_refused(&with(name, dtype, &shape), name, problem);
    }
    for (name, dtype, shape, problem) in [
        ("weight.absmax", Dtype::F32, vec![6], "U8 [6] is needed"),
        ("weight.nested_absmax", Dtype::F32, vec![2], "F32 [1] is needed"),
        ("weight.nested_quant_map", Dtype::F32, vec![255], "F32 [256] is needed"),
    ] {
        let mut layer = nested();
        layer.insert(format!("l.{name}"), filled(dtype, &shape, 0));
        assert_refused(&layer, name, problem);
    }
}

#[test]
fn states_that_cannot_be_are_refused_by_their_field() {
    let usual = r#"{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[4,96]}"#;
    for (from, to, problem) in [
        ("nf4", "fp4", "says quant_type `fp4`, not `nf4`"),
        (":64", ":48", "blocksize 48, which is no power of two"),
        (":64", ":0", "blocksize 0"),
        ("bfloat16", "float8", "weights of type `float8`"),
        ("[4,96]", "[4,96,1]", "3 dimensions"),
        ("[4,96]", "[0,96]", "N = 0"),
        ("[4,96]", "[4,-96]", "not the JSON of a state"),
        ("[4,96]}", "[4,96]", "not the JSON of a state"),
        ("[4,96]}", r#"[4,96],"nested_offset":0.5}"#, "only one of"),
        ("[4,96]}", r#"[4,96],"nested_blocksize":256}"#, "only one of"),
    ] {
        assert_refused(&with_state(&usual.replace(from, to)), STATE, problem);
    }
}

#[test]
fn impossible_values_are_found_where_they_are() {
    let mut layer = nf4_layer();
    let absmax = layer.get_mut("l.weight.absmax").unwrap();
    absmax.bytes[4 * 5..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_refused(&layer, "weight.absmax", "gives block 5 the maximum NaN");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn flipped_and_cut_files_load_or_fail_cleanly(
        case in 0..BNB_CASES.len(),
        flips in prop::collection::vec((0usize..5000, any::<u8>()), 0..6),
        cut in prop::option::of(0usize..6000),
    ) {
        let case = golden_bnb(BNB_CASES[case]);
        let mut bytes = fs::read(case.join("model.safetensors")).unwrap();
        for (at, to) in flips {
            bytes[at] = to;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for layer in checkpoint.layers() {
                if let Ok(loaded) = checkpoint.load_layer(&layer.path) {
                    prop_assert_eq!(loaded.dequantize().len(), loaded.n * loaded.k);
                }
            }
        }
    }

    /// States that lie about the tensors beside them.
    #[test]
    fn any_state_is_read_or_refused(
        n in 0u64..9, k in prop::sample::select(vec![0u64, 1, 2, 63, 64, 96, 1 << 31, 1 << 40]),
        block in prop::sample::select(vec![0u64, 1, 32, 63, 64, 4096, 1 << 20, u64::MAX]),
        nested in prop::option::of((0u64..600, -1e40f64..1e40)),
    ) {
        let mut state = serde_json::json!({
            "quant_type": "nf4", "blocksize": block, "dtype": "float16", "shape": [n, k]
        });
        if let Some((size, offset)) = nested {
            state["nested_blocksize"] = size.into();
            state["nested_offset"] = offset.into();
        }
        message(&with_state(&state.to_string()), "");
    }
}
