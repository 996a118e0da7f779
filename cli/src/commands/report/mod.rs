//! `qtune report`: one page that shows what a search tried and what came of it.
//!
//! - `data`: what a cache or a trial log says, by problem.
//! - `page`: the sections of the page. `roofline`: its figure. `reproduce`: commands that do it again.
//!   `html`: escaping and tables.
//!
//! The page is one file without scripts and without anything from a network, so that it can be
//! mailed, committed and opened years later.

mod data;
mod html;
mod page;
mod reproduce;
mod roofline;

use crate::exit::{usage, Exit};
use crate::{output, paths};
use data::Report;
use serde_json::json;
use std::path::PathBuf;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cache folder or trial log
    #[arg(value_name = "CACHE|LOG")]
    source: PathBuf,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Writes the page.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if data::reads(&args.source).iter().any(|read| paths::same(read, &args.out)) {
        let out = args.out.display();
        return Err(usage(format!("--out {out} is what the page is made of; name another file")));
    }
    let report = Report::read(&args.source)?;
    output::file(&args.out, page::page(&report).as_bytes())?;
    let trials: usize = report.problems.iter().map(|problem| problem.trials.len()).sum();
    let winners = report.problems.iter().filter(|problem| problem.winner.is_some()).count();
    match args.json {
        true => output::json(&json!({
            "path": args.out.display().to_string(),
            "problems": report.problems.len(),
            "winners": winners,
            "trials": trials,
        }))?,
        false => output::result(format_args!(
            "{}: {} problem(s), {winners} winner(s), {trials} trial(s)",
            args.out.display(),
            report.problems.len()
        ))?,
    }
    Ok(Exit::Success)
}
