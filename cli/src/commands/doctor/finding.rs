//! One thing that the doctor found.

use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Info,
    /// Something works less well than it could.
    Warning,
    /// qtune cannot do its work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, such as `nvrtc.found`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Finding {
        let remedy = "nothing to do".into();
        Finding { id, severity: Severity::Ok, message: message.into(), remedy }
    }

    /// Something that the user may want to change.
    pub fn new(
        severity: Severity,
        id: &'static str,
        message: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Finding {
        let message = crate::exit::flatten(&message.to_string());
        Finding { id, severity, message, remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Ok => "ok",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{mark:<8} {:<18} {}", self.id, self.message)?;
        match self.severity {
            Severity::Ok => Ok(()),
            _ => write!(f, "\n{:<27} remedy: {}", "", self.remedy),
        }
    }
}
