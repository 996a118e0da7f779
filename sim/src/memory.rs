//! Device memory: buffers with definedness, shared by the worker threads of a run.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::address;
use crate::error::SimError;

/// What kernels may do with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Stores and atomics are findings.
    ReadOnly,
    /// Everything is allowed.
    ReadWrite,
}

/// Names an allocation of one [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(usize);

impl BufferId {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// Device memory of a simulated GPU.
///
/// Buffers lie 2^36 bytes apart. Their bytes are undefined until written, by the host or by a
/// kernel; a kernel that reads undefined bytes gets zeros and a finding.
#[derive(Debug, Default)]
pub struct Memory {
    buffers: Vec<Option<Buffer>>,
}

impl Memory {
    /// Memory without buffers.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Allocates `bytes` undefined bytes. Pages are touched only when used, so large buffers of
    /// which a run reads little are cheap.
    ///
    /// # Errors
    /// When `bytes` is 0, above 2^36 or not available.
    pub fn alloc(
        &mut self,
        name: &str,
        bytes: usize,
        access: Access,
    ) -> Result<BufferId, SimError> {
        if bytes == 0 || bytes as u64 > 1 << address::BUFFER_SHIFT {
            return Err(SimError::Memory(format!("buffer `{name}` cannot have {bytes} bytes")));
        }
        if self.buffers.len() as u64 >= address::FIRST_STATIC_BUFFER - 1 {
            return Err(SimError::Memory("too many buffers".to_owned()));
        }
        self.buffers.push(Some(Buffer::new(name, bytes, access)?));
        Ok(BufferId(self.buffers.len() - 1))
    }

    fn buffer(&self, id: BufferId) -> Result<&Buffer, SimError> {
        match self.buffers.get(id.0) {
            Some(Some(buffer)) => Ok(buffer),
            _ => Err(SimError::Memory(format!("buffer {} does not exist or was freed", id.0))),
        }
    }

    fn range(&self, id: BufferId, offset: usize, length: usize) -> Result<&Buffer, SimError> {
        let buffer = self.buffer(id)?;
        match offset.checked_add(length) {
            Some(end) if end <= buffer.len() => Ok(buffer),
            _ => Err(SimError::Memory(format!(
                "bytes {offset}+{length} are outside buffer `{}` of {} bytes",
                buffer.name,
                buffer.len()
            ))),
        }
    }

    /// Writes and thereby defines bytes.
    ///
    /// # Errors
    /// When the range is outside the buffer.
    pub fn write(&mut self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), SimError> {
        let buffer = self.range(id, offset, bytes.len())?;
        // SAFETY: the range was checked, and `&mut self` excludes every other access.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.data.at(offset), bytes.len());
        }
        buffer.define_range(offset..offset + bytes.len());
        Ok(())
    }

    /// Copies bytes out, defined or not (undefined ones read as what was last there, at first 0).
    ///
    /// # Errors
    /// When the range is outside the buffer.
    pub fn read(&self, id: BufferId, offset: usize, length: usize) -> Result<Vec<u8>, SimError> {
        let buffer = self.range(id, offset, length)?;
        let mut bytes = vec![0; length];
        // SAFETY: the range was checked; kernels write only while `run` holds `&mut Memory`.
        unsafe {
            std::ptr::copy_nonoverlapping(buffer.data.at(offset), bytes.as_mut_ptr(), length);
        }
        Ok(bytes)
    }

    /// Whether every byte of the range is defined; false for a range outside the buffer.
    pub fn is_defined(&self, id: BufferId, range: Range<usize>) -> bool {
        match self.range(id, range.start, range.len()) {
            Ok(buffer) => range.into_iter().all(|offset| buffer.is_defined(offset, 1)),
            Err(_) => false,
        }
    }

    /// Makes the whole buffer undefined again; its bytes stay readable by the host.
    ///
    /// # Errors
    /// When the buffer does not exist.
    pub fn undefine(&mut self, id: BufferId) -> Result<(), SimError> {
        let buffer = self.buffer(id)?;
        buffer.all_defined.store(false, Ordering::Relaxed);
        buffer.defined.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        Ok(())
    }

    /// Device address of the first byte.
    pub fn address(&self, id: BufferId) -> u64 {
        address::buffer(id.0)
    }

    /// Size in bytes, 0 for a freed buffer.
    pub fn size(&self, id: BufferId) -> usize {
        self.buffer(id).map_or(0, Buffer::len)
    }

    /// Releases a buffer; later accesses to its address are out of bounds.
    pub fn free(&mut self, id: BufferId) {
        if let Some(slot) = self.buffers.get_mut(id.0) {
            *slot = None;
        }
    }

