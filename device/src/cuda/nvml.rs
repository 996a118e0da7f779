//! What disturbs a measurement: the SM clock, power and other processes, asked of the driver's management
//! library (NVML).
//!
//! NVML comes with the driver but may be missing in containers; then nothing is known and nothing
//! is thrown away.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_uint, c_void, CString};
use std::ptr;

/// Soname on every Linux driver.
const SONAME: &str = "libnvidia-ml.so.1";
const SUCCESS: c_int = 0;
/// The answer to asking for no entries where there are some.
const ERROR_INSUFFICIENT_SIZE: c_int = 7;
/// `NVML_CLOCK_SM`.
const CLOCK_SM: c_uint = 1;

type Init = unsafe extern "C" fn() -> c_int;
type HandleByPci = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type ClockInfo = unsafe extern "C" fn(*mut c_void, c_uint, *mut c_uint) -> c_int;
type Power = unsafe extern "C" fn(*mut c_void, *mut c_uint) -> c_int;
type Processes = unsafe extern "C" fn(*mut c_void, *mut c_uint, *mut c_void) -> c_int;

/// One GPU as NVML sees it.
pub(super) struct Monitor {
    handle: *mut c_void,
    clock: ClockInfo,
    power: Power,
    processes: Processes,
    /// Keeps the functions mapped. NVML stays initialised: shutting it down would cut off other
    /// users in this process, and costs nothing to leave.
    _library: Library,
}

/// The state of a GPU around one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conditions {
    /// SM clock in MHz, `None` if it cannot be read.
    pub clock_mhz: Option<u32>,
    /// Power in milliwatts, as the board averages it; `None` if it cannot be read.
    pub power_mw: Option<u32>,
    /// Whether some other process has a context on the GPU.
    pub shared: bool,
}

impl Monitor {
    /// Finds the GPU with the PCI address `pci` (`domain:bus:device`); `None` without NVML.
    pub fn open(pci: &str) -> Option<Monitor> {
        // SAFETY: NVML's initialisers have no precondition.
        let library = unsafe { Library::open(Some(SONAME), RTLD_NOW | RTLD_LOCAL) }.ok()?;
        // SAFETY: the signatures are those of `nvml.h`, and the library outlives the pointers
        // because it lies beside them.
        let (init, by_pci, clock, power, processes) = unsafe {
            (
                *library.get::<Init>(b"nvmlInit_v2\0").ok()?,
                *library.get::<HandleByPci>(b"nvmlDeviceGetHandleByPciBusId_v2\0").ok()?,
                *library.get::<ClockInfo>(b"nvmlDeviceGetClockInfo\0").ok()?,
                *library.get::<Power>(b"nvmlDeviceGetPowerUsage\0").ok()?,
                *library.get::<Processes>(b"nvmlDeviceGetComputeRunningProcesses_v3\0").ok()?,
            )
        };
        // NVML wants the function number, which is 0 for GPUs.
        let pci = CString::new(format!("{pci}.0")).ok()?;
        let mut handle = ptr::null_mut();
        // SAFETY: no arguments; may be called any number of times.
        if unsafe { init() } != SUCCESS {
            return None;
        }
        // SAFETY: the text is NUL-terminated; writes one handle.
        if unsafe { by_pci(pci.as_ptr(), &mut handle) } != SUCCESS {
            return None;
        }
        Some(Monitor { handle, clock, power, processes, _library: library })
    }

    /// The state right now.
    pub fn conditions(&self) -> Conditions {
        let (mut clock, mut power) = (0, 0);
        // SAFETY: the handle is valid while NVML is initialised; writes one integer.
        let status = unsafe { (self.clock)(self.handle, CLOCK_SM, &mut clock) };
        // SAFETY: as above.
        let power_status = unsafe { (self.power)(self.handle, &mut power) };
        Conditions {
            clock_mhz: (status == SUCCESS).then_some(clock),
            power_mw: (power_status == SUCCESS).then_some(power),
            // This process has a context, so it is one of them.
            shared: self.process_count().is_some_and(|count| count > 1),
        }
    }

    fn process_count(&self) -> Option<c_uint> {
        let mut count = 0;
        // SAFETY: with a count of 0 no entries are written, so none need a place.
        let status = unsafe { (self.processes)(self.handle, &mut count, ptr::null_mut()) };
        (status == SUCCESS || status == ERROR_INSUFFICIENT_SIZE).then_some(count)
    }
}
