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

/// Checkpoints of one 4-bit layer: the family, and the shapes of qweight, qzeros and scales.
fn shapes() -> [(&'static str, [[usize; 2]; 3]); 2] {
    let [n, k, group] = SIZES;
    let small = [[k / group, n / 8], [k / group, n]];
    [
        ("packed along N", [[k, n / 8], small[0], small[1]]),
        ("packed along K", [[k / 8, n], small[0], small[1]]),
    ]
}

/// A folder with a checkpoint of these shapes: any codes and zero-points, scales of 2^-6.
fn checkpoint(shapes: [[usize; 2]; 3]) -> TempDir {
    let words = |shape: [usize; 2]| -> Vec<u8> {
        let mix = |i: usize| (i as u32).wrapping_mul(0x9e37_79b1).to_le_bytes();
        (0..shape[0] * shape[1]).flat_map(mix).collect()
    };
    let scale = 0x2400u16.to_le_bytes();
    let data = [words(shapes[0]), words(shapes[1]), scale.repeat(shapes[2][0] * shapes[2][1])];
    let kinds = [("qweight", Dtype::I32), ("qzeros", Dtype::I32), ("scales", Dtype::F16)];
    let tensors = kinds.iter().zip(&data).zip(shapes).map(|(((name, dtype), data), shape)| {
        let view = TensorView::new(*dtype, shape.to_vec(), data).expect("data of that shape");
        (format!("layer.{name}"), view)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).expect("a file");
    folder
}

/// The row tiles of a layer, as serving packs them.
fn pack(layer: &QuantizedLinear, layout: &Layout) -> usize {
    let groups = layer.groups();
    let row = |n: u32| CodeRow::Nibbles(layer.codes.row(n as usize));
    let value = |n: u32, group: u32, param: usize| {
        layer.params[param].values.get(n as usize * groups + group as usize) as f32
    };
    let tile = |tile| {
        let weights = layout.pack_weight_tile(tile, &row);
        let params = layout.pack_param_tile(tile, &value);
        black_box(weights).len() + black_box(params).len()
    };
    (0..layout.tiles()).map(tile).sum()
}

fn main() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one.install(|| {
        let mut criterion = Criterion::default().configure_from_args().sample_size(10);
        for (name, shapes) in shapes() {
            measure(&mut criterion, name, shapes);
        }
        criterion.final_summary();
    });
}

fn measure(criterion: &mut Criterion, name: &str, shapes: [[usize; 2]; 3]) {
    let folder = checkpoint(shapes);
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
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
