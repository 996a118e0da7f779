//! `qtune doctor`: what this machine has, what is missing, and what to do about it.

mod files;
mod finding;
mod hardware;
mod software;

use crate::cache_dir::CacheArgs;
use crate::exit::Exit;
use crate::output;
use finding::{Finding, Severity};
use serde_json::json;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cache: CacheArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints every finding; fails if one of them stops qtune from working.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut findings = software::versions();
    findings.extend(hardware::findings());
    findings.extend(software::nvrtc());
    findings.extend(files::cache(&args.cache));
    findings.extend(files::data_folder());
    findings.extend(software::environment());
    let healthy = findings.iter().all(|finding| finding.severity != Severity::Error);
    if args.json {
        let version = env!("CARGO_PKG_VERSION");
        output::json(&json!({ "qtune": version, "healthy": healthy, "findings": findings }))?;
    } else {
        for finding in &findings {
            output::result(finding)?;
        }
        output::note(summary(&findings));
    }
    Ok(if healthy { Exit::Success } else { Exit::Failure })
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "everything that qtune needs is there".into(),
        (0, warnings) => format!("qtune works here; {warnings} warning(s)"),
        (errors, warnings) => {
            format!("qtune does not work here yet: {errors} error(s), {warnings} warning(s)")
        }
    }
}
