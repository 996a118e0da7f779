//! `bench/gpu.sh`, with a stand-in for `qtune` that needs no GPU.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the stand-in does, by subcommand. It also writes down how it was called.
const STAND_IN: &str = r#"#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
case $1 in
  verify) echo '{"passed":true,"cases":[]}' ;;
  tune) sleep 600 ;;
  *) echo '{}' ;;
esac
"#;

struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(stand_in: &str) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qtune");
        fs::write(&program, stand_in).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Script { folder }
    }

    /// A folder whose name no shell should see unquoted.
    fn out(&self) -> PathBuf {
        self.folder.path().join("it's $HOME; out")
    }

    fn run(&self, sections: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/gpu.sh");
        Command::new("bash")
            .arg(script)
            .arg(self.out())
            .args(sections)
            .env("QTUNE", self.folder.path().join("qtune"))
            .output()
            .unwrap()
    }

    fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out().join("summary.json")).unwrap()).unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap()
    }
}

#[test]
fn without_a_gpu_it_says_so_and_ends_with_3() {
    let script = Script::new("#!/bin/sh\necho 'error: no suitable device' >&2\nexit 3\n");
    let ended = script.run(&[]);
    assert_eq!(ended.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("no GPU: error: no suitable device"));
}

#[test]
fn a_binary_that_cannot_be_run_is_a_usage_error_and_help_is_none() {
    let script = Script::new(STAND_IN);
    fs::set_permissions(script.folder.path().join("qtune"), fs::Permissions::from_mode(0o644))
        .unwrap();
    let ended = script.run(&[]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("set QTUNE to the binary"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/gpu.sh");
    let help = Command::new("bash").arg(path).arg("--help").output().unwrap();
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(
        help.status.success() && text.contains("OUT_DIR [SECTION") && text.contains("3 no GPU")
    );
}

#[test]
fn chosen_sections_run_in_order_and_leave_their_files() {
    let script = Script::new(STAND_IN);
    let ended = script.run(&["compare", "verify", "report"]);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    let summary = script.summary();
    let sections = summary["sections"].as_array().unwrap();
    let names: Vec<&str> = sections.iter().map(|s| s["section"].as_str().unwrap()).collect();
    assert_eq!(names, ["verify", "compare", "report"]);
    assert!(sections.iter().all(|section| section["exit"] == 0), "{summary}");
    for file in ["verify.jsonl", "verify-sim.jsonl", "report.json"] {
        let text = fs::read_to_string(script.out().join(file)).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    }
    let calls = script.calls();
    assert!(calls.contains("--device cuda:0 --format awq-g128"), "{calls}");
    assert!(calls.contains("--device sim") && !calls.contains("tune"), "{calls}");
}

#[test]
fn the_library_is_verified_where_the_doctor_finds_it() {
    let found = r#"  doctor) echo '{"findings":[{"id":"library.found","severity":"ok"}]}' ;;"#;
    let has = STAND_IN.replacen("  *)", &format!("{found}\n  *)"), 1);
    for (stand_in, verified) in [(STAND_IN, false), (&has, true)] {
        let script = Script::new(stand_in);
        assert_eq!(script.run(&["library"]).status.code(), Some(0));
        assert_eq!(script.calls().contains("--library"), verified);
        let text = fs::read_to_string(script.out().join("library.jsonl")).unwrap();
        assert_eq!(text.contains("skipped"), !verified, "{text}");
        assert!(!script.calls().contains("-a8 "), "codes have no slabs");
    }
}

#[test]
fn a_section_that_does_not_end_is_stopped_and_the_next_one_runs() {
    let script = Script::new(STAND_IN);
    let ended = script.run(&["tune=1", "report"]);
    assert_eq!(ended.status.code(), Some(1));
    let summary = script.summary();
    assert_eq!(summary["sections"][0]["timed_out"], true);
    assert_eq!(summary["sections"][1]["exit"], 0);
}

#[test]
fn unknown_sections_and_limits_are_usage_errors() {
    let script = Script::new(STAND_IN);
    for sections in [&["benchmark"][..], &["tune=soon"], &["tune="], &["tune=0"], &["tune=08"]] {
        let ended = script.run(sections);
        assert_eq!(ended.status.code(), Some(2), "{sections:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).starts_with("error: "), "{sections:?}");
    }
}

#[test]
fn what_was_verified_in_time_is_kept_and_compared() {
    // Of the formats in turn one is wrong on the device, and one never ends.
    let slow = STAND_IN.replace(
        "  verify) ",
        r#"  verify)
    case "$*" in
      *"--format int8-ch"*) sleep 600 ;;
      *"cuda:0"*"--format gptq-g128 "*) echo '{"passed":false,"cases":[]}'; exit 4 ;;
    esac
    "#,
    );
    let script = Script::new(&slow);
    let ended = script.run(&["verify=3", "compare=3", "report"]);
    assert_eq!(ended.status.code(), Some(1));
    let summary = script.summary();
    assert_eq!(summary["sections"][0]["timed_out"], true);
    assert_eq!(summary["sections"][2]["exit"], 0);
    let read = |name: &str| fs::read_to_string(script.out().join(name)).unwrap();
    assert!(read("verify.jsonl").lines().count() > 2, "what was verified in time stays");
    assert!(read("verify.log").contains("not verified: int8-ch"));
    let differs = read("compare.diff");
    assert!(differs.contains("gptq-g128 on cuda:0") && !differs.contains("awq"), "{differs}");
}

#[test]
fn every_format_with_kernels_is_verified() {
    let script = Script::new(STAND_IN);
    let ended = script.run(&["verify"]);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let calls = script.calls();
    for row in qtune_formats::FORMATS {
        // Groups of one weight are for layers that are only decoded.
        let spec = qtune_formats::resolve(row.examples[0]).unwrap();
        if spec.group == qtune_formats::Group::Size(1) {
            continue;
        }
        let family = row.family;
        let named = |word: &str| word == family || word.starts_with(&format!("{family}-"));
        assert!(calls.split_whitespace().any(named), "{family} is not among:\n{calls}");
    }
}
