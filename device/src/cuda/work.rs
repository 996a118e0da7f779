//! What a launch puts on a stream, step by step.

use super::driver::CudaError;
use super::kernel::Kernel;
use super::launch::Launch;
use super::library::Multiplication;
use cudarc::driver::sys;

/// One step of a launch.
pub enum Work<'a> {
    /// A grid of a function of a cubin.
    Grid(&'a Kernel, Launch<'a>),
    /// A multiplication by the library.
    Product(Multiplication<'a>),
}

impl Work<'_> {
    /// Puts it on its GPU's stream, without waiting for the end.
    ///
    /// # Errors
    /// As [`Kernel::launch`]; [`CudaError::Library`] if the library refuses.
    pub fn launch(&self) -> Result<(), CudaError> {
        match self {
            Work::Grid(kernel, launch) => kernel.launch(launch),
            Work::Product(product) => {
                let gpu = product.library.gpu();
                gpu.make_current()?;
                product.launch_on(gpu.stream())
            }
        }
    }

    /// As [`Work::launch`] on a stream of the current context.
    pub(super) fn launch_on(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        match self {
            Work::Grid(kernel, launch) => kernel.launch_on(stream, launch),
            Work::Product(product) => product.launch_on(stream),
        }
    }
}
