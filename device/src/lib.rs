//! Where kernels run: a GPU through the CUDA driver, or the simulator.
//!
//! - [`Device`] is the one interface: load, allocate, copy, launch, time.
//! - [`SimDevice`] executes the PTX on the CPU. It checks every access, counts, and never times.
//! - [`CudaDevice`] launches the cubin. The driver is loaded at run time: everything builds and
//!   runs without one.
//! - [`KernelImage`] is what both load: a generated kernel with its PTX, cubin and [`Resources`].
//! - [`open`] turns a [`DeviceChoice`] into a device.
//!
//! ```
//! use qtune_device::{open, DeviceChoice, Evidence};
//! use qtune_ir::Arch;
//! let arch = Arch::named("h200")?;
//! let opened = open(DeviceChoice::Sim, &arch)?;
//! assert_eq!(opened.device.evidence(), Evidence::Modelled);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cuda;
mod cuda_device;
mod device;
mod error;
mod image;
mod launch;
mod open;
mod product;
mod sim;

pub use cuda::TimingPlan;
pub use cuda_device::CudaDevice;
pub use device::Device;
pub use error::DeviceError;
pub use image::{KernelImage, Resources};
pub use launch::{
    Access, ArgValue, AsyncSchedule, Blocks, Buffer, Evidence, Grid, LaunchArgs, LaunchOutcome,
    LoadedKernel, Timing, WarpOrder,
};
pub use open::{open, DeviceChoice, Opened};
pub use qtune_sim::{Counters, LineCounters};
pub use sim::SimDevice;
