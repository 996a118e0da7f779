//! The verdict on a launch, as JSON and for people.

use super::compare::{Comparison, Difference};
use crate::output;
use qtune_sim::{AsyncSchedule, Class, Counters, Finding, GlobalTraffic, Report, SharedTraffic};
use serde::Serialize;
use serde_json::{json, Map, Value};

/// The verdict; the names are a contract, see `docs/cli.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// No finding, no difference between schedules, every comparison within its tolerance.
    pub passed: bool,
    /// The kernel.
    pub entry: String,
    /// Defects.
    pub findings: Vec<Found>,
    /// One for each output with an expectation.
    pub comparisons: Vec<Comparison>,
    /// Outputs that depend on when asynchronous copies land.
    pub schedule_differences: Vec<Difference>,
    /// The schedules that ran.
    pub schedules: Vec<&'static str>,
}

/// A finding, and under which schedules it was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    #[serde(flatten)]
    finding: Finding,
    schedules: Vec<&'static str>,
}

/// What a run under one schedule found.
#[derive(Clone, Copy, Debug)]
pub struct Ran<'a> {
    /// When asynchronous copies landed.
    pub schedule: AsyncSchedule,
    /// The findings.
    pub findings: &'a [Finding],
}

/// A schedule as printed.
pub fn schedule_name(schedule: AsyncSchedule) -> &'static str {
    match schedule {
        AsyncSchedule::Lazy => "lazy",
        AsyncSchedule::Eager => "eager",
    }
}

/// The findings of all runs, each defect once.
pub fn merge<'a>(runs: impl Iterator<Item = Ran<'a>>) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for Ran { schedule, findings } in runs {
        let name = schedule_name(schedule);
        for finding in findings {
            let same = all.iter_mut().find(|found| {
                let place = |f: &Finding| (f.kind, f.ptx_line, f.buffer.clone());
                !found.schedules.contains(&name) && place(&found.finding) == place(finding)
            });
            match same {
                Some(found) => found.schedules.push(name),
                None => all.push(Found { finding: finding.clone(), schedules: vec![name] }),
            }
        }
    }
    all
}

/// The verdict with the counters of a run.
pub fn json(verdict: &Verdict, report: &Report) -> Value {
    let mut value = json!(verdict);
    value["counters"] = counters(&report.counters);
    value["blocks_run"] = report.blocks_run.into();
    value["blocks_total"] = report.blocks_total.into();
    value
}

/// The counters with the classes by name.
fn counters(counters: &Counters) -> Value {
    let classes: Map<String, Value> = executed(counters)
        .map(|class| (class.name().to_owned(), json!(counters.class(class))))
        .collect();
    let mut value = json!(counters);
    value["classes"] = classes.into();
    value["warp_instructions"] = counters.warp_instructions().into();
    value["lane_instructions"] = counters.lane_instructions().into();
    value
}

fn executed(counters: &Counters) -> impl Iterator<Item = Class> + '_ {
    Class::ALL.into_iter().filter(|class| counters.class(*class).warp_instructions > 0)
}

/// Tells the verdict on stderr.
pub fn tell(verdict: &Verdict, report: &Report) {
    for Found { finding, schedules } in &verdict.findings {
        // A defect under every schedule has nothing to do with them.
        match schedules.len() == verdict.schedules.len() {
            true => output::note(finding),
            false => output::note(format_args!("{finding} [{} only]", schedules.join(", "))),
        }
    }
    for Difference { arg, buffer, elements } in &verdict.schedule_differences {
        output::note(format_args!(
            "argument {arg} ({buffer}): {elements} element(s) depend on when copies land"
        ));
    }
    verdict.comparisons.iter().for_each(tell_comparison);
    tell_counters(&report.counters);
    output::note(format_args!(
        "{}: {} of {} thread block(s) ran, {} finding(s): {}",
        verdict.entry,
        report.blocks_run,
        report.blocks_total,
        verdict.findings.len(),
        if verdict.passed { "passed" } else { "FAILED" }
    ));
}

fn tell_comparison(comparison: &Comparison) {
    let Comparison { arg, buffer, error, tolerance, elements, unwritten, passed } = comparison;
    let verdict = if *passed { "passed" } else { "FAILED" };
    let missing = match (unwritten, elements) {
        (_, 0) => ", nothing was written".to_owned(),
        (0, _) => String::new(),
        (unwritten, _) => format!(", {unwritten} more were never written"),
    };
    output::note(format_args!(
        "argument {arg} ({buffer}): {verdict}, relative error {error:.3e}, allowed {tolerance:e}, \
         {elements} element(s){missing}"
    ));
}

fn tell_counters(counters: &Counters) {
    let classes: Vec<String> = executed(counters)
        .map(|class| format!("{} {}", class.name(), counters.class(class).warp_instructions))
        .collect();
    output::note(format_args!(
        "warp instructions: {} ({})",
        counters.warp_instructions(),
        classes.join(", ")
    ));
    for buffer in &counters.buffers {
        let kinds =
            [("loads", buffer.loads), ("stores", buffer.stores), ("atomics", buffer.atomics)];
        let kinds: Vec<String> = kinds
            .into_iter()
            .filter(|(_, traffic)| traffic.requests > 0)
            .map(|(name, traffic)| format!("{name} {}", sectors(traffic)))
            .collect();
        output::note(format_args!("{}: {}", buffer.buffer, kinds.join("; ")));
    }
    let shared = counters.shared();
    if shared.requests > 0 {
        let (loads, stores) = (counters.shared_loads, counters.shared_stores);
        output::note(format_args!(
            "shared memory: loads {}; stores {}",
            wavefronts(loads),
            wavefronts(stores)
        ));
    }
}

fn sectors(traffic: GlobalTraffic) -> String {
    let GlobalTraffic { requests, sectors, ideal_sectors, .. } = traffic;
    format!("{requests} request(s), {sectors} sector(s), {}", over(sectors, ideal_sectors))
}

fn wavefronts(traffic: SharedTraffic) -> String {
    let SharedTraffic { requests, wavefronts, ideal_wavefronts } = traffic;
    let over = over(wavefronts, ideal_wavefronts);
    format!("{requests} request(s), {wavefronts} wavefront(s), {over}")
}

fn over(count: u64, ideal: u64) -> String {
    match ideal {
        0 => "no ideal".into(),
        ideal => format!("{:.3} of the ideal", count as f64 / ideal as f64),
    }
}
