//! Declarations: kernel parameters, register ranges and memory variables with initializers.

use super::ast::{Operand, Parameter, RegisterRange, ScalarType, Statement, Variable};
use super::ast::{ScalarType as Ty, VariableSpace};
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::SimError;

/// Largest variable or parameter accepted, far above any real one (shared memory ends at 227 KB).
const MAX_VARIABLE_BYTES: u64 = 1 << 26;

impl Parser<'_, '_> {
    /// `.param .u64 .ptr .align 1 name` or `.param .align 64 .b8 name[128]`.
    pub(super) fn parameter(&mut self) -> Result<Parameter, SimError> {
        if !self.accept_word(".param") {
            return self.error("expected `.param`");
        }
        let (mut align, mut ty) = (None, None);
        while let Some(TokenKind::Word(word)) = self.peek() {
            if !word.starts_with('.') {
                break;
            }
            self.advance();
            match word {
                ".align" => {
                    let bytes = self.number("an alignment")?;
                    // After the type, `.ptr .align n` describes the pointee, not the parameter.
                    if ty.is_none() {
                        align = Some(u64::from(bytes));
                    }
                }
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                other => match ScalarType::from_directive(other) {
                    Some(found) => ty = Some(found),
                    None => return self.error(format!("unknown parameter attribute `{other}`")),
                },
            }
        }
        let Some(ty) = ty else { return self.error("a parameter without a type") };
        let name = self.word("a parameter name")?.to_owned();
        let bytes = ty.bytes() * self.dimensions()?.unwrap_or(1);
        let align = self.checked_align(align.unwrap_or(ty.bytes()))?;
        if bytes == 0 || bytes > MAX_VARIABLE_BYTES {
            return self.error(format!("parameter `{name}` has {bytes} bytes"));
        }
        Ok(Parameter { name, align, bytes })
    }

    fn checked_align(&self, align: u64) -> Result<u64, SimError> {
        if align.is_power_of_two() && align <= 1 << 16 {
            Ok(align)
        } else {
            self.error(format!("alignment {align} is not a power of two up to 65536"))
        }
    }

    /// Product of `[a][b]...`; `None` without brackets, 0 for `[]`.
    fn dimensions(&mut self) -> Result<Option<u64>, SimError> {
        let mut elements: Option<u64> = None;
        while self.accept('[') {
            let extent = if self.accept(']') {
                0
            } else {
                let extent = u64::from(self.number("an array extent")?);
                self.expect(']')?;
                extent
            };
            elements = Some(elements.unwrap_or(1).saturating_mul(extent));
        }
        Ok(elements)
    }

    /// The rest of `.reg .b32 %r<937>, %x;`.
    pub(super) fn registers(&mut self, body: &mut Vec<Statement>) -> Result<(), SimError> {
        let line = self.line();
        let word = self.word("a register type")?;
        self.registers_of(word, line, body)
    }

    /// The same after the type, which may follow `.reg` without a blank between.
    pub(super) fn registers_of(
        &mut self,
        word: &str,
        line: u32,
        body: &mut Vec<Statement>,
    ) -> Result<(), SimError> {
        let Some(ty) = ScalarType::from_directive(word) else {
            return self.error(format!("unknown register type `{word}`"));
        };
        loop {
            let name = self.word("a register name")?.to_owned();
            let count = if self.accept('<') {
                let count = self.number("a register count")?;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            body.push(Statement::Registers(RegisterRange { ty, name, count, line }));
            if !self.accept(',') {
                return self.expect(';');
            }
        }
    }

    /// The rest of a variable declaration after its state space.
    pub(super) fn variable(&mut self, space_word: &str) -> Result<Vec<Variable>, SimError> {
        let line = self.line();
        let space = match space_word {
            ".shared" => VariableSpace::Shared,
            // Parameters of calls live as long as their scope, like local variables.
            ".local" | ".param" => VariableSpace::Local,
            ".global" => VariableSpace::Global,
            ".const" => VariableSpace::Const,
            other => return self.error(format!("unknown directive `{other}`")),
        };
        let (mut align, mut ty, mut vector) = (None, None, 1);
        while let Some(TokenKind::Word(word)) = self.peek() {
            if !word.starts_with('.') {
                break;
            }
            self.advance();
            match word {
                ".align" => align = Some(u64::from(self.number("an alignment")?)),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".attribute" => return self.error("variable attributes are not supported"),
                other => match ScalarType::from_directive(other) {
                    Some(found @ Ty::Bits(_)) => ty = Some(found),
                    _ => return self.error(format!("unknown variable attribute `{other}`")),
                },
            }
        }
        let Some(ty) = ty else { return self.error("a variable without a type") };
        let element = ty.bytes() * vector;
        let align = self.checked_align(align.unwrap_or(element))?;
        self.variable_names(space, align, ty.bytes(), element, line)
    }

    fn variable_names(
        &mut self,
        space: VariableSpace,
        align: u64,
        scalar_bytes: u64,
        element_bytes: u64,
        line: u32,
    ) -> Result<Vec<Variable>, SimError> {
        let mut variables = Vec::new();
        loop {
            let name = self.word("a variable name")?.to_owned();
            let bytes = element_bytes.saturating_mul(self.dimensions()?.unwrap_or(1));
            if bytes > MAX_VARIABLE_BYTES {
                return self.error(format!("variable `{name}` has {bytes} bytes"));
            }
            let init = if self.accept('=') { Some(self.initializer(scalar_bytes)?) } else { None };
            if init.as_ref().is_some_and(|init| init.len() as u64 > bytes) {
                return self.error(format!("initializer of `{name}` is longer than the variable"));
            }
            variables.push(Variable { space, name, align, bytes, init, line });
            if !self.accept(',') {
                self.expect(';')?;
                return Ok(variables);
            }
        }
    }

    /// A scalar or a (possibly nested) brace list of literals, as little-endian bytes.
    fn initializer(&mut self, scalar_bytes: u64) -> Result<Vec<u8>, SimError> {
        let mut bytes = Vec::new();
        let mut depth = 0u32;
        loop {
            if self.accept('{') {
                depth += 1;
                continue;
            }
            let value = match self.operand()? {
                Operand::Int(value) => value as u128,
                Operand::Float32(bits) => u128::from(bits),
                Operand::Float64(bits) => u128::from(bits),
                _ => return self.error("initializers must be literals, not addresses"),
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..scalar_bytes as usize]);
            while depth > 0 && self.accept('}') {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(bytes);
            }
            self.expect(',')?;
        }
    }
}
