//! Device allocations with checked copies.

use super::driver::{check, CudaError};
use super::gpu::Gpu;
use cudarc::driver::sys;

/// Device memory, freed when dropped.
#[derive(Debug)]
pub struct Memory {
    gpu: Gpu,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// Allocates `bytes` of uninitialised memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if there is not enough memory.
    pub fn alloc(gpu: &Gpu, bytes: usize) -> Result<Memory, CudaError> {
        gpu.make_current()?;
        let mut address: sys::CUdeviceptr = 0;
        // The driver refuses zero bytes; an empty buffer still needs an address of its own.
        // SAFETY: writes one address.
        check(unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) }, "cuMemAlloc")?;
        Ok(Memory { gpu: gpu.clone(), address, bytes })
    }

    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU that holds it.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies `data` to byte `offset` and waits for the copy.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] if it does not fit; [`CudaError::Driver`] if the copy or an
    /// earlier launch failed.
    pub fn upload(&self, offset: usize, data: &[u8]) -> Result<(), CudaError> {
        self.check_range(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        self.gpu.make_current()?;
        // SAFETY: the destination range lies in this allocation, the source is a live slice, and
        // the copy has ended when this returns.
        let status = unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                self.address + offset as u64,
                data.as_ptr().cast(),
                data.len(),
                self.gpu.stream(),
            )
        };
        check(status, "cuMemcpyHtoDAsync")?;
        self.gpu.synchronize()
    }

    /// Copies `len` bytes from byte `offset`, after every earlier launch on this GPU.
    ///
    /// # Errors
    /// As [`Memory::upload`].
    pub fn download(&self, offset: usize, len: usize) -> Result<Vec<u8>, CudaError> {
        self.check_range(offset, len)?;
        let mut data = vec![0u8; len];
        if len == 0 {
            return Ok(data);
        }
        self.gpu.make_current()?;
        // SAFETY: the source range lies in this allocation, the destination is a live buffer of
        // `len` bytes, and the copy has ended when this returns.
        let status = unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                data.as_mut_ptr().cast(),
                self.address + offset as u64,
                len,
                self.gpu.stream(),
            )
        };
        check(status, "cuMemcpyDtoHAsync")?;
        self.gpu.synchronize()?;
        Ok(data)
    }

    /// Sets every byte to `value`, in order with launches on this GPU.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if an earlier launch failed.
    pub fn fill(&self, value: u8) -> Result<(), CudaError> {
        self.gpu.make_current()?;
        // SAFETY: the range is this allocation.
        let status =
            unsafe { sys::cuMemsetD8Async(self.address, value, self.bytes, self.gpu.stream()) };
        check(status, "cuMemsetD8Async")
    }

    pub(super) fn check_range(&self, offset: usize, len: usize) -> Result<(), CudaError> {
        check_range(self.bytes, offset, len)
    }
}

fn check_range(bytes: usize, offset: usize, len: usize) -> Result<(), CudaError> {
    match offset.checked_add(len) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(CudaError::OutOfRange { offset, len, bytes }),
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: allocated here and freed once. The driver waits for work that uses it. An
            // error means that the context is lost, and the memory with it.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_outside_the_allocation_are_refused_overflow_included() {
        assert_eq!(check_range(16, 0, 16), Ok(()));
        assert_eq!(check_range(16, 16, 0), Ok(()));
        let error = check_range(16, 8, 9).expect_err("one byte too many");
        assert!(error.to_string().contains("allocation of 16 bytes"), "{error}");
        assert!(check_range(16, usize::MAX, 2).is_err());
    }
}
