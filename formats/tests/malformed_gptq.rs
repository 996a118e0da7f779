//! Damaged and contradictory GPTQ checkpoints: one-line errors that name file, tensor and remedy.

mod support;

use proptest::prelude::*;
use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::fs;
use support::{filled, golden_gptq, gptq_config, gptq_layer, message, Tensor, Tensors, GPTQ_CASES};

/// Asserts that a layer fails with a message about one tensor.
fn assert_refused(tensors: &Tensors, config: &str, tensor: &str, problem: &str) {
    let message = message(tensors, config);
    assert!(message.contains(&format!("model.safetensors: tensor `l.{tensor}`: ")), "{message}");
    assert!(message.contains(problem), "{message}");
}

/// The usual layer with one tensor replaced.
fn with(name: &str, dtype: Dtype, shape: &[usize]) -> Tensors {
    let mut layer = gptq_layer();
    layer.insert(format!("l.{name}"), filled(dtype, shape, 0));
    layer
}

/// The usual layer with this `g_idx`.
fn with_index(groups: impl Iterator<Item = i32>) -> Tensors {
    let bytes: Vec<u8> = groups.flat_map(i32::to_le_bytes).collect();
    let mut layer = gptq_layer();
    let tensor = Tensor { dtype: Dtype::I32, shape: vec![bytes.len() / 4], bytes };
    layer.insert("l.g_idx".into(), tensor);
    layer
}

fn usual() -> String {
    gptq_config(4, 64, true, "")
}

#[test]
fn the_unchanged_layer_is_accepted_with_and_without_its_index_and_configuration() {
    let mut layer = gptq_layer();
    for config in [usual(), String::new(), gptq_config(4, 64, false, "")] {
        assert_eq!(message(&layer, &config), "");
    }
    layer.remove("l.g_idx");
    assert_eq!(message(&layer, &usual()), "");
    assert_eq!(message(&layer, ""), "");
    assert_eq!(message(&with_index((0..128).map(|k| k % 2)), &usual()), "");
}

#[test]
fn missing_companions_are_named() {
    for missing in ["qweight", "qzeros", "scales"] {
        let mut layer = gptq_layer();
        layer.remove(&format!("l.{missing}"));
        assert_refused(&layer, &usual(), missing, "is missing");
    }
    let index = Tensors::from([("l.g_idx".into(), filled(Dtype::I32, &[8], 0))]);
    assert_refused(&index, "", "qweight", "is missing, but `g_idx` is there");
}

#[test]
fn shapes_and_types_that_disagree_are_refused() {
    for (name, dtype, shape, blamed, problem) in [
        ("qweight", Dtype::I32, vec![0, 64], "qweight", "has 0 rows"),
        ("qweight", Dtype::I32, vec![16, 48], "qweight", "N = 48"),
        ("qweight", Dtype::I64, vec![16, 64], "qweight", "not a matrix of I32"),
        ("qweight", Dtype::I32, vec![15, 64], "qweight", "no multiple of 32 4-bit codes"),
        ("qweight", Dtype::I32, vec![32, 64], "g_idx", "I32 [256] is needed"),
        ("qzeros", Dtype::I32, vec![2, 10], "qzeros", "of no width GPTQ has"),
        ("qzeros", Dtype::I32, vec![2, 16], "qzeros", "holds 8-bit zero-points, not 4-bit ("),
        ("scales", Dtype::F16, vec![3, 64], "scales", "F16 [2, 64] is needed"),
        ("scales", Dtype::BF16, vec![2, 64], "scales", "F16 [2, 64] is needed"),
        ("g_idx", Dtype::I32, vec![127], "g_idx", "I32 [128] is needed"),
        ("bias", Dtype::F16, vec![63], "bias", "F16 [64] is needed"),
    ] {
        assert_refused(&with(name, dtype, &shape), &usual(), blamed, problem);
    }
}

