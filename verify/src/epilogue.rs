//! What becomes of the sums of an output column, and of their errors, on the way to memory.

use crate::random;
use crate::reference::Expected;
use crate::rounding::{output, F32_UNIT};
use qtune_ir::{DType, Epilogue, Problem};

/// The slope of `silu` is at most 1.0999, at 2.3994: an error of its argument grows by no more.
const SILU_SLOPE: f64 = 1.1;
/// What a quotient loses whose divisor is beyond 2^126: `div.approx.f32` may give zero (PTX ISA
/// 9.7.3.8), where `silu` is below 88 * 2^-126.
const SILU_TINY: f64 = 1.0 / (1u128 << 118) as f64;
/// Largest relative error of `ex2.approx.f32` (PTX ISA 9.7.3.21), and two units in the last place
/// of `div.approx.f32`.
const APPROXIMATE: f64 = 1.0 / (1 << 22) as f64;
/// Tells residuals from other random numbers of the same seed.
const RESIDUAL: u64 = 0x5e51_d0a1;

/// A value in exact arithmetic, and how far a correct kernel's may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Approximate {
    pub value: f64,
    pub error: f64,
}

impl Approximate {
    fn magnitude(self) -> f64 {
        self.value.abs() + self.error
    }

    /// Rounded once to f32.
    fn rounded(self) -> Approximate {
        Approximate { error: self.error + F32_UNIT * self.magnitude(), ..self }
    }

    /// An exact value added in f32.
    pub fn plus(self, exact: f64) -> Approximate {
        Approximate { value: self.value + exact, ..self }.rounded()
    }

    fn times(self, other: Approximate) -> Approximate {
        let error = self.error * other.magnitude() + self.value.abs() * other.error;
        Approximate { value: self.value * other.value, error }.rounded()
    }

    /// `silu(g) = g / (1 + e^-g)` as `g / (1 + 2^(-g * log2 e))` in f32 with approximate functions.
    fn silu(self) -> Approximate {
        let value = self.value / (1.0 + (-self.value).exp());
        let moved = SILU_SLOPE * self.error;
        // The exponent is rounded twice, the constant and the product: 2^-23 of |g| log2 e, which
        // the power turns into 2^-23 of |g|. The sum 1 + e passes on at most all of the power's
        // error and is rounded once.
        let power = 2.0 * F32_UNIT * self.magnitude() + APPROXIMATE;
        let relative = power + F32_UNIT + APPROXIMATE;
        let error = moved + relative * (value.abs() + moved) + SILU_TINY;
        Approximate { value, error }
    }
}

/// The end of a problem's computation: everything after the sums over k.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    epilogue: Epilogue,
    out: DType,
    bias: bool,
    seed: u64,
}

impl Finish {
    /// What `problem` does to its sums; `seed` decides the residual.
    pub fn new(problem: &Problem, seed: u64) -> Finish {
        let Problem { epilogue, out, bias, .. } = *problem;
        Finish { epilogue, out, bias, seed }
    }

    /// What is done to the sums.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue
    }

    /// The residual of an output element, an exact value of the output's type: bell-shaped,
    /// variance 1.
    pub fn residual(&self, token: u32, column: u32) -> f32 {
        let value = random::bell(random::at(self.seed ^ RESIDUAL, token, column));
        self.out.round(f64::from(value)) as f32
    }

    /// A row's sum with its bias.
    pub fn biased(&self, sum: Approximate, bias: f64) -> Approximate {
        if self.bias {
            sum.plus(bias)
        } else {
            sum
        }
    }

    /// An output element from the sums of its rows, with their biases.
    pub fn expected(&self, sums: &[Approximate], token: u32, column: u32) -> Expected {
        let result = match (self.epilogue, sums) {
            (Epilogue::SiluMul, [gate, up]) => gate.silu().times(*up),
            (Epilogue::Residual, [sum]) => sum.plus(self.residual(token, column).into()),
            _ => sums[0],
        };
        let bound = result.error + output(self.out, result);
        Expected {
            value: result.value,
            bound,
            may_overflow: result.value.abs() + bound > self.out.max_finite(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(suffix: &str) -> Finish {
        let key = format!("w4a16.awq-g128.f16-f32.n64.k128.m1{suffix}");
        Finish::new(&key.parse().unwrap(), 3)
    }

    fn at(value: f64, error: f64) -> Approximate {
        Approximate { value, error }
    }

    #[test]
    fn errors_of_the_gate_stay_within_the_bound() {
        let exact = |g: f64| g / (1.0 + (-g).exp());
        for step in -400..400 {
            let gate = f64::from(step) / 4.0;
            for error in [1e-6, 1e-3, 0.5] {
                let bound = at(gate, error).silu().error;
                for moved in [gate - error, gate + error] {
                    let off = (exact(moved) - exact(gate)).abs();
                    assert!(off <= bound, "{gate} +- {error}: {off} of {bound}");
                }
            }
        }
    }

    #[test]
    fn single_precision_stays_within_the_bound() {
        for step in -1000..1000 {
            let gate = step as f32 / 8.0;
            let found = gate / (1.0 + (-gate * std::f32::consts::LOG2_E).exp2());
            let approximate = at(gate.into(), 0.0).silu();
            let off = (f64::from(found) - approximate.value).abs();
            assert!(off <= approximate.error, "{gate}: {off} of {}", approximate.error);
            assert!(approximate.error <= 3e-5 * approximate.value.abs() + SILU_TINY);
        }
    }

    #[test]
    fn gate_and_up_do_not_exchange_places() {
        let element = |sums: [f64; 2]| {
            let sums = sums.map(|sum| at(sum, 1e-6));
            finish("+silu_mul").expected(&sums, 0, 0)
        };
        let (right, exchanged) = (element([1.5, -0.5]), element([-0.5, 1.5]));
        assert!((right.value - exchanged.value).abs() > 1e3 * right.bound);
        assert!((right.value + 0.5 * 1.5 / (1.0 + (-1.5f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn a_residual_is_added_once_and_depends_on_its_place() {
        let finish = finish("+residual");
        let element = finish.expected(&[at(2.0, 0.0)], 1, 7);
        assert_eq!(element.value, 2.0 + f64::from(finish.residual(1, 7)));
        assert!(element.bound < 1e-6 && finish.residual(1, 7) != finish.residual(7, 1));
    }
}
