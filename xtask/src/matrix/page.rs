//! The summary of the matrix for people.

use super::cases;
use super::row::{Outcome, Row};
use anyhow::Result;
use qtune_codegen::GENERATOR_VERSION;
use qtune_ir::Family;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many cases are done, then formats by family: the worst error over its bound on any GPU, or why
/// there is no kernel.
///
/// # Errors
/// As [`cases::all`].
pub fn summary(rows: &[Row]) -> Result<String> {
    let tokens: Vec<String> = cases::TOKENS.iter().map(u32::to_string).collect();
    let mut text = format!(
        "\n{} Each was launched with M {}. The largest error over its bound on any of the GPUs and \
         matrices:\n\n| format | cases | {} |\n|---|---|{}\n",
        progress(rows, cases::all()?.len()),
        tokens.join(", "),
        Family::ALL.map(|family| format!("`{}`", family.name())).join(" | "),
        "---|".repeat(Family::ALL.len()),
    );
    let mut notes = Notes::default();
    for format in qtune_formats::FORMATS.iter().flat_map(|row| row.examples) {
        let of_format: Vec<&Row> = rows.iter().filter(|row| row.case.format == *format).collect();
        if of_format.is_empty() {
            continue;
        }
        let cells: Vec<String> = Family::ALL
            .into_iter()
            .map(|family| {
                notes.cell(of_format.iter().filter(|row| row.case.family == family).copied())
            })
            .collect();
        let _ = writeln!(text, "| `{format}` | {} | {} |", of_format.len(), cells.join(" | "));
    }
    Ok(text + "\n" + &notes.text())
}

/// How many of all cases are done. A kernel that another version of the generator made says nothing
/// certain of today's, so that its row is shown, but does not count.
fn progress(rows: &[Row], all: usize) -> String {
    let today: Vec<&Row> = rows.iter().filter(|row| row.generator == GENERATOR_VERSION).collect();
    let passed = today.iter().filter(|row| matches!(row.outcome, Outcome::Passed(_))).count();
    let refused = today.iter().filter(|row| matches!(row.outcome, Outcome::Refused(_))).count();
    let mut text = format!(
        "{passed} of {all} cases are verified with version {GENERATOR_VERSION} of the generator, \
         {refused} have no kernel for a reason that the table gives."
    );
    match rows.len() - today.len() {
        0 => {}
        older => {
            let _ = write!(text, " Of {older} others the kernels of an earlier version were.");
        }
    }
    text
}

/// Reasons, numbered in order of appearance.
#[derive(Default)]
struct Notes(BTreeMap<String, usize>);

impl Notes {
    /// What became of the rows of a format and family, in a word.
    fn cell<'a>(&mut self, rows: impl Iterator<Item = &'a Row>) -> String {
        let mut worst: Option<f64> = None;
        let mut told = Vec::new();
        for row in rows {
            match &row.outcome {
                Outcome::Passed(error) => worst = Some(worst.unwrap_or(0.0).max(*error)),
                Outcome::Refused(reason) => told.push(self.note(reason)),
                Outcome::Failed(reason) => told.push(format!("**failed** {}", self.note(reason))),
            }
        }
        told.sort_unstable();
        told.dedup();
        let worst = worst.map(|worst| format!("{worst:.3}"));
        match (worst, told.is_empty()) {
            (None, true) => "-".into(),
            (Some(worst), true) => worst,
            (worst, false) => format!("{} {}", worst.unwrap_or("none".into()), told.join(" ")),
        }
    }

    fn note(&mut self, reason: &str) -> String {
        let next = self.0.len() + 1;
        format!("[{}]", self.0.entry(reason.into()).or_insert(next))
    }

    fn text(&self) -> String {
        let mut notes: Vec<(&usize, &String)> = self.0.iter().map(|(why, at)| (at, why)).collect();
        notes.sort_unstable();
        notes.into_iter().map(|(at, why)| format!("- [{at}] {why}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_another_generator_do_not_count() {
        let row = |generator: u32, outcome: &str| {
            let line = format!("h200 awq-g128 f16 33x128 gemv,{generator},{outcome}");
            line.parse::<Row>().unwrap()
        };
        let today = GENERATOR_VERSION;
        let rows = [row(today, "passed,0.5"), row(today, "refused,too small")];
        let done = progress(&rows, 9);
        assert!(
            done.starts_with("1 of 9 cases are verified") && done.contains(" 1 have no kernel")
        );
        assert!(!done.contains("earlier"), "{done}");
        let old = row(today - 1, "passed,0.5");
        let done = progress(&[row(today, "failed,wrong"), old.clone(), old], 9);
        assert!(
            done.starts_with("0 of 9") && done.contains(" Of 2 others the kernels of an earlier"),
            "{done}"
        );
    }

    #[test]
    fn a_cell_has_the_worst_error_and_a_note_for_each_reason() {
        let row = |line: &str| line.parse::<Row>().unwrap();
        let rows = [
            row("h200 awq-g128 f16 33x128 gemv,4,passed,0.513"),
            row("a100 awq-g128 f16 33x128 gemv,4,passed,0.250"),
            row("h200 awq-g128 f16 33x128 mma,4,refused,too small"),
            row("a100 awq-g128 f16 33x128 mma,4,passed,0.125"),
            row("h200 awq-g128 f16 33x128 dequant,4,failed,C[0, 1] is 2"),
        ];
        let text = summary(&rows).unwrap();
        let cells = "| `awq-g128` | 5 | 0.513 | 0.125 [1] | - | none **failed** [2] |\n";
        assert!(text.contains(cells), "{text}");
        assert!(text.contains("- [1] too small\n- [2] C[0, 1] is 2\n"), "{text}");
        assert!(!text.contains("`awq-g64`"), "what has no row has no line");
    }
}
