//! Branches, exits and barriers.

use crate::block::{Block, Place};
use crate::check::{FindingKind, VectorClock};
use crate::program::{BarrierKind, BarrierUse, Instruction, Slot};
use crate::residency::Room;
use crate::state::{first_lane, lanes, Frame, Status, Warp, LANES};

/// Number of barriers of a thread block.
const BARRIER_COUNT: u32 = 16;

/// One barrier between its first arrival and its completion.
#[derive(Debug, Clone, Default)]
struct Barrier {
    /// Warps that arrived, waiting or not.
    arrived: u32,
    /// Warps that wait.
    waiting: u32,
    /// Warp that did not wait, but made the barrier complete and pauses until that is done.
    paused: u32,
    /// Warps expected, once a participant named a count.
    expected: Option<u32>,
    /// Threads with a true predicate, and whether all predicates were true, for reductions.
    true_threads: u32,
    all_true: bool,
    any_true: bool,
    /// What the participants did before they arrived.
    joined: VectorClock,
}

/// The barriers of a thread block.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    all: Vec<Barrier>,
    /// As many warps as expected arrived at one of them.
    full: bool,
}

impl Barriers {
    fn get(&mut self, id: u32) -> &mut Barrier {
        if self.all.is_empty() {
            self.all.resize_with(BARRIER_COUNT as usize, Barrier::default);
        }
        &mut self.all[(id % BARRIER_COUNT) as usize]
    }

    /// Whether a barrier must complete before another warp runs: its next arrival would belong to
    /// its next use.
    pub(crate) fn full(&self) -> bool {
        self.full
    }
}

/// Splits the lanes of the top frame; `taken` go to `target`, the rest of `mask` fall through.
///
/// A frame below waits at the reconvergence point for both sides. When the diverging frame already
/// ends at that point, the frame below it is that one, so loops whose lanes leave one by one do
/// not grow the stack.
pub(crate) fn diverge(w: &mut Warp, instruction: &Instruction, target: u32, next: u32, taken: u32) {
    let Some(top) = w.stack.last() else { return };
    let others = top.mask & !taken;
    split(w, instruction.reconverge, &[(next, others), (target, taken)]);
}

/// Splits the lanes of the top frame over several places, of which the last goes on first.
fn split(w: &mut Warp, reconverge: u32, parts: &[(u32, u32)]) {
    let Some(top) = w.stack.pop() else { return };
    if top.reconverge != reconverge {
        w.stack.push(Frame { pc: reconverge, ..top });
    }
    for &(pc, mask) in parts {
        if pc != reconverge {
            w.stack.push(Frame { pc, reconverge, mask });
        }
    }
}

/// `brx.idx`: each lane of `taken`, out of the `active` ones, goes to the target that its index
/// names (PTX ISA 9.7.12.4).
pub(crate) fn branch_indexed(
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    (index, table, uniform): (Slot, u32, bool),
    [active, taken]: [u32; 2],
) {
    let program = block.context.program;
    let targets = program.tables.get(table as usize).map_or(&[][..], Vec::as_slice);
    let Some(&first) = targets.first() else { return };
    let indices = *w.get32(index);
    let mut parts: Vec<(u32, u32)> = Vec::new();
    if active != taken {
        parts.push((block.pc as u32 + 1, active & !taken));
    }
    for lane in lanes(taken) {
        let target = targets.get(indices[lane] as usize).copied().unwrap_or_else(|| {
            let message = format!("index {} of {} branch targets", indices[lane], targets.len());
            block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
            first
        });
        match parts.iter_mut().find(|(pc, _)| *pc == target) {
            Some((_, mask)) => *mask |= 1 << lane,
            None => parts.push((target, 1 << lane)),
        }
    }
    if let [(target, _)] = parts[..] {
        if let Some(frame) = w.stack.last_mut() {
            frame.pc = target;
        }
        return;
    }
    block.counters().divergent += 1;
    if uniform {
        let message = format!("brx.idx.uni taken to {} places", parts.len());
        block.report(FindingKind::BarrierDivergence, Place::default(), message);
    }
    split(w, instruction.reconverge, &parts);
}

/// Removes exiting lanes from the whole stack.
pub(crate) fn exit(block: &mut Block<'_>, w: &mut Warp, mask: u32) {
    w.live &= !mask;
    for frame in &mut w.stack {
        frame.mask &= !mask;
    }
    if w.live == 0 {
        w.stack.clear();
        w.status = Status::Exited;
        super::wgmma::exit(block, w);
        super::warpgroup::exit(block, w);
        super::bulk_store::exit(block, w);
        let agent = block.agent;
        block.cluster.clocks.exit(agent);
    }
}

