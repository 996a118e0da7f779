//! How fast layers are loaded: bytes of checkpoint per second on one core, from the bytes of the file
//! to logical codes, and from those to the layouts of the kernel families.
//!
//! `cargo bench -p qtune-runtime` prints the figures.

use criterion::{BenchmarkId, Criterion, Throughput};
use qtune_codegen::{CodeRow, Layout};
use qtune_formats::{Checkpoint, QuantizedLinear};
use qtune_ir::Problem;
use safetensors::tensor::{Dtype, TensorView};
use std::hint::black_box;
use tempfile::TempDir;

/// Output and input features of the layer, and weights per quant group.
const SIZES: [usize; 3] = [4096, 4096, 128];

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
fn words(qweight: [usize; 2]) -> TempDir {
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
fn flat_blocks() -> TempDir {
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

/// Blocks of 32 codes with an f16 scale before them, in a GGUF file (type 2 of its list).
fn row_blocks() -> TempDir {
    let [n, k, _] = SIZES;
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend([1u64, 0].into_iter().flat_map(u64::to_le_bytes));
    let name = "layer.weight";
    file.extend((name.len() as u64).to_le_bytes());
    file.extend(name.bytes());
    file.extend(2u32.to_le_bytes());
    file.extend([k as u64, n as u64].into_iter().flat_map(u64::to_le_bytes));
    file.extend(2u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    let block = [&0x2400u16.to_le_bytes()[..], &mixed(16)].concat();
    file.extend(block.repeat(n * k / 32));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("model.gguf"), file).expect("a file");
    folder
}

/// The row tiles of a layer, as serving packs them.
fn pack(layer: &QuantizedLinear, layout: &Layout) -> usize {
    let groups = layer.groups();
    let rows = layout.tile_rows() as usize;
    let row = |n: u32| CodeRow::Nibbles(layer.codes.row(n as usize));
    let tile = |tile: u32| {
        let first = tile as usize * rows;
        let entries = first * groups..(first + rows).min(layer.n) * groups;
        let params: Vec<Vec<f32>> =
            layer.params.iter().map(|param| param.values.to_f32(entries.clone())).collect();
        let weights = layout.pack_weight_tile(tile, &row);
        let params = layout.pack_param_tile(&params);
        black_box(weights).len() + black_box(params).len()
    };
    (0..layout.tiles()).map(tile).sum()
}

fn main() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one.install(|| {
        let mut criterion = Criterion::default().configure_from_args().sample_size(10);
        let [n, k, _] = SIZES;
        measure(&mut criterion, "packed along N", "model.safetensors", &words([k, n / 8]));
        measure(&mut criterion, "packed along K", "model.safetensors", &words([k / 8, n]));
        measure(&mut criterion, "in flat blocks", "model.safetensors", &flat_blocks());
        measure(&mut criterion, "in blocks of a row", "model.gguf", &row_blocks());
        criterion.final_summary();
    });
}

fn measure(criterion: &mut Criterion, name: &str, file: &str, folder: &TempDir) {
    let checkpoint = Checkpoint::open(folder.path().join(file)).expect("a checkpoint");
    let layer = checkpoint.load_layer("layer").expect("a layer");
    let bytes: usize = checkpoint.layers()[0].tensors.iter().map(|tensor| tensor.bytes).sum();
    let mut group = criterion.benchmark_group(format!("4 bits {name}"));
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("decode", |b| b.iter(|| checkpoint.load_layer("layer")));
    let [n, k, _] = SIZES;
    let problem = format!("w4a16.{}.f16-f16.n{n}.k{k}.m1", layer.spec.name);
    let problem: Problem = problem.parse().expect("a problem");
    let schedules = [
        "gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared acc=half2 cache=stream \
         dequant=(magic q)",
        "mma tile=8x64x256 warps=1x4 stages=4 split=1 swizzle=xor raster=rows dequant=(magic q)",
        "mma tile=8x64x256 warps=1x4 stages=4 split=1 swizzle=xor raster=rows dequant=(pair q)",
    ];
    for (name, schedule) in ["gemv", "mma", "table"].into_iter().zip(schedules) {
        let schedule = schedule.parse().expect("a schedule");
        let layout = Layout::new(&problem, &layer.spec, &schedule).expect("a layout");
        group.bench_function(BenchmarkId::new("pack", name), |b| b.iter(|| pack(&layer, &layout)));
    }
    group.finish();
}
