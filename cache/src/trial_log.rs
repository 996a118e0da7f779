//! The trial log: what a search tried, one JSON object per line, appended as it happens.
//!
//! A launch is on disk before the kernel starts. If the process or the machine dies with it, the
//! log holds a launch without a result, and [`poison`] names the schedule that must not be
//! launched again. The log also replays as a simulated device and resumes an interrupted search.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs2::FileExt;
use serde::{Deserialize, Serialize};

use crate::error::CacheError;
use crate::record::Evidence;

/// Longest line that is read or written: 1 MiB. Events take a few hundred bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// One line of the log; the variant's name in snake case is the field `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrialEvent {
    /// A search begins. A log that is resumed has several.
    Start(RunHeader),
    /// A rung of the ladder proposed a schedule.
    Proposed {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
        /// Rung of the ladder, from 1.
        rung: u8,
        /// Time by the cost model in microseconds.
        predicted_us: f64,
    },
    /// A schedule compiled, and the model looked at it again with its machine code.
    Compiled {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
        /// Time by the refined model in microseconds.
        predicted_us: f64,
    },
    /// A kernel is about to be launched; synced to disk before it is.
    Launch {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
    },
    /// A GPU timed a kernel.
    Timed {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
        /// The samples in microseconds, in the order they were taken.
        samples_us: Vec<f64>,
        /// Samples thrown away because the clock changed or another process used the GPU.
        discarded: u32,
        /// The usual SM clock around the samples, in MHz, if it can be read.
        clock_mhz: Option<u32>,
        /// The usual power around the samples, in milliwatts, if it can be read.
        power_mw: Option<u32>,
    },
    /// What came of a schedule. Also written for launches that the user interrupted, as
    /// [`Outcome::Failed`], since they are no fault of the kernel.
    Result {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
        /// How it went.
        outcome: Outcome,
        /// Time in microseconds, if there is one.
        time_us: Option<f64>,
        /// Where the time comes from.
        evidence: Evidence,
    },
    /// A winner was stored.
    Winner {
        /// Problem key.
        problem: String,
        /// Schedule on one line.
        schedule: String,
        /// Time in microseconds.
        time_us: f64,
        /// Where the time comes from.
        evidence: Evidence,
        /// Largest measured error over its bound.
        error_over_bound: f64,
    },
    /// The search ended in good order.
    End {
        /// Winners stored.
        winners: u32,
        /// Whether the user or a budget ended it early.
        interrupted: bool,
    },
}

/// What a search was asked to do: all that decides its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Problem keys, in order.
    pub problems: Vec<String>,
    /// Arch.
    pub arch: String,
    /// Fingerprint of generator, format spec and compiler.
    pub fingerprint: String,
    /// Seed of all random choices.
    pub seed: u64,
    /// Limits by name, such as `("nodes", "10000")`.
    pub limits: Vec<(String, String)>,
    /// Version of qtune.
    pub qtune_version: String,
}

impl RunHeader {
    /// Whether the search replayed another trial log.
    pub fn is_replay(&self) -> bool {
        crate::record::is_replay(&self.fingerprint)
    }
}

/// How a trial went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and passed its checks.
    Ok,
    /// It was left out for a reason that is no fault: too many registers, slower than the best.
    Rejected {
        /// Why, in words.
        reason: String,
    },
    /// It did not compile, crashed, hung or computed something wrong.
    Failed {
        /// What happened, in words.
        reason: String,
    },
}

impl TrialEvent {
    /// Whether the line has to be on disk before the caller goes on.
    fn must_sync(&self) -> bool {
        matches!(self, Self::Launch { .. } | Self::Winner { .. } | Self::End { .. })
    }

    /// Numbers in the event; JSON has no way to write one that is not finite.
    fn numbers(&self) -> Vec<f64> {
        match self {
            Self::Proposed { predicted_us, .. } | Self::Compiled { predicted_us, .. } => {
                vec![*predicted_us]
            }
            Self::Timed { samples_us, .. } => samples_us.clone(),
            Self::Result { time_us, .. } => time_us.iter().copied().collect(),
            Self::Winner { time_us, error_over_bound, .. } => vec![*time_us, *error_over_bound],
            Self::Start(_) | Self::Launch { .. } | Self::End { .. } => Vec::new(),
        }
    }

    /// The event as a line with its newline.
    fn to_line(&self) -> Result<Vec<u8>, CacheError> {
        if self.numbers().iter().any(|number| !number.is_finite()) {
            return Err(CacheError::BadEvent(format!("a number is not finite in {self:?}")));
        }
        let mut line =
            serde_json::to_vec(self).map_err(|error| CacheError::BadEvent(error.to_string()))?;
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            return Err(CacheError::BadEvent(format!(
                "it takes {} bytes, the limit is {LINE_BYTES_MAX}",
                line.len()
            )));
        }
        Ok(line)
    }
}

/// A log open for appending, by one search at a time: what one has launched and not ended yet would be
/// to another what the machine never came back from.
#[derive(Debug)]
pub struct TrialLog {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines; what a failed append left behind is cut off to here.
    length: u64,
}

