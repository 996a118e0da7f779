//! The language of the algebra: operators, constants and parameter names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A constant, printed as the shortest decimal that parses back. Never NaN, infinite or `-0`.
#[derive(Clone, Copy, Debug)]
pub struct Num(f64);

impl Num {
    /// The constant `value`, or `None` where it is not finite.
    pub fn new(value: f64) -> Option<Num> {
        // Adding zero turns -0 into 0, which prints and compares as one thing.
        value.is_finite().then_some(Num(value + 0.0))
    }

    /// Its value.
    pub fn value(self) -> f64 {
        self.0
    }

    /// Its value as an integer, for integer operations.
    pub fn as_integer(self) -> Option<u32> {
        let integer = self.0 as u32;
        (f64::from(integer) == self.0).then_some(integer)
    }
}

impl PartialEq for Num {
    fn eq(&self, other: &Num) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Num {}

impl std::hash::Hash for Num {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl PartialOrd for Num {
    fn partial_cmp(&self, other: &Num) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Num {
    fn cmp(&self, other: &Num) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Num {
    type Err = String;

    fn from_str(text: &str) -> Result<Num, String> {
        // `inf` and `nan` are identifiers here, so a number has to start like one.
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("`{text}` is not a number"));
        }
        let value: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
        Num::new(value).ok_or_else(|| format!("`{text}` is not finite"))
    }
}

/// The name of a group parameter: a letter or `_`, then letters, digits and `_`.
///
/// egg's own interned `Symbol` is not used because its order depends on what the process interned
/// before, and extraction must not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        let head = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if head && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            Ok(Name(text.into()))
        } else {
            Err(format!("`{text}` is neither an operator nor a parameter name"))
        }
    }
}

egg::define_language! {
    /// One node of a term; the table in the module's documentation lists the operators. The
    /// meaning of every operator is in [`super::GroupValues::value`], its type in
    /// [`super::Facts`], its cost in [`super::CostModel`], its rounding in [`super::Evaluator`].
    #[allow(missing_docs, reason = "the macro takes none on variants; their documentation is that table")]
    pub enum Op {
        "q" = Code,
        "x" = Activation,
        "p" = Position,
        "rp" = Unposition,
        "^" = Xor([egg::Id; 2]),
        "&" = And([egg::Id; 2]),
        "|" = Or([egg::Id; 2]),
        "<<" = Shl([egg::Id; 2]),
        ">>" = Shr([egg::Id; 2]),
        "lookup" = Lookup(egg::Id),
        "pair" = Pair(egg::Id),
        "page" = Page(egg::Id),
        "prmt" = Permuted(egg::Id),
        "vector" = Vector(egg::Id),
        "short" = Short(egg::Id),
        "e4m3" = Float8(egg::Id),
        "narrow" = Narrow(egg::Id),
        "wide" = Wide(egg::Id),
        "cvt" = Converted(egg::Id),
        "real" = Real(egg::Id),
        "at" = At(egg::Id),
        "raise" = Raised(egg::Id),
        "magic" = Magic(egg::Id),
        "subn" = Subnormal(egg::Id),
        "+" = Add([egg::Id; 2]),
        "-" = Sub([egg::Id; 2]),
        "*" = Mul([egg::Id; 2]),
        "fma" = Fma([egg::Id; 3]),
        "neg" = Neg(egg::Id),
        "stored" = Stored([egg::Id; 2]),
        "nested" = Nested([egg::Id; 3]),
        "sum" = Sum(egg::Id),
        Const(Num),
        Param(Name),
    }
}

/// The value of an integer operation on codes. Shifts by 32 or more give 0.
pub(super) fn integer_op(op: &Op, a: u32, b: u32) -> Option<u32> {
    Some(match op {
        Op::Xor(_) => a ^ b,
        Op::And(_) => a & b,
        Op::Or(_) => a | b,
        Op::Shl(_) => a.checked_shl(b).unwrap_or(0),
        Op::Shr(_) => a.checked_shr(b).unwrap_or(0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_print_as_the_shortest_decimal() {
        for text in ["1024", "0.00390625", "-8", "16777216"] {
            assert_eq!(text.parse::<Num>().unwrap().to_string(), text);
        }
        assert_eq!("-0".parse::<Num>().unwrap().to_string(), "0");
    }

    #[test]
    fn words_that_rust_reads_as_floats_are_not_constants() {
        for text in ["inf", "nan", "infinity", "-inf", "1e999", ""] {
            assert!(text.parse::<Num>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_identifiers() {
        assert!("s_1".parse::<Name>().is_ok());
        for text in ["", "1s", "s-1", "?a", "foo bar"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
