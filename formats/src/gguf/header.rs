//! Reading and checking everything before the tensors' data.

use super::cursor::Cursor;
use super::{metadata, types};
use crate::container::{BadHeader, Header, HeaderEntry, Stored};
use crate::error::shown;
use std::collections::BTreeMap;

/// Longest name of a tensor in bytes, as in ggml.
const NAME_MAX: usize = 63;
/// Most dimensions of a tensor, as in ggml.
const DIMENSIONS_MAX: u32 = 4;

/// Reads the header of a file given all its bytes. Every entry of the result lies inside `bytes`,
/// has the size that its shape says, and the entries follow each other without holes but padding.
pub fn parse(bytes: &[u8]) -> Result<Header, BadHeader> {
    let mut cursor = Cursor::new(bytes);
    check_version(&mut cursor)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of metadata keys")?;
    let metadata = metadata::read(&mut cursor, key_count)?;
    // Counts are never believed, only counted down: every entry takes bytes of the file.
    let mut infos = Vec::new();
    for _ in 0..tensor_count {
        infos.push(Info::read(&mut cursor)?);
    }
    let align = |at: u64| at.checked_next_multiple_of(metadata.alignment.into());
    let position = cursor.position() as u64;
    let data_begin = align(position).ok_or_else(|| BadHeader::file("is too large"))?;
    let (mut tensors, mut offset) = (BTreeMap::new(), 0u64);
    for info in infos {
        let bad = |problem: String| BadHeader::tensor(info.name, problem);
        if info.offset != offset {
            let problem = format!("begins at byte {}, not {offset}, of the data", info.offset);
            return Err(bad(problem));
        }
        let size = info.bytes()?;
        let overflow = || bad("has a size that overflows".into());
        let begin = data_begin.checked_add(offset).ok_or_else(overflow)?;
        let end = begin.checked_add(size).ok_or_else(overflow)?;
        if end > bytes.len() as u64 {
            let held = bytes.len();
            return Err(bad(format!("ends at byte {end} of a file of {held} bytes")));
        }
        offset = align(offset + size).ok_or_else(overflow)?;
        // Both are at most the file's size, which is a usize.
        let (begin, end) = (begin as usize, end as usize);
        let entry = HeaderEntry { stored: info.stored, shape: info.shape.clone(), begin, end };
        if tensors.insert(info.name.to_string(), entry).is_some() {
            return Err(bad("is listed twice".into()));
        }
    }
    Ok(Header { tensors, part: metadata.part, ..Header::default() })
}

/// Checks the first words of a file.
fn check_version(cursor: &mut Cursor<'_>) -> Result<(), BadHeader> {
    if cursor.take(4, "the magic number")? != b"GGUF" {
        return Err(BadHeader::file("does not start with `GGUF`: not a GGUF file"));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        version if version & 0xffff == 0 && version != 0 => {
            Err(BadHeader::file("is a big-endian file, which is not read"))
        }
        version => Err(BadHeader::file(format!("has version {version}; 2 and 3 are read"))),
    }
}

/// What a file says of one tensor.
struct Info<'a> {
    name: &'a str,
    stored: Stored,
    /// Outermost first.
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
}

impl<'a> Info<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Info<'a>, BadHeader> {
        let name = cursor.string("the name of a tensor")?;
        let bad = |problem: String| BadHeader::tensor(name, problem);
        if name.len() > NAME_MAX {
            return Err(bad(format!("has a name of {} bytes, above {NAME_MAX}", name.len())));
        }
        let dimensions = cursor.u32("the dimensions of a tensor")?;
        if dimensions == 0 || dimensions > DIMENSIONS_MAX {
            return Err(bad(format!("has {dimensions} dimensions, not 1 to {DIMENSIONS_MAX}")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = cursor.u64("the dimensions of a tensor")?;
            let size = usize::try_from(size).ok().filter(|size| *size <= isize::MAX as usize);
            shape.push(size.ok_or_else(|| bad("has a dimension that is too large".into()))?);
        }
        shape.reverse();
        let number = cursor.u32("the type of a tensor")?;
        let offset = cursor.u64("the offset of a tensor")?;
        let stored = types::stored(number)
            .ok_or_else(|| bad(format!("has the type {number}, which files do not have")))?;
        Ok(Info { name, stored, shape, offset })
    }

    /// Bytes of the data, without padding.
    fn bytes(&self) -> Result<u64, BadHeader> {
        let (elements, bytes) = self.stored.unit();
        let bad = |problem: String| BadHeader::tensor(self.name, problem);
        let (inner, outer) = self.shape.split_last().map_or((1, [].as_slice()), |(i, o)| (*i, o));
        if inner % elements != 0 {
            let (name, shape) = (shown(&self.stored.to_string()), &self.shape);
            return Err(bad(format!("is {name} {shape:?}, whose rows are no whole blocks")));
        }
        let row = ((inner / elements) as u64).checked_mul(bytes as u64);
        let total = outer.iter().try_fold(row, |bytes, n| Some(bytes?.checked_mul(*n as u64)));
        total.flatten().ok_or_else(|| bad("has a shape whose size overflows".into()))
    }
}
