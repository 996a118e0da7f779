//! Device memory that kernels with split K need between thread blocks.

use crate::RuntimeError;
use qtune_codegen::Kernel;
use qtune_device::{Access, Buffer, Device};

/// Partial sums and counters, grown to the largest launch so far and shared by all kernels of a
/// layer: every launch leaves the counters at zero and may find any partial sums.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub partials: Buffer,
    pub counters: Buffer,
}

/// Smallest buffer: a kernel without split K takes none of them, but every layer has them.
const BYTES_MIN: usize = 16;

impl Workspace {
    /// A workspace for kernels without split K.
    pub fn empty(device: &dyn Device) -> Result<Workspace, RuntimeError> {
        Workspace::of_bytes(device, 0, 0)
    }

    /// A workspace for launches of `kernel` with `tokens` tokens.
    pub fn new(
        device: &dyn Device,
        kernel: &Kernel,
        tokens: u32,
    ) -> Result<Workspace, RuntimeError> {
        Workspace::of_bytes(device, kernel.partials_bytes(tokens), kernel.counter_bytes(tokens))
    }

    fn of_bytes(
        device: &dyn Device,
        partials: usize,
        counters: usize,
    ) -> Result<Workspace, RuntimeError> {
        let zeroed = |name, bytes: usize| -> Result<Buffer, RuntimeError> {
            let bytes = bytes.max(BYTES_MIN);
            let buffer = device.alloc(name, bytes, Access::ReadWrite)?;
            device.upload(&buffer, 0, &vec![0; bytes])?;
            Ok(buffer)
        };
        Ok(Workspace {
            partials: zeroed("partials", partials)?,
            counters: zeroed("counters", counters)?,
        })
    }

    /// Whether it is large enough for launches of `kernel` with `tokens` tokens.
    pub fn holds(&self, kernel: &Kernel, tokens: u32) -> bool {
        kernel.partials_bytes(tokens) <= self.partials.bytes()
            && kernel.counter_bytes(tokens) <= self.counters.bytes()
    }
}
