//! Runs thread blocks on one OS thread, reusing registers and shared memory.
//!
//! The unit is the cluster, whose blocks take turns; without clusters, the block. Units normally
//! run one after another. A block that keeps polling memory may be waiting for another block (a
//! lock, a flag of a partial sum): it is set aside and takes turns with others, as many as
//! [`Residents`] lets in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::block::{coordinates, Block, RunContext, Tally};
use crate::error::SimError;
use crate::exec::{cluster, control, in_flight, mbarrier, run_warp, warpgroup};
use crate::launch::{split_mix, WarpOrder};
use crate::program::Special;
use crate::residency::{Residents, Room};
use crate::state::{Status, Warp, FULL, LANES};

/// Instructions of one warp before another gets a turn; warps normally stop at barriers earlier.
const QUANTUM: u64 = 4096;
/// Polling accesses in one turn after which a block counts as waiting for another block.
const POLLS_PER_TURN: u64 = 256;
/// How often all waits for mbarriers may time out without a change of any before it is a deadlock.
const PATIENCE: u32 = 16;
/// Turns of each resident cluster without a change anywhere before they wait in vain.
const QUIET_TURNS: usize = 16;
/// How long a worker rests whose clusters all wait for those of others.
const REST: Duration = Duration::from_micros(100);

/// How a turn of a block ended.
enum Turn {
    Done,
    /// The cluster polls; `changed` tells whether it did anything else.
    Waiting {
        changed: bool,
    },
}

/// One thread's simulator state.
pub(crate) struct Worker<'r> {
    context: &'r RunContext<'r>,
    residents: &'r Residents,
    /// Number among the workers of the run.
    number: usize,
    /// Clusters that have not finished; the front one runs.
    active: VecDeque<Resident<'r>>,
    /// Finished clusters, kept for their allocations and their tallies.
    idle: Vec<Resident<'r>>,
    /// Turns in which nothing changed, and the count of changes since then.
    quiet: (usize, u64),
}

impl<'r> Worker<'r> {
    pub(crate) fn new(context: &'r RunContext<'r>, residents: &'r Residents) -> Worker<'r> {
        let (active, idle) = (VecDeque::new(), Vec::new());
        Worker { context, residents, number: residents.join(), active, idle, quiet: (0, 0) }
    }

    /// Runs clusters until there are none left to start; `unit` gives their numbers by position.
    pub(crate) fn run(&mut self, unit: impl Fn(usize) -> u32) -> Result<(), SimError> {
        loop {
            if self.active.is_empty() && !self.start(&unit) {
                self.residents.leave(self.number);
                return Ok(());
            }
            let Some(front) = self.active.front_mut() else { continue };
            match front.turn()? {
                Turn::Done => {
                    self.residents.finish();
                    self.idle.extend(self.active.pop_front());
                }
                Turn::Waiting { changed } => {
                    self.active.rotate_left(1);
                    if changed {
                        self.residents.changed();
                    }
                    if !self.start(&unit) {
                        self.wait();
                    }
                }
            }
        }
    }

    /// Puts the next cluster, if there is one and room for it, in front.
    fn start(&mut self, unit: impl Fn(usize) -> u32) -> bool {
        let Some(position) = self.residents.start() else { return false };
        let mut resident = self.idle.pop().unwrap_or_else(|| Resident::new(self.context));
        resident.start(unit(position));
        self.active.push_front(resident);
        true
    }

    /// After a turn in which a cluster only polled: finds out whether that can ever end.
    fn wait(&mut self) {
        let changes = self.residents.changes();
        if self.quiet.1 != changes {
            self.quiet = (0, changes);
        }
        self.quiet.0 += 1;
        if self.quiet.0 < QUIET_TURNS * self.active.len() {
            return;
        }
        match self.residents.stalled(self.number, changes) {
            Some(room) => self.give_up(room),
            None => std::thread::sleep(REST),
        }
    }

    /// Reports every cluster as waiting in vain and drops it.
    fn give_up(&mut self, room: Room) {
        while let Some(mut resident) = self.active.pop_front() {
            control::report_deadlock(&mut resident.block, &resident.warps, Some(room));
            self.idle.push(resident);
        }
    }

    /// Everything counted and found.
    pub(crate) fn into_tally(self) -> Tally {
        let mut total = Tally::new(self.context);
        for resident in self.idle {
            total.merge(resident.block.tally);
        }
        total
    }
}

/// A cluster of thread blocks with its warps. Without clusters each block is one of its own.
struct Resident<'r> {
    block: Block<'r>,
    /// Warps of the blocks, block after block.
    warps: Vec<Warp>,
    random: u64,
    /// Changes of mbarriers when nobody could go on last, and how often that may happen again
    /// without a further change.
    events: u64,
    patience: u32,
}

