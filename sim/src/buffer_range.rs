//! Access to ranges of a buffer, for bulk copies.

use std::ops::Range;

use crate::memory::Buffer;

/// Pieces of naturally aligned words that make up a range: offset and bytes of each.
fn words(range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let left = range.end.checked_sub(at).filter(|&left| left > 0)?;
        let size = [8, 4, 2, 1].into_iter().find(|&size| at % size == 0 && size <= left)?;
        at += size;
        Some((at - size, size))
    })
}

impl Buffer {
    /// Reads bytes inside the buffer.
    pub(crate) fn read_range(&self, offset: usize, bytes: &mut [u8]) {
        for (at, size) in words(offset..offset + bytes.len()) {
            let value = self.load(at, size as u32).to_le_bytes();
            bytes[at - offset..][..size].copy_from_slice(&value[..size]);
        }
    }

    /// Writes and defines bytes inside the buffer.
    pub(crate) fn write_range(&self, offset: usize, bytes: &[u8]) {
        for (at, size) in words(offset..offset + bytes.len()) {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at - offset..][..size]);
            self.store(at, size as u32, u64::from_le_bytes(value));
            self.define(at, size as u32);
        }
    }

    /// Whether every byte of a range inside the buffer is defined.
    pub(crate) fn is_range_defined(&self, range: Range<usize>) -> bool {
        words(range).all(|(at, size)| self.is_defined(at, size as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Access;

    #[test]
    fn ranges_of_any_alignment_are_read_and_written_exactly() {
        let buffer = Buffer::new("x", 64, Access::ReadWrite).unwrap();
        let bytes: Vec<u8> = (1..=37).collect();
        buffer.write_range(5, &bytes);
        let mut back = vec![0; 39];
        buffer.read_range(4, &mut back);
        assert_eq!((back[0], &back[1..38], back[38]), (0, &bytes[..], 0));
        assert!(buffer.is_range_defined(5..42));
        assert!(!buffer.is_range_defined(4..42) && !buffer.is_range_defined(5..43));
    }
}