/// Drops frames that are finished: without lanes, or arrived where the frame below goes on.
pub(crate) fn settle(w: &mut Warp) {
    while let Some(top) = w.stack.last() {
        if top.mask != 0 && top.pc != top.reconverge {
            return;
        }
        w.stack.pop();
    }
    w.status = Status::Exited;
}

/// `bar.warp.sync`: lanes that run in lockstep need not wait, but their memory is ordered now.
pub(crate) fn warp_barrier(
    block: &mut Block<'_>,
    w: &Warp,
    members: crate::program::Slot,
    mask: u32,
) {
    super::shuffle::check_members(block, w, mask, members, "bar.warp.sync");
    // Lanes may name different sets, each executing its own barrier.
    let mut rest = mask;
    while rest != 0 {
        let named = w.get32(members)[rest.trailing_zeros() as usize] & rest;
        if named == 0 {
            return;
        }
        block.synchronise_lanes(w.index, named, w.live);
        rest &= !named;
    }
}

/// A warp arrives at a barrier; it may have to wait.
pub(crate) fn barrier(block: &mut Block<'_>, w: &mut Warp, b: &BarrierUse, mask: u32) {
    let id = first_lane(w.get32(b.id), mask);
    if id >= BARRIER_COUNT {
        let message = format!("barrier number {id}, there are {BARRIER_COUNT}");
        block.report(FindingKind::BarrierMisuse, Place::default(), message);
    }
    if b.aligned && mask != w.live {
        let message = format!(
            "barrier {id} executed by lanes {mask:#010x} while lanes {:#010x} are live",
            w.live
        );
        block.report(FindingKind::BarrierDivergence, Place::default(), message);
    }
    let expected = expected_warps(block, w, b, id, mask);
    let warp = w.index;
    let predicate = reduction_input(w, b, mask);
    let barrier = block.barriers.get(id);
    let mismatch = barrier.arrived != 0 && barrier.expected != expected;
    let again = barrier.arrived >> warp & 1 == 1;
    if barrier.arrived == 0 {
        *barrier = Barrier { all_true: true, expected, ..Barrier::default() };
    }
    barrier.arrived |= 1 << warp;
    block.cluster.clocks.release(block.agent, &mut barrier.joined);
    if let Some(truth) = predicate {
        barrier.true_threads += truth.count_ones();
        barrier.all_true &= truth == mask;
        barrier.any_true |= truth != 0;
    }
    let full = barrier.arrived.count_ones() >= expected.unwrap_or(block.context.warps());
    if b.kind != BarrierKind::Arrive {
        barrier.waiting |= 1 << warp;
        block.synchronise_lanes(warp, mask, w.live);
        w.status = Status::AtBarrier(id % BARRIER_COUNT);
    } else if full {
        barrier.paused |= 1 << warp;
        w.status = Status::AtBarrier(id % BARRIER_COUNT);
    }
    block.barriers.full |= full;
    if mismatch {
        let message = format!("warps disagree on the thread count of barrier {id}");
        block.report(FindingKind::BarrierMisuse, Place::default(), message);
    }
    if again {
        let message = format!("warp arrives twice at barrier {id} before it completes");
        block.report(FindingKind::BarrierMisuse, Place::default(), message);
    }
}

fn expected_warps(
    block: &mut Block<'_>,
    w: &Warp,
    b: &BarrierUse,
    id: u32,
    mask: u32,
) -> Option<u32> {
    let threads = first_lane(w.get32(b.threads?), mask);
    if threads == 0 || threads % LANES as u32 != 0 || threads > block.context.threads() {
        let message = format!("barrier {id} for {threads} threads");
        block.report(FindingKind::BarrierMisuse, Place::default(), message);
    }
    // A count that names the whole block is the same as none.
    let warps = block.context.threads().div_ceil(LANES as u32);
    Some(threads / LANES as u32).filter(|&named| named != warps)
}

fn reduction_input(w: &Warp, b: &BarrierUse, mask: u32) -> Option<u32> {
    match b.kind {
        BarrierKind::Popc { p, .. } | BarrierKind::Reduce { p, .. } => Some(w.predicate(p) & mask),
        BarrierKind::Sync | BarrierKind::Arrive => None,
    }
}

