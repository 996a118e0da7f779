//! Global accesses in the memory model: races, and what releases, acquires and fences order.

use std::cell::Cell;

use super::memory::GlobalGroup;
use crate::block::{Block, Place};
use crate::check::{FindingKind, GlobalAccess, GlobalKind, LaneRequest};
use crate::program::{MemoryOrder, Scope};
use crate::state::{lanes, lanes_where, FULL};

/// Checks a request for races and enters it.
#[inline(always)]
pub(crate) fn check(block: &mut Block<'_>, group: &GlobalGroup, size: u64, kind: GlobalKind) {
    if block.context.memory.history(group.buffer).is_some() {
        check_store(block, group, size, kind, (|_| false, |_, _| true));
    }
}

/// [`check`] for stores. `unchanged` says whether a lane stores what is there already, which is no
/// race with an earlier write of a warp of the same block; `equal` whether two lanes store the
/// same.
pub(crate) fn check_store(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    size: u64,
    kind: GlobalKind,
    (unchanged, equal): (impl Fn(usize) -> bool, impl Fn(usize, usize) -> bool),
) {
    let context = block.context;
    let Some((buffer, history)) = context.memory.history(group.buffer) else { return };
    let (cluster, agent) = (&block.cluster, block.agent);
    let clock = match kind.scope().filter(|_| kind.writes()) {
        Some(_) => cluster.knowledge.latest_fence(agent),
        None => None,
    };
    let clock = clock.unwrap_or_else(|| cluster.clocks.now(agent).own);
    let number = cluster.knowledge.cluster();
    let access = GlobalAccess::new((number, agent as u16), clock, block.pc as u32, kind);
    let mut races = Vec::new();
    let mut found = |lane, earlier| races.push((lane, earlier));
    let mut touched = false;
    if cluster.knowledge.asks_lanes(&cluster.clocks, agent) {
        for lane in lanes(group.mask) {
            let who = (agent, 1 << lane);
            let known = |earlier: &GlobalAccess| {
                cluster.knowledge.includes(&cluster.clocks, agent, earlier)
                    && cluster.knowledge.unaware_lanes(&cluster.clocks, who, earlier) == 0
            };
            let request = (&group.offsets, 1 << lane, size);
            touched |= history.request(buffer.len(), request, &access, known, &mut found);
        }
    } else {
        // What a request meets was mostly done by one warp at one moment.
        let latest = Cell::new(None);
        let known = |earlier: &GlobalAccess| {
            let moment = Some((earlier.cluster, earlier.agent, earlier.clock));
            let known = latest.get() == moment
                || cluster.knowledge.includes(&cluster.clocks, agent, earlier);
            if known {
                latest.set(moment);
            }
            known
        };
        let request = (&group.offsets, group.mask, size);
        touched = history.request(buffer.len(), request, &access, known, &mut found);
    }
    check_lanes(block, group, (size, kind), touched, equal);
    for (lane, earlier) in races {
        if earlier.writes() && place(block, &earlier).0 == block.index && unchanged(lane) {
            continue;
        }
        report(block, group, lane, &access, &earlier);
    }
}

/// Checks the lanes of a request against each other, where they touch bytes that the warp has
/// touched before, and enters it.
fn check_lanes(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    (size, kind): (u64, GlobalKind),
    touched: bool,
    equal: impl Fn(usize, usize) -> bool,
) {
    if kind.scope().is_some() {
        return;
    }
    let request = LaneRequest {
        buffer: group.buffer,
        offsets: group.offsets,
        mask: group.mask,
        size,
        writes: kind.writes(),
    };
    if touched {
        let log = &block.cluster.lane_logs[block.agent as usize];
        let earlier = log.conflict(&request);
        let within = request.within().filter(|&(lane, other)| !equal(lane, other));
        if let Some((lane, other, wrote)) =
            earlier.or(within.map(|(lane, other)| (lane, other, true)))
        {
            report_lanes(block, group, &request, (lane, other, wrote));
        }
    }
    block.cluster.lane_logs[block.agent as usize].push(request);
}

#[cold]
fn report_lanes(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    request: &LaneRequest,
    (lane, other, wrote): (usize, usize, bool),
) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    let address = lane_address(block, group, lane);
    let message = format!(
        "{} of global bytes that lane {other} {} since the last bar.warp.sync",
        if request.writes { "store" } else { "load" },
        if wrote { "wrote" } else { "read" },
    );
    let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
    block.report(FindingKind::LaneRace, place, message);
}

