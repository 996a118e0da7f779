//! Tests of damage to single records, made by writing past the store.

use super::*;
use crate::memory::MemoryStore;
use crate::record::{Evidence, Extent, Provenance, Verification};

fn key() -> WinnerKey {
    WinnerKey { problem: "p".into(), arch: "a".into(), fingerprint: "f".into() }
}

fn winner() -> Winner {
    Winner {
        schedule: "s".into(),
        family: "gemv".into(),
        evidence: Evidence::Modelled,
        time_us: 1.0,
        samples_us: Vec::new(),
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
        provenance: Provenance::default(),
    }
}

fn kernel() -> Kernel {
    Kernel { source: "source".into(), ptx: "ptx".into(), cubin: vec![1, 2, 3] }
}

/// A store with one winner, and that winner's row.
fn store_with_one() -> (MemoryStore, Row) {
    let store = MemoryStore::default();
    store.put(&key(), &winner(), &kernel()).unwrap();
    let row = store.engine.scan(Table::Winners, &[]).unwrap().remove(0);
    (store, row)
}

fn write(store: &MemoryStore, table: Table, key: &[u8], value: Option<Vec<u8>>) {
    store.engine.commit(vec![Write { table, key: key.to_vec(), value }]).unwrap();
}

#[test]
fn a_damaged_winner_is_a_miss_reported_once_and_kept_for_study() {
    let (store, row) = store_with_one();
    let mut bytes = row.value.clone();
    *bytes.last_mut().unwrap() ^= 1;
    write(&store, Table::Winners, &row.key, Some(bytes.clone()));

    assert!(store.get(&key()).unwrap().is_none());
    assert!(store.get(&key()).unwrap().is_none());
    assert_eq!(store.stats().misses, 2);
    let damaged = store.damaged();
    assert_eq!(damaged.len(), 1);
    assert_eq!((damaged[0].table.as_str(), damaged[0].key.as_str()), ("winners", "p@a@f"));
    assert!(damaged[0].reason.contains("checksum"), "{}", damaged[0].reason);

    let kept = store.engine.scan(Table::Damaged, b"winners\0").unwrap().remove(0);
    let kept: StoredDamage = codec::decode(Kind::Damaged, &kept.value).unwrap();
    assert_eq!((kept.key, kept.bytes), (row.key, bytes));
}

#[test]
fn a_winner_under_a_key_that_is_not_its_own_is_damage() {
    let (store, row) = store_with_one();
    let other = WinnerKey { problem: "other".into(), ..key() };
    write(&store, Table::Winners, &other.to_bytes().unwrap(), Some(row.value));
    assert!(store.get(&other).unwrap().is_none());
    assert!(store.damaged()[0].reason.contains("not its own"));
    assert!(store.get(&key()).unwrap().is_some());
}

#[test]
fn a_stored_winner_that_says_it_is_unverified_is_damage() {
    let (store, row) = store_with_one();
    let winner = Winner { verified: false, ..winner() };
    let blobs = BlobRefs::of(&kernel());
    let unverified = WinnerRow::of(key(), Contribution { winner, blobs });
    let value = codec::encode(Kind::Winner, &unverified).unwrap();
    write(&store, Table::Winners, &row.key, Some(value));
    assert!(store.get(&key()).unwrap().is_none());
    assert!(store.damaged()[0].reason.contains("not verified"));
}

#[test]
fn a_winner_whose_code_is_altered_or_gone_stops_being_served() {
    for value in [Some(b"ptX".to_vec()), None] {
        let (store, _) = store_with_one();
        let record = store.get(&key()).unwrap().unwrap();
        let blob_key = [record.blobs.ptx.0.as_slice(), &[0; 4]].concat();
        write(&store, Table::Blobs, &blob_key, value);

        assert!(store.kernel(&record).unwrap().is_none());
        assert!(store.get_blob(&record.blobs.ptx).unwrap().is_none());
        assert!(store.get(&key()).unwrap().is_none());
        let tables: Vec<String> = store.damaged().into_iter().map(|d| d.table).collect();
        assert!(tables.contains(&"winners".to_string()), "{tables:?}");

        store.put(&key(), &winner(), &kernel()).unwrap();
        let record = store.get(&key()).unwrap().unwrap();
        assert_eq!(store.kernel(&record).unwrap().unwrap(), kernel());
    }
}

#[test]
fn verify_counts_what_is_sound_and_names_what_is_not() {
    let (store, row) = store_with_one();
    let leftover = [Digest::of(b"cut short").0.as_slice(), &[0; 4]].concat();
    write(&store, Table::Blobs, &leftover, Some(b"cut".to_vec()));
    let sound = store.verify().unwrap();
    assert_eq!((sound.winners, sound.blobs, sound.unused_blobs), (1, 3, 1));
    assert_eq!(sound.blob_bytes, "source".len() as u64 + "ptx".len() as u64 + 3);
    assert!(sound.damaged.is_empty());

    write(&store, Table::Winners, &row.key, Some(b"QTUN".to_vec()));
    write(&store, Table::Poison, &[0xff, 7], Some(Vec::new()));
    let damaged = store.verify().unwrap();
    assert_eq!((damaged.winners, damaged.damaged.len()), (0, 2));
    assert_eq!(damaged.damaged[1].key, "ff07");
    assert_eq!(store.verify().unwrap().damaged_before, 2);
}

#[test]
fn half_a_blob_left_by_a_crash_is_completed_by_the_next_put() {
    let store = MemoryStore::default();
    let long = Kernel { ptx: "ptx ".repeat(50_000), ..kernel() };
    let digest = Digest::of(long.ptx.as_bytes());
    let mut rows = blob::rows_of(&digest, long.ptx.as_bytes()).unwrap();
    rows.truncate(2);
    store.engine.commit(rows).unwrap();

    store.put(&key(), &winner(), &long).unwrap();
    let record = store.get(&key()).unwrap().unwrap();
    assert_eq!(store.kernel(&record).unwrap().unwrap(), long);
    assert!(store.damaged().is_empty());
}
