//! Reads cubins: what ptxas decided about each kernel, without a driver or a tool.
//!
//! A cubin is a 64-bit ELF file. Per kernel `K` it has the sections `.text.K` (machine code, see
//! [`crate::sass`]), `.nv.info.K` (attributes), `.nv.constant0.K` (parameters) and `.nv.shared.K`
//! (static shared memory); `.nv.info` holds registers and stack of all kernels. The attribute
//! format is not documented by NVIDIA; the numbers here are those that `cuobjdump -elf` names.
//!
//! Spilled *bytes* are only in the compiler's log. What a cubin tells is the stack frame
//! ([`Resources::stack_bytes`]) and the local loads and stores in the machine code.

mod elf;
mod error;
#[cfg(test)]
mod tests;

pub use error::CubinError;

use elf::{Bytes, Elf};
use serde::{Deserialize, Serialize};

/// Bytes of shared memory that the system keeps per thread block (CUDA programming guide,
/// "Compute capabilities", from 8.0 on). On sm_90 and later they are part of the section size.
pub const SHARED_RESERVE_BYTES: u32 = 1024;
/// First generation whose `.nv.shared` sections include the reserve.
const RESERVE_IN_SECTION_SM: u32 = 90;

/// A parsed cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// Compute capability without its feature suffix: 90 for `sm_90a`.
    pub sm: u32,
    /// Every kernel, in the order of the sections.
    pub kernels: Vec<Kernel>,
}

/// One kernel of a cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Entry name, as `cuModuleGetFunction` takes it.
    pub name: String,
    /// What it asks of the hardware.
    pub resources: Resources,
    /// Machine code: 16-byte instructions, see [`crate::sass::Program::decode`].
    pub text: Vec<u8>,
}

/// Static resources of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes of local memory per thread: spills and local arrays.
    pub stack_bytes: u32,
    /// Static shared memory per thread block in bytes, without [`SHARED_RESERVE_BYTES`].
    pub static_shared_bytes: u32,
    /// Most threads per block from `__launch_bounds__`, as x, y, z.
    pub max_threads: Option<[u32; 3]>,
    /// Exact block shape from `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// Named barriers used.
    pub barriers: u32,
    /// Whether `setmaxnreg` moves registers between warpgroups, so that
    /// [`Self::registers`] is only the allocation at launch.
    pub reconfigures_registers: bool,
    /// Bytes of the whole parameter block.
    pub param_bytes: u32,
    /// Parameters by ordinal.
    pub params: Vec<Param>,
}

/// One kernel parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Offset in the parameter block, in bytes.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

impl Cubin {
    /// Parses a cubin.
    ///
    /// # Errors
    /// [`CubinError`] for anything that is not a whole, well-formed cubin. Never panics, whatever
    /// the bytes.
    pub fn parse(file: &[u8]) -> Result<Cubin, CubinError> {
        let elf = Elf::parse(file)?;
        let sm = sm_version(&elf)?;
        let mut kernels = Vec::new();
        let mut text_len = 0;
        for section in &elf.sections {
            // A text section without attributes holds a device function, not a kernel.
            let Some(name) = section.name.strip_prefix(".text.") else { continue };
            let Some(info) = elf.section(&format!(".nv.info.{name}")) else { continue };
            let text = elf.contents(section)?;
            text_len += text.len();
            if text_len > file.len() {
                let value = text_len as u64;
                return Err(CubinError::BadValue { what: "the length of overlapping code", value });
            }
            kernels.push(Kernel {
                name: name.to_owned(),
                resources: resources(&elf, sm, name, elf.contents(info)?)?,
                text: text.to_vec(),
            });
        }
        Ok(Cubin { sm, kernels })
    }

    /// The kernel called `name`.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}

/// The SM version sits in bits 8..16 of `e_flags` from ABI version 8 on, in bits 0..8 before
/// (seen in the output of CUDA 12.9 and 13.x).
fn sm_version(elf: &Elf<'_>) -> Result<u32, CubinError> {
    let sm = if elf.abi_version >= 8 { elf.flags >> 8 & 0xff } else { elf.flags & 0xff };
    if !(50..=150).contains(&sm) {
        return Err(CubinError::BadValue { what: "the SM version", value: u64::from(sm) });
    }
    Ok(sm)
}

/// Attribute numbers of `.nv.info` sections that are read.
mod attribute {
    pub const MAX_THREADS: u8 = 0x05;
    pub const REQNTID: u8 = 0x10;
    pub const FRAME_SIZE: u8 = 0x11;
    pub const KPARAM_INFO: u8 = 0x17;
    pub const CBANK_PARAM_SIZE: u8 = 0x19;
    pub const REGCOUNT: u8 = 0x2f;
    pub const NUM_BARRIERS: u8 = 0x4c;
    pub const REG_RECONFIG: u8 = 0x54;
}

/// One record of a `.nv.info` section.
struct Record<'a> {
    attribute: u8,
    /// The 16-bit value of the short formats.
    half: u16,
    /// The payload of the long format; empty for the short ones.
    payload: Bytes<'a>,
}

