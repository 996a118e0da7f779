//! Device functions and their calls (PTX ISA 7.1, 9.7.12.5, 11.3).

use super::ast::{Function, Operand, Parameter};
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::SimError;

impl Parser<'_, '_> {
    /// The rest of `.func (results) name (parameters) { ... }`; `None` for a declaration.
    pub(super) fn function(&mut self) -> Result<Option<Function>, SimError> {
        let returns = self.parameters()?;
        let name = self.word("a function name")?.to_owned();
        let parameters = self.parameters()?;
        loop {
            match self.peek() {
                Some(TokenKind::Punct(';')) => {
                    self.advance();
                    return Ok(None);
                }
                Some(TokenKind::Punct('{')) => {
                    self.advance();
                    let body = self.statements(0)?;
                    return Ok(Some(Function { name, returns, parameters, body }));
                }
                Some(TokenKind::Word(".noreturn")) => self.advance(),
                Some(TokenKind::Word(".pragma")) => {
                    self.advance();
                    self.pragma()?;
                }
                _ => return self.unexpected("`{` or `;` after a function header"),
            }
        }
    }

    /// A list of parameters in parentheses; without parentheses there are none.
    pub(super) fn parameters(&mut self) -> Result<Vec<Parameter>, SimError> {
        let mut parameters = Vec::new();
        if !self.accept('(') || self.accept(')') {
            return Ok(parameters);
        }
        loop {
            parameters.push(self.parameter()?);
            if !self.accept(',') {
                self.expect(')')?;
                return Ok(parameters);
            }
        }
    }

    /// The rest of `call (results), function, (arguments);`: three operands, the lists as vectors.
    pub(super) fn call_operands(&mut self) -> Result<Vec<Operand>, SimError> {
        let mut returns = Vec::new();
        if self.peek() == Some(TokenKind::Punct('(')) {
            returns = self.names()?;
            self.expect(',')?;
        }
        let function = Operand::Name(self.word("a function name")?.to_owned());
        let arguments = if self.accept(',') { self.names()? } else { Vec::new() };
        if self.accept(',') {
            return self.error("calls through a pointer are not supported");
        }
        self.expect(';')?;
        Ok(vec![Operand::Vector(returns), function, Operand::Vector(arguments)])
    }

    /// Names in parentheses.
    fn names(&mut self) -> Result<Vec<Operand>, SimError> {
        let mut names = Vec::new();
        self.expect('(')?;
        if self.accept(')') {
            return Ok(names);
        }
        loop {
            names.push(Operand::Name(self.word("a parameter variable")?.to_owned()));
            if !self.accept(',') {
                self.expect(')')?;
                return Ok(names);
            }
        }
    }
}
