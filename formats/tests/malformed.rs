//! Damaged and contradictory checkpoints: one-line errors that name file, tensor and remedy.

mod support;

use proptest::prelude::*;
use qtune_formats::Checkpoint;
use safetensors::Dtype;
use std::fs;
use support::{
    awq_config, checkpoint, filled, gemm_layer, gemv_fast_layer, gemv_layer, golden, message,
    Tensors, AWQ_CASES,
};

/// Asserts that a layer fails with a message about one tensor.
fn assert_refused(tensors: &Tensors, config: &str, tensor: &str, problem: &str) {
    let message = message(tensors, config);
    assert!(message.contains("model.safetensors: tensor `l."), "{message}");
    assert!(message.contains(&format!("`l.{tensor}`: ")), "{message}");
    assert!(message.contains(problem), "{message}");
}

/// The layer with one tensor replaced.
fn with(mut layer: Tensors, name: &str, dtype: Dtype, shape: &[usize]) -> Tensors {
    layer.insert(format!("l.{name}"), filled(dtype, shape, 0));
    layer
}

/// The layer with one f16 value replaced.
fn with_value(mut layer: Tensors, name: &str, index: usize, bits: u16) -> Tensors {
    let tensor = layer.get_mut(&format!("l.{name}")).unwrap();
    tensor.bytes[2 * index..2 * index + 2].copy_from_slice(&bits.to_le_bytes());
    layer
}

#[test]
fn the_unchanged_layers_are_accepted() {
    assert_eq!(message(&gemm_layer(), &awq_config("GEMM", 64)), "");
    assert_eq!(message(&gemv_layer(), &awq_config("gemv", 64)), "");
    assert_eq!(message(&gemv_fast_layer(), &awq_config("gemv_fast", 128)), "");
    let mut llm_awq = gemv_fast_layer();
    let zeros = llm_awq.remove("l.qzeros").unwrap();
    llm_awq.insert("l.scaled_zeros".into(), zeros);
    assert_eq!(message(&llm_awq, &awq_config("llm-awq", 128)), "");
}

#[test]
fn missing_companions_are_named() {
    for missing in ["qweight", "qzeros", "scales"] {
        let mut layer = gemm_layer();
        layer.remove(&format!("l.{missing}"));
        assert_refused(&layer, &awq_config("gemm", 64), missing, "is missing");
    }
}

#[test]
fn shapes_that_disagree_are_refused() {
    let gemm = awq_config("gemm", 64);
    let layer = with(gemm_layer(), "scales", Dtype::F16, &[2, 32]);
    assert_refused(&layer, &gemm, "qweight", "holds 64 columns where the scales have 32");
    let layer = with(gemm_layer(), "qzeros", Dtype::I32, &[3, 8]);
    assert_refused(&layer, &gemm, "qzeros", "I32 [2, 8] is needed");
    let layer = with(gemm_layer(), "qweight", Dtype::I32, &[128, 8, 1]);
    assert_refused(&layer, &gemm, "qweight", "not a matrix of I32");
    let layer = with(gemm_layer(), "qweight", Dtype::F32, &[128, 8]);
    assert_refused(&layer, &gemm, "qweight", "not a matrix of I32");
    let layer = with(gemm_layer(), "scales", Dtype::BF16, &[2, 64]);
    assert_refused(&layer, &gemm, "scales", "not a matrix of F16");
    let layer = with(gemm_layer(), "bias", Dtype::F16, &[63]);
    assert_refused(&layer, &gemm, "bias", "F16 [64] is needed");
    let mut layer = with(gemm_layer(), "scales", Dtype::F16, &[2, 0]);
    layer = with(layer, "qweight", Dtype::I32, &[128, 0]);
    layer = with(layer, "qzeros", Dtype::I32, &[2, 0]);
    assert_refused(&layer, &gemm, "qweight", "N = 0");

    let gemv = awq_config("gemv", 64);
    let layer = with(gemv_layer(), "qzeros", Dtype::I32, &[63, 2]);
    assert_refused(&layer, &gemv, "qzeros", "63 rows where qweight has 64");
    let layer = with(gemv_layer(), "scales", Dtype::F16, &[64, 8]);
    assert_refused(&layer, &gemv, "scales", "F16 [64, 16] is needed");

    let fast = awq_config("gemv_fast", 128);
    let layer = with(gemv_fast_layer(), "scales", Dtype::F16, &[8, 60]);
    assert_refused(&layer, &fast, "qweight", "16 rows of 4 output features");
    let layer = with(gemv_fast_layer(), "qweight", Dtype::I16, &[16, 500]);
    assert_refused(&layer, &fast, "qweight", "blocks of 64 columns");
    let layer = with(gemv_fast_layer(), "qzeros", Dtype::F16, &[16, 64]);
    assert_refused(&layer, &fast, "qzeros", "F16 [8, 64] is needed");
}

