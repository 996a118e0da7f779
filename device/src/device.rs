//! The one interface to GPU and simulator.

use crate::{
    Access, Buffer, DeviceError, Evidence, KernelImage, LaunchArgs, LaunchOutcome, LoadedKernel,
    Timing, TimingPlan,
};
use qtune_ir::Arch;

/// A GPU, or what stands in for one.
///
/// Buffers and kernels may only be used with the device that made them; another device's are
/// refused with an error. Every method may be called from several threads at once, but two
/// launches that share a writable buffer must not overlap.
pub trait Device: Send + Sync {
    /// What the device can execute and how fast.
    fn arch(&self) -> &Arch;

    /// One line for people: what this device is.
    fn describe(&self) -> String;

    /// Whether times from this device are measured.
    fn evidence(&self) -> Evidence;

    /// Makes a kernel ready to launch.
    ///
    /// # Errors
    /// [`DeviceError::Image`] if the image is not for this device or cannot be decoded.
    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError>;

    /// Allocates `bytes` of uninitialised memory. `name` appears in findings and counters.
    ///
    /// # Errors
    /// [`DeviceError::Buffer`] or [`DeviceError::Driver`] if there is not enough memory.
    fn alloc(&self, name: &str, bytes: usize, access: Access) -> Result<Buffer, DeviceError>;

    /// Copies `bytes` to `offset` of a buffer.
    ///
    /// # Errors
    /// [`DeviceError::Buffer`] if the range does not lie in the buffer.
    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies `len` bytes from `offset` of a buffer, after every earlier launch has finished.
    ///
    /// # Errors
    /// [`DeviceError::Buffer`] if the range does not lie in the buffer.
    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError>;

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] if the launch is refused or fails. A defect that the simulator
    /// finds is not an error but a finding of the outcome.
    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError>;

    /// Times a kernel. The launches are taken in turn, so that several copies of the weights keep
    /// the L2 cache cold. `None` where nothing can be measured.
    ///
    /// # Errors
    /// As [`Device::launch`].
    fn time(
        &self,
        kernel: &LoadedKernel,
        launches: &[LaunchArgs<'_>],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError>;

    /// Times a chain of launches, each of a kernel of its own, one after the other: the time is that of
    /// the whole chain. `None` where nothing can be measured.
    ///
    /// # Errors
    /// As [`Device::launch`].
    fn time_chain(
        &self,
        chain: &[(&LoadedKernel, LaunchArgs<'_>)],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let _ = (chain, plan);
        Ok(None)
    }
}
