//! Running error bounds: what the machine may compute instead of a term's exact value.
//!
//! Every operation carries an exact value and a bound on the machine's distance from it (N. J.
//! Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.3). Rounding to
//! nearest in a type with unit roundoff `u` adds `u * (|value| + error)`, or half the spacing of
//! subnormals where that is more; an operation on exact operands whose result is a value of the
//! type adds nothing, which is how integers and powers of two stay exact.
//!
//! For an output element, the sum over quant groups of [`Evaluator::combine`] has as bound the sum
//! of the bounds plus the rounding of the running total. `combine` takes, per distinct sum of the
//! term, a [`Bounded`] that [`Evaluator::dot`] makes: rounding of weights (`err(A) * |y|`) and
//! accumulation (`gamma * sum |A| |y|`, with `gamma` for the engine's chain of additions). Offset
//! corrections need no term of their own: their products `|c| * sum|x|` pass through `combine` and
//! are rounded there.

use super::context::RAISED;
use super::interp::SUBNORMAL_UNIT;
use super::language::integer_op;
use super::{float8, Context, DequantError, Engine, Lowered, Op, Role, SumSite, Term};
use crate::{DType, ParamType};
use egg::Id;

/// An exact value and a bound on the distance of what the machine computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounded {
    /// The exact value.
    pub value: f64,
    /// The machine's result lies within this of it; infinite if it may overflow.
    pub error: f64,
}

impl Bounded {
    /// A value that the machine holds exactly.
    pub fn exact(value: f64) -> Bounded {
        Bounded { value, error: 0.0 }
    }

    /// The largest magnitude that the machine's result may have.
    pub fn magnitude(self) -> f64 {
        self.value.abs() + self.error
    }

    /// The result of rounding to `dtype`.
    pub fn rounded(self, dtype: DType) -> Bounded {
        // An overflow may have become NaN on its way here, by a product with zero.
        if self.magnitude().is_nan() || self.magnitude() > dtype.max_finite() {
            return Bounded { error: f64::INFINITY, ..self };
        }
        if self.error == 0.0 && dtype.round(self.value) == self.value {
            return self;
        }
        let rounding = (dtype.unit_roundoff() * self.magnitude()).max(dtype.tiny_roundoff());
        Bounded { error: self.error + rounding, ..self }
    }

    fn add(self, other: Bounded) -> Bounded {
        Bounded { value: self.value + other.value, error: self.error + other.error }
    }

    fn neg(self) -> Bounded {
        Bounded { value: -self.value, ..self }
    }

    fn mul(self, other: Bounded) -> Bounded {
        let error = self.value.abs() * other.error + other.magnitude() * self.error;
        Bounded { value: self.value * other.value, error }
    }
}

/// Evaluates a lowerable term with error bounds.
#[derive(Clone, Debug)]
pub struct Evaluator<'a> {
    term: &'a Term,
    ctx: &'a Context,
    lowered: Lowered,
}

/// Where an expression is evaluated.
struct Place<'a> {
    params: &'a [f64],
    position: f64,
    code: u32,
    sums: &'a [Bounded],
}