#[test]
fn columns_that_the_packer_dropped_are_recognised() {
    let layer = with(gemm_layer(), "scales", Dtype::F16, &[2, 80]);
    assert_refused(&layer, &awq_config("gemm", 64), "qweight", "AutoAWQ's packer drops columns");
}

#[test]
fn group_sizes_that_do_not_divide_or_do_not_match_are_refused() {
    let refused = |layer: Tensors, version: &str, group, tensor: &str, problem: &str| {
        assert_refused(&layer, &awq_config(version, group), tensor, problem);
    };
    refused(gemm_layer(), "gemm", 100, "qweight", "groups of 100 (");
    refused(gemm_layer(), "gemm", 128, "scales", "has 2 rows where K = 128 in groups of 128");
    refused(gemm_layer(), "gemm", -1, "scales", "needs 1");
    refused(gemv_layer(), "gemv", 32, "scales", "has 16 padded groups");
    refused(gemv_fast_layer(), "gemv_fast", 64, "scales", "has 8 padded groups");
    let layer = with(gemm_layer(), "qzeros", Dtype::I32, &[3, 8]);
    let layer = with(layer, "scales", Dtype::F16, &[3, 64]);
    assert_refused(&layer, "", "scales", "3 rows, which do not divide K = 128");
    let layer = with(gemv_layer(), "qzeros", Dtype::I32, &[64, 7]);
    let layer = with(layer, "scales", Dtype::F16, &[64, 56]);
    assert_refused(&layer, "", "scales", "fit no usual size");
}

#[test]
fn impossible_settings_name_the_configuration_file() {
    for (config, problem) in [
        (awq_config("gemm", 0), "has group_size 0"),
        (awq_config("gemm", -2), "has group_size -2"),
        (awq_config("gemm", 1 << 40), "has group_size 1099511627776"),
        (awq_config("marlin", 64), "has AWQ version `marlin`"),
        (awq_config("gemm", 64).replace(":4", ":3"), "asks for 3-bit AWQ"),
        (awq_config("gemm", 64).replace("true", "false"), "AWQ without zero-points"),
        (awq_config("gemm", 64).replace("64", "\"64\""), "not an integer"),
        ("{".into(), "is not valid JSON"),
    ] {
        let message = message(&gemm_layer(), &config);
        assert!(message.contains("config.json: ") && message.contains(problem), "{message}");
    }
}

#[test]
fn impossible_values_are_found_where_they_are() {
    let gemm = awq_config("gemm", 64);
    let (nan, infinity, minus_one) = (0x7e01, 0x7c00, 0xbc00);
    let scales = |bits| with_value(gemm_layer(), "scales", 64 + 5, bits);
    let place = "for output feature 5, quant group 1";
    assert_refused(&scales(nan), &gemm, "scales", &format!("NaN {place}"));
    assert_refused(&scales(infinity), &gemm, "scales", &format!("inf {place}"));
    assert_refused(&scales(minus_one), &gemm, "scales", &format!("-1 {place}"));
    let zeros = with_value(gemv_fast_layer(), "qzeros", 3, infinity);
    assert_refused(&zeros, &awq_config("gemv_fast", 128), "qzeros", "inf for output feature 3");
    let bias = with(gemm_layer(), "bias", Dtype::F16, &[64]);
    assert_refused(&with_value(bias, "bias", 2, nan), &gemm, "bias", "NaN for output feature 2");
    // Padding is not read.
    let padded = with_value(gemv_layer(), "scales", 15, nan);
    assert_eq!(message(&padded, &awq_config("gemv", 64)), "");
}

