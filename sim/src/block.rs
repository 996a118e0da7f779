//! A thread block while it runs: shared memory, barriers, counters and reporting. The other blocks of
//! its cluster wait in [`Cluster`].

use crate::check::{Finding, FindingKind, FindingSink};
use crate::cluster::Cluster;
use crate::counters::{ClassCount, GlobalTraffic, PcCounters};
use crate::device_memory::DeviceMemory;
use crate::exec::control::Barriers;
#[cfg(target_arch = "x86_64")]
use crate::exec::machine::Avx2;
use crate::exec::warpgroup::Warpgroups;
use crate::exec::wgmma::Fetches;
use crate::launch::{AsyncSchedule, RunOptions};
use crate::program::Program;
use crate::request::Shapes;
use crate::residency::Polls;
use crate::shared::SharedMemory;

/// What all blocks of a run share.
pub(crate) struct RunContext<'m> {
    pub program: &'m Program,
    pub memory: DeviceMemory<'m>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Blocks of a cluster along each axis.
    pub cluster: [u32; 3],
    pub dynamic_shared_bytes: u32,
    pub parameters: Vec<u8>,
    pub options: &'m RunOptions,
    /// The fast machine, where there is one and the options allow it.
    #[cfg(target_arch = "x86_64")]
    pub avx2: Option<Avx2>,
}

impl RunContext<'_> {
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Warps of a block.
    pub(crate) fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    /// Blocks of a cluster.
    pub(crate) fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }

    /// Clusters of the grid along each axis.
    pub(crate) fn cluster_grid(&self) -> [u32; 3] {
        std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis])
    }

    /// Linear index in the grid of the block with this rank of a cluster (PTX ISA 10, `%ctaid`).
    pub(crate) fn block_of_cluster(&self, cluster: u32, rank: u32) -> u32 {
        let first = coordinates(cluster, self.cluster_grid());
        let inner = coordinates(rank, self.cluster);
        let [x, y, z]: [u32; 3] =
            std::array::from_fn(|axis| first[axis] * self.cluster[axis] + inner[axis]);
        x + self.grid[0] * (y + self.grid[1] * z)
    }

    pub(crate) fn shared_bytes(&self) -> u32 {
        self.program.dynamic_shared_offset + self.dynamic_shared_bytes
    }
}

/// Coordinates of a linear index, x fastest.
pub(crate) fn coordinates(linear: u32, extents: [u32; 3]) -> [u32; 3] {
    [linear % extents[0], linear / extents[0] % extents[1], linear / extents[0] / extents[1]]
}

/// Traffic to one buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BufferTraffic {
    pub loads: GlobalTraffic,
    pub stores: GlobalTraffic,
    pub atomics: GlobalTraffic,
}

impl BufferTraffic {
    pub(crate) fn add(&mut self, other: &BufferTraffic) {
        self.loads.add(other.loads);
        self.stores.add(other.stores);
        self.atomics.add(other.atomics);
    }
}

/// What one worker counted and found over all its blocks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By instruction, while blocks run: apart from the rest, which few instructions touch, so that
    /// it stays in the cache. [`Tally::merge`] puts it with the rest.
    pub executed: Vec<ClassCount>,
    pub per_pc: Vec<PcCounters>,
    pub per_buffer: Vec<BufferTraffic>,
    pub findings: FindingSink,
    pub blocks: u64,
}

