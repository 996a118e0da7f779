//! What surrounds a term: the format, the activations and the arithmetic that consumes weights.

use super::facts::VECTOR_MAX;
use super::{DequantError, Op, Term};
use crate::{DType, ParamType, WeightSpec};
use std::fmt;

/// The arithmetic that consumes dequantized weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Engine {
    /// `mma.m16n8k16` on pairs of weights in the activation's type, f32 accumulation. The layout
    /// puts the codes of rows `g` at bit 0 and of rows `g+8` at bit 4: `p` is a row's constant.
    Mma,
    /// Packed half FMAs, 16 products per half, then f32. `p` alternates between pairs of one row.
    Half2,
    /// Weights in f16 pairs, widened to f32 and multiplied by f32 activations. `p` alternates.
    F32,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Mma => "mma",
            Engine::Half2 => "half2",
            Engine::F32 => "f32",
        })
    }
}

/// The position weights a code may have where it lies in its 16-bit half word, once the word has
/// been shifted at most by 8: bit 0 or bit 4.
pub const POSITIONS: [f64; 2] = [1.0, 16.0];

/// What a code is worth more where its word was rotated up by three bits when it was packed: as high as
/// a code can lie at both positions and still be read as an f16 whose value grows evenly with it.
pub(super) const RAISED: f64 = 8.0;

/// The magnitude of the largest weight.
const WEIGHT_MAX: f64 = 60.0;

/// Relative error of a quotient of two f32 values that were rounded from short multiples.
const SHORT_ERROR: f64 = 1.0 / (1 << 23) as f64;

/// Everything that decides what a term means and whether it is legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Element type of the activations.
    pub act: DType,
    /// What consumes the weights.
    pub engine: Engine,
    /// The format.
    pub spec: WeightSpec,
}

impl Context {
    /// The type in which weights are computed inside sums.
    pub fn compute(&self) -> DType {
        match self.engine {
            Engine::Mma => self.act,
            Engine::Half2 | Engine::F32 => DType::F16,
        }
    }

    /// The power of two whose last mantissa bit weighs 1 in the compute type: an integer placed in
    /// the low mantissa bits reads as this plus the integer (`0x6400` in f16, `0x4300` in bf16).
    pub fn magic_base(&self) -> f64 {
        2.0f64.powi(self.compute().mantissa_bits() as i32)
    }

    /// The largest code.
    pub fn code_max(&self) -> u32 {
        (1 << self.spec.bits) - 1
    }

    /// How many codes there are to evaluate an expression for: a format's own, or one for each number that
    /// vectors were given ([`crate::Codebook::with_values`]).
    pub fn codes(&self) -> u32 {
        match self.spec.codebook.vectors() {
            Some(_) => self.spec.codebook.values().len() as u32,
            None => self.code_max() + 1,
        }
    }

    /// How the parameter called `name` is stored, and its index.
    pub fn param(&self, name: &str) -> Option<(usize, ParamType)> {
        let found = self.spec.params.iter().enumerate().find(|(_, p)| p.name == name);
        found.map(|(index, param)| (index, param.dtype))
    }

    /// The magnitude that a parameter is taken to have at most, when it is asked whether a term
    /// overflows: no published model has greater weights. `None` for integers, and for what does not
    /// multiply something made from the code in the format's own expression.
    pub fn scale_max(&self, name: &str) -> Option<f64> {
        if matches!(self.param(name)?.1, ParamType::Code(_)) {
            return None;
        }
        let values = self.spec.codebook.values().iter().map(|value| f64::from(value.abs()));
        let largest = match self.spec.codebook.vectors() {
            Some(_) => VECTOR_MAX,
            None => values.reduce(f64::max).unwrap_or(self.code_max().into()),
        };
        let term = self.spec.expr.parse::<Term>().ok()?;
        let scale = |scale, scaled| match term.reads_codes(scaled) {
            true => self.cofactor(&term, scale, name),
            false => None,
        };
        let others = term.nodes().iter().find_map(|op| match *op {
            Op::Mul([a, b]) => scale(a, b).or_else(|| scale(b, a)),
            _ => None,
        });
        Some(WEIGHT_MAX / largest / others?)
    }

