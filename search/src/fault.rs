//! Why a candidate that compiled is out.

use qtune_device::DeviceError;
use qtune_verify::VerifyError;
use std::time::Duration;

/// Why a candidate that compiled is out.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is wrong, or cannot be measured.
    Wrong(String),
    /// It took the device's process down and must never be launched again.
    Lost(String),
    /// Its compile had not ended after this time; it may be tried again where more time is given.
    Late(String, Duration),
}

impl From<DeviceError> for Fault {
    fn from(error: DeviceError) -> Fault {
        match error {
            lost @ DeviceError::Lost { .. } => Fault::Lost(lost.to_string()),
            late @ DeviceError::TimedOut { limit, .. } => Fault::Late(late.to_string(), limit),
            other => Fault::Wrong(other.to_string()),
        }
    }
}

impl From<VerifyError> for Fault {
    fn from(error: VerifyError) -> Fault {
        match error {
            VerifyError::Device(error) => error.into(),
            other => Fault::Wrong(other.to_string()),
        }
    }
}
