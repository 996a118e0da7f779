//! GGUF files that ggml wrote decode to the weights that it computes, bit for bit.

mod support;

use qtune_formats::{Checkpoint, Rounding};
use std::fs;
use std::path::Path;
use support::{golden_gguf, read, GGUF_CASES};

/// Compares every layer of a file with the expected weights beside it; how many layers there are.
fn assert_decodes(folder: &Path) -> usize {
    let checkpoint = Checkpoint::open(folder.join("model.gguf")).unwrap();
    let expected = read(&folder.join("expected.safetensors"));
    for layer in checkpoint.layers() {
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        let wanted = &expected[&format!("{}.weight", layer.path)];
        assert_eq!(wanted.shape, [loaded.n, loaded.k]);
        assert_eq!(loaded.rounding, Rounding::F32);
        let decoded: Vec<u8> = loaded.dequantize().iter().flat_map(|w| w.to_le_bytes()).collect();
        assert!(decoded == wanted.bytes, "{}: {}", folder.display(), layer.path);
    }
    checkpoint.layers().len()
}

#[test]
fn every_golden_case_decodes_bit_for_bit_and_knows_its_format() {
    for (case, format) in GGUF_CASES {
        assert_eq!(assert_decodes(&golden_gguf(case)), 1, "{case}");
        let checkpoint = Checkpoint::open(golden_gguf(case).join("model.gguf")).unwrap();
        let layer = &checkpoint.layers()[0];
        let shown = (layer.path.as_str(), layer.format.as_str(), layer.layout);
        assert_eq!(shown, ("blk.0.attn_q", format, "blocks"));
        assert!(checkpoint.plain_tensors().is_empty());
    }
}

#[test]
fn a_model_of_mixed_types_has_a_format_per_layer_and_plain_norms() {
    let folder = golden_gguf("tiny_llama_mixed");
    assert_eq!(assert_decodes(&folder), 9);
    let checkpoint = Checkpoint::open(folder.join("model.gguf")).unwrap();
    let format = |path: &str| checkpoint.layer(path).unwrap().format.clone();
    for (path, expected) in [
        ("token_embd", "q4_k"),
        ("output", "q6_k"),
        ("blk.0.attn_v", "q6_k"),
        ("blk.0.attn_output", "q5_k"),
        ("blk.0.ffn_gate", "q4_0"),
        ("blk.0.ffn_up", "q8_0"),
        ("blk.0.ffn_down", "iq4_xs"),
    ] {
        assert_eq!(format(path), expected);
    }
    let plain: Vec<_> = checkpoint.plain_tensors().iter().map(|t| (&*t.name, &*t.dtype)).collect();
    let norms = ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"];
    assert_eq!(plain, norms.map(|name| (name, "F32")));
    let error = checkpoint.load_layer("output_norm").unwrap_err().to_string();
    assert!(error.contains("is not quantized (F32 [256])"), "{error}");
}

/// A file's bytes with the metadata of one part of a split checkpoint put first.
fn part(file: &[u8], index: u16, count: u16) -> Vec<u8> {
    let mut bytes = file[..16].to_vec();
    let keys = u64::from_le_bytes(file[16..24].try_into().unwrap());
    bytes.extend((keys + 2).to_le_bytes());
    for (key, value) in [("split.no", index), ("split.count", count)] {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.bytes());
        bytes.extend(2u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    // The data keeps its distance from the multiple of 32 where it begins.
    let moved = bytes.len() - 24;
    assert_eq!(moved, 8 + 8 + 6 + 8 + 11 + 6);
    let infos_end = infos_end(file);
    bytes.extend(&file[24..infos_end]);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(&file[infos_end.next_multiple_of(32)..]);
    bytes
}

/// Where the only tensor's entry ends: after its offset 0.
fn infos_end(file: &[u8]) -> usize {
    let name = b"attn_q.weight";
    let at = file.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    at + 4 + 2 * 8 + 4 + 8
}

#[test]
fn split_files_are_opened_together_and_must_be_complete() {
    let folder = tempfile::tempdir().unwrap();
    let at = |number| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    let first = fs::read(golden_gguf("q4_k").join("model.gguf")).unwrap();
    let mut second = fs::read(golden_gguf("q8_0").join("model.gguf")).unwrap();
    let name = second.windows(6).position(|window| window == b"attn_q").unwrap();
    second[name..name + 6].copy_from_slice(b"attn_k");
    let message = || Checkpoint::open(folder.path()).unwrap_err().to_string();
    fs::write(at(1), part(&first, 0, 2)).unwrap();
    assert!(message().contains("is one of 2 parts, of which number 2 is missing"));
    second[name + 5] = b'q';
    let copy = part(&second, 0, 2);
    second[name + 5] = b'k';
    fs::write(at(2), copy).unwrap();
    assert!(message().contains("is another part than its name says"));
    let mut renamed = second.clone();
    renamed[name + 5] = b'q';
    let mut bytes = part(&renamed, 1, 2);
    let name = bytes.windows(6).position(|window| window == b"attn_q").unwrap();
    bytes[name + 5] = b'k';
    fs::write(at(2), bytes).unwrap();
    for path in [folder.path().to_path_buf(), at(1), at(2)] {
        let checkpoint = Checkpoint::open(path).unwrap();
        let formats: Vec<_> = checkpoint.layers().iter().map(|l| (&*l.path, &*l.format)).collect();
        assert_eq!(formats, [("blk.0.attn_k", "q8_0"), ("blk.0.attn_q", "q4_k")]);
    }
    fs::write(folder.path().join("other.gguf"), &first).unwrap();
    assert!(message().contains("holds several checkpoints"));
}
