//! Evaluating a dequantization expression in f64.

/// A dequantization expression, ready to be evaluated for many codes.
///
/// The language is the arithmetic of [`qtune_ir::WeightSpec::expr`]: the code `q`, parameters by
/// name, numbers, and `(+ a b)`, `(- a b)`, `(* a b)`. It is compiled to postfix, so that
/// evaluation is a loop over a small stack.
#[derive(Clone, Debug)]
pub(crate) struct Formula {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Code,
    Param(usize),
    Number(f64),
    Apply(fn(f64, f64) -> f64),
}

/// Deepest nesting of an expression: far above any format's, checked when parsing.
const DEPTH_MAX: usize = 16;

impl Formula {
    /// Parses `expr` over the code `q` and the parameters `names`; the error says which word is
    /// wrong.
    pub(crate) fn parse(expr: &str, names: &[&str]) -> Result<Formula, String> {
        let spaced = expr.replace('(', " ( ").replace(')', " ) ");
        let mut words = spaced.split_whitespace();
        let mut steps = Vec::new();
        operand(&mut words, names, &mut steps, 0)?;
        match words.next() {
            None => Ok(Formula { steps }),
            Some(word) => Err(format!("`{word}` follows the end of the expression")),
        }
    }

    /// The value for code `q` and these parameter values.
    pub(crate) fn value(&self, q: f64, params: &[f64]) -> f64 {
        // An operation at depth d holds at most d + 1 operands below it.
        let mut stack = [0.0; DEPTH_MAX + 1];
        let mut held = 0;
        for step in &self.steps {
            let value = match step {
                Step::Code => q,
                Step::Param(index) => params[*index],
                Step::Number(number) => *number,
                Step::Apply(apply) => {
                    held -= 2;
                    apply(stack[held], stack[held + 1])
                }
            };
            stack[held] = value;
            held += 1;
        }
        stack[0]
    }
}

/// Compiles one operand: a word or a parenthesised operation.
fn operand<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    names: &[&str],
    steps: &mut Vec<Step>,
    depth: usize,
) -> Result<(), String> {
    let word = words.next().ok_or("the expression ends too early")?;
    if word != "(" {
        let param = names.iter().position(|name| *name == word).map(Step::Param);
        let number = || word.parse().ok().map(Step::Number);
        let step = if word == "q" { Some(Step::Code) } else { param.or_else(number) };
        steps.push(step.ok_or_else(|| format!("`{word}` is neither a parameter nor a number"))?);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Err(format!("the expression is nested deeper than {DEPTH_MAX}"));
    }
    let apply: fn(f64, f64) -> f64 = match words.next() {
        Some("+") => |a, b| a + b,
        Some("-") => |a, b| a - b,
        Some("*") => |a, b| a * b,
        other => return Err(format!("`{}` is not an operation", other.unwrap_or(""))),
    };
    operand(words, names, steps, depth + 1)?;
    operand(words, names, steps, depth + 1)?;
    steps.push(Step::Apply(apply));
    match words.next() {
        Some(")") => Ok(()),
        other => Err(format!("expected `)`, found `{}`", other.unwrap_or("the end"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_apply_to_their_operands_in_order() {
        let formula = Formula::parse("(- (* (+ q 1) s) (- z q))", &["s", "z"]).unwrap();
        assert_eq!(formula.value(3.0, &[10.0, 5.0]), 38.0);
    }

    #[test]
    fn malformed_expressions_name_the_word_that_is_wrong() {
        for (expr, expected) in [
            ("(* q y)", "`y` is neither"),
            ("(/ q s)", "`/` is not an operation"),
            ("(* q s s)", "expected `)`, found `s`"),
            ("(* q", "ends too early"),
            ("q q", "`q` follows the end"),
            (&"(+ q ".repeat(40), "nested deeper"),
        ] {
            let error = Formula::parse(expr, &["s"]).unwrap_err();
            assert!(error.contains(expected), "{expr}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_can_be_evaluated(expr in r"(\(|\)|[-+*]|q|s|[0-9]| ){0,60}") {
            if let Ok(formula) = Formula::parse(&expr, &["s"]) {
                formula.value(1.0, &[2.0]);
            }
        }
    }
}
