//! The simulated GPU: executes the PTX of a kernel on the CPU, checks it and counts.

mod product;

use crate::product::Operands;
use crate::{
    Access, ArgValue, AsyncSchedule, Blocks, Buffer, Device, DeviceError, Evidence, Grid,
    KernelImage, LaunchArgs, LaunchOutcome, LoadedKernel, Timing, TimingPlan, WarpOrder,
};
use product::Matrices;
use qtune_codegen::TensorMapSpec;
use qtune_ir::{Arch, DType};
use qtune_sim::{Arg, BufferId, Launch, Limits, Memory, Module, RunOptions, SimError, TensorType};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Warp instructions of one thread block after which a kernel counts as endless. The largest tiles
/// of real models take a few million.
const INSTRUCTION_LIMIT: u64 = 1 << 27;

/// A simulated GPU. Launches of one device take turns; each uses all CPU cores, unless it comes
/// from a rayon task, whose siblings use them already.
#[derive(Debug)]
pub struct SimDevice {
    arch: Arch,
    limits: Limits,
    memory: Arc<Mutex<Pool>>,
}

/// Device memory, and how many buffers are in use: buffer numbers are never reused, so the memory
/// starts anew whenever it is empty.
#[derive(Debug, Default)]
struct Pool {
    memory: Memory,
    live: usize,
}

/// A buffer of a [`Pool`], freed when dropped.
#[derive(Debug)]
struct SimBuffer {
    memory: Arc<Mutex<Pool>>,
    id: BufferId,
}

/// The pool stays usable after a panic elsewhere: every operation on it leaves it consistent.
fn lock(memory: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        let mut pool = lock(&self.memory);
        pool.memory.free(self.id);
        pool.live -= 1;
        if pool.live == 0 {
            pool.memory = Memory::new();
        }
    }
}

impl SimDevice {
    /// A simulated `arch`.
    pub fn new(arch: &Arch) -> SimDevice {
        let (major, minor) = arch.capability;
        let limits = Limits {
            name: arch.target(),
            shared_per_block: arch.sm.shared_per_block,
            sm_count: arch.sm_count,
            ..Limits::for_sm(u32::from(major) * 10 + u32::from(minor))
        };
        SimDevice { arch: arch.clone(), limits, memory: Arc::default() }
    }

    fn id(&self, buffer: &Buffer) -> Result<BufferId, DeviceError> {
        match buffer.inner::<SimBuffer>() {
            Some(inner) if Arc::ptr_eq(&inner.memory, &self.memory) => Ok(inner.id),
            _ => Err(DeviceError::Buffer {
                buffer: buffer.name().into(),
                reason: "it belongs to another device".into(),
            }),
        }
    }

    fn argument(&self, value: &ArgValue<'_>) -> Result<Arg, DeviceError> {
        Ok(match value {
            ArgValue::Buffer(buffer, offset) => {
                Arg::Buffer { id: self.id(buffer)?, offset: *offset as u64 }
            }
            ArgValue::TensorMap(buffer, offset, spec) => {
                Arg::TensorMap(tensor_map(self.id(buffer)?, *offset, spec))
            }
            ArgValue::U32(value) => Arg::U32(*value),
        })
    }

    fn options(&self, launch: &LaunchArgs<'_>, grid: &Grid<'_>) -> RunOptions {
        RunOptions {
            schedule: match launch.schedule {
                AsyncSchedule::Lazy => qtune_sim::AsyncSchedule::Lazy,
                AsyncSchedule::Eager => qtune_sim::AsyncSchedule::Eager,
            },
            warp_order: match launch.order {
                WarpOrder::Forward => qtune_sim::WarpOrder::Forward,
                WarpOrder::Reversed => qtune_sim::WarpOrder::Reversed,
            },
            blocks: match &grid.blocks {
                Blocks::All => qtune_sim::Blocks::All,
                Blocks::List(blocks) => qtune_sim::Blocks::List(blocks.clone()),
            },
            instruction_limit: INSTRUCTION_LIMIT,
            limits: self.limits.clone(),
            ..RunOptions::default()
        }
    }
}

/// What the driver is asked for on a GPU, in the simulator's words.
fn tensor_map(buffer: BufferId, offset: usize, spec: &TensorMapSpec) -> qtune_sim::TensorMapSpec {
    qtune_sim::TensorMapSpec {
        buffer,
        offset: offset as u64,
        dtype: match spec.element {
            DType::F16 => TensorType::F16,
            DType::Bf16 => TensorType::Bf16,
            DType::F32 => TensorType::F32,
        },
        dims: vec![spec.columns.into(), spec.rows.into()],
        strides_bytes: vec![u64::from(spec.columns) * u64::from(spec.element.bytes())],
        box_dims: vec![spec.box_columns, spec.box_rows],
        element_strides: vec![1, 1],
        swizzle: qtune_sim::Swizzle::B128,
        fill: qtune_sim::OutOfBoundsFill::Zero,
    }
}

fn memory_error(buffer: &str, error: &SimError) -> DeviceError {
    DeviceError::Buffer { buffer: buffer.into(), reason: error.to_string() }
}

/// Threads for launches that come from outside of rayon. They are the simulator's own: a thread of
/// the global pool might run another task that waits for the very memory that a launch holds.
fn threads() -> Option<&'static rayon::ThreadPool> {
    static THREADS: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    THREADS.get_or_init(|| rayon::ThreadPoolBuilder::new().build().ok()).as_ref()
}

