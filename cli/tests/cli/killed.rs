//! `tune` killed at any moment loses at most the trial in flight.

use crate::replay;
use crate::support::{has_compiler, Qtune};
use qtune_cache::trial_log::{self, TrialEvent};
use qtune_cache::{SledStore, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// A trial log of a cache. Reading it is a check: only its last line may be torn.
fn events(cache: &Path, name: &str) -> Vec<TrialEvent> {
    let log = cache.join("trials").join(name);
    if log.exists() {
        trial_log::read(&log).unwrap()
    } else {
        Vec::new()
    }
}

/// What a log says was stored.
fn winners(events: &[TrialEvent]) -> Winners {
    let winner = |event: &TrialEvent| match event {
        TrialEvent::Winner { problem, schedule, .. } => Some((problem.clone(), schedule.clone())),
        _ => None,
    };
    events.iter().filter_map(winner).collect()
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

/// Runs a command and kills it at moments spread over as long as a whole run takes.
struct Killer {
    run: Duration,
    state: u64,
}

impl Killer {
    fn new(run: Duration) -> Killer {
        Killer { run, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn kill(&mut self, mut command: Command) {
        // Xorshift (Marsaglia, 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(self.run.mul_f64((self.state >> 11) as f64 / (1u64 << 53) as f64));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Runs go on where the killed one ended, and start over once everything is tuned.
#[test]
fn a_tuner_that_is_killed_loses_nothing_that_was_stored() {
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
    let mut killer = Killer::new(run);
    for kill in 0..6 {
        killer.kill(qtune.command(&TUNE));
        let cache = qtune.cache.path().join("cache");
        let found = stored(&cache);
        assert!(found.is_superset(&before), "kill {kill} lost what was stored before");
        let events = events(&cache, "sm90a.132.jsonl");
        assert!(trial_log::poison(&events).is_empty(), "the simulator's launches are not logged");
        assert!(found.is_superset(&winners(&events)), "kill {kill} lost what was logged as stored");
        assert!(found.is_subset(&all), "kill {kill} left another winner than a whole run's");
        before = found;
        if before.len() == all.len() {
            qtune = Qtune::new();
            before.clear();
        }
    }
}

/// What a search on a log's times finds does not depend on when it was killed, how often, and begun
/// again.
#[test]
fn a_measuring_tuner_that_is_killed_two_hundred_times_finds_what_a_whole_run_finds() {
    let mut qtune = Qtune::new();
    let log_folder = tempfile::tempdir().unwrap();
    let log = log_folder.path().join("log.jsonl");
    replay::log(&log);
    let device = format!("replay:{}", log.display());
    let start = Instant::now();
    let cache = |qtune: &Qtune| qtune.cache.path().join("cache");
    qtune.ok(&replay::tune(&device, cache(&qtune).to_str().unwrap(), &[]));
    let (all, run) = (stored(&cache(&qtune)), start.elapsed());
    let events = |folder: &Path| events(folder, "sm90a.132.replayed.jsonl");
    assert_eq!((all.len(), winners(&events(&cache(&qtune)))), (3, all.clone()));

    qtune = Qtune::new();
    let (mut killer, mut before) = (Killer::new(run), Winners::new());
    for kill in 0..200 {
        let folder = cache(&qtune);
        killer.kill(qtune.command(&replay::tune(&device, folder.to_str().unwrap(), &[])));
        let (found, events) = (stored(&folder), events(&folder));
        assert!(found.is_superset(&before), "kill {kill} lost what was stored before");
        assert!(found.is_superset(&winners(&events)), "kill {kill} lost a logged winner");
        assert!(found.is_subset(&all), "kill {kill} left another winner than a whole run's");
        before = found;
        if before.len() == all.len() {
            (qtune, before) = (Qtune::new(), Winners::new());
        }
    }
}
