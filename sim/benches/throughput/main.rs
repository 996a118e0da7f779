//! How fast the simulator is: multiply-accumulates per second of kernels of our own and of the
//! generator, on one and two threads, with and without checks, on the CPU's vector extensions and
//! without; how much memory it takes beside the kernel's buffers; and which targets that meets.
//!
//! `cargo bench -p qtune-sim` prints the figures. `bench/simulator.sh` also writes them to
//! `bench/results/simulator.json`.

mod kernels;
mod memory;
mod results;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use kernels::Kernel;
use qtune_sim::{run, RunOptions};

#[global_allocator]
static HEAP: memory::Counting = memory::Counting;

/// Names of the ways to run, and their options.
fn ways() -> [(&'static str, RunOptions); 4] {
    let one = RunOptions { threads: 1, ..RunOptions::default() };
    [
        ("one thread", one.clone()),
        ("two threads", RunOptions { threads: 2, ..one.clone() }),
        ("no checks", RunOptions { checks: false, ..one.clone() }),
        ("portable", RunOptions { portable: true, ..one }),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("criterion");
    let mut criterion = Criterion::default()
        .configure_from_args()
        .output_directory(&directory)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    let mut figures = Vec::new();
    for mut kernel in kernels::all()? {
        let bytes_over_buffers = memory::peak_over_buffers(&mut kernel)?;
        println!("{}: {bytes_over_buffers:.2} bytes per byte of its buffers", kernel.name);
        measure(&mut criterion, &mut kernel);
        figures.push(results::Measured { kernel, bytes_over_buffers });
    }
    criterion.final_summary();
    Ok(results::report(&directory, &figures)?)
}

fn measure(criterion: &mut Criterion, kernel: &mut Kernel) {
    let mut group = criterion.benchmark_group(kernel.name);
    group.throughput(Throughput::Elements(kernel.multiply_accumulates));
    group.sampling_mode(SamplingMode::Flat);
    for (way, options) in ways() {
        group.bench_function(BenchmarkId::from_parameter(way), |bencher| {
            bencher.iter(|| {
                let Kernel { module, entry, launch, memory, .. } = &mut *kernel;
                let report = run(module, entry, launch, memory, &options).expect("a sound launch");
                assert!(report.findings.is_empty(), "{}", report.findings[0]);
            });
        });
    }
    group.finish();
}