impl<'r> Resident<'r> {
    fn new(context: &'r RunContext<'r>) -> Resident<'r> {
        let warps = (0..context.cluster_blocks()).flat_map(|_| 0..context.warps());
        let mut resident = Resident {
            block: Block::new(context),
            warps: warps.map(|index| Warp::new(context.program, index)).collect(),
            random: 0,
            events: 0,
            patience: PATIENCE,
        };
        resident.set_specials(0, |special| !depends_on_cluster(special));
        resident
    }

    /// Puts all warps at the beginning of cluster number `number`.
    fn start(&mut self, number: u32) {
        let context = self.block.context;
        self.block.start_cluster(number);
        self.block.tally.blocks += u64::from(context.cluster_blocks());
        self.random = match context.options.warp_order {
            WarpOrder::Seeded(seed) => seed ^ u64::from(number).wrapping_mul(0x9E37_79B9),
            _ => 0,
        };
        self.set_specials(number, depends_on_cluster);
        for warp in &mut self.warps {
            let threads = context.threads() - warp.index * LANES as u32;
            let mask = if threads >= LANES as u32 { FULL } else { (1 << threads) - 1 };
            warp.start(context.program, mask);
        }
    }

    /// Rounds in which each ready warp gets a turn, until all have exited or the cluster seems to
    /// wait for another.
    fn turn(&mut self) -> Result<Turn, SimError> {
        self.block.polls.begin_turn();
        loop {
            let mut progress = false;
            for rank in self.turn_order(self.block.cluster.blocks() as usize) {
                progress |= self.turn_of_block(rank)?;
            }
            progress |= cluster::complete_barrier(&mut self.block, &mut self.warps);
            if self.warps.iter().all(|w| w.status == Status::Exited) {
                return Ok(Turn::Done);
            }
            if !progress && !in_flight::land_one(&mut self.block) && !self.wait_in_vain() {
                control::report_deadlock(&mut self.block, &self.warps, None);
                return Ok(Turn::Done);
            }
            if self.block.polls.count > POLLS_PER_TURN {
                return Ok(Turn::Waiting { changed: self.block.polls.changes != 0 });
            }
        }
    }

    /// Nobody could go on: lets waits for mbarriers time out. Returns false once nothing has come
    /// of it for a while, or when nobody waits for one.
    fn wait_in_vain(&mut self) -> bool {
        let events = self.block.cluster.events;
        if self.events != events {
            (self.events, self.patience) = (events, PATIENCE);
        }
        if self.patience == 0 {
            return false;
        }
        self.patience -= 1;
        let polling = self.warps.iter_mut().filter(|w| w.status == Status::Polling);
        polling.map(|warp| warp.status = Status::Ready).count() != 0
    }

    /// One turn for each ready warp of a block; returns whether anything happened.
    fn turn_of_block(&mut self, rank: usize) -> Result<bool, SimError> {
        self.block.enter(rank as u32);
        let count = self.block.context.warps() as usize;
        let first = rank * count;
        let mut ran = false;
        for position in self.turn_order(count) {
            let warp = &mut self.warps[first + position];
            if let (Status::Polling, Some(poll)) = (warp.status, warp.poll) {
                if mbarrier::phase_changed(&mut self.block, poll) {
                    warp.status = Status::Ready;
                }
            }
            if warp.status == Status::Ready {
                let polls = self.block.polls.count;
                run_warp(&mut self.block, warp, QUANTUM)?;
                // A warp that did not poll was not waiting for anybody.
                self.block.polls.changes += u64::from(self.block.polls.count == polls);
                ran = true;
                if self.block.barriers.full() {
                    let warps = &mut self.warps[first..first + count];
                    control::complete_barriers(&mut self.block, warps);
                }
            }
        }
        let warps = &mut self.warps[first..first + count];
        let completed = control::complete_barriers(&mut self.block, warps)
            | warpgroup::grant(&mut self.block, warps);
        if self.block.cluster.live[rank] && warps.iter().all(|w| w.status == Status::Exited) {
            cluster::retire(&mut self.block);
        }
        Ok(ran || completed)
    }

    fn turn_order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        match self.block.context.options.warp_order {
            WarpOrder::Forward => {}
            WarpOrder::Reversed => order.reverse(),
            WarpOrder::Seeded(_) => {
                for i in (1..order.len()).rev() {
                    let j = split_mix(&mut self.random) % (i as u64 + 1);
                    order.swap(i, j as usize);
                }
            }
        }
        order
    }

    /// Fills the special registers for which `wanted` holds.
    fn set_specials(&mut self, cluster: u32, wanted: impl Fn(Special) -> bool) {
        let context = self.block.context;
        for &(slot, special) in context.program.specials.iter().filter(|(_, s)| wanted(*s)) {
            for (agent, warp) in (0..).zip(&mut self.warps) {
                let (index, rank) = (warp.index, agent / context.warps());
                let value = |lane| special_value(context, special, (cluster, rank), index, lane);
                let values = &mut warp.r32[slot as usize];
                if depends_on_lane(special) {
                    (0..).zip(values).for_each(|(lane, each)| *each = value(lane));
                } else {
                    *values = [value(0); LANES];
                }
            }
        }
    }
}

