//! Checkpoints that bitsandbytes wrote decode to the weights that it computes, bit for bit.

mod support;

use qtune_formats::{Checkpoint, Group, ParamValues, Rounding};
use support::{assert_decodes_to, golden_bnb, nf4_layer, read, BNB_CASES};

#[test]
fn every_golden_case_decodes_bit_for_bit() {
    for case in BNB_CASES {
        let checkpoint = Checkpoint::open(golden_bnb(case)).unwrap();
        let expected = read(&golden_bnb(case).join("expected.safetensors"));
        assert_decodes_to(&checkpoint, &expected);
        for layer in checkpoint.layers() {
            let loaded = checkpoint.load_layer(&layer.path).unwrap();
            let Some(ParamValues::F32(absmax)) = loaded.param("s") else { panic!("{case}") };
            let absmax: Vec<u8> = absmax.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(absmax == expected[&format!("{}.absmax", layer.path)].bytes, "{case}: absmax");
            assert_eq!(loaded.nested_map().is_some(), case.contains("double"), "{case}");
            let Some(map) = loaded.nested_map() else { continue };
            let [scales, codes, factors] = ["s", "c", "n"].map(|name| loaded.param(name).unwrap());
            for index in 0..scales.len() {
                let made = map.scale(codes.get(index) as u8, factors.get(index) as f32);
                assert_eq!(scales.get(index), f64::from(made), "{case}: block {index}");
            }
        }
    }
}

#[test]
fn layers_know_their_format_and_the_type_they_round_to() {
    for (case, format, rounding) in [
        ("fp4_double_bf16", "fp4-b64-dq", Rounding::F32ThenBf16),
        ("fp4_fp16", "fp4-b64", Rounding::F32ThenF16),
        ("nf4_bf16", "nf4-b64", Rounding::F32ThenBf16),
        ("nf4_double_f32_storage_bf16", "nf4-b64-dq", Rounding::F32),
        ("nf4_double_fp16", "nf4-b64-dq", Rounding::F32ThenF16),
    ] {
        let checkpoint = Checkpoint::open(golden_bnb(case)).unwrap();
        let layer = &checkpoint.layers()[0];
        assert_eq!((layer.format.as_str(), layer.layout), (format, "rows"), "{case}");
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        assert_eq!((loaded.spec.name.as_str(), loaded.rounding), (format, rounding), "{case}");
        assert!(checkpoint.plain_tensors().is_empty(), "{case}: every tensor belongs to a layer");
    }
}

#[test]
fn layers_are_recognised_without_a_configuration() {
    for case in BNB_CASES {
        let folder = support::checkpoint(&read(&golden_bnb(case).join("model.safetensors")), "");
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_decodes_to(&checkpoint, &read(&golden_bnb(case).join("expected.safetensors")));
    }
}

#[test]
fn blocks_that_cross_rows_become_smaller_ones_with_the_same_maxima() {
    let mut layer = nf4_layer();
    let absmax = layer.get_mut("l.weight.absmax").unwrap();
    absmax.bytes = (1..=6u16).flat_map(|block| f32::from(block).to_le_bytes()).collect();
    let folder = support::checkpoint(&layer, "");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let found = &checkpoint.layers()[0];
    assert_eq!((found.format.as_str(), found.layout), ("nf4-b32", "across-rows"));
    assert_eq!((found.n, found.k, found.group), (4, 96, Group::Size(32)));
    let loaded = checkpoint.load_layer("l").unwrap();
    let absmax = [[1.0, 1.0, 2.0], [2.0, 3.0, 3.0], [4.0, 4.0, 5.0], [5.0, 6.0, 6.0]];
    assert_eq!(loaded.param("s"), Some(&ParamValues::F32(absmax.concat())));
    // Codes 3 and 10 alternate; weights are rounded to bf16.
    let weights = loaded.dequantize();
    let of = |code: f32, absmax: f32| half::bf16::from_f32(code * absmax).to_f32();
    assert_eq!(weights[63], of(0.246_112_3, 1.0));
    assert_eq!(weights[64], of(-0.394_917_5, 2.0));
    assert_eq!(weights[3 * 96 + 95], of(0.246_112_3, 6.0));
}

#[test]
fn quantizing_what_the_library_dequantized_gives_its_codes_and_maxima_again() {
    for case in BNB_CASES {
        let checkpoint = Checkpoint::open(golden_bnb(case)).unwrap();
        let expected = read(&golden_bnb(case).join("expected.safetensors"));
        for layer in checkpoint.layers() {
            let stored = checkpoint.load_layer(&layer.path).unwrap();
            // Before the cast to the layer's type, which would move values off the codebook.
            let weight = expected[&format!("{}.weight_f32", layer.path)].clone();
            let plain = support::checkpoint(&[("l.weight".to_string(), weight)].into(), "");
            let plain = Checkpoint::open(plain.path()).unwrap();
            let format = layer.format.replace("-dq", "");
            let rows = std::sync::Mutex::new(Vec::new());
            let made = plain
                .quantize_layer("l", &format, &|done, of| rows.lock().unwrap().push((done, of)))
                .unwrap();
            assert_eq!(made.param("s"), stored.param("s"), "{case}");
            assert_eq!(made.spec.name, format);
            assert!(rows.lock().unwrap().contains(&(made.n, made.n)), "progress ends");
            let stored: Vec<f32> = (0..made.n * made.k).map(|i| value(&stored, i)).collect();
            let made: Vec<f32> = (0..made.n * made.k).map(|i| value(&made, i)).collect();
            assert!(made == stored, "{case}: codes");
        }
    }
}

/// The codebook's value of weight `index`: FP4 has two codes for zero.
fn value(layer: &qtune_formats::QuantizedLinear, index: usize) -> f32 {
    let code = layer.codes.get(index / layer.k, index % layer.k);
    layer.spec.codebook.values()[usize::from(code)]
}

#[test]
fn only_plain_layers_are_quantized_and_only_to_formats_without_calibration() {
    let checkpoint = Checkpoint::open(golden_bnb("nf4_bf16")).unwrap();
    let path = checkpoint.layers()[0].path.clone();
    let message = |format| checkpoint.quantize_layer(&path, format, &|_, _| {}).unwrap_err();
    assert!(message("nf4-b64").to_string().contains("is already quantized (nf4-b64)"));
    assert!(message("awq-g128").to_string().contains("it needs calibration"));
    let weight = support::filled(safetensors::Dtype::F16, &[4, 96], 0);
    let plain = support::checkpoint(&[("l.weight".to_string(), weight)].into(), "");
    let plain = Checkpoint::open(plain.path()).unwrap();
    let made = plain.quantize_layer("l", "nf4-b64", &|_, _| {}).unwrap();
    assert_eq!(made.spec.name, "nf4-b32", "blocks cross rows");
    assert!(made.dequantize().iter().all(|weight| *weight == 0.0));
    let error = plain.quantize_layer("l", "nf4-b64-dq", &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("`l.weight`") && error.contains("double quantization"), "{error}");
}
