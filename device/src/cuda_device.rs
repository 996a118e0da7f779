//! A GPU as a [`Device`]: the types of [`crate::cuda`] behind the common interface.

use crate::cuda::{
    Argument, CudaError, Gpu, Kernel, Launch, Library, Memory, Multiplication, Samples, TimingPlan,
    Work,
};
use crate::product::{Operands, Place};
use crate::{
    Access, ArgValue, Buffer, Device, DeviceError, Evidence, Grid, KernelImage, LaunchArgs,
    LaunchOutcome, LoadedKernel, Timing,
};
use qtune_codegen::{Entry, SlabProduct};
use qtune_ir::Arch;

/// A GPU of this machine.
#[derive(Debug)]
pub struct CudaDevice {
    gpu: Gpu,
    ordinal: usize,
    arch: Arch,
    /// cuBLASLt, or why there is none.
    library: Result<Library, CudaError>,
}

impl CudaDevice {
    /// How many GPUs there are.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`] where there is no usable driver.
    pub fn count() -> Result<usize, DeviceError> {
        Ok(Gpu::count()?)
    }

    /// Opens GPU number `ordinal`. Its [`Arch`] is what the driver reports, not what a product of
    /// that name should have.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`] if there is no driver or no such GPU, [`DeviceError::Driver`] if
    /// it cannot be used.
    pub fn open(ordinal: usize) -> Result<CudaDevice, DeviceError> {
        let gpu = Gpu::open(ordinal)?;
        let a = gpu.attributes();
        let library = Library::open(&gpu);
        let arch = Arch::from_driver(
            &a.name,
            a.capability,
            a.sm_count,
            a.clock_ghz,
            a.dram_gb_per_s,
            a.l2_bytes,
        );
        let arch = Arch { library: library.is_ok(), ..arch };
        Ok(CudaDevice { gpu, ordinal, arch, library })
    }

    /// CUDA version of the driver, as (major, minor): cubins of a later major do not load.
    pub fn driver_version(&self) -> (u32, u32) {
        self.gpu.attributes().driver
    }

