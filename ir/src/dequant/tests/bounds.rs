//! Error bounds: no machine exceeds them, and they are sharp.

use super::*;
use crate::dequant::{
    variants, Bounded, Evaluator, GroupValues, Op, Options, Role, Term, POSITIONS,
};
use crate::Arch;
use egg::Id;

/// Machine arithmetic: every operation rounded to nearest, as codegen's contract says.
struct Machine<'a> {
    term: &'a Term,
    evaluator: &'a Evaluator<'a>,
    ctx: &'a Context,
    params: &'a [f64],
    position: f64,
    code: u32,
}

impl Machine<'_> {
    fn exact(&self, id: Id) -> f64 {
        let values = GroupValues {
            ctx: self.ctx,
            params: self.params,
            codes: &[self.code],
            positions: &[self.position],
            activations: &[1.0],
        };
        values.weight(self.term, id, 0)
    }

    fn operand(&self, id: Id) -> f64 {
        let value = self.value(id);
        if self.evaluator.lowered().facts(id).hoistable() {
            self.ctx.compute().round(value)
        } else {
            value
        }
    }

    fn value(&self, id: Id) -> f64 {
        let weight = self.evaluator.lowered().facts(id).role == Role::Weight;
        let dtype = if weight { self.ctx.compute() } else { DType::F32 };
        let of = |id: &Id| if weight { self.operand(*id) } else { self.value(*id) };
        match self.term.node(id) {
            Op::Add([a, b]) => dtype.round(of(a) + of(b)),
            Op::Sub([a, b]) => dtype.round(of(a) - of(b)),
            Op::Mul([a, b]) => dtype.round(of(a) * of(b)),
            Op::Fma([a, b, c]) => dtype.round(of(a).mul_add(of(b), of(c))),
            Op::Neg(a) => -of(a),
            _ => self.exact(id),
        }
    }
}

/// A scale that is no power of two, and offsets at both ends: zero-points are in codes, the odd
/// format's `t` is in weights.
fn parameters(ctx: &Context) -> Vec<Vec<f64>> {
    let scale = DType::F16.round(0.011_37);
    let unit = if ctx.spec == odd() { DType::Bf16.round(scale) } else { 1.0 };
    let offset = |z: f64| [scale, unit * z][..ctx.spec.params.len()].to_vec();
    [0.0, 7.0, 15.0].map(offset).to_vec()
}

/// Every variant, sum, parameter set and position of a context.
fn for_each_weight(mut check: impl FnMut(&Context, &Term, &Evaluator, Id, &[f64], f64)) {
    let arch = Arch::named("h200").unwrap();
    for ctx in contexts() {
        let params = cost_params(ctx.engine);
        for variant in variants(&ctx, &params, &arch, &Options::default()).unwrap().variants {
            let evaluator = Evaluator::new(&variant.term, &ctx).unwrap();
            for weight in evaluator.sums().iter().filter_map(|sum| sum.weight) {
                for values in parameters(&ctx) {
                    for position in POSITIONS {
                        check(&ctx, &variant.term, &evaluator, weight, &values, position);
                    }
                }
            }
        }
    }
}

fn bounded(evaluator: &Evaluator, weight: Id, code: u32, params: &[f64], p: f64) -> Bounded {
    let sum = evaluator.sums().iter().find(|sum| sum.weight == Some(weight)).unwrap();
    evaluator.weight(sum, code, params, p)
}

#[test]
fn machine_weights_lie_within_their_bounds() {
    for_each_weight(|ctx, term, evaluator, weight, params, position| {
        for code in 0..16 {
            let machine = Machine { term, evaluator, ctx, params, position, code };
            let bound = bounded(evaluator, weight, code, params, position);
            assert_eq!(bound.value, machine.exact(weight));
            let off = (machine.operand(weight) - bound.value).abs();
            assert!(off <= bound.error, "{term}: code {code} is off by {off}, bound {bound:?}");
        }
    });
}

#[test]
fn bounds_tell_neighbouring_codes_apart() {
    for_each_weight(|_, term, evaluator, weight, params, position| {
        let of = |code| bounded(evaluator, weight, code, params, position);
        for code in 1..16 {
            let (low, high) = (of(code - 1), of(code));
            let apart = (high.value - low.value).abs();
            assert!(low.error + high.error < apart, "{term}: {code} has {low:?} and {high:?}");
        }
    });
}

#[test]
fn exact_codes_have_no_error() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    for text in [
        "(* s (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) x)))",
        "(* s (sum (* (- (magic q) (+ 1024 z)) x)))",
        "(* s (sum (* (subn (at q)) x)))",
    ] {
        let term: Term = text.parse().unwrap();
        let evaluator = Evaluator::new(&term, &ctx).unwrap();
        for code in 0..16 {
            let weight = evaluator.weight(&evaluator.sums()[0], code, &[0.37, 11.0], 16.0);
            assert_eq!(weight.error, 0.0, "{text}");
        }
    }
}

#[test]
fn combining_sums_adds_their_errors_and_those_of_the_outer_arithmetic() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    let term: Term = "(* s (- (sum (* (real q) x)) (* z (sum x))))".parse().unwrap();
    let evaluator = Evaluator::new(&term, &ctx).unwrap();
    let sums = [Bounded { value: 30.0, error: 0.5 }, Bounded { value: 2.0, error: 0.25 }];
    let total = evaluator.combine(&sums, &[0.5, 8.0], 1.0);
    assert_eq!(total.value, 0.5 * (30.0 - 8.0 * 2.0));
    let propagated = 0.5 * (0.5 + 8.0 * 0.25);
    assert!(total.error >= propagated && total.error < propagated * (1.0 + 1e-4), "{total:?}");
}

#[test]
fn dot_products_bound_weights_accumulation_and_prescaling() {
    let ctx = context(awq(), Engine::Half2, DType::F16);
    let term: Term =
        "(* (* 256 s) (sum (* (- (magic q) (+ 1024 z)) (* 0.00390625 x))))".parse().unwrap();
    let evaluator = Evaluator::new(&term, &ctx).unwrap();
    let items = [(3, 1.0, 1.0), (9, 1.0, -0.5)];
    let dot = evaluator.dot(&evaluator.sums()[0], items, &[0.5, 8.0], 0.001);
    assert_eq!(dot.value, (-5.0 - 0.5) / 256.0);
    assert_eq!(dot.error, 0.001 * (5.0 + 0.5) / 256.0);
    let tiny = evaluator.activation(&evaluator.sums()[0], 2.0f64.powi(-20));
    assert!(tiny.error > 0.0, "2^-28 is no f16");
}

#[test]
fn overflow_makes_the_bound_infinite() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    let term: Term = "(sum (* (* (- (real q) z) s) x))".parse().unwrap();
    let evaluator = Evaluator::new(&term, &ctx).unwrap();
    let weight = evaluator.weight(&evaluator.sums()[0], 15, &[60_000.0, 0.0], 1.0);
    assert_eq!(weight.error, f64::INFINITY);
}
