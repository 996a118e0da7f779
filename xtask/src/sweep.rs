//! What the commands that go over many cases share: the choice of cases by words, and tables of rows in
//! files.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Whether all words are among those of a case's name: `h200 awq-g128 mma` names few of many.
pub fn selects(words: &[&str], case: &impl Display) -> bool {
    let name = case.to_string();
    words.iter().all(|word| name.split(' ').any(|part| part == *word))
}

/// A file of the repository.
pub fn path(table: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(table)
}

/// The rows of a table, which has a line of headings first; none where the file does not exist.
///
/// # Errors
/// It cannot be read, or a line is no row.
pub fn read<Row: FromStr<Err = anyhow::Error>>(table: &str) -> Result<Vec<Row>> {
    let text = match std::fs::read_to_string(path(table)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(table.to_owned()),
    };
    let rows = text.lines().skip(1).enumerate();
    rows.map(|(i, line)| line.parse().with_context(|| format!("{table}:{}", i + 2))).collect()
}

/// Writes a table whole.
///
/// # Errors
/// The file cannot be written.
pub fn write(table: &str, header: &str, rows: impl Iterator<Item = String>) -> Result<()> {
    let lines = std::iter::once(header.to_owned()).chain(rows);
    let text: String = lines.map(|line| line + "\n").collect();
    std::fs::write(path(table), text).context(table.to_owned())
}
