//! Kernels of layers between rotations are checked step by step: the rotated activations against those that
//! the launch was fed, the products against the rotated activations that the first step left, the output
//! against the products that the steps before left. Errors so never pass through a rotation, which would
//! spread a bound over all features.

use crate::compare::{self, Worst};
use crate::epilogue::{Approximate, Finish};
use crate::inputs::{decode, Activations};
use crate::random;
use crate::reference::Expected;
use crate::rounding::{output, F32_UNIT};
use half::f16;
use qtune_formats::{transform, Rotation};
use qtune_ir::Problem;

/// Tells products that nobody has computed from what else a seed decides.
const PRODUCTS: u64 = 0x09c7;
/// Rounding of a feature beside its additions: two factors and the one that makes it orthonormal.
const FACTORS: u32 = 4;

/// The rotations of a layer under test.
pub(crate) struct Turns {
    pub rotation: Rotation,
    /// What is asked for, and what is multiplied of it.
    pub problem: Problem,
    pub product: Problem,
    /// `[N]`
    pub bias: Vec<f64>,
}

impl Turns {
    /// What products hold before a launch: numbers, since the last step reads them all, even those that a
    /// sample of a launch does not compute.
    pub fn before(&self, seed: u64, tokens: u32) -> Vec<u8> {
        let bell = |token| {
            let columns = 0..self.problem.n;
            columns.map(move |n| random::bell(random::at(seed ^ PRODUCTS, token, n)))
        };
        (0..tokens).flat_map(bell).flat_map(f32::to_le_bytes).collect()
    }

    /// Compares rotated activations with those of the launch.
    pub fn inputs(&self, x: &Activations, turned: &[u8]) -> Worst {
        let (mut worst, act) = (Worst::default(), self.problem.act);
        let k = self.problem.k as usize;
        for token in 0..x.patterns.len() {
            let features = x.token(token as u32).iter().zip(&self.rotation.inputs);
            let features = features.map(|(x, factor)| f64::from(*x) * factor.to_f64());
            for (at, feature) in rotated(features.collect()).into_iter().enumerate() {
                let bound = feature.error + output(act, feature);
                let may_overflow = feature.value.abs() + bound > act.max_finite();
                let expected = Expected { value: feature.value, bound, may_overflow };
                let found = decode(turned, token * k + at, act);
                worst.merge(one(found, &expected, &format!("token {token}, rotated input {at}")));
            }
        }
        worst
    }

    /// Compares outputs with the products that they are made of.
    pub fn outputs(&self, products: &[u8], found: &[u8], finish: &Finish) -> Worst {
        let (mut worst, n) = (Worst::default(), self.problem.n as usize);
        for token in 0..products.len() / 4 / n {
            let product = |at| decode(products, token * n + at, qtune_ir::DType::F32);
            let features = rotated((0..n).map(product).collect());
            let factors = self.rotation.outputs.iter().copied().map(f16::to_f64);
            for (at, (feature, factor)) in features.into_iter().zip(factors).enumerate() {
                let value = feature.value * factor;
                let error = (feature.error + F32_UNIT * feature.value.abs()) * factor.abs();
                let sum = finish.biased(Approximate { value, error }, self.bias[at]);
                let expected = finish.expected(&[sum], token as u32, at as u32);
                let found = decode(found, token * n + at, self.problem.out);
                worst.merge(one(found, &expected, &format!("token {token}, output {at}")));
            }
        }
        worst
    }
}

/// The orthonormal transform of features, and what f32 may be off: every level of sums rounds once, relative
/// to at most the sum of all magnitudes.
fn rotated(mut features: Vec<f64>) -> Vec<Approximate> {
    let unit = 1.0 / (features.len() as f64).sqrt();
    let magnitude: f64 = features.iter().map(|feature| feature.abs()).sum();
    let roundings = f64::from(features.len().ilog2() + FACTORS);
    let error = roundings * F32_UNIT * magnitude * unit;
    transform(&mut features, 1);
    features.into_iter().map(|value| Approximate { value: value * unit, error }).collect()
}

/// The comparison of one number.
fn one(found: f64, expected: &Expected, place: &str) -> Worst {
    let ratio = compare::ratio(found, expected);
    let detail = (ratio > 1.0).then(|| {
        let Expected { value, bound, .. } = expected;
        format!("{place}: {found} where {value} +- {bound:.3e} is right")
    });
    Worst { ratio, detail, elements: 1 }
}
