//! Buffers between bands of a known pattern.
//!
//! A GPU does not tell when a kernel writes past a buffer of the same allocation, so outputs and
//! workspaces lie between bands that must come back unchanged. The simulator knows the exact size
//! of every buffer and reports the access itself; there the bands would only hide it.

use crate::VerifyError;
use qtune_device::{Access, Buffer, Device, Evidence};

/// Bytes of pattern on either side. A multiple of every alignment that kernels assume.
const BAND: usize = 4096;
/// The pattern: not a plausible f16, f32 or counter.
const PATTERN: u8 = 0xa5;

/// A buffer and its bands.
#[derive(Debug)]
pub(crate) struct Guarded {
    buffer: Buffer,
    band: usize,
    len: usize,
}

impl Guarded {
    /// `contents` in device memory, between bands where the device needs them.
    pub fn new(device: &dyn Device, name: &str, contents: &[u8]) -> Result<Guarded, VerifyError> {
        let band = match device.evidence() {
            Evidence::Modelled => 0,
            Evidence::Timed => BAND,
        };
        Guarded::with_band(device, name, contents, band)
    }

    fn with_band(
        device: &dyn Device,
        name: &str,
        contents: &[u8],
        band: usize,
    ) -> Result<Guarded, VerifyError> {
        let len = contents.len();
        let buffer = device.alloc(name, len + 2 * band, Access::ReadWrite)?;
        if band > 0 {
            device.upload(&buffer, 0, &vec![PATTERN; band])?;
            device.upload(&buffer, band + len, &vec![PATTERN; band])?;
        }
        device.upload(&buffer, band, contents)?;
        Ok(Guarded { buffer, band, len })
    }

    /// Overwrites every byte of the contents with `byte`.
    pub fn fill_with(&self, device: &dyn Device, byte: u8) -> Result<(), VerifyError> {
        Ok(device.upload(&self.buffer, self.band, &vec![byte; self.len])?)
    }

    /// Overwrites the contents with as many bytes.
    pub fn write(&self, device: &dyn Device, contents: &[u8]) -> Result<(), VerifyError> {
        Ok(device.upload(&self.buffer, self.band, contents)?)
    }

    /// What the kernel is given: the address behind the first band.
    pub fn place(&self) -> (&Buffer, usize) {
        (&self.buffer, self.band)
    }

    /// The contents.
    pub fn read(&self, device: &dyn Device) -> Result<Vec<u8>, VerifyError> {
        Ok(device.download(&self.buffer, self.band, self.len)?)
    }

    /// A line that says where a band was overwritten, if one was.
    pub fn damage(&self, device: &dyn Device) -> Result<Option<String>, VerifyError> {
        for (side, offset) in [("before", 0), ("after", self.band + self.len)] {
            let band = device.download(&self.buffer, offset, self.band)?;
            if let Some(at) = band.iter().position(|byte| *byte != PATTERN) {
                let name = self.buffer.name();
                return Ok(Some(format!(
                    "byte {at} of the guard band {side} `{name}` was written"
                )));
            }
        }
        Ok(None)
    }
}