/// Completes every barrier whose participants have all arrived; returns whether one did.
///
/// Warps that exited no longer count, so this is also called when a warp exits.
pub(crate) fn complete_barriers(block: &mut Block<'_>, warps: &mut [Warp]) -> bool {
    block.barriers.full = false;
    let live = warps.iter().filter(|w| w.live != 0).fold(0u32, |m, w| m | 1 << w.index);
    let mut any = false;
    for id in 0..BARRIER_COUNT {
        let barrier = block.barriers.get(id);
        if barrier.arrived == 0 {
            continue;
        }
        let complete = match barrier.expected {
            Some(count) => barrier.arrived.count_ones() >= count,
            None => barrier.arrived & live == live,
        };
        if complete {
            let done = std::mem::take(barrier);
            release(block, warps, &done);
            any = true;
        }
    }
    any
}

fn release(block: &mut Block<'_>, warps: &mut [Warp], done: &Barrier) {
    for w in warps.iter_mut().filter(|w| done.paused >> w.index & 1 == 1) {
        w.status = Status::Ready;
    }
    for w in warps.iter_mut().filter(|w| done.waiting >> w.index & 1 == 1) {
        let first = block.rank * block.cluster.clocks.warps_per_block();
        block.cluster.clocks.resume(first + w.index, &done.joined);
        w.status = Status::Ready;
        deliver(block, w, done);
    }
}

/// Writes the result of a barrier reduction. The warp's frame still stands behind the instruction.
fn deliver(block: &Block<'_>, w: &mut Warp, done: &Barrier) {
    let Some(frame) = w.stack.last() else { return };
    let (pc, mask) = (frame.pc as usize, frame.mask);
    let Some(instruction) = pc.checked_sub(1).and_then(|pc| block.context.program.code.get(pc))
    else {
        return;
    };
    if let crate::program::Op::Barrier(b) = instruction.op {
        match b.kind {
            BarrierKind::Popc { d, .. } => w.set32(d, mask, &[done.true_threads; LANES]),
            BarrierKind::Reduce { all, d, .. } => {
                let value = if all { done.all_true } else { done.any_true };
                w.set_predicate(d, mask, if value { u32::MAX } else { 0 });
            }
            BarrierKind::Sync | BarrierKind::Arrive => {}
        }
    }
}

/// Reports that no warp of the cluster can go on, with the place of each. `warps` are those of the
/// cluster, block after block; `room` says how full the device is when they wait for other clusters.
pub(crate) fn report_deadlock(block: &mut Block<'_>, warps: &[Warp], room: Option<Room>) {
    let code = &block.context.program.code;
    let blocks = block.cluster.blocks() as usize;
    let (mut places, mut found_poll) = (Vec::new(), false);
    for (position, w) in warps.iter().enumerate() {
        let pc = match w.status {
            Status::Ready => w.polled_at,
            _ => w.stack.last().map_or(0, |frame| frame.pc as usize).saturating_sub(1),
        };
        let Some(at) = waiting_place(block, w) else { continue };
        // The finding stands at a warp that polls, if there is one: the others may wait for it.
        let polls = w.status == Status::Ready;
        if places.is_empty() || polls && !found_poll {
            found_poll = polls;
            block.enter((position * blocks / warps.len()) as u32);
            (block.pc, block.warp) = (pc, w.index);
        }
        let line = code.get(pc).map_or_else(String::new, |i| match i.source {
            Some(source) => format!("PTX line {}, source line {}", i.line, source.line),
            None => format!("PTX line {}", i.line),
        });
        places.push(format!("{} at {at} ({line})", block.agent_name(position as u32)));
    }
    let exited = warps.iter().filter(|w| w.status == Status::Exited).count();
    let mut message = format!("no warp can go on: {}; {exited} warps exited", places.join(", "));
    if let Some(Room { resident, most, waiting }) = room {
        message += &format!(
            "; every other resident cluster waits too: {resident} of at most {most} are resident, \
             {waiting} have not started"
        );
    }
    block.report(FindingKind::Deadlock, Place::default(), message);
}

/// What a warp waits for, in words; nothing if it exited.
fn waiting_place(block: &mut Block<'_>, w: &Warp) -> Option<String> {
    match w.status {
        Status::AtBarrier(id) => Some(format!("barrier {id}")),
        Status::AtClusterBarrier => Some("the barrier of the cluster".to_owned()),
        Status::Polling => w.poll.map(|poll| super::mbarrier::describe(block, poll)),
        Status::AwaitsRegisters(count) => Some(format!("setmaxnreg for {count} registers")),
        Status::Ready => Some("a loop that polls memory".to_owned()),
        Status::Exited => None,
    }
}
