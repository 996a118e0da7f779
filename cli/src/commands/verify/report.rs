//! Verdicts as JSON and as a table.

use crate::output;
use crate::table::{Align, Table};
use qtune_device::KernelImage;
use qtune_ir::Family;
use qtune_verify::{Counts, Verdict};
use serde::Serialize;

/// The verdict on one token count; the names are a contract, see `docs/cli.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Tokens.
    pub m: u32,
    /// Problem key; its `m` is the bucket that serves the tokens.
    pub problem: String,
    /// The schedule on one line.
    pub schedule: String,
    /// Its kernel family.
    pub family: Family,
    /// Where the schedule came from: `cache`, `default` or `given`.
    pub origin: &'static str,
    /// Whether every output is within its bound and nothing else was found.
    pub passed: bool,
    /// The largest error over its bound.
    pub error_over_bound: f64,
    /// Output elements compared.
    pub outputs_checked: u64,
    /// Thread blocks run over those in the grid.
    pub share_of_blocks_run: f64,
    /// What the kernel costs.
    pub counts: Counts,
    /// What is wrong, one line each; empty if it passed.
    pub findings: Vec<String>,
}

impl Case {
    /// The case of a verdict on the launches with `m` tokens, told on stderr as well.
    pub fn new(m: u32, image: &KernelImage, origin: &'static str, verdict: Verdict) -> Case {
        let kernel = &image.kernel;
        let details = verdict.cases.iter().filter(|case| !case.passed);
        let mut findings: Vec<String> = details.filter_map(|case| case.detail.clone()).collect();
        for line in verdict.findings {
            if !findings.contains(&line) {
                findings.push(line);
            }
        }
        let case = Case {
            m,
            problem: kernel.problem.to_string(),
            schedule: kernel.schedule.to_string(),
            family: kernel.schedule.family(),
            origin,
            passed: verdict.passed,
            error_over_bound: verdict.error_over_bound,
            outputs_checked: verdict.cases.iter().map(|case| case.outputs_checked).sum(),
            share_of_blocks_run: verdict.share_of_blocks_run,
            counts: verdict.counts,
            findings,
        };
        case.tell();
        case
    }

    fn tell(&self) {
        let (m, ratio) = (self.m, self.error_over_bound);
        match self.findings.first().filter(|_| !self.passed) {
            Some(finding) => output::note(format_args!("m {m}: FAILED: {finding}")),
            None if self.passed => {
                output::note(format_args!("m {m}: passed, error over bound {ratio:.3}"));
            }
            None => output::note(format_args!("m {m}: FAILED, error over bound {ratio:.3}")),
        }
    }
}

/// The verdicts for people.
pub fn table(cases: &[Case]) -> Table {
    let mut table = Table::new(&[
        ("M", Align::Right),
        ("family", Align::Left),
        ("verified", Align::Left),
        ("error/bound", Align::Right),
        ("instr/weight", Align::Right),
        ("wavefronts", Align::Right),
        ("sectors", Align::Right),
        ("weight bytes", Align::Right),
        ("in flight", Align::Right),
        ("regs", Align::Right),
        ("spills", Align::Right),
        ("shared", Align::Right),
        ("from", Align::Left),
        ("schedule", Align::Left),
    ]);
    for case in cases {
        let counts = &case.counts;
        table.row([
            case.m.to_string(),
            case.family.name().into(),
            if case.passed { "yes" } else { "NO" }.into(),
            format!("{:.3}", case.error_over_bound),
            format!("{:.2}", counts.lane_instructions_per_weight),
            format!("{:.3}", counts.shared_wavefronts_over_ideal),
            format!("{:.3}", counts.global_sectors_over_ideal),
            format!("{:.3}", counts.weight_bytes_over_compulsory),
            counts.bytes_in_flight_per_sm.to_string(),
            counts.registers.to_string(),
            counts.spill_bytes.to_string(),
            counts.shared_bytes.to_string(),
            case.origin.into(),
            case.schedule.clone(),
        ]);
    }
    table
}
