//! What is in a trial log.

use super::Report;
use crate::ranking;
use crate::table::{Align, Table};
use qtune_cache::trial_log::{self, Outcome, TrialEvent};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Counts of one problem's events.
#[derive(Clone, Debug, Default, serde::Serialize)]
struct Tally {
    problem: String,
    proposed: u32,
    launched: u32,
    passed: u32,
    rejected: u32,
    failed: u32,
    winner: Option<String>,
    winner_us: Option<f64>,
}

/// Reads the log and counts per problem.
pub fn report(path: &Path) -> anyhow::Result<Report> {
    let events = trial_log::read(path)?;
    let tallies = tally(&events);
    let poison = trial_log::poison(&events);
    let ended = matches!(events.last(), Some(TrialEvent::End { .. }));
    let rankings = qtune_search::rankings(&events);
    let runs = events.iter().filter(|event| matches!(event, TrialEvent::Start(_))).count();
    let json = json!({
        "kind": "trial_log",
        "path": path.display().to_string(),
        "events": events.len(),
        "runs": runs,
        "ended": ended,
        "problems": tallies,
        "launched_without_result": poison,
        "ranking": rankings,
    });
    let text = format!(
        "trial log {}: {} events of {runs} run(s), {}; {} launch(es) without a result\n\n{}\n{}",
        path.display(),
        events.len(),
        if ended { "ended in good order" } else { "not ended" },
        poison.len(),
        table(&tallies),
        ranking::text(&rankings).trim_end()
    );
    Ok(Report { text, json })
}

fn tally(events: &[TrialEvent]) -> Vec<Tally> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for event in events {
        let Some(problem) = problem_of(event) else { continue };
        let new = || Tally { problem: problem.into(), ..Tally::default() };
        tallies.entry(problem).or_insert_with(new).add(event);
    }
    tallies.into_values().collect()
}

fn problem_of(event: &TrialEvent) -> Option<&str> {
    match event {
        TrialEvent::Proposed { problem, .. }
        | TrialEvent::Compiled { problem, .. }
        | TrialEvent::Launch { problem, .. }
        | TrialEvent::Timed { problem, .. }
        | TrialEvent::Result { problem, .. }
        | TrialEvent::Winner { problem, .. } => Some(problem),
        TrialEvent::Start(_) | TrialEvent::End { .. } => None,
    }
}

impl Tally {
    fn add(&mut self, event: &TrialEvent) {
        match event {
            TrialEvent::Proposed { .. } => self.proposed += 1,
            TrialEvent::Launch { .. } => self.launched += 1,
            TrialEvent::Result { outcome, .. } => match outcome {
                Outcome::Ok => self.passed += 1,
                Outcome::Rejected { .. } => self.rejected += 1,
                Outcome::Failed { .. } => self.failed += 1,
            },
            TrialEvent::Winner { schedule, time_us, .. } => {
                self.winner = Some(schedule.clone());
                self.winner_us = Some(*time_us);
            }
            TrialEvent::Compiled { .. }
            | TrialEvent::Timed { .. }
            | TrialEvent::Start(_)
            | TrialEvent::End { .. } => {}
        }
    }
}

fn table(tallies: &[Tally]) -> Table {
    let mut table = Table::new(&[
        ("problem", Align::Left),
        ("proposed", Align::Right),
        ("launched", Align::Right),
        ("passed", Align::Right),
        ("rejected", Align::Right),
        ("failed", Align::Right),
        ("winner us", Align::Right),
        ("winner", Align::Left),
    ]);
    for tally in tallies {
        table.row([
            tally.problem.clone(),
            tally.proposed.to_string(),
            tally.launched.to_string(),
            tally.passed.to_string(),
            tally.rejected.to_string(),
            tally.failed.to_string(),
            tally.winner_us.map_or_else(|| "-".into(), |us| format!("{us:.2}")),
            tally.winner.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    table
}
