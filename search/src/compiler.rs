//! What turns a generated kernel into an image.

use qtune_codegen::nvrtc::Nvrtc;
use qtune_codegen::Kernel;
use qtune_device::{DeviceError, KernelImage};
use qtune_ir::Arch;
use std::time::Duration;

/// NVRTC, or what stands in for it. Compiles run in parallel.
pub trait Compiler: Sync {
    /// Compiles a kernel for `arch`.
    ///
    /// # Errors
    /// As [`KernelImage::compile`].
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError>;

    /// A text that differs whenever the compiler does.
    fn fingerprint(&self) -> String;

    /// The time after which a compile is given up; `None` where it may take as long as it likes.
    fn limit(&self) -> Option<Duration> {
        None
    }
}

impl Compiler for Nvrtc {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        KernelImage::compile(self, kernel, arch)
    }

    fn fingerprint(&self) -> String {
        Nvrtc::fingerprint(self).to_owned()
    }
}
