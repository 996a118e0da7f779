//! Clusters: addresses in the shared memory of other blocks, accesses to it, and the barrier of
//! the cluster (PTX ISA 9.7.9.22, 9.7.13.3).
//!
//! An address of the `shared::cluster` window holds the rank of its block plus one above the
//! offset; without a rank it means the executing block, whose own window is part of the cluster's.

use super::memory::{read_element, write_element, Direction};
use super::shared::{check_shared, load_shared, narrow, report_conflict, store_shared};
use super::{atomic, lane_order, traffic};
use crate::address;
use crate::block::{Block, Place};
use crate::check::{FindingKind, LaneAccess, VectorClock};
use crate::program::{Access, Atomic, ClusterOp, Slot, Space};
use crate::state::{each_lane, lanes, Lanes64, Status, Warp};

/// The barrier of a cluster. Arriving and waiting are separate instructions.
#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    /// By warp of the cluster: lanes that arrived in this phase.
    arrived: Vec<u32>,
    /// By warp of the cluster: the phase it arrived in and did not wait for yet.
    waits_for: Vec<Option<u32>>,
    phase: u32,
    /// What those who arrived in this phase did before.
    joined: VectorClock,
    /// The same of the last complete phase.
    released: VectorClock,
}

impl ClusterBarrier {
    fn fit(&mut self, warps: usize) {
        self.arrived.resize(warps, 0);
        self.waits_for.resize(warps, None);
    }
}

pub(crate) fn execute(block: &mut Block<'_>, w: &mut Warp, op: &ClusterOp, mask: u32) {
    match *op {
        ClusterOp::MapAddress { wide, generic, d, a, rank } => {
            map_address(block, w, mask, (wide, generic), [d, a, rank]);
        }
        ClusterOp::GetRank { wide, d, a } => {
            let own = block.rank;
            let values = source(w, wide, a);
            let ranks = each_lane!(|lane| address::cluster_rank(values[lane]).unwrap_or(own));
            w.set32(d, mask, &ranks);
        }
        ClusterOp::Arrive { relaxed, aligned } => arrive(block, w, relaxed, aligned, mask),
        ClusterOp::Wait { aligned } => wait(block, w, aligned, mask),
    }
}

fn source(w: &Warp, wide: bool, slot: Slot) -> Lanes64 {
    if wide {
        *w.get64(slot)
    } else {
        let values = w.get32(slot);
        each_lane!(|lane| u64::from(values[lane]))
    }
}

/// `mapa`: the same offset in the memory of another block.
fn map_address(
    block: &mut Block<'_>,
    w: &mut Warp,
    mask: u32,
    (wide, generic): (bool, bool),
    [d, a, rank]: [Slot; 3],
) {
    let (addresses, ranks) = (source(w, wide, a), *w.get32(rank));
    let blocks = block.cluster.blocks();
    if let Some(lane) = lanes(mask).find(|&lane| ranks[lane] >= blocks) {
        let message = format!("mapa to rank {} of a cluster of {blocks} blocks", ranks[lane]);
        block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
    }
    if generic {
        let outside = |lane: &usize| !address::lies_in(addresses[*lane], Space::SharedCluster);
        if let Some(lane) = lanes(mask).find(outside) {
            let message = "mapa of an address that is not in shared memory".to_owned();
            block.report(FindingKind::InvalidOperand, Place::at(lane, addresses[lane]), message);
        }
    }
    let mapped = each_lane!(|lane| address::map_rank(addresses[lane], ranks[lane] % blocks));
    if wide {
        w.set64(d, mask, &mapped);
    } else {
        w.set32(d, mask, &narrow(&mapped));
    }
}

/// Calls `f` for each block that lanes address, with its rank, its lanes and their offsets.
fn by_rank(
    block: &mut Block<'_>,
    at: &Lanes64,
    mask: u32,
    mut f: impl FnMut(&mut Block<'_>, u32, &Lanes64, u32),
) {
    let own = block.rank;
    let rank_of = |lane: usize| address::cluster_rank(at[lane]).unwrap_or(own);
    let offsets = each_lane!(|lane| address::cluster_offset(at[lane]));
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let rank = rank_of(first);
        let same = lanes(rest).filter(|&l| rank_of(l) == rank).fold(0u32, |m, l| m | 1 << l);
        rest &= !same;
        if rank < block.cluster.blocks() {
            f(block, rank, &offsets, same);
        } else {
            let message = format!("shared memory of rank {rank}, which the cluster does not have");
            block.report(FindingKind::OutOfBounds, Place::at(first, at[first]), message);
        }
    }
}

