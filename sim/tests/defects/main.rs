//! Defects planted one at a time into correct kernels by an edit of their PTX: each is found, with
//! its kind and at its line. The unharmed kernels give no finding under any schedule.

mod kernels;
mod rows;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use kernels::Kernel;
use qtune_sim::{AsyncSchedule, FindingKind, Report, RunOptions, SimError, WarpOrder};
use rows::{Defect, Expected};

/// Schedules under which nothing may be found in a correct kernel.
fn schedules() -> Vec<RunOptions> {
    let mut all = Vec::new();
    for schedule in [AsyncSchedule::Lazy, AsyncSchedule::Eager] {
        let seeded = (1..=4).map(WarpOrder::Seeded);
        for warp_order in [WarpOrder::Forward, WarpOrder::Reversed].into_iter().chain(seeded) {
            all.push(RunOptions { schedule, warp_order, ..limited() });
        }
    }
    all
}

fn limited() -> RunOptions {
    RunOptions { instruction_limit: 2_000_000, ..RunOptions::default() }
}

#[test]
fn unharmed_kernels_give_no_finding_under_any_schedule_for_any_target() {
    for kernel in Kernel::ALL {
        for target in kernel.targets() {
            let text = support::ptx(kernel.file(), target);
            for options in schedules() {
                let report = kernel.run(&text, &options).unwrap();
                assert!(report.findings.is_empty(), "{kernel:?} {target}: {:#?}", report.findings);
            }
        }
    }
}

/// The text with each edit made: the occurrence with this number of one text becomes another.
fn plant(defect: &Defect) -> Result<String, String> {
    let mut text = defect.kernel.ptx();
    for (from, occurrence, to) in defect.edits {
        let Some((place, _)) = text.match_indices(from).nth(*occurrence) else {
            return Err(format!("{defect:?}: `{from}` is not in the kernel"));
        };
        text.replace_range(place..place + from.len(), to);
    }
    Ok(text)
}

/// Whether the outcome is the expected one.
fn is_found(defect: &Defect, text: &str, outcome: &Result<Report, SimError>) -> bool {
    match (&defect.expected, outcome) {
        (Expected::Found(kinds, marker), Ok(report)) => report.findings.iter().any(|finding| {
            let line = text.lines().nth(finding.ptx_line as usize - 1).unwrap_or_default();
            kinds.contains(&finding.kind) && line.contains(marker)
        }),
        (Expected::Refused(reason), Err(error)) => error.to_string().contains(reason),
        _ => false,
    }
}

#[test]
fn every_planted_defect_is_found_with_its_kind_and_line() {
    let reversed =
        RunOptions { schedule: AsyncSchedule::Eager, warp_order: WarpOrder::Reversed, ..limited() };
    let mut missed = Vec::new();
    for defect in rows::all() {
        let text = match plant(defect) {
            Ok(text) => text,
            Err(problem) => {
                missed.push(problem);
                continue;
            }
        };
        for options in [limited(), RunOptions { threads: 1, ..reversed.clone() }] {
            let outcome = defect.kernel.run(&text, &options);
            if !is_found(defect, &text, &outcome) {
                let got = match &outcome {
                    Ok(report) => report.findings.iter().map(ToString::to_string).collect(),
                    Err(error) => vec![error.to_string()],
                };
                missed.push(format!("{defect:?} {:?}: {got:#?}", options.schedule));
            }
        }
    }
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn the_suite_holds_forty_kinds_of_defect_in_two_kernels_each() {
    let mut kernels: BTreeMap<&str, BTreeSet<Kernel>> = BTreeMap::new();
    for defect in rows::all() {
        kernels.entry(defect.what).or_default().insert(defect.kernel);
    }
    let alone: Vec<_> = kernels.iter().filter(|(_, kernels)| kernels.len() < 2).collect();
    assert!(alone.is_empty(), "only one kernel: {alone:?}");
    assert!(kernels.len() >= 40, "{} kinds of defect", kernels.len());
    let used: BTreeSet<Kernel> = rows::all().map(|defect| defect.kernel).collect();
    assert_eq!(used.len(), Kernel::ALL.len(), "every kernel is used");
    let kinds: BTreeSet<FindingKind> = rows::all().flat_map(Defect::kinds).copied().collect();
    assert!(kinds.len() >= 14, "{kinds:?}");
}