/// Reports a race at the reading instruction, or at the later one in the text of two writes, so
/// that it does not depend on which thread block came first.
#[cold]
fn report(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    lane: usize,
    new: &GlobalAccess,
    earlier: &GlobalAccess,
) {
    if block.cluster.knowledge.includes(&block.cluster.clocks, block.agent, earlier) {
        return report_unaware(block, group, lane, (new, earlier));
    }
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    let address = lane_address(block, group, lane);
    let at_new = match (new.writes(), earlier.writes()) {
        (false, true) => true,
        (true, false) => false,
        _ => new.pc >= earlier.pc,
    };
    let (here, other) = if at_new { (new, earlier) } else { (earlier, new) };
    let (other_block, other_warp) = place(block, other);
    let line = context.program.code[other.pc as usize].line;
    let message = format!(
        "{} of bytes that warp {other_warp} of block {other_block} {} at PTX line {line}, without \
         an order between them",
        if here.writes() { "store" } else { "load" },
        if other.writes() { "stores" } else { "loads" },
    );
    let mut at = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
    if !at_new {
        at.lane = None;
    }
    let (pc, index, warp) = (block.pc, block.index, block.warp);
    block.pc = here.pc as usize;
    (block.index, block.warp) = place(block, here);
    block.report(FindingKind::GlobalRace, at, message);
    (block.pc, block.index, block.warp) = (pc, index, warp);
}

/// Reports an access that the warp has waited for, but not this lane of it.
fn report_unaware(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    lane: usize,
    (new, earlier): (&GlobalAccess, &GlobalAccess),
) {
    let Some((buffer, _)) = block.context.memory.get(group.buffer) else { return };
    let (other_block, other_warp) = place(block, earlier);
    let line = block.context.program.code[earlier.pc as usize].line;
    let message = format!(
        "{} of bytes that warp {other_warp} of block {other_block} {} at PTX line {line}: another \
         lane waited for that, and this one not for it (bar.warp.sync is missing after the wait)",
        if new.writes() { "store" } else { "load" },
        if earlier.writes() { "stores" } else { "loads" },
    );
    let address = lane_address(block, group, lane);
    let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
    block.report(FindingKind::LaneRace, place, message);
}

/// Thread block and warp of an access.
fn place(block: &Block<'_>, access: &GlobalAccess) -> (u32, u32) {
    let warps = block.context.warps();
    let (rank, warp) = (u32::from(access.agent) / warps, u32::from(access.agent) % warps);
    (block.context.block_of_cluster(access.cluster, rank), warp)
}

fn lane_address(block: &Block<'_>, group: &GlobalGroup, lane: usize) -> u64 {
    block.context.memory.address(group.buffer) + group.offsets[lane]
}

/// Publishes, before a strong write, what it releases: everything, or what fences covered.
pub(crate) fn release(block: &mut Block<'_>, group: &GlobalGroup, order: MemoryOrder) {
    let Some(scope) = order.scope else { return };
    let agent = block.agent;
    let cluster = &mut block.cluster;
    let (wide, narrow) = if order.release {
        (Some(cluster.knowledge.release(&mut cluster.clocks, agent)), None)
    } else {
        let fenced = |device| cluster.knowledge.fenced(&cluster.clocks, agent, device);
        (fenced(true), fenced(false))
    };
    let number = cluster.knowledge.cluster();
    let locations = &block.context.memory.locations;
    for (what, scope) in [(wide, scope), (narrow, scope.min(Scope::Cluster))] {
        let Some(what) = what else { continue };
        for lane in lanes(group.mask) {
            locations.publish(lane_address(block, group, lane), number, scope, &what);
        }
    }
}

/// Learns, after a strong read of some of the `live` lanes, what was released at the location: at
/// once, or at the next fence.
#[inline(always)]
pub(crate) fn acquire(block: &mut Block<'_>, group: &GlobalGroup, order: MemoryOrder, live: u32) {
    if let Some(scope) = order.scope {
        acquire_at(block, group, (order, scope), live);
    }
}

fn acquire_at(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    (order, scope): (MemoryOrder, Scope),
    live: u32,
) {
    let (agent, number) = (block.agent, block.cluster.knowledge.cluster());
    let mut rest = group.mask;
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize;
        let together = lanes_where(rest, |other| group.offsets[other] == group.offsets[lane]);
        rest &= !together;
        let address = lane_address(block, group, lane);
        let locations = &block.context.memory.locations;
        let Some(what) = locations.released(address, number, scope) else { continue };
        let cluster = &mut block.cluster;
        let who = (agent, all_or(together, live));
        if order.acquire {
            cluster.knowledge.acquire(&cluster.clocks, who, what);
        } else {
            cluster.knowledge.observe(&cluster.clocks, who, address, what);
        }
    }
}

/// A fence between accesses of the warp (PTX ISA 9.7.13.4).
pub(crate) fn fence(block: &mut Block<'_>, scope: Scope, (mask, live): (u32, u32)) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    if block.checks() {
        let (cluster, agent) = (&mut block.cluster, block.agent);
        cluster.knowledge.fence(&mut cluster.clocks, (agent, all_or(mask, live)), scope);
    }
}

/// Some of the `live` lanes of a warp, or all lanes for all of these.
fn all_or(mask: u32, live: u32) -> u32 {
    if live & !mask == 0 {
        FULL
    } else {
        mask
    }
}
