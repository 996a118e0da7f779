//! Checkpoints for the tests: the golden ones, and small ones built tensor by tensor.

// Each test binary uses its own part of this file.
#![allow(dead_code)]

use qtune_formats::{Checkpoint, ParamValues};
use safetensors::tensor::{serialize, Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The golden cases of AutoAWQ: written by its own packers, with the weights its kernels compute.
pub const AWQ_CASES: [&str; 6] =
    ["gemm_g128", "gemm_g64_bias", "gemm_g32", "gemv_g128", "gemv_g64", "gemv_fast_g128"];

/// The folder of a golden case of any library.
pub fn golden_of(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints").join(case)
}

/// The folder of a golden case.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/awq").join(case)
}

/// The golden cases of GPTQModel and AutoGPTQ: written by their packers.
pub const GPTQ_CASES: [&str; 10] = [
    "autogptq_3bit_asym_g64",
    "autogptq_4bit_asym_g128",
    "v1_2bit_sym_g32",
    "v1_3bit_sym_g128",
    "v1_4bit_asym_g128_underflow",
    "v1_4bit_sym_g128",
    "v1_4bit_sym_g64_desc_act",
    "v1_4bit_sym_tailgroup",
    "v1_8bit_sym_gchan",
    "v2_4bit_asym_g64",
];

/// The folder of a golden case of GPTQ.
pub fn golden_gptq(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/gptq").join(case)
}

/// The golden cases of bitsandbytes' 4-bit formats: written by the library.
pub const BNB_CASES: [&str; 5] =
    ["fp4_double_bf16", "fp4_fp16", "nf4_bf16", "nf4_double_f32_storage_bf16", "nf4_double_fp16"];

/// The folder of a golden case of bitsandbytes.
pub fn golden_bnb(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden-checkpoints/bitsandbytes")
        .join(case)
}

/// The golden cases of GGUF: written by ggml's quantizers, one format each, and how qtune calls it.
pub const GGUF_CASES: [(&str, &str); 14] = [
    ("q4_0", "q4_0"),
    ("q4_1", "q4_1"),
    ("q5_0", "q5_0"),
    ("q5_1", "q5_1"),
    ("q8_0", "q8_0"),
    ("q2_k", "q2_k"),
    ("q3_k", "q3_k"),
    ("q4_k", "q4_k"),
    ("q5_k", "q5_k"),
    ("q6_k", "q6_k"),
    ("iq4_nl", "iq4_nl"),
    ("iq4_xs", "iq4_xs"),
    ("mxfp4", "mxfp4-b32"),
    ("nvfp4", "nvfp4-b16"),
];

/// The folder of a golden case of GGUF.
pub fn golden_gguf(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/gguf").join(case)
}

/// Compares every layer of a checkpoint with the expected tensors of its golden case: weights,
/// codes, zero-points and bias, bit for bit.
pub fn assert_decodes_to(checkpoint: &Checkpoint, expected: &Tensors) {
    assert!(!checkpoint.layers().is_empty());
    for layer in checkpoint.layers() {
        let want = |suffix: &str| expected.get(&format!("{}.{suffix}", layer.path));
        let loaded = checkpoint.load_layer(&layer.path).unwrap();
        let weight = want("weight").unwrap();
        assert_eq!(weight.shape, [loaded.n, loaded.k]);
        let decoded: Vec<u8> = loaded.dequantize().iter().flat_map(|w| w.to_le_bytes()).collect();
        assert!(decoded == weight.bytes, "{}: weights differ", layer.path);

        let order = loaded.k_order.clone().unwrap_or_else(|| (0..loaded.k as u32).collect());
        let (mut codes, mut scratch) = (vec![0; loaded.k], Vec::new());
        for (n, row) in want("codes").unwrap().bytes.chunks(loaded.k).enumerate() {
            loaded.codes.block(n..n + 1, &mut scratch).unpack_row(n, &mut codes);
            let row: Vec<u8> = order.iter().map(|k| row[*k as usize]).collect();
            assert_eq!(codes, row, "{}: codes of row {n}", layer.path);
        }
        match (loaded.param("z"), want("zeros")) {
            (Some(ParamValues::Code(zeros)), Some(wanted)) => assert_eq!(zeros, &wanted.bytes),
            // A symmetric layer has one zero-point, which is part of the expression.
            (None, Some(zeros)) if loaded.params.len() == 1 => {
                assert!(zeros.bytes.iter().all(|zero| *zero == 1 << (loaded.spec.bits - 1)));
            }
            _ => {}
        }
        let bias: Option<Vec<u8>> =
            loaded.bias.map(|bias| bias.iter().flat_map(|value| value.to_le_bytes()).collect());
        assert_eq!(bias.as_ref(), want("bias").map(|tensor| &tensor.bytes));
    }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor of this type and shape whose bytes are all `byte`.
pub fn filled(dtype: Dtype, shape: &[usize], byte: u8) -> Tensor {
    let bytes = vec![byte; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    Tensor { dtype, shape: shape.to_vec(), bytes }
}

/// All tensors of a file, by the reference reader.
pub fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView<'_>| Tensor {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().iter().map(|(name, view)| (name.clone(), tensor(view))).collect()
}

/// Writes tensors with the reference writer.
pub fn write(path: &Path, tensors: &Tensors) {
    write_with_notes(path, tensors, None);
}

/// As [`write`], with metadata.
pub fn write_with_notes(path: &Path, tensors: &Tensors, notes: Option<HashMap<String, String>>) {
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, t)| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    fs::write(path, serialize(views, notes).unwrap()).unwrap();
}

