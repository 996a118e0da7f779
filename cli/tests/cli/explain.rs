//! `explain`: what the compiled kernel costs, and the counts beside its source.

use crate::support::{has_compiler, Qtune};
use serde_json::Value;

const PROBLEM: [&str; 10] =
    ["--gpu", "h200", "--format", "awq-g128", "--n", "256", "--k", "4096", "--m", "16"];

#[test]
fn the_terms_of_an_iteration_come_from_the_machine_code_and_the_longest_binds() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let explained = qtune.json(&[&["explain"], &PROBLEM[..], &["--json"]].concat());
    let machine_code = &explained["machine_code"];
    let terms = machine_code["terms"].as_array().unwrap();
    let cycles = |name: &str| {
        let term = terms.iter().find(|term| term["name"] == name);
        term.and_then(|term| term["cycles"].as_f64()).unwrap_or(0.0)
    };
    for name in ["issue", "alu", "tensor", "shared", "l2", "dram"] {
        assert!(cycles(name) > 0.0, "{name} in {terms:?}");
    }
    assert_eq!(terms[0]["name"], machine_code["bound"]);
    assert!(machine_code["resident_blocks"].as_u64().unwrap() >= 1);
    let text = qtune.ok(&[&["explain"], &PROBLEM[..]].concat());
    assert!(text.contains("main-loop iterations, bound by "), "{text}");
}

#[test]
fn counts_stand_beside_the_source_line_that_caused_them() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let counts = [&["explain"], &PROBLEM[..], &["--counts"]].concat();
    let text = qtune.ok(&counts);
    assert!(text.contains("wavefronts") && text.contains("__global__"), "{text}");
    let json = qtune.json(&[&counts[..], &["--json"]].concat());
    let lines = json["counts"]["lines"].as_array().unwrap();
    let sum =
        |path: &str| lines.iter().filter_map(|line| line.pointer(path)?.as_u64()).sum::<u64>();
    assert!(sum("/counters/executed/warp_instructions") > 1000);
    assert!(sum("/counters/global/sectors") > 0 && sum("/counters/shared/wavefronts") > 0);
    // Asynchronous copies alone read global and write shared memory.
    let count = |line: &Value, path: &str| line.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let copies = |line: &&Value| {
        count(line, "/counters/global/sectors") > 0
            && count(line, "/counters/shared/wavefronts") > 0
    };
    // Those of all threads, and those of some.
    assert!((1..=2).contains(&lines.iter().filter(copies).count()), "{text}");
}

#[test]
fn a_log_without_device_timings_says_that_the_ranking_was_not_measured() {
    let qtune = Qtune::new();
    let log = qtune.cache.path().join("log.jsonl");
    std::fs::write(&log, "").unwrap();
    let explain = [&["explain"], &PROBLEM[..], &["--log", log.to_str().unwrap()]].concat();
    let text = qtune.ok(&explain);
    assert!(text.contains("no device timings"), "{text}");
}
