//! The store on disk: reopening, crashes, damage, locks, and folders that cannot be used.

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{kernel, key, winner};
use qtune_cache::{CacheError, SetAsideReason, SledStore, Store};

/// Names the folder for tests that run as a child process of another test.
const CHILD_DIR: &str = "QTUNE_CACHE_TEST_DIR";

fn open(dir: &Path) -> (SledStore, qtune_cache::OpenReport) {
    SledStore::open(dir).unwrap_or_else(|error| panic!("{error}"))
}

/// A closed store with winners 1..=3.
fn store_with_three(dir: &Path) {
    let (store, report) = open(dir);
    assert!(report.created && !report.unclean && report.set_aside.is_none());
    for n in 1..=3 {
        store.put(&key(n), &winner(f64::from(n)), &kernel(n)).unwrap();
    }
}

/// Whether winner `n` is there with its code.
fn has(store: &SledStore, n: u32) -> bool {
    store.get(&key(n)).unwrap().is_some_and(|record| {
        assert_eq!(record.winner, winner(f64::from(n)));
        assert_eq!(store.kernel(&record).unwrap().unwrap(), kernel(n));
        true
    })
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    #[cfg(unix)]
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Overwrites one byte of a file with another value.
fn flip_byte(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 0x41;
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&bytes[offset as usize..=offset as usize]).unwrap();
}

/// Starts one ignored test of this file as a process of its own.
fn spawn_child(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn winners_survive_closing_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    store_with_three(dir.path());
    for _ in 0..3 {
        let (store, report) = open(dir.path());
        assert!(!report.created && !report.unclean && report.set_aside.is_none(), "{report:?}");
        assert_eq!(report.winners, 3);
        assert!((1..=3).all(|n| has(&store, n)));
        assert!(!has(&store, 4));
    }
}

#[test]
fn a_put_is_on_disk_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir.path().join("live"));
    for n in 1..=4 {
        store.put(&key(n), &winner(f64::from(n)), &kernel(n)).unwrap();
        // What a power cut at this moment would leave.
        let image = dir.path().join(format!("image{n}"));
        copy_folder(&dir.path().join("live"), &image);
        let (crashed, report) = open(&image);
        assert!(report.unclean && report.set_aside.is_none(), "{report:?}");
        assert!((1..=n).all(|earlier| has(&crashed, earlier)));
    }
}

#[test]
fn a_log_cut_anywhere_yields_whole_winners_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir.path().join("live"));
    store.put(&key(1), &winner(1.0), &kernel(1)).unwrap();
    let before = fs::metadata(dir.path().join("live/winners/db")).unwrap().len();
    store.put(&key(2), &winner(2.0), &kernel(2)).unwrap();
    let after = fs::metadata(dir.path().join("live/winners/db")).unwrap().len();

    for step in 0..8 {
        let image = dir.path().join(format!("image{step}"));
        copy_folder(&dir.path().join("live"), &image);
        let length = before + (after - before) * step / 8;
        let log = OpenOptions::new().write(true).open(image.join("winners/db")).unwrap();
        log.set_len(length).unwrap();
        let (crashed, report) = open(&image);
        if report.set_aside.is_none() {
            // Whether they are there is up to the cut; that they are whole is asserted by `has`.
            has(&crashed, 1);
            has(&crashed, 2);
            assert!(crashed.verify().unwrap().damaged.is_empty());
        }
        crashed.put(&key(5), &winner(5.0), &kernel(5)).unwrap();
        assert!(has(&crashed, 5));
    }
}

#[test]
fn one_changed_byte_of_a_closed_store_sets_it_aside_and_a_fresh_one_works() {
    let dir = tempfile::tempdir().unwrap();
    store_with_three(dir.path());
    let size = fs::metadata(dir.path().join("winners/db")).unwrap().len();
    for (round, offset) in [0, 20, size / 2, size - 1].into_iter().enumerate() {
        let copy = dir.path().join(format!("copy{round}"));
        fs::create_dir(&copy).unwrap();
        copy_folder(&dir.path().join("winners"), &copy.join("winners"));
        fs::copy(dir.path().join("winners.seal"), copy.join("winners.seal")).unwrap();
        flip_byte(&copy.join("winners/db"), offset);

        let (store, report) = open(&copy);
        let aside = report.set_aside.expect("the damage was not seen");
        assert!(matches!(&aside.reason, SetAsideReason::Damaged(d) if d.contains("file db")));
        assert!(aside.to.join("db").exists());
        let name = aside.to.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("winners.damaged-"), "{name}");
        assert!(name.ends_with(&std::process::id().to_string()), "{name}");
        assert!(!aside.to_string().contains('\n'));

        assert!(!has(&store, 1));
        store.put(&key(1), &winner(1.0), &kernel(1)).unwrap();
        drop(store);
        let (store, report) = open(&copy);
        assert!(report.set_aside.is_none() && has(&store, 1));
    }
}

