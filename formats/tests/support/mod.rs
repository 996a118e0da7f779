//! Checkpoints for the tests: the golden ones, and small ones built tensor by tensor.

// Each test binary uses its own part of this file.
#![allow(dead_code)]

use safetensors::tensor::{serialize, Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The golden cases of AutoAWQ: written by its own packers, with the weights its kernels compute.
pub const AWQ_CASES: [&str; 6] =
    ["gemm_g128", "gemm_g64_bias", "gemm_g32", "gemv_g128", "gemv_g64", "gemv_fast_g128"];

/// The folder of a golden case.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/awq").join(case)
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
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, t)| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    fs::write(path, serialize(views, None).unwrap()).unwrap();
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

/// `config.json` of an AWQ model.
pub fn awq_config(version: &str, group_size: i64) -> String {
    format!(
        r#"{{"quantization_config":{{"quant_method":"awq","bits":4,"zero_point":true,
            "version":"{version}","group_size":{group_size}}}}}"#
    )
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
