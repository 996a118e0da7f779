//! Choosing a device.

use crate::{CudaDevice, Device, DeviceError, SimDevice};
use qtune_ir::Arch;
use std::fmt;
use std::str::FromStr;

/// What `--device` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU of the wanted compute capability if there is one, else the simulator.
    #[default]
    Auto,
    /// The GPU with this index.
    Cuda(usize),
    /// The simulator.
    Sim,
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "sim" => Ok(DeviceChoice::Sim),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| DeviceError::UnknownDevice { text: text.into() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Sim => f.write_str("sim"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A device, and what there is to say about how it was chosen.
pub struct Opened {
    /// The device.
    pub device: Box<dyn Device>,
    /// One line for the user, where `auto` fell back on the simulator.
    pub notice: Option<String>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({}, {:?})", self.device.describe(), self.notice)
    }
}

/// Opens a device that runs kernels for `wanted`.
///
/// A GPU answers with the [`Arch`] that its driver reports, which may differ from `wanted` in
/// everything but the compute capability.
///
/// # Errors
/// [`DeviceError::NoDevice`] if a GPU was asked for by index and there is no such GPU, no driver,
/// or its compute capability is another.
pub fn open(choice: DeviceChoice, wanted: &Arch) -> Result<Opened, DeviceError> {
    let simulator = || -> Box<dyn Device> { Box::new(SimDevice::new(wanted)) };
    match choice {
        DeviceChoice::Sim => Ok(Opened { device: simulator(), notice: None }),
        DeviceChoice::Cuda(index) => {
            let device = open_cuda(index, wanted)?;
            Ok(Opened { device: Box::new(device), notice: None })
        }
        DeviceChoice::Auto => Ok(match first_cuda(wanted) {
            Ok(device) => Opened { device: Box::new(device), notice: None },
            Err(reason) => Opened {
                device: simulator(),
                notice: Some(format!(
                    "{reason}: using the simulator of {wanted}; kernels are verified exactly, \
                     times are modelled"
                )),
            },
        }),
    }
}

fn open_cuda(index: usize, wanted: &Arch) -> Result<CudaDevice, DeviceError> {
    let device = CudaDevice::open(index)?;
    let found = device.arch();
    if found.capability == wanted.capability {
        return Ok(device);
    }
    Err(DeviceError::NoDevice {
        reason: format!("cuda:{index} is {found}, and kernels for {wanted} were asked for"),
    })
}

/// The first GPU that runs kernels for `wanted`, or one line that says why there is none.
fn first_cuda(wanted: &Arch) -> Result<CudaDevice, String> {
    let count = CudaDevice::count().map_err(|e| match e {
        DeviceError::NoDevice { reason } => reason,
        other => other.to_string(),
    })?;
    let mut seen = Vec::new();
    for index in 0..count {
        match open_cuda(index, wanted) {
            Ok(device) => return Ok(device),
            Err(DeviceError::NoDevice { reason }) => seen.push(reason),
            Err(other) => seen.push(other.to_string()),
        }
    }
    Err(if seen.is_empty() { "no CUDA GPU".into() } else { seen.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Evidence;

    #[test]
    fn device_names_print_and_parse_back() {
        for text in ["auto", "sim", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let error = "gpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("gpu") && error.contains("cuda:INDEX"));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_no_device_and_auto_says_so_once() {
        let arch = Arch::named("h200").unwrap();
        if CudaDevice::count().is_ok_and(|count| count > 0) {
            println!("skipped: this machine has a GPU");
            return;
        }
        let error = open(DeviceChoice::Cuda(0), &arch).unwrap_err();
        assert!(matches!(error, DeviceError::NoDevice { .. }), "{error}");
        let opened = open(DeviceChoice::Auto, &arch).unwrap();
        assert_eq!(opened.device.evidence(), Evidence::Modelled);
        assert!(opened.notice.is_some_and(|line| line.contains("simulator")));
    }
}
