//! Addresses in brackets.

use super::Operands;
use crate::decode::scope::File;
use crate::error::SimError;
use crate::program::{Address, ShortAddress, Slot};
use crate::ptx::ast::Operand;

impl<'n> Operands<'n> {
    /// `[base + offset]`.
    pub(in crate::decode) fn address(&mut self, index: usize) -> Result<Address, SimError> {
        let (address, more) = self.address_with(index)?;
        if !more.is_empty() {
            return self.fail("coordinates are not supported in this address");
        }
        Ok(address)
    }

    /// `[base + offset]` in fewer bytes.
    pub(in crate::decode) fn short_address(
        &mut self,
        index: usize,
    ) -> Result<ShortAddress, SimError> {
        let address = self.address(index)?;
        self.shorten(address)
    }

    /// `[map, {c0, c1, ...}]`: address of a tensor map and `rank` 32-bit coordinates.
    pub(in crate::decode) fn tensor_address(
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
}
