//! Splits PTX text into words, numbers, strings and punctuation, each with its line.

use crate::error::SimError;

/// What a token is. Words keep dots and `::`, so `ld.global.L1::no_allocate.v4.u32` is one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind<'a> {
    /// Identifier, opcode with modifiers, directive (`.reg`) or register (`%r1`).
    Word(&'a str),
    /// Literal starting with a digit: `12`, `0x1F`, `0f3F800000`, `1.5`, `5U`.
    Number(&'a str),
    /// Text between double quotes.
    Text(&'a str),
    /// One character of punctuation.
    Punct(char),
}

/// A token and the line it starts on (from 1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub kind: TokenKind<'a>,
    pub line: u32,
}

/// Tokens of `text`, comments dropped.
pub(crate) fn tokenize(text: &str) -> Result<Vec<Token<'_>>, SimError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, line: 1 };
    let mut tokens = Vec::with_capacity(text.len() / 5);
    while let Some(token) = lexer.next_token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn continues_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) -> Result<(), SimError> {
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'\n', _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (b' ' | b'\t' | b'\r', _) => self.at += 1,
                (b'/', b'/') => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => self.skip_block_comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    fn skip_block_comment(&mut self) -> Result<(), SimError> {
        let start = self.line;
        self.at += 2;
        while (self.peek(0), self.peek(1)) != (b'*', b'/') {
            if self.at >= self.bytes.len() {
                return Err(SimError::parse(start, "comment `/*` is never closed"));
            }
            self.line += u32::from(self.peek(0) == b'\n');
            self.at += 1;
        }
        self.at += 2;
        Ok(())
    }

    fn next_token(&mut self) -> Result<Option<Token<'a>>, SimError> {
        self.skip_blanks()?;
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (line, byte) = (self.line, self.peek(0));
        let kind = if byte.is_ascii_digit() {
            TokenKind::Number(self.take_while(|lexer| {
                let b = lexer.peek(0);
                b.is_ascii_alphanumeric() || (b == b'.' && lexer.peek(1).is_ascii_digit())
            }))
        } else if starts_word(byte) {
            TokenKind::Word(self.word())
        } else if byte == b'"' {
            TokenKind::Text(self.quoted()?)
        } else if byte.is_ascii_graphic() {
            self.at += 1;
            TokenKind::Punct(byte as char)
        } else {
            return Err(SimError::parse(line, format!("unexpected byte 0x{byte:02x}")));
        };
        Ok(Some(Token { kind, line }))
    }

    fn take_while(&mut self, accept: impl Fn(&Self) -> bool) -> &'a str {
        let start = self.at;
        while self.at < self.bytes.len() && accept(self) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// A word; `::` belongs to it when another word character follows (`shared::cta`), a single
    /// colon ends a label.
    fn word(&mut self) -> &'a str {
        let start = self.at;
        loop {
            if continues_word(self.peek(0)) {
                self.at += 1;
            } else if self.peek(0) == b':' && self.peek(1) == b':' && continues_word(self.peek(2)) {
                self.at += 2;
            } else {
                return &self.text[start..self.at];
            }
        }
    }

    fn quoted(&mut self) -> Result<&'a str, SimError> {
        let line = self.line;
        self.at += 1;
        let text = self.take_while(|lexer| !matches!(lexer.peek(0), b'"' | b'\n'));
        if self.peek(0) != b'"' {
            return Err(SimError::parse(line, "string is never closed"));
        }
        self.at += 1;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<TokenKind<'_>> {
        tokenize(text).unwrap().iter().map(|t| t.kind).collect()
    }

    #[test]
    fn an_opcode_with_scoped_modifiers_is_one_word_and_a_label_ends_at_its_colon() {
        use TokenKind::{Punct, Word};
        assert_eq!(
            words("$L1: ld.L1::no_allocate.v4 x"),
            [Word("$L1"), Punct(':'), Word("ld.L1::no_allocate.v4"), Word("x")]
        );
    }

    #[test]
    fn comments_are_dropped_but_their_lines_count() {
        let tokens = tokenize("/* a\nb */ // c\nret").unwrap();
        assert_eq!((tokens.len(), tokens[0].line), (1, 3));
    }

    #[test]
    fn unclosed_comments_strings_and_stray_bytes_are_errors_with_their_line() {
        for (text, line) in [("\n/*", 2), ("\"a\n", 1), ("\n\n\u{1}", 3)] {
            assert!(matches!(tokenize(text), Err(SimError::Parse { line: l, .. }) if l == line));
        }
        assert!(tokenize("é").is_err());
    }
}
