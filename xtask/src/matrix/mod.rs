//! `matrix`: the default schedules of every format, GPU and family, verified on small matrices.
//!
//! Each case ([`cases`]) is one matrix that no tile divides, with token counts at the edges of tiles and
//! buckets. Its outcome is appended to `docs/matrix.csv` as soon as it is known, so that a run can be
//! interrupted and goes on where it ended: what passed with this version of the generator is not verified
//! again. What was refused is asked again, which costs nothing; where default schedules have changed,
//! `--again` verifies those that stand in the table, too. `docs/verification.md` has the summary.

mod cases;
mod measure;
mod page;
mod row;

use crate::sweep;
use anyhow::{bail, Context, Result};
use cases::Case;
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_codegen::GENERATOR_VERSION;
use rayon::prelude::*;
use row::{Outcome, Row};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Where the outcomes are kept, from the root of the repository.
const TABLE: &str = "docs/matrix.csv";

/// The summary for the page, from the table as it is.
pub fn summary() -> Result<String> {
    page::summary(&read()?)
}

/// Verifies the cases whose names hold all `words` and that the table does not have yet; with
/// `--again` those that it has, too.
///
/// # Errors
/// A kernel that is wrong or does not compile, after all others were verified.
pub fn run(words: &[&str]) -> Result<()> {
    let again = words.contains(&"--again");
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--again").collect();
    let wanted = |case: &Case| sweep::selects(&words, case);
    let old = read()?;
    let known = |case: &Case| {
        let done = |row: &&Row| row.case == *case && row.generator == GENERATOR_VERSION;
        old.iter().find(done).is_some_and(|row| matches!(row.outcome, Outcome::Passed(_)))
    };
    let cases: Vec<Case> = cases::all()?.into_iter().filter(wanted).collect();
    let open: Vec<&Case> = cases.iter().filter(|case| again || !known(case)).collect();
    eprintln!("{} of {} cases are to be verified", open.len(), cases.len());
    let nvrtc = Nvrtc::open(&OpenOptions::default())?;
    let table = Mutex::new(append()?);
    // In order, so that what an interrupted run leaves out is at the end.
    open.into_iter().par_bridge().try_for_each(|case| -> Result<()> {
        let outcome = measure::measure(&nvrtc, case).with_context(|| case.to_string())?;
        eprintln!("{case}: {outcome}");
        let row = Row { case: case.clone(), generator: GENERATOR_VERSION, outcome };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(table, "{}", row.line()).context(TABLE)
    })?;
    tidy()?;
    let failed = |row: &&Row| matches!(row.outcome, Outcome::Failed(_)) && wanted(&row.case);
    match read()?.iter().filter(failed).count() {
        0 => Ok(()),
        count => bail!("{count} cases failed; {TABLE} says why"),
    }
}

/// The table, open at its end.
fn append() -> Result<File> {
    let path = sweep::path(TABLE);
    let exists = path.exists();
    let mut file = File::options().append(true).create(true).open(path).context(TABLE)?;
    if !exists {
        writeln!(file, "{}", Row::HEADER).context(TABLE)?;
    }
    Ok(file)
}

/// The rows of the table, of each case the last one, in the order of the cases.
fn read() -> Result<Vec<Row>> {
    let rows: Vec<Row> = sweep::read(TABLE)?;
    let last = |case: Case| rows.iter().rfind(|row| row.case == case).cloned();
    Ok(cases::all()?.into_iter().filter_map(last).collect())
}

/// Puts the rows in order and drops those that others replace.
fn tidy() -> Result<()> {
    sweep::write(TABLE, Row::HEADER, read()?.iter().map(Row::line))
}
