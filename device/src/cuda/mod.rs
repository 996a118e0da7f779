//! The CUDA driver behind small safe types.
//!
//! The driver is loaded when it is first used: a program that links this module builds and starts
//! on machines without one, where [`is_available`] says why and [`Gpu::open`] gives the same reason
//! as an error. Only functions that every driver from CUDA 12.0 on has are used, and their presence
//! is checked before the first call, because the binding would panic on a missing one.
//!
//! - [`Gpu`]: a device with its context and a stream; [`Attributes`] are what it says of itself.
//! - [`Memory`]: a device allocation with checked copies.
//! - [`Kernel`]: a function of a loaded cubin.
//! - [`Launch`]: grid, block, cluster, shared memory and arguments, checked before the driver sees
//!   them.
//! - [`Library`]: cuBLASLt where it is installed, and its [`Multiplication`] of a slab; [`Work`] is one
//!   step of a launch, a grid or such a multiplication.
//! - [`Gpu::time`]: launches captured into a CUDA graph and replayed between events; samples that a
//!   changed clock or another process disturbed are thrown away.

mod driver;
mod gpu;
mod kernel;
mod launch;
mod library;
mod memory;
mod nvml;
mod tensor_map;
mod timing;
mod work;

pub use driver::{is_available, CudaError};
pub use gpu::{Attributes, Gpu};
pub use kernel::Kernel;
pub use launch::{Argument, Launch};
pub use library::{Library, Multiplication, Place};
pub use memory::Memory;
pub use tensor_map::{TensorMap, TENSOR_MAP_BYTES};
pub use timing::{Samples, TimingPlan};
pub use work::Work;
