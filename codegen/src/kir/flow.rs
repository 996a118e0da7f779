//! The order of a warpgroup's asynchronous multiplies (PTX ISA, "Asynchronous wgmma operations"),
//! checked on the program as it will run: unrolled loops turn by turn, other loops twice, so that
//! the second turn meets what the first one left under way.
//!
//! - a multiply stands behind a fence, with no write to its operands in between;
//! - until the wait that covers its batch, its accumulators are neither read nor written and its
//!   operand registers are not written;
//! - no multiply is left open or under way at the end of the program.

use super::{Expr, Stmt};
use crate::intrinsics::{self, Arg};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Checks the statements of a program.
pub(super) fn check(body: &[Stmt]) -> Result<(), String> {
    let mut flow = Flow::default();
    flow.body(body)?;
    match flow.open.is_empty() && flow.pending.iter().all(Batch::is_empty) {
        true => Ok(()),
        false => Err("a multiply is not waited for".into()),
    }
}

/// A register array, or the part of one that the known indices name.
type Place = (String, Vec<Option<i64>>);

/// Whether two places may be the same register: an unknown index may be any.
fn overlap(a: &Place, b: &Place) -> bool {
    let same = |(x, y): (&Option<i64>, &Option<i64>)| x.is_none() || y.is_none() || x == y;
    a.0 == b.0 && a.1.iter().zip(&b.1).all(same)
}

/// Multiplies between two commits.
#[derive(Clone, Default)]
struct Batch {
    accumulators: BTreeSet<Place>,
    operands: BTreeSet<Place>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.accumulators.is_empty()
    }
}

#[derive(Default)]
struct Flow {
    /// Loop variables with known values.
    known: HashMap<String, i64>,
    /// Whether a fence has been met since registers were last written.
    written: BTreeSet<Place>,
    open: Batch,
    pending: VecDeque<Batch>,
}