fn depends_on_cluster(special: Special) -> bool {
    matches!(special, Special::Ctaid(_) | Special::ClusterId(_) | Special::SmId)
}

fn depends_on_lane(special: Special) -> bool {
    use Special::{LaneId, LanemaskEq, LanemaskGe, LanemaskGt, LanemaskLe, LanemaskLt, Tid};
    matches!(
        special,
        LaneId | LanemaskEq | LanemaskGe | LanemaskGt | LanemaskLe | LanemaskLt | Tid(_)
    )
}

/// Value of a special register in one lane (PTX ISA chapter 10).
fn special_value(
    context: &RunContext<'_>,
    special: Special,
    (cluster, rank): (u32, u32),
    warp: u32,
    lane: u32,
) -> u32 {
    let axis = |values: [u32; 3], axis: u8| values[usize::from(axis)];
    let block = context.block_of_cluster(cluster, rank);
    match special {
        Special::Tid(a) => axis(coordinates(warp * LANES as u32 + lane, context.block), a),
        Special::Ntid(a) => axis(context.block, a),
        Special::Ctaid(a) => axis(coordinates(block, context.grid), a),
        Special::Nctaid(a) => axis(context.grid, a),
        Special::LaneId => lane,
        Special::WarpId => warp,
        Special::WarpCount => context.warps(),
        Special::LanemaskEq => 1 << lane,
        Special::LanemaskLe => FULL >> (31 - lane),
        Special::LanemaskLt => (1 << lane) - 1,
        Special::LanemaskGe => FULL << lane,
        Special::LanemaskGt => (FULL << lane) & !(1 << lane),
        Special::SmId => block % context.options.limits.sm_count.max(1),
        Special::SmCount => context.options.limits.sm_count,
        Special::GridId => 1,
        Special::DynamicSharedBytes => context.dynamic_shared_bytes,
        Special::TotalSharedBytes => context.shared_bytes(),
        Special::ClusterId(a) => axis(coordinates(cluster, context.cluster_grid()), a),
        Special::ClusterCount(a) => axis(context.cluster_grid(), a),
        Special::ClusterCtaid(a) => axis(coordinates(rank, context.cluster), a),
        Special::ClusterNctaid(a) => axis(context.cluster, a),
        Special::ClusterCtaRank => rank,
        Special::ClusterCtaCount => context.cluster_blocks(),
    }
}