    pub(crate) fn buffers(&self) -> impl Iterator<Item = Option<&Buffer>> {
        self.buffers.iter().map(Option::as_ref)
    }
}

/// Zeroed bytes at 32-byte alignment that threads access through relaxed atomics.
#[derive(Debug)]
struct Storage {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the pointer is owned; all shared access goes through atomics (see `Buffer`).
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    fn new(bytes: usize) -> Option<Storage> {
        let layout = Layout::from_size_align(bytes.next_multiple_of(32), 32).ok()?;
        // SAFETY: the layout has a non-zero size because callers ask for at least one byte.
        let start = unsafe { alloc_zeroed(layout) };
        (!start.is_null()).then_some(Storage { start, layout })
    }

    /// Pointer to a byte. `offset` must be inside the storage.
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.layout.size());
        // SAFETY: callers checked the offset against the buffer's length.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// One allocation.
///
/// Kernel accesses are relaxed atomics of the access's own width, so thread blocks that race read
/// one of the values, as on the device (with accesses of different widths, some mix of bytes). Ordering comes from the kernel's
/// fences and atomics, which the executors map to sequentially consistent ones. The definedness
/// bit of a byte is set after its value is stored.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub name: String,
    pub access: Access,
    length: usize,
    data: Storage,
    all_defined: AtomicBool,
    /// One bit per byte.
    defined: Box<[AtomicU64]>,
}

/// A zeroed slice of atomics that is not touched until used.
pub(crate) fn zeroed_atomics(count: usize) -> Box<[AtomicU64]> {
    let words: Box<[u64]> = vec![0u64; count].into_boxed_slice();
    // SAFETY: `AtomicU64` has the same size, alignment and bit validity as `u64`.
    unsafe { Box::from_raw(Box::into_raw(words) as *mut [AtomicU64]) }
}

impl Buffer {
    pub(crate) fn new(name: &str, bytes: usize, access: Access) -> Result<Buffer, SimError> {
        let Some(data) = Storage::new(bytes) else {
            return Err(SimError::Memory(format!("no room for buffer `{name}` of {bytes} bytes")));
        };
        Ok(Buffer {
            name: name.to_owned(),
            access,
            length: bytes,
            data,
            all_defined: AtomicBool::new(false),
            defined: zeroed_atomics(bytes.div_ceil(64)),
        })
    }

    /// A read-write buffer with the given contents.
    pub(crate) fn with_contents(name: &str, bytes: &[u8]) -> Result<Buffer, SimError> {
        let buffer = Buffer::new(name, bytes.len().max(1), Access::ReadWrite)?;
        // SAFETY: the storage holds at least `bytes.len()` bytes and is not shared yet.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.data.at(0), bytes.len());
        }
        buffer.define_range(0..buffer.len());
        Ok(buffer)
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Loads `bytes` (1, 2, 4 or 8) at an aligned offset inside the buffer, zero-extended.
    #[inline(always)]
    pub(crate) fn load(&self, offset: usize, bytes: u32) -> u64 {
        debug_assert!(offset % bytes as usize == 0 && offset + bytes as usize <= self.length);
        let at = self.data.at(offset);
        // SAFETY: inside the storage and aligned to the width, as callers check; the storage is
        // only accessed through atomics while threads share it.
        unsafe {
            match bytes {
                1 => u64::from(AtomicU8::from_ptr(at).load(Ordering::Relaxed)),
                2 => u64::from(AtomicU16::from_ptr(at.cast()).load(Ordering::Relaxed)),
                4 => u64::from(AtomicU32::from_ptr(at.cast()).load(Ordering::Relaxed)),
                _ => AtomicU64::from_ptr(at.cast()).load(Ordering::Relaxed),
            }
        }
    }

    /// Stores the low `bytes` (1, 2, 4 or 8) of `value` at an aligned offset inside the buffer.
    #[inline(always)]
    pub(crate) fn store(&self, offset: usize, bytes: u32, value: u64) {
        debug_assert!(offset % bytes as usize == 0 && offset + bytes as usize <= self.length);
        let at = self.data.at(offset);
        // SAFETY: as in `load`.
        unsafe {
            match bytes {
                1 => AtomicU8::from_ptr(at).store(value as u8, Ordering::Relaxed),
                2 => AtomicU16::from_ptr(at.cast()).store(value as u16, Ordering::Relaxed),
                4 => AtomicU32::from_ptr(at.cast()).store(value as u32, Ordering::Relaxed),
                _ => AtomicU64::from_ptr(at.cast()).store(value, Ordering::Relaxed),
            }
        }
    }

