//! One GPU: its context, its stream, what it says of itself.

use super::driver::{check, is_available, CudaError};
use cudarc::driver::sys::{self, CUdevice_attribute as A};
use std::ffi::{c_char, c_int, CStr};
use std::fmt;
use std::ptr;
use std::sync::Arc;

/// What the driver reports of a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// Product name. For people only: nothing is decided by it.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u8, u8),
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Highest SM clock in GHz.
    pub clock_ghz: f64,
    /// Nominal DRAM bandwidth in GB/s, from memory clock and bus width.
    pub dram_gb_per_s: f64,
    /// DRAM in bytes.
    pub dram_bytes: u64,
    /// L2 cache in bytes.
    pub l2_bytes: u64,
    /// Shared memory per SM in bytes.
    pub shared_bytes_per_sm: u32,
    /// Shared memory that one block may opt in to, in bytes.
    pub shared_bytes_per_block: u32,
    /// 32-bit registers per SM.
    pub registers_per_sm: u32,
    /// Resident threads per SM.
    pub threads_per_sm: u32,
    /// Resident thread blocks per SM.
    pub blocks_per_sm: u32,
    /// CUDA version of the driver, as (major, minor).
    pub driver: (u32, u32),
    /// Address on the PCI bus as `domain:bus:device`, in hexadecimal.
    pub pci: String,
}

/// A GPU, opened. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    attributes: Attributes,
}

// SAFETY: contexts and streams are handles that the driver lets any thread use; every method makes
// the context current on its own thread first.
unsafe impl Send for Inner {}
// SAFETY: as above; the driver synchronises concurrent calls.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: everything that used the stream held an `Arc` of this and is gone. Errors are of
        // no use here: the process may be ending, or the context lost.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.inner.attributes.name, self.inner.attributes.pci)
    }
}

