//! Device memory as one run sees it: buffers, module variables and sector footprints.

use crate::address;
use crate::error::SimError;
use crate::exec::traffic::Footprint;
use crate::memory::{Buffer, Memory};
use crate::program::Program;

/// Buffers of a run by number: first those of [`Memory`], then the module's variables.
pub(crate) struct DeviceMemory<'m> {
    buffers: Vec<Option<Slot<'m>>>,
    host_buffers: usize,
}

struct Slot<'m> {
    buffer: Cow<'m>,
    footprint: Footprint,
}

enum Cow<'m> {
    Borrowed(&'m Buffer),
    Owned(Buffer),
}

impl<'m> DeviceMemory<'m> {
    /// Module variables start every run with their initial values.
    pub(crate) fn new(memory: &'m Memory, program: &Program) -> Result<Self, SimError> {
        let slot = |buffer: Cow<'m>, bytes| Slot { buffer, footprint: Footprint::new(bytes) };
        let mut buffers: Vec<Option<Slot<'m>>> = memory
            .buffers()
            .map(|buffer| buffer.map(|b| slot(Cow::Borrowed(b), b.len())))
            .collect();
        let host_buffers = buffers.len();
        for data in &program.globals {
            let buffer = Buffer::with_contents(&data.name, &data.bytes)?;
            let bytes = buffer.len();
            buffers.push(Some(slot(Cow::Owned(buffer), bytes)));
        }
        Ok(DeviceMemory { buffers, host_buffers })
    }

    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Number of the buffer that an address points into, by its high bits alone.
    #[inline(always)]
    pub(crate) fn number(&self, address: u64) -> usize {
        let high = address >> address::BUFFER_SHIFT;
        if high >= address::FIRST_STATIC_BUFFER {
            (high - address::FIRST_STATIC_BUFFER) as usize + self.host_buffers
        } else if high == 0 || high as usize > self.host_buffers {
            usize::MAX
        } else {
            high as usize - 1
        }
    }

    /// A buffer and its footprint by number.
    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Option<(&Buffer, &Footprint)> {
        let slot = self.buffers.get(number)?.as_ref()?;
        let buffer = match &slot.buffer {
            Cow::Borrowed(buffer) => buffer,
            Cow::Owned(buffer) => buffer,
        };
        Some((buffer, &slot.footprint))
    }
}

/// Offset of an address in its buffer.
#[inline(always)]
pub(crate) fn offset(address: u64) -> u64 {
    address & ((1 << address::BUFFER_SHIFT) - 1)
}
