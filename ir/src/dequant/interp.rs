//! The exact interpreter: what a term means, in f64. It is the oracle for every rule.

use super::context::RAISED;
use super::language::integer_op;
use super::{float8, Context, Op, Term};
use egg::Id;

/// One row's quant group: the values that a term is a function of.
#[derive(Clone, Copy, Debug)]
pub struct GroupValues<'a> {
    /// Format and engine, for parameter names and the magic base.
    pub ctx: &'a Context,
    /// Group parameters in the order of [`crate::WeightSpec::params`].
    pub params: &'a [f64],
    /// The code of each k.
    pub codes: &'a [u32],
    /// The position weight of each k; all the same on [`super::Engine::Mma`].
    pub positions: &'a [f64],
    /// The activation of each k.
    pub activations: &'a [f64],
}

impl GroupValues<'_> {
    /// The value of a term without rounding.
    ///
    /// The term must be well typed for `ctx` (see [`super::Lowered`]) and the slices must have
    /// equal lengths; otherwise the result is NaN.
    pub fn value(&self, term: &Term) -> f64 {
        self.at(term, term.root(), 0)
    }

    /// The value of the expression of weight `k`.
    pub fn weight(&self, term: &Term, weight: Id, k: usize) -> f64 {
        self.at(term, weight, k)
    }

    fn at(&self, term: &Term, id: Id, k: usize) -> f64 {
        let real = |id: Id| self.at(term, id, k);
        match term.node(id) {
            Op::Const(num) => num.value(),
            Op::Param(name) => self.param(name.as_str()),
            Op::Code => self.codes.get(k).map_or(f64::NAN, |code| f64::from(*code)),
            Op::Activation => self.activations.get(k).copied().unwrap_or(f64::NAN),
            Op::Position => self.positions.get(k).copied().unwrap_or(f64::NAN),
            Op::Unposition => 1.0 / self.positions.get(k).copied().unwrap_or(f64::NAN),
            op @ (Op::Xor([a, b])
            | Op::And([a, b])
            | Op::Or([a, b])
            | Op::Shl([a, b])
            | Op::Shr([a, b])) => {
                integer_op(op, real(*a) as u32, real(*b) as u32).map_or(f64::NAN, f64::from)
            }
            Op::Lookup(a) | Op::Pair(a) | Op::Page(a) | Op::Permuted(a) | Op::Vector(a) => {
                self.ctx.codebook(real(*a))
            }
            Op::Short(a) => self.ctx.codebook(real(*a)) / self.ctx.short_unit(),
            Op::Float8(a) | Op::Wide(a) | Op::Converted(a) => float8::e4m3(real(*a) as u8),
            Op::Narrow(a) => float8::e4m3(real(*a) as u8) * float8::NARROW,
            Op::Real(a) => real(*a),
            Op::At(a) => real(*a) * self.positions.get(k).copied().unwrap_or(f64::NAN),
            Op::Raised(a) => real(*a) * RAISED * self.positions.get(k).copied().unwrap_or(f64::NAN),
            Op::Magic(a) => self.ctx.magic_base() + real(*a),
            Op::Subnormal(a) => real(*a) * SUBNORMAL_UNIT,
            Op::Add([a, b]) => real(*a) + real(*b),
            Op::Sub([a, b]) => real(*a) - real(*b),
            Op::Mul([a, b]) | Op::Stored([a, b]) => real(*a) * real(*b),
            Op::Fma([a, b, c]) => real(*a) * real(*b) + real(*c),
            Op::Neg(a) => -real(*a),
            // The other two are what it was made of.
            Op::Nested([scale, ..]) => real(*scale),
            Op::Sum(a) => (0..self.codes.len()).map(|k| self.at(term, *a, k)).sum(),
        }
    }

    fn param(&self, name: &str) -> f64 {
        let index = self.ctx.param(name).map(|(index, _)| index);
        index.and_then(|i| self.params.get(i)).copied().unwrap_or(f64::NAN)
    }
}

/// The value of the last bit of an f16 subnormal.
pub(super) const SUBNORMAL_UNIT: f64 = 1.0 / 16_777_216.0;
