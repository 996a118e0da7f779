//! Device memory as one run sees it: buffers, module variables and sector footprints.

use crate::address;
use crate::check::{GlobalHistory, Locations};
use crate::error::SimError;
use crate::exec::traffic::Footprint;
use crate::memory::{Access, Buffer, Memory};
use crate::program::Program;

/// Buffers of a run by number: first those of [`Memory`], then the module's variables.
pub(crate) struct DeviceMemory<'m> {
    buffers: Vec<Option<Slot<'m>>>,
    host_buffers: usize,
    /// What kernels released at which address.
    pub locations: Locations,
}

struct Slot<'m> {
    buffer: Cow<'m>,
    footprint: Footprint,
    /// Of buffers that kernels may write.
    history: Option<GlobalHistory>,
}

impl<'m> Slot<'m> {
    fn new(buffer: Cow<'m>) -> Slot<'m> {
        let content = buffer.get();
        let footprint = Footprint::new(content.len());
        let history = (content.access == Access::ReadWrite).then(GlobalHistory::default);
        Slot { buffer, footprint, history }
    }
}

enum Cow<'m> {
    Borrowed(&'m Buffer),
    Owned(Buffer),
}

impl Cow<'_> {
    #[inline(always)]
    fn get(&self) -> &Buffer {
        match self {
            Cow::Borrowed(buffer) => buffer,
            Cow::Owned(buffer) => buffer,
        }
    }
}

impl<'m> DeviceMemory<'m> {
    /// Module variables start every run with their initial values.
    pub(crate) fn new(memory: &'m Memory, program: &Program) -> Result<Self, SimError> {
        let mut buffers: Vec<Option<Slot<'m>>> =
            memory.buffers().map(|buffer| buffer.map(|b| Slot::new(Cow::Borrowed(b)))).collect();
        let host_buffers = buffers.len();
        for data in &program.globals {
            let buffer = Buffer::with_contents(&data.name, &data.bytes)?;
            buffers.push(Some(Slot::new(Cow::Owned(buffer))));
        }
        Ok(DeviceMemory { buffers, host_buffers, locations: Locations::default() })
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
        Some((slot.buffer.get(), &slot.footprint))
    }

    /// A buffer that kernels may write, with what they did to it.
    #[inline(always)]
    pub(crate) fn history(&self, number: usize) -> Option<(&Buffer, &GlobalHistory)> {
        let slot = self.buffers.get(number)?.as_ref()?;
        Some((slot.buffer.get(), slot.history.as_ref()?))
    }

    /// Device address of the first byte of a buffer.
    pub(crate) fn address(&self, number: usize) -> u64 {
        match number.checked_sub(self.host_buffers) {
            Some(variable) => address::static_buffer(variable),
            None => address::buffer(number),
        }
    }
}

/// Offset of an address in its buffer.
#[inline(always)]
pub(crate) fn offset(address: u64) -> u64 {
    address & ((1 << address::BUFFER_SHIFT) - 1)
}
