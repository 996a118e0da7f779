//! Runs one thread block after another on one OS thread, reusing registers and shared memory.

use crate::block::{Block, RunContext, Tally};
use crate::error::SimError;
use crate::exec::{control, run_warp};
use crate::launch::{split_mix, WarpOrder};
use crate::program::Special;
use crate::state::{Lanes32, Status, Warp, FULL, LANES};

/// Instructions of one warp before another gets a turn; warps normally stop at barriers earlier.
const QUANTUM: u64 = 4096;

/// One thread's simulator state.
pub(crate) struct Worker<'r> {
    block: Block<'r>,
    warps: Vec<Warp>,
    random: u64,
}

impl<'r> Worker<'r> {
    pub(crate) fn new(context: &'r RunContext<'r>) -> Worker<'r> {
        let warps = context.threads().div_ceil(LANES as u32);
        let mut worker = Worker {
            block: Block::new(context),
            warps: (0..warps).map(|index| Warp::new(context.program, index)).collect(),
            random: 0,
        };
        worker.set_specials(|special| !depends_on_block(special));
        worker
    }

    pub(crate) fn into_tally(self) -> Tally {
        self.block.tally
    }

    /// Runs block number `index` to its end.
    pub(crate) fn run_block(&mut self, index: u32) -> Result<(), SimError> {
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
        self.rounds()
    }

    /// Rounds in which each ready warp gets a turn, until all have exited.
    fn rounds(&mut self) -> Result<(), SimError> {
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
                return Ok(());
            }
            if !ran && !completed {
                control::report_deadlock(&mut self.block, &self.warps);
                return Ok(());
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
