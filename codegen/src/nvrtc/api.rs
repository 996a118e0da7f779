//! The dozen C functions of NVRTC, looked up once at load time.
//!
//! Signatures from `nvrtc.h`; they have been the same since CUDA 11.1 (`nvrtcGetCUBIN`).

use super::error::NvrtcError;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::path::Path;

/// `nvrtcProgram`: an opaque handle.
pub(super) type Program = *mut c_void;
/// `nvrtcResult`: 0 is success.
pub(super) type Status = c_int;
/// `NVRTC_ERROR_COMPILATION`.
pub(super) const ERROR_COMPILATION: Status = 6;

type GetSize = unsafe extern "C" fn(Program, *mut usize) -> Status;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// Function pointers into a library that stays loaded for the life of the process.
pub(super) struct Api {
    pub version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    pub num_archs: unsafe extern "C" fn(*mut c_int) -> Status,
    pub archs: unsafe extern "C" fn(*mut c_int) -> Status,
    pub create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    pub compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    pub destroy: unsafe extern "C" fn(*mut Program) -> Status,
    pub ptx_size: GetSize,
    pub ptx: GetBytes,
    pub cubin_size: GetSize,
    pub cubin: GetBytes,
    pub log_size: GetSize,
    pub log: GetBytes,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
}

impl Api {
    /// Loads `path` (absolute, or a plain soname) and resolves every function.
    pub fn load(path: &Path) -> Result<Api, NvrtcError> {
        let refuse = |e| load_error(path, &e);
        let library = keep_loaded(path)?;
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the field that receives the pointer has this function's C signature,
                // and the library outlives it because it is leaked.
                let symbol = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                *symbol.map_err(refuse)?
            }};
        }
        Ok(Api {
            version: function!("nvrtcVersion"),
            num_archs: function!("nvrtcGetNumSupportedArchs"),
            archs: function!("nvrtcGetSupportedArchs"),
            create: function!("nvrtcCreateProgram"),
            compile: function!("nvrtcCompileProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            ptx_size: function!("nvrtcGetPTXSize"),
            ptx: function!("nvrtcGetPTX"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            error_string: function!("nvrtcGetErrorString"),
        })
    }

    /// NVRTC's text for a result code.
    pub fn message(&self, status: Status) -> String {
        // SAFETY: takes any code and returns a static string (or null, checked here).
        let text = unsafe { (self.error_string)(status) };
        if text.is_null() {
            return format!("NVRTC error {status}");
        }
        // SAFETY: not null, and NUL-terminated static text by the header's contract.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// `Ok` for success, else [`NvrtcError::Call`] naming `function` and `name`.
    pub fn check(
        &self,
        status: Status,
        function: &'static str,
        name: &str,
    ) -> Result<(), NvrtcError> {
        if status == 0 {
            return Ok(());
        }
        Err(NvrtcError::Call { function, name: name.to_owned(), message: self.message(status) })
    }
}

/// Loads the library at `path` with `RTLD_NOW`, for the life of the process: NVRTC keeps
/// process-wide state whose exit handlers would otherwise run in unmapped code.
pub(super) fn keep_loaded(path: &Path) -> Result<&'static Library, NvrtcError> {
    // SAFETY: loading runs the library's initialisers. It is NVIDIA's NVRTC, chosen by the
    // user's settings or checked against a pinned digest, and its initialisers have no
    // precondition.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(|library| &*Box::leak(Box::new(library))).map_err(|e| load_error(path, &e))
}

fn load_error(path: &Path, error: &libloading::Error) -> NvrtcError {
    NvrtcError::Load { path: path.to_path_buf(), reason: error.to_string() }
}