/// Reports an access to the memory of a block that may not exist at that time: before a barrier of
/// the cluster nobody knows that the others have started, and an exited block's memory is gone.
pub(crate) fn check_lifetime(block: &mut Block<'_>, rank: u32, place: Place<'_>) {
    if !block.checks() || rank == block.rank {
        return;
    }
    let clocks = &block.cluster.clocks;
    let (known, warps) = (clocks.of(block.agent), clocks.warps_per_block());
    let started = (rank * warps..(rank + 1) * warps).any(|warp| known.get(warp) != 0);
    let problem = if !block.cluster.live[rank as usize] {
        "has exited"
    } else if !started {
        "is not known to have started"
    } else {
        return;
    };
    let message = format!("shared memory of rank {rank}, which {problem}");
    block.report(FindingKind::ClusterLifetime, place, message);
}

/// Lanes whose access of `size` bytes is aligned and inside the memory of another block.
fn check_remote(
    block: &mut Block<'_>,
    rank: u32,
    at: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
) -> u32 {
    let first = mask.trailing_zeros() as usize;
    check_lifetime(block, rank, Place::at(first, at[first]));
    check_shared(block, at, mask, size, direction)
}

/// Checks order and definedness of one lane's access to another block's memory.
fn check_remote_bytes(
    block: &mut Block<'_>,
    rank: u32,
    (lane, at, size): (usize, usize, usize),
    direction: Direction,
) {
    if !block.checks() {
        return;
    }
    let agent = block.agent;
    let access = match direction {
        Direction::Load => LaneAccess::Read,
        Direction::Store => LaneAccess::Write,
        Direction::Atomic => LaneAccess::Atomic,
    };
    if block.cluster.clocks.asks_lanes(agent) {
        lane_order::check_range(block, rank, (Some(lane), at..at + size), access);
    }
    let (shared, clocks) = block.shared_of(rank);
    let conflict = match direction {
        Direction::Load => shared.races.read_remote(clocks, at, size, agent),
        Direction::Store => shared.races.write(clocks, at, size, agent),
        Direction::Atomic => None,
    };
    shared.note_remote(agent, clocks.now(agent).own);
    let undefined = direction != Direction::Store && !shared.is_defined(at, size);
    if let Some(conflict) = conflict {
        report_conflict(block, lane, at as u64, direction.name(), conflict);
    }
    if undefined {
        let message = format!("{size}-byte {} of undefined bytes of rank {rank}", direction.name());
        block.report(FindingKind::UninitialisedShared, Place::at(lane, at as u64), message);
    }
}

pub(crate) fn load(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    by_rank(block, at, mask, |block, rank, at, mask| {
        if rank == block.rank {
            return load_shared(block, w, access, at, mask);
        }
        let (bytes, count) = (usize::from(access.bytes), usize::from(access.count));
        let size = bytes * count;
        let good = check_remote(block, rank, at, mask, size as u64, Direction::Load);
        block.counters().shared.add(traffic::shared_request(&narrow(at), good, size as u32));
        for lane in lanes(good) {
            let from = at[lane] as usize;
            check_remote_bytes(block, rank, (lane, from, size), Direction::Load);
            for element in 0..count {
                let value = block.shared_of(rank).0.load(from + element * bytes, bytes);
                write_element(w, access, element, lane, value);
            }
        }
    });
}

pub(crate) fn store(block: &mut Block<'_>, w: &Warp, access: &Access, at: &Lanes64, mask: u32) {
    by_rank(block, at, mask, |block, rank, at, mask| {
        if rank == block.rank {
            return store_shared(block, w, access, at, mask);
        }
        let (bytes, count) = (usize::from(access.bytes), usize::from(access.count));
        let size = bytes * count;
        let good = check_remote(block, rank, at, mask, size as u64, Direction::Store);
        block.counters().shared.add(traffic::shared_request(&narrow(at), good, size as u32));
        for lane in lanes(good) {
            let to = at[lane] as usize;
            check_remote_bytes(block, rank, (lane, to, size), Direction::Store);
            for element in 0..count {
                let value = read_element(w, access, element, lane);
                block.shared_of(rank).0.store(to + element * bytes, bytes, value);
            }
        }
    });
}

pub(crate) fn atomic(block: &mut Block<'_>, w: &mut Warp, op: &Atomic, at: &Lanes64, mask: u32) {
    by_rank(block, at, mask, |block, rank, at, mask| {
        if rank == block.rank {
            return atomic::on_shared(block, w, op, at, mask);
        }
        let size = op.ty.bytes() as usize * usize::from(op.count);
        let good = check_remote(block, rank, at, mask, size as u64, Direction::Atomic);
        block.counters().shared.add(traffic::shared_request(&narrow(at), good, size as u32));
        for lane in lanes(good) {
            let place = at[lane] as usize;
            check_remote_bytes(block, rank, (lane, place, size), Direction::Atomic);
            atomic::update_shared(block.shared_of(rank).0, w, op, place, lane);
        }
    });
}

