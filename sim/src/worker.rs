//! Runs thread blocks on one OS thread, reusing registers and shared memory.
//!
//! Blocks normally run one after another. A block that keeps polling memory may be waiting for
//! another block (a lock, a flag of a partial sum): it is set aside and takes turns with others.

use std::collections::VecDeque;

use crate::block::{Block, RunContext, Tally};
use crate::error::SimError;
use crate::exec::{control, run_warp};
use crate::launch::{split_mix, WarpOrder};
use crate::program::Special;
use crate::state::{Lanes32, Status, Warp, FULL, LANES};

/// Instructions of one warp before another gets a turn; warps normally stop at barriers earlier.
const QUANTUM: u64 = 4096;
/// Polling accesses in one turn after which a block counts as waiting for another block.
const POLLS_PER_TURN: u64 = 256;
/// Most blocks of one thread that take turns.
const RESIDENT_BLOCKS: usize = 256;

/// How a turn of a block ended.
enum Turn {
    Done,
    Waiting,
}

/// One thread's simulator state.
pub(crate) struct Worker<'r> {
    context: &'r RunContext<'r>,
    /// Blocks that have not finished; the front one runs.
    active: VecDeque<Resident<'r>>,
    /// Finished blocks, kept for their allocations and their tallies.
    idle: Vec<Resident<'r>>,
}

impl<'r> Worker<'r> {
    pub(crate) fn new(context: &'r RunContext<'r>) -> Worker<'r> {
        Worker { context, active: VecDeque::new(), idle: Vec::new() }
    }

    /// Runs all blocks that `next` gives.
    pub(crate) fn run(&mut self, mut next: impl FnMut() -> Option<u32>) -> Result<(), SimError> {
        loop {
            if self.active.is_empty() && !self.start(&mut next) {
                return Ok(());
            }
            let Some(front) = self.active.front_mut() else { return Ok(()) };
            match front.turn()? {
                Turn::Done => self.idle.extend(self.active.pop_front()),
                Turn::Waiting => {
                    self.active.rotate_left(1);
                    if self.active.len() < RESIDENT_BLOCKS {
                        self.start(&mut next);
                    }
                }
            }
        }
    }

    /// Puts the next block, if there is one, in front.
    fn start(&mut self, next: &mut impl FnMut() -> Option<u32>) -> bool {
        let Some(index) = next() else { return false };
        let mut resident = self.idle.pop().unwrap_or_else(|| Resident::new(self.context));
        resident.start(index);
        self.active.push_front(resident);
        true
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

/// A thread block with its warps.
struct Resident<'r> {
    block: Block<'r>,
    warps: Vec<Warp>,
    random: u64,
}

impl<'r> Resident<'r> {
    fn new(context: &'r RunContext<'r>) -> Resident<'r> {
        let warps = context.threads().div_ceil(LANES as u32);
        let mut resident = Resident {
            block: Block::new(context),
            warps: (0..warps).map(|index| Warp::new(context.program, index)).collect(),
            random: 0,
        };
        resident.set_specials(|special| !depends_on_block(special));
        resident
    }

    /// Puts all warps at the beginning of block number `index`.
    fn start(&mut self, index: u32) {
        let context = self.block.context;
        self.block.reset(index);
        self.block.tally.blocks += 1;
        self.random = match context.options.warp_order {
            WarpOrder::Seeded(seed) => seed ^ u64::from(index).wrapping_mul(0x9E37_79B9),
            _ => 0,
        };
        self.set_specials(depends_on_block);
        for warp in &mut self.warps {
            let threads = context.threads() - warp.index * LANES as u32;
            let mask = if threads >= LANES as u32 { FULL } else { (1 << threads) - 1 };
            warp.start(context.program, mask);
        }
    }

    /// Rounds in which each ready warp gets a turn, until all have exited or the block seems to
    /// wait for another.
    fn turn(&mut self) -> Result<Turn, SimError> {
        self.block.polls = 0;
        loop {
            let mut ran = false;
            for position in self.turn_order() {
                let warp = &mut self.warps[position];
                if warp.status == Status::Ready {
                    run_warp(&mut self.block, warp, QUANTUM)?;
                    ran = true;
                }
            }
            let completed = control::complete_barriers(&mut self.block, &mut self.warps);
            if self.warps.iter().all(|w| w.status == Status::Exited) {
                return Ok(Turn::Done);
            }
            if !ran && !completed {
                control::report_deadlock(&mut self.block, &self.warps);
                return Ok(Turn::Done);
            }
            if self.block.polls > POLLS_PER_TURN {
                return Ok(Turn::Waiting);
            }
        }
    }

    fn turn_order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
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
    fn set_specials(&mut self, wanted: impl Fn(Special) -> bool) {
        let context = self.block.context;
        for &(slot, special) in context.program.specials.iter().filter(|(_, s)| wanted(*s)) {
            for warp in &mut self.warps {
                let index = warp.index;
                let values: Lanes32 = std::array::from_fn(|lane| {
                    special_value(context, special, self.block.index, index, lane as u32)
                });
                warp.r32[slot as usize] = values;
            }
        }
    }
}

fn depends_on_block(special: Special) -> bool {
    matches!(special, Special::Ctaid(_) | Special::ClusterId(_) | Special::SmId)
}

fn coordinates(linear: u32, extents: [u32; 3]) -> [u32; 3] {
    [linear % extents[0], linear / extents[0] % extents[1], linear / extents[0] / extents[1]]
}

/// Value of a special register in one lane (PTX ISA chapter 10).
fn special_value(
    context: &RunContext<'_>,
    special: Special,
    block: u32,
    warp: u32,
    lane: u32,
) -> u32 {
    let axis = |values: [u32; 3], axis: u8| values[usize::from(axis)];
    let threads = context.threads();
    match special {
        Special::Tid(a) => axis(coordinates(warp * LANES as u32 + lane, context.block), a),
        Special::Ntid(a) => axis(context.block, a),
        // Clusters hold one block, so cluster and block coordinates agree.
        Special::Ctaid(a) | Special::ClusterId(a) => axis(coordinates(block, context.grid), a),
        Special::Nctaid(a) | Special::ClusterCount(a) => axis(context.grid, a),
        Special::LaneId => lane,
        Special::WarpId => warp,
        Special::WarpCount => threads.div_ceil(LANES as u32),
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
        Special::ClusterCtaid(_) | Special::ClusterCtaRank => 0,
        Special::ClusterNctaid(_) | Special::ClusterCtaCount => 1,
    }
}
