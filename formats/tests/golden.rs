//! Checkpoints that libraries wrote decode to the weights that the libraries compute, bit for bit, and
//! say what they are.

mod support;

use qtune_formats::Checkpoint;
use std::collections::HashMap;
use support::{checkpoint, golden_of, read, write_with_notes};

/// Folder, format, layout, tensors that belong to no layer.
const CASES: [(&str, &str, &str, usize); 22] = [
    ("bitsandbytes/llm_int8", "bnb8-ch", "rows", 0),
    ("compressed_tensors/deepseek_fp8_block128", "fp8-e4m3-g128-a8", "a scale per block", 0),
    ("compressed_tensors/fp8_block128", "fp8-e4m3-g128-a8", "a scale per block", 0),
    ("compressed_tensors/fp8_channel_dynamic", "fp8-e4m3-ch-a8", "a scale per row", 0),
    ("compressed_tensors/fp8_tensor_static", "fp8-e4m3-ch-a8-static", "a scale per tensor", 2),
    ("compressed_tensors/mxfp4", "mxfp4-b32", "mxfp4-pack-quantized", 0),
    ("compressed_tensors/mxfp8", "mxfp8-b32", "mxfp8-quantized", 0),
    ("compressed_tensors/nvfp4", "nvfp4-b16", "nvfp4-pack-quantized", 0),
    ("compressed_tensors/int8_w8a8_channel", "int8-ch-bf16-a8", "int-quantized", 0),
    (
        "compressed_tensors/old011_w3_sym_g128",
        "int3-g128-bf16",
        "pack-quantized, whole codes per word",
        0,
    ),
    ("compressed_tensors/old011_w4_actorder_group", "int4-g64-actorder-bf16", "pack-quantized", 0),
    ("compressed_tensors/w3a16_sym_g128_dense", "int3-g128-bf16", "pack-quantized", 0),
    ("compressed_tensors/w4a16_asym_g64", "int4-g64-asym", "pack-quantized", 0),
    ("compressed_tensors/w4a16_sym_channel", "int4-ch-bf16", "pack-quantized", 0),
    ("compressed_tensors/w4a16_sym_g128", "int4-g128-bf16", "pack-quantized", 0),
    ("compressed_tensors/w8a16_sym_g128", "int8-g128-bf16", "pack-quantized", 0),
    ("hqq/hqq3_g64_axis1", "hqq-w3-g64-bf16", "axis 1", 0),
    ("hqq/hqq4_g64_axis0", "hqq-g64-axis0", "axis 0", 0),
    ("hqq/hqq4_g64_axis1", "hqq-g64", "axis 1", 0),
    ("marlin/gptq_marlin_g128", "gptq-g128", "marlin", 0),
    ("marlin/gptq_marlin_gchan", "gptq-ch", "marlin", 0),
    ("torchao/int4_tile_packed_g64", "torchao-int4-g64", "tile packed", 0),
];

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn every_golden_case_decodes_bit_for_bit_and_knows_its_format() {
    for (case, format, layout, plain) in CASES {
        let expected = read(&golden_of(case).join("expected.safetensors"));
        let checkpoint = Checkpoint::open(golden_of(case)).unwrap();
        assert!(!checkpoint.layers().is_empty(), "{case}");
        assert_eq!(checkpoint.plain_tensors().len(), plain, "{case}");
        for layer in checkpoint.layers() {
            assert_eq!((layer.format.as_str(), layer.layout), (format, layout), "{case}");
            let loaded = checkpoint.load_layer(&layer.path).unwrap();
            let wanted = |suffix: &str| expected.get(&format!("{}.{suffix}", layer.path));
            assert_eq!(wanted("weight").unwrap().shape, [loaded.n, loaded.k]);
            let same = bytes(&loaded.dequantize()) == wanted("weight").unwrap().bytes;
            assert!(same, "{case}: {}", layer.path);
            let bias = loaded.bias.as_deref().map(bytes);
            assert_eq!(bias.as_ref(), wanted("bias").map(|bias| &bias.bytes), "{case}");
        }
    }
}

#[test]
fn tensors_alone_tell_the_format() {
    // Only the metadata of the file says where padding starts.
    let told = |layout: &str| layout != "tile packed";
    for (case, format, _, _) in CASES.into_iter().filter(|(_, _, layout, _)| told(layout)) {
        let folder = checkpoint(&read(&golden_of(case).join("model.safetensors")), "");
        let opened = Checkpoint::open(folder.path()).unwrap();
        // What activations are to become stands in the configuration alone.
        let format = format.split("-a8").next().unwrap_or(format);
        assert_eq!(opened.layers()[0].format, format, "{case}");
    }
}