fn check_aligned(block: &mut Block<'_>, w: &Warp, aligned: bool, mask: u32, what: &str) {
    if aligned && mask != w.live {
        let live = w.live;
        let message =
            format!("{what} executed by lanes {mask:#010x} while lanes {live:#010x} are live");
        block.report(FindingKind::BarrierDivergence, Place::default(), message);
    }
}

fn arrive(block: &mut Block<'_>, w: &Warp, relaxed: bool, aligned: bool, mask: u32) {
    check_aligned(block, w, aligned, mask, "barrier.cluster.arrive");
    let agent = block.agent;
    let warps = block.cluster.clocks.warp_count() as usize;
    let barrier = &mut block.cluster.barrier;
    barrier.fit(warps);
    let arrived = &mut barrier.arrived[agent as usize];
    let again =
        *arrived & mask != 0 || barrier.waits_for[agent as usize].is_some() && *arrived == 0;
    *arrived |= mask;
    barrier.waits_for[agent as usize] = Some(barrier.phase);
    if !relaxed {
        block.cluster.clocks.release(agent, &mut barrier.joined);
    }
    if again {
        let message = "barrier.cluster.arrive twice without a wait between".to_owned();
        block.report(FindingKind::BarrierMisuse, Place::default(), message);
    }
}

fn wait(block: &mut Block<'_>, w: &mut Warp, aligned: bool, mask: u32) {
    check_aligned(block, w, aligned, mask, "barrier.cluster.wait");
    block.synchronise_lanes(w.index, mask, w.live);
    let agent = block.agent;
    let warps = block.cluster.clocks.warp_count() as usize;
    let barrier = &mut block.cluster.barrier;
    barrier.fit(warps);
    match barrier.waits_for[agent as usize] {
        None => {
            let message = "barrier.cluster.wait without an arrive before".to_owned();
            block.report(FindingKind::BarrierMisuse, Place::default(), message);
        }
        Some(phase) if phase < barrier.phase => go_on(block, w, agent),
        Some(_) => w.status = Status::AtClusterBarrier,
    }
}

/// A warp whose phase is complete leaves the barrier.
fn go_on(block: &mut Block<'_>, w: &mut Warp, agent: u32) {
    let barrier = &mut block.cluster.barrier;
    barrier.waits_for[agent as usize] = None;
    block.cluster.clocks.acquire(agent, &barrier.released);
    w.status = Status::Ready;
}

/// Completes the barrier once every thread of the cluster arrived or exited. `warps` are those of
/// the cluster, block after block.
pub(crate) fn complete_barrier(block: &mut Block<'_>, warps: &mut [Warp]) -> bool {
    let barrier = &mut block.cluster.barrier;
    let all = barrier.arrived.iter().zip(warps.iter()).all(|(a, w)| w.live & !a == 0);
    if !all || barrier.arrived.iter().all(|&lanes| lanes == 0) {
        return false;
    }
    block.cluster.clocks.publish_inits();
    barrier.arrived.fill(0);
    barrier.phase += 1;
    barrier.released = std::mem::take(&mut barrier.joined);
    for rank in 0..block.cluster.live.len() as u32 {
        barrier.released.join(block.cluster.clocks.exited(rank));
    }
    for (agent, w) in (0..).zip(warps) {
        if w.status == Status::AtClusterBarrier {
            go_on(block, w, agent);
        }
    }
    true
}

/// Notes that all warps of the running block exited, and reports accesses of other blocks to its
/// memory that are not known to be over.
pub(crate) fn retire(block: &mut Block<'_>) {
    let rank = block.rank;
    block.cluster.live[rank as usize] = false;
    if !block.checks() {
        return;
    }
    if block.cluster.queue.targets(rank) {
        let message = "the block exits while a copy into its shared memory is in flight";
        block.report(FindingKind::AsyncNotAwaited, Place::default(), message.to_owned());
    }
    let known = block.cluster.clocks.exited(rank);
    let unseen = block.shared.remote().iter().find(|&(agent, at)| at > known.get(agent));
    if let Some((agent, _)) = unseen {
        let name = block.agent_name(agent);
        let message = format!("the block exits although {name} may still use its shared memory");
        block.report(FindingKind::ClusterLifetime, Place::default(), message);
    }
}
