//! The mbarrier instructions (PTX ISA 9.7.13.15).
//!
//! An arrival releases what the warp did before, a successful wait acquires what those who arrived
//! in complete phases did. A wait that fails returns false and ends the warp's turn until the phase
//! completes: a legal schedule, in which waiting costs few instructions.

use super::cluster::check_lifetime;
use super::in_flight::{self, InFlight, Signal};
use super::memory::addresses;
use super::shared::report_conflict;
use crate::address;
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::mbarrier::{Mbarrier, Misuse, MOST};
use crate::program::{Address, MbarrierArrive, MbarrierOp, MbarrierWait, Space};
use crate::state::{each_lane, lanes, Lanes32, Poll, Status, Warp, LANES};

/// Place of an object: rank of its block and offset in the block's shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub rank: u32,
    pub at: u32,
}

impl Location {
    fn place(self, lane: usize) -> Place<'static> {
        Place::at(lane, u64::from(self.at))
    }
}

pub(crate) fn execute(block: &mut Block<'_>, w: &mut Warp, op: &MbarrierOp, mask: u32) {
    match *op {
        MbarrierOp::Init { space, address, count } => {
            let counts = *w.get32(count);
            each(block, w, (space, address), mask, |block, _, lane, location| {
                initialise(block, lane, location, counts[lane]);
            });
        }
        MbarrierOp::Invalidate { space, address } => {
            each(block, w, (space, address), mask, |block, _, lane, location| {
                invalidate(block, lane, location);
            });
        }
        MbarrierOp::Bytes { space, address, bytes, complete } => {
            let counts = *w.get32(bytes);
            each(block, w, (space, address), mask, |block, _, lane, location| {
                let sign = if complete { -1 } else { 1 };
                add_bytes(block, lane, location, sign * i64::from(counts[lane]));
            });
        }
        MbarrierOp::Arrive(arrive) => {
            let counts = arrive.count.map_or([1; LANES], |slot| *w.get32(slot));
            let at = (arrive.space, arrive.address);
            each(block, w, at, mask, |block, w, lane, location| {
                self::arrive(block, w, &arrive, (lane, location), (counts[lane], mask));
            });
        }
        MbarrierOp::CopyArrive { space, address, increment } => {
            each(block, w, (space, address), mask, |block, w, lane, location| {
                copy_arrive(block, w, (lane, location), increment);
            });
        }
        MbarrierOp::Wait(wait) => self::wait(block, w, &wait, mask),
        MbarrierOp::PendingCount { d, state } => {
            let states = w.get64(state);
            let counts: Lanes32 = each_lane!(|lane| states[lane] as u32);
            w.set32(d, mask, &counts);
        }
    }
}

/// Opaque state: the phase above the pending count.
fn state_of(barrier: &Mbarrier) -> u64 {
    u64::from(barrier.phase) << 32 | barrier.pending as u64
}

