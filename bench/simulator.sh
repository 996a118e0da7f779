#!/bin/sh
# Measures the simulator, says which targets each kernel meets and writes bench/results/simulator.json and from it
# docs/benchmarks.md. Leave the machine alone meanwhile.
set -eu
cd "$(dirname "$0")/.."
mkdir -p bench/results
QTUNE_BENCH_DATE=$(date +%F)
QTUNE_BENCH_CPU="$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), $(nproc) cores"
QTUNE_BENCH_RESULTS="$PWD/bench/results/simulator.json"
export QTUNE_BENCH_DATE QTUNE_BENCH_CPU QTUNE_BENCH_RESULTS
cargo bench -p qtune-sim --bench throughput
cargo run --release -p xtask -- docs
