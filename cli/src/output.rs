//! The two streams: results on stdout, everything for people on stderr.
//!
//! A reader that closes a stream early (`qtune inspect | head`) has what it wanted: the rest is
//! dropped. Any other failure to write a result is an error, so that a full disk is noticed.

use anyhow::Context;
use serde::Serialize;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes a result and a line end to stdout.
pub fn result(text: impl Display) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes of a result to stdout.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the result to stdout"),
    }
}

/// Writes a file so that it is there whole or not at all.
pub fn file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    file_with(path, |file| Ok(file.write_all(bytes)?))
}

/// The same, written by a closure.
pub fn file_with<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written: anyhow::Result<T> = (|| {
        let mut file = File::create(&temporary)?;
        let value = write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(value)
    })();
    if written.is_err() {
        // Nothing half-written stays; a second failure here leaves a file nobody reads.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| {
        format!("cannot write {}; check the folder and the free space", path.display())
    })
}

/// Writes one JSON value on one line to stdout.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    result(serde_json::to_string(value).context("the result has no JSON form")?)
}

/// Writes a line for people to stderr. Nobody may be reading it.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes an error to stderr.
pub fn error(message: &str) {
    note(format_args!("error: {message}"));
}

/// Writes a warning to stderr.
pub fn warning(message: impl Display) {
    note(format_args!("warning: {message}"));
}
