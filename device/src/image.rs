//! A compiled kernel with everything that a device or a report needs.

use crate::DeviceError;
use qtune_codegen::nvrtc::{parse_ptxas_log, Nvrtc};
use qtune_codegen::Kernel;
use qtune_ir::Arch;
use qtune_sim::cubin::Cubin;

/// What one thread block takes of an SM, read from the compiled image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes of registers spilled to local memory, per thread: stores and loads.
    pub spill_bytes: u32,
    /// Static shared memory per thread block, in bytes, without the system's reserve.
    pub static_shared_bytes: u32,
    /// Dynamic shared memory per thread block, in bytes.
    pub dynamic_shared_bytes: u32,
}

impl Resources {
    /// Static and dynamic shared memory together.
    pub fn shared_bytes(&self) -> u32 {
        self.static_shared_bytes + self.dynamic_shared_bytes
    }
}

/// A generated kernel compiled for one target.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelImage {
    /// The kernel and how to launch it.
    pub kernel: Kernel,
    /// Compile target, such as `sm_90a`.
    pub target: String,
    /// PTX text: what the simulator runs.
    pub ptx: String,
    /// ELF image: what a GPU runs.
    pub cubin: Vec<u8>,
    /// The compiler's log.
    pub log: String,
    /// Read from cubin and log.
    pub resources: Resources,
}

impl KernelImage {
    /// Compiles a kernel for `arch`.
    ///
    /// # Errors
    /// [`DeviceError::Compile`] with the compiler's log; [`DeviceError::Image`] as
    /// [`KernelImage::from_parts`].
    pub fn compile(nvrtc: &Nvrtc, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        Self::compile_with(nvrtc, kernel, arch, &[])
    }

    /// [`KernelImage::compile`] with line information in the PTX, so that a simulated launch counts
    /// by source line.
    ///
    /// # Errors
    /// As [`KernelImage::compile`].
    pub fn compile_with_lines(
        nvrtc: &Nvrtc,
        kernel: Kernel,
        arch: &Arch,
    ) -> Result<KernelImage, DeviceError> {
        Self::compile_with(nvrtc, kernel, arch, &["-lineinfo".to_owned()])
    }

    fn compile_with(
        nvrtc: &Nvrtc,
        kernel: Kernel,
        arch: &Arch,
        options: &[String],
    ) -> Result<KernelImage, DeviceError> {
        let name = format!("{}.cu", kernel.main().name);
        let target = arch.target();
        match nvrtc.compile(&kernel.source, &name, &target, options) {
            Ok(compiled) => {
                KernelImage::from_parts(kernel, &target, compiled.ptx, compiled.cubin, compiled.log)
            }
            Err(source) => Err(DeviceError::Compile { entry: kernel.main().name.clone(), source }),
        }
    }

    /// An image from parts that were compiled before, such as a cache's.
    ///
    /// # Errors
    /// [`DeviceError::Image`] if the cubin cannot be read or does not hold the kernel.
    pub fn from_parts(
        kernel: Kernel,
        target: &str,
        ptx: String,
        cubin: Vec<u8>,
        log: String,
    ) -> Result<KernelImage, DeviceError> {
        let resources = read_resources(&kernel, &cubin, &log)?;
        Ok(KernelImage { kernel, target: target.into(), ptx, cubin, log, resources })
    }
}

/// Registers and shared memory come from the cubin and are those of the entry that multiplies, or that
/// dequantizes for a library; spilled bytes are told by the log alone and are those of all entries.
fn read_resources(kernel: &Kernel, cubin: &[u8], log: &str) -> Result<Resources, DeviceError> {
    let main = kernel.coded();
    let fail = |reason: String| DeviceError::Image { entry: main.name.clone(), reason };
    let cubin = Cubin::parse(cubin).map_err(|e| fail(e.to_string()))?;
    let of = |name: &str| {
        let found = cubin.kernel(name).map(|found| &found.resources);
        found.ok_or_else(|| fail(format!("the cubin does not hold {name}")))
    };
    let usage = parse_ptxas_log(log);
    let mut spill_bytes = 0;
    for entry in kernel.functions() {
        of(&entry.name)?;
        let spilled = usage.iter().find(|u| u.kernel == entry.name);
        spill_bytes += spilled.map_or(0, |u| u.spill_store_bytes + u.spill_load_bytes);
    }
    let found = of(&main.name)?;
    Ok(Resources {
        registers: found.registers,
        spill_bytes,
        static_shared_bytes: found.static_shared_bytes,
        dynamic_shared_bytes: main.shared_bytes,
    })
}
