//! Reading numbers and strings in order, never past the end.

use crate::container::BadHeader;

/// A position in a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The start of a file.
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes before the position.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `count` bytes, which `what` is made of.
    pub(super) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], BadHeader> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(count).ok().filter(|count| *count <= left) {
            Some(count) => {
                self.at += count;
                Ok(&self.bytes[self.at - count..self.at])
            }
            None => Err(BadHeader::file(format!(
                "ends within {what}: {count} bytes are needed at byte {}, {left} are left",
                self.at
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], BadHeader> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    /// The next 16-bit number.
    pub(super) fn u16(&mut self, what: &str) -> Result<u16, BadHeader> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32, BadHeader> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64, BadHeader> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next string: its length, then its bytes.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, BadHeader> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes)
            .map_err(|_| BadHeader::file(format!("holds {what} that is not UTF-8")))
    }

    /// Passes over the next string, whatever its bytes.
    pub(super) fn skip_string(&mut self, what: &str) -> Result<(), BadHeader> {
        let length = self.u64(what)?;
        self.take(length, what).map(|_| ())
    }
}
