//! Results on stdout, people on stderr, and streams that end early.

use crate::support::{ended, failed, golden, Qtune};
use std::fs::OpenOptions;
use std::process::Stdio;

#[test]
fn a_reader_that_closes_early_is_no_error() {
    let qtune = Qtune::new();
    let mut child = qtune
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = ended(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full here");
        return;
    };
    let qtune = Qtune::new();
    let path = golden("gemv_g128");
    let mut command = qtune.command(&["inspect", path.to_str().unwrap()]);
    let run = ended(command.stdout(full).output().unwrap());
    failed(&run, "/dev/full", 1, &["stdout"]);
}

#[test]
fn a_closed_stderr_does_not_matter() {
    let qtune = Qtune::new();
    let mut child = qtune
        .command(&["inspect", "/nowhere"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn help_and_version_are_results() {
    let qtune = Qtune::new();
    assert!(qtune.ok(&["--version"]).starts_with("qtune "));
    let help = qtune.ok(&["--help"]);
    assert!(help.contains("tune") && help.contains("130 interrupted"), "{help}");
}

#[test]
fn every_shell_gets_completions_for_every_command() {
    let qtune = Qtune::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = qtune.ok(&["completions", shell]);
        assert!(script.contains("dequantize") && script.contains("doctor"), "{shell}");
    }
}
