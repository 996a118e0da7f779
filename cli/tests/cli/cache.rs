//! `cache`: where there is none, and what several machines found brought together.

use crate::support::Qtune;
use qtune_cache::{
    Evidence, Extent, Kernel, Poisoned, Provenance, SledStore, Store, Verification, Winner,
    WinnerKey,
};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn a_folder_without_a_cache_is_said_to_hold_none_and_stays_as_it_is() {
    let qtune = Qtune::new();
    for command in [&["ls"][..], &["verify"], &["gc"], &["export", "--out", "x"]] {
        let command = [&["cache"], command].concat();
        qtune.fails(&command, 1, &["holds no cache", "qtune tune"]);
    }
    assert!(!qtune.cache.path().join("cache").exists());
}

fn key(n: u32, fingerprint: &str) -> WinnerKey {
    WinnerKey {
        problem: format!("w4a16.awq-g128.f16-f16.n{n}.k256.m1"),
        arch: "sm90a.132".into(),
        fingerprint: fingerprint.into(),
    }
}

/// Stores what `host` measured, made at `seconds`.
fn put(store: &SledStore, key: &WinnerKey, host: &str, seconds: u64, samples_us: &[f64]) {
    let winner = Winner {
        schedule: format!("a schedule of {host}"),
        family: "gemv".into(),
        evidence: Evidence::Timed,
        time_us: samples_us[samples_us.len() / 2],
        samples_us: samples_us.to_vec(),
        roof_share: 0.5,
        load_only_us: None,
        verified: true,
        error_over_bound: 0.5,
        extent: Extent::Normal,
        verification: Verification::default(),
        counts: Default::default(),
        cost_terms: Vec::new(),
        beat: Vec::new(),
        derivation: Vec::new(),
        provenance: Provenance {
            host: host.into(),
            device: "cuda:0".into(),
            created_unix_seconds: seconds,
            ..Provenance::default()
        },
    };
    let kernel = Kernel { source: host.repeat(4000), ..Kernel::default() };
    store.put(key, &winner, &kernel).unwrap();
}

/// The cache of machine `host`: winners 1 and `own`, and a schedule that hangs.
fn machine(dir: &Path, host: &str, us: f64, own: u32) {
    let (store, _) = SledStore::open(dir).unwrap();
    put(&store, &key(1, "f"), host, 5, &[us, us + 0.1, us + 0.2]);
    put(&store, &key(own, "f"), host, 5, &[us]);
    let WinnerKey { problem, arch, .. } = key(1, "f");
    let schedule = format!("hangs on {host}");
    let reason = "hung".into();
    let entry = Poisoned { problem, arch, schedule, reason, compile_limit_s: None };
    store.put_poison(&entry).unwrap();
}