/// Splits a `.nv.info` section: `u8 format, u8 attribute, u16 half`; format 4 is followed by
/// `half` bytes of payload.
fn records(section: &[u8]) -> Result<Vec<Record<'_>>, CubinError> {
    const WHAT: &str = "an attribute";
    let bytes = Bytes(section);
    let mut records = Vec::new();
    let mut at = 0u64;
    while at < section.len() as u64 {
        let head = bytes.slice(at, 4, WHAT)?;
        let half = bytes.u16(at + 2, WHAT)?;
        let payload_len = match head[0] {
            1..=3 => 0,
            4 => u64::from(half),
            other => {
                let value = u64::from(other);
                return Err(CubinError::BadValue { what: "the format of an attribute", value });
            }
        };
        let payload = Bytes(bytes.slice(at + 4, payload_len, WHAT)?);
        records.push(Record { attribute: head[1], half, payload });
        at += 4 + payload_len;
    }
    Ok(records)
}

fn resources(elf: &Elf<'_>, sm: u32, kernel: &str, info: &[u8]) -> Result<Resources, CubinError> {
    let mut resources = Resources::default();
    let global = elf.section(".nv.info").map_or(Ok(&[][..]), |s| elf.contents(s))?;
    let mut registers = None;
    for record in records(global)? {
        match record.attribute {
            attribute::REGCOUNT => {
                registers = per_symbol(elf, &record, kernel)?.or(registers);
            }
            attribute::FRAME_SIZE => {
                let frame = per_symbol(elf, &record, kernel)?;
                resources.stack_bytes = frame.unwrap_or(resources.stack_bytes);
            }
            _ => {}
        }
    }
    resources.registers = registers
        .ok_or_else(|| CubinError::Missing { kernel: kernel.to_owned(), what: "register count" })?;
    resources.static_shared_bytes = static_shared(elf, sm, kernel)?;
    kernel_attributes(info, &mut resources)?;
    Ok(resources)
}

/// The value of a `(symbol, value)` record if its symbol is `kernel`.
fn per_symbol(elf: &Elf<'_>, record: &Record<'_>, kernel: &str) -> Result<Option<u32>, CubinError> {
    let index = record.payload.u32(0, "a symbol index")?;
    let value = record.payload.u32(4, "an attribute's value")?;
    let symbol = usize::try_from(index).ok().and_then(|i| elf.symbols.get(i));
    let symbol =
        symbol.ok_or(CubinError::BadValue { what: "a symbol index", value: u64::from(index) })?;
    Ok((*symbol == kernel).then_some(value))
}

fn static_shared(elf: &Elf<'_>, sm: u32, kernel: &str) -> Result<u32, CubinError> {
    let Some(section) = elf.section(&format!(".nv.shared.{kernel}")) else { return Ok(0) };
    let size = u32::try_from(section.size)
        .map_err(|_| CubinError::BadValue { what: "static shared memory", value: section.size })?;
    let reserve = if sm >= RESERVE_IN_SECTION_SM { SHARED_RESERVE_BYTES } else { 0 };
    Ok(size.saturating_sub(reserve))
}

fn kernel_attributes(info: &[u8], resources: &mut Resources) -> Result<(), CubinError> {
    let mut params: Vec<(u16, Param)> = Vec::new();
    for record in records(info)? {
        match record.attribute {
            attribute::MAX_THREADS => resources.max_threads = Some(triple(&record)?),
            attribute::REQNTID => resources.required_threads = Some(triple(&record)?),
            attribute::CBANK_PARAM_SIZE => resources.param_bytes = u32::from(record.half),
            attribute::NUM_BARRIERS => resources.barriers = u32::from(record.half & 0xff),
            attribute::REG_RECONFIG => resources.reconfigures_registers = true,
            attribute::KPARAM_INFO => params.push(param(&record)?),
            _ => {}
        }
    }
    params.sort_by_key(|(ordinal, _)| *ordinal);
    resources.params = params.into_iter().map(|(_, param)| param).collect();
    Ok(())
}

fn triple(record: &Record<'_>) -> Result<[u32; 3], CubinError> {
    const WHAT: &str = "a launch bound";
    let word = |i| record.payload.u32(i, WHAT);
    Ok([word(0)?, word(4)?, word(8)?])
}

/// `u32 index, u16 ordinal, u16 offset, u32 flags`; the size is the top 14 bits of the flags.
fn param(record: &Record<'_>) -> Result<(u16, Param), CubinError> {
    const WHAT: &str = "a parameter";
    let ordinal = record.payload.u16(4, WHAT)?;
    let offset = u32::from(record.payload.u16(6, WHAT)?);
    let size = record.payload.u32(8, WHAT)? >> 18;
    Ok((ordinal, Param { offset, size }))
}
