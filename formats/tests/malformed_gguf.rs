//! Damaged and contradictory GGUF files: one-line errors that name file, tensor and remedy.

mod support;

use proptest::prelude::*;
use qtune_formats::Checkpoint;
use std::fs;
use support::{golden_gguf, GGUF_CASES};

/// A file built field by field.
struct Gguf {
    version: u32,
    keys: Vec<(&'static str, u32, Vec<u8>)>,
    tensors: Vec<Info>,
    data: Vec<u8>,
}

#[derive(Clone)]
struct Info {
    name: &'static str,
    dims: Vec<u64>,
    number: u32,
    offset: u64,
}

/// Two layers of Q4_0 `[1, 32]`, the second after the padding of the first.
fn usual() -> Gguf {
    let info = |name, offset| Info { name, dims: vec![32, 1], number: 2, offset };
    Gguf {
        version: 3,
        keys: vec![("general.alignment", 4, 32u32.to_le_bytes().to_vec())],
        tensors: vec![info("l.weight", 0), info("m.weight", 32)],
        data: vec![0; 50],
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

impl Gguf {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value_type, value) in &self.keys {
            text(&mut out, key);
            out.extend(value_type.to_le_bytes());
            out.extend(value);
        }
        for info in &self.tensors {
            text(&mut out, info.name);
            out.extend((info.dims.len() as u32).to_le_bytes());
            info.dims.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(info.number.to_le_bytes());
            out.extend(info.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

/// The message that opening these bytes, or else loading the layer `l`, ends with.
fn message(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let loaded = Checkpoint::open(&path).and_then(|c| c.load_layer("l"));
    let message = loaded.err().map_or_else(String::new, |e| e.to_string());
    assert!(message.is_empty() || message.contains("model.gguf: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Asserts that a changed file is refused with a message that holds all of `parts`.
fn assert_refused(change: impl Fn(&mut Gguf), parts: &[&str]) {
    let mut file = usual();
    change(&mut file);
    let message = message(&file.bytes());
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
}

#[test]
fn the_unchanged_file_is_accepted_in_both_versions() {
    assert_eq!(message(&usual().bytes()), "");
    assert_eq!(message(&Gguf { version: 2, ..usual() }.bytes()), "");
}

#[test]
fn other_versions_and_other_files_are_refused() {
    assert_refused(|f| f.version = 1, &["has version 1; 2 and 3 are read"]);
    assert_refused(|f| f.version = 4, &["has version 4"]);
    assert_refused(|f| f.version = 3u32.swap_bytes(), &["is a big-endian file"]);
    assert!(message(b"GGML\x03\0\0\0").contains("does not start with `GGUF`"));
    assert!(message(b"GG").contains("ends within the magic number"));
}

#[test]
fn impossible_metadata_is_named_by_its_key() {
    let key = |key: &'static str, value_type, value: &[u8]| (key, value_type, value.to_vec());
    let array =
        |element: u32, count: u64| [&element.to_le_bytes()[..], &count.to_le_bytes()[..]].concat();
    for (added, problem) in [
        (key("general.alignment", 4, &[0; 4]), "`general.alignment` is given twice"),
        (key("", 0, &[0]), "`` is empty"),
        (key("k", 13, &[]), "`k` has the unknown type 13"),
        (key("k", 7, &[2]), "`k` holds 2 as a truth value"),
        (key("k", 9, &array(9, 1)), "`k` is an array of arrays"),
        (key("k", 9, &array(8, 1 << 31)), "`k` has 2147483648 elements"),
        (key("k", 9, &array(12, 1 << 30)), "ends within a metadata array"),
        (key("k", 9, &array(8, 1 << 30)), "ends within"),
        (key("k", 8, &u64::MAX.to_le_bytes()), "ends within a metadata value"),
        (key("split.count", 4, &[2, 0, 0, 0]), "`split.count` has the type 4, not 2"),
        (key("split.count", 2, &[2, 0]), "`split.no` is missing where split.count is 2"),
    ] {
        assert_refused(|f| f.keys.push(added.clone()), &[problem]);
    }
    for alignment in [0u32, 48] {
        let value = alignment.to_le_bytes().to_vec();
        assert_refused(|f| f.keys[0].2 = value.clone(), &["no power of two"]);
    }
}

#[test]
fn tensors_that_cannot_be_are_named() {
    let l = "tensor `l.weight`: ";
    assert_refused(|f| f.tensors[0].number = 4, &[l, "has the type 4, which files do not have"]);
    assert_refused(|f| f.tensors[0].number = 16, &[l, "whose rows are no whole blocks"]);
    assert_refused(|f| f.tensors[0].dims = vec![], &[l, "has 0 dimensions"]);
    assert_refused(|f| f.tensors[0].dims = vec![1; 5], &[l, "has 5 dimensions"]);
    assert_refused(|f| f.tensors[0].dims = vec![u64::MAX, 1], &[l, "dimension that is too large"]);
    assert_refused(|f| f.tensors[0].dims = vec![1 << 62, 1 << 62], &[l, "size overflows"]);
    assert_refused(|f| f.tensors[0].dims = vec![32, 1 << 40], &[l, "of a file of"]);
    assert_refused(|f| f.tensors[1].dims = vec![32, 0], &["`m.weight`: ", "has no weights"]);
    assert_refused(|f| f.tensors[0].offset = 32, &[l, "begins at byte 32, not 0"]);
    assert_refused(|f| f.tensors[1].offset = 18, &["tensor `m.weight`: ", "byte 18, not 32"]);
    assert_refused(|f| f.tensors[1].name = "l.weight", &[l, "is listed twice"]);
    assert_refused(|f| f.data.truncate(49), &["tensor `m.weight`: ends at byte"]);
    let long = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_refused(|f| f.tensors[0].name = long, &["has a name of 64 bytes"]);
}

#[test]
fn types_that_are_not_read_and_scales_that_are_not_numbers_are_said() {
    assert_refused(
        |f| {
            f.tensors = vec![Info { number: 19, dims: vec![256, 1], ..f.tensors[0].clone() }];
        },
        &["tensor `l.weight`: is IQ1_S, which this version does not read", "q4_k"],
    );
    assert_refused(
        |f| f.data[..2].copy_from_slice(&[0, 0x7e]),
        &["tensor `l.weight`: ", "has the Q4_0 scale NaN for output feature 0, quant group 0"],
    );
}

#[test]
fn stacked_experts_are_rows_after_rows() {
    let mut file = usual();
    let dims = vec![32, 1, 2];
    file.tensors = vec![Info { dims, ..file.tensors[0].clone() }];
    file.data[18..20].copy_from_slice(&half::f16::ONE.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.gguf"), file.bytes()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let layer = checkpoint.layer("l").unwrap();
    assert_eq!((layer.layout, layer.n, layer.k), ("experts", 2, 32));
    let weights = checkpoint.load_layer("l").unwrap().dequantize();
    assert_eq!((weights[0], weights[32]), (0.0, -8.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn flipped_and_cut_files_load_or_fail_cleanly(
        case in 0..GGUF_CASES.len(),
        flips in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        late in prop::collection::vec((0usize..2800, any::<u8>()), 0..3),
        cut in prop::option::of(0usize..9000),
    ) {
        let mut bytes = fs::read(golden_gguf(GGUF_CASES[case].0).join("model.gguf")).unwrap();
        for (at, to) in flips.into_iter().chain(late) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.gguf"), bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for layer in checkpoint.layers() {
                if let Ok(loaded) = checkpoint.load_layer(&layer.path) {
                    prop_assert_eq!(loaded.dequantize().len(), loaded.n * loaded.k);
                }
            }
        }
    }

    /// Headers that lie about counts, lengths and sizes.
    #[test]
    fn any_header_is_read_or_refused(
        version in prop::sample::select(vec![2u32, 3]),
        counts in (0u64..4, 0u64..4, any::<bool>()),
        tail in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 4, 8, 9, 32, 128, 255]), 0..200),
    ) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        let (tensors, keys, huge) = counts;
        bytes.extend((if huge { u64::MAX } else { tensors }).to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(tail);
        message(&bytes);
    }
}
