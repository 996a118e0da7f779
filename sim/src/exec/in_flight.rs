//! Asynchronous writes into shared memory that complete on an mbarrier: how they are queued and how
//! they land.
//!
//! Under the eager schedule data lands when it is issued, under the lazy one when no warp of the
//! cluster can go on without it. Either way the bytes are marked pending from the issue on, and
//! are seen by those who waited for the phase in which they landed.

use std::collections::VecDeque;
use std::rc::Rc;

use super::mbarrier::{change, Location};
use super::proxy::check_lanes;
use super::reduce;
use super::shared::describe_conflict;
use crate::block::{Block, Place};
use crate::check::{Conflict, FindingKind, LaneAccess, Ticket, VectorClock};
use crate::launch::{split_mix, WarpOrder};
use crate::program::Reduction;

/// What the landing does to its mbarrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// `complete_tx` of the bytes written.
    Bytes,
    /// One arrival, for `cp.async.mbarrier.arrive`.
    Arrival,
}

/// Bytes for one place.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub at: u32,
    pub bytes: Rc<[u8]>,
}

/// An operation between its issue and its landing; all in the shared memory of one block.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub barrier: Location,
    pub writes: Vec<Write>,
    /// Combine with what is there instead of replacing it.
    pub reduction: Option<Reduction>,
    pub signal: Signal,
    /// Rank and reads of the shared memory that the bytes come from.
    pub source: Option<(u32, Ticket)>,
    /// Warp, its clock, block, instruction and lane that issued it.
    pub agent: u32,
    pub clock: u32,
    pub rank: u32,
    pub pc: usize,
    pub lane: usize,
}

/// Operations of a cluster that have not landed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<InFlight>,
    random: u64,
}

impl Queue {
    pub(crate) fn reset(&mut self) {
        self.waiting.clear();
        self.random = 0;
    }

    /// Whether something is on its way into the memory of a block.
    pub(crate) fn targets(&self, rank: u32) -> bool {
        self.waiting.iter().any(|op| op.barrier.rank == rank && !op.writes.is_empty())
    }
}

/// Issues an operation: checks that its bytes may be written and marks them.
///
/// `what` begins the messages.
pub(crate) fn issue(block: &mut Block<'_>, op: InFlight, what: &str) {
    let checks = block.checks();
    let (issuer, rank) = (block.agent, block.rank);
    for write in &op.writes {
        let (shared, _) = block.shared_of(op.barrier.rank);
        let Some(agent) = shared.mbarriers.get(op.barrier.at).map(|b| b.agent) else { return };
        let range = write.at as usize..write.at as usize + write.bytes.len();
        let issued = op.signal == Signal::Bytes && checks;
        if issued && op.barrier.rank == rank {
            check_lanes(block, range.clone(), Some(op.lane), (what, LaneAccess::Write));
        }
        let (shared, clocks) = block.shared_of(op.barrier.rank);
        let conflict =
            if issued { shared.races.issue_bulk(clocks, range, issuer, agent) } else { None };
        // Reductions of several copies that complete together may be in flight at once.
        let others = |conflict: &Conflict| {
            let same = [Conflict::Pending(agent), Conflict::WrittenBy(agent)];
            op.reduction.is_none() || !same.contains(conflict)
        };
        let conflict = conflict.filter(others);
        if op.barrier.rank != rank {
            shared.note_remote(issuer, clocks.now(issuer).own);
        }
        if let Some(conflict) = conflict {
            let (kind, message) = describe_conflict(block, what, conflict);
            block.report(kind, Place::at(op.lane, u64::from(write.at)), message);
        }
    }
    if block.eager() {
        land(block, op);
    } else {
        block.cluster.queue.waiting.push_back(op);
    }
}

/// Lets one operation land, in the order that the run asks for; false if there is none.
pub(crate) fn land_one(block: &mut Block<'_>) -> bool {
    let queue = &mut block.cluster.queue;
    let last = queue.waiting.len().saturating_sub(1);
    let position = match block.context.options.warp_order {
        WarpOrder::Forward => 0,
        WarpOrder::Reversed => last,
        WarpOrder::Seeded(seed) => {
            let random = split_mix(&mut queue.random) ^ seed;
            (random % (last as u64 + 1)) as usize
        }
    };
    match queue.waiting.remove(position) {
        Some(op) => {
            land(block, op);
            true
        }
        None => false,
    }
}

/// Lets the `cp.async` copies of the running warp land that these mbarriers wait for: the warp now
/// waits for them itself.
pub(crate) fn land_copies(block: &mut Block<'_>, barriers: Vec<Location>) {
    let agent = block.agent;
    let ours = |op: &InFlight| op.agent == agent && op.signal == Signal::Arrival;
    while let Some(position) = block.cluster.queue.waiting.iter().position(ours) {
        if let Some(op) = block.cluster.queue.waiting.remove(position) {
            land(block, op);
        }
    }
    for barrier in barriers {
        let mut landed = VectorClock::default();
        let (copies, clock) = completion(block, barrier);
        landed.raise(copies, clock);
        block.cluster.clocks.acquire(agent, &landed);
    }
}

/// Writes the bytes and signals the mbarrier.
fn land(block: &mut Block<'_>, op: InFlight) {
    let standing = (block.rank, block.pc, block.warp, block.agent);
    block.enter(op.rank);
    block.pc = op.pc;
    block.agent = op.agent;
    block.warp = op.agent % block.context.warps();
    write(block, &op);
    if let Some((rank, ticket)) = op.source {
        let (agent, clock) = completion(block, op.barrier);
        let (shared, clocks) = block.shared_of(rank);
        shared.races.end_reads(clocks, ticket, agent, clock);
    }
    let bytes: i64 = op.writes.iter().map(|write| write.bytes.len() as i64).sum();
    change(block, op.lane, op.barrier, |barrier| match op.signal {
        Signal::Bytes => {
            // The copy has read its source too, which it did in the name of the issuing warp.
            barrier.joined.raise(op.agent, op.clock);
            barrier.add_bytes(-bytes)
        }
        Signal::Arrival => barrier.arrive(1, false),
    });
    block.enter(standing.0);
    (block.pc, block.warp, block.agent) = (standing.1, standing.2, standing.3);
}

/// Agent and clock by which those who wait for the present phase see what completes in it.
fn completion(block: &mut Block<'_>, barrier: Location) -> (u32, u32) {
    let (shared, _) = block.shared_of(barrier.rank);
    shared.mbarriers.get(barrier.at).map_or((0, 0), |b| (b.agent, b.clock))
}

fn write(block: &mut Block<'_>, op: &InFlight) {
    let rank = op.barrier.rank;
    if !block.cluster.live[rank as usize] {
        let message = format!("a copy into the shared memory of rank {rank}, which has exited");
        block.report(FindingKind::ClusterLifetime, Place::lane(op.lane), message);
        return;
    }
    let (agent, clock) = completion(block, op.barrier);
    let (shared, _) = block.shared_of(rank);
    for write in &op.writes {
        let at = write.at as usize;
        match op.reduction {
            None => shared.store_range(at, &write.bytes),
            Some(reduction) => shared.update_range(at, write.bytes.len(), |old| {
                reduce::combine(reduction, old, &write.bytes);
            }),
        }
        let from = if op.signal == Signal::Arrival { op.agent } else { agent };
        shared.races.land(at..at + write.bytes.len(), from, (agent, clock));
    }
}
