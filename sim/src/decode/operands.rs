//! Turns the operands of one instruction into slots, checking kinds and widths.

mod address;
mod names;
mod predicate;
mod vector;

use super::scope::{File, Register};
use crate::error::SimError;
use crate::program::Slot;
use crate::ptx::ast::{InstructionSyntax, Operand};
use names::special_register;
pub(super) use names::{NameLookup, Names};

/// The operands of the instruction being decoded; records which registers it reads and writes.
pub(super) struct Operands<'n> {
    names: &'n mut dyn NameLookup,
    syntax: &'n InstructionSyntax,
    pub(super) reads: Vec<(File, Slot)>,
    pub(super) writes: Vec<(File, Slot)>,
    /// See [`crate::program::Instruction::propagates_undefined`].
    pub(super) propagates_undefined: bool,
    /// Class chosen by the builder where the state space decides it.
    pub(super) class: Option<crate::counters::Class>,
}

const FULL: &str = "the kernel uses more than 65536 registers and constants";

impl<'n> Operands<'n> {
    pub(super) fn new(names: &'n mut dyn NameLookup, syntax: &'n InstructionSyntax) -> Self {
        Operands {
            names,
            syntax,
            reads: Vec::new(),
            writes: Vec::new(),
            propagates_undefined: false,
            class: None,
        }
    }

    pub(super) fn fail<T>(&self, reason: impl Into<String>) -> Result<T, SimError> {
        Err(SimError::Decode {
            line: self.syntax.line,
            instruction: self.syntax.opcode.clone(),
            reason: reason.into(),
        })
    }

    fn full(&self, slot: Option<Slot>) -> Result<Slot, SimError> {
        slot.map_or_else(|| self.fail(FULL), Ok)
    }