/// Problem and schedule of each winner that `cache ls` lists.
fn winners(listed: &Value) -> Vec<(&str, &str)> {
    listed["winners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| (w["key"]["problem"].as_str().unwrap(), w["winner"]["schedule"].as_str().unwrap()))
        .collect()
}

#[test]
fn caches_and_exports_merge_in_any_order_to_the_same() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    machine(Path::new(&at("a")), "a", 5.0, 2);
    machine(Path::new(&at("b")), "b", 4.0, 3);
    let exported =
        qtune.json(&["cache", "export", "--cache", &at("b"), "--out", &at("b.qtc"), "--json"]);
    assert_eq!(exported["summary"]["winners"], 2);
    assert_eq!(exported["summary"]["poisoned"], 1);

    let merged =
        qtune.json(&["cache", "merge", &at("a"), &at("b.qtc"), "--cache", &at("ab"), "--json"]);
    assert_eq!(merged["winners"], 3);
    assert_eq!(merged["sources"][1]["report"]["changed"], 1);
    qtune.ok(&["cache", "import", &at("b.qtc"), "--cache", &at("ba")]);
    qtune.ok(&["cache", "merge", &at("a"), "--cache", &at("ba")]);
    for folder in ["ab", "ba"] {
        qtune.ok(&[
            "cache",
            "export",
            "--cache",
            &at(folder),
            "--out",
            &at(&format!("{folder}.qtc")),
        ]);
        let listed = qtune.json(&["cache", "ls", "--cache", &at(folder), "--json"]);
        let problem = |n: u32| key(n, "f").problem;
        let expected = [(1, "b"), (2, "a"), (3, "b")]
            .map(|(n, host)| (problem(n), format!("a schedule of {host}")));
        let found = winners(&listed);
        let found = found.into_iter().map(|(p, s)| (p.to_owned(), s.to_owned()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
    assert_eq!(fs::read(at("ab.qtc")).unwrap(), fs::read(at("ba.qtc")).unwrap());

    let shown =
        qtune.json(&["cache", "show", &key(1, "f").problem, "--cache", &at("ab"), "--json"]);
    let hosts: Vec<&Value> = shown["contributions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["winner"]["provenance"]["host"])
        .collect();
    assert_eq!(hosts, ["b", "a"]);
    assert_eq!(shown["contributions"][1]["winner"]["samples_us"].as_array().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_merged_is_named_and_nothing_is_added() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    machine(Path::new(&at("a")), "a", 5.0, 2);
    machine(Path::new(&at("b")), "b", 4.0, 3);
    qtune.ok(&["cache", "export", "--cache", &at("b"), "--out", &at("b.qtc")]);
    let mut damaged = fs::read(at("b.qtc")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(at("bad.qtc"), damaged).unwrap();
    fs::create_dir(at("empty")).unwrap();

    let merge = |source: &str, code, parts: &[&str]| {
        let good = at("b.qtc");
        qtune.fails(&["cache", "merge", &good, source, "--cache", &at("a")], code, parts);
    };
    merge(&at("a"), 2, &["is the cache itself", "--cache"]);
    merge(&at("empty"), 2, &["holds no cache"]);
    merge(&at("nowhere"), 1, &["nowhere", "No such file"]);
    merge(&at("bad.qtc"), 5, &["bad.qtc", "export it again"]);
    qtune.fails(&["cache", "import", &at("b"), "--cache", &at("a")], 2, &["qtune cache merge"]);
    let listed = qtune.json(&["cache", "ls", "--cache", &at("a"), "--json"]);
    assert_eq!(winners(&listed).len(), 2);
}

#[test]
fn a_source_that_is_named_twice_is_merged_once() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    machine(Path::new(&at("a")), "a", 5.0, 2);
    let out = at("out");
    let again = at("./a");
    let run = qtune.run(&["cache", "merge", &at("a"), &again, "--cache", &out, "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("left out"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["winners"], report["sources"].as_array().unwrap().len()), (&2.into(), 1));
    // Into the cache that it came from: refused, and what was there stays.
    qtune.fails(&["cache", "merge", &out, &at("a"), "--cache", &at("a")], 2, &["cache itself"]);
    assert_eq!(winners(&qtune.json(&["cache", "ls", "--cache", &at("a"), "--json"])).len(), 2);
}

#[test]
fn what_is_poisoned_is_listed_and_lifted_where_that_is_asked_for() {
    let qtune = Qtune::new();
    let dir = qtune.cache.path().join("cache");
    machine(&dir, "a", 5.0, 2);
    let path = dir.to_str().unwrap();
    let listed = qtune.ok(&["inspect", path]);
    assert!(listed.contains("\npoisoned: ") && listed.contains(": hung"), "{listed}");
    qtune.ok(&["cache", "gc"]);
    assert!(qtune.ok(&["inspect", path]).contains(" 1 poisoned schedule(s)"));
    qtune.ok(&["cache", "gc", "--poison"]);
    assert!(qtune.ok(&["inspect", path]).contains("2 winner(s), 0 poisoned schedule(s)"));
}

#[test]
fn gc_drops_superseded_winners_and_shrinks_the_file() {
    let qtune = Qtune::new();
    let dir = qtune.cache.path().join("cache");
    let (store, _) = SledStore::open(&dir).unwrap();
    for seconds in 0..20 {
        put(&store, &key(1, "old"), &format!("host {seconds}"), seconds, &[5.0]);
    }
    put(&store, &key(1, "new"), "host", 100, &[6.0]);
    put(&store, &key(2, "old"), "host", 1, &[7.0]);
    drop(store);
    let planned = qtune.json(&["cache", "gc", "--dry-run", "--json"]);
    assert_eq!((&planned["report"]["dropped"], &planned["dry_run"]), (&1.into(), &true.into()));
    let report = &qtune.json(&["cache", "gc", "--json"])["report"];
    assert_eq!((&report["dropped"], &report["kept"]), (&1.into(), &2.into()));
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(bytes("bytes_after") < bytes("bytes_before"), "{report}");
    assert_eq!(winners(&qtune.json(&["cache", "ls", "--json"])).len(), 2);
    assert_eq!(qtune.json(&["cache", "verify", "--json"])["sound"], true);
}
