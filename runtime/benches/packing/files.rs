//! Checkpoints of one layer in the packings that files have.

use crate::SIZES;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// A stored tensor: name after that of the layer, type, shape and bytes.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Bytes of which all values occur, in no order.
fn mixed(bytes: usize) -> Vec<u8> {
    (0..bytes / 4).flat_map(|i| (i as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

/// A folder with a checkpoint of one layer.
fn safetensors(tensors: Vec<Stored>) -> TempDir {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("data of that shape");
        (format!("layer.{name}"), view)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("a file");
    folder
}

/// Codes and zero-points in 32-bit words along N or along K, with f16 scales of 2^-6.
pub fn words(qweight: [usize; 2]) -> TempDir {
    let [n, k, group] = SIZES;
    let words = |name, [rows, columns]: [usize; 2]| -> Stored {
        (name, Dtype::I32, vec![rows, columns], mixed(4 * rows * columns))
    };
    let scales = 0x2400u16.to_le_bytes().repeat(k / group * n);
    safetensors(vec![
        words("qweight", qweight),
        words("qzeros", [k / group, n / 8]),
        ("scales", Dtype::F16, vec![k / group, n], scales),
    ])
}

/// Codes of a codebook in flat blocks of 64, with f32 maxima.
pub fn flat_blocks() -> TempDir {
    let [n, k, _] = SIZES;
    let state = format!(
        "{{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float16\",\"shape\":[{n},{k}]}}"
    );
    let maxima = 0.5f32.to_le_bytes().repeat(n * k / 64);
    let spec = qtune_formats::resolve("nf4-b64").expect("a format");
    let map = spec.codebook.values().iter().flat_map(|value| value.to_le_bytes()).collect();
    safetensors(vec![
        ("weight", Dtype::U8, vec![n * k / 2, 1], mixed(n * k / 2)),
        ("weight.absmax", Dtype::F32, vec![n * k / 64], maxima),
        ("weight.quant_map", Dtype::F32, vec![16], map),
        ("weight.quant_state.bitsandbytes__nf4", Dtype::U8, vec![state.len()], state.into_bytes()),
    ])
}

/// ggml's types 2 and 12: blocks of 32 codes with an f16 scale before them, and of 256 codes with two
/// f16 and 12 bytes of smaller scales.
const ROUND: (u32, usize, usize) = (2, 32, 2);
const SUPER: (u32, usize, usize) = (12, 256, 4);

/// A GGUF file of blocks.
pub fn blocks() -> TempDir {
    gguf(ROUND)
}

/// A GGUF file of super-blocks.
pub fn super_blocks() -> TempDir {
    gguf(SUPER)
}

/// A file of blocks of one type, so many codes and bytes of f16 scales each.
fn gguf((ggml_type, codes, scales): (u32, usize, usize)) -> TempDir {
    let [n, k, _] = SIZES;
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend([1u64, 0].into_iter().flat_map(u64::to_le_bytes));
    let name = "layer.weight";
    file.extend((name.len() as u64).to_le_bytes());
    file.extend(name.bytes());
    file.extend(2u32.to_le_bytes());
    file.extend([k as u64, n as u64].into_iter().flat_map(u64::to_le_bytes));
    file.extend(ggml_type.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    let smaller = if scales > 2 { 12 } else { 0 };
    let halves = 0x2400u16.to_le_bytes().repeat(scales / 2);
    let block = [halves, mixed(smaller + codes / 2)].concat();
    file.extend(block.repeat(n * k / codes));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("model.gguf"), file).expect("a file");
    folder
}