/// Calls `f` for every lane with the place of the object that it addresses.
fn each(
    block: &mut Block<'_>,
    w: &mut Warp,
    (space, address): (Space, Address),
    mask: u32,
    mut f: impl FnMut(&mut Block<'_>, &mut Warp, usize, Location),
) {
    let at = addresses(w, address);
    for lane in lanes(mask) {
        if let Some(location) = locate(block, lane, space, at[lane]) {
            f(block, w, lane, location);
        }
    }
}

/// Finds the block and offset that an address of an mbarrier means, and checks both.
pub(crate) fn locate(
    block: &mut Block<'_>,
    lane: usize,
    space: Space,
    at: u64,
) -> Option<Location> {
    let place = Place::at(lane, at);
    if space == Space::Generic && !address::lies_in(at, Space::SharedCluster) {
        let message = "an mbarrier outside shared memory".to_owned();
        block.report(FindingKind::OutOfBounds, place, message);
        return None;
    }
    let rank = address::cluster_rank(at).unwrap_or(block.rank);
    if rank != block.rank && space == Space::Shared || rank >= block.cluster.blocks() {
        let message = format!("an mbarrier of rank {rank}, which this instruction cannot reach");
        block.report(FindingKind::OutOfBounds, place, message);
        return None;
    }
    check_lifetime(block, rank, place);
    let offset = address::cluster_offset(at);
    if offset % 8 != 0 {
        let message = format!("an mbarrier at {offset}, which is not a multiple of 8");
        block.report(FindingKind::Misaligned, place, message);
        return None;
    }
    let length = block.shared.len();
    if offset + 8 > length {
        let message = format!("an mbarrier at {offset} of {length} shared bytes");
        block.report(FindingKind::OutOfBounds, place, message);
        return None;
    }
    Some(Location { rank, at: offset as u32 })
}

fn misuse(block: &mut Block<'_>, lane: usize, location: Location, message: String) {
    block.report(FindingKind::MbarrierMisuse, location.place(lane), message);
}

fn initialise(block: &mut Block<'_>, lane: usize, location: Location, count: u32) {
    let count = i64::from(count);
    if !(1..=MOST).contains(&count) {
        let message = format!("mbarrier.init for {count} arrivals, allowed are 1 to {MOST}");
        misuse(block, lane, location, message);
    }
    let (at, agent) = (location.at as usize, block.agent);
    if block.shared.mbarriers.live(location.at).is_some() {
        misuse(block, lane, location, "mbarrier.init of a live mbarrier".to_owned());
    } else if block.checks() {
        let conflict = block.shared.races.write(&block.cluster.clocks, at, 8, agent);
        if let Some(conflict) = conflict {
            report_conflict(block, lane, at as u64, "mbarrier.init", conflict);
        }
    }
    let known = block.shared.mbarriers.get(location.at).map(|barrier| barrier.agent);
    let copies = known.unwrap_or_else(|| block.cluster.clocks.add_agent());
    let by = (agent, block.cluster.clocks.now(agent).own);
    let by_lane = (lane, block.shared.lanes.interval(block.warp));
    let barrier = block.shared.mbarriers.entry(location.at);
    barrier.initialise(count.clamp(1, MOST), copies, by, by_lane);
    block.shared.store(at, 8, 0);
    block.shared.races.set_mbarrier(at, true);
}

fn invalidate(block: &mut Block<'_>, lane: usize, location: Location) {
    if usable(block, lane, location, "mbarrier.inval") {
        block.shared.mbarriers.entry(location.at).live = false;
        block.shared.races.set_mbarrier(location.at as usize, false);
    }
}

/// Whether there is a live object at a place. Reports its absence, and an initialisation that the
/// running warp does not know of.
pub(crate) fn usable(block: &mut Block<'_>, lane: usize, location: Location, what: &str) -> bool {
    let (agent, checks) = (block.agent, block.checks());
    let (shared, clocks) = block.shared_of(location.rank);
    let Some(barrier) = shared.mbarriers.live(location.at) else {
        let message = format!("{what} on bytes that hold no mbarrier");
        misuse(block, lane, location, message);
        return false;
    };
    let ((by, at), (by_lane, interval)) = (barrier.initialised, barrier.by_lane);
    if by == agent {
        let met = block.shared.lanes.has_met((block.warp, lane), by_lane, interval);
        if checks && !met {
            let message = format!(
                "{what} on an mbarrier that lane {by_lane} initialised since the last bar.warp.sync"
            );
            block.report(FindingKind::LaneRace, location.place(lane), message);
        }
    } else if checks && !clocks.knows_init(agent, by, at) {
        let name = block.agent_name(by);
        let message =
            format!("{what} on an mbarrier that {name} initialised without a barrier between");
        misuse(block, lane, location, message);
    }
    true
}

/// Applies a change to a live object and reports what is wrong with it.
pub(crate) fn change(
    block: &mut Block<'_>,
    lane: usize,
    location: Location,
    f: impl FnOnce(&mut Mbarrier) -> Result<(), Misuse>,
) {
    let (shared, _) = block.shared_of(location.rank);
    let Some(barrier) = shared.mbarriers.live(location.at) else { return };
    let problem = f(barrier).err().map(|problem| problem.describe(barrier));
    block.cluster.events += 1;
    if let Some(message) = problem {
        misuse(block, lane, location, message);
    }
}

fn add_bytes(block: &mut Block<'_>, lane: usize, location: Location, bytes: i64) {
    let what = if bytes < 0 { "mbarrier.complete_tx" } else { "mbarrier.expect_tx" };
    if usable(block, lane, location, what) {
        change(block, lane, location, |barrier| barrier.add_bytes(bytes));
    }
}

/// An arrival of one lane; those of `together` execute the same instruction.
fn arrive(
    block: &mut Block<'_>,
    w: &mut Warp,
    arrive: &MbarrierArrive,
    (lane, location): (usize, Location),
    (count, together): (u32, u32),
) {
    let what = if arrive.drop { "mbarrier.arrive_drop" } else { "mbarrier.arrive" };
    if !usable(block, lane, location, what) {
        return;
    }
    let (bytes, arrivals) = if arrive.expect_bytes { (count, 1) } else { (0, count) };
    let arrivals = i64::from(arrivals);
    if !(1..=MOST).contains(&arrivals) {
        misuse(block, lane, location, format!("{what} with a count of {arrivals}"));
    }
    let agent = block.agent;
    let behind = block.shared.lanes.left_behind(block.warp, together);
    let (shared, clocks) = block.shared_of(location.rank);
    let Some(barrier) = shared.mbarriers.live(location.at) else { return };
    if let Some(slot) = arrive.state {
        w.r64[usize::from(slot)][lane] = state_of(barrier);
    }
    match behind {
        _ if arrive.relaxed => {}
        Some(seen) => clocks.release_lanes(agent, together, seen, &mut barrier.joined),
        None => clocks.release(agent, &mut barrier.joined),
    }
    let phase = barrier.phase;
    let mut completed = false;
    change(block, lane, location, |barrier| {
        barrier.add_bytes(i64::from(bytes))?;
        barrier.arrive(arrivals, arrive.drop)?;
        completed = barrier.phase != phase;
        Ok(())
    });
    if arrive.no_complete && completed {
        let message = format!("{what}.noComplete completes phase {phase}");
        misuse(block, lane, location, message);
    }
}

/// `cp.async.mbarrier.arrive`: the arrival happens when the copies of the thread have landed.
fn copy_arrive(
    block: &mut Block<'_>,
    w: &mut Warp,
    (lane, barrier): (usize, Location),
    increment: bool,
) {
    if !usable(block, lane, barrier, "cp.async.mbarrier.arrive") {
        return;
    }
    if increment {
        change(block, lane, barrier, Mbarrier::expect_arrival);
    }
    let op = InFlight {
        barrier,
        writes: w.copies.detach(lane, barrier),
        reduction: None,
        signal: Signal::Arrival,
        source: None,
        agent: block.agent,
        clock: block.cluster.clocks.now(block.agent).own,
        rank: block.rank,
        pc: block.pc,
        lane,
    };
    in_flight::issue(block, op, "cp.async");
}

/// `test_wait` and `try_wait`.
fn wait(block: &mut Block<'_>, w: &mut Warp, wait: &MbarrierWait, mask: u32) {
    let at = addresses(w, wait.address);
    let (mut passed, mut heard) = (0, 0);
    let (mut failed, mut complete) = (None, Vec::new());
    for lane in lanes(mask) {
        let located = locate(block, lane, wait.space, at[lane]);
        let found = located.filter(|&location| usable(block, lane, location, "mbarrier wait"));
        let Some(location) = found else {
            // Reported; a wait that never succeeds would only hide what comes after it.
            passed |= 1 << lane;
            continue;
        };
        match look(block, w, wait, (lane, location)) {
            Look::Complete => {
                passed |= 1 << lane;
                match complete.iter_mut().find(|(other, _)| *other == location) {
                    Some((_, lanes)) => *lanes |= 1 << lane,
                    None => complete.push((location, 1 << lane)),
                }
            }
            Look::Pending(poll) => failed = Some(poll),
        }
    }
    for (location, lanes) in complete.into_iter().filter(|_| !wait.relaxed) {
        heard |= acquire(block, location, (lanes, w.live));
    }
    w.set_predicate(wait.d, mask, passed);
    w.poll = failed;
    if failed.is_some() {
        block.counters().failed_waits += 1;
        w.status = Status::Polling;
    }
    if passed != 0 {
        block.lanes_learn((heard & w.live, passed), w.live);
    }
}

enum Look {
    /// The phase asked for is complete.
    Complete,
    Pending(Poll),
}

/// Whether the phase that a lane waits for is complete.
fn look(
    block: &mut Block<'_>,
    w: &Warp,
    wait: &MbarrierWait,
    (lane, location): (usize, Location),
) -> Look {
    let (shared, _) = block.shared_of(location.rank);
    let Some(barrier) = shared.mbarriers.live(location.at) else {
        return Look::Complete;
    };
    let phase = barrier.phase;
    let complete = if wait.parity {
        let parity = w.get32(wait.phase)[lane];
        // Compilers that hold the parity as a truth value extend its sign.
        if parity > 1 && parity != u32::MAX {
            let message = format!("a phase parity of {parity}");
            block.report(FindingKind::InvalidOperand, location.place(lane), message);
        }
        phase & 1 != parity & 1
    } else {
        u64::from(phase) != w.get64(wait.phase)[lane] >> 32
    };
    let before = w.poll.filter(|poll| poll.location == location);
    if let Some(before) = before.filter(|before| phase > before.phase + 1) {
        let (then, now) = (before.phase, phase);
        let message = format!(
            "the mbarrier went from phase {then} to {now} while this warp waited for phase {then}"
        );
        misuse(block, lane, location, message);
    }
    if complete {
        Look::Complete
    } else {
        Look::Pending(Poll { location, phase })
    }
}

/// Some of the `live` lanes of the running warp learn what those who arrived did; returns its own
/// lanes among these.
fn acquire(block: &mut Block<'_>, location: Location, (mask, live): (u32, u32)) -> u32 {
    let agent = block.agent;
    let (shared, clocks) = block.shared_of(location.rank);
    let Some(barrier) = shared.mbarriers.live(location.at) else { return 0 };
    clocks.acquire_lanes(agent, (mask, live), &barrier.released);
    clocks.lanes_heard(agent, &barrier.released)
}

/// Whether the phase that a polling warp waits for is over.
pub(crate) fn phase_changed(block: &mut Block<'_>, poll: Poll) -> bool {
    let (shared, _) = block.shared_of(poll.location.rank);
    shared.mbarriers.live(poll.location.at).is_none_or(|barrier| barrier.phase != poll.phase)
}

/// The object that a warp polls, in words.
pub(crate) fn describe(block: &mut Block<'_>, poll: Poll) -> String {
    let Location { rank, at } = poll.location;
    let (shared, _) = block.shared_of(rank);
    let state = shared.mbarriers.get(at).map(Mbarrier::describe).unwrap_or_default();
    match block.cluster.blocks() {
        1 => format!("the mbarrier at {at} ({state})"),
        _ => format!("the mbarrier at {at} of rank {rank} ({state})"),
    }
}
