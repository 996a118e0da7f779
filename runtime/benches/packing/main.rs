//! How fast layers are loaded: bytes of checkpoint per second and core, from the bytes of the file to
//! logical codes, from those to the layouts of the kernel families, and both together; and how much
//! memory that takes at its peak.
//!
//! `cargo bench -p qtune-runtime` prints the figures; it fails where memory exceeds the layer and what is
//! made of it.

mod cpu;
mod files;
mod memory;

use cpu::ThreadTime;
use criterion::{BenchmarkId, Criterion, Throughput};
use qtune_codegen::Layout;
use qtune_formats::{Checkpoint, QuantizedLinear};
use qtune_ir::Problem;
use qtune_runtime::Packer;
use std::hint::black_box;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Output and input features of the layer, and weights per quant group.
const SIZES: [usize; 3] = [4096, 4096, 128];

/// Packs a layer as serving does, block after block; the bytes of what becomes of it.
fn pack(layer: &QuantizedLinear, layout: &Layout) -> usize {
    let packer = Packer::new(layer, layout);
    let mut scratch = Vec::new();
    let block = |block| {
        let tiles = black_box(packer.pack(block, &mut scratch));
        tiles.iter().map(|tile| tile.weights.len() + tile.params.len()).sum::<usize>()
    };
    (0..packer.blocks()).map(block).sum()
}

/// The layer with its codes decoded.
fn decoded(mut layer: QuantizedLinear) -> QuantizedLinear {
    layer.codes.bytes_mut();
    layer
}

fn main() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one.install(|| {
        let criterion = Criterion::default().with_measurement(ThreadTime);
        let mut criterion = criterion.configure_from_args().sample_size(10);
        let [n, k, _] = SIZES;
        let codes = "dequant=(magic q)";
        let products =
            "dequant=(- (* (stored d i) (sum (* (magic q) x))) (* (stored e j) (sum x)))";
        let st = "model.safetensors";
        measure(&mut criterion, ("packed along N", codes), st, &files::words([k, n / 8]));
        measure(&mut criterion, ("packed along K", codes), st, &files::words([k / 8, n]));
        measure(&mut criterion, ("in flat blocks", codes), st, &files::flat_blocks());
        measure(&mut criterion, ("in blocks of a row", codes), "model.gguf", &files::blocks());
        let folder = files::super_blocks();
        measure(&mut criterion, ("in super-blocks", products), "model.gguf", &folder);
        criterion.final_summary();
    });
}

/// Measures one packing; `term` ends the schedules.
fn measure(
    criterion: &mut Criterion<ThreadTime>,
    (name, term): (&str, &str),
    file: &str,
    folder: &TempDir,
) {
    let checkpoint = Checkpoint::open(folder.path().join(file)).expect("a checkpoint");
    let load = || checkpoint.load_layer("layer").expect("a layer");
    let layer = decoded(load());
    let bytes: usize = checkpoint.layers()[0].tensors.iter().map(|tensor| tensor.bytes).sum();
    let mut group = criterion.benchmark_group(format!("4 bits {name}"));
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("decode", |b| b.iter(|| decoded(load())));
    let [n, k, _] = SIZES;
    let problem = format!("w4a16.{}.f16-f16.n{n}.k{k}.m1", layer.spec.name);
    let problem: Problem = problem.parse().expect("a problem");
    let gemv = "gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared acc=half2 \
                cache=stream";
    let mma = "mma tile=8x64x256 warps=1x4 stages=4 split=1 pad=16 raster=rows";
    let table = "dequant=(pair q)";
    for (name, schedule, term) in [("gemv", gemv, term), ("mma", mma, term), ("table", mma, table)]
    {
        let schedule = format!("{schedule} {term}").parse().expect("a schedule");
        let layout = Layout::new(&problem, &layer.spec, &schedule).expect("a layout");
        group.bench_function(BenchmarkId::new("pack", name), |b| b.iter(|| pack(&layer, &layout)));
        let both = || pack(&load(), &layout);
        group.bench_function(BenchmarkId::new("decode and pack", name), |b| b.iter(both));
        let peak = memory::peak_of(both);
        let output = layout.weight_bytes() + layout.param_bytes();
        let share = peak as f64 / (bytes + output) as f64;
        println!("peak memory: {:.0} % of the layer and its output", 100.0 * share);
        assert!(share < 1.0, "{peak} bytes for a layer of {bytes} that is packed in {output}");
    }
    group.finish();
}
