//! Lanes of a lone warp that synchronise in whole and in part.

use super::*;
use LaneAccess::{Atomic, Read, Write};

fn conflict(other: u32, earlier: LaneAccess) -> Option<LaneConflict> {
    Some(LaneConflict { other, earlier })
}

#[test]
fn lanes_race_until_their_warp_synchronises() {
    let mut races = LaneRaces::new(64, 2);
    assert_eq!(races.access(0, 16, (0, 3), Write), None);
    assert_eq!(races.access(4, 4, (0, 3), Read), None);
    assert_eq!(races.access(4, 4, (0, 5), Read), conflict(3, Write));
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.access(4, 4, (0, 5), Read), None);
    assert_eq!(races.access(0, 16, (0, 3), Write), conflict(5, Read));
}

#[test]
fn another_warps_synchronisation_orders_nothing() {
    let mut races = LaneRaces::new(64, 2);
    races.access(0, 4, (1, 0), Write);
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.access(0, 4, (1, 1), Write), conflict(0, Write));
}

#[test]
fn part_of_a_warp_orders_its_members_and_whom_they_have_met() {
    let mut races = LaneRaces::new(64, 1);
    races.access(0, 4, (0, 0), Write);
    races.synchronise(0, 0b0011, FULL);
    assert_eq!(races.access(0, 4, (0, 1), Read), None);
    assert_eq!(races.access(0, 4, (0, 2), Read), conflict(0, Write));
    races.synchronise(0, 0b0110, FULL);
    assert_eq!(races.access(0, 4, (0, 2), Read), None);
    assert_eq!(races.access(0, 4, (0, 3), Read), conflict(0, Write));
    races.synchronise(0, 0b1111, 0b1111);
    assert_eq!(races.access(0, 4, (0, 3), Write), None);
}

#[test]
fn lanes_learn_from_others_without_being_learnt_of() {
    let mut races = LaneRaces::new(64, 1);
    races.access(0, 4, (0, 0), Write);
    races.access(4, 4, (0, 1), Write);
    races.learn(0, (0b01, FULL), FULL);
    assert_eq!(races.access(0, 4, (0, 5), Read), None);
    assert_eq!(races.access(4, 4, (0, 0), Read), conflict(1, Write));
    races.learn(0, (FULL, FULL), FULL);
    assert_eq!(races.access(4, 4, (0, 7), Write), None);
}

#[test]
fn lanes_may_write_neighbouring_bytes_of_one_word() {
    let mut races = LaneRaces::new(64, 1);
    assert_eq!(races.access(0, 2, (0, 0), Write), None);
    assert_eq!(races.access(2, 2, (0, 1), Write), None);
    assert_eq!(races.access(0, 2, (0, 0), Read), None);
    assert_eq!(races.access(0, 4, (0, 0), Read), conflict(1, Write));
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.access(0, 4, (0, 0), Write), None);
    assert_eq!(races.access(3, 1, (0, 1), Read), conflict(0, Write));
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let mut races = LaneRaces::new(64, 1);
    assert_eq!(races.access(0, 4, (0, 0), Write), None);
    assert_eq!(races.access(0, 4, (0, 1), Atomic), conflict(0, Write));
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.access(0, 4, (0, 0), Atomic), None);
    assert_eq!(races.access(0, 4, (0, 1), Atomic), None);
    assert_eq!(races.access(0, 4, (0, 2), Read), conflict(0, Atomic));
}

#[test]
fn requests_that_are_only_listed_at_first_conflict_all_the_same() {
    let at = |first: u64, mask| {
        let places = std::array::from_fn(|lane| first + 4 * lane as u64);
        Request::new(&places, mask, 4)
    };
    let mut races = LaneRaces::new(512, 1);
    assert_eq!(races.access_lanes(&at(0, FULL), 0, Read), 0);
    assert_eq!(races.access_lanes(&at(128, FULL), 0, Write), 0);
    assert_eq!(races.access_lanes(&at(128, FULL), 0, Read), 0);
    // Every lane writes what its neighbour read.
    assert_eq!(races.access_lanes(&at(4, FULL >> 1), 0, Write), FULL >> 1);
    assert_eq!(races.access(4, 4, (0, 0), Write), conflict(1, Read));
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.access_lanes(&at(4, FULL >> 1), 0, Write), 0);
    // Before lanes synchronise among themselves the list goes into the words.
    races.synchronise(0, 1, FULL);
    assert_eq!(races.access(4, 4, (0, 1), Read), conflict(0, Write));
    assert_eq!(races.access(8, 4, (0, 1), Read), None);
}

#[test]
fn a_new_block_and_the_end_of_counting_forget_everything() {
    let mut races = LaneRaces::new(64, 1);
    races.access(0, 4, (0, 0), Write);
    races.reset();
    assert_eq!(races.access(0, 4, (0, 1), Write), None);
    races.warps[0].stamp |= LAST_INTERVAL << 3;
    races.synchronise(0, FULL, FULL);
    assert_eq!(races.warps[0].interval(), 1);
    assert_eq!(races.access(0, 4, (0, 2), Write), None);
}
