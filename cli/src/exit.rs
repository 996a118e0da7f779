//! Exit codes by cause, and errors as one line.

use crate::output;
use anyhow::Error;
use qtune_cache::CacheError;
use qtune_device::DeviceError;
use qtune_formats::FormatError;
use qtune_ir::arch::UnknownGpu;
use qtune_ir::{ProblemError, ScheduleError};
use std::panic::{catch_unwind, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for was done.
    Success = 0,
    /// A file, the machine or qtune itself is at fault.
    Failure = 1,
    /// The command line is at fault.
    Usage = 2,
    /// No device that can do it.
    NoDevice = 3,
    /// A kernel is wrong.
    VerificationFailed = 4,
    /// The cache holds damaged records.
    Damaged = 5,
    /// The budget ended before everything was done.
    Partial = 6,
    /// The user ended it.
    Interrupted = 130,
}

/// An option whose value makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// An error that blames the command line.
pub fn usage(message: impl Into<String>) -> Error {
    UsageError(message.into()).into()
}

/// Longest error that is printed. Compiler logs can be far longer; `-v` logs them whole.
const MESSAGE_MAX: usize = 2000;

/// Runs a command, prints its error if it has one, and never lets a panic through.
pub fn guard(command: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    std::panic::set_hook(Box::new(remember_panic));
    let exit = match catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            output::error(&one_line(&error));
            exit_of(&error)
        }
        Err(_) => {
            output::error(&format!(
                "internal error: {}; this is a defect of qtune, please report it with the command",
                lock().take().unwrap_or_else(|| "panic without a message".into())
            ));
            Exit::Failure
        }
    };
    ExitCode::from(exit as u8)
}

/// What the latest panic said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn lock() -> std::sync::MutexGuard<'static, Option<String>> {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The panic hook. It only takes notes: libraries catch some panics (sled's, on damaged files)
/// and go on, and a line about those would be wrong.
fn remember_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line()));
    let message = text.unwrap_or_else(|| "panic".into()) + &place.unwrap_or_default();
    tracing::debug!(%message, "panic");
    *lock() = Some(flatten(&message));
}

/// The error and its causes on one line; a cause that its effect already quotes is left out.
pub fn one_line(error: &Error) -> String {
    let message = error.chain().fold(String::new(), |message, cause| {
        let cause = cause.to_string();
        match message.as_str() {
            "" => cause,
            _ if message.contains(&cause) => message,
            _ => format!("{message}: {cause}"),
        }
    });
    flatten(&message)
}

/// `text` on one line of bounded length.
pub fn flatten(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.collect::<Vec<_>>().join(" | ");
    if line.len() > MESSAGE_MAX {
        let cut = (0..=MESSAGE_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
        line.push_str(" ...");
    }
    line
}

/// The exit code for an error, by the innermost cause that decides it.
pub fn exit_of(error: &Error) -> Exit {
    error.chain().filter_map(exit_of_cause).last().unwrap_or(Exit::Failure)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<UsageError>() || cause.is::<UnknownGpu>() || cause.is::<ProblemError>() {
        return Some(Exit::Usage);
    }
    if cause.is::<ScheduleError>() {
        return Some(Exit::Usage);
    }
    if let Some(error) = cause.downcast_ref::<FormatError>() {
        return match error {
            FormatError::UnknownFormat { .. }
            | FormatError::UnknownPreset { .. }
            | FormatError::UnevenShards { .. } => Some(Exit::Usage),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<DeviceError>() {
        return match error {
            DeviceError::NoDevice { .. } => Some(Exit::NoDevice),
            DeviceError::UnknownDevice { .. } => Some(Exit::Usage),
            _ => None,
        };
    }
    match cause.downcast_ref::<CacheError>() {
        Some(CacheError::Damaged { .. } | CacheError::BadExport(_)) => Some(Exit::Damaged),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_cause_decides_the_exit_code_through_any_context() {
        let unknown = qtune_ir::Arch::named("h2000").unwrap_err();
        let error = Err::<(), _>(unknown).context("while opening").unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert_eq!(exit_of(&usage("x")), Exit::Usage);
        assert_eq!(exit_of(&anyhow::anyhow!("x")), Exit::Failure);
    }

    #[test]
    fn errors_print_on_one_line_without_saying_a_cause_twice() {
        let error = anyhow::anyhow!("b").context("a: b").context("top\nsecond");
        assert_eq!(one_line(&error), "top | second: a: b");
        assert!(flatten(&"ö".repeat(5000)).len() <= MESSAGE_MAX + 4);
    }
}