    /// Replaces the value at an aligned offset by `update(old)` atomically; returns the old one.
    pub(crate) fn update(&self, offset: usize, bytes: u32, update: impl Fn(u64) -> u64) -> u64 {
        let at = self.data.at(offset);
        let (set, get) = (Ordering::SeqCst, Ordering::SeqCst);
        macro_rules! fetch_update {
            ($atomic:ty, $value:ty) => {{
                // SAFETY: as in `load`.
                let cell = unsafe { <$atomic>::from_ptr(at.cast()) };
                let old = cell.fetch_update(set, get, |old| Some(update(u64::from(old)) as $value));
                u64::from(old.unwrap_or_else(|old| old))
            }};
        }
        match bytes {
            2 => fetch_update!(AtomicU16, u16),
            4 => fetch_update!(AtomicU32, u32),
            _ => fetch_update!(AtomicU64, u64),
        }
    }

    /// The same for 16 bytes as two words, low first. One such update at a time: the machine has no
    /// atomic of this width that every target offers.
    pub(crate) fn update_wide(
        &self,
        offset: usize,
        update: impl Fn([u64; 2]) -> [u64; 2],
    ) -> [u64; 2] {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let old = [self.load(offset, 8), self.load(offset + 8, 8)];
        let [low, high] = update(old);
        self.store(offset, 8, low);
        self.store(offset + 8, 8, high);
        old
    }

    /// Whether the whole buffer is known to be defined.
    #[inline(always)]
    pub(crate) fn is_all_defined(&self) -> bool {
        self.all_defined.load(Ordering::Relaxed)
    }

    /// Whether `bytes` (at most 32, a power of two) at an aligned offset are all defined.
    #[inline(always)]
    pub(crate) fn is_defined(&self, offset: usize, bytes: u32) -> bool {
        if self.is_all_defined() {
            return true;
        }
        let mask = ((1u64 << bytes) - 1) << (offset % 64);
        self.defined[offset / 64].load(Ordering::Relaxed) & mask == mask
    }

    /// Marks `bytes` (at most 32, a power of two) at an aligned offset as defined.
    #[inline(always)]
    pub(crate) fn define(&self, offset: usize, bytes: u32) {
        if self.all_defined.load(Ordering::Relaxed) {
            return;
        }
        let mask = ((1u64 << bytes) - 1) << (offset % 64);
        let word = &self.defined[offset / 64];
        // Most stores hit bytes that are defined already; skip the locked instruction then.
        if word.load(Ordering::Relaxed) & mask != mask {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    fn define_range(&self, range: Range<usize>) {
        if range.start == 0 && range.end == self.length {
            self.all_defined.store(true, Ordering::Relaxed);
            return;
        }
        let mut at = range.start;
        while at < range.end {
            let bits = (64 - at % 64).min(range.end - at);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            self.defined[at / 64].fetch_or(mask, Ordering::Relaxed);
            at += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_undefined_until_written_and_read_back_as_written() {
        let mut memory = Memory::new();
        let id = memory.alloc("x", 200, Access::ReadWrite).unwrap();
        memory.write(id, 60, &[7; 70]).unwrap();
        assert!(memory.is_defined(id, 60..130));
        assert!(!memory.is_defined(id, 59..61) && !memory.is_defined(id, 129..131));
        assert_eq!(memory.read(id, 59, 3).unwrap(), [0, 7, 7]);
        memory.undefine(id).unwrap();
        assert!(!memory.is_defined(id, 60..61));
    }

    #[test]
    fn ranges_outside_and_freed_buffers_are_errors() {
        let mut memory = Memory::new();
        let id = memory.alloc("x", 8, Access::ReadOnly).unwrap();
        assert!(memory.write(id, 1, &[0; 8]).is_err());
        assert!(memory.read(id, usize::MAX, 2).is_err());
        memory.free(id);
        assert!(memory.read(id, 0, 1).is_err());
        assert!(memory.alloc("empty", 0, Access::ReadOnly).is_err());
    }

    #[test]
    fn buffers_lie_two_to_the_36_apart_and_null_is_not_mapped() {
        let mut memory = Memory::new();
        let a = memory.alloc("a", 8, Access::ReadOnly).unwrap();
        let b = memory.alloc("b", 8, Access::ReadOnly).unwrap();
        assert_eq!(memory.address(b) - memory.address(a), 1 << 36);
        assert_ne!(memory.address(a), 0);
    }
}
