//! Measures the simulator itself: multiply-accumulates per second on the fixtures, all checks on.
//!
//! `cargo run --release -p qtune-sim --example throughput`

use std::time::Instant;

use qtune_sim::{run, Access, Arg, BufferId, Launch, Memory, Module, RunOptions, SimError};

fn filled(memory: &mut Memory, name: &str, bytes: usize) -> Result<BufferId, SimError> {
    let id = memory.alloc(name, bytes, Access::ReadWrite)?;
    memory.write(id, 0, &vec![0x2C; bytes])?;
    Ok(id)
}

fn measure(
    name: &str,
    text: &str,
    launch: &Launch,
    memory: &mut Memory,
    macs: f64,
) -> Result<(), SimError> {
    let module = Module::parse(text)?;
    let entry = module.entries().next().unwrap_or_default().to_owned();
    for (checks, label) in [(true, "checks"), (false, "no checks")] {
        let options = RunOptions { threads: 1, checks, ..RunOptions::default() };
        let start = Instant::now();
        let report = run(&module, &entry, launch, memory, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name} ({label}): {seconds:.3} s, {:.3} G MAC/s, {:.1} M warp instructions/s",
            macs / seconds / 1e9,
            report.counters.warp_instructions() as f64 / seconds / 1e6
        );
    }
    Ok(())
}

fn main() -> Result<(), SimError> {
    let mut memory = Memory::new();
    let (n, k) = (1024usize, 4096usize);
    let args = vec![
        Arg::Buffer { id: filled(&mut memory, "w", n * k / 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "scales", n * k / 64)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "x", k * 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "y", n * 4)?, offset: 0 },
        Arg::I32(n as i32),
        Arg::I32(k as i32),
    ];
    let launch = Launch {
        grid: [n as u32 / 4, 1, 1],
        block: [128, 1, 1],
        cluster: [1, 1, 1],
        dynamic_shared_bytes: 0,
        args,
    };
    let gemv = include_str!("../tests/fixtures/gemv.sm90a.ptx");
    measure("gemv", gemv, &launch, &mut memory, (n * k) as f64)?;

    let (m, n, k) = (64usize, 1024usize, 2048usize);
    let args = vec![
        Arg::Buffer { id: filled(&mut memory, "a", m * k * 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "b", n * k * 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "c", m * n * 4)?, offset: 0 },
        Arg::I32(m as i32),
        Arg::I32(n as i32),
        Arg::I32(k as i32),
    ];
    let launch = Launch {
        grid: [n as u32 / 64, 1, 1],
        block: [128, 1, 1],
        cluster: [1, 1, 1],
        dynamic_shared_bytes: 3 * 2 * 64 * 64,
        args,
    };
    let mma = include_str!("../tests/fixtures/mma.sm90a.ptx");
    measure("mma", mma, &launch, &mut memory, (m * n * k) as f64)?;

    let (m, n, k) = (512usize, 128usize, 4096usize);
    let args = vec![
        Arg::Buffer { id: filled(&mut memory, "w", m * k / 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "x", n * k * 2)?, offset: 0 },
        Arg::Buffer { id: filled(&mut memory, "c", m * n * 4)?, offset: 0 },
        Arg::I32(m as i32),
        Arg::I32(k as i32),
    ];
    let launch = Launch {
        grid: [m as u32 / 64, 1, 1],
        block: [128, 1, 1],
        cluster: [1, 1, 1],
        dynamic_shared_bytes: 2 * 128 * 128,
        args,
    };
    let wgmma = include_str!("../tests/fixtures/wgmma.sm90a.ptx");
    measure("wgmma", wgmma, &launch, &mut memory, (m * n * k) as f64)
}
