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
            Op::Stored(_) => DType::F16.round(self.exact(id)),
            Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_) => {
                dtype.round(self.exact(id))
            }
            _ => self.exact(id),
        }
    }
}

/// A scale that is no power of two, and offsets at both ends: zero-points are in codes, the odd
/// format's `t` is in weights.
fn parameters(ctx: &Context) -> Vec<Vec<f64>> {
    let scale = DType::F16.round(0.011_37);
    let unit = if ctx.spec == odd() { DType::Bf16.round(scale) } else { 1.0 };
    let offset = |z: f64| match ctx.spec.params.len() {
        3 => vec![scale, z, scale],
        4 => vec![scale, 37.0, DType::F16.round(8.0 * scale), z],
        count => [scale, unit * z][..count].to_vec(),
    };
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

/// The machine's result of a whole group: rounded weights, exactly added up, f32 outside.
fn machine_group(term: &Term, ctx: &Context, params: &[f64], items: &[(u32, f64, f64)]) -> f64 {
    let evaluator = Evaluator::new(term, ctx).unwrap();
    let machine =
        |code, position| Machine { term, evaluator: &evaluator, ctx, params, position, code };
    let sums: Vec<f64> = evaluator
        .sums()
        .iter()
        .map(|sum| {
            let weight = |code, p| sum.weight.map_or(1.0, |id| machine(code, p).operand(id));
            items.iter().map(|(code, p, x)| weight(*code, *p) * x * sum.activation_scale).sum()
        })
        .collect();
    outer(&machine(0, items[0].1), term.root(), &sums)
}

/// The root in f32, operation by operation.
fn outer(machine: &Machine, id: Id, sums: &[f64]) -> f64 {
    let lowered = machine.evaluator.lowered();
    if lowered.facts(id).hoistable() {
        return machine.value(id);
    }
    let of = |id: &Id| outer(machine, *id, sums);
    match machine.term.node(id) {
        Op::Sum(_) => sums[lowered.sums.iter().position(|sum| sum.id == id).unwrap()],
        Op::Add([a, b]) => DType::F32.round(of(a) + of(b)),
        Op::Sub([a, b]) => DType::F32.round(of(a) - of(b)),
        Op::Mul([a, b]) => DType::F32.round(of(a) * of(b)),
        op => panic!("no variant has {op} outside of its sums"),
    }
}

#[test]
fn machine_groups_lie_within_their_bounds() {
    let arch = Arch::named("h200").unwrap();
    for ctx in contexts() {
        let search = variants(&ctx, &cost_params(ctx.engine), &arch, &Options::default()).unwrap();
        let position =
            |k: u32| if ctx.engine == Engine::Mma { 16.0 } else { POSITIONS[k as usize % 2] };
        let item = |k: u32| (k * 7 % 16, position(k), f64::from(k * 5 % 11) / 8.0 - 0.5);
        let items: Vec<(u32, f64, f64)> = (0..32).map(item).collect();
        for term in search.variants.iter().chain(&search.beaten).map(|variant| &variant.term) {
            let evaluator = Evaluator::new(term, &ctx).unwrap();
            for params in parameters(&ctx) {
                let dot = |sum| evaluator.dot(sum, items.iter().copied(), &params, 0.0);
                let sums: Vec<Bounded> = evaluator.sums().iter().map(dot).collect();
                let bound = evaluator.combine(&sums, &params, items[0].1);
                let off = (machine_group(term, &ctx, &params, &items) - bound.value).abs();
                // Sums are added up in f64 here, whose own rounding no bound counts.
                assert!(off <= bound.error + 1e-12, "{term}: off by {off}, bound {bound:?}");
            }
        }
    }
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
