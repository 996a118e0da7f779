//! Vectors of registers in braces.

use super::Operands;
use crate::decode::scope::{File, Register};
use crate::error::SimError;
use crate::program::Slot;
use crate::ptx::ast::Operand;

impl<'n> Operands<'n> {
    /// Elements of a vector operand; a lone operand counts as one element.
    fn elements(&self, index: usize) -> Result<&'n [Operand], SimError> {
        let operand = self.operand(index)?;
        Ok(match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        })
    }

    /// Number of elements of operand `index`, 0 when it is missing.
    pub(in crate::decode) fn element_count(&self, index: usize) -> usize {
        self.elements(index).map_or(0, <[Operand]>::len)
    }

    /// Whether operand `index` is an address in brackets.
    pub(in crate::decode) fn is_address(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Address { .. }))
    }

    /// Whether operand `index` is `_`.
    pub(in crate::decode) fn is_sink(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Sink))
    }

    /// Whether operand `index` is written in braces.
    pub(in crate::decode) fn is_vector(&self, index: usize) -> bool {
        matches!(self.syntax.operands.get(index), Some(Operand::Vector(_)))
    }

    /// `COUNT` source registers of exactly `bits` bits, of which `used` must be written.
    pub(in crate::decode) fn source_vector<const COUNT: usize>(
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
    pub(in crate::decode) fn destination_vector<const COUNT: usize>(
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

    /// The halves of a 128-bit source, low first: a register, or two of 64 bits in braces.
    pub(in crate::decode) fn source_pair(&mut self, index: usize) -> Result<[Slot; 2], SimError> {
        if self.is_vector(index) {
            return self.source_vector(index, 2, 64);
        }
        let [low, high] = self.halves(index)?;
        Ok([self.note_read(low), self.note_read(high)])
    }

    /// The halves of a 128-bit destination.
    pub(in crate::decode) fn destination_pair(
        &mut self,
        index: usize,
    ) -> Result<[Slot; 2], SimError> {
        if self.is_vector(index) {
            return self.destination_vector(index, 2, 64);
        }
        if self.is_sink(index) {
            return Ok([self.sink(64)?, self.sink(64)?]);
        }
        let [low, high] = self.halves(index)?;
        Ok([self.note_write(low), self.note_write(high)])
    }

    fn halves(&mut self, index: usize) -> Result<[Register; 2], SimError> {
        let operand = self.operand(index)?;
        let register = self.register(operand)?;
        if register.bits != 128 {
            return self.fail(format!("a {}-bit register where 128 are needed", register.bits));
        }
        let low = Register { bits: 64, ..register };
        Ok([low, Register { slot: low.upper, ..low }])
    }

    /// Data registers of a load: slots and whether they are in the 64-bit file.
    pub(in crate::decode) fn load_registers(
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
    pub(in crate::decode) fn store_registers(
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
}
