//! Histories of a lone block under barriers, copies and proxies.

// One range of bytes being read is a list of one range.
#![allow(clippy::single_range_in_vec_init)]

use super::asynchronous::Write;
use super::*;
use crate::check::VectorClock;

/// A lone block's history together with its clocks.
struct Block {
    races: Races,
    clocks: Clocks,
}

impl Block {
    fn new(warps: u32) -> Block {
        Block { races: Races::new(64, 0, warps), clocks: Clocks::new(1, warps) }
    }

    fn read(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        self.races.read(&self.clocks, at, bytes, warp)
    }

    fn write(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        self.races.write(&self.clocks, at, bytes, warp)
    }

    fn issue(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        self.races.issue(&self.clocks, at, bytes, warp)
    }

    /// A barrier that all of these warps wait at.
    fn meet(&mut self, warps: &[u32]) {
        let mut joined = VectorClock::default();
        warps.iter().for_each(|&warp| self.clocks.release(warp, &mut joined));
        warps.iter().for_each(|&warp| self.clocks.resume(warp, &joined));
    }
}

#[test]
fn a_write_after_another_warps_read_races_until_a_barrier() {
    let mut block = Block::new(4);
    assert_eq!(block.read(0, 16, 1), None);
    assert_eq!(block.write(8, 4, 0), Some(Conflict::ReadBy(1)));
    block.meet(&[0, 1, 2, 3]);
    assert_eq!(block.write(8, 4, 2), None);
    assert_eq!(block.read(8, 4, 2), None);
    assert_eq!(block.read(8, 4, 3), Some(Conflict::WrittenBy(2)));
}

#[test]
fn a_barrier_orders_only_the_warps_that_meet_at_it() {
    let mut block = Block::new(3);
    assert_eq!(block.write(0, 4, 0), None);
    block.meet(&[0, 1]);
    assert_eq!(block.read(0, 4, 1), None);
    assert_eq!(block.read(0, 4, 2), Some(Conflict::WrittenBy(0)));
    // What warp 1 has seen it passes on.
    block.meet(&[1, 2]);
    assert_eq!(block.read(0, 4, 2), None);
}

#[test]
fn an_arrival_without_waiting_releases_but_does_not_acquire() {
    let mut block = Block::new(2);
    block.write(0, 4, 0);
    block.write(4, 4, 1);
    let mut joined = VectorClock::default();
    block.clocks.release(0, &mut joined);
    block.clocks.release(1, &mut joined);
    block.clocks.resume(1, &joined);
    assert_eq!(block.read(0, 4, 1), None);
    assert_eq!(block.read(4, 4, 0), Some(Conflict::WrittenBy(1)));
}

#[test]
fn readers_at_different_clocks_are_all_remembered() {
    let mut block = Block::new(3);
    assert_eq!(block.read(0, 4, 0), None);
    // Warps 1 and 2 advance together; warp 0's read stays unordered with them.
    block.meet(&[1, 2]);
    assert_eq!(block.read(0, 4, 1), None);
    block.meet(&[1, 2]);
    assert_eq!(block.write(0, 4, 2), Some(Conflict::ReadBy(0)));
}

#[test]
fn warps_may_write_neighbouring_bytes_of_one_word() {
    let mut block = Block::new(2);
    assert_eq!(block.write(0, 2, 0), None);
    assert_eq!(block.write(2, 2, 1), None);
    assert_eq!(block.read(0, 2, 0), None);
    assert_eq!(block.write(3, 1, 0), Some(Conflict::WrittenBy(1)));
}

#[test]
fn what_an_exited_warp_did_is_seen_after_the_next_barrier() {
    let mut block = Block::new(3);
    block.write(0, 4, 2);
    block.clocks.exit(2);
    assert_eq!(block.read(0, 4, 0), Some(Conflict::WrittenBy(2)));
    block.meet(&[0, 1]);
    assert_eq!(block.read(0, 4, 0), None);
}

#[test]
fn pending_copies_conflict_with_every_access_until_they_are_complete() {
    let mut block = Block::new(2);
    assert_eq!(block.issue(16, 16, 0), None);
    assert_eq!(block.read(20, 4, 0), Some(Conflict::Pending(0)));
    block.meet(&[0, 1]);
    assert_eq!(block.write(16, 4, 1), Some(Conflict::Pending(0)));
    let mut block = Block::new(2);
    block.issue(16, 16, 0);
    block.races.complete(&block.clocks, &Request::new(&[16; 32], 1, 16), 0);
    assert_eq!(block.read(20, 4, 0), None);
    assert_eq!(block.read(20, 4, 1), Some(Conflict::WrittenBy(0)));
}

