//! Turns the operands of one instruction into slots, checking kinds and widths.

use std::collections::HashMap;

use super::scope::{File, Files, Register, Scope};
use super::symbols::{Layout, SymbolAddress};
use crate::error::SimError;
use crate::program::{Address, PredicateSource, ShortAddress, Slot, Special};
use crate::ptx::ast::{InstructionSyntax, Operand};

/// Everything names resolve to while a kernel is decoded.
pub(super) struct Names<'a> {
    /// Open scopes, innermost last.
    pub scopes: Vec<Scope<'a>>,
    pub files: Files,
    pub layout: Layout,
    pub specials: HashMap<Special, Slot>,
}

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

/// What [`Operands`] needs of [`Names`], free of its lifetime.
pub(super) trait NameLookup {
    fn register(&mut self, name: &str) -> Option<Option<Register>>;
    fn symbol(&self, name: &str) -> Option<SymbolAddress>;
    fn label(&self, name: &str) -> Option<u32>;
    fn files(&mut self) -> &mut Files;
    fn special(&mut self, special: Special) -> Option<Slot>;
}

impl NameLookup for Names<'_> {
    fn register(&mut self, name: &str) -> Option<Option<Register>> {
        let files = &mut self.files;
        self.scopes.iter_mut().rev().find_map(|scope| scope.register(name, files))
    }

    fn symbol(&self, name: &str) -> Option<SymbolAddress> {
        let in_body = self.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        in_body.or_else(|| self.layout.symbols.get(name)).copied()
    }

    fn label(&self, name: &str) -> Option<u32> {
        self.scopes.iter().rev().find_map(|scope| scope.labels.get(name)).copied()
    }

    fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    fn special(&mut self, special: Special) -> Option<Slot> {
        if let Some(&slot) = self.specials.get(&special) {
            return Some(slot);
        }
        let slot = self.files.allocate(File::R32)?;
        self.specials.insert(special, slot);
        Some(slot)
    }
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
        if fits && register.file != File::Predicate && (register.bits == 64 || bits <= 32) {
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

    fn predicate_register(&mut self, operand: &Operand) -> Result<Option<Register>, SimError> {
        let register = self.register(operand)?;
        Ok((register.file == File::Predicate).then_some(register))
    }

    /// Destination predicate.
    pub(super) fn predicate_destination(&mut self, index: usize) -> Result<Slot, SimError> {
        let operand = self.operand(index)?;
        self.predicate_destination_operand(operand)
    }

    fn predicate_destination_operand(&mut self, operand: &Operand) -> Result<Slot, SimError> {
        if *operand == Operand::Sink {
            let slot = self.names.files().allocate(File::Predicate);
            return self.full(slot);
        }
        match self.predicate_register(operand)? {
            Some(register) => Ok(self.note_write(register)),
            None => self.fail("expected a predicate register"),
        }
    }

    /// Source predicate, possibly negated or a literal.
    pub(super) fn predicate(&mut self, index: usize) -> Result<PredicateSource, SimError> {
        let operand = self.operand(index)?;
        if let Operand::Int(value) = operand {
            let slot = self.names.files().constant_predicate(*value != 0);
            return Ok(PredicateSource { slot: self.full(slot)?, negated: false });
        }
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Negated(name) => (name, true),
            other => return self.fail(format!("expected a predicate, found {other:?}")),
        };
        match self.lookup(name)? {
            Some(register) if register.file == File::Predicate => {
                Ok(PredicateSource { slot: self.note_read(register), negated })
            }
            _ => self.fail(format!("`{name}` is not a predicate register")),
        }
    }

    fn carry(&mut self) -> Result<Register, SimError> {
        let slot = self.names.files().carry();
        Ok(Register { file: File::Predicate, slot: self.full(slot)?, bits: 1 })
    }

    /// The carry flag `CC.CF` as a source.
    pub(super) fn carry_source(&mut self) -> Result<Slot, SimError> {
        let carry = self.carry()?;
        Ok(self.note_read(carry))
    }

    /// The carry flag `CC.CF` as a destination.
    pub(super) fn carry_destination(&mut self) -> Result<Slot, SimError> {
        let carry = self.carry()?;
        Ok(self.note_write(carry))
    }

    /// `d|p`, or `d` alone: the 32-bit destination and the predicate.
    pub(super) fn destination_and_predicate(
        &mut self,
        index: usize,
    ) -> Result<(Slot, Option<Slot>), SimError> {
        match self.operand(index)? {
            Operand::Pair(d, p) => {
                Ok((self.destination_operand(d, 32)?, Some(self.predicate_destination_operand(p)?)))
            }
            single => Ok((self.destination_operand(single, 32)?, None)),
        }
    }

    /// `p|q`, or `p` alone.
    pub(super) fn predicate_pair(
        &mut self,
        index: usize,
    ) -> Result<(Slot, Option<Slot>), SimError> {
        match self.operand(index)? {
            Operand::Pair(p, q) => Ok((
                self.predicate_destination_operand(p)?,
                Some(self.predicate_destination_operand(q)?),
            )),
            single => Ok((self.predicate_destination_operand(single)?, None)),
        }
    }

    /// Elements of a vector operand; a lone operand counts as one element.
    fn elements(&self, index: usize) -> Result<&'n [Operand], SimError> {
        let operand = self.operand(index)?;
        Ok(match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        })
    }

    /// Number of elements of operand `index`, 0 when it is missing.
    pub(super) fn element_count(&self, index: usize) -> usize {
        self.elements(index).map_or(0, <[Operand]>::len)
    }

    /// Whether operand `index` is an address in brackets.
    pub(super) fn is_address(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Address { .. }))
    }

    /// Whether operand `index` is `_`.
    pub(super) fn is_sink(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Sink))
    }

    /// Whether operand `index` is written in braces.
    pub(super) fn is_vector(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Vector(_)))
    }

    /// `COUNT` source registers of exactly `bits` bits, of which `used` must be written.
    pub(super) fn source_vector<const COUNT: usize>(
        &mut self,
        index: usize,
        used: usize,
        bits: u32,
    ) -> Result<[Slot; COUNT], SimError> {
        let elements = self.checked_elements(index, used)?;
        let mut slots = [0; COUNT];
        for (slot, element) in slots.iter_mut().zip(elements) {
            *slot = self.source_operand(element, bits)?;
        }
        Ok(slots)
    }

    /// `COUNT` destination registers of exactly `bits` bits, of which `used` must be written.
    pub(super) fn destination_vector<const COUNT: usize>(
        &mut self,
        index: usize,
        used: usize,
        bits: u32,
    ) -> Result<[Slot; COUNT], SimError> {
        let elements = self.checked_elements(index, used)?;
        let mut slots = [0; COUNT];
        for (slot, element) in slots.iter_mut().zip(elements) {
            *slot = self.destination_operand(element, bits)?;
        }
        Ok(slots)
    }

    fn checked_elements(&self, index: usize, used: usize) -> Result<&'n [Operand], SimError> {
        let elements = self.elements(index)?;
        if elements.len() != used {
            return self.fail(format!(
                "operand {} has {} elements, expected {used}",
                index + 1,
                elements.len()
            ));
        }
        Ok(elements)
    }

    /// Data registers of a load: slots and whether they are in the 64-bit file.
    pub(super) fn load_registers(
        &mut self,
        index: usize,
        used: usize,
        bits: u32,
    ) -> Result<([Slot; 8], bool), SimError> {
        let elements = self.checked_elements(index, used)?;
        let mut wide = bits == 64;
        for element in elements {
            if let Operand::Name(name) = element {
                wide |= self.lookup(name)?.is_some_and(|r| r.file == File::R64);
            }
        }
        let mut slots = [0; 8];
        for (slot, element) in slots.iter_mut().zip(elements) {
            let found = if *element == Operand::Sink {
                (self.sink(if wide { 64 } else { 32 })?, wide)
            } else {
                self.loose_destination_operand(element, bits)?
            };
            if found.1 != wide {
                return self.fail("data registers of different widths");
            }
            *slot = found.0;
        }
        Ok((slots, wide))
    }

    /// Data registers of a store: slots and whether they are in the 64-bit file.
    pub(super) fn store_registers(
        &mut self,
        index: usize,
        used: usize,
        bits: u32,
    ) -> Result<([Slot; 8], bool), SimError> {
        let elements = self.checked_elements(index, used)?;
        let mut slots = [0; 8];
        let mut wide = None;
        for (slot, element) in slots.iter_mut().zip(elements) {
            let found = self.loose_source_operand(element, bits)?;
            if *wide.get_or_insert(found.1) != found.1 {
                return self.fail("data registers of different widths");
            }
            *slot = found.0;
        }
        Ok((slots, wide.unwrap_or(false)))
    }

    /// `[base + offset]`.
    pub(super) fn address(&mut self, index: usize) -> Result<Address, SimError> {
        let (address, more) = self.address_with(index)?;
        if !more.is_empty() {
            return self.fail("coordinates are not supported in this address");
        }
        Ok(address)
    }

    /// `[base + offset]` in fewer bytes.
    pub(super) fn short_address(&mut self, index: usize) -> Result<ShortAddress, SimError> {
        let address = self.address(index)?;
        self.shorten(address)
    }

    /// `[map, {c0, c1, ...}]`: address of a tensor map and `rank` 32-bit coordinates.
    pub(super) fn tensor_address(
        &mut self,
        index: usize,
        rank: usize,
    ) -> Result<(ShortAddress, [Slot; 5]), SimError> {
        let (address, more) = self.address_with(index)?;
        let [Operand::Vector(coordinates)] = more else {
            return self.fail("a tensor address is `[map, {coordinates}]`");
        };
        if coordinates.len() != rank {
            let given = coordinates.len();
            return self.fail(format!("{given} coordinates for {rank} dimensions"));
        }
        let mut slots = [0; 5];
        for (slot, coordinate) in slots.iter_mut().zip(coordinates) {
            *slot = self.source_operand(coordinate, 32)?;
        }
        Ok((self.shorten(address)?, slots))
    }

    fn shorten(&self, address: Address) -> Result<ShortAddress, SimError> {
        match i32::try_from(address.offset) {
            Ok(offset) => Ok(ShortAddress { base: address.base, wide: address.wide, offset }),
            Err(_) => self.fail("an address offset of more than 32 bits"),
        }
    }

    /// An address with what follows it in the brackets.
    fn address_with(&mut self, index: usize) -> Result<(Address, &'n [Operand]), SimError> {
        let operand = self.operand(index)?;
        let Operand::Address { base, offset, more } = operand else {
            return self.fail(format!("operand {} must be an address in brackets", index + 1));
        };
        if let Operand::Name(name) = base.as_ref() {
            if let Some(register) = self.lookup(name)? {
                if !matches!(register.bits, 32 | 64) {
                    return self.fail("an address register must have 32 or 64 bits");
                }
                let wide = register.file == File::R64;
                let base = self.note_read(register);
                return Ok((Address { base, wide, offset: *offset }, more));
            }
        }
        let base = match base.as_ref() {
            Operand::Int(value) => self.integer_bits(*value, 64)?,
            Operand::Name(name) => self.symbol(name, 0)?,
            other => return self.fail(format!("address base {other:?}")),
        };
        let base = self.constant(base, 64)?;
        Ok((Address { base, wide: true, offset: *offset }, more))
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

fn special_register(name: &str) -> Option<Special> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, 3),
    };
    if axis < 3 {
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            "%clusterid" => Special::ClusterId(axis),
            "%nclusterid" => Special::ClusterCount(axis),
            "%cluster_ctaid" => Special::ClusterCtaid(axis),
            "%cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%smid" => Special::SmId,
        "%nsmid" => Special::SmCount,
        "%gridid" => Special::GridId,
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::TotalSharedBytes,
        "%cluster_ctarank" => Special::ClusterCtaRank,
        "%cluster_nctarank" => Special::ClusterCtaCount,
        _ => return None,
    })
}