/// A folder with these tensors as `model.safetensors` and this `config.json`, if any.
pub fn checkpoint(tensors: &Tensors, config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), tensors);
    if !config.is_empty() {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    folder
}

/// The message that opening a checkpoint, or else loading its layer `l`, ends with.
pub fn message(tensors: &Tensors, config: &str) -> String {
    let folder = checkpoint(tensors, config);
    let loaded = Checkpoint::open(folder.path()).and_then(|c| c.load_layer("l"));
    let message = loaded.err().map_or_else(String::new, |e| e.to_string());
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Checks that layer `l` loads, and that it is refused with each of these tensors put in the place of
/// its own: suffix, type, shape, byte, what the message says.
pub fn refuses(layer: Tensors, cases: &[(&str, Dtype, &[usize], u8, &str)]) {
    assert_eq!(message(&layer, ""), "");
    for (name, dtype, shape, byte, problem) in cases {
        let mut tensors = layer.clone();
        tensors.insert(format!("l{name}"), filled(*dtype, shape, *byte));
        let message = message(&tensors, "");
        assert!(message.contains(problem), "{name}: {message}");
        assert!(message.contains("tensor `l"), "{name}: {message}");
    }
}

/// `config.json` of an AWQ model.
pub fn awq_config(version: &str, group_size: i64) -> String {
    format!(
        r#"{{"quantization_config":{{"quant_method":"awq","bits":4,"zero_point":true,
            "version":"{version}","group_size":{group_size}}}}}"#
    )
}

/// `config.json` of a GPTQ model; `more` holds further keys, each after a comma.
pub fn gptq_config(bits: i64, group_size: i64, sym: bool, more: &str) -> String {
    format!(
        r#"{{"quantization_config":{{"quant_method":"gptq","bits":{bits},"sym":{sym},
            "group_size":{group_size}{more}}}}}"#
    )
}

/// A consistent symmetric GPTQ layer `l` of N = 64, K = 128 with two groups of 64; scales are 0.
pub fn gptq_layer() -> Tensors {
    let mut g_idx = filled(Dtype::I32, &[128], 0);
    g_idx.bytes.chunks_mut(4).skip(64).for_each(|group| group[0] = 1);
    BTreeMap::from([
        ("l.qweight".into(), filled(Dtype::I32, &[16, 64], 0x21)),
        ("l.qzeros".into(), filled(Dtype::I32, &[2, 8], 0x77)),
        ("l.scales".into(), filled(Dtype::F16, &[2, 64], 0)),
        ("l.g_idx".into(), g_idx),
    ])
}

/// A consistent `gemm` layer `l` of N = 64, K = 128 with two groups of 64; scales are 0.
pub fn gemm_layer() -> Tensors {
    BTreeMap::from([
        ("l.qweight".into(), filled(Dtype::I32, &[128, 8], 0x21)),
        ("l.qzeros".into(), filled(Dtype::I32, &[2, 8], 0x43)),
        ("l.scales".into(), filled(Dtype::F16, &[2, 64], 0)),
    ])
}

/// A consistent `gemv` layer `l` of N = 64, K = 512 with groups of 64; scales are 0.
pub fn gemv_layer() -> Tensors {
    BTreeMap::from([
        ("l.qweight".into(), filled(Dtype::I32, &[64, 64], 0x21)),
        ("l.qzeros".into(), filled(Dtype::I32, &[64, 2], 0x43)),
        ("l.scales".into(), filled(Dtype::F16, &[64, 16], 0)),
    ])
}

/// A consistent `gemv_fast` layer `l` of N = 64, K = 512 with groups of 128; scales are 0.
pub fn gemv_fast_layer() -> Tensors {
    BTreeMap::from([
        ("l.qweight".into(), filled(Dtype::I16, &[16, 512], 0x21)),
        ("l.qzeros".into(), filled(Dtype::F16, &[8, 64], 0)),
        ("l.scales".into(), filled(Dtype::F16, &[8, 64], 0)),
    ])
}

/// A consistent NF4 layer `l` of N = 4, K = 96 in blocks of 64, which run over the ends of rows;
/// maxima are 0.
pub fn nf4_layer() -> Tensors {
    let state = r#"{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[4,96]}"#;
    let codebook = read(&golden_bnb("nf4_bf16").join("model.safetensors"))
        .remove("model.layers.0.mlp.down_proj.weight.quant_map")
        .unwrap();
    BTreeMap::from([
        ("l.weight".into(), filled(Dtype::U8, &[192, 1], 0x3a)),
        ("l.weight.absmax".into(), filled(Dtype::F32, &[6], 0)),
        ("l.weight.quant_map".into(), codebook),
        ("l.weight.quant_state.bitsandbytes__nf4".into(), text(state)),
    ])
}

/// A tensor of the bytes of `text`.
pub fn text(text: &str) -> Tensor {
    let bytes = text.as_bytes().to_vec();
    Tensor { dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
}