#[test]
fn asynchronous_readers_need_the_fence_of_the_writer() {
    let mut block = Block::new(2);
    block.write(0, 4, 0);
    block.meet(&[0, 1]);
    assert_eq!(
        block.races.check_async(&block.clocks, 0..16, 1, &mut Write::default()),
        Some(Conflict::Unfenced(0))
    );
    block.clocks.proxy_fence(0);
    block.meet(&[0, 1]);
    assert_eq!(block.races.check_async(&block.clocks, 0..16, 1, &mut Write::default()), None);
    block.write(4, 4, 0);
    assert_eq!(
        block.races.check_async(&block.clocks, 0..16, 1, &mut Write::default()),
        Some(Conflict::WrittenBy(0))
    );
}

#[test]
fn bytes_being_read_asynchronously_may_not_be_written_until_the_reads_end() {
    let mut block = Block::new(2);
    let first = block.races.begin_reads(Rc::new(Region::new(vec![0..32])));
    let second = block.races.begin_reads(Rc::new(Region::new(vec![16..48])));
    assert_eq!(block.write(48, 4, 0), None);
    assert_eq!(block.write(40, 4, 0), Some(Conflict::BeingRead));
    let own = block.clocks.now(0).own;
    block.races.end_reads(&block.clocks, second, 0, own);
    assert_eq!(block.write(20, 4, 0), Some(Conflict::BeingRead));
    block.races.end_reads(&block.clocks, first, 0, own);
    assert_eq!(block.write(20, 4, 0), None);
    // The end is a read of the warp that waited for it.
    assert_eq!(block.write(8, 4, 1), Some(Conflict::ReadBy(0)));
}

#[test]
fn what_a_bulk_copy_wrote_is_seen_by_those_who_waited_for_its_phase() {
    let mut block = Block::new(2);
    let agent = block.clocks.add_agent();
    assert_eq!(block.races.issue_bulk(&block.clocks, 0..16, 0, agent), None);
    assert_eq!(block.read(0, 4, 1), Some(Conflict::Pending(agent)));
    block.races.land(0..16, agent, (agent, 3));
    assert_eq!(block.read(0, 4, 1), Some(Conflict::WrittenBy(agent)));
    let mut phase = VectorClock::default();
    phase.raise(agent, 3);
    block.clocks.acquire(1, &phase);
    assert_eq!(block.read(0, 4, 1), None);
}

#[test]
fn reads_from_another_block_race_with_writes_of_the_owner() {
    let (mut races, mut clocks) = (Races::new(64, 0, 2), Clocks::new(2, 2));
    assert_eq!(races.read_remote(&clocks, 0, 4, 3), None);
    assert_eq!(races.write(&clocks, 0, 4, 1), Some(Conflict::ReadBy(3)));
    let mut joined = VectorClock::default();
    clocks.release(1, &mut joined);
    clocks.acquire(2, &joined);
    assert_eq!(races.read_remote(&clocks, 0, 4, 2), None);
    assert_eq!(races.read_remote(&clocks, 0, 4, 3), Some(Conflict::WrittenBy(1)));
}

#[test]
fn the_bytes_of_an_mbarrier_are_not_for_ordinary_accesses() {
    let mut block = Block::new(1);
    block.races.set_mbarrier(8, true);
    assert_eq!(block.read(8, 4, 0), Some(Conflict::Mbarrier));
    assert_eq!(block.write(0, 16, 0), Some(Conflict::Mbarrier));
    block.races.set_mbarrier(8, false);
    assert_eq!(block.write(8, 8, 0), None);
}

#[test]
fn readers_at_moments_of_their_own_are_all_remembered_until_a_write() {
    let mut block = Block::new(4);
    assert_eq!(block.read(0, 32, 1), None);
    block.meet(&[0, 3]);
    // Warp 3 has a later clock than warp 1, and has not seen it.
    assert_eq!(block.read(0, 32, 3), None);
    assert_eq!(block.read(0, 32, 2), None);
    block.meet(&[0, 1, 2]);
    assert_eq!(block.write(16, 16, 0), Some(Conflict::ReadBy(3)));
    assert_eq!(block.write(16, 16, 0), None);
    block.meet(&[0, 3]);
    assert_eq!(block.write(0, 16, 0), None);
}

#[test]
fn sets_of_readers_that_nobody_names_are_dropped() {
    let mut block = Block::new(3);
    for _ in 0..10_000 {
        assert_eq!(block.read(0, 16, 1), None);
        block.meet(&[0, 1]);
        assert_eq!(block.read(0, 16, 2), None);
        block.meet(&[0, 2]);
        assert_eq!(block.write(0, 16, 0), None);
        block.meet(&[0, 1, 2]);
    }
    assert_eq!(block.read(0, 16, 1), None);
    block.meet(&[0, 2]);
    assert_eq!(block.read(0, 16, 2), None);
    assert!(block.races.sets.len() < 10_000, "{}", block.races.sets.len());
    assert_eq!(block.write(0, 16, 0), Some(Conflict::ReadBy(1)));
}