impl Gpu {
    /// How many GPUs there are.
    ///
    /// # Errors
    /// [`CudaError::Unavailable`] where there is no driver.
    pub fn count() -> Result<usize, CudaError> {
        is_available()?;
        let mut count: c_int = 0;
        // SAFETY: the driver is initialised; writes one int.
        check(unsafe { sys::cuDeviceGetCount(&mut count) }, "cuDeviceGetCount")?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens the GPU with index `ordinal`.
    ///
    /// # Errors
    /// [`CudaError::Unavailable`] where there is no driver or no such GPU; [`CudaError::Driver`] if
    /// the driver cannot make a context, for example because the GPU's memory is full.
    pub fn open(ordinal: usize) -> Result<Gpu, CudaError> {
        let count = Gpu::count()?;
        let index = c_int::try_from(ordinal).ok().filter(|_| ordinal < count);
        let index = index.ok_or_else(|| CudaError::Unavailable {
            reason: format!("there is no GPU {ordinal}, only {count} in all"),
        })?;
        let mut device: sys::CUdevice = 0;
        // SAFETY: writes one handle.
        check(unsafe { sys::cuDeviceGet(&mut device, index) }, "cuDeviceGet")?;
        let attributes = attributes(device)?;
        let mut context: sys::CUcontext = ptr::null_mut();
        // SAFETY: `device` is valid; writes one handle.
        let status = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) };
        check(status, "cuDevicePrimaryCtxRetain")?;
        // From here on the drop of `inner` releases the context.
        let mut inner = Inner { device, context, stream: ptr::null_mut(), attributes };
        make_current(context)?;
        inner.stream = new_stream()?;
        Ok(Gpu { inner: Arc::new(inner) })
    }

    /// What the driver reports of it.
    pub fn attributes(&self) -> &Attributes {
        &self.inner.attributes
    }

    /// Waits until everything launched on it has finished.
    ///
    /// # Errors
    /// [`CudaError::Driver`] with the error of a kernel that failed since the last call.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.make_current()?;
        // SAFETY: the stream is live.
        check(unsafe { sys::cuStreamSynchronize(self.stream()) }, "cuStreamSynchronize")
    }

    /// The stream that copies and launches go to. It does not wait for the legacy default stream.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.inner.stream
    }

    /// Makes its context current on this thread, as every driver call needs.
    pub(super) fn make_current(&self) -> Result<(), CudaError> {
        make_current(self.inner.context)
    }

    /// Whether both are the same opened GPU.
    pub fn same_as(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

fn make_current(context: sys::CUcontext) -> Result<(), CudaError> {
    // SAFETY: the context is retained by the caller's `Gpu`.
    check(unsafe { sys::cuCtxSetCurrent(context) }, "cuCtxSetCurrent")
}

/// A new stream of the current context.
pub(super) fn new_stream() -> Result<sys::CUstream, CudaError> {
    let mut stream: sys::CUstream = ptr::null_mut();
    let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
    // SAFETY: a context is current; writes one handle.
    check(unsafe { sys::cuStreamCreate(&mut stream, flags) }, "cuStreamCreate")?;
    Ok(stream)
}

fn attributes(device: sys::CUdevice) -> Result<Attributes, CudaError> {
    let get = |attribute| attribute_of(device, attribute);
    let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    let memory_khz = f64::from(get(A::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?);
    let bus_bits = f64::from(get(A::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?);
    Ok(Attributes {
        name: name(device)?,
        capability: (
            byte(get(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?),
            byte(get(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?),
        ),
        sm_count: get(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock_ghz: f64::from(get(A::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?) / 1e6,
        dram_gb_per_s: dram_gb_per_s(memory_khz, bus_bits),
        dram_bytes: total_memory(device)?,
        l2_bytes: u64::from(get(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        shared_bytes_per_sm: get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        shared_bytes_per_block: get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        registers_per_sm: get(A::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
        threads_per_sm: get(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        blocks_per_sm: get(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
        driver: driver_version()?,
        pci: format!(
            "{:04x}:{:02x}:{:02x}",
            get(A::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
            get(A::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
            get(A::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?
        ),
    })
}

/// Both edges of the memory clock carry data.
fn dram_gb_per_s(memory_khz: f64, bus_bits: f64) -> f64 {
    2.0 * memory_khz * 1e3 * bus_bits / 8.0 / 1e9
}

fn attribute_of(device: sys::CUdevice, attribute: A) -> Result<u32, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: writes one int.
    let status = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
    check(status, "cuDeviceGetAttribute")?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn name(device: sys::CUdevice) -> Result<String, CudaError> {
    let mut buffer = [0 as c_char; 256];
    // The last byte stays 0, whatever the driver writes.
    let len = buffer.len() as c_int - 1;
    // SAFETY: writes at most `len` bytes into the buffer.
    let status = unsafe { sys::cuDeviceGetName(buffer.as_mut_ptr(), len, device) };
    check(status, "cuDeviceGetName")?;
    // SAFETY: the buffer ends in a NUL.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    Ok(text.to_string_lossy().into_owned())
}

fn total_memory(device: sys::CUdevice) -> Result<u64, CudaError> {
    let mut bytes = 0usize;
    // SAFETY: writes one size.
    check(unsafe { sys::cuDeviceTotalMem_v2(&mut bytes, device) }, "cuDeviceTotalMem")?;
    Ok(bytes as u64)
}

/// The driver codes CUDA 13.0 as 13000.
fn driver_version() -> Result<(u32, u32), CudaError> {
    let mut version: c_int = 0;
    // SAFETY: writes one int.
    check(unsafe { sys::cuDriverGetVersion(&mut version) }, "cuDriverGetVersion")?;
    let version = u32::try_from(version).unwrap_or(0);
    Ok((version / 1000, version % 1000 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_follows_from_clock_and_bus_width() {
        // H200: 6144 bits at 3.201 GHz, both edges.
        assert!((dram_gb_per_s(3_201_000.0, 6144.0) - 4916.7).abs() < 0.1);
    }
}