#[test]
fn stacked_experts_are_one_layer_whose_rows_follow_each_other() {
    let folder = golden_of("mxfp4_gptoss/experts");
    let expected = read(&folder.join("expected.safetensors"));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let paths = checkpoint.layers().iter().map(|layer| layer.path.as_str());
    let experts = "model.layers.0.mlp.experts";
    let wanted = [format!("{experts}.down_proj"), format!("{experts}.gate_up_proj")];
    assert!(paths.eq(wanted.iter().map(String::as_str)) && checkpoint.plain_tensors().is_empty());
    for layer in checkpoint.layers() {
        let said = (layer.format.as_str(), layer.layout, layer.has_bias);
        assert_eq!(said, ("mxfp4-b32", "experts", true));
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        let (rows, weights) = (loaded.n / 2, loaded.dequantize());
        // The library gives the transposed matrices, [E, K, rows].
        let weight = |at: usize| {
            let (expert, k, row) = (at / rows / loaded.k, at / rows % loaded.k, at % rows);
            weights[(expert * rows + row) * loaded.k + k]
        };
        let transposed: Vec<f32> = (0..weights.len()).map(weight).collect();
        assert_eq!(expected[&layer.path].shape, [2, loaded.k, rows]);
        assert!(bytes(&transposed) == expected[&layer.path].bytes, "{}", layer.path);
        assert_eq!(loaded.bias.map(|bias| bias.len()), Some(loaded.n));
    }
}

#[test]
fn plain_signed_nibbles_decode_to_the_sum_in_f32() {
    let folder = golden_of("torchao/int4_plain_g128");
    let expected = read(&folder.join("expected.safetensors"));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let layer = &checkpoint.layers()[0];
    assert_eq!((layer.format.as_str(), layer.layout), ("torchao-int4-g128", "plain"));
    let loaded = checkpoint.load_layer(&layer.path).unwrap();
    let wanted = |suffix: &str| &expected[&format!("{}.{suffix}", layer.path)].bytes;
    let (mut codes, mut scratch) = (vec![0; loaded.k], Vec::new());
    for (n, signed) in wanted("codes_signed").chunks(loaded.k).enumerate() {
        loaded.codes.block(n..n + 1, &mut scratch).unpack_row(n, &mut codes);
        assert!(codes.iter().zip(signed).all(|(code, signed)| *code as i8 - 8 == *signed as i8));
    }
    close(&loaded.dequantize(), wanted("weight_f32"), 1e-7);
}

/// Checks that weights are those of a tensor of f32, but for a tolerance.
fn close(weights: &[f32], wanted: &[u8], tolerance: f32) {
    assert_eq!(4 * weights.len(), wanted.len());
    let wanted = wanted.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    for (weight, wanted) in weights.iter().zip(wanted) {
        assert!((weight - wanted).abs() <= tolerance, "{weight}, not {wanted}");
    }
}

#[test]
fn codes_of_vectors_are_decoded_to_what_they_name() {
    for (case, format, layout, suffix) in [
        ("aqlm/aqlm_1x12", "aqlm-1x12", "one codebook", "weight_f32"),
        ("aqlm/aqlm_2x8", "aqlm-2x8", "two codebooks", "weight_f32"),
        ("quip_sharp/e8p_2bit", "quip-e8p", "E8P12", "weight"),
    ] {
        let expected = read(&golden_of(case).join("expected.safetensors"));
        let checkpoint = Checkpoint::open(golden_of(case)).unwrap();
        let layer = &checkpoint.layers()[0];
        assert_eq!((layer.format.as_str(), layer.layout), (format, layout), "{case}");
        assert!(checkpoint.layers().len() == 1 && checkpoint.plain_tensors().is_empty());
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        let wanted = &expected[&format!("{}.{suffix}", layer.path)];
        assert_eq!(wanted.shape, [loaded.n, loaded.k]);
        close(&loaded.dequantize(), &wanted.bytes, 1e-6);
        let bias = expected.get(&format!("{}.bias", layer.path)).map(|bias| &bias.bytes);
        assert_eq!(loaded.bias.as_deref().map(bytes).as_ref(), bias, "{case}");
    }
}

#[test]
fn padding_of_tiles_is_left_out() {
    let folder = golden_of("torchao/int4_tile_packed_g64");
    let name = "model.layers.0.mlp.up_proj";
    let whole = Checkpoint::open(&folder).unwrap().load_layer(name).unwrap();
    let tensors = read(&folder.join("model.safetensors"));
    let cut = tempfile::tempdir().unwrap();
    let (n, k) = (30, 995);
    let note = format!(r#"{{"_type":"Int4TilePackedTo4dTensor","_data":{{"shape":[{n},{k}]}}}}"#);
    let notes = HashMap::from([(format!("{name}.weight"), note)]);
    write_with_notes(&cut.path().join("model.safetensors"), &tensors, Some(notes));
    let part = Checkpoint::open(cut.path()).unwrap().load_layer(name).unwrap();
    assert_eq!((part.n, part.k, part.groups()), (n, k, 16));
    let (whole_weights, weights) = (whole.dequantize(), part.dequantize());
    for (row, wanted) in weights.chunks(k).zip(whole_weights.chunks(whole.k)) {
        assert_eq!(row, &wanted[..k]);
    }
    assert_eq!(
        part.codes.block(0..1, &mut Vec::new()).row(0)[k / 2] >> 4,
        0,
        "nothing behind the last code"
    );
}
