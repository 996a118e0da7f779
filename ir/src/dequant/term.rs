//! A term: an expression in canonical form, that prints on one line and parses back.

use super::{DequantError, Op};
use egg::{Id, Language, RecExpr};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// An expression of the algebra. Equal sub-expressions are one node, children come before their
/// parents and the root is last, so that a walk over [`Term::nodes`] meets everything once.
#[derive(Clone, Debug)]
pub struct Term {
    expr: RecExpr<Op>,
    text: String,
}

impl Term {
    /// The canonical form of an egg expression, which must not be empty.
    pub(super) fn new(expr: &RecExpr<Op>) -> Term {
        let mut shared = RecExpr::default();
        let mut seen: HashMap<Op, Id> = HashMap::new();
        let mut new_ids: Vec<Id> = Vec::with_capacity(expr.len());
        for node in expr {
            let node = node.clone().map_children(|id| new_ids[usize::from(id)]);
            let id = *seen.entry(node.clone()).or_insert_with(|| shared.add(node));
            new_ids.push(id);
        }
        Term { text: shared.to_string(), expr: shared }
    }

    /// The nodes, children first.
    pub fn nodes(&self) -> &[Op] {
        self.expr.as_ref()
    }

    /// The index of the root.
    pub fn root(&self) -> Id {
        Id::from(self.nodes().len() - 1)
    }

    /// The node at `id`.
    pub fn node(&self, id: Id) -> &Op {
        &self.expr[id]
    }

    /// Whether the value at `id` depends on the code.
    pub(super) fn reads_codes(&self, id: Id) -> bool {
        let op = self.node(id);
        *op == Op::Code || op.children().iter().any(|child| self.reads_codes(*child))
    }

    /// Whether the term is one sum times at most a constant of the row. Such a sum runs on across quant
    /// groups, and the constant, if there is one, is applied at the end.
    pub fn runs_on(&self) -> Option<Option<Id>> {
        let is_sum = |id: Id| matches!(self.node(id), Op::Sum(_));
        match *self.node(self.root()) {
            Op::Sum(_) => Some(None),
            Op::Mul([c, sum]) | Op::Mul([sum, c]) if is_sum(sum) && self.is_constant(c) => {
                Some(Some(c))
            }
            _ => None,
        }
    }

    /// Whether a value depends on nothing but the position weight.
    fn is_constant(&self, id: Id) -> bool {
        match self.node(id) {
            Op::Const(_) | Op::Position | Op::Unposition => true,
            Op::Mul(children) => children.iter().all(|child| self.is_constant(*child)),
            _ => false,
        }
    }

    /// The egg expression.
    pub fn expr(&self) -> &RecExpr<Op> {
        &self.expr
    }

    /// The text of the sub-expression at `id`.
    pub fn text_at(&self, id: Id) -> String {
        self.node(id).build_recexpr(|child| self.node(child).clone()).to_string()
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Term) -> bool {
        self.text == other.text
    }
}

impl Eq for Term {}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the sum of a schedule's term runs on across quant groups ([`Term::runs_on`]). Text that is
/// no term does not.
pub fn runs_on(text: &str) -> bool {
    text.parse::<Term>().is_ok_and(|term| term.runs_on().is_some())
}

/// Deeper nesting than any term; bounds the recursion on text that comes from a file.
const DEPTH_MAX: usize = 64;
/// Longer than any term.
const TEXT_MAX: usize = 4096;

impl FromStr for Term {
    type Err = DequantError;

    fn from_str(text: &str) -> Result<Term, DequantError> {
        let bad = |why: String| DequantError::Parse { text: text.into(), why };
        check_shape(text).map_err(|why| bad(why.into()))?;
        let expr: RecExpr<Op> = text.parse().map_err(|e| bad(format!("{e}")))?;
        Ok(Term::new(&expr))
    }
}

/// Refuses text that would make the recursive parser deep or slow.
fn check_shape(text: &str) -> Result<(), &'static str> {
    if text.len() > TEXT_MAX {
        return Err("longer than 4096 bytes");
    }
    if !text.is_ascii() || text.contains(['"', ';', '\'', '#']) {
        return Err("only names, numbers, operators and parentheses are allowed");
    }
    let mut depth = 0usize;
    let mut ended = false;
    for byte in text.trim().bytes() {
        if ended {
            return Err("text after the expression");
        }
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1).ok_or("`)` without `(`")?,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err("nested more than 64 deep");
        }
        ended = depth == 0 && (byte == b')' || byte.is_ascii_whitespace());
    }
    if depth == 0 {
        Ok(())
    } else {
        Err("`(` without `)`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_subexpressions_are_one_node() {
        let term: Term = "(+ (* s (sum x)) (* s (sum x)))".parse().unwrap();
        assert_eq!(term.nodes().len(), 5);
        assert_eq!(term.to_string(), "(+ (* s (sum x)) (* s (sum x)))");
        assert_eq!(term.text_at(Id::from(2)), "(sum x)");
    }

    #[test]
    fn malformed_text_is_refused_with_the_reason() {
        let deep = "(".repeat(100_000) + &")".repeat(100_000);
        let nested = "(neg ".repeat(100) + "q" + &")".repeat(100);
        for text in [
            "",
            "(",
            ")",
            "()",
            "(+ q)",
            "(foo q)",
            "q s",
            "(\"",
            &deep,
            &nested,
            "((q))",
            "(neg q) s",
        ] {
            let error = text.parse::<Term>().unwrap_err().to_string();
            assert!(error.contains("not a dequantization term"), "{error}");
        }
    }
}
