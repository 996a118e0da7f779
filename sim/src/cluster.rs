//! A cluster of thread blocks that run together: the state its blocks share, and the blocks that
//! are not running at the moment.
//!
//! One worker runs all blocks of a cluster in turns. The running block lives in [`Block`] itself;
//! the others are parked here, where their shared memory can be reached (PTX ISA 5.1.7.1).

use crate::block::{Block, RunContext};
use crate::check::{Clocks, Knowledge, LaneLog};
use crate::exec::cluster::ClusterBarrier;
use crate::exec::control::Barriers;
use crate::exec::in_flight::Queue;
use crate::exec::warpgroup::Warpgroups;
use crate::shared::SharedMemory;

/// A block while another one of its cluster runs.
struct Parked {
    index: u32,
    shared: SharedMemory,
    barriers: Barriers,
    warpgroups: Warpgroups,
    executed: u64,
}

/// What the blocks of a cluster share.
pub(crate) struct Cluster {
    /// By rank; the entry of the running block is an empty placeholder.
    parked: Vec<Parked>,
    /// Knowledge of all warps of the cluster.
    pub clocks: Clocks,
    /// What they know of other clusters.
    pub knowledge: Knowledge,
    /// What the lanes of each warp did in global memory.
    pub lane_logs: Vec<LaneLog>,
    pub barrier: ClusterBarrier,
    /// By rank: the block has a warp that did not exit.
    pub live: Vec<bool>,
    /// Asynchronous writes that have not landed.
    pub queue: Queue,
    /// Changes of mbarriers so far: without one, waiting again is in vain.
    pub events: u64,
}

impl Cluster {
    pub(crate) fn new(context: &RunContext<'_>) -> Cluster {
        let (blocks, warps) = (context.cluster_blocks(), context.warps());
        let parked = |rank: u32| Parked {
            index: 0,
            shared: match rank {
                0 => SharedMemory::new(0, 0, 0),
                _ => SharedMemory::new(context.shared_bytes() as usize, rank * warps, warps),
            },
            barriers: Barriers::default(),
            warpgroups: Warpgroups::default(),
            executed: 0,
        };
        Cluster {
            parked: (0..blocks).map(parked).collect(),
            clocks: Clocks::new(blocks, warps),
            knowledge: Knowledge::default(),
            lane_logs: (0..blocks * warps).map(|_| LaneLog::default()).collect(),
            barrier: ClusterBarrier::default(),
            live: vec![true; blocks as usize],
            queue: Queue::default(),
            events: 0,
        }
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u32 {
        self.parked.len() as u32
    }

    /// The lanes of `to`, out of `live` ones of a warp, learned what those of `from` did and know.
    pub(crate) fn lanes_met(&mut self, warp: u32, (from, to): (u32, u32), live: u32) {
        if from != 0 {
            self.clocks.lanes_met(warp, (from, to), live);
            self.knowledge.lanes_met(warp, (from, to), live);
            // Where only some lanes wait, none is held to account for what it did before.
            self.lane_logs[warp as usize].clear();
        }
    }
}

impl Block<'_> {
    /// Prepares for cluster number `number` of the grid, its first block in front.
    pub(crate) fn start_cluster(&mut self, number: u32) {
        let context = self.context;
        for rank in 0..context.cluster_blocks() {
            self.enter(rank);
            self.index = context.block_of_cluster(number, rank);
            self.shared.reset();
            self.barriers = Barriers::default();
            self.warpgroups.reset();
            self.executed = 0;
        }
        self.enter(0);
        self.cluster.clocks.reset();
        self.cluster.knowledge.reset(number);
        self.cluster.lane_logs.iter_mut().for_each(LaneLog::clear);
        self.cluster.barrier = ClusterBarrier::default();
        self.cluster.live.fill(true);
        self.cluster.queue.reset();
    }

    /// Makes the block of this rank the running one.
    pub(crate) fn enter(&mut self, rank: u32) {
        if rank != self.rank {
            self.swap(self.rank);
            self.swap(rank);
            self.rank = rank;
        }
    }

    fn swap(&mut self, rank: u32) {
        let parked = &mut self.cluster.parked[rank as usize];
        std::mem::swap(&mut self.index, &mut parked.index);
        std::mem::swap(&mut self.shared, &mut parked.shared);
        std::mem::swap(&mut self.barriers, &mut parked.barriers);
        std::mem::swap(&mut self.warpgroups, &mut parked.warpgroups);
        std::mem::swap(&mut self.executed, &mut parked.executed);
    }

    /// Shared memory of a block of the cluster, with the clocks of all warps.
    pub(crate) fn shared_of(&mut self, rank: u32) -> (&mut SharedMemory, &mut Clocks) {
        let shared = if rank == self.rank {
            &mut self.shared
        } else {
            &mut self.cluster.parked[rank as usize].shared
        };
        (shared, &mut self.cluster.clocks)
    }

    /// How a warp or asynchronous agent of the cluster is called in messages.
    pub(crate) fn agent_name(&self, agent: u32) -> String {
        let warps = self.cluster.clocks.warps_per_block();
        if agent >= self.cluster.clocks.warp_count() {
            "an asynchronous copy".to_owned()
        } else if self.cluster.blocks() == 1 {
            format!("warp {agent}")
        } else {
            format!("warp {} of rank {}", agent % warps, agent / warps)
        }
    }
}