impl Flow {
    fn body(&mut self, body: &[Stmt]) -> Result<(), String> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt) -> Result<(), String> {
        match statement {
            Stmt::Let { value, .. } | Stmt::Var { value, .. } => self.reads(value),
            Stmt::Array { name, .. } => {
                // A declaration inside a loop starts the array anew.
                self.write(&(name.clone(), Vec::new()))
            }
            Stmt::Assign { place, value } => {
                self.reads(value)?;
                self.write(&self.place(place))
            }
            Stmt::Unpack { places, value, .. } => {
                self.reads(value)?;
                places.iter().try_for_each(|place| self.write(&self.place(place)))
            }
            Stmt::Store { index, value, .. } => {
                self.reads(index)?;
                self.reads(value)
            }
            Stmt::For { var, from, to, unroll, body, .. } => match (from, to, unroll) {
                (Expr::Int(from), Expr::Int(to), true) => self.unrolled(var, *from..*to, body),
                _ => [(); 2].iter().try_for_each(|()| self.body(body)),
            },
            Stmt::If { condition, then, .. } => {
                self.reads(condition)?;
                self.body(then)
            }
            Stmt::Roles { producer, consumers, .. } => {
                self.body(producer)?;
                self.body(consumers)
            }
            Stmt::Do { intrinsic, args } => self.call(intrinsic, args),
            Stmt::Barrier | Stmt::Comment(_) | Stmt::Blank => Ok(()),
        }
    }

    fn unrolled(
        &mut self,
        var: &str,
        values: std::ops::Range<i64>,
        body: &[Stmt],
    ) -> Result<(), String> {
        for value in values {
            self.known.insert(var.into(), value);
            self.body(body)?;
        }
        self.known.remove(var);
        Ok(())
    }

    fn call(&mut self, name: &str, args: &[Expr]) -> Result<(), String> {
        match name {
            intrinsics::FENCE => self.written.clear(),
            intrinsics::COMMIT => self.pending.push_back(std::mem::take(&mut self.open)),
            intrinsics::WAIT => self.wait(args),
            _ if intrinsics::is_multiply(name) => return self.multiply(args),
            _ => return self.other(name, args),
        }
        Ok(())
    }

    fn wait(&mut self, args: &[Expr]) {
        let newest = match args {
            [Expr::Int(newest)] => usize::try_from(*newest).unwrap_or(0),
            _ => 0,
        };
        while self.pending.len() > newest {
            self.pending.pop_front();
        }
    }

    fn multiply(&mut self, args: &[Expr]) -> Result<(), String> {
        let Some((accumulators, rest)) = args.split_first() else { return Ok(()) };
        let places: Vec<Place> = registers(args).into_iter().map(|e| self.place(e)).collect();
        let unfenced = places.iter().find(|p| self.written.iter().any(|w| overlap(w, p)));
        if let Some((name, _)) = unfenced {
            return Err(format!("`{name}` is written and multiplied without a fence between"));
        }
        self.open.accumulators.insert(self.place(accumulators));
        let operands: Vec<Place> = registers(rest).into_iter().map(|e| self.place(e)).collect();
        self.open.operands.extend(operands);
        Ok(())
    }

    fn other(&mut self, name: &str, args: &[Expr]) -> Result<(), String> {
        let kinds = intrinsics::find(name).map_or(&[][..], |row| row.args);
        for (arg, kind) in args.iter().zip(kinds) {
            match kind {
                Arg::Out(_) => self.write(&self.place(arg))?,
                Arg::InOut(_) => {
                    self.reads(arg)?;
                    self.write(&self.place(arg))?;
                }
                _ => self.reads(arg)?,
            }
        }
        Ok(())
    }

    fn under_way(&self) -> impl Iterator<Item = &Batch> {
        self.pending.iter().chain([&self.open])
    }

    fn reads(&self, expr: &Expr) -> Result<(), String> {
        for read in registers([expr]) {
            let place = self.place(read);
            if self.under_way().any(|b| b.accumulators.iter().any(|a| overlap(a, &place))) {
                return Err(format!("`{}` is read while it is being accumulated", place.0));
            }
        }
        Ok(())
    }

    fn write(&mut self, place: &Place) -> Result<(), String> {
        let busy = |batch: &Batch| {
            batch.accumulators.iter().chain(&batch.operands).any(|used| overlap(used, place))
        };
        if self.under_way().any(busy) {
            return Err(format!("`{}` is written while a multiply uses it", place.0));
        }
        self.written.insert(place.clone());
        Ok(())
    }

    fn place(&self, expr: &Expr) -> Place {
        match expr {
            Expr::Element(name, indices) => {
                (name.clone(), indices.iter().map(|index| self.value(index)).collect())
            }
            Expr::Var(name) => (name.clone(), Vec::new()),
            // Only variables and elements are places: the checker has seen to that.
            _ => (String::new(), Vec::new()),
        }
    }

    /// The value of an index, where the turn of the unrolled loops tells it.
    fn value(&self, index: &Expr) -> Option<i64> {
        use super::BinaryOp::{Add, Div, Mul, Rem, Sub};
        match index {
            Expr::Int(value) => Some(*value),
            Expr::Var(name) => self.known.get(name).copied(),
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                match op {
                    Add => Some(a + b),
                    Sub => Some(a - b),
                    Mul => Some(a * b),
                    Div => a.checked_div(b),
                    Rem => a.checked_rem(b),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// The variables and array elements in expressions.
fn registers<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Vec<&'a Expr> {
    let mut found = Vec::new();
    let mut left: Vec<&Expr> = exprs.into_iter().collect();
    while let Some(expr) = left.pop() {
        match expr {
            Expr::Var(_) | Expr::Element(..) => found.push(expr),
            Expr::Binary(_, a, b) => left.extend([&**a, b]),
            Expr::Select(a, b, c) => left.extend([&**a, b, c]),
            Expr::Cast(_, e) | Expr::Load(_, e) | Expr::Address(_, e) => left.push(e),
            Expr::Call(_, args) => left.extend(args),
            Expr::Int(_) | Expr::Hex(_) | Expr::Float(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intrinsics::{multiply_name, COMMIT, FENCE, WAIT};
    use crate::kir::{hex, int, var, Body, Type};

    fn multiply(body: &mut Body, frag: Expr) {
        let mut args = vec![Expr::at("acc", [])];
        args.extend((0..4).map(|_| frag.clone()));
        args.extend([var("tiles"), int(0), int(0).less(int(1))]);
        body.call(multiply_name("f16", 8), args);
    }

    fn outcome(build: impl FnOnce(&mut Body)) -> Result<(), String> {
        let mut body = Body::new();
        body.array("acc", Type::F32, &[4]);
        body.array("frag", Type::U32, &[2]);
        build(&mut body);
        check(&body.finish())
    }

    fn frag(i: impl Into<Expr>) -> Expr {
        Expr::at("frag", [i.into()])
    }

    /// Two fragments in turn: one is written while the other is multiplied.
    fn pipeline(body: &mut Body, pending: i64) {
        body.range("step", 0u32, var("steps"), 1u32, |body, _| {
            body.unrolled("unit", 2, |body, unit| {
                body.assign(frag(unit.clone()), hex(1));
                body.call(FENCE, []);
                multiply(body, frag(unit));
                body.call(COMMIT, []);
                body.call(WAIT, [int(pending)]);
            });
        });
        body.call(WAIT, [int(0)]);
    }

    #[test]
    fn two_fragments_in_turn_may_have_one_batch_under_way_but_not_two() {
        assert_eq!(outcome(|b| pipeline(b, 1)), Ok(()));
        let error = outcome(|b| pipeline(b, 2)).unwrap_err();
        assert!(error.contains("`frag` is written while a multiply uses it"), "{error}");
    }

    #[test]
    fn each_rule_is_named_when_it_is_broken() {
        let unfenced = outcome(|b| {
            b.assign(frag(0u32), hex(1));
            multiply(b, frag(0u32));
        });
        assert!(unfenced.unwrap_err().contains("without a fence"));
        let early = outcome(|b| {
            b.call(FENCE, []);
            multiply(b, frag(0u32));
            b.call(COMMIT, []);
            b.store("out", int(0), Expr::at("acc", [int(1)]));
        });
        assert!(early.unwrap_err().contains("read while it is being accumulated"));
        let left = outcome(|b| {
            b.call(FENCE, []);
            multiply(b, frag(0u32));
            b.call(COMMIT, []);
        });
        assert!(left.unwrap_err().contains("not waited for"));
    }
}
