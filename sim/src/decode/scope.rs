//! Register files, nested name scopes and labels of one kernel.

use std::collections::HashMap;

use super::sharing::Places;
use crate::program::Slot;
use crate::ptx::ast::{RegisterRange, ScalarType};

/// A register's place and declared width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Register {
    pub file: File,
    pub slot: Slot,
    /// Slot of the upper half of a 128-bit register, else the same.
    pub upper: Slot,
    /// Declared width; 1 for predicates.
    pub bits: u32,
}

/// The three register files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum File {
    R32,
    R64,
    Predicate,
}

/// Hands out slots and interns constants.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Registers named so far by file, and slots they take.
    counts: [usize; 3],
    extents: [usize; 3],
    places: Places,
    pub constants32: HashMap<u32, Slot>,
    pub constants64: HashMap<u64, Slot>,
    pub constant_predicates: HashMap<bool, Slot>,
    carry: Option<Slot>,
}

impl Files {
    /// Files whose registers get these places, or without any a slot each.
    pub(super) fn new(places: Places) -> Files {
        Files { places, ..Files::default() }
    }

    /// Slots taken so far in a file.
    pub(super) fn count(&self, file: File) -> usize {
        self.extents[file as usize]
    }

    /// The slot of a further register; `None` when the file is full.
    pub(super) fn allocate(&mut self, file: File) -> Option<Slot> {
        let count = &mut self.counts[file as usize];
        let own = Slot::try_from(*count).ok()?;
        let slot = self.places.slot(file, *count).unwrap_or(own);
        *count += 1;
        let extent = &mut self.extents[file as usize];
        *extent = (*extent).max(usize::from(slot) + 1);
        Some(slot)
    }

    /// Slot of the carry flag, a predicate.
    pub(super) fn carry(&mut self) -> Option<Slot> {
        if self.carry.is_none() {
            self.carry = self.allocate(File::Predicate);
        }
        self.carry
    }

    /// Slot of a 32-bit constant.
    pub(super) fn constant32(&mut self, value: u32) -> Option<Slot> {
        if let Some(&slot) = self.constants32.get(&value) {
            return Some(slot);
        }
        let slot = self.allocate(File::R32)?;
        self.constants32.insert(value, slot);
        Some(slot)
    }

    /// Slot of a 64-bit constant.
    pub(super) fn constant64(&mut self, value: u64) -> Option<Slot> {
        if let Some(&slot) = self.constants64.get(&value) {
            return Some(slot);
        }
        let slot = self.allocate(File::R64)?;
        self.constants64.insert(value, slot);
        Some(slot)
    }

    /// Slot of a constant predicate.
    pub(super) fn constant_predicate(&mut self, value: bool) -> Option<Slot> {
        if let Some(&slot) = self.constant_predicates.get(&value) {
            return Some(slot);
        }
        let slot = self.allocate(File::Predicate)?;
        self.constant_predicates.insert(value, slot);
        Some(slot)
    }
}

/// A declared range; slots are given out when a register is first used, because NVRTC declares far
/// more registers than a kernel keeps.
#[derive(Debug)]
struct Range<'a> {
    prefix: &'a str,
    count: u32,
    ty: ScalarType,
    used: HashMap<u32, Register>,
}

/// Names of one `{ }` scope.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    single: HashMap<&'a str, Register>,
    ranges: Vec<Range<'a>>,
    /// Label name to label number.
    pub labels: HashMap<&'a str, u32>,
    /// Names of `.branchtargets` to their numbers.
    pub tables: HashMap<&'a str, u32>,
    /// Variable name to space-relative address.
    pub variables: HashMap<&'a str, super::symbols::SymbolAddress>,
}

fn file_of(ty: ScalarType) -> (File, u32) {
    match ty {
        ScalarType::Pred => (File::Predicate, 1),
        ScalarType::Bits(bits @ (64 | 128)) => (File::R64, bits),
        ScalarType::Bits(bits) => (File::R32, bits),
    }
}

fn allocate(files: &mut Files, ty: ScalarType) -> Option<Register> {
    let (file, bits) = file_of(ty);
    let slot = files.allocate(file)?;
    let upper = if bits == 128 { files.allocate(file)? } else { slot };
    Some(Register { file, slot, upper, bits })
}

impl<'a> Scope<'a> {
    /// Adds a declaration; `None` when the register file is full.
    pub(super) fn declare(&mut self, range: &'a RegisterRange, files: &mut Files) -> Option<()> {
        match range.count {
            None => {
                let register = allocate(files, range.ty)?;
                self.single.insert(&range.name, register);
            }
            Some(count) => self.ranges.push(Range {
                prefix: &range.name,
                count,
                ty: range.ty,
                used: HashMap::new(),
            }),
        }
        Some(())
    }

    /// Looks a register up. `Some(None)` means declared, but the register file is full.
    pub(super) fn register(&mut self, name: &str, files: &mut Files) -> Option<Option<Register>> {
        if let Some(&register) = self.single.get(name) {
            return Some(Some(register));
        }
        for range in &mut self.ranges {
            let Some(digits) = name.strip_prefix(range.prefix) else { continue };
            let Ok(index) = digits.parse::<u32>() else { continue };
            // `%r01` is not a member of `%r<n>`.
            if index >= range.count || (digits.len() > 1 && digits.starts_with('0')) {
                continue;
            }
            if let Some(&register) = range.used.get(&index) {
                return Some(Some(register));
            }
            let register = allocate(files, range.ty);
            if let Some(register) = register {
                range.used.insert(index, register);
            }
            return Some(register);
        }
        None
    }
}
