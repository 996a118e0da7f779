//! `inspect` and `dequantize` on the golden checkpoints.

use crate::support::{copy_of, golden, golden_bnb, Qtune, GOLDEN};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::fs;

#[test]
fn dequantized_weights_are_those_of_the_formats_own_library_bit_for_bit() {
    let qtune = Qtune::new();
    let out = qtune.cache.path().join("w.safetensors");
    for (case, layer) in GOLDEN {
        let folder = golden(case);
        let (path, file) = (folder.to_str().unwrap(), out.to_str().unwrap());
        qtune.ok(&["dequantize", path, "--tensor", layer, "--out", file]);
        let (written, expected) =
            (fs::read(&out).unwrap(), fs::read(folder.join("expected.safetensors")).unwrap());
        let written = SafeTensors::deserialize(&written).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        assert_eq!(written.names(), ["weight"]);
        let (weight, wanted) = (
            written.tensor("weight").unwrap(),
            expected.tensor(&format!("{layer}.weight")).unwrap(),
        );
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, wanted.shape()), "{case}");
        assert!(weight.data() == wanted.data(), "{case}: weights differ");
    }
}

#[test]
fn inspect_lists_layers_with_their_shapes_and_formats() {
    let qtune = Qtune::new();
    let folder = golden("gemm_g64_bias");
    let path = folder.to_str().unwrap();
    let report = qtune.json(&["inspect", path, "--json"]);
    let layer = &report["layers"][0];
    assert_eq!(layer["path"], "model.layers.0.self_attn.q_proj");
    assert_eq!((&layer["n"], &layer["k"]), (&json!(96), &json!(192)));
    assert_eq!((&layer["format"], &layer["has_bias"]), (&json!("awq-g64"), &json!(true)));
    let text = qtune.ok(&["inspect", path]);
    assert!(text.contains("q_proj") && text.contains("awq-g64"), "{text}");
}

#[test]
fn a_sharded_checkpoint_is_read_through_its_index() {
    let qtune = Qtune::new();
    let folder = copy_of("gemv_g128");
    let at = |name: &str| folder.path().join(name);
    fs::rename(at("model.safetensors"), at("model-00001-of-00001.safetensors")).unwrap();
    let map: serde_json::Map<String, serde_json::Value> = ["qweight", "qzeros", "scales"]
        .map(|part| {
            let name = format!("model.layers.0.self_attn.k_proj.{part}");
            (name, json!("model-00001-of-00001.safetensors"))
        })
        .into_iter()
        .collect();
    let index = json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(at("model.safetensors.index.json"), index).unwrap();
    let report = qtune.json(&["inspect", folder.path().to_str().unwrap(), "--json"]);
    assert_eq!(report["layers"][0]["format"], "awq-g128");
}

#[test]
fn codebook_formats_are_named_and_dequantized_bit_for_bit() {
    let qtune = Qtune::new();
    let out = qtune.cache.path().join("w.safetensors");
    let up = "model.layers.0.mlp.up_proj";
    for (case, layer, format) in [
        ("nf4_bf16", "model.layers.0.self_attn.q_proj", "nf4-b64"),
        ("nf4_double_f32_storage_bf16", up, "nf4-b64-dq"),
        ("fp4_fp16", up, "fp4-b64"),
        ("fp4_double_bf16", up, "fp4-b64-dq"),
    ] {
        let folder = golden_bnb(case);
        let path = folder.to_str().unwrap();
        let report = qtune.json(&["inspect", path, "--json"]);
        let layers = report["layers"].as_array().unwrap();
        assert!(layers.iter().all(|layer| layer["format"] == format), "{case}: {layers:?}");
        qtune.ok(&["dequantize", path, "--tensor", layer, "--out", out.to_str().unwrap()]);
        let (written, expected) =
            (fs::read(&out).unwrap(), fs::read(folder.join("expected.safetensors")).unwrap());
        let written = SafeTensors::deserialize(&written).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        let wanted = expected.tensor(&format!("{layer}.weight")).unwrap();
        assert!(written.tensor("weight").unwrap().data() == wanted.data(), "{case}");
    }
}

#[test]
fn a_plain_layer_is_quantized_on_load_by_name() {
    let qtune = Qtune::new();
    let [first, again] =
        ["w.safetensors", "v.safetensors"].map(|name| qtune.cache.path().join(name));
    let [first, again] = [&first, &again].map(|path| path.to_str().unwrap());
    let folder = golden_bnb("nf4_double_f32_storage_bf16");
    let layer = "model.layers.0.mlp.up_proj";
    qtune.ok(&["dequantize", folder.to_str().unwrap(), "--tensor", layer, "--out", first]);
    // What was written is an ordinary f32 checkpoint of a module without a name.
    let renamed = qtune.cache.path().join("plain.safetensors");
    let bytes = fs::read(first).unwrap();
    let tensor = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = [("l.weight", tensor.tensor("weight").unwrap())];
    fs::write(&renamed, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let args = ["dequantize", renamed.to_str().unwrap(), "--tensor", "l", "--out", again];
    qtune.ok(&[&args[..], &["--format", "nf4-b64"]].concat());
    assert!(fs::read(first).unwrap() == fs::read(again).unwrap(), "codes and maxima are kept");
    let refused = qtune.run(&[&args[..], &["--format", "awq-g128"]].concat());
    assert!(refused.stderr.contains("needs calibration"), "{}", refused.stderr);
}

#[test]
fn a_gguf_file_of_mixed_types_is_listed_and_dequantized_bit_for_bit() {
    let qtune = Qtune::new();
    let out = qtune.cache.path().join("w.safetensors");
    let folder = golden("..").join("gguf/tiny_llama_mixed");
    let file = folder.join("model.gguf");
    let path = file.to_str().unwrap();
    let report = qtune.json(&["inspect", path, "--json"]);
    let layers = report["layers"].as_array().unwrap();
    let formats: std::collections::BTreeSet<_> =
        layers.iter().map(|layer| layer["format"].as_str().unwrap()).collect();
    assert_eq!(
        formats.into_iter().collect::<Vec<_>>(),
        ["iq4_xs", "q4_0", "q4_k", "q5_k", "q6_k", "q8_0"]
    );
    assert_eq!(report["plain_tensors"].as_array().unwrap().len(), 3);
    let text = qtune.ok(&["inspect", path]);
    assert!(text.contains("3 other tensors (3.1 kB: 3 F32)"), "{text}");
    let expected = fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    for layer in ["blk.0.attn_q", "blk.0.attn_v"] {
        qtune.ok(&["dequantize", path, "--tensor", layer, "--out", out.to_str().unwrap()]);
        let written = fs::read(&out).unwrap();
        let written = SafeTensors::deserialize(&written).unwrap();
        let wanted = expected.tensor(&format!("{layer}.weight")).unwrap();
        assert!(written.tensor("weight").unwrap().data() == wanted.data(), "{layer}");
    }
}