    /// The version of cuBLASLt, as (major, minor).
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`] with the reason where slabs cannot be multiplied by it.
    pub fn library_version(&self) -> Result<(usize, usize), CudaError> {
        let version = self.library.as_ref().map_err(CudaError::clone)?.version();
        Ok((version / 10_000, version / 100 % 100))
    }

    fn memory<'b>(&self, buffer: &'b Buffer) -> Result<&'b Memory, DeviceError> {
        let memory = buffer.inner::<Memory>().filter(|memory| memory.gpu().same_as(&self.gpu));
        memory.ok_or_else(|| foreign(buffer))
    }

    fn prepare<'b>(
        &self,
        kernel: &LoadedKernel,
        grid: &Grid<'b>,
    ) -> Result<Launch<'b>, DeviceError> {
        let argument = |value: &ArgValue<'b>| {
            Ok(match value {
                ArgValue::Buffer(buffer, offset) => Argument::Memory(self.memory(buffer)?, *offset),
                ArgValue::TensorMap(buffer, offset, spec) => {
                    let map = self.memory(buffer)?.tensor_map(*offset, spec);
                    Argument::TensorMap(map.map_err(|e| copy_error(buffer, e))?)
                }
                ArgValue::U32(value) => Argument::U32(*value),
            })
        };
        let kernel = &kernel.image().kernel;
        let entry = &kernel.entries[grid.entry];
        Ok(Launch {
            grid: grid.size,
            block: [entry.threads, 1, 1],
            cluster: None,
            dynamic_shared_bytes: entry.shared_bytes,
            dependent: kernel.is_dependent(grid.entry),
            arguments: grid.args.iter().map(argument).collect::<Result<_, DeviceError>>()?,
        })
    }

    /// A library's step of a launch.
    fn product<'b>(
        &'b self,
        entry: &Entry,
        product: &SlabProduct,
        grid: &Grid<'b>,
    ) -> Result<Work<'b>, DeviceError> {
        let library = self.library.as_ref().map_err(|reason| DeviceError::Launch {
            entry: entry.name.clone(),
            reason: reason.to_string(),
        })?;
        let operands = Operands::of(entry, product, grid)?;
        let place = |(buffer, offset): Place<'b>| -> Result<(&'b Memory, usize), DeviceError> {
            Ok((self.memory(buffer)?, offset))
        };
        let added = |found: Option<Place<'b>>| found.map(place).transpose();
        Ok(Work::Product(Multiplication {
            library,
            product: *product,
            rows: operands.rows.end - operands.rows.start,
            first: operands.rows.start,
            tokens: operands.tokens,
            slab: place(operands.slab)?,
            activations: place(operands.activations)?,
            bias: added(operands.bias)?,
            residual: added(operands.residual)?,
            output: place(operands.output)?,
        }))
    }

    /// The functions of a kernel, one for each entry that is no library's.
    fn functions<'k>(&self, loaded: &'k LoadedKernel) -> Result<&'k Functions, DeviceError> {
        let of_gpu = |f: &Kernel| f.gpu().same_as(&self.gpu);
        let own = |functions: &&Functions| functions.iter().flatten().all(of_gpu);
        let functions = loaded.inner::<Functions>().filter(own);
        functions.ok_or_else(|| DeviceError::Launch {
            entry: loaded.image().kernel.main().name.clone(),
            reason: "the kernel was loaded on another device".into(),
        })
    }

    /// The steps of a launch.
    fn steps<'b>(
        &'b self,
        loaded: &'b LoadedKernel,
        launch: &LaunchArgs<'b>,
    ) -> Result<Vec<Work<'b>>, DeviceError> {
        let functions = self.functions(loaded)?;
        let entries = &loaded.image().kernel.entries;
        let step = |grid: &Grid<'b>| {
            let entry = &entries[grid.entry];
            match (&functions[grid.entry], &entry.library) {
                (Some(function), _) => Ok(Work::Grid(function, self.prepare(loaded, grid)?)),
                (None, Some(product)) => self.product(entry, product, grid),
                (None, None) => Err(DeviceError::Launch {
                    entry: entry.name.clone(),
                    reason: "it was loaded without its function".into(),
                }),
            }
        };
        launch.grids.iter().map(step).collect()
    }
}

/// A function for each entry of a kernel; none for one that the library does.
type Functions = Vec<Option<Kernel>>;

fn foreign(buffer: &Buffer) -> DeviceError {
    DeviceError::Buffer {
        buffer: buffer.name().into(),
        reason: "it belongs to another device".into(),
    }
}

fn copy_error(buffer: &Buffer, error: CudaError) -> DeviceError {
    match error {
        CudaError::OutOfRange { .. } => {
            DeviceError::Buffer { buffer: buffer.name().into(), reason: error.to_string() }
        }
        other => other.into(),
    }
}

impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> DeviceError {
        match error {
            CudaError::Unavailable { reason } => DeviceError::NoDevice { reason },
            other => DeviceError::Driver(other.to_string()),
        }
    }
}

impl Device for CudaDevice {
    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn describe(&self) -> String {
        let (major, minor) = self.driver_version();
        format!("cuda:{} {}, driver for CUDA {major}.{minor}", self.ordinal, self.arch)
    }

    fn evidence(&self) -> Evidence {
        Evidence::Timed
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        let load = |entry: &Entry| {
            if entry.library.is_some() {
                return Ok(None);
            }
            let function = Kernel::load(&self.gpu, &image.cubin, &entry.name, entry.shared_bytes);
            function.map(Some).map_err(|error| match error {
                CudaError::BadLaunch { reason } => {
                    DeviceError::Image { entry: entry.name.clone(), reason }
                }
                other => other.into(),
            })
        };
        let functions = image.kernel.entries.iter().map(load);
        let functions = functions.collect::<Result<Functions, DeviceError>>()?;
        Ok(LoadedKernel::new(image.clone(), functions))
    }

    fn alloc(&self, name: &str, bytes: usize, _: Access) -> Result<Buffer, DeviceError> {
        let memory = Memory::alloc(&self.gpu, bytes).map_err(|error| DeviceError::Buffer {
            buffer: name.into(),
            reason: error.to_string(),
        })?;
        Ok(Buffer::new(name, bytes, memory))
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.memory(buffer)?.upload(offset, bytes).map_err(|e| copy_error(buffer, e))
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        self.memory(buffer)?.download(offset, len).map_err(|e| copy_error(buffer, e))
    }

    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let fail = |error: CudaError| DeviceError::Launch {
            entry: kernel.image().kernel.main().name.clone(),
            reason: error.to_string(),
        };
        for step in self.steps(kernel, launch)? {
            step.launch().map_err(fail)?;
        }
        self.gpu.synchronize().map_err(fail)?;
        let blocks = launch.block_count();
        Ok(LaunchOutcome { blocks_run: blocks, blocks_total: blocks, ..LaunchOutcome::default() })
    }

    fn time(
        &self,
        kernel: &LoadedKernel,
        launches: &[LaunchArgs<'_>],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let prepared: Vec<Vec<Work<'_>>> =
            launches.iter().map(|l| self.steps(kernel, l)).collect::<Result<_, _>>()?;
        Ok(Some(self.gpu.time(&prepared, plan)?.into()))
    }

    fn time_chain(
        &self,
        chain: &[(&LoadedKernel, LaunchArgs<'_>)],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let mut steps = Vec::new();
        for (kernel, launch) in chain {
            steps.extend(self.steps(kernel, launch)?);
        }
        Ok(Some(self.gpu.time(&[steps], plan)?.into()))
    }
}

impl From<Samples> for Timing {
    fn from(samples: Samples) -> Timing {
        Timing {
            median_us: samples.median_us(),
            spread_us: samples.spread_us(),
            discarded: samples.discarded,
            clock_mhz: samples.clock_mhz,
            power_mw: samples.power_mw,
            samples_us: samples.us,
        }
    }
}
