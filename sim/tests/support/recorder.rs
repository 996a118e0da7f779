//! Notes which instructions the kernels of a test are made of.

use std::cell::RefCell;
use std::collections::BTreeSet;

use qtune_sim::{Module, SimError};

thread_local! {
    static OPCODES: RefCell<Option<BTreeSet<String>>> = const { RefCell::new(None) };
}

/// Runs `test`; returns the opcodes, with modifiers, of all modules that it parsed by [`parse`].
pub fn record(test: impl FnOnce()) -> BTreeSet<String> {
    OPCODES.set(Some(BTreeSet::new()));
    test();
    OPCODES.take().unwrap_or_default()
}

/// A decoded module.
pub fn parse(text: &str) -> Result<Module, SimError> {
    OPCODES.with_borrow_mut(|opcodes| {
        if let Some(opcodes) = opcodes {
            opcodes.extend(instructions(text).map(str::to_owned));
        }
    });
    Module::parse(text)
}

/// First words of the statements of a text without comments between the words of one.
fn instructions(text: &str) -> impl Iterator<Item = &str> {
    let statements = text.split([';', '{', '}', '\n']);
    statements.filter_map(|statement| {
        let unlabelled = match statement.split_once(": ") {
            Some((_, rest)) => rest,
            None => statement,
        };
        let mut words = unlabelled.split_whitespace();
        let first = words.next()?;
        let word = if first.starts_with('@') { words.next()? } else { first };
        word.starts_with(|c: char| c.is_ascii_lowercase()).then_some(word)
    })
}
