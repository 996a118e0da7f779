//! The vocabulary of a launch: buffers, arguments, options, and what comes back.

use crate::KernelImage;
use qtune_codegen::{Argument, Kernel, Step, TensorMapSpec, LINE_BYTES};
use qtune_sim::{Counters, LineCounters};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// How good a device's word on time is. Printed with every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Ranked by the cost model; nothing was timed.
    Modelled,
    /// Timed on the GPU.
    Timed,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Modelled => "modelled",
            Evidence::Timed => "timed",
        })
    }
}

/// What a kernel may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A write by a kernel is a finding.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Device memory. Freed when dropped. Belongs to the device that made it.
pub struct Buffer {
    name: String,
    bytes: usize,
    inner: Box<dyn Any + Send + Sync>,
}

impl Buffer {
    /// For implementations of [`crate::Device`]: `inner` is the device's own representation.
    pub fn new(name: &str, bytes: usize, inner: impl Any + Send + Sync) -> Buffer {
        Buffer { name: name.into(), bytes, inner: Box::new(inner) }
    }

    /// The name used in findings and counters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device's own representation, if the buffer is one of that device's.
    pub fn inner<T: 'static>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.name, self.bytes)
    }
}

/// A kernel that a device is ready to launch.
pub struct LoadedKernel {
    image: Arc<KernelImage>,
    inner: Box<dyn Any + Send + Sync>,
}

impl LoadedKernel {
    /// For implementations of [`crate::Device`]: `inner` is the device's own representation.
    pub fn new(image: KernelImage, inner: impl Any + Send + Sync) -> LoadedKernel {
        LoadedKernel { image: Arc::new(image), inner: Box::new(inner) }
    }

    /// What was loaded.
    pub fn image(&self) -> &KernelImage {
        &self.image
    }

    /// The device's own representation, if the kernel is one of that device's.
    pub fn inner<T: 'static>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }
}

impl fmt::Debug for LoadedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadedKernel({})", self.image.kernel.main().name)
    }
}

/// One kernel argument.
#[derive(Clone, Copy, Debug)]
pub enum ArgValue<'a> {
    /// The address of byte `offset` of a buffer.
    Buffer(&'a Buffer, usize),
    /// A view of the matrix at byte `offset` of a buffer, for the hardware's tensor copies.
    TensorMap(&'a Buffer, usize, TensorMapSpec),
    /// A 32-bit integer.
    U32(u32),
}

/// A matrix of activations, of which a kernel takes a tensor map.
fn map<'a>(kernel: &Kernel, tokens: u32, (buffer, offset): (&'a Buffer, usize)) -> ArgValue<'a> {
    match kernel.activation_map(tokens) {
        Some(map) => ArgValue::TensorMap(buffer, offset, map),
        None => ArgValue::Buffer(buffer, offset),
    }
}

/// Which thread blocks of the grid the simulator runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Blocks {
    /// The whole grid.
    #[default]
    All,
    /// These linear block indices (x fastest).
    List(Vec<u32>),
}

/// When the simulator lets asynchronous copies land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AsyncSchedule {
    /// As late as the waits allow: shows missing waits.
    #[default]
    Lazy,
    /// At once: shows a stage that is refilled while it is still read.
    Eager,
}

/// The order in which the simulator lets the warps of a block run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarpOrder {
    /// Warp 0 first.
    #[default]
    Forward,
    /// The last warp first.
    Reversed,
}

/// One grid of a launch: the block shape and shared memory come from the entry of the kernel.
#[derive(Clone, Debug)]
pub struct Grid<'a> {
    /// Index into [`Kernel::entries`].
    pub entry: usize,
    /// Thread blocks in x, y and z.
    pub size: [u32; 3],
    /// Arguments in the order of the entry's.
    pub args: Vec<ArgValue<'a>>,
    /// Thread blocks to run, for the simulator; a GPU runs all.
    pub blocks: Blocks,
}

impl Grid<'_> {
    /// Thread blocks in the grid.
    pub fn block_count(&self) -> u64 {
        self.size.iter().map(|&g| u64::from(g)).product()
    }
}

/// A launch: grids that run one after the other, each seeing what those before it wrote.
///
/// `schedule` and `order` are for the simulator; a GPU has its own order.
#[derive(Clone, Debug)]
pub struct LaunchArgs<'a> {
    /// The grids, in order.
    pub grids: Vec<Grid<'a>>,
    /// When asynchronous copies land.
    pub schedule: AsyncSchedule,
    /// Order of warps.
    pub order: WarpOrder,
}

