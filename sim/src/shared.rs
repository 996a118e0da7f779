//! Shared memory of one thread block: bytes, definedness and race detection.
//!
//! Race detection is an epoch scheme (after FastTrack, Flanagan and Freund 2009): all accesses
//! between two completed barriers form a generation; two accesses of one generation to the same
//! byte by different warps, one of them a write, are a race. A barrier that joins only part of the
//! warps also starts a generation, so races across it can be missed, never invented. Within a
//! warp, program order holds.
//!
//! A word that is the target of a pending `cp.async` carries a mark; touching it before the copy
//! was waited for is reported even where the data happens to be there already.

/// Generation of words that no access has touched.
const NEVER: u32 = 0;
/// Write generation of words with a pending asynchronous copy.
const PENDING: u32 = u32::MAX;

/// Race state of one 4-byte word.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    write_generation: u32,
    read_generation: u32,
    /// Warps that read in `read_generation`.
    readers: u32,
    writer: u8,
    /// Bytes of the word written in `write_generation`, one bit each.
    written: u8,
    /// Bytes read in `read_generation`.
    read: u8,
}

/// Two accesses without an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Another warp wrote.
    WrittenBy(u32),
    /// Another warp read (the lowest of them).
    ReadBy(u32),
    /// An asynchronous copy issued by this warp has not been waited for.
    Pending(u32),
}

/// Shared memory with its shadow state.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    data: Vec<u8>,
    /// One bit per byte.
    defined: Vec<u64>,
    words: Vec<Word>,
    generation: u32,
}

impl SharedMemory {
    pub(crate) fn new(bytes: usize) -> SharedMemory {
        // Rounded up so that word-wise shadow lookups stay inside.
        let padded = bytes.next_multiple_of(64);
        SharedMemory {
            data: vec![0; bytes],
            defined: vec![0; padded / 64],
            words: vec![Word::default(); padded / 4],
            generation: NEVER + 1,
        }
    }

    /// Everything undefined and untouched again, for the next block.
    pub(crate) fn reset(&mut self) {
        self.defined.fill(0);
        self.words.fill(Word::default());
        self.generation = NEVER + 1;
    }

    pub(crate) fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// A barrier completed: what happened before is ordered before what follows.
    pub(crate) fn next_generation(&mut self) {
        self.generation = (self.generation + 1).min(PENDING - 1);
    }

    /// Little-endian value of up to 8 bytes inside the memory.
    #[inline(always)]
    pub(crate) fn load(&self, at: usize, bytes: usize) -> u64 {
        match bytes {
            1 => u64::from(self.data[at]),
            2 => u64::from(u16::from_le_bytes([self.data[at], self.data[at + 1]])),
            4 => u64::from(self.load32(at)),
            _ => u64::from(self.load32(at)) | u64::from(self.load32(at + 4)) << 32,
        }
    }

