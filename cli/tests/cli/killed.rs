//! `tune` killed at any moment loses at most the trial in flight.

use crate::support::{has_compiler, Qtune};
use qtune_cache::trial_log::{self, TrialEvent};
use qtune_cache::{SledStore, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

const TUNE: [&str; 13] = [
    "tune",
    "--gpu",
    "h200",
    "--device",
    "sim",
    "--format",
    "awq-g128",
    "--shape",
    "64x256",
    "--m",
    "1,2,4,8,16",
    "--effort",
    "quick",
];

/// Problem and schedule of winners.
type Winners = BTreeSet<(String, String)>;

/// What the log says was stored. Reading it is a check: only its last line may be torn.
fn logged(cache: &Path) -> Winners {
    let log = cache.join("trials/sm90a.132.jsonl");
    let events = if log.exists() { trial_log::read(&log).unwrap() } else { Vec::new() };
    assert!(trial_log::poison(&events).is_empty(), "the simulator's launches are not logged");
    let winner = |event| match event {
        TrialEvent::Winner { problem, schedule, .. } => Some((problem, schedule)),
        _ => None,
    };
    events.into_iter().filter_map(winner).collect()
}

/// What is stored, all of it sound.
fn stored(cache: &Path) -> Winners {
    let (store, report) = SledStore::open(cache).unwrap();
    assert!(report.set_aside.is_none(), "{report:?}");
    let verified = store.verify().unwrap();
    assert_eq!((verified.damaged.len(), verified.damaged_before), (0, 0), "{verified:?}");
    let winners = store.winners().unwrap();
    assert_eq!(verified.winners, winners.len());
    winners.into_iter().map(|record| (record.key.problem, record.winner.schedule)).collect()
}

/// Kills `tune` so many times, at moments spread over a whole run; runs go on where the killed
/// one ended, and start over once everything is tuned.
fn killed(times: u32) {
    if !has_compiler() {
        return;
    }
    let start = Instant::now();
    let whole = Qtune::new();
    whole.ok(&TUNE);
    let (all, run) = (stored(&whole.cache.path().join("cache")), start.elapsed());
    assert_eq!(all.len(), 5);

    let mut qtune = Qtune::new();
    let mut before = Winners::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for kill in 0..times {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut command = qtune.command(&TUNE);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(run.mul_f64((state >> 11) as f64 / (1u64 << 53) as f64));
        child.kill().unwrap();
        child.wait().unwrap();

        let cache = qtune.cache.path().join("cache");
        let found = stored(&cache);
        assert!(found.is_superset(&before), "kill {kill} lost what was stored before");
        assert!(found.is_superset(&logged(&cache)), "kill {kill} lost what was logged as stored");
        assert!(found.is_subset(&all), "kill {kill} left another winner than a whole run's");
        before = found;
        if before.len() == all.len() {
            qtune = Qtune::new();
            before.clear();
        }
    }
}

#[test]
fn a_tuner_that_is_killed_loses_nothing_that_was_stored() {
    killed(6);
}

#[test]
#[ignore = "minutes; run with --ignored before a release"]
fn a_tuner_that_is_killed_two_hundred_times_loses_nothing_that_was_stored() {
    killed(200);
}
