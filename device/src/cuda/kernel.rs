//! Functions of loaded cubins.

use super::driver::{check, CudaError};
use super::gpu::Gpu;
use cudarc::driver::sys::{self, CUfunction_attribute as A};
use qtune_sim::cubin::Cubin;
use std::ffi::{c_int, CString};
use std::ptr;

/// A kernel that is ready to launch. Its module is unloaded when it is dropped.
#[derive(Debug)]
pub struct Kernel {
    gpu: Gpu,
    module: sys::CUmodule,
    function: sys::CUfunction,
    name: String,
    max_threads: u32,
    static_shared_bytes: u32,
    /// Size of each parameter in bytes.
    param_sizes: Vec<u32>,
}

// SAFETY: modules and functions are handles that the driver lets any thread use.
unsafe impl Send for Kernel {}
// SAFETY: as above; launching does not change them.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Loads a cubin and finds the kernel `name` in it. `dynamic_shared_bytes` is the most dynamic
    /// shared memory that launches will ask for; above 48 KB the driver has to be told beforehand.
    ///
    /// # Errors
    /// [`CudaError::BadLaunch`] if the cubin is damaged or does not hold the kernel, or if the GPU
    /// has not that much shared memory; [`CudaError::Driver`] if the cubin is for another GPU.
    pub fn load(
        gpu: &Gpu,
        cubin: &[u8],
        name: &str,
        dynamic_shared_bytes: u32,
    ) -> Result<Kernel, CudaError> {
        let refuse = |reason: String| CudaError::BadLaunch { reason: format!("{name}: {reason}") };
        // The driver trusts the offsets in the file; this finds those that lead out of it.
        let parsed = Cubin::parse(cubin).map_err(|e| refuse(e.to_string()))?;
        let found =
            parsed.kernel(name).ok_or_else(|| refuse("the cubin does not hold it".into()))?;
        let c_name = CString::new(name)
            .map_err(|_| refuse("the kernel's name holds a NUL byte".to_owned()))?;
        gpu.make_current()?;
        let mut module: sys::CUmodule = ptr::null_mut();
        // SAFETY: the image is a live slice, and every table and section of it lies inside.
        let status = unsafe { sys::cuModuleLoadData(&mut module, cubin.as_ptr().cast()) };
        check(status, "cuModuleLoadData")?;
        // From here on the drop of `kernel` unloads the module.
        let mut kernel = Kernel {
            gpu: gpu.clone(),
            module,
            function: ptr::null_mut(),
            name: name.to_owned(),
            max_threads: 0,
            static_shared_bytes: 0,
            param_sizes: found.resources.params.iter().map(|param| param.size).collect(),
        };
        // SAFETY: the module is live and the name NUL-terminated; writes one handle.
        let status =
            unsafe { sys::cuModuleGetFunction(&mut kernel.function, module, c_name.as_ptr()) };
        check(status, "cuModuleGetFunction")?;
        kernel.max_threads = kernel.attribute(A::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        kernel.static_shared_bytes = kernel.attribute(A::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        kernel.allow_dynamic_shared(dynamic_shared_bytes)?;
        Ok(kernel)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The GPU it is loaded on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Most threads of a block, from its registers and launch bounds.
    pub fn max_threads(&self) -> u32 {
        self.max_threads
    }

    /// Static shared memory of a block in bytes.
    pub fn static_shared_bytes(&self) -> u32 {
        self.static_shared_bytes
    }

    /// 32-bit registers per thread.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if the context is lost.
    pub fn registers(&self) -> Result<u32, CudaError> {
        self.attribute(A::CU_FUNC_ATTRIBUTE_NUM_REGS)
    }

    /// Local memory per thread in bytes: spills and local arrays.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if the context is lost.
    pub fn local_bytes(&self) -> Result<u32, CudaError> {
        self.attribute(A::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    /// Size of each parameter in bytes, in order.
    pub(super) fn param_sizes(&self) -> &[u32] {
        &self.param_sizes
    }

    pub(super) fn function(&self) -> sys::CUfunction {
        self.function
    }

    fn attribute(&self, attribute: A) -> Result<u32, CudaError> {
        self.gpu.make_current()?;
        let mut value: c_int = 0;
        // SAFETY: the function is live; writes one int.
        let status = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, self.function) };
        check(status, "cuFuncGetAttribute")?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn allow_dynamic_shared(&self, bytes: u32) -> Result<(), CudaError> {
        let limit = self.gpu.attributes().shared_bytes_per_block;
        let room = limit.saturating_sub(self.static_shared_bytes);
        let value = c_int::try_from(bytes).ok().filter(|_| bytes <= room);
        let value = value.ok_or_else(|| CudaError::BadLaunch {
            reason: format!(
                "{} needs {bytes} bytes of dynamic and {} of static shared memory; a block of this \
                 GPU has {limit}",
                self.name, self.static_shared_bytes
            ),
        })?;
        let attribute = A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is live.
        let status = unsafe { sys::cuFuncSetAttribute(self.function, attribute, value) };
        check(status, "cuFuncSetAttribute")
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: loaded here and unloaded once. The driver waits for launches of it. An error
            // means that the context is lost, and the module with it.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}
