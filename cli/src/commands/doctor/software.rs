//! Versions, the compiler, and what could fetch it.

use super::finding::{Finding, Severity};
use crate::exit::flatten;
use crate::toolchain::FetchArgs;
use qtune_codegen::nvrtc::{Nvrtc, NvrtcError};
use qtune_codegen::GENERATOR_VERSION;
use std::process::{Command, Stdio};

/// qtune itself.
pub fn versions() -> Vec<Finding> {
    let text = format!(
        "qtune {}, generator {GENERATOR_VERSION}, cache schema {}, {} {}",
        env!("CARGO_PKG_VERSION"),
        qtune_cache::codec::SCHEMA_VERSION,
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    vec![Finding::ok("qtune.version", text)]
}

/// The compiler, or what is needed to fetch it.
pub fn nvrtc() -> Vec<Finding> {
    match (FetchArgs { no_fetch: true }).open() {
        Ok(nvrtc) => vec![Finding::ok("nvrtc.found", described(&nvrtc)), pip(Severity::Info)],
        Err(error) => {
            let pip = pip(Severity::Error);
            let can_fetch = pip.severity == Severity::Ok;
            vec![missing(&error, can_fetch), pip]
        }
    }
}

fn described(nvrtc: &Nvrtc) -> String {
    let (major, minor) = nvrtc.version();
    let archs = nvrtc.supported_archs().unwrap_or_default();
    let archs: Vec<String> = archs.iter().map(|arch| format!("sm_{arch}")).collect();
    format!(
        "NVRTC {major}.{minor} at {} (from {}, fingerprint {}, {})",
        nvrtc.path().display(),
        nvrtc.found_by().describe(),
        nvrtc.fingerprint(),
        archs.join(" ")
    )
}

/// A missing compiler is no error where `tune` can fetch it; a wrong setting always is.
fn missing(error: &NvrtcError, can_fetch: bool) -> Finding {
    let severity = match error {
        NvrtcError::NotFound { .. } if can_fetch => Severity::Warning,
        _ => Severity::Error,
    };
    let remedy = match error {
        NvrtcError::Setting { .. } => "correct QTUNE_NVRTC or unset it",
        _ if can_fetch => "nothing: the first `qtune tune` fetches it with pip",
        _ => "install python3 with pip, or a CUDA toolkit, or point QTUNE_NVRTC at libnvrtc.so",
    };
    Finding::new(severity, "nvrtc.found", error, remedy)
}

/// Whether pip could fetch a wheel; `missing` is how bad it is if it could not.
fn pip(missing: Severity) -> Finding {
    let ran =
        Command::new("python3").args(["-m", "pip", "--version"]).stdin(Stdio::null()).output();
    let problem = match ran {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout);
            return Finding::ok("python.pip", flatten(&version));
        }
        Ok(_) => "python3 has no pip",
        Err(_) => "python3 was not found",
    };
    let remedy = "install python3 with pip; qtune uses it to fetch NVRTC";
    Finding::new(missing, "python.pip", problem, remedy)
}

/// Variables that change what qtune does.
pub fn environment() -> Vec<Finding> {
    let names = [
        "QTUNE_NVRTC",
        "QTUNE_CACHE",
        "QTUNE_DATA",
        "QTUNE_LOG",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_HOME",
        "CUDA_PATH",
    ];
    let set = names.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some(format!("{name}={}", value.to_string_lossy()))
    });
    let set: Vec<String> = set.collect();
    match set.is_empty() {
        true => vec![],
        false => vec![Finding::new(
            Severity::Info,
            "environment",
            set.join(" "),
            "unset those that are not meant",
        )],
    }
}
