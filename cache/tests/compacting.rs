//! Compacting a store on disk, and being killed in the middle of it.

mod common;

use common::{kernel, key, winner};
use qtune_cache::{
    holds_store, Compaction, Poisoned, Provenance, SledStore, Store, Winner, WinnerKey,
};
use std::fs;
use std::path::Path;

fn open(dir: &Path) -> SledStore {
    let (store, report) = SledStore::open(dir).unwrap();
    assert!(report.set_aside.is_none(), "{report:?}");
    store
}

/// All that nothing has superseded.
fn everything() -> Compaction<'static> {
    Compaction { wanted: &|_| true, poison: true, dry_run: false }
}

fn made_at(seconds: u64, time_us: f64) -> Winner {
    let provenance = Provenance { created_unix_seconds: seconds, ..Provenance::default() };
    Winner { provenance, ..winner(time_us) }
}

/// A store with winners 1 to 3, all of them replaced several times, and a poisoned schedule.
fn used(dir: &Path) {
    let store = open(dir);
    for round in 0..6 {
        for n in 1..=3 {
            store.put(&key(n), &winner(f64::from(n)), &kernel(n + 10 * round)).unwrap();
        }
    }
    for n in 1..=3 {
        store.put(&key(n), &winner(f64::from(n)), &kernel(n)).unwrap();
    }
    let WinnerKey { problem, arch, .. } = key(1);
    let (schedule, reason) = ("s".into(), "hangs".into());
    let entry = Poisoned { problem, arch, schedule, reason, compile_limit_s: None };
    store.put_poison(&entry).unwrap();
}

fn holds_three(dir: &Path) {
    let store = open(dir);
    for n in 1..=3 {
        let record = store.get(&key(n)).unwrap().unwrap();
        assert_eq!(record.winner, winner(f64::from(n)));
        assert_eq!(store.kernel(&record).unwrap().unwrap(), kernel(n));
    }
    assert_eq!(store.poison().unwrap().len(), 1);
    let report = store.verify().unwrap();
    assert_eq!((report.winners, report.damaged.len()), (3, 0));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |e: Result<fs::DirEntry, _>| e.unwrap().file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn poisoned_schedules_go_where_that_is_asked_for_and_winners_stay() {
    let dir = tempfile::tempdir().unwrap();
    used(dir.path());
    let report = open(dir.path()).compact(&Compaction { poison: false, ..everything() }).unwrap();
    assert_eq!((report.kept, report.poisoned), (3, 0));
    let store = open(dir.path());
    assert!(store.poison().unwrap().is_empty());
    assert_eq!(store.winners().unwrap().len(), 3);
}

#[test]
fn what_a_replay_found_supersedes_only_what_replays_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let replay = |log: &str| WinnerKey { fingerprint: log.into(), ..key(1) }.of_replay();
    store.put(&key(1), &made_at(10, 1.0), &kernel(1)).unwrap();
    for (seconds, log) in [(20, "first"), (30, "second")] {
        store.put(&replay(log), &made_at(seconds, 2.0), &kernel(1)).unwrap();
    }
    store.compact(&everything()).unwrap();
    let kept: Vec<WinnerKey> =
        open(dir.path()).winners().unwrap().into_iter().map(|record| record.key).collect();
    assert_eq!(kept, [key(1), replay("second")]);
}

#[test]
fn a_compacted_store_holds_the_same_in_less_space() {
    let dir = tempfile::tempdir().unwrap();
    used(dir.path());
    let report = open(dir.path()).compact(&everything()).unwrap();
    assert_eq!((report.kept, report.dropped, report.poisoned), (3, 0, 1));
    assert!(report.bytes_after < report.bytes_before / 2, "{report:?}");
    assert_eq!(names(dir.path()), ["winners", "winners.lock", "winners.seal"]);
    holds_three(dir.path());
    let store = open(dir.path());
    assert_eq!(store.verify().unwrap().unused_blobs, 0);
}

#[test]
fn only_the_newest_fingerprint_of_a_problem_and_what_is_wanted_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let under = |n: u32, fingerprint: &str| WinnerKey { fingerprint: fingerprint.into(), ..key(n) };
    store.put(&under(1, "z-old"), &made_at(10, 1.0), &kernel(1)).unwrap();
    store.put(&under(1, "a-new"), &made_at(20, 2.0), &kernel(2)).unwrap();
    store.put(&under(2, "z-old"), &made_at(10, 3.0), &kernel(3)).unwrap();
    store.put(&under(3, "z-old"), &made_at(10, 4.0), &kernel(4)).unwrap();
    let unwanted = key(3).problem;
    let report = store
        .compact(&Compaction { wanted: &|key| key.problem != unwanted, ..everything() })
        .unwrap();
    assert_eq!((report.kept, report.dropped), (2, 2));
    let keys: Vec<WinnerKey> =
        open(dir.path()).winners().unwrap().into_iter().map(|record| record.key).collect();
    assert_eq!(keys, [under(1, "a-new"), under(2, "z-old")]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    used(dir.path());
    let report = open(dir.path())
        .compact(&Compaction { wanted: &|_| false, dry_run: true, ..everything() })
        .unwrap();
    assert_eq!((report.kept, report.dropped), (0, 3));
    assert_eq!(report.bytes_after, report.bytes_before);
    holds_three(dir.path());
}

/// What a process that is killed leaves: before the first rename, between the two, after them.
#[test]
fn a_compaction_cut_short_at_any_step_leaves_one_whole_store() {
    for step in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        used(dir.path());
        if step == 0 {
            fs::create_dir(at("winners.compacting")).unwrap();
            fs::write(at("winners.compacting").join("db"), "half of a database").unwrap();
        } else {
            let old = tempfile::tempdir().unwrap();
            used(old.path());
            open(dir.path()).compact(&everything()).unwrap();
            fs::remove_file(at("winners.seal")).unwrap();
            fs::rename(old.path().join("winners"), at("winners.outgoing")).unwrap();
            if step == 1 {
                fs::rename(at("winners"), at("winners.compacting")).unwrap();
            }
        }
        assert!(holds_store(dir.path()));
        holds_three(dir.path());
        assert_eq!(names(dir.path()), ["winners", "winners.lock", "winners.seal"], "step {step}");
    }
}

#[test]
fn a_copy_is_read_without_touching_the_original() {
    let dir = tempfile::tempdir().unwrap();
    used(dir.path());
    let contents = |dir: &Path| {
        let file = |name: &str| fs::read(dir.join(name)).unwrap();
        (names(dir), file("winners/db"), file("winners.seal"))
    };
    let before = contents(dir.path());
    let (copy, report) = SledStore::open_copy(dir.path()).unwrap();
    assert_eq!(report.winners, 3);
    copy.put(&key(9), &winner(9.0), &kernel(9)).unwrap();
    drop(copy);
    assert_eq!(contents(dir.path()), before);
    holds_three(dir.path());

    fs::write(dir.path().join("winners/db"), "not a database").unwrap();
    let message = SledStore::open_copy(dir.path()).unwrap_err().to_string();
    assert!(message.contains("damaged"), "{message}");
}