impl Tally {
    pub(crate) fn new(context: &RunContext<'_>) -> Tally {
        Tally {
            executed: vec![ClassCount::default(); context.program.code.len()],
            per_pc: vec![PcCounters::default(); context.program.code.len()],
            per_buffer: vec![BufferTraffic::default(); context.memory.len()],
            findings: FindingSink::default(),
            blocks: 0,
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        for ((a, b), &executed) in self.per_pc.iter_mut().zip(&other.per_pc).zip(&other.executed) {
            a.add(b);
            a.executed.add(executed);
        }
        for (a, b) in self.per_buffer.iter_mut().zip(&other.per_buffer) {
            a.add(b);
        }
        self.findings.merge(other.findings);
        self.blocks += other.blocks;
    }
}

/// State of the block that a worker runs; the warps are beside it so that executors can borrow one
/// warp and the block at once.
pub(crate) struct Block<'r> {
    pub context: &'r RunContext<'r>,
    pub index: u32,
    /// Rank within the cluster.
    pub rank: u32,
    pub shared: SharedMemory,
    pub barriers: Barriers,
    pub warpgroups: Warpgroups,
    pub cluster: Cluster,
    pub tally: Tally,
    /// Warp instructions executed by this block.
    pub executed: u64,
    /// What requests to shared memory look like, kept from one to the next.
    pub shapes: Shapes,
    /// What matrix products read, kept from one to the next.
    pub fetches: Fetches,
    /// Reads that could be waiting for another thread block.
    pub polls: Polls,
    /// Where the running warp stands, for reports and counters.
    pub pc: usize,
    pub warp: u32,
    /// Number of the running warp within the cluster.
    pub agent: u32,
}

impl<'r> Block<'r> {
    pub(crate) fn new(context: &'r RunContext<'r>) -> Block<'r> {
        Block {
            context,
            index: 0,
            rank: 0,
            shared: SharedMemory::new(context.shared_bytes() as usize, 0, context.warps()),
            barriers: Barriers::default(),
            warpgroups: Warpgroups::default(),
            cluster: Cluster::new(context),
            tally: Tally::new(context),
            executed: 0,
            shapes: Shapes::new(context.program.code.len()),
            fetches: Fetches::default(),
            polls: Polls::default(),
            pc: 0,
            warp: 0,
            agent: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn checks(&self) -> bool {
        self.context.options.checks
    }

    #[inline(always)]
    pub(crate) fn eager(&self) -> bool {
        self.context.options.schedule == AsyncSchedule::Eager
    }

    /// The lanes of `mask`, out of the `live` ones of the running warp, wait for each other.
    pub(crate) fn synchronise_lanes(&mut self, warp: u32, mask: u32, live: u32) {
        self.shared.lanes.synchronise(warp, mask, live);
        self.cluster.lanes_met(self.agent, (mask, mask), live);
    }

    /// The lanes of `to` learn what those of `from` did, out of the `live` ones of the running warp.
    pub(crate) fn lanes_learn(&mut self, (from, to): (u32, u32), live: u32) {
        self.shared.lanes.learn(self.warp, (from, to), live);
        self.cluster.lanes_met(self.agent, (from, to), live);
    }

    /// Counters of the current instruction.
    #[inline(always)]
    pub(crate) fn counters(&mut self) -> &mut PcCounters {
        &mut self.tally.per_pc[self.pc]
    }

    /// Reports a defect at the current instruction.
    #[cold]
    pub(crate) fn report(&mut self, kind: FindingKind, place: Place<'_>, message: String) {
        let instruction = &self.context.program.code[self.pc];
        let (program, index, warp) = (self.context.program, self.index, self.warp);
        self.tally.findings.record(kind, instruction.line, index, || Finding {
            kind,
            kernel: program.name.clone(),
            ptx_line: instruction.line,
            source_line: instruction.source.map(|s| s.line),
            block: index,
            warp,
            lane: place.lane,
            address: place.address,
            buffer: place.buffer.map(str::to_owned),
            message,
            count: 1,
        });
    }
}

/// The part of a finding's place that not every finding has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'b> {
    pub lane: Option<u32>,
    pub address: Option<u64>,
    pub buffer: Option<&'b str>,
}

impl Place<'_> {
    pub(crate) fn lane(lane: usize) -> Place<'static> {
        Place { lane: Some(lane as u32), ..Place::default() }
    }

    pub(crate) fn at(lane: usize, address: u64) -> Place<'static> {
        Place { lane: Some(lane as u32), address: Some(address), buffer: None }
    }
}
