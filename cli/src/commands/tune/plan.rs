//! What a search is about to do, and `--dry-run`.

use super::space;
use crate::exit::Exit;
use crate::output;
use crate::table::{Align, Table};
use qtune_search::{PlannedProblem, TuneRequest};
use serde_json::json;

/// Says on stderr what is tuned, on what, and how hard.
pub fn tell(request: &TuneRequest, device: &str) {
    let limits = request.effort.limits().named();
    let limits: Vec<String> =
        limits.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    output::note(format_args!(
        "{} problem(s) for {} on {}; {}",
        request.shapes.len(),
        request.arch,
        device,
        limits.join(", ")
    ));
}

/// `--dry-run`: what would be tried, with nothing compiled and no cache opened.
pub fn run(request: &TuneRequest, json: bool) -> anyhow::Result<Exit> {
    let plan = qtune_search::plan(request)?;
    let seconds: f64 = plan.iter().map(|problem| problem.seconds).sum();
    if json {
        let limits = request.effort.limits();
        output::json(&json!({ "problems": plan, "seconds": seconds, "limits": limits }))?;
    } else {
        output::result(table(&plan))?;
        for problem in &plan {
            output::result(space::text(problem))?;
        }
        output::note(format_args!(
            "{} problem(s) for {}, about {:.0} s; nothing was compiled",
            plan.len(),
            request.arch,
            seconds
        ));
    }
    Ok(Exit::Success)
}

fn table(plan: &[PlannedProblem]) -> Table {
    let mut table = Table::new(&[
        ("shape", Align::Left),
        ("problem", Align::Left),
        ("sketches", Align::Right),
        ("ranked", Align::Right),
        ("to compile", Align::Right),
        ("modelled us", Align::Right),
        ("first candidate", Align::Left),
    ]);
    for problem in plan {
        let (schedule, us) = problem.finalists.first().cloned().unwrap_or_default();
        table.row([
            problem.shape.clone(),
            problem.problem.clone(),
            problem.sketches_considered.to_string(),
            problem.candidates.to_string(),
            problem.finalists.len().to_string(),
            format!("{us:.2}"),
            schedule,
        ]);
    }
    table
}