impl<'a> Evaluator<'a> {
    /// An evaluator for `term` on the engine of `ctx`.
    ///
    /// # Errors
    /// As [`Lowered::new`].
    pub fn new(term: &'a Term, ctx: &'a Context) -> Result<Evaluator<'a>, DequantError> {
        Ok(Evaluator { term, ctx, lowered: Lowered::new(term, ctx)? })
    }

    /// The distinct sums, in the order that [`Evaluator::combine`] takes their values.
    pub fn sums(&self) -> &[SumSite] {
        &self.lowered.sums
    }

    /// The facts of the term.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
    }

    /// The weight `A` of a sum, for one code at position weight `position`, with group parameters
    /// in the order of the format. 1 for the plain sum of activations.
    pub fn weight(&self, sum: &SumSite, code: u32, params: &[f64], position: f64) -> Bounded {
        let place = Place { params, position, code, sums: &[] };
        match sum.weight {
            Some(id) => self.operand(id, &place),
            None => Bounded::exact(1.0),
        }
    }

    /// The activation as it enters the products: `x` times the sum's scale, in the type in which
    /// activations are staged. `x` must be a value of the activation type.
    pub fn activation(&self, sum: &SumSite, x: f64) -> Bounded {
        let staged = match self.ctx.engine {
            Engine::Mma => self.ctx.act,
            Engine::Half2 => DType::F16,
            Engine::F32 => DType::F32,
        };
        Bounded::exact(x * sum.activation_scale).rounded(staged)
    }

    /// A sum over `(code, position weight, activation)`, with relative error `gamma` of the
    /// engine's products and additions on the sum of magnitudes.
    pub fn dot(
        &self,
        sum: &SumSite,
        items: impl IntoIterator<Item = (u32, f64, f64)>,
        params: &[f64],
        gamma: f64,
    ) -> Bounded {
        let mut total = Bounded::default();
        let mut magnitude = 0.0;
        for (code, position, x) in items {
            let product = self.weight(sum, code, params, position).mul(self.activation(sum, x));
            magnitude += product.magnitude();
            total = total.add(product);
        }
        Bounded { error: total.error + gamma * magnitude, ..total }
    }

    /// The root, in f32, from the values of [`Evaluator::sums`].
    pub fn combine(&self, sums: &[Bounded], params: &[f64], position: f64) -> Bounded {
        self.at(self.term.root(), &Place { params, position, code: 0, sums })
    }

    /// A value used in a weight: uniform ones are rounded to the compute type.
    fn operand(&self, id: Id, place: &Place) -> Bounded {
        let value = self.at(id, place);
        if self.lowered.facts(id).hoistable() {
            value.rounded(self.ctx.compute())
        } else {
            value
        }
    }

    /// A product that was rounded when weights were packed: the distance is known, too.
    fn stored(&self, product: Bounded) -> Bounded {
        let error = (DType::F16.round(product.value) - product.value).abs();
        let fits = product.value.abs() <= DType::F16.max_finite();
        Bounded { error: if fits { error } else { f64::INFINITY }, ..product }
    }

    /// An entry of a table in the compute type: which value was rounded is known, so the distance is
    /// no bound but the truth.
    fn entry(&self, value: f64) -> Bounded {
        Bounded { value, error: (self.ctx.compute().round(value) - value).abs() }
    }

    /// A sum of entries of codebooks, rounded once to f16 or added in f32 first: of that, and of the exact
    /// sum as it is held here, one rounding to f32 each.
    fn vector(&self, value: f64) -> Bounded {
        let entry = self.entry(value);
        let summed = self.ctx.spec.codebook.vectors().is_some_and(|vectors| vectors.books() > 1);
        let sums = if summed { 2.0 * DType::F32.unit_roundoff() * value.abs() } else { 0.0 };
        Bounded { error: entry.error + sums, ..entry }
    }

    /// A group parameter. That of a layer with a factor was rounded with it, and what kernels make of it is
    /// rounded when it is multiplied.
    fn param(&self, name: &str, place: &Place) -> Bounded {
        let found = self.ctx.param(name);
        let value = found.and_then(|(index, _)| place.params.get(index)).copied();
        let exact = Bounded::exact(value.unwrap_or(f64::NAN));
        match found {
            Some((_, ParamType::E4M3)) => {
                Bounded { error: 2.0 * DType::F32.unit_roundoff() * exact.value.abs(), ..exact }
            }
            _ => exact,
        }
    }

    fn at(&self, id: Id, place: &Place) -> Bounded {
        let in_weight = self.lowered.facts(id).role == Role::Weight;
        let dtype = if in_weight { self.ctx.compute() } else { DType::F32 };
        let value = |id: Id| if in_weight { self.operand(id, place) } else { self.at(id, place) };
        match self.term.node(id) {
            Op::Const(num) => Bounded::exact(num.value()).rounded(DType::F32),
            Op::Param(name) => self.param(name.as_str(), place),
            Op::Code => Bounded::exact(place.code.into()),
            Op::Position => Bounded::exact(place.position),
            Op::Unposition => Bounded::exact(1.0 / place.position),
            Op::Activation => Bounded::exact(f64::NAN),
            op @ (Op::Xor([a, b])
            | Op::And([a, b])
            | Op::Or([a, b])
            | Op::Shl([a, b])
            | Op::Shr([a, b])) => {
                let integer = |id: Id| self.at(id, place).value as u32;
                let result = integer_op(op, integer(*a), integer(*b));
                Bounded::exact(result.map_or(f64::NAN, f64::from))
            }
            Op::Lookup(a) => Bounded::exact(self.ctx.codebook(self.at(*a, place).value)),
            Op::Pair(a) | Op::Page(a) | Op::Permuted(a) => {
                self.entry(self.ctx.codebook(self.at(*a, place).value))
            }
            Op::Vector(a) => self.vector(self.ctx.codebook(self.at(*a, place).value)),
            Op::Short(a) => {
                self.entry(self.ctx.codebook(self.at(*a, place).value) / self.ctx.short_unit())
            }
            // Both types hold every value.
            Op::Float8(a) | Op::Wide(a) | Op::Converted(a) => {
                Bounded::exact(float8::e4m3(self.at(*a, place).value as u8))
            }
            Op::Narrow(a) => {
                Bounded::exact(float8::e4m3(self.at(*a, place).value as u8) * float8::NARROW)
            }
            Op::Real(a) => self.at(*a, place),
            Op::At(a) => Bounded::exact(self.at(*a, place).value * place.position),
            Op::Raised(a) => Bounded::exact(self.at(*a, place).value * RAISED * place.position),
            Op::Magic(a) => Bounded::exact(self.at(*a, place).value + self.ctx.magic_base()),
            Op::Subnormal(a) => Bounded::exact(self.at(*a, place).value * SUBNORMAL_UNIT),
            Op::Add([a, b]) => value(*a).add(value(*b)).rounded(dtype),
            Op::Sub([a, b]) => value(*a).add(value(*b).neg()).rounded(dtype),
            Op::Mul([a, b]) => value(*a).mul(value(*b)).rounded(dtype),
            Op::Fma([a, b, c]) => value(*a).mul(value(*b)).add(value(*c)).rounded(dtype),
            Op::Neg(a) => value(*a).neg(),
            Op::Stored([a, b]) => {
                self.stored(Bounded::exact(self.at(*a, place).value * self.at(*b, place).value))
            }
            // The roundings on the way to it are its own.
            Op::Nested([scale, ..]) => self.at(*scale, place),
            Op::Sum(_) => {
                let index = self.lowered.sums.iter().position(|sum| sum.id == id);
                let nothing = Bounded::exact(f64::NAN);
                index.and_then(|i| place.sums.get(i)).copied().unwrap_or(nothing)
            }
        }
    }
}