    #[inline(always)]
    pub(crate) fn load32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.data[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    /// Four 32-bit words.
    #[inline(always)]
    pub(crate) fn load_row(&self, at: usize) -> [u32; 4] {
        let bytes = &self.data[at..at + 16];
        std::array::from_fn(|i| {
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        })
    }

    /// Stores the low `bytes` of `value` and defines them.
    #[inline(always)]
    pub(crate) fn store(&mut self, at: usize, bytes: usize, value: u64) {
        self.data[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.define(at, bytes);
    }

    /// Copies up to 16 bytes in and defines them.
    pub(crate) fn store_bytes(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.define(at, bytes.len());
    }

    #[inline(always)]
    fn define(&mut self, at: usize, bytes: usize) {
        self.defined[at / 64] |= ((1u64 << bytes) - 1) << (at % 64);
    }

    /// Whether `bytes` (a power of two up to 32) at an aligned address are all defined.
    #[inline(always)]
    pub(crate) fn is_defined(&self, at: usize, bytes: usize) -> bool {
        let mask = ((1u64 << bytes) - 1) << (at % 64);
        self.defined[at / 64] & mask == mask
    }

    fn byte_mask(at: usize, bytes: usize) -> u8 {
        if bytes >= 4 {
            0xF
        } else {
            ((1u8 << bytes) - 1) << (at % 4)
        }
    }

    /// Notes a read by a warp and checks it against earlier writes.
    #[inline(always)]
    pub(crate) fn note_read(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        let mask = Self::byte_mask(at, bytes);
        let generation = self.generation;
        let mut conflict = None;
        for word in &mut self.words[at / 4..(at + bytes).div_ceil(4)] {
            let fresh = word.write_generation >= generation;
            if fresh && word.written & mask != 0 {
                if word.write_generation == PENDING {
                    conflict = Some(Conflict::Pending(u32::from(word.writer)));
                } else if u32::from(word.writer) != warp {
                    conflict = Some(Conflict::WrittenBy(u32::from(word.writer)));
                }
            }
            if word.read_generation == generation {
                word.readers |= 1 << warp;
                word.read |= mask;
            } else {
                word.read_generation = generation;
                word.readers = 1 << warp;
                word.read = mask;
            }
        }
        conflict
    }

    /// Notes a write by a warp and checks it against earlier accesses.
    #[inline(always)]
    pub(crate) fn note_write(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        self.write_words(at, bytes, warp, self.generation)
    }

    /// Notes the issue of an asynchronous copy: a write that stays pending.
    pub(crate) fn note_async_issue(
        &mut self,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        self.write_words(at, bytes, warp, PENDING)
    }

    #[inline(always)]
    fn write_words(&mut self, at: usize, bytes: usize, warp: u32, mark: u32) -> Option<Conflict> {
        let mask = Self::byte_mask(at, bytes);
        let generation = self.generation;
        let mut conflict = None;
        for word in &mut self.words[at / 4..(at + bytes).div_ceil(4)] {
            let others = word.readers & !(1 << warp);
            if word.read_generation == generation && others != 0 && word.read & mask != 0 {
                conflict = Some(Conflict::ReadBy(others.trailing_zeros()));
            }
            if word.write_generation >= generation {
                if word.written & mask != 0 {
                    if word.write_generation == PENDING {
                        conflict = Some(Conflict::Pending(u32::from(word.writer)));
                    } else if u32::from(word.writer) != warp {
                        conflict = Some(Conflict::WrittenBy(u32::from(word.writer)));
                    }
                }
                word.written |= mask;
            } else {
                word.written = mask;
            }
            word.write_generation = mark;
            word.writer = warp as u8;
        }
        conflict
    }

    /// The copy into these bytes was waited for: from now on it is a write of this generation.
    pub(crate) fn note_async_done(&mut self, at: usize, bytes: usize) {
        let generation = self.generation;
        for word in &mut self.words[at / 4..(at + bytes).div_ceil(4)] {
            if word.write_generation == PENDING {
                word.write_generation = generation;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_after_another_warps_read_races_until_a_barrier() {
        let mut shared = SharedMemory::new(64);
        assert_eq!(shared.note_read(0, 16, 1), None);
        assert_eq!(shared.note_write(8, 4, 0), Some(Conflict::ReadBy(1)));
        shared.next_generation();
        assert_eq!(shared.note_write(8, 4, 2), None);
        assert_eq!(shared.note_read(8, 4, 2), None);
        assert_eq!(shared.note_read(8, 4, 3), Some(Conflict::WrittenBy(2)));
    }

    #[test]
    fn warps_may_write_neighbouring_bytes_of_one_word() {
        let mut shared = SharedMemory::new(64);
        assert_eq!(shared.note_write(0, 2, 0), None);
        assert_eq!(shared.note_write(2, 2, 1), None);
        assert_eq!(shared.note_write(3, 1, 0), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn pending_copies_conflict_with_every_access_until_they_are_done() {
        let mut shared = SharedMemory::new(64);
        assert_eq!(shared.note_async_issue(16, 16, 0), None);
        assert_eq!(shared.note_read(20, 4, 0), Some(Conflict::Pending(0)));
        shared.next_generation();
        assert_eq!(shared.note_write(16, 4, 1), Some(Conflict::Pending(0)));
        let mut shared = SharedMemory::new(64);
        shared.note_async_issue(16, 16, 0);
        shared.note_async_done(16, 16);
        assert_eq!(shared.note_read(20, 4, 0), None);
        assert_eq!(shared.note_read(20, 4, 1), Some(Conflict::WrittenBy(0)));
    }
}
