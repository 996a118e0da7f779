//! The store's promises about records, on the store in memory (every store shares this code).

mod common;

use common::{kernel, key, winner};
use proptest::collection::vec;
use proptest::prelude::*;
use qtune_cache::{
    Beaten, CacheError, Counts, Digest, Evidence, Extent, Kernel, MemoryStore, Poisoned,
    Provenance, Store, Verification, Winner, WinnerKey,
};

/// A float that is a number; NaN differs from itself, which says nothing about the codec.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>().prop_filter("NaN", |x| !x.is_nan()), Just(f64::INFINITY), Just(-0.0)]
}

/// Any verified winner.
fn any_winner() -> impl Strategy<Value = Winner> {
    let text = || ".{0,40}";
    let beaten = (text(), number(), text()).prop_map(|(schedule, time_us, reason)| Beaten {
        schedule,
        time_us,
        reason,
    });
    let counts = (vec(number(), 4), any::<(u64, u32, u32, u64)>()).prop_map(|(f, n)| Counts {
        lane_instructions_per_weight: f[0],
        shared_wavefronts_over_ideal: f[1],
        global_sectors_over_ideal: f[2],
        weight_bytes_over_compulsory: f[3],
        bytes_in_flight_per_sm: n.0,
        registers: n.1,
        spill_bytes: n.2,
        shared_bytes: n.3,
    });
    let verification =
        (vec(any::<u64>(), 0..5), text()).prop_map(|(seeds, cases)| Verification { seeds, cases });
    let provenance =
        (text(), text(), any::<u64>(), text(), text()).prop_map(|(host, device, t, q, c)| {
            Provenance {
                host,
                device,
                created_unix_seconds: t,
                qtune_version: q,
                compiler_version: c,
            }
        });
    let head = (text(), text(), any::<bool>(), number(), number(), 0.0..=1.0f64, 0..EXTENTS.len());
    let lists =
        (vec((text(), number()), 0..6), vec(beaten, 0..6), vec(text(), 0..6), vec(number(), 0..6));
    (head, verification, counts, lists, provenance).prop_map(
        |(head, verification, counts, lists, provenance)| Winner {
            schedule: head.0,
            family: head.1,
            evidence: if head.2 { Evidence::Timed } else { Evidence::Modelled },
            time_us: head.3,
            load_only_us: lists.3.first().copied(),
            samples_us: lists.3,
            roof_share: head.4,
            verified: true,
            error_over_bound: head.5,
            extent: EXTENTS[head.6],
            verification,
            counts,
            cost_terms: lists.0,
            beat: lists.1,
            derivation: lists.2,
            provenance,
        },
    )
}

const EXTENTS: [Extent; 5] =
    [Extent::Unrecorded, Extent::CutShort, Extent::Quick, Extent::Normal, Extent::Full];

proptest! {
    #[test]
    fn any_verified_winner_and_its_code_come_back_as_they_were(
        winner in any_winner(),
        source in ".{0,200}",
        cubin in vec(any::<u8>(), 0..300),
    ) {
        let store = MemoryStore::default();
        let kernel = Kernel { source: source.clone(), ptx: source, cubin };
        store.put(&key(1), &winner, &kernel).unwrap();
        let found = store.get(&key(1)).unwrap().unwrap();
        prop_assert_eq!(&found.winner, &winner);
        prop_assert_eq!(found.key.clone(), key(1));
        prop_assert_eq!(store.kernel(&found).unwrap().unwrap(), kernel);
    }
}

#[test]
fn a_winner_of_another_fingerprint_is_stale_and_never_served() {
    let store = MemoryStore::default();
    let old = key(1);
    let new = WinnerKey { fingerprint: "another compiler".into(), ..key(1) };
    store.put(&old, &winner(5.0), &kernel(1)).unwrap();

    assert!(store.get(&new).unwrap().is_none());
    assert!(store.get(&key(2)).unwrap().is_none());
    assert!(store.get(&WinnerKey { arch: "sm90a.114".into(), ..key(1) }).unwrap().is_none());
    assert!(store.get(&old).unwrap().is_some());
    let stats = store.stats();
    assert_eq!((stats.hits, stats.misses, stats.stale), (1, 2, 1));

    let stale = store.stale(&new).unwrap();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].key, old);
    assert!(store.stale(&old).unwrap().is_empty());
}

#[test]
fn a_winner_without_evidence_is_refused() {
    let store = MemoryStore::default();
    let mut unverified = winner(5.0);
    unverified.verified = false;
    let mut wrong = winner(5.0);
    wrong.error_over_bound = 1.01;
    let mut unknown = winner(5.0);
    unknown.error_over_bound = f64::NAN;
    for bad in [unverified, wrong, unknown] {
        let error = store.put(&key(1), &bad, &kernel(1)).unwrap_err();
        assert!(matches!(error, CacheError::Unverified { .. }), "{error}");
    }
    assert!(store.winners().unwrap().is_empty());
}

#[test]
fn a_better_winner_replaces_the_old_one_and_shared_code_is_stored_once() {
    let store = MemoryStore::default();
    store.put(&key(1), &winner(5.0), &kernel(1)).unwrap();
    let before = store.verify().unwrap();
    store.put(&key(1), &winner(4.0), &kernel(1)).unwrap();
    store.put(&key(2), &winner(9.0), &kernel(1)).unwrap();
    let after = store.verify().unwrap();

    assert_eq!(store.get(&key(1)).unwrap().unwrap().winner, winner(4.0));
    assert_eq!((after.winners, after.blobs), (2, before.blobs));
    assert_eq!(after.blob_bytes, before.blob_bytes);
    assert!(after.damaged.is_empty());
}

#[test]
fn winners_are_listed_by_problem_arch_and_fingerprint() {
    let store = MemoryStore::default();
    for n in [7, 3, 5] {
        store.put(&key(n), &winner(5.0), &kernel(n)).unwrap();
    }
    let keys: Vec<WinnerKey> = store.winners().unwrap().into_iter().map(|r| r.key).collect();
    assert_eq!(keys, [key(3), key(5), key(7)]);
}

#[test]
fn poisoned_schedules_are_kept_once_each() {
    let store = MemoryStore::default();
    let entry = |schedule: &str| Poisoned {
        problem: key(1).problem,
        arch: key(1).arch,
        schedule: schedule.into(),
        reason: "killed after 10 s".into(),
        compile_limit_s: Some(10),
    };
    for schedule in ["b", "a", "b"] {
        store.put_poison(&entry(schedule)).unwrap();
    }
    assert_eq!(store.poison().unwrap(), [entry("a"), entry("b")]);
}

#[test]
fn an_unknown_blob_is_absent() {
    assert!(MemoryStore::default().get_blob(&Digest::of(b"nobody")).unwrap().is_none());
}
