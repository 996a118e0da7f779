//! Runs of a text kernel under every schedule.

use super::recorder::parse;
use super::{at, Access, Launch, Memory, Report, RunOptions, SimError};
use qtune_sim::{run, AsyncSchedule, FindingKind, WarpOrder};

/// Every combination of async schedule and warp order that tests run under.
pub fn schedules() -> Vec<RunOptions> {
    let mut all = Vec::new();
    for schedule in [AsyncSchedule::Lazy, AsyncSchedule::Eager] {
        for warp_order in [WarpOrder::Forward, WarpOrder::Reversed, WarpOrder::Seeded(5)] {
            all.push(RunOptions { schedule, warp_order, ..RunOptions::default() });
        }
    }
    all
}

/// Shape of a launch: grid, threads of a block, cluster.
pub type Shape = ([u32; 3], u32, [u32; 3]);

/// Runs the kernel `k` on a buffer of zero words; returns them afterwards.
pub fn words(
    text: &str,
    (grid, threads, cluster): Shape,
    count: usize,
    options: &RunOptions,
) -> Result<(Vec<u32>, Report), SimError> {
    let mut memory = Memory::new();
    let p = memory.alloc("p", count * 4, Access::ReadWrite)?;
    memory.write(p, 0, &vec![0; count * 4])?;
    let module = parse(text)?;
    let args = vec![at(p)];
    let launch = Launch { grid, block: [threads, 1, 1], cluster, dynamic_shared_bytes: 0, args };
    let report = run(&module, "k", &launch, &mut memory, options)?;
    let bytes = memory.read(p, 0, count * 4)?;
    let words = bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    Ok((words.collect(), report))
}

/// Kinds of the findings, by line.
pub fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|f| f.kind).collect()
}

/// Asserts that the kernel has no finding under any schedule, and returns its words.
pub fn clean(text: &str, shape: Shape, count: usize) -> Vec<u32> {
    let mut result = Vec::new();
    for options in schedules() {
        let (words, report) = self::words(text, shape, count, &options).unwrap();
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{options:?}: {findings:#?}");
        assert!(result.is_empty() || result == words, "{options:?}");
        result = words;
    }
    result
}

/// Asserts that the kernel has a finding of this kind under every schedule.
pub fn caught(text: &str, shape: Shape, count: usize, kind: FindingKind) -> Report {
    let mut last = None;
    for options in schedules() {
        let (_, report) = words(text, shape, count, &options).unwrap();
        assert!(kinds(&report).contains(&kind), "{options:?}: {:#?}", report.findings);
        last = Some(report);
    }
    last.unwrap()
}
