//! What came of a search, for people and for machines.

use crate::cache_dir::evidence;
use crate::exit::flatten;
use crate::output;
use crate::table::{Align, Table};
use qtune_ir::Arch;
use qtune_search::{Failures, TuneReport, WinnerReport};
use serde_json::{json, Value};
use std::time::Duration;

/// The winners in the order of the request.
pub fn table(winners: &[WinnerReport]) -> Table {
    let mut table = Table::new(&[
        ("shape", Align::Left),
        ("problem", Align::Left),
        ("M", Align::Right),
        ("family", Align::Left),
        ("us", Align::Right),
        ("default us", Align::Right),
        ("roof", Align::Right),
        ("verified", Align::Left),
        ("error/bound", Align::Right),
        ("evidence", Align::Left),
        ("cached", Align::Left),
        ("schedule", Align::Left),
    ]);
    for winner in winners {
        let (problem, m) = bucket_apart(&winner.problem);
        table.row([
            winner.shape.clone(),
            problem,
            m,
            winner.family.clone(),
            format!("{:.2}", winner.time_us),
            default_time(winner),
            format!("{:.0} %", winner.roof_share * 100.0),
            if winner.verified { "yes" } else { "NO" }.into(),
            format!("{:.3}", winner.error_over_bound),
            evidence(winner.evidence).into(),
            if winner.from_cache { "yes" } else { "no" }.into(),
            winner.schedule.clone(),
        ]);
    }
    table
}

/// A problem key without its bucket, and the bucket.
fn bucket_apart(key: &str) -> (String, String) {
    match key.parse::<qtune_ir::Problem>() {
        Ok(problem) => {
            let end = problem.suffixes();
            (format!("{} {}x{}{end}", problem.format, problem.n, problem.k), problem.m.to_string())
        }
        Err(_) => (key.into(), "?".into()),
    }
}

fn default_time(winner: &WinnerReport) -> String {
    match winner.default_us {
        Some(us) => format!("{us:.2}"),
        None if winner.kept_default => "kept".into(),
        None => "-".into(),
    }
}

/// The report as one object: `winners` first, see `docs/cli.md`.
pub fn json(report: &TuneReport, (arch, device): (&Arch, &str), took: Duration) -> Value {
    let mut value = json!(report);
    if let Value::Object(fields) = &mut value {
        fields.insert("gpu".into(), json!(arch));
        fields.insert("device".into(), json!(device));
        fields.insert("seconds".into(), json!(took.as_secs_f64()));
    }
    value
}

/// Causes that are listed; the trial log has all of them.
const CAUSES_SHOWN: usize = 3;

/// The commonest reasons for which candidates were left out.
fn failures(failures: &Failures) -> Option<String> {
    let mut causes: Vec<(&String, &usize)> = failures.iter().collect();
    causes.sort_by_key(|(cause, count)| (std::cmp::Reverse(**count), *cause));
    let shown: Vec<String> =
        causes.iter().take(CAUSES_SHOWN).map(|(cause, count)| format!("{count} {cause}")).collect();
    let rest: usize = causes.iter().skip(CAUSES_SHOWN).map(|(_, count)| **count).sum();
    let rest = if rest > 0 { format!("; {rest} for other reasons") } else { String::new() };
    (!shown.is_empty()).then(|| format!("left out: {}{rest}", shown.join("; ")))
}

/// What people want to know besides the winners, on stderr.
pub fn tell(report: &TuneReport) {
    for (problem, reason) in &report.without {
        output::error(&flatten(&format!("no kernel for {problem}: {reason}")));
    }
    if let Some(line) = failures(&report.failures) {
        output::note(line);
    }
    if report.winners.iter().any(|winner| !winner.from_cache) {
        output::note(format_args!("trial log: {}", report.trial_log.display()));
    }
}