    /// The opcode with all its modifiers.
    pub(super) fn opcode(&self) -> &'n str {
        &self.syntax.opcode
    }

    /// Number of operands written.
    pub(super) fn len(&self) -> usize {
        self.syntax.operands.len()
    }

    /// Checks the number of operands.
    pub(super) fn expect(&self, counts: std::ops::RangeInclusive<usize>) -> Result<(), SimError> {
        if counts.contains(&self.len()) {
            return Ok(());
        }
        self.fail(format!("{} operands, expected {counts:?}", self.len()))
    }

    fn operand(&self, index: usize) -> Result<&'n Operand, SimError> {
        match self.syntax.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.fail(format!("operand {} is missing", index + 1)),
        }
    }

    fn lookup(&mut self, name: &str) -> Result<Option<Register>, SimError> {
        match self.names.register(name) {
            Some(Some(register)) => Ok(Some(register)),
            Some(None) => self.fail(FULL),
            None => Ok(None),
        }
    }

    /// A register operand of any file.
    fn register(&mut self, operand: &Operand) -> Result<Register, SimError> {
        match operand {
            Operand::Name(name) => match self.lookup(name)? {
                Some(register) => Ok(register),
                None => self.fail(format!("`{name}` is not a declared register")),
            },
            other => self.fail(format!("expected a register, found {other:?}")),
        }
    }

    fn note_read(&mut self, register: Register) -> Slot {
        self.reads.push((register.file, register.slot));
        register.slot
    }

    fn note_write(&mut self, register: Register) -> Slot {
        self.writes.push((register.file, register.slot));
        register.slot
    }

    fn check_width(&self, register: Register, bits: u32, exact: bool) -> Result<(), SimError> {
        let fits = if exact { register.bits == bits } else { register.bits >= bits };
        let same_file = register.bits == 64 || register.bits <= 32 && bits <= 32;
        if fits && register.file != File::Predicate && same_file {
            return Ok(());
        }
        self.fail(format!("a {}-bit register where {bits} bits are needed", register.bits))
    }

    fn source_operand(&mut self, operand: &Operand, bits: u32) -> Result<Slot, SimError> {
        if let Operand::Name(name) = operand {
            if let Some(register) = self.lookup(name)? {
                self.check_width(register, bits, true)?;
                return Ok(self.note_read(register));
            }
        }
        self.constant_operand(operand, bits)
    }

    /// Immediate, symbol address or special register as a source of `bits`.
    fn constant_operand(&mut self, operand: &Operand, bits: u32) -> Result<Slot, SimError> {
        let value = match operand {
            Operand::Int(value) => self.integer_bits(*value, bits)?,
            Operand::Float32(value) if bits == 32 => u64::from(*value),
            Operand::Float64(value) if bits == 64 => *value,
            Operand::Float64(value) if bits == 32 => {
                u64::from((f64::from_bits(*value) as f32).to_bits())
            }
            Operand::Name(name) if name.starts_with('%') => return self.special(name, bits),
            Operand::Name(name) if name == "WARP_SZ" => 32,
            Operand::Name(name) => self.symbol(name, 0)?,
            Operand::SymbolOffset { name, offset } => self.symbol(name, *offset)?,
            other => return self.fail(format!("operand {other:?} does not fit {bits} bits")),
        };
        self.constant(value, bits)
    }

    fn integer_bits(&self, value: i128, bits: u32) -> Result<u64, SimError> {
        let low = -(1i128 << (bits - 1));
        if value < low || value >= 1i128 << bits {
            return self.fail(format!("literal {value} does not fit {bits} bits"));
        }
        let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        Ok(value as u64 & mask)
    }

    fn symbol(&self, name: &str, offset: i64) -> Result<u64, SimError> {
        match self.names.symbol(name) {
            Some(symbol) => Ok(symbol.address.wrapping_add_signed(offset)),
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    /// Slot of a constant in the file that `bits` implies.
    pub(super) fn constant(&mut self, value: u64, bits: u32) -> Result<Slot, SimError> {
        let files = self.names.files();
        let slot =
            if bits == 64 { files.constant64(value) } else { files.constant32(value as u32) };
        self.full(slot)
    }

    fn special(&mut self, name: &str, bits: u32) -> Result<Slot, SimError> {
        let Some(special) = special_register(name) else {
            return self.fail(format!("`{name}` is neither a declared nor a special register"));
        };
        if bits != 32 {
            return self.fail(format!("special register `{name}` has 32 bits, not {bits}"));
        }
        let slot = self.names.special(special);
        self.full(slot)
    }

    /// Source operand `index` of exactly `bits` bits.
    pub(super) fn source(&mut self, index: usize, bits: u32) -> Result<Slot, SimError> {
        let operand = self.operand(index)?;
        self.source_operand(operand, bits)
    }

    /// Source whose register may be wider than `bits` (`cvt`, `st`): slot and whether it lies in
    /// the 64-bit file.
    pub(super) fn loose_source(
        &mut self,
        index: usize,
        bits: u32,
    ) -> Result<(Slot, bool), SimError> {
        let operand = self.operand(index)?;
        self.loose_source_operand(operand, bits)
    }

    fn loose_source_operand(
        &mut self,
        operand: &Operand,
        bits: u32,
    ) -> Result<(Slot, bool), SimError> {
        if let Operand::Name(name) = operand {
            if let Some(register) = self.lookup(name)? {
                self.check_width(register, bits, false)?;
                return Ok((self.note_read(register), register.file == File::R64));
            }
        }
        Ok((self.constant_operand(operand, bits)?, bits == 64))
    }

    fn destination_operand(&mut self, operand: &Operand, bits: u32) -> Result<Slot, SimError> {
        if *operand == Operand::Sink {
            return self.sink(bits);
        }
        let register = self.register(operand)?;
        self.check_width(register, bits, true)?;
        Ok(self.note_write(register))
    }

    /// A register nobody reads, for `_`.
    fn sink(&mut self, bits: u32) -> Result<Slot, SimError> {
        let file = if bits == 64 { File::R64 } else { File::R32 };
        let slot = self.names.files().allocate(file);
        self.full(slot)
    }

    /// Destination operand `index` of exactly `bits` bits; `_` gives an unused register.
    pub(super) fn destination(&mut self, index: usize, bits: u32) -> Result<Slot, SimError> {
        let operand = self.operand(index)?;
        self.destination_operand(operand, bits)
    }

    /// Destination whose register may be wider (`cvt`, `ld`): slot and whether it lies in the
    /// 64-bit file.
    pub(super) fn loose_destination(
        &mut self,
        index: usize,
        bits: u32,
    ) -> Result<(Slot, bool), SimError> {
        let operand = self.operand(index)?;
        self.loose_destination_operand(operand, bits)
    }

    fn loose_destination_operand(
        &mut self,
        operand: &Operand,
        bits: u32,
    ) -> Result<(Slot, bool), SimError> {
        if *operand == Operand::Sink {
            return Ok((self.sink(bits)?, bits == 64));
        }
        let register = self.register(operand)?;
        self.check_width(register, bits, false)?;
        Ok((self.note_write(register), register.file == File::R64))
    }

    /// Number of the label named by operand `index`.
    pub(super) fn label(&self, index: usize) -> Result<u32, SimError> {
        match self.operand(index)? {
            Operand::Name(name) => match self.names.label(name) {
                Some(label) => Ok(label),
                None => self.fail(format!("label `{name}` is not in scope")),
            },
            other => self.fail(format!("expected a label, found {other:?}")),
        }
    }

    /// Number of the `.branchtargets` named by operand `index`.
    pub(super) fn table(&self, index: usize) -> Result<u32, SimError> {
        match self.operand(index)? {
            Operand::Name(name) => match self.names.table(name) {
                Some(table) => Ok(table),
                None => self.fail(format!("no `.branchtargets` `{name}` in scope")),
            },
            other => self.fail(format!("expected the name of `.branchtargets`, found {other:?}")),
        }
    }

    /// An integer literal in `range`.
    pub(super) fn literal(
        &self,
        index: usize,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, SimError> {
        match self.operand(index)? {
            Operand::Int(value) => match u32::try_from(*value) {
                Ok(value) if range.contains(&value) => Ok(value),
                _ => self.fail(format!("literal {value} is outside {range:?}")),
            },
            other => self.fail(format!("expected a literal, found {other:?}")),
        }
    }

    /// An integer literal of either sign.
    pub(super) fn signed_literal(&self, index: usize) -> Result<i128, SimError> {
        match self.operand(index)? {
            Operand::Int(value) => Ok(*value),
            other => self.fail(format!("expected a literal, found {other:?}")),
        }
    }

    /// Declared width of the register in operand `index`; `None` for anything else.
    pub(super) fn register_bits(&mut self, index: usize) -> Option<u32> {
        match self.syntax.operands.get(index)? {
            Operand::Name(name) => self.lookup(name).ok().flatten().map(|r| r.bits),
            _ => None,
        }
    }

    /// The name written as operand `index`, if it is one.
    pub(super) fn name(&self, index: usize) -> Option<&'n str> {
        match self.syntax.operands.get(index)? {
            Operand::Name(name) => Some(name),
            _ => None,
        }
    }
}
