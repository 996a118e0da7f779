//! The little of ELF that cubins need: sections by name, symbols by index.
//!
//! Layouts from the System V ABI, chapter 4 (ELF-64). Every offset is checked, because a cubin may
//! come from a damaged cache.

use super::error::CubinError;

/// `e_machine` of NVIDIA CUDA.
const EM_CUDA: u16 = 190;
const SECTION_ENTRY_LEN: u64 = 64;
const SEGMENT_ENTRY_LEN: u64 = 56;
const SYMBOL_LEN: usize = 24;
/// `sh_type` of a section that takes no bytes in the file.
const SHT_NOBITS: u32 = 8;
const SHT_SYMTAB: u32 = 2;
/// No compiler comes near; a damaged count must not cost memory or time.
const MAX_SECTIONS: u16 = 10_000;
/// As long as a mangled name may be, so that a damaged table costs no time.
const MAX_NAME_LEN: u64 = 4096;

/// Bytes of a file with checked little-endian reads.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// `len` bytes at `offset`.
    pub fn slice(self, offset: u64, len: u64, what: &'static str) -> Result<&'a [u8], CubinError> {
        let outside = CubinError::OutOfFile { what, offset, len: self.0.len() as u64 };
        let end = offset.checked_add(len).ok_or_else(|| outside.clone())?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        range.and_then(|(start, end)| self.0.get(start..end)).ok_or(outside)
    }

    fn array<const N: usize>(self, offset: u64, what: &'static str) -> Result<[u8; N], CubinError> {
        let bytes = self.slice(offset, N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// A 16-bit word.
    pub fn u16(self, offset: u64, what: &'static str) -> Result<u16, CubinError> {
        self.array(offset, what).map(u16::from_le_bytes)
    }

    /// A 32-bit word.
    pub fn u32(self, offset: u64, what: &'static str) -> Result<u32, CubinError> {
        self.array(offset, what).map(u32::from_le_bytes)
    }

    /// A 64-bit word.
    pub fn u64(self, offset: u64, what: &'static str) -> Result<u64, CubinError> {
        self.array(offset, what).map(u64::from_le_bytes)
    }

    /// The NUL-terminated text at `offset`, of at most [`MAX_NAME_LEN`] bytes.
    fn text(self, offset: u64, what: &'static str) -> Result<&'a str, CubinError> {
        let rest = (self.0.len() as u64).saturating_sub(offset);
        let bytes = self.slice(offset, rest.min(MAX_NAME_LEN), what)?;
        let text = bytes.split(|&b| b == 0).next().filter(|text| text.len() < bytes.len());
        text.and_then(|text| std::str::from_utf8(text).ok())
            .ok_or(CubinError::BadValue { what, value: offset })
    }
}

/// One section header with its name resolved.
pub(super) struct Section<'a> {
    pub name: &'a str,
    kind: u32,
    offset: u64,
    /// Size in bytes, in memory; a `NOBITS` section has none of them in the file.
    pub size: u64,
    link: u32,
}

/// A parsed file.
pub(super) struct Elf<'a> {
    pub bytes: Bytes<'a>,
    /// `e_flags`: holds the SM version.
    pub flags: u32,
    /// `EI_ABIVERSION`: 7 up to CUDA 12 for sm_90 and earlier, 8 later.
    pub abi_version: u8,
    pub sections: Vec<Section<'a>>,
    /// Names of the symbol table, by symbol index.
    pub symbols: Vec<&'a str>,
}

impl<'a> Elf<'a> {
    /// Reads headers, section names and symbol names. What it accepts lies in the file as a whole,
    /// so that a driver may read it, too.
    pub fn parse(file: &'a [u8]) -> Result<Elf<'a>, CubinError> {
        let bytes = Bytes(file);
        check_identity(bytes)?;
        let sections = sections(bytes)?;
        for section in &sections {
            contents(bytes, section)?;
        }
        check_segments(bytes)?;
        let symbols = symbols(bytes, &sections)?;
        Ok(Elf {
            bytes,
            flags: bytes.u32(0x30, "the ELF header")?,
            abi_version: file[8],
            sections,
            symbols,
        })
    }

    /// The section called `name`.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The bytes of a section; empty for `NOBITS`.
    pub fn contents(&self, section: &Section<'_>) -> Result<&'a [u8], CubinError> {
        contents(self.bytes, section)
    }
}

fn check_identity(bytes: Bytes<'_>) -> Result<(), CubinError> {
    let refuse = |reason| Err(CubinError::NotACubin { reason });
    let Ok(header) = bytes.slice(0, 64, "the ELF header") else {
        return refuse("it is shorter than an ELF header");
    };
    if &header[..4] != b"\x7fELF" {
        return refuse("it does not start with the ELF magic");
    }
    if header[4] != 2 || header[5] != 1 {
        return refuse("it is not 64-bit little-endian");
    }
    if bytes.u16(0x12, "the ELF header")? != EM_CUDA {
        return refuse("it is not for NVIDIA GPUs");
    }
    Ok(())
}

/// Checks that the segments, which only a driver reads, lie in the file.
fn check_segments(bytes: Bytes<'_>) -> Result<(), CubinError> {
    const WHAT: &str = "the segment table";
    let table = bytes.u64(0x20, WHAT)?;
    let entry_len = u64::from(bytes.u16(0x36, WHAT)?);
    let count = u64::from(bytes.u16(0x38, WHAT)?);
    if count > 0 && entry_len != SEGMENT_ENTRY_LEN {
        let what = "the length of a segment header";
        return Err(CubinError::BadValue { what, value: entry_len });
    }
    let headers = Bytes(bytes.slice(table, count * SEGMENT_ENTRY_LEN, WHAT)?);
    (0..count).try_for_each(|i| {
        let at = i * SEGMENT_ENTRY_LEN;
        let (offset, len) = (headers.u64(at + 8, WHAT)?, headers.u64(at + 32, WHAT)?);
        bytes.slice(offset, len, "a segment").map(drop)
    })
}

fn contents<'a>(bytes: Bytes<'a>, section: &Section<'_>) -> Result<&'a [u8], CubinError> {
    if section.kind == SHT_NOBITS {
        return Ok(&[]);
    }
    bytes.slice(section.offset, section.size, "a section")
}

fn sections(bytes: Bytes<'_>) -> Result<Vec<Section<'_>>, CubinError> {
    const WHAT: &str = "the section table";
    let table = bytes.u64(0x28, WHAT)?;
    let entry_len = bytes.u16(0x3a, WHAT)?;
    let count = bytes.u16(0x3c, WHAT)?;
    let names_index = bytes.u16(0x3e, WHAT)?;
    if u64::from(entry_len) != SECTION_ENTRY_LEN {
        let value = u64::from(entry_len);
        return Err(CubinError::BadValue { what: "the length of a section header", value });
    }
    if count > MAX_SECTIONS || names_index >= count {
        let value = u64::from(if count > MAX_SECTIONS { count } else { names_index });
        return Err(CubinError::BadValue { what: "the number of sections or of names", value });
    }
    let headers = bytes.slice(table, u64::from(count) * SECTION_ENTRY_LEN, WHAT)?;
    let headers = Bytes(headers);
    let names_at =
        headers.u64(u64::from(names_index) * SECTION_ENTRY_LEN + 24, "the section names")?;
    (0..u64::from(count))
        .map(|i| {
            let at = i * SECTION_ENTRY_LEN;
            let name_at = names_at.saturating_add(u64::from(headers.u32(at, WHAT)?));
            Ok(Section {
                name: bytes.text(name_at, "a section name")?,
                kind: headers.u32(at + 4, WHAT)?,
                offset: headers.u64(at + 24, WHAT)?,
                size: headers.u64(at + 32, WHAT)?,
                link: headers.u32(at + 40, WHAT)?,
            })
        })
        .collect()
}

fn symbols<'a>(bytes: Bytes<'a>, sections: &[Section<'a>]) -> Result<Vec<&'a str>, CubinError> {
    let Some(table) = sections.iter().find(|s| s.kind == SHT_SYMTAB) else { return Ok(Vec::new()) };
    let value = u64::from(table.link);
    let names = usize::try_from(value).ok().and_then(|link| sections.get(link));
    let names =
        names.ok_or(CubinError::BadValue { what: "the symbol table's string table", value })?;
    contents(bytes, table)?
        .chunks_exact(SYMBOL_LEN)
        .map(|entry| {
            let name_at = u64::from(Bytes(entry).u32(0, "a symbol")?);
            bytes.text(names.offset.saturating_add(name_at), "a symbol name")
        })
        .collect()
}
