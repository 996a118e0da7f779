//! The rules of merging as properties of sets of contributions.

use super::*;
use crate::record::{Extent, Kernel, Provenance};
use proptest::prelude::*;

fn key() -> WinnerKey {
    WinnerKey { problem: "p".into(), arch: "a".into(), fingerprint: "f".into() }
}

/// What machine `host` found at time `created`: `schedule` with these samples.
fn found(host: &str, created: u64, schedule: &str, samples_us: &[f64]) -> Contribution {
    let winner = Winner {
        schedule: schedule.into(),
        family: "mma".into(),
        evidence: Evidence::Timed,
        time_us: median(samples_us.to_vec()),
        samples_us: samples_us.to_vec(),
        roof_share: 0.5,
        load_only_us: None,
        verified: true,
        error_over_bound: 0.5,
        extent: Extent::Normal,
        verification: Default::default(),
        counts: Default::default(),
        cost_terms: Vec::new(),
        beat: Vec::new(),
        derivation: Vec::new(),
        provenance: Provenance {
            host: host.into(),
            device: "gpu".into(),
            created_unix_seconds: created,
            ..Provenance::default()
        },
    };
    let code = Kernel { source: schedule.into(), ..Kernel::default() };
    Contribution { winner, blobs: BlobRefs::of(&code) }
}

fn modelled(mut contribution: Contribution) -> Contribution {
    contribution.winner.evidence = Evidence::Modelled;
    contribution.winner.samples_us.clear();
    contribution
}

/// The row of these contributions, added in this order.
fn row(contributions: &[Contribution]) -> WinnerRow {
    let mut row = WinnerRow::of(key(), contributions[0].clone());
    row.settle().unwrap();
    for contribution in contributions {
        row.add(contribution.clone()).unwrap();
    }
    row
}

fn served(contributions: &[Contribution]) -> String {
    let winner = &row(contributions).contributions[0].winner;
    format!("{} of {}", winner.schedule, winner.provenance.host)
}

#[test]
fn a_measured_time_beats_a_faster_modelled_one() {
    let fast = modelled(found("a", 9, "s", &[1.0]));
    assert_eq!(served(&[fast, found("b", 1, "t", &[50.0])]), "t of b");
}

#[test]
fn the_smaller_time_wins_and_equal_times_go_to_the_earlier_text() {
    assert_eq!(served(&[found("a", 1, "s", &[5.0]), found("b", 1, "t", &[4.0])]), "t of b");
    assert_eq!(served(&[found("a", 1, "t", &[5.0]), found("b", 1, "s", &[5.0])]), "s of b");
}

#[test]
fn a_lucky_run_does_not_outlive_the_samples_of_others() {
    let lucky = found("a", 1, "s", &[3.0]);
    let sober = found("b", 1, "s", &[6.0, 6.1, 6.2]);
    let steady = found("c", 1, "t", &[5.0, 5.0, 5.0]);
    assert_eq!(served(&[lucky.clone(), steady.clone()]), "s of a");
    assert_eq!(served(&[lucky, sober, steady]), "t of c");
}

#[test]
fn a_machine_that_tuned_again_has_changed_its_mind() {
    let (old, new) = (found("a", 1, "s", &[3.0]), found("a", 2, "t", &[4.0]));
    assert_eq!(served(&[old.clone(), new.clone()]), "t of a");
    assert_eq!(row(&[new, old]).contributions.len(), 1);
}

#[test]
fn of_the_winning_schedule_the_newest_finding_is_served() {
    let (old, new) = (found("a", 1, "s", &[4.0]), found("b", 2, "s", &[5.0]));
    assert_eq!(served(&[old, new]), "s of b");
}

#[test]
fn adding_what_is_there_changes_nothing() {
    let contribution = found("a", 1, "s", &[4.0]);
    let mut row = row(std::slice::from_ref(&contribution));
    assert!(!row.add(contribution).unwrap());
}

#[test]
fn replacing_touches_only_what_the_same_machine_and_device_said() {
    let mut row = row(&[found("a", 5, "s", &[3.0]), found("b", 1, "t", &[4.0])]);
    row.replace(found("a", 1, "u", &[9.0])).unwrap();
    let schedules: Vec<&str> =
        row.contributions.iter().map(|c| c.winner.schedule.as_str()).collect();
    assert_eq!(schedules, ["t", "u"]);
}

/// A contribution out of few hosts, ages, schedules and times, so that all rules meet.
fn any_contribution() -> impl Strategy<Value = Contribution> {
    let samples = proptest::collection::vec((1..5u32).prop_map(f64::from), 1..4);
    ("[abc]", 0..3u64, "[st]", samples, any::<bool>()).prop_map(|(host, age, s, us, timed)| {
        let contribution = found(&host, age, &s, &us);
        if timed {
            contribution
        } else {
            modelled(contribution)
        }
    })
}

proptest! {
    #[test]
    fn the_row_depends_on_the_set_and_not_on_its_order(
        contributions in proptest::collection::vec(any_contribution(), 1..8),
        turn in any::<prop::sample::Index>(),
    ) {
        let bytes = |list: &[Contribution]| crate::codec::payload(&row(list)).unwrap();
        let mut turned = contributions.clone();
        turned.rotate_left(turn.index(contributions.len()));
        turned.reverse();
        prop_assert_eq!(bytes(&contributions), bytes(&turned));
        let twice = [contributions.clone(), turned].concat();
        prop_assert_eq!(bytes(&contributions), bytes(&twice));
    }
}
