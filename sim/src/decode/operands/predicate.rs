//! Predicates, pairs of destinations and the carry flag.

use super::Operands;
use crate::decode::scope::{File, Register};
use crate::error::SimError;
use crate::program::{PredicateSource, Slot};
use crate::ptx::ast::Operand;

impl Operands<'_> {
    fn predicate_register(&mut self, operand: &Operand) -> Result<Option<Register>, SimError> {
        let register = self.register(operand)?;
        Ok((register.file == File::Predicate).then_some(register))
    }

    /// Destination predicate.
    pub(in crate::decode) fn predicate_destination(
        &mut self,
        index: usize,
    ) -> Result<Slot, SimError> {
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
    pub(in crate::decode) fn predicate(
        &mut self,
        index: usize,
    ) -> Result<PredicateSource, SimError> {
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
        let slot = self.full(slot)?;
        Ok(Register { file: File::Predicate, slot, upper: slot, bits: 1 })
    }

    /// The carry flag `CC.CF` as a source.
    pub(in crate::decode) fn carry_source(&mut self) -> Result<Slot, SimError> {
        let carry = self.carry()?;
        Ok(self.note_read(carry))
    }

    /// The carry flag `CC.CF` as a destination.
    pub(in crate::decode) fn carry_destination(&mut self) -> Result<Slot, SimError> {
        let carry = self.carry()?;
        Ok(self.note_write(carry))
    }

    /// `d|p`, or `d` alone: the 32-bit destination and the predicate.
    pub(in crate::decode) fn destination_and_predicate(
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
    pub(in crate::decode) fn predicate_pair(
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
}
