//! `tune --device replay:LOG`, shards of it, and answers from the cache alone.

use crate::support::Qtune;
use qtune_cache::trial_log::{Outcome, RunHeader, TrialEvent, TrialLog};
use qtune_cache::Evidence;
use qtune_ir::Arch;
use qtune_search::{plan, Effort, Shape, TuneRequest};
use serde_json::Value;
use std::path::Path;

const SHAPES: [&str; 4] = ["--shape", "5120x5120", "--m", "1,8,16"];

/// A log in which everything that a quick search compiles first was timed; what the model likes
/// least is the fastest.
pub fn log(path: &Path) {
    let arch = Arch::named("h200").unwrap();
    let shape = |m: u32| Shape {
        name: "o".into(),
        problem: format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}").parse().unwrap(),
        calls: 1,
    };
    let shapes = [1, 8, 16].map(shape).to_vec();
    let request = TuneRequest { effort: Effort::Quick, ..TuneRequest::new(arch.clone(), shapes) };
    let mut log = TrialLog::append_to(path).unwrap();
    let header = RunHeader { arch: arch.fingerprint(), ..RunHeader::default() };
    log.append(&TrialEvent::Start(header)).unwrap();
    for planned in plan(&request).unwrap() {
        for (at, (schedule, _)) in planned.finalists.into_iter().enumerate() {
            let result = TrialEvent::Result {
                problem: planned.problem.clone(),
                schedule,
                outcome: Outcome::Ok,
                time_us: Some(20.0 - at as f64),
                evidence: Evidence::Timed,
            };
            log.append(&result).unwrap();
        }
    }
}

/// Arguments of a search on `log`.
pub fn tune<'a>(log: &'a str, cache: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let base = ["tune", "--gpu", "h200", "--format", "awq-g128", "--effort", "quick", "--json"];
    [&base[..], &SHAPES, &["--device", log, "--cache", cache], extra].concat()
}

fn winners(report: &str) -> Vec<(String, String, f64)> {
    let report: Value = serde_json::from_str(report.lines().last().unwrap()).unwrap();
    let mut winners: Vec<(String, String, f64)> = report["winners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| {
            let text = |name: &str| w[name].as_str().unwrap().to_owned();
            (text("problem"), text("schedule"), w["time_us"].as_f64().unwrap())
        })
        .collect();
    winners.sort_by(|a, b| a.0.cmp(&b.0));
    winners
}

#[test]
fn a_log_is_replayed_and_shards_of_it_merge_to_the_winners_of_one_run() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    log(Path::new(&at("log.jsonl")));
    let device = format!("replay:{}", at("log.jsonl"));
    let whole = winners(&qtune.ok(&tune(&device, &at("whole"), &["--noise", "0.02"])));
    assert_eq!(whole.len(), 3);
    assert!(whole.iter().all(|(_, _, us)| *us < 19.5), "the times are the log's: {whole:?}");
    let again = winners(&qtune.ok(&tune(&device, &at("again"), &["--noise", "0.02"])));
    assert_eq!(whole, again, "same log and seed, same winners");

    // The shape twice, and a budget, which is shared by how often shapes are called.
    let twice = ["--noise", "0.02", "--shape", "5120x5120", "--budget", "10h"];
    let found = winners(&qtune.ok(&tune(&device, &at("twice"), &twice)));
    assert_eq!(whole, found, "a shape that comes twice is tuned once");
    let mut sharded = Vec::new();
    for shard in ["1/2", "2/2"] {
        let folder = at(&shard.replace('/', "-"));
        let extra = [&twice[..], &["--shard", shard]].concat();
        sharded.extend(winners(&qtune.ok(&tune(&device, &folder, &extra))));
    }
    sharded.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(whole, sharded);
    qtune.ok(&["cache", "merge", &at("1-2"), &at("2-2"), "--cache", &at("merged")]);
    let extra = ["--noise", "0.02", "--in-cache-only"];
    assert_eq!(whole, winners(&qtune.ok(&tune(&device, &at("merged"), &extra))));
    let run = qtune.run(&tune(&device, &at("1-2"), &extra));
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("not in the cache"), "{}", run.stderr);
}

#[test]
fn a_replay_neither_poisons_nor_replaces_what_the_cache_has() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    log(Path::new(&at("log.jsonl")));
    let device = format!("replay:{}", at("log.jsonl"));
    let cache = at("cache");
    let before = winners(&qtune.ok(&tune(&device, &at("before"), &[])));
    let mut trials = TrialLog::append_to(Path::new(&at("log.jsonl"))).unwrap();
    for (problem, schedule, _) in before.clone() {
        trials.append(&TrialEvent::Launch { problem, schedule }).unwrap();
    }
    drop(trials);
    let without = winners(&qtune.ok(&tune(&device, &cache, &[])));
    assert!(without.iter().zip(&before).all(|(now, then)| now.1 != then.1), "they crash now");
    assert_eq!(without, winners(&qtune.ok(&tune(&device, &cache, &["--fresh"]))));
    let seen = qtune.ok(&["inspect", &cache]);
    assert!(seen.contains(" 0 poisoned schedule(s)") && seen.contains(" replayed "), "{seen}");
    qtune.ok(&["report", &cache, "--out", &at("page.html")]);
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    assert!(page.contains(">replayed<") && !page.contains(">timed<"));
    assert!(page.contains(" --device replay:LOG --format awq-g128 --shape 5120x5120 --m 1,8,16 "));
}

#[test]
fn logs_of_another_gpu_and_senseless_noise_are_refused() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    log(Path::new(&at("log.jsonl")));
    let device = format!("replay:{}", at("log.jsonl"));
    let cache = at("cache");
    let mut other = tune(&device, &cache, &[]);
    other[2] = "a100";
    let run = qtune.run(&other);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("name its GPU with --gpu"), "{}", run.stderr);
    qtune.fails(&tune(&device, &cache, &["--noise", "2"]), 2, &["--noise"]);
    let log = at("log.jsonl");
    let before = std::fs::read(&log).unwrap();
    qtune.fails(&tune(&device, &cache, &["--log", &log]), 2, &["is the log that is replayed"]);
    assert_eq!(std::fs::read(&log).unwrap(), before);
    qtune.fails(&tune("sim", &cache, &["--noise", "0.1"]), 2, &["--noise", "replay:LOG"]);
    qtune.fails(&tune("replay:nowhere", &cache, &[]), 1, &["nowhere"]);
    qtune.fails(
        &[
            "verify", "--gpu", "h200", "--device", &device, "--format", "awq-g128", "--n", "64",
            "--k", "128",
        ],
        2,
        &["unknown device"],
    );
}