    /// The largest product of the integers that `name` is multiplied with at `id`; `None` if it is not
    /// there, or with anything else.
    fn cofactor(&self, term: &Term, id: egg::Id, name: &str) -> Option<f64> {
        match term.node(id) {
            Op::Param(param) if param.as_str() == name => Some(1.0),
            Op::Nested([scale, ..]) => self.cofactor(term, *scale, name),
            Op::Mul([a, b]) => {
                let of = |factor, integer| {
                    Some(self.cofactor(term, factor, name)? * self.integer_max(term, integer)?)
                };
                of(*a, *b).or_else(|| of(*b, *a))
            }
            _ => None,
        }
    }

    /// The largest value of an integer parameter.
    fn integer_max(&self, term: &Term, id: egg::Id) -> Option<f64> {
        match term.node(id) {
            Op::Param(param) => match self.param(param.as_str())? {
                (_, ParamType::Code(bits)) => Some(2.0f64.powi(bits.into()) - 1.0),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value that the codebook has for an integer; NaN where it has none.
    pub fn codebook(&self, code: f64) -> f64 {
        self.spec.codebook.values().get(code as usize).map_or(f64::NAN, |value| f64::from(*value))
    }

    /// The number that a codebook's values are short multiples of: floats of the compute type whose
    /// low byte is zero, as far as f32 tells. NaN where there is none.
    ///
    /// A table of such values is one byte per code. Units are values of the codebook, so that they
    /// are exact in f32 and a scale can absorb them; the greatest keeps products small.
    pub fn short_unit(&self) -> f64 {
        let values = self.spec.codebook.values();
        let units = values.iter().map(|value| f64::from(*value)).filter(|unit| *unit > 0.0);
        let fits = |unit: &f64| values.iter().all(|value| self.is_short(f64::from(*value) / unit));
        units.filter(fits).fold(f64::NAN, f64::max)
    }

    /// Whether `value` is a float of the compute type with eight zeros at the end, nearly.
    fn is_short(&self, value: f64) -> bool {
        let compute = self.compute();
        let rounded = compute.round(value);
        let bits = match compute {
            DType::F16 => half::f16::from_f64(rounded).to_bits(),
            DType::Bf16 => half::bf16::from_f64(rounded).to_bits(),
            DType::F32 => return false,
        };
        bits & 0xff == 0 && (rounded - value).abs() <= SHORT_ERROR * value.abs()
    }

    /// Refuses combinations that no kernel computes.
    pub(super) fn check(&self) -> Result<(), DequantError> {
        let why = match self.engine {
            Engine::Mma if self.act == DType::F32 => "mma has no f32 operands",
            Engine::Half2 if self.act != DType::F16 => "half2 sums need f16 activations",
            _ if !(1..=10).contains(&self.spec.bits) => "codes must have 1 to 10 bits",
            _ => return Ok(()),
        };
        let what = format!("{} on {} with {} activations", self.spec.name, self.engine, self.act);
        Err(DequantError::Context { what, why })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{awq, context, two_levels};
    use super::*;

    #[test]
    fn a_scale_has_room_up_to_the_largest_weight() {
        let of = |spec, name| context(spec, Engine::Mma, DType::F16).scale_max(name);
        assert_eq!(of(awq(), "s"), Some(WEIGHT_MAX / 15.0));
        assert_eq!(of(two_levels(), "d"), Some(WEIGHT_MAX / 15.0 / 63.0));
        for (spec, name) in [(awq(), "z"), (two_levels(), "e")] {
            assert_eq!(of(spec, name), None, "{name} does not multiply a code");
        }
        assert_eq!(of(two_levels(), "i"), None, "an integer has its own bounds");
    }
}
