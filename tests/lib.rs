//! What the integration tests share: the repository's root, NVRTC, and kernels under test.

use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The root of the repository.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// NVRTC, found or fetched as `qtune` itself does it; `None` with a printed reason where that
/// fails, unless `QTUNE_REQUIRE_NVRTC` is set.
pub fn nvrtc() -> Option<&'static Nvrtc> {
    static FOUND: OnceLock<Option<Nvrtc>> = OnceLock::new();
    let open = || match Nvrtc::open(&OpenOptions::default()) {
        Ok(nvrtc) => Some(nvrtc),
        Err(error) if std::env::var_os("QTUNE_REQUIRE_NVRTC").is_some() => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    };
    FOUND.get_or_init(open).as_ref()
}

/// A kernel under test: everything that `generate` takes.
pub struct Case {
    /// What is computed.
    pub problem: Problem,
    /// What a weight means.
    pub spec: WeightSpec,
    /// How it is computed.
    pub schedule: Schedule,
}

impl Case {
    /// A case from a problem key and a schedule line.
    ///
    /// # Panics
    /// If either does not parse: test data is written by hand.
    pub fn new(problem: &str, schedule: &str) -> Case {
        let problem: Problem = problem.parse().expect("a problem key");
        let spec = qtune_formats::resolve(&problem.format).expect("a known format");
        Case { problem, spec, schedule: schedule.parse().expect("a schedule line") }
    }
}

/// GPUs of every compile target that qtune generates for.
pub fn archs() -> Vec<Arch> {
    let names = ["a100", "a10", "l40s", "h200", "b200", "rtx5090"];
    names.iter().map(|name| Arch::named(name).expect("a table row")).collect()
}