#[test]
fn damage_to_a_store_that_was_not_closed_never_panics_and_never_serves_a_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (store, _) = open(&live);
    for n in 1..=3 {
        store.put(&key(n), &winner(f64::from(n)), &kernel(n)).unwrap();
    }
    let size = fs::metadata(live.join("winners/db")).unwrap().len();
    for step in 0..24 {
        let image = dir.path().join(format!("image{step}"));
        copy_folder(&live, &image);
        flip_byte(&image.join("winners/db"), size * step / 24 + step * 7);
        let (damaged, _) = open(&image);
        for n in 1..=3 {
            // `has` asserts that what is served is right; whether it is there is up to the damage.
            has(&damaged, n);
        }
        damaged.put(&key(9), &winner(9.0), &kernel(9)).unwrap();
        assert!(has(&damaged, 9));
        drop(damaged);
        assert!(has(&open(&image).0, 9));
        fs::remove_dir_all(&image).unwrap();
    }
}

#[test]
fn garbage_in_every_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    store_with_three(dir.path());
    for file in ["winners/db", "winners/conf", "winners.seal"] {
        fs::write(dir.path().join(file), b"this is not the file you wrote").unwrap();
    }
    let (store, report) = open(dir.path());
    assert!(report.set_aside.is_some());
    store.put(&key(1), &winner(1.0), &kernel(1)).unwrap();
    assert!(has(&store, 1));
}

#[test]
fn a_second_opener_in_the_same_process_is_told_who_holds_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let error = SledStore::open(dir.path()).unwrap_err();
    match &error {
        CacheError::Locked { holder, .. } => assert_eq!(*holder, Some(std::process::id())),
        other => panic!("{other}"),
    }
    let message = error.to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    assert!(!message.contains('\n'));
}

#[test]
fn a_second_process_gets_one_line_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let output =
        spawn_child("child_opens_and_prints_the_error", dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
#[ignore = "runs as a child process of other tests"]
fn child_opens_and_prints_the_error() {
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).expect("not run as a child"));
    println!("{}", SledStore::open(&dir).unwrap_err());
}

#[test]
fn a_process_killed_while_writing_loses_nothing_it_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn_child("child_puts_winners_for_ever", dir.path());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut reported = 0;
    for line in lines {
        if let Some(n) = line.unwrap().strip_prefix("stored ").and_then(|n| n.parse().ok()) {
            reported = n;
            if reported == 6 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(reported >= 6);

    let (store, report) = open(dir.path());
    assert!(report.unclean && report.set_aside.is_none(), "{report:?}");
    assert!((1..=reported).all(|n| has(&store, n)));
    assert!(store.verify().unwrap().damaged.is_empty());
}

#[test]
#[ignore = "runs as a child process of other tests"]
fn child_puts_winners_for_ever() {
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).expect("not run as a child"));
    let (store, _) = open(&dir);
    for n in 1.. {
        store.put(&key(n), &winner(f64::from(n)), &kernel(n)).unwrap();
        println!("stored {n}");
    }
}

#[test]
fn a_path_that_is_a_file_or_lies_under_one_is_a_one_line_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("cache")] {
        let message = SledStore::open(&path).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains("choose a folder") && !message.contains('\n'), "{message}");
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_a_one_line_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::create_dir(dir.path().join("probe")).is_ok() {
        println!("skipped: this user (root) may write to read-only folders");
        return;
    }
    let message = SledStore::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("make it readable and writable"), "{message}");
}

/// A limit on file sizes stands in for a full disk: it needs no privileges and refuses the same
/// write calls.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_is_a_one_line_error_and_the_old_winner_stays() {
    let dir = tempfile::tempdir().unwrap();
    store_with_three(dir.path());
    let kilobytes = fs::metadata(dir.path().join("winners/db")).unwrap().len() / 1024 + 1024;
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_fills_the_disk", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("free some space there"), "{text}");
    assert!(!text.contains("panicked"), "{text}");

    let (store, _) = open(dir.path());
    assert!((1..=3).all(|n| has(&store, n)), "{text}");
}

#[test]
#[ignore = "runs as a child process of other tests"]
fn child_fills_the_disk() {
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).expect("not run as a child"));
    let (store, _) = open(&dir);
    for n in 100..10_000 {
        // The same keys get new values until the disk is full.
        let slower = winner(f64::from(n));
        match store.put(&key(4), &slower, &kernel(n)) {
            Ok(()) => {}
            Err(error) => {
                println!("{error}");
                let previous = store.get(&key(4)).unwrap().map(|record| record.winner.time_us);
                assert_eq!(previous, (n > 100).then(|| f64::from(n - 1)));
                assert!((1..=3).all(|n| has(&store, n)));
                assert!(store.put(&key(5), &slower, &kernel(5)).is_err());
                return;
            }
        }
    }
    panic!("the disk never filled up");
}
