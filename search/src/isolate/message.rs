//! What a worker is asked and what it answers. Buffers and kernels go by number.

use qtune_codegen::TensorMapSpec;
use qtune_device::{
    AsyncSchedule, Blocks, DeviceError, Evidence, Grid, LaunchArgs, LaunchOutcome, Timing,
    TimingPlan, WarpOrder,
};
use qtune_ir::Arch;
use serde::{Deserialize, Serialize};

/// A number that the parent gave to a buffer or kernel of the worker.
pub(super) type Id = u64;

/// What a worker is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Compile the CUDA text in the bytes.
    Compile { name: String, target: String },
    /// Say what the device is.
    Describe,
    /// Load a kernel; the bytes are its PTX and, after `ptx_bytes`, its cubin.
    Load { id: Id, image: Image, ptx_bytes: usize },
    /// Allocate a buffer.
    Alloc { id: Id, name: String, bytes: usize, read_only: bool },
    /// Copy the bytes to a buffer.
    Upload { id: Id, offset: usize },
    /// Copy from a buffer.
    Download { id: Id, offset: usize, len: usize },
    /// Run a kernel.
    Launch { kernel: Id, launch: LaunchMessage },
    /// Time a kernel.
    Time { kernel: Id, launches: Vec<LaunchMessage>, plan: Plan },
    /// Time launches of several kernels as one.
    TimeChain { chain: Vec<(Id, LaunchMessage)>, plan: Plan },
    /// Drop a buffer or kernel.
    Free { id: Id },
}

/// What a kernel image is made from, besides its code.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Image {
    /// Problem key.
    pub problem: String,
    /// The schedule on one line.
    pub schedule: String,
    /// The CUDA text: the worker generates its own, and they must be the same.
    pub source: String,
    /// Compile target.
    pub target: String,
    /// The compiler's log.
    pub log: String,
}

/// A launch, its buffers by number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaunchMessage {
    grids: Vec<GridMessage>,
    eager: bool,
    reversed: bool,
}

/// One grid of a launch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GridMessage {
    /// Index of the kernel's entry.
    entry: usize,
    size: [u32; 3],
    /// A buffer with an offset, or a 32-bit integer.
    args: Vec<ArgMessage>,
    /// Linear indices of the thread blocks to run; all if absent.
    blocks: Option<Vec<u32>>,
}

/// One argument.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum ArgMessage {
    /// Number and offset of a buffer.
    Buffer(Id, usize),
    /// Number and offset of a buffer, and the view of it.
    TensorMap(Id, usize, TensorMapSpec),
    /// An integer.
    U32(u32),
}

impl GridMessage {
    /// The message for a grid whose arguments have been put in numbers.
    pub fn new(grid: &Grid<'_>, args: Vec<ArgMessage>) -> GridMessage {
        GridMessage {
            entry: grid.entry,
            size: grid.size,
            args,
            blocks: match &grid.blocks {
                Blocks::All => None,
                Blocks::List(list) => Some(list.clone()),
            },
        }
    }

    /// The arguments.
    pub fn args(&self) -> &[ArgMessage] {
        &self.args
    }

    /// The grid, once its arguments are found.
    pub fn with_args<'a>(&self, args: Vec<qtune_device::ArgValue<'a>>) -> Grid<'a> {
        let blocks = self.blocks.clone().map_or(Blocks::All, Blocks::List);
        Grid { entry: self.entry, size: self.size, args, blocks }
    }
}

impl LaunchMessage {
    /// The message for a launch of these grids.
    pub fn new(launch: &LaunchArgs<'_>, grids: Vec<GridMessage>) -> LaunchMessage {
        LaunchMessage {
            grids,
            eager: launch.schedule == AsyncSchedule::Eager,
            reversed: launch.order == WarpOrder::Reversed,
        }
    }

    /// The grids.
    pub fn grids(&self) -> &[GridMessage] {
        &self.grids
    }

    /// The launch of these grids.
    pub fn with_grids<'a>(&self, grids: Vec<Grid<'a>>) -> LaunchArgs<'a> {
        LaunchArgs {
            grids,
            schedule: if self.eager { AsyncSchedule::Eager } else { AsyncSchedule::Lazy },
            order: if self.reversed { WarpOrder::Reversed } else { WarpOrder::Forward },
        }
    }
}

/// [`TimingPlan`] on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    launches_per_sample: u32,
    samples: u32,
    warmup: u32,
}

impl From<&TimingPlan> for Plan {
    fn from(plan: &TimingPlan) -> Plan {
        let TimingPlan { launches_per_sample, samples, warmup } = *plan;
        Plan { launches_per_sample, samples, warmup }
    }
}

impl From<Plan> for TimingPlan {
    fn from(plan: Plan) -> TimingPlan {
        let Plan { launches_per_sample, samples, warmup } = plan;
        TimingPlan { launches_per_sample, samples, warmup }
    }
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Compiled; the bytes are the cubin.
    Compiled { ptx: String, log: String },
    /// What the device is.
    Device { arch: Box<Arch>, description: String, evidence: Evidence },
    /// Done, with the bytes that were asked for.
    Done,
    /// A launch ended.
    Launched { findings: Vec<String>, blocks_run: u64, blocks_total: u64 },
    /// Times.
    Timed(Option<Timing>),
    /// It was refused or failed.
    Failed(Failure),
}

impl From<LaunchOutcome> for Reply {
    /// Counters stay behind: they are the simulator's, which the parent runs itself.
    fn from(outcome: LaunchOutcome) -> Reply {
        let LaunchOutcome { findings, blocks_run, blocks_total, .. } = outcome;
        Reply::Launched { findings, blocks_run, blocks_total }
    }
}

/// A failure, in the classes that the parent tells apart.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The compiler's log for a source that does not compile.
    Source { name: String, target: String, log: String },
    /// Any other.
    Other(String),
}

impl Failure {
    /// The failure as this crate's callers know it.
    pub fn into_error(self, entry: &str) -> DeviceError {
        use qtune_codegen::nvrtc::NvrtcError;
        let entry = entry.to_owned();
        match self {
            Failure::Source { name, target, log } => {
                let source = NvrtcError::Compile { name, arch: target, log };
                DeviceError::Compile { entry, source }
            }
            Failure::Other(reason) => DeviceError::Launch { entry, reason },
        }
    }
}