impl<'a> LaunchArgs<'a> {
    /// A launch of all steps of `kernel` with `tokens` tokens. `operand` gives the buffers; counts are
    /// known here, and tensor maps are made here of [`Argument::Activations`] and
    /// [`Argument::Prepared`]. Nothing is asked for ahead: see [`LaunchArgs::with_next`].
    pub fn new(
        kernel: &Kernel,
        tokens: u32,
        operand: impl Fn(Argument) -> (&'a Buffer, usize),
    ) -> LaunchArgs<'a> {
        let grid = |step: Step| {
            let argument = |argument: &Argument| match argument {
                Argument::Tokens => ArgValue::U32(tokens),
                Argument::FirstTile => ArgValue::U32(step.first_tile),
                Argument::NextLines => ArgValue::U32(0),
                Argument::Next => {
                    let (buffer, offset) = operand(Argument::Weights);
                    ArgValue::Buffer(buffer, offset)
                }
                Argument::ActivationMap => map(kernel, tokens, operand(Argument::Activations)),
                Argument::PreparedMap => map(kernel, tokens, operand(Argument::Prepared)),
                other => {
                    let (buffer, offset) = operand(*other);
                    ArgValue::Buffer(buffer, offset)
                }
            };
            let args = kernel.entries[step.entry].arguments.iter().map(argument).collect();
            Grid { entry: step.entry, size: step.grid, args, blocks: Blocks::All }
        };
        LaunchArgs {
            grids: kernel.steps(tokens).into_iter().map(grid).collect(),
            schedule: AsyncSchedule::default(),
            order: WarpOrder::default(),
        }
    }

    /// The same launch of `kernel` that also has L2 fetch the first `bytes` of a buffer, where its
    /// schedule does so.
    pub fn with_next(mut self, kernel: &Kernel, next: &'a Buffer, bytes: u32) -> LaunchArgs<'a> {
        for grid in &mut self.grids {
            let arguments = &kernel.entries[grid.entry].arguments;
            for (value, argument) in grid.args.iter_mut().zip(arguments) {
                match argument {
                    Argument::Next => *value = ArgValue::Buffer(next, 0),
                    Argument::NextLines => *value = ArgValue::U32(bytes / LINE_BYTES),
                    _ => {}
                }
            }
        }
        self
    }

    /// The same launch of some thread blocks: one entry for each grid, grids beyond run whole.
    pub fn with_blocks(mut self, blocks: &[Blocks]) -> LaunchArgs<'a> {
        for (grid, blocks) in self.grids.iter_mut().zip(blocks) {
            grid.blocks = blocks.clone();
        }
        self
    }

    /// Thread blocks of all grids.
    pub fn block_count(&self) -> u64 {
        self.grids.iter().map(Grid::block_count).sum()
    }
}

/// What a launch gave besides the contents of its buffers.
#[derive(Clone, Debug, Default)]
pub struct LaunchOutcome {
    /// Defects that the simulator saw, one line each. A kernel with findings is wrong.
    pub findings: Vec<String>,
    /// What the simulator counted; a GPU counts nothing.
    pub counters: Option<Counters>,
    /// The same by source line, where the PTX has line information.
    pub lines: Vec<LineCounters>,
    /// Thread blocks that ran.
    pub blocks_run: u64,
    /// Thread blocks in the grid.
    pub blocks_total: u64,
}

impl LaunchOutcome {
    /// Adds what the next grid of the launch gave.
    pub(crate) fn add(&mut self, next: LaunchOutcome) {
        for finding in next.findings {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        self.counters = match (self.counters.take(), next.counters) {
            (Some(mut before), Some(counters)) => {
                before.add(&counters);
                Some(before)
            }
            (before, counters) => before.or(counters),
        };
        for line in next.lines {
            let same = |own: &&mut LineCounters| (&own.file, own.line) == (&line.file, line.line);
            match self.lines.iter_mut().find(same) {
                Some(own) => own.add(&line),
                None => self.lines.push(line),
            }
        }
        self.blocks_run += next.blocks_run;
        self.blocks_total += next.blocks_total;
    }
}

/// Time of one launch, as a GPU measured it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Timing {
    /// Median over the samples, in microseconds.
    pub median_us: f64,
    /// The samples kept, in microseconds of one launch, in the order they were taken.
    pub samples_us: Vec<f64>,
    /// Distance between the quartiles, in microseconds.
    pub spread_us: f64,
    /// Samples thrown away because the clock changed or another process used the GPU.
    pub discarded: u32,
    /// The usual SM clock around the samples, in MHz, if it can be read.
    pub clock_mhz: Option<u32>,
    /// The usual power around the samples, in milliwatts, if it can be read.
    pub power_mw: Option<u32>,
}