#[test]
fn other_libraries_layers_are_refused_by_name() {
    let refusal = |tensors: &Tensors, library: &str| {
        let message = message(tensors, "");
        assert!(message.contains(&format!("belongs to a {library} layer")), "{message}");
        assert!(message.contains("awq-g<SIZE>"), "{message}");
    };
    for (suffix, library) in [
        ("B", "Marlin-packed GPTQ"),
        ("weight_packed", "compressed-tensors"),
        ("weight_scale_inv", "block FP8"),
        ("gate_up_proj_blocks", "gpt-oss MXFP4"),
        ("weight:qdata", "TorchAO"),
    ] {
        let alone = Tensors::from([(format!("l.{suffix}"), filled(Dtype::F32, &[1], 0))]);
        refusal(&alone, library);
    }
}

#[test]
fn a_layer_that_is_not_there_gets_a_helpful_answer() {
    let mut tensors = gemm_layer();
    tensors.insert("model.norm.weight".into(), filled(Dtype::F16, &[4], 0));
    let folder = checkpoint(&tensors, &awq_config("gemm", 64));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let message = |path: &str| checkpoint.load_layer(path).unwrap_err().to_string();
    assert!(message("l.qweight").contains("name the layer, `l`"));
    assert!(message("model.norm").contains("is not quantized (F16 [4])"));
    assert!(message("nothing").contains("is not in the checkpoint"));
}

#[test]
fn the_tensors_outweigh_a_configuration_of_another_kind() {
    let gptq = r#"{"quantization_config":{"quant_method":"gptq","bits":4,"group_size":32}}"#;
    assert_eq!(message(&gemm_layer(), gptq), "");
    assert_eq!(message(&gemv_layer(), &awq_config("gemm", 64)), "");
    let float = Tensors::from([("l.weight".into(), filled(Dtype::F16, &[8, 8], 0))]);
    let folder = checkpoint(&float, &awq_config("gemm", 64));
    assert!(Checkpoint::open(folder.path()).unwrap().layers().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn flipped_and_cut_files_load_or_fail_cleanly(
        case in 0..AWQ_CASES.len(),
        flips in prop::collection::vec((0usize..1200, any::<u8>()), 0..6),
        cut in prop::option::of(0usize..4000),
    ) {
        let mut bytes = fs::read(golden(AWQ_CASES[case]).join("model.safetensors")).unwrap();
        for (at, to) in flips {
            bytes[at] = to;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        fs::copy(golden(AWQ_CASES[case]).join("config.json"), folder.path().join("config.json"))?;
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
        dims in prop::array::uniform6(prop::sample::select(vec![0usize, 1, 2, 4, 8, 16, 64, 128])),
        wide in any::<bool>(),
        group in prop::sample::select(vec![-1i64, 1, 8, 32, 64, 128, 4_000_000_000]),
        version in prop::sample::select(vec!["gemm", "gemv", "gemv_fast"]),
    ) {
        let [a, b, c, d, e, f] = dims;
        let code = if wide { Dtype::I32 } else { Dtype::I16 };
        let zero = if wide { Dtype::I32 } else { Dtype::F16 };
        let layer = with(Tensors::new(), "qweight", code, &[a, b]);
        let layer = with(layer, "qzeros", zero, &[c, d]);
        let layer = with(layer, "scales", Dtype::F16, &[e, f]);
        message(&layer, &awq_config(version, group));
    }
}
