//! Finding the driver, and its errors.

use cudarc::driver::sys::{self, CUresult};
use std::ffi::{c_char, CStr};
use std::panic;
use std::ptr;
use std::sync::OnceLock;

/// What went wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no usable driver or no such GPU on this machine.
    #[error("no CUDA GPU: {reason}")]
    Unavailable {
        /// One line: what is missing.
        reason: String,
    },
    /// A driver call failed.
    #[error("{call} failed: {message}")]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// The driver's name and text for the error.
        message: String,
    },
    /// cuBLASLt cannot be used on this machine.
    #[error("no cuBLASLt: {reason}")]
    NoLibrary {
        /// One line: what is missing.
        reason: String,
    },
    /// A call of cuBLASLt failed.
    #[error("{call} failed: {message}")]
    Library {
        /// The library's function.
        call: &'static str,
        /// The library's name for the error, or what it did not give.
        message: String,
    },
    /// A launch that this GPU or kernel cannot take; the driver was not called.
    #[error("{reason}")]
    BadLaunch {
        /// The numbers that disagree.
        reason: String,
    },
    /// A copy outside an allocation; the driver was not called.
    #[error("bytes {offset}..{offset}+{len} do not lie in an allocation of {bytes} bytes")]
    OutOfRange {
        /// Start of the range in bytes.
        offset: usize,
        /// Length of the range in bytes.
        len: usize,
        /// Size of the allocation.
        bytes: usize,
    },
}

/// Every driver function that this module calls. The binding looks functions up on first use and
/// panics where one is missing, so all are looked up here before.
const REQUIRED: [&str; 37] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuLaunchKernelEx",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemsetD8Async",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
    "cuTensorMapEncodeTiled",
    "cuGetErrorString",
];

/// Whether GPUs can be used on this machine. The answer is found once and kept.
///
/// # Errors
/// [`CudaError::Unavailable`] with the reason: no driver, a driver that is too old, or one that
/// does not start. Never panics.
pub fn is_available() -> Result<(), CudaError> {
    static ANSWER: OnceLock<Result<(), CudaError>> = OnceLock::new();
    ANSWER.get_or_init(start).clone()
}

fn start() -> Result<(), CudaError> {
    let unavailable = |reason: String| CudaError::Unavailable { reason };
    // The functions were looked up, so nothing here is known to panic; should the binding panic all
    // the same, that is one more reason why there is no GPU, and nothing worse.
    let started = panic::catch_unwind(|| {
        // SAFETY: tries to load the driver library, whose initialisers have no precondition.
        if !unsafe { sys::is_culib_present() } {
            return Err(unavailable("the NVIDIA driver (libcuda) is not installed".to_owned()));
        }
        if let Some(missing) = REQUIRED.iter().find(|name| symbol(name).is_none()) {
            return Err(unavailable(format!(
                "the NVIDIA driver is too old (it has no {missing}); CUDA 12.0 or later is needed"
            )));
        }
        // SAFETY: takes no pointers; 0 is the only value allowed.
        let status = unsafe { sys::cuInit(0) };
        check(status, "cuInit").map_err(|e| unavailable(e.to_string()))
    });
    started.unwrap_or_else(|_| Err(unavailable("the NVIDIA driver does not load".to_owned())))
}

/// Address of a driver function; the library must be present.
fn symbol(name: &str) -> Option<*const ()> {
    let name = format!("{name}\0");
    // SAFETY: only the address is taken; no call is made through this type.
    let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
    found.ok().map(|function| *function as *const ())
}

/// Milliseconds between two recorded events.
///
/// Not called through the binding: what it declares for CUDA 13 is `cuEventElapsedTime_v2`, which
/// drivers before 12.8 lack; the first version has the same signature and is in all of them.
pub(super) fn event_elapsed_ms(start: sys::CUevent, end: sys::CUevent) -> Result<f32, CudaError> {
    type ElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    const CALL: &str = "cuEventElapsedTime";
    let missing = || CudaError::Unavailable { reason: format!("the NVIDIA driver has no {CALL}") };
    let address = symbol(CALL).ok_or_else(missing)?;
    // SAFETY: this is the function's signature in `cuda.h`.
    let function = unsafe { std::mem::transmute::<*const (), ElapsedTime>(address) };
    let mut ms = 0.0f32;
    // SAFETY: both events are live and recorded; writes one float.
    check(unsafe { function(&mut ms, start, end) }, CALL)?;
    Ok(ms)
}

/// `Ok` for success, else an error with the driver's own text.
pub(super) fn check(status: CUresult, call: &'static str) -> Result<(), CudaError> {
    if status == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text: *const c_char = ptr::null();
    // SAFETY: writes one pointer, to static text or null.
    let found = unsafe { sys::cuGetErrorString(status, &mut text) };
    let text = if found == CUresult::CUDA_SUCCESS && !text.is_null() {
        // SAFETY: not null, and static NUL-terminated text by the driver's contract.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    } else {
        "no description".to_owned()
    };
    Err(CudaError::Driver { call, message: format!("{status:?} ({text})") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Gpu;

    #[test]
    fn without_a_gpu_everything_says_why_in_one_line_and_nothing_panics() {
        match is_available() {
            Ok(()) => println!("skipped: this machine has a driver"),
            Err(e) => {
                let text = e.to_string();
                assert!(text.starts_with("no CUDA GPU: "), "{text}");
                assert!(!text.contains('\n'), "{text}");
                assert_eq!(Gpu::count().expect_err("no driver"), e);
                assert_eq!(Gpu::open(0).err(), Some(e));
            }
        }
    }

    #[test]
    fn required_functions_are_listed_once() {
        let distinct: std::collections::BTreeSet<_> = REQUIRED.iter().collect();
        assert_eq!(distinct.len(), REQUIRED.len());
    }
}
