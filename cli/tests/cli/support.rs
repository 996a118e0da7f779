//! Running `qtune` in an environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The golden AWQ checkpoints and the layer that is looked at in each.
pub const GOLDEN: [(&str, &str); 6] = [
    ("gemm_g128", "model.layers.0.mlp.down_proj"),
    ("gemm_g32", "model.layers.0.mlp.up_proj"),
    ("gemm_g64_bias", "model.layers.0.self_attn.q_proj"),
    ("gemv_fast_g128", "model.layers.0.self_attn.v_proj"),
    ("gemv_g128", "model.layers.0.self_attn.k_proj"),
    ("gemv_g64", "model.layers.0.self_attn.k_proj"),
];

/// The folder of one golden checkpoint.
pub fn golden(case: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/awq");
    tests.join(case)
}

/// The folder of a golden checkpoint of bitsandbytes.
pub fn golden_bnb(case: &str) -> PathBuf {
    golden("..").join("bitsandbytes").join(case)
}

/// A copy of a golden checkpoint that a test may damage.
pub fn copy_of(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::copy(golden(case).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// `qtune` with a cache folder of its own.
pub struct Qtune {
    pub cache: TempDir,
}

/// How a run ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Qtune {
    pub fn new() -> Qtune {
        Qtune { cache: tempfile::tempdir().unwrap() }
    }

    /// A command with the cache in place; a test may change more of it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qtune"));
        command.args(args).env("QTUNE_CACHE", self.cache.path().join("cache"));
        command.env_remove("QTUNE_LOG");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed; returns its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// Runs a command that must succeed and print one JSON value.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Runs a command that must fail with `code`, its last line an error with every one of
    /// `parts` in it, and nothing on stdout.
    pub fn fails(&self, args: &[&str], code: i32, parts: &[&str]) {
        failed(&self.run(args), &format!("{args:?}"), code, parts);
    }
}

/// Whether a run failed as [`Qtune::fails`] says.
pub fn failed(run: &Ended, what: &str, code: i32, parts: &[&str]) {
    let Ended { stdout, stderr, .. } = run;
    assert_eq!(run.code, code, "{what}: {stderr}");
    let line = stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: "), "{what}: {stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{what}: {stderr}");
    for part in parts {
        assert!(line.contains(part), "{what}: `{part}` is not in: {line}");
    }
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    assert_eq!(stdout, "", "{what}");
}

/// Output as text.
pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether NVRTC is there or can be fetched, as a first run of `qtune` does it; says so where a test
/// is skipped.
pub fn has_compiler() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let problem = ["--format", "awq-g128", "--n", "64", "--k", "128", "--m", "1"];
    let emit = [&["emit", "--gpu", "h200", "--what", "ptx"][..], &problem].concat();
    let compiles = || {
        let run = Qtune::new().run(&emit);
        if run.code != 0 {
            println!("skipped: {}", run.stderr);
        }
        run.code == 0
    };
    *FOUND.get_or_init(compiles)
}
