//! `counts`: what default schedules cost on the presets' shapes, as a table that may only improve.
//!
//! Without a GPU the counts of `docs/counts.md` stand for speed. This command measures them for every
//! case ([`cases`]) and writes them to `docs/counts.csv`, with a summary on the page. A case that got
//! worse is refused, unless it is blessed; what is blessed must keep the design's limits
//! ([`limits`]). Where a limit is not reached yet, the value in the table is the ceiling.

mod cases;
mod limits;
mod measure;
mod page;
mod row;
#[cfg(test)]
mod tests;

use crate::sweep;
use anyhow::{bail, Context, Result};
use cases::Case;
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use rayon::prelude::*;
use row::Row;

/// Where the counts are kept, from the root of the repository.
const TABLE: &str = "docs/counts.csv";

/// The summary for the page, from the table as it is.
pub fn summary() -> Result<String> {
    Ok(page::summary(&sweep::read(TABLE)?))
}

/// Measures the cases whose keys hold all `words` and writes the table.
///
/// # Errors
/// A case that cannot be measured, or that is worse than the table allows.
pub fn run(words: &[&str]) -> Result<()> {
    let bless = words.contains(&"--bless");
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--bless").collect();
    let nvrtc = Nvrtc::open(&OpenOptions::default())?;
    let old: Vec<Row> = sweep::read(TABLE)?;
    let measured = |case: Case| -> Result<(Option<Row>, Vec<String>)> {
        let before = old.iter().find(|row| row.case == case);
        if !sweep::selects(&words, &case) {
            return Ok((before.cloned(), Vec::new()));
        }
        let row = measure::measure(&nvrtc, &case).with_context(|| case.to_string())?;
        eprintln!("{case}: {row}");
        let refused = judge(&row, before, bless);
        Ok((Some(row), refused))
    };
    let rows: Vec<_> = cases::all().into_par_iter().map(measured).collect::<Result<_>>()?;
    let (new, refused): (Vec<Option<Row>>, Vec<Vec<String>>) = rows.into_iter().unzip();
    let (new, refused): (Vec<Row>, Vec<String>) =
        (new.into_iter().flatten().collect(), refused.concat());
    if !refused.is_empty() {
        bail!("{}\nnothing is written", refused.join("\n"));
    }
    sweep::write(TABLE, Row::HEADER, new.iter().map(Row::line))
}

/// Why a row may not stand in the table: lines to print.
fn judge(row: &Row, before: Option<&Row>, bless: bool) -> Vec<String> {
    let past: Vec<_> = limits::of_blessing(&row.case, row.family);
    let Some(before) = before else { return Vec::new() };
    let mut refused = Vec::new();
    for worse in row.worse_than(before) {
        let limit = past.iter().find(|limit| limit.count == worse.count);
        let within = limit.is_some_and(|limit| limit.holds(worse.now));
        if bless && within {
            continue;
        }
        let remedy = match (bless, limit) {
            (false, _) => "make it better, or bless it".to_owned(),
            (true, Some(limit)) => format!("{limit} is the limit, which cannot be blessed away"),
            (true, None) => "it has no limit to be blessed within".to_owned(),
        };
        refused.push(format!("{}: {worse}: {remedy}", row.case));
    }
    refused
}