/// Does `work` on the simulator's own threads; where the caller is a rayon task on the caller's alone, of which
/// `work` is told.
fn on_threads<T: Send>(work: impl FnOnce(bool) -> T + Send) -> T {
    let own = if rayon::current_thread_index().is_none() { threads() } else { None };
    match own {
        Some(pool) => pool.install(|| work(false)),
        None => work(true),
    }
}

/// Runs a launch of a function.
fn run(
    module: &Module,
    entry: &str,
    launch: &Launch,
    memory: &mut Memory,
    options: RunOptions,
) -> Result<qtune_sim::Report, SimError> {
    on_threads(|alone| {
        let threads = if alone { 1 } else { options.threads };
        let options = RunOptions { threads, ..options };
        qtune_sim::run(module, entry, launch, memory, &options)
    })
}

impl SimDevice {
    fn launch_grid(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
        grid: &Grid<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let entry = &kernel.image().kernel.entries[grid.entry];
        let fail = |reason: String| DeviceError::Launch { entry: entry.name.clone(), reason };
        if let Some(library) = &entry.library {
            let operands = Operands::of(entry, library, grid)?;
            let product = Matrices::new(library, operands, |(buffer, _)| self.id(buffer))?;
            let mut pool = lock(&self.memory);
            let memory = &mut pool.memory;
            let outcome = on_threads(|alone| product.run(grid, memory, alone));
            return outcome.map_err(|error| fail(error.to_string()));
        }
        let module = kernel
            .inner::<Module>()
            .ok_or_else(|| fail("the kernel was loaded on another device".into()))?;
        let shape = Launch {
            grid: grid.size,
            block: [entry.threads, 1, 1],
            cluster: [1, 1, 1],
            dynamic_shared_bytes: entry.shared_bytes,
            args: grid.args.iter().map(|a| self.argument(a)).collect::<Result<_, _>>()?,
        };
        let mut pool = lock(&self.memory);
        let options = self.options(launch, grid);
        let result = run(module, &entry.name, &shape, &mut pool.memory, options);
        drop(pool);
        match result {
            Ok(report) => Ok(LaunchOutcome {
                findings: report.findings.iter().map(ToString::to_string).collect(),
                counters: Some(report.counters),
                lines: report.lines,
                blocks_run: report.blocks_run,
                blocks_total: report.blocks_total,
            }),
            // A kernel that does not end is the kernel's defect, like any other finding.
            Err(endless @ SimError::InstructionLimit { .. }) => Ok(LaunchOutcome {
                findings: vec![endless.to_string()],
                blocks_total: grid.block_count(),
                ..LaunchOutcome::default()
            }),
            Err(error) => Err(fail(error.to_string())),
        }
    }
}

impl Device for SimDevice {
    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn describe(&self) -> String {
        format!("simulated {}", self.arch)
    }

    fn evidence(&self) -> Evidence {
        Evidence::Modelled
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        let entry = &image.kernel.main().name;
        let fail = |reason: String| DeviceError::Image { entry: entry.clone(), reason };
        let target = self.arch.target();
        if image.target != target {
            return Err(fail(format!("it is compiled for {}, not {target}", image.target)));
        }
        let module = Module::parse(&image.ptx).map_err(|e| fail(e.to_string()))?;
        Ok(LoadedKernel::new(image.clone(), module))
    }

    fn alloc(&self, name: &str, bytes: usize, access: Access) -> Result<Buffer, DeviceError> {
        let access = match access {
            Access::ReadOnly => qtune_sim::Access::ReadOnly,
            Access::ReadWrite => qtune_sim::Access::ReadWrite,
        };
        let mut pool = lock(&self.memory);
        let id = pool.memory.alloc(name, bytes, access).map_err(|e| memory_error(name, &e))?;
        pool.live += 1;
        drop(pool);
        Ok(Buffer::new(name, bytes, SimBuffer { memory: Arc::clone(&self.memory), id }))
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let id = self.id(buffer)?;
        let mut pool = lock(&self.memory);
        pool.memory.write(id, offset, bytes).map_err(|e| memory_error(buffer.name(), &e))
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        let id = self.id(buffer)?;
        let pool = lock(&self.memory);
        pool.memory.read(id, offset, len).map_err(|e| memory_error(buffer.name(), &e))
    }

    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let mut outcome = LaunchOutcome::default();
        for grid in &launch.grids {
            outcome.add(self.launch_grid(kernel, launch, grid)?);
        }
        Ok(outcome)
    }

    fn time(
        &self,
        _: &LoadedKernel,
        _: &[LaunchArgs<'_>],
        _: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> SimDevice {
        SimDevice::new(&Arch::named("h200").unwrap())
    }

    #[test]
    fn bytes_come_back_and_ranges_outside_are_refused() {
        let device = device();
        let buffer = device.alloc("x", 100, Access::ReadWrite).unwrap();
        device.upload(&buffer, 10, &[1, 2, 3]).unwrap();
        assert_eq!(device.download(&buffer, 11, 2).unwrap(), [2, 3]);
        let error = device.upload(&buffer, 99, &[0; 2]).unwrap_err().to_string();
        assert!(error.contains("`x`"), "{error}");
    }

    #[test]
    fn buffers_of_another_device_are_refused() {
        let (a, b) = (device(), device());
        let buffer = a.alloc("x", 4, Access::ReadOnly).unwrap();
        let error = b.download(&buffer, 0, 4).unwrap_err().to_string();
        assert!(error.contains("another device"), "{error}");
    }

    #[test]
    fn buffer_numbers_do_not_run_out() {
        let device = device();
        for _ in 0..100_000 {
            device.alloc("x", 4, Access::ReadOnly).unwrap();
        }
    }
}
