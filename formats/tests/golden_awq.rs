//! Checkpoints that AutoAWQ wrote decode to the weights that its kernels compute, bit for bit.

mod support;

use qtune_formats::{Checkpoint, Group, Rounding};
use std::collections::BTreeMap;
use std::fs;
use support::{assert_decodes_to, golden, read, write, Tensors, AWQ_CASES};

#[test]
fn every_golden_case_decodes_bit_for_bit() {
    for case in AWQ_CASES {
        let checkpoint = Checkpoint::open(golden(case)).unwrap();
        assert_decodes_to(&checkpoint, &read(&golden(case).join("expected.safetensors")));
    }
}

#[test]
fn layers_know_their_format_packing_and_rounding() {
    for (case, format, layout, rounding) in [
        ("gemm_g128", "awq-g128", "gemm", Rounding::F16),
        ("gemm_g64_bias", "awq-g64", "gemm", Rounding::F16),
        ("gemm_g32", "awq-g32", "gemm", Rounding::F16),
        ("gemv_g128", "awq-g128", "gemv", Rounding::F32),
        ("gemv_g64", "awq-g64", "gemv", Rounding::F32),
        ("gemv_fast_g128", "awq-g128-fast", "gemv_fast", Rounding::F16),
    ] {
        let checkpoint = Checkpoint::open(golden(case)).unwrap();
        let layer = &checkpoint.layers()[0];
        assert_eq!((layer.format.as_str(), layer.layout), (format, layout));
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        assert_eq!((loaded.rounding, loaded.spec.name.as_str()), (rounding, format));
    }
}

#[test]
fn the_packing_is_recognised_without_a_configuration() {
    for case in AWQ_CASES {
        let tensors = read(&golden(case).join("model.safetensors"));
        let folder = support::checkpoint(&tensors, "");
        let with = Checkpoint::open(golden(case)).unwrap();
        let without = Checkpoint::open(folder.path()).unwrap();
        for (with, without) in with.layers().iter().zip(without.layers()) {
            assert_eq!(with.layout, without.layout, "{case}");
            assert_eq!((with.n, with.k), (without.n, without.k), "{case}");
            assert_eq!(with.group_size, without.group_size, "{case}");
        }
    }
}

#[test]
fn a_checkpoint_split_over_shards_decodes_the_same() {
    for case in AWQ_CASES {
        let folder = tempfile::tempdir().unwrap();
        let tensors = read(&golden(case).join("model.safetensors"));
        // Alternately, so that the tensors of one layer lie in different shards.
        let mut shards = [Tensors::new(), Tensors::new()];
        let mut map = BTreeMap::new();
        for (index, (name, tensor)) in tensors.into_iter().enumerate() {
            map.insert(name.clone(), format!("model-0000{}-of-00002.safetensors", index % 2 + 1));
            shards[index % 2].insert(name, tensor);
        }
        for (index, shard) in shards.iter().enumerate() {
            let name = format!("model-0000{}-of-00002.safetensors", index + 1);
            write(&folder.path().join(name), shard);
        }
        let index = serde_json::json!({ "metadata": { "total_size": 0 }, "weight_map": map });
        let index_path = folder.path().join("model.safetensors.index.json");
        fs::write(&index_path, index.to_string()).unwrap();
        fs::copy(golden(case).join("config.json"), folder.path().join("config.json")).unwrap();

        let expected = read(&golden(case).join("expected.safetensors"));
        for path in [folder.path(), &index_path] {
            let checkpoint = Checkpoint::open(path).unwrap();
            assert_eq!(checkpoint.files().count(), 2);
            assert!(checkpoint.layers()[0].tensors.iter().any(|t| t.file.contains("00001")));
            assert!(checkpoint.layers()[0].tensors.iter().any(|t| t.file.contains("00002")));
            assert_decodes_to(&checkpoint, &expected);
        }
    }
}

#[test]
fn one_file_of_a_folder_opens_with_the_folder_s_configuration() {
    let path = golden("gemv_g64").join("model.safetensors");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.layers()[0].group, Group::Size(64));
}

#[test]
fn weight_shapes_count_the_layers_that_share_them() {
    let mut tensors = Tensors::new();
    for layer in ["model.layers.10.q", "model.layers.2.q", "model.layers.2.k"] {
        for (name, tensor) in support::gemm_layer() {
            tensors.insert(name.replacen('l', layer, 1), tensor);
        }
    }
    let plain = support::filled(safetensors::Dtype::F16, &[64], 0);
    tensors.insert("model.layers.2.k.bias".into(), plain.clone());
    tensors.insert("model.norm.weight".into(), plain);
    let folder = support::checkpoint(&tensors, &support::awq_config("gemm", 64));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let shapes = checkpoint.weight_shapes();
    let counts: Vec<_> = shapes.iter().map(|s| (s.n, s.k, s.has_bias, &s.layers[..])).collect();
    let without = ["model.layers.2.q".to_string(), "model.layers.10.q".to_string()];
    let with = ["model.layers.2.k".to_string()];
    assert_eq!(counts, [(64, 128, true, &with[..]), (64, 128, false, &without[..])]);
    let plain: Vec<&str> = checkpoint.plain_tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(plain, ["model.norm.weight"]);
}
