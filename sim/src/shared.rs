//! Shared memory of one thread block: bytes, definedness and access history.

use std::ops::Range;

use crate::check::{Clocks, LaneAccess, LaneRaces, Races, VectorClock};
use crate::mbarrier::Mbarriers;
use crate::state::lanes;

/// Shared memory with its shadow state.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    data: Vec<u8>,
    /// One bit per byte.
    defined: Vec<u64>,
    pub races: Races,
    pub lanes: LaneRaces,
    pub mbarriers: Mbarriers,
    /// Last accesses of warps of other blocks.
    remote: VectorClock,
}

impl SharedMemory {
    /// Memory of the block whose `warps` warps are numbered from `first_warp` in its cluster.
    pub(crate) fn new(bytes: usize, first_warp: u32, warps: u32) -> SharedMemory {
        // Rounded up so that word-wise shadow lookups stay inside.
        let padded = bytes.next_multiple_of(64);
        SharedMemory {
            data: vec![0; bytes],
            defined: vec![0; padded / 64],
            races: Races::new(padded, first_warp, warps),
            lanes: LaneRaces::new(padded, warps as usize),
            mbarriers: Mbarriers::default(),
            remote: VectorClock::default(),
        }
    }

    /// Everything undefined and untouched again, for the next block.
    pub(crate) fn reset(&mut self) {
        self.defined.fill(0);
        self.races.reset();
        self.lanes.reset();
        self.mbarriers.clear();
        self.remote = VectorClock::default();
    }

    /// First byte of a range that is not defined.
    pub(crate) fn first_undefined(&self, range: Range<usize>) -> Option<usize> {
        let mut at = range.start;
        while at < range.end {
            let bits = (64 - at % 64).min(range.end - at);
            let missing = !self.defined[at / 64] >> (at % 64);
            let first = missing.trailing_zeros() as usize;
            if first < bits {
                return Some(at + first);
            }
            at += bits;
        }
        None
    }

    /// A lane of another warp whose earlier access to a range `warp` (of the cluster) does not know
    /// of, although it knows of that warp: it was left behind by the lanes whose release it heard.
    /// One of the accesses writes. Returns the warp (of the cluster), the lane, and what it did.
    #[cold]
    pub(crate) fn left_behind(
        &self,
        clocks: &Clocks,
        warp: u32,
        range: Range<usize>,
        access: LaneAccess,
    ) -> Option<(u32, usize, LaneAccess)> {
        self.lanes.last(range).find_map(|last| {
            let other = self.races.first_warp() + last.warp;
            if other == warp || last.kind == access && access != LaneAccess::Write {
                return None;
            }
            let clock = match last.kind {
                LaneAccess::Read => self.races.read_at(last.word, last.warp)?,
                _ => self.races.written_at(last.word, last.warp)?,
            };
            let release = clocks.lane_release(warp, other)?;
            let mut behind =
                lanes(last.lanes).filter(|&lane| !release.covers(lane, last.interval, clock));
            behind.next().map(|lane| (other, lane, last.kind))
        })
    }

    /// Notes an access by a warp of another block at its clock.
    pub(crate) fn note_remote(&mut self, warp: u32, clock: u32) {
        self.remote.raise(warp, clock);
    }

    /// Last accesses of warps of other blocks.
    pub(crate) fn remote(&self) -> &VectorClock {
        &self.remote
    }

    pub(crate) fn len(&self) -> u64 {
        self.data.len() as u64
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
        self.load_words(at)
    }

    /// `COUNT` 32-bit words from an address on.
    #[inline(always)]
    pub(crate) fn load_words<const COUNT: usize>(&self, at: usize) -> [u32; COUNT] {
        let bytes = &self.data[at..at + 4 * COUNT];
        let mut words = [0; COUNT];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    }

    /// Stores `COUNT` 32-bit words at an address that is a multiple of their size, and defines them.
    #[inline(always)]
    pub(crate) fn store_words<const COUNT: usize>(&mut self, at: usize, words: [u32; COUNT]) {
        let bytes = &mut self.data[at..at + 4 * COUNT];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.define(at, 4 * COUNT);
    }

    /// Stores the low `bytes` of `value` and defines them.
    #[inline(always)]
    pub(crate) fn store(&mut self, at: usize, bytes: usize, value: u64) {
        self.data[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.define(at, bytes);
    }

    /// Stores 16 bytes at an aligned address and defines them.
    #[inline(always)]
    pub(crate) fn store_row(&mut self, at: usize, bytes: &[u8; 16]) {
        self.data[at..at + 16].copy_from_slice(bytes);
        self.define(at, 16);
    }

    /// Copies up to 16 bytes in and defines them.
    pub(crate) fn store_bytes(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.define(at, bytes.len());
    }

    /// Stores any number of bytes and defines them.
    pub(crate) fn store_range(&mut self, at: usize, bytes: &[u8]) {
        self.update_range(at, bytes.len(), |old| old.copy_from_slice(bytes));
    }

    /// Changes any number of bytes in place and defines them.
    pub(crate) fn update_range(&mut self, at: usize, bytes: usize, f: impl FnOnce(&mut [u8])) {
        let end = at + bytes;
        f(&mut self.data[at..end]);
        let mut from = at;
        while from < end {
            let bits = (64 - from % 64).min(end - from);
            self.defined[from / 64] |= u64::MAX >> (64 - bits) << (from % 64);
            from += bits;
        }
    }

    /// Bytes of a range, defined or not.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.data[range]
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
}

#[cfg(test)]
mod tests {
    use super::SharedMemory;

    #[test]
    fn stores_define_exactly_their_bytes() {
        let mut shared = SharedMemory::new(100, 0, 1);
        shared.store(62, 2, 0xBEEF);
        shared.store_bytes(64, &[1, 2, 3, 4]);
        assert!(shared.is_defined(62, 2) && shared.is_defined(64, 4));
        assert!(!shared.is_defined(60, 4) && !shared.is_defined(68, 4));
        assert_eq!((shared.load(62, 2), shared.load32(64)), (0xBEEF, 0x0403_0201));
        assert_eq!(shared.first_undefined(62..68), None);
        assert_eq!(shared.first_undefined(62..100), Some(68));
        shared.reset();
        assert!(!shared.is_defined(62, 2));
    }
}