#[test]
fn an_index_that_leaves_the_groups_or_fills_them_unevenly_is_refused() {
    let refused = |groups: Vec<i32>, problem: &str| {
        assert_refused(&with_index(groups.into_iter()), &usual(), "g_idx", problem);
    };
    let mut groups: Vec<i32> = (0..128).map(|k| k / 64).collect();
    groups[5] = 2;
    refused(groups.clone(), "puts column 5 into quant group 2 of 2");
    groups[5] = -1;
    refused(groups.clone(), "puts column 5 into quant group -1 of 2");
    groups[5] = 1;
    refused(groups, "quant group 1 has 65");
    refused(vec![0; 128], "quant group 0 has 128");
}

#[test]
fn configurations_that_the_tensors_contradict_are_refused() {
    let layer = gptq_layer();
    assert_refused(&layer, &gptq_config(4, 128, true, ""), "scales", "has 2 rows where K = 128");
    assert_refused(&layer, &gptq_config(4, -1, true, ""), "scales", "needs 1");
    assert_refused(&layer, &gptq_config(8, 64, true, ""), "qzeros", "not 8-bit");
    let asymmetric = with("qzeros", Dtype::I32, &[2, 8]);
    assert_refused(&asymmetric, &usual(), "qzeros", "zero-points other than 8");
    assert_eq!(message(&asymmetric, &gptq_config(4, 64, false, "")), "");
    // Single layers may differ from a configuration that says so.
    let overrides = r#","dynamic":{"+:l":{"bits":4}}"#;
    assert_eq!(message(&layer, &gptq_config(8, 128, true, overrides)), "");
    for (more, problem) in [
        (r#","checkpoint_format":"marlin""#, "`marlin`"),
        (r#","is_marlin_format":true"#, "Marlin's"),
        (r#","pack_dtype":"int8""#, "int8 words"),
    ] {
        let message = message(&layer, &gptq_config(4, 64, true, more));
        assert!(message.contains("config.json: ") && message.contains(problem), "{message}");
    }
}

#[test]
fn impossible_values_are_found_where_they_are() {
    let mut layer = gptq_layer();
    let scales = layer.get_mut("l.scales").unwrap();
    scales.bytes[2 * (64 + 5)..][..2].copy_from_slice(&0x7e01u16.to_le_bytes());
    assert_refused(&layer, &usual(), "scales", "NaN for output feature 5, quant group 1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn flipped_and_cut_files_load_or_fail_cleanly(
        case in 0..GPTQ_CASES.len(),
        flips in prop::collection::vec((0usize..3000, any::<u8>()), 0..6),
        cut in prop::option::of(0usize..4000),
    ) {
        let case = golden_gptq(GPTQ_CASES[case]);
        let mut bytes = fs::read(case.join("model.safetensors")).unwrap();
        for (at, to) in flips {
            bytes[at] = to;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        fs::copy(case.join("config.json"), folder.path().join("config.json"))?;
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for layer in checkpoint.layers() {
                if let Ok(loaded) = checkpoint.load_layer(&layer.path) {
                    prop_assert_eq!(loaded.dequantize().len(), loaded.n * loaded.k);
                }
            }
        }
    }

    /// Shapes that lie about each other, in files whose headers are consistent.
    #[test]
    fn any_shapes_load_or_fail_cleanly(
        dims in prop::array::uniform7(prop::sample::select(vec![0usize, 1, 2, 3, 4, 8, 16, 32, 64])),
        indexed in any::<bool>(),
        bits in prop::sample::select(vec![2i64, 3, 4, 8, 5]),
        group in prop::sample::select(vec![-1i64, 1, 32, 48, 64, 128, 4_000_000_000]),
    ) {
        let [a, b, c, d, e, f, g] = dims;
        let mut layer = with("qweight", Dtype::I32, &[a, b]);
        layer.insert("l.qzeros".into(), filled(Dtype::I32, &[c, d], 0x77));
        layer.insert("l.scales".into(), filled(Dtype::F16, &[e, f], 0));
        layer.insert("l.g_idx".into(), filled(Dtype::I32, &[g], 0));
        if !indexed {
            layer.remove("l.g_idx");
        }
        for config in [String::new(), gptq_config(bits, group, false, "")] {
            message(&layer, &config);
        }
    }
}
