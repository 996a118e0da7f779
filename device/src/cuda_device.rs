//! A GPU as a [`Device`]: the types of [`crate::cuda`] behind the common interface.

use crate::cuda::{Argument, CudaError, Gpu, Kernel, Launch, Memory, TimingPlan};
use crate::{
    Access, ArgValue, Buffer, Device, DeviceError, Evidence, KernelImage, LaunchArgs,
    LaunchOutcome, LoadedKernel, Timing,
};
use qtune_ir::Arch;

/// A GPU of this machine.
#[derive(Debug)]
pub struct CudaDevice {
    gpu: Gpu,
    ordinal: usize,
    arch: Arch,
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
        let arch = Arch::from_driver(
            &a.name,
            a.capability,
            a.sm_count,
            a.clock_ghz,
            a.dram_gb_per_s,
            a.l2_bytes,
        );
        Ok(CudaDevice { gpu, ordinal, arch })
    }

    /// CUDA version of the driver, as (major, minor): cubins of a later major do not load.
    pub fn driver_version(&self) -> (u32, u32) {
        self.gpu.attributes().driver
    }

    fn memory<'b>(&self, buffer: &'b Buffer) -> Result<&'b Memory, DeviceError> {
        let memory = buffer.inner::<Memory>().filter(|memory| memory.gpu().same_as(&self.gpu));
        memory.ok_or_else(|| foreign(buffer))
    }

    fn prepare<'b>(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'b>,
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
        Ok(Launch {
            grid: launch.grid,
            block: [kernel.threads(), 1, 1],
            cluster: None,
            dynamic_shared_bytes: kernel.shared_bytes,
            dependent: false,
            arguments: launch.args.iter().map(argument).collect::<Result<_, DeviceError>>()?,
        })
    }

    fn kernel<'k>(&self, loaded: &'k LoadedKernel) -> Result<&'k Kernel, DeviceError> {
        let kernel = loaded.inner::<Kernel>().filter(|kernel| kernel.gpu().same_as(&self.gpu));
        kernel.ok_or_else(|| DeviceError::Launch {
            entry: loaded.image().kernel.entry.clone(),
            reason: "the kernel was loaded on another device".into(),
        })
    }
}

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
        let entry = &image.kernel.entry;
        let kernel = Kernel::load(&self.gpu, &image.cubin, entry, image.kernel.shared_bytes);
        let kernel = kernel.map_err(|error| match error {
            CudaError::BadLaunch { reason } => DeviceError::Image { entry: entry.clone(), reason },
            other => other.into(),
        })?;
        Ok(LoadedKernel::new(image.clone(), kernel))
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
            entry: kernel.image().kernel.entry.clone(),
            reason: error.to_string(),
        };
        let prepared = self.prepare(kernel, launch)?;
        self.kernel(kernel)?.launch(&prepared).map_err(fail)?;
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
        let prepared: Vec<Launch<'_>> =
            launches.iter().map(|l| self.prepare(kernel, l)).collect::<Result<_, _>>()?;
        let samples = self.gpu.time(self.kernel(kernel)?, &prepared, plan)?;
        Ok(Some(Timing {
            median_us: samples.median_us(),
            spread_us: samples.spread_us(),
            discarded: samples.discarded,
            samples_us: samples.us,
        }))
    }
}
