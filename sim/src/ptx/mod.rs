//! From PTX text to a syntax tree: [`lexer`] -> [`parser`] -> [`ast`].
//!
//! [`inline`] puts device functions in place of their calls. Covers the module and function shapes
//! that NVRTC and LLVM write (PTX ISA 9.0, chapters 4, 5 and 11);
//! anything else is an error with its line.

pub(crate) mod ast;
pub(crate) mod inline;
pub(crate) mod lexer;
pub(crate) mod parser;
mod parser_function;
mod parser_items;
mod parser_operand;
