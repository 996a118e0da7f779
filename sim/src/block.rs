//! A thread block while it runs: shared memory, barriers, counters and reporting.

use crate::check::{Finding, FindingKind, FindingSink};
use crate::counters::{GlobalTraffic, PcCounters};
use crate::device_memory::DeviceMemory;
use crate::exec::control::Barriers;
#[cfg(target_arch = "x86_64")]
use crate::exec::machine::Avx2;
use crate::launch::{AsyncSchedule, RunOptions};
use crate::program::Program;
use crate::shared::SharedMemory;

/// What all blocks of a run share.
pub(crate) struct RunContext<'m> {
    pub program: &'m Program,
    pub memory: DeviceMemory<'m>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
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

    pub(crate) fn shared_bytes(&self) -> u32 {
        self.program.dynamic_shared_offset + self.dynamic_shared_bytes
    }
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
    pub per_pc: Vec<PcCounters>,
    pub per_buffer: Vec<BufferTraffic>,
    pub findings: FindingSink,
    pub blocks: u64,
}

impl Tally {
    pub(crate) fn new(context: &RunContext<'_>) -> Tally {
        Tally {
            per_pc: vec![PcCounters::default(); context.program.code.len()],
            per_buffer: vec![BufferTraffic::default(); context.memory.len()],
            findings: FindingSink::default(),
            blocks: 0,
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        for (a, b) in self.per_pc.iter_mut().zip(&other.per_pc) {
            a.add(b);
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
    pub shared: SharedMemory,
    pub barriers: Barriers,
    pub tally: Tally,
    /// Warp instructions executed by this block.
    pub executed: u64,
    /// Loads and atomics since the last turn that could be waiting for another thread block.
    pub polls: u64,
    /// Where the running warp stands, for reports and counters.
    pub pc: usize,
    pub warp: u32,
}

impl<'r> Block<'r> {
    pub(crate) fn new(context: &'r RunContext<'r>) -> Block<'r> {
        Block {
            context,
            index: 0,
            shared: SharedMemory::new(
                context.shared_bytes() as usize,
                context.threads().div_ceil(32) as usize,
            ),
            barriers: Barriers::default(),
            tally: Tally::new(context),
            executed: 0,
            polls: 0,
            pc: 0,
            warp: 0,
        }
    }

    /// Prepares for block number `index` of the grid.
    pub(crate) fn reset(&mut self, index: u32) {
        self.index = index;
        self.shared.reset();
        self.barriers = Barriers::default();
        self.executed = 0;
    }

    #[inline(always)]
    pub(crate) fn checks(&self) -> bool {
        self.context.options.checks
    }

    #[inline(always)]
    pub(crate) fn eager(&self) -> bool {
        self.context.options.schedule == AsyncSchedule::Eager
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
