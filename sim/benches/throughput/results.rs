//! Figures and targets, from what criterion wrote: a table, and the results file.

use std::io::ErrorKind;
use std::path::Path;

use crate::kernels::Kernel;
use crate::ways;
use serde_json::{json, Value};

/// A kernel that was measured.
pub struct Measured {
    pub kernel: Kernel,
    pub bytes_over_buffers: f64,
}

/// Least speed of two threads over one.
const TWO_THREADS: f64 = 1.7;
/// Most memory of a run over that of the kernel's buffers.
const MEMORY: f64 = 2.0;

/// Prints the figures of this run beside their targets, and writes them to the file that
/// `QTUNE_BENCH_RESULTS` names, if it names one.
pub fn report(criterion: &Path, measured: &[Measured]) -> std::io::Result<()> {
    // A run may be asked for some kernels only, or only to test them.
    let found = measured.iter().map(|m| figures(criterion, m));
    let found = found.filter(|f| !matches!(f, Err(e) if e.kind() == ErrorKind::NotFound));
    let kernels: Vec<Value> = found.collect::<std::io::Result<_>>()?;
    print_table(&kernels);
    let Ok(path) = std::env::var("QTUNE_BENCH_RESULTS") else { return Ok(()) };
    if kernels.len() < measured.len() {
        return Err(std::io::Error::other("not every kernel was measured"));
    }
    let variable = |name| std::env::var(name).unwrap_or_default();
    let all = json!({
        "what": "speed of the simulator, all checks on unless said otherwise",
        "date": variable("QTUNE_BENCH_DATE"),
        "cpu": variable("QTUNE_BENCH_CPU"),
        "command": "bench/simulator.sh",
        "kernels": kernels,
    });
    std::fs::write(path, format!("{all:#}\n"))
}

/// One line a kernel: what it reaches, and which targets it misses.
fn print_table(kernels: &[Value]) {
    println!("{:22} {:>9} {:>9} {:>8}  targets", "kernel", "G MAC/s", "2 threads", "memory");
    for kernel in kernels {
        let missed: Vec<&str> = (kernel["targets"].as_object().into_iter().flatten())
            .filter(|(_, target)| target["met"] == false)
            .map(|(name, _)| name.as_str())
            .collect();
        let verdict = if missed.is_empty() {
            "pass".to_owned()
        } else {
            format!("FAIL: {}", missed.join(", "))
        };
        println!(
            "{:22} {:>9.3} {:>9.2} {:>8.2}  {verdict}",
            kernel["kernel"].as_str().unwrap_or_default(),
            kernel["giga_macs_per_second"]["one_thread"].as_f64().unwrap_or_default(),
            kernel["two_threads_over_one"].as_f64().unwrap_or_default(),
            kernel["peak_bytes_over_buffers"].as_f64().unwrap_or_default(),
        );
    }
}

fn figures(criterion: &Path, measured: &Measured) -> std::io::Result<Value> {
    let Measured { kernel, bytes_over_buffers } = measured;
    let macs = kernel.multiply_accumulates as f64;
    let seconds: Vec<f64> = ways()
        .iter()
        .map(|(way, _)| fastest_seconds(criterion, kernel.name, way))
        .collect::<std::io::Result<_>>()?;
    let rate = |way: usize| rounded(macs / seconds[way] / 1e9, 3);
    let speedup = seconds[0] / seconds[1];
    Ok(json!({
        "kernel": kernel.name,
        "multiply_accumulates": kernel.multiply_accumulates,
        "seconds_one_thread": rounded(seconds[0], 4),
        "giga_macs_per_second": {
            "one_thread": rate(0),
            "two_threads": rate(1),
            "no_checks": rate(2),
            "no_vector_extensions": rate(3),
        },
        "two_threads_over_one": rounded(speedup, 2),
        "checks_over_none": rounded(seconds[0] / seconds[2], 2),
        "peak_bytes_over_buffers": rounded(*bytes_over_buffers, 2),
        "targets": {
            "one_thread": {
                "at_least": kernel.target / 1e9,
                "met": macs / seconds[0] >= kernel.target,
            },
            "two_threads_over_one": { "at_least": TWO_THREADS, "met": speedup >= TWO_THREADS },
            "peak_bytes_over_buffers": { "at_most": MEMORY, "met": *bytes_over_buffers <= MEMORY },
        },
    }))
}

fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// Time of one run in the fastest sample, from criterion's `sample.json` (nanoseconds): what the
/// kernel takes when nothing else interferes.
fn fastest_seconds(criterion: &Path, kernel: &str, way: &str) -> std::io::Result<f64> {
    let path = criterion.join(kernel).join(way).join("new/sample.json");
    let sample: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let numbers = |name: &str| -> Vec<f64> {
        let list = sample[name].as_array().into_iter().flatten();
        list.filter_map(Value::as_f64).collect()
    };
    let runs = numbers("times").into_iter().zip(numbers("iters")).map(|(time, runs)| time / runs);
    let missing = || std::io::Error::other(format!("{} has no samples", path.display()));
    runs.reduce(f64::min).map(|nanoseconds| nanoseconds * 1e-9).ok_or_else(missing)
}
