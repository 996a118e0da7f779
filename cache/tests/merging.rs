//! Merging, exporting and importing whole stores.

mod common;

use common::{kernel, key, winner};
use qtune_cache::{
    export, import, merge, CacheError, Evidence, ExportSummary, MemoryStore, Poisoned, Provenance,
    Store, Winner, WinnerKey,
};

/// What `host` found: as many microseconds as its samples' median.
fn found(host: &str, samples_us: &[f64]) -> Winner {
    Winner {
        evidence: Evidence::Timed,
        samples_us: samples_us.to_vec(),
        provenance: Provenance { host: host.into(), ..Provenance::default() },
        ..winner(samples_us[samples_us.len() / 2])
    }
}

fn poisoned(schedule: &str, reason: &str) -> Poisoned {
    let WinnerKey { problem, arch, .. } = key(1);
    let (schedule, reason) = (schedule.into(), reason.into());
    Poisoned { problem, arch, schedule, reason, compile_limit_s: None }
}

fn store_of(host: &str, times: &[(u32, f64)]) -> MemoryStore {
    let store = MemoryStore::default();
    for (n, us) in times {
        store.put(&key(*n), &found(host, &[*us, *us]), &kernel(*n)).unwrap();
    }
    store.put_poison(&poisoned(host, "hangs")).unwrap();
    store.put_poison(&poisoned("both", host)).unwrap();
    store
}

/// The whole store as bytes: equal stores give equal exports.
fn bytes(store: &dyn Store) -> Vec<u8> {
    let mut file = Vec::new();
    export(store, &mut file).unwrap();
    file
}

fn merged(stores: &[&MemoryStore]) -> MemoryStore {
    let into = MemoryStore::default();
    stores.iter().for_each(|store| drop(merge(&into, *store).unwrap()));
    into
}

#[test]
fn the_order_and_the_number_of_merges_change_nothing() {
    let a = store_of("a", &[(1, 5.0), (2, 4.0)]);
    let b = store_of("b", &[(2, 3.0), (3, 7.0)]);
    let c = store_of("c", &[(1, 4.5), (2, 9.0)]);
    let all = bytes(&merged(&[&a, &b, &c]));
    assert_eq!(all, bytes(&merged(&[&c, &b, &a])));
    assert_eq!(all, bytes(&merged(&[&b, &a, &c, &b, &a])));
    assert_eq!(all, bytes(&merged(&[&a, &merged(&[&c, &b])])));
}

#[test]
fn a_merge_keeps_every_machines_samples_and_serves_the_best() {
    let a = store_of("a", &[(1, 5.0), (2, 4.0)]);
    let report = merge(&a, &store_of("b", &[(2, 3.0), (3, 7.0)])).unwrap();
    assert_eq!((report.new, report.changed, report.kept, report.contributions), (1, 1, 0, 2));
    assert_eq!(report.poisoned, 1);
    assert_eq!(a.get(&key(2)).unwrap().unwrap().winner.time_us, 3.0);
    let contributions = a.contributions(&key(2)).unwrap();
    let samples: Vec<(&str, &[f64])> = contributions
        .iter()
        .map(|r| (r.winner.provenance.host.as_str(), r.winner.samples_us.as_slice()))
        .collect();
    assert_eq!(samples, [("b", &[3.0, 3.0][..]), ("a", &[4.0, 4.0][..])]);
    let again = merge(&a, &store_of("b", &[(2, 3.0)])).unwrap();
    assert_eq!((again.kept, again.contributions, again.poisoned), (1, 0, 0));
}

#[test]
fn winners_of_different_fingerprints_lie_side_by_side() {
    let a = store_of("a", &[(1, 5.0)]);
    let newer = WinnerKey { fingerprint: "newer".into(), ..key(1) };
    let b = MemoryStore::default();
    b.put(&newer, &found("b", &[9.0]), &kernel(1)).unwrap();
    assert_eq!(merge(&a, &b).unwrap().new, 1);
    assert_eq!(a.get(&key(1)).unwrap().unwrap().winner.time_us, 5.0);
    assert_eq!(a.get(&newer).unwrap().unwrap().winner.time_us, 9.0);
}

#[test]
fn different_code_for_the_same_schedule_is_reported_and_kept() {
    let a = store_of("a", &[(1, 5.0)]);
    let b = MemoryStore::default();
    let mut other = kernel(1);
    other.source.push_str("// edited\n");
    let copied = Winner { schedule: winner(5.0).schedule, ..found("b", &[6.0]) };
    b.put(&key(1), &copied, &other).unwrap();
    let report = merge(&a, &b).unwrap();
    assert_eq!(report.conflicts.len(), 1);
    assert_eq!(report.conflicts[0].hosts, ["a", "b"]);
    assert_eq!(a.contributions(&key(1)).unwrap().len(), 2);
}

#[test]
fn an_export_comes_back_whole() {
    let a = store_of("a", &[(1, 5.0), (2, 4.0)]);
    merge(&a, &store_of("b", &[(2, 3.0)])).unwrap();
    let file = bytes(&a);
    let (loaded, summary) = import(&mut file.as_slice()).unwrap();
    let expected = ExportSummary { winners: 2, contributions: 3, poisoned: 3, blobs: 5 };
    assert_eq!(summary, expected);
    assert_eq!(bytes(&loaded), file);
    for record in loaded.winners().unwrap() {
        assert_eq!(loaded.kernel(&record).unwrap(), a.kernel(&record).unwrap());
    }
}

#[test]
fn an_empty_store_exports_and_imports() {
    let (loaded, summary) = import(&mut bytes(&MemoryStore::default()).as_slice()).unwrap();
    assert_eq!(summary, ExportSummary::default());
    assert!(loaded.winners().unwrap().is_empty());
}

/// Why a file is refused.
fn refusal(file: &[u8]) -> String {
    match import(&mut &file[..]) {
        Err(error @ CacheError::BadExport(_)) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("an unsound export was taken"),
    }
}

#[test]
fn every_cut_extension_and_changed_byte_of_an_export_is_refused() {
    let file = bytes(&store_of("a", &[(1, 5.0)]));
    let step = file.len() / 150 + 1;
    for at in (0..file.len()).step_by(step).chain([file.len() - 1]) {
        refusal(&file[..at]);
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        refusal(&changed);
    }
    assert!(refusal(&[&file[..], &[0]].concat()).contains("follows its end"));
}

#[test]
fn records_left_out_or_exchanged_are_noticed_though_each_is_sound() {
    let file = bytes(&store_of("a", &[(1, 5.0), (2, 4.0)]));
    let mut records = Vec::new();
    let mut rest = file.as_slice();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (record, after) = rest.split_at(44 + length);
        records.push(record);
        rest = after;
    }
    for left_out in 1..records.len() {
        let mut fewer = records.clone();
        fewer.remove(left_out);
        refusal(&fewer.concat());
    }
    records.swap(1, 2);
    assert!(refusal(&records.concat()).contains("not the ones that were written"));
}

#[test]
fn a_file_that_promises_huge_records_is_refused_before_anything_is_allocated() {
    let mut file = bytes(&MemoryStore::default());
    file[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&file).contains("the limit is"));
    assert!(refusal(b"").contains("cut off"));
    assert!(refusal(&[b'x'; 100]).contains("wrong magic"));
}
