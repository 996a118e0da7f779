//! Recursive-descent parser: module level and statements. Variables and parameters are in
//! `parser_items`, operands in `parser_operand`.

use super::ast::{InstructionSyntax, Kernel, ModuleSyntax, SourcePosition, Statement};
use super::lexer::{tokenize, Token, TokenKind};
use crate::error::SimError;

/// Deepest nesting of `{ }` scopes accepted; deeper text is malformed and would exhaust the stack.
const MAX_SCOPE_DEPTH: u32 = 64;

/// Parses a module.
pub(crate) fn parse(text: &str) -> Result<ModuleSyntax, SimError> {
    let tokens = tokenize(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, source: None };
    let mut module = ModuleSyntax::default();
    while parser.at < parser.tokens.len() {
        parser.module_item(&mut module)?;
    }
    Ok(module)
}

pub(super) struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    /// Position of the last `.loc`, given to the instructions that follow.
    source: Option<SourcePosition>,
}

impl<'a> Parser<'_, 'a> {
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    pub(super) fn peek(&self) -> Option<TokenKind<'a>> {
        self.tokens.get(self.at).map(|t| t.kind)
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, SimError> {
        Err(SimError::parse(self.line(), message))
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T, SimError> {
        match self.peek() {
            Some(TokenKind::Word(t) | TokenKind::Number(t) | TokenKind::Text(t)) => {
                self.error(format!("expected {expected}, found `{t}`"))
            }
            Some(TokenKind::Punct(c)) => self.error(format!("expected {expected}, found `{c}`")),
            None => self.error(format!("expected {expected}, found the end of the text")),
        }
    }

    pub(super) fn accept(&mut self, punct: char) -> bool {
        let hit = self.peek() == Some(TokenKind::Punct(punct));
        self.at += usize::from(hit);
        hit
    }

    pub(super) fn expect(&mut self, punct: char) -> Result<(), SimError> {
        if self.accept(punct) {
            Ok(())
        } else {
            self.unexpected(&format!("`{punct}`"))
        }
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let hit = self.peek() == Some(TokenKind::Word(word));
        self.at += usize::from(hit);
        hit
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, SimError> {
        match self.peek() {
            Some(TokenKind::Word(word)) => {
                self.advance();
                Ok(word)
            }
            _ => self.unexpected(what),
        }
    }

    /// An unsigned number that fits `u32`.
    pub(super) fn number(&mut self, what: &str) -> Result<u32, SimError> {
        match self.peek() {
            Some(TokenKind::Number(text)) => match text.trim_end_matches('U').parse() {
                Ok(value) => {
                    self.advance();
                    Ok(value)
                }
                Err(_) => self.error(format!("{what} `{text}` is not a 32-bit number")),
            },
            _ => self.unexpected(what),
        }
    }

    fn module_item(&mut self, module: &mut ModuleSyntax) -> Result<(), SimError> {
        match self.word("a directive")? {
            ".version" => {
                match self.peek() {
                    Some(TokenKind::Number(_)) => self.advance(),
                    _ => return self.unexpected("a version number"),
                }
                Ok(())
            }
            ".target" => {
                module.target = self.word("a target")?.to_owned();
                while self.accept(',') {
                    self.word("a target option")?;
                }
                Ok(())
            }
            ".address_size" => match self.number("an address size")? {
                64 => Ok(()),
                other => self.error(format!("address size {other}, only 64 is supported")),
            },
            ".file" => self.file(module),
            ".section" => self.section(),
            ".visible" | ".extern" | ".weak" | ".common" => Ok(()),
            ".entry" => {
                let kernel = self.kernel()?;
                module.kernels.push(kernel);
                Ok(())
            }
            ".func" => {
                let function = self.function()?;
                module.functions.extend(function);
                Ok(())
            }
            directive => {
                let variable = self.variable(directive)?;
                module.variables.extend(variable);
                Ok(())
            }
        }
    }

    fn file(&mut self, module: &mut ModuleSyntax) -> Result<(), SimError> {
        let index = self.number("a file number")?;
        match self.peek() {
            Some(TokenKind::Text(name)) => {
                self.advance();
                module.files.push((index, name.to_owned()));
            }
            _ => return self.unexpected("a file name"),
        }
        while self.accept(',') {
            self.number("a file time stamp or size")?;
        }
        Ok(())
    }

    /// Debug information: nothing in it is executed.
    fn section(&mut self) -> Result<(), SimError> {
        self.word("a section name")?;
        self.expect('{')?;
        while !self.accept('}') {
            if self.peek().is_none() {
                return self.unexpected("`}` after .section");
            }
            self.advance();
        }
        Ok(())
    }

    fn kernel(&mut self) -> Result<Kernel, SimError> {
        let name = self.word("a kernel name")?.to_owned();
        let mut kernel = Kernel {
            name,
            parameters: Vec::new(),
            max_threads: None,
            required_threads: None,
            max_registers: None,
            min_blocks: None,
            required_cluster: None,
            max_cluster_rank: None,
            explicit_cluster: false,
            body: Vec::new(),
        };
        kernel.parameters = self.parameters()?;
        self.entry_directives(&mut kernel)?;
        self.expect('{')?;
        kernel.body = self.statements(0)?;
        Ok(kernel)
    }

    fn entry_directives(&mut self, kernel: &mut Kernel) -> Result<(), SimError> {
        while let Some(TokenKind::Word(word)) = self.peek() {
            self.advance();
            match word {
                ".maxntid" => kernel.max_threads = Some(self.three_numbers()?),
                ".reqntid" => kernel.required_threads = Some(self.three_numbers()?),
                ".reqnctapercluster" => kernel.required_cluster = Some(self.three_numbers()?),
                ".maxclusterrank" => kernel.max_cluster_rank = Some(self.number("a rank")?),
                ".explicitcluster" => kernel.explicit_cluster = true,
                ".maxnreg" => kernel.max_registers = Some(self.number("a register count")?),
                ".minnctapersm" => kernel.min_blocks = Some(self.number("a block count")?),
                ".noreturn" => {}
                ".pragma" => self.pragma()?,
                other => return self.error(format!("unknown entry directive `{other}`")),
            }
        }
        Ok(())
    }

    fn three_numbers(&mut self) -> Result<[u32; 3], SimError> {
        let mut numbers = [1; 3];
        for (axis, number) in numbers.iter_mut().enumerate() {
            if axis > 0 && !self.accept(',') {
                break;
            }
            *number = self.number("a thread count")?;
        }
        Ok(numbers)
    }

    pub(super) fn pragma(&mut self) -> Result<(), SimError> {
        match self.peek() {
            Some(TokenKind::Text(_)) => self.advance(),
            _ => return self.unexpected("a pragma string"),
        }
        self.expect(';')
    }

    /// Statements up to and including the closing `}`.
    pub(super) fn statements(&mut self, depth: u32) -> Result<Vec<Statement>, SimError> {
        if depth > MAX_SCOPE_DEPTH {
            return self.error(format!("scopes nest deeper than {MAX_SCOPE_DEPTH}"));
        }
        let mut body = Vec::new();
        while !self.accept('}') {
            if self.accept('{') {
                body.push(Statement::Scope(self.statements(depth + 1)?));
            } else if !self.accept(';') {
                self.statement(&mut body)?;
            }
        }
        Ok(body)
    }

    fn statement(&mut self, body: &mut Vec<Statement>) -> Result<(), SimError> {
        let line = self.line();
        let guard = self.guard()?;
        let word = self.word("a statement")?;
        if guard.is_none() {
            match word {
                ".loc" => return self.loc(),
                ".pragma" => return self.pragma(),
                ".reg" => return self.registers(body),
                ".param" | ".shared" | ".local" => {
                    let variable = self.variable(word)?;
                    body.extend(variable.into_iter().map(Statement::Variable));
                    return Ok(());
                }
                _ => {}
            }
            if self.accept(':') {
                body.push(Statement::Label { name: word.to_owned(), line });
                return Ok(());
            }
        }
        if word.starts_with('.') {
            return self.body_directive(word, line, body);
        }
        let calls = word == "call" || word.starts_with("call.");
        let operands = if calls { self.call_operands()? } else { self.operands()? };
        body.push(Statement::Instruction(InstructionSyntax {
            guard,
            opcode: word.to_owned(),
            operands,
            line,
            source: self.source,
        }));
        Ok(())
    }

    /// Directives of a body that are seldom written.
    fn body_directive(
        &mut self,
        word: &str,
        line: u32,
        body: &mut Vec<Statement>,
    ) -> Result<(), SimError> {
        if let Some(ty) = word.strip_prefix(".reg").filter(|ty| ty.starts_with('.')) {
            return self.registers_of(ty, line, body);
        }
        let unknown = || SimError::parse(line, format!("unknown directive `{word}`"));
        if word != ".branchtargets" {
            return Err(unknown());
        }
        let Some(Statement::Label { name, .. }) = body.pop() else { return Err(unknown()) };
        let mut labels = vec![self.word("a label")?.to_owned()];
        while self.accept(',') {
            labels.push(self.word("a label")?.to_owned());
        }
        body.push(Statement::BranchTargets { name, labels, line });
        self.expect(';')
    }

    fn guard(&mut self) -> Result<Option<(String, bool)>, SimError> {
        if !self.accept('@') {
            return Ok(None);
        }
        let negated = self.accept('!');
        Ok(Some((self.word("a predicate register")?.to_owned(), negated)))
    }

    /// `.loc file line column [, function_name label [+ n], inlined_at file line column]`.
    ///
    /// The position of the inlined body is kept: it names the statement that does the work.
    fn loc(&mut self) -> Result<(), SimError> {
        let file = self.number("a file number")?;
        let line = self.number("a source line")?;
        self.number("a source column")?;
        while self.accept(',') {
            match self.word("a .loc attribute")? {
                "function_name" => {
                    self.word("a label")?;
                    if self.accept('+') {
                        self.number("an offset")?;
                    }
                }
                "inlined_at" => {
                    for what in ["a file number", "a source line", "a source column"] {
                        self.number(what)?;
                    }
                }
                other => return self.error(format!("unknown .loc attribute `{other}`")),
            }
        }
        // Line 0 means "no particular source line" in the compiler's line tables.
        self.source = (line > 0).then_some(SourcePosition { file, line });
        Ok(())
    }
}
