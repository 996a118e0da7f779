//! One CUDA source to PTX and cubin.

use super::api::{Api, Program, Status, ERROR_COMPILATION};
use super::error::NvrtcError;
use super::open::Nvrtc;
use super::ptxas_log::performance_loss;
use std::ffi::{c_char, c_int, CString};
use std::ptr;

/// Options that every compile gets besides `-arch` and the caller's. `-v` makes ptxas write
/// registers and spill bytes into the log, the only place where spill bytes are told.
pub const FIXED_OPTIONS: [&str; 2] = ["-std=c++17", "--ptxas-options=-v"];

/// What one compile gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// PTX text, without the trailing NUL.
    pub ptx: String,
    /// The ELF image that a driver loads.
    pub cubin: Vec<u8>,
    /// The compiler's log without its timings: warnings and ptxas statistics (see
    /// [`parse_ptxas_log`](super::parse_ptxas_log)).
    pub log: String,
}

impl Nvrtc {
    /// Compiles `source` for the real architecture `arch` (`"sm_90a"`), giving PTX and cubin.
    ///
    /// `name` is the file name in messages. `options` are added to [`FIXED_OPTIONS`], for
    /// example `-lineinfo`.
    ///
    /// # Errors
    /// [`NvrtcError::Compile`] with the log if the source does not compile, ptxas refuses it or
    /// gives up what it asks for (serializes `wgmma`, ignores `setmaxnreg`), or an option is wrong; [`NvrtcError::Nul`] if a text holds a NUL byte.
    pub fn compile(
        &self,
        source: &str,
        name: &str,
        arch: &str,
        options: &[String],
    ) -> Result<Compiled, NvrtcError> {
        let api = &self.inner.api;
        let program = Source::create(api, source, name)?;
        let status = program.compile(arch, options)?;
        let log = program.text(api.log_size, api.log, "nvrtcGetProgramLog");
        if status != 0 {
            // A rejected option is told by the result code alone, with an empty log.
            let log = log.unwrap_or_default();
            let log = match status {
                ERROR_COMPILATION => log,
                _ => format!("{}\n{log}", api.message(status)),
            };
            let log = log.trim_end().to_owned();
            return Err(NvrtcError::Compile { name: name.to_owned(), arch: arch.to_owned(), log });
        }
        let log = without_timings(&log?);
        if performance_loss(&log).is_some() {
            // It would run, but not as fast as anything that ranked it believes.
            return Err(NvrtcError::Compile { name: name.to_owned(), arch: arch.to_owned(), log });
        }
        Ok(Compiled {
            ptx: program.text(api.ptx_size, api.ptx, "nvrtcGetPTX")?,
            cubin: program.bytes(api.cubin_size, api.cubin, "nvrtcGetCUBIN")?,
            log,
        })
    }
}

/// Drops the lines that tell how long ptxas took: the same compile must give the same result.
fn without_timings(log: &str) -> String {
    log.lines().filter(|line| !line.contains("Compile time = ")).map(|l| format!("{l}\n")).collect()
}

/// An NVRTC program object, destroyed when dropped.
struct Source<'a> {
    api: &'a Api,
    name: &'a str,
    program: Program,
}

impl<'a> Source<'a> {
    fn create(api: &'a Api, source: &str, name: &'a str) -> Result<Source<'a>, NvrtcError> {
        let text = c_string(source, "the source")?;
        let c_name = c_string(name, "the source's name")?;
        let mut program: Program = ptr::null_mut();
        // SAFETY: both strings outlive the call, which copies them; zero headers need no arrays.
        let status = unsafe {
            (api.create)(&mut program, text.as_ptr(), c_name.as_ptr(), 0, ptr::null(), ptr::null())
        };
        api.check(status, "nvrtcCreateProgram", name)?;
        Ok(Source { api, name, program })
    }

    fn compile(&self, arch: &str, options: &[String]) -> Result<Status, NvrtcError> {
        let arch = format!("-arch={arch}");
        let fixed = FIXED_OPTIONS.iter().copied();
        let all = std::iter::once(arch.as_str()).chain(fixed);
        let all: Vec<CString> = all
            .chain(options.iter().map(String::as_str))
            .map(|option| c_string(option, "an option"))
            .collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = all.iter().map(|o| o.as_ptr()).collect();
        // Far below c_int's range: options are a handful.
        let count = pointers.len() as c_int;
        // SAFETY: `program` is live, and `pointers` holds `count` strings that outlive the call.
        Ok(unsafe { (self.api.compile)(self.program, count, pointers.as_ptr()) })
    }

    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
        function: &'static str,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0usize;
        // SAFETY: `program` is live; writes one size.
        let status = unsafe { size(self.program, &mut len) };
        self.api.check(status, function, self.name)?;
        let mut bytes = vec![0u8; len];
        // SAFETY: writes exactly the length just asked for.
        let status = unsafe { get(self.program, bytes.as_mut_ptr().cast()) };
        self.api.check(status, function, self.name)?;
        Ok(bytes)
    }

    /// As [`Self::bytes`], for the results that end in a NUL.
    fn text(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
        function: &'static str,
    ) -> Result<String, NvrtcError> {
        let mut bytes = self.bytes(size, get, function)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is live and no one else holds it. A failure to destroy leaks
        // memory of the compiler, which nothing here could do anything about.
        let _ = unsafe { (self.api.destroy)(&mut self.program) };
    }
}

fn c_string(text: &str, what: &str) -> Result<CString, NvrtcError> {
    CString::new(text)
        .map_err(|e| NvrtcError::Nul { what: what.to_owned(), offset: e.nul_position() })
}
