//! Operands and literals (PTX ISA 4.5 and 6).

use super::ast::Operand;
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::SimError;

impl Parser<'_, '_> {
    /// Comma-separated operands up to and including `;`.
    pub(super) fn operands(&mut self) -> Result<Vec<Operand>, SimError> {
        let mut operands = Vec::new();
        if self.accept(';') {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand()?);
            if !self.accept(',') {
                self.expect(';')?;
                return Ok(operands);
            }
        }
    }

    /// One operand, with `a|b` pairs.
    pub(super) fn operand(&mut self) -> Result<Operand, SimError> {
        let first = self.simple_operand()?;
        if self.accept('|') {
            let second = self.simple_operand()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn simple_operand(&mut self) -> Result<Operand, SimError> {
        match self.peek() {
            Some(TokenKind::Word("_")) => {
                self.advance();
                Ok(Operand::Sink)
            }
            Some(TokenKind::Word(name)) => {
                self.advance();
                let name = name.to_owned();
                Ok(match self.signed_offset()? {
                    Some(offset) => Operand::SymbolOffset { name, offset },
                    None => Operand::Name(name),
                })
            }
            Some(TokenKind::Number(text)) => {
                self.advance();
                self.literal(text, false)
            }
            Some(TokenKind::Punct('-')) => {
                self.advance();
                match self.peek() {
                    Some(TokenKind::Number(text)) => {
                        self.advance();
                        self.literal(text, true)
                    }
                    _ => self.error("expected a number after `-`"),
                }
            }
            Some(TokenKind::Punct('!')) => {
                self.advance();
                Ok(Operand::Negated(self.word("a predicate register")?.to_owned()))
            }
            Some(TokenKind::Punct('{')) => {
                self.advance();
                self.vector()
            }
            Some(TokenKind::Punct('[')) => {
                self.advance();
                self.address()
            }
            _ => self.error("expected an operand"),
        }
    }

    /// `+16`, `-16` or `+-16` after a name.
    fn signed_offset(&mut self) -> Result<Option<i64>, SimError> {
        let plus = self.accept('+');
        let minus = self.accept('-');
        if !plus && !minus {
            return Ok(None);
        }
        let Some(TokenKind::Number(text)) = self.peek() else {
            return self.error("expected a byte offset");
        };
        self.advance();
        match self.literal(text, minus)? {
            Operand::Int(value) => match i64::try_from(value) {
                Ok(offset) => Ok(Some(offset)),
                Err(_) => self.error("byte offset does not fit 64 bits"),
            },
            _ => self.error("byte offset must be an integer"),
        }
    }

    fn vector(&mut self) -> Result<Operand, SimError> {
        let mut elements = Vec::new();
        loop {
            if matches!(self.peek(), Some(TokenKind::Punct('{' | '['))) {
                return self.error("a vector holds registers, not further vectors");
            }
            elements.push(self.simple_operand()?);
            if !self.accept(',') {
                self.expect('}')?;
                return Ok(Operand::Vector(elements));
            }
        }
    }

    fn address(&mut self) -> Result<Operand, SimError> {
        if self.peek() == Some(TokenKind::Punct('[')) {
            return self.error("an address cannot hold another address");
        }
        let (base, offset) = match self.simple_operand()? {
            Operand::SymbolOffset { name, offset } => (Operand::Name(name), offset),
            name @ (Operand::Name(_) | Operand::Int(_)) => (name, 0),
            _ => return self.error("an address starts with a register, a symbol or a number"),
        };
        let mut more = Vec::new();
        while self.accept(',') {
            if self.peek() == Some(TokenKind::Punct('[')) {
                return self.error("an address cannot hold another address");
            }
            more.push(self.simple_operand()?);
        }
        self.expect(']')?;
        Ok(Operand::Address { base: Box::new(base), offset, more })
    }

    fn literal(&self, text: &str, negative: bool) -> Result<Operand, SimError> {
        let bad = || SimError::parse(self.line(), format!("`{text}` is not a number"));
        if let Some(digits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
            let bits = u32::from_str_radix(digits, 16).map_err(|_| bad())?;
            return Ok(Operand::Float32(if negative { bits ^ (1 << 31) } else { bits }));
        }
        if let Some(digits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
            let bits = u64::from_str_radix(digits, 16).map_err(|_| bad())?;
            return Ok(Operand::Float64(if negative { bits ^ (1 << 63) } else { bits }));
        }
        if text.contains('.') {
            let value: f64 = text.parse().map_err(|_| bad())?;
            return Ok(Operand::Float64((if negative { -value } else { value }).to_bits()));
        }
        let magnitude = integer_magnitude(text.trim_end_matches('U')).ok_or_else(bad)?;
        let magnitude = i128::from(magnitude);
        Ok(Operand::Int(if negative { -magnitude } else { magnitude }))
    }
}

/// Value of a PTX integer literal: hexadecimal `0x`, binary `0b`, octal `0`, else decimal.
fn integer_magnitude(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(d) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        (d, 16)
    } else if let Some(d) = text.strip_prefix("0b").or(text.strip_prefix("0B")) {
        (d, 2)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::super::ast::{Operand, Statement};
    use super::super::parser::parse;

    fn operands_of(instruction: &str) -> Vec<Operand> {
        let text = format!(".visible .entry k() {{ {instruction} }}");
        match parse(&text).unwrap().kernels.remove(0).body.remove(0) {
            Statement::Instruction(instruction) => instruction.operands,
            other => panic!("not an instruction: {other:?}"),
        }
    }

    #[test]
    fn literals_keep_their_bits() {
        assert_eq!(
            operands_of("x 0f3F800000, -1, 0x10, 010, 5U;"),
            [
                Operand::Float32(0x3F80_0000),
                Operand::Int(-1),
                Operand::Int(16),
                Operand::Int(8),
                Operand::Int(5)
            ]
        );
    }

    #[test]
    fn addresses_take_offsets_of_both_signs() {
        for (text, expected) in [("[%rd1+16]", 16), ("[%rd1-16]", -16), ("[%rd1+-16]", -16)] {
            match operands_of(&format!("x {text};")).remove(0) {
                Operand::Address { offset, .. } => assert_eq!(offset, expected),
                other => panic!("not an address: {other:?}"),
            }
        }
    }

    #[test]
    fn malformed_operands_are_errors_not_panics() {
        for bad in ["x [;", "x {%r1;", "x 0x;", "x 0f12345678901;", "x -;", "x [[a]];", "x {{a}};"]
        {
            let text = format!(".entry k() {{ {bad} }}");
            assert!(parse(&text).is_err(), "{bad}");
        }
    }
}