impl TrialLog {
    /// Opens the log at `path` for appending, creating it and its folder where missing. A last
    /// line without its newline is completed if it is an event and cut off if it is not.
    ///
    /// # Errors
    /// [`CacheError::TrialLogIo`] if the file cannot be created, read or written;
    /// [`CacheError::TrialLogLocked`] if another search appends to it; [`CacheError::NoTrialLog`] for a file that is none, which stays as it is.
    pub fn append_to(path: &Path) -> Result<Self, CacheError> {
        let open = || -> io::Result<File> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            OpenOptions::new().read(true).append(true).create(true).open(path)
        };
        let mut file = open().map_err(log_error(path, "open"))?;
        // Held until the file is closed. Somewhere without locks nobody is kept out.
        if file.try_lock_exclusive().is_err_and(|e| e.kind() == fs2::lock_contended_error().kind())
        {
            return Err(CacheError::TrialLogLocked(path.to_path_buf()));
        }
        if !begins_as_log(&file).map_err(log_error(path, "open"))? {
            return Err(CacheError::NoTrialLog(path.to_path_buf()));
        }
        let mend = |file: &mut File| {
            let length = mend_tail(file)?;
            file.sync_all().map(|()| length)
        };
        let length = mend(&mut file).map_err(log_error(path, "open"))?;
        Ok(Self { file, path: path.to_path_buf(), length })
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event. Launches, winners and ends are on disk when this returns.
    ///
    /// # Errors
    /// [`CacheError::TrialLogIo`] if the disk refuses, with nothing half-written left behind;
    /// [`CacheError::BadEvent`] for an event with a number that is not finite.
    pub fn append(&mut self, event: &TrialEvent) -> Result<(), CacheError> {
        self.append_all(std::slice::from_ref(event))
    }

    /// Appends several events with one write and at most one sync.
    ///
    /// # Errors
    /// As [`TrialLog::append`]; either all events are in the log or none.
    pub fn append_all(&mut self, events: &[TrialEvent]) -> Result<(), CacheError> {
        let mut lines = Vec::new();
        for event in events {
            lines.extend(event.to_line()?);
        }
        let mut written = self.file.write_all(&lines);
        if written.is_ok() && events.iter().any(TrialEvent::must_sync) {
            written = self.file.sync_data();
        }
        if written.is_err() {
            // Best effort: the reader forgives a torn last line, and so does the next append.
            let _ = self.file.set_len(self.length);
        } else {
            self.length += lines.len() as u64;
        }
        written.map_err(log_error(&self.path, "write"))
    }
}

/// What every event begins with.
const EVENT: &[u8] = b"{\"event\":";

/// Whether the file's first line is an event, or could have become one: before anything is cut off,
/// since the file may be somebody's checkpoint under a name that was mistyped.
fn begins_as_log(file: &File) -> io::Result<bool> {
    let mut first = Vec::new();
    BufReader::new(file).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut first)?;
    Ok(match first.last() {
        Some(b'\n') => serde_json::from_slice::<TrialEvent>(&first).is_ok(),
        _ => first.starts_with(EVENT) || EVENT.starts_with(&first),
    })
}

/// Ends the file with a whole line and returns its length.
fn mend_tail(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let window = length.min(LINE_BYTES_MAX as u64);
    file.seek(SeekFrom::End(-(window as i64)))?;
    let mut tail = Vec::new();
    (&*file).take(window).read_to_end(&mut tail)?;
    let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count();
    if torn == 0 {
        return Ok(length);
    }
    if serde_json::from_slice::<TrialEvent>(&tail[tail.len() - torn..]).is_ok() {
        file.write_all(b"\n")?;
        return Ok(length + 1);
    }
    file.set_len(length - torn as u64)?;
    Ok(length - torn as u64)
}

/// All events of the log at `path`. A last line without its newline that is not an event was cut
/// off by a crash and is left out.
///
/// # Errors
/// [`CacheError::TrialLogLine`] for any other line that is not an event;
/// [`CacheError::TrialLogIo`] if the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<TrialEvent>, CacheError> {
    let file = File::open(path).map_err(log_error(path, "read"))?;
    let mut reader = BufReader::new(file);
    let mut events = Vec::new();
    for line in 1.. {
        let mut bytes = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let count = reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(log_error(path, "read"))?;
        if count == 0 {
            break;
        }
        let bad = |reason| CacheError::TrialLogLine { path: path.to_path_buf(), line, reason };
        if count > LINE_BYTES_MAX {
            return Err(bad(format!("the line has more than {LINE_BYTES_MAX} bytes")));
        }
        match serde_json::from_slice(&bytes) {
            Ok(event) => events.push(event),
            Err(_) if bytes.last() != Some(&b'\n') => break,
            Err(error) => return Err(bad(format!("not a trial event: {error}"))),
        }
    }
    Ok(events)
}

/// Problem and schedule of every launch without a result after it.
pub fn poison(events: &[TrialEvent]) -> BTreeSet<(String, String)> {
    let mut open = BTreeSet::new();
    for event in events {
        match event {
            TrialEvent::Launch { problem, schedule } => {
                open.insert((problem.clone(), schedule.clone()));
            }
            TrialEvent::Result { problem, schedule, .. } => {
                open.remove(&(problem.clone(), schedule.clone()));
            }
            TrialEvent::Start(_)
            | TrialEvent::Proposed { .. }
            | TrialEvent::Compiled { .. }
            | TrialEvent::Timed { .. }
            | TrialEvent::Winner { .. }
            | TrialEvent::End { .. } => {}
        }
    }
    open
}

/// A closure for `map_err` that adds the path and what was tried.
fn log_error(path: &Path, action: &'static str) -> impl Fn(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |cause| CacheError::TrialLogIo { path: path.clone(), action, cause }
}

#[cfg(test)]
#[path = "trial_log_tests.rs"]
mod tests;
