//! Meaning: rules and variants keep the exact value, text round-trips, the verifier is sound.

use super::*;
use crate::dequant::rules::{sides, Sides};
use crate::dequant::{
    source, variants, DequantError, Evaluator, GroupValues, Lowered, Options, Role, Term,
};
use crate::Arch;
use proptest::prelude::*;

/// Weights of a quant group with random values; `p` is one number on `Mma`.
#[derive(Clone, Debug)]
struct Data {
    params: Vec<f64>,
    codes: Vec<u32>,
    positions: Vec<f64>,
    activations: Vec<f64>,
}

impl Data {
    fn values<'a>(&'a self, ctx: &'a Context) -> GroupValues<'a> {
        GroupValues {
            ctx,
            params: &self.params,
            codes: &self.codes,
            positions: &self.positions,
            activations: &self.activations,
        }
    }
}

fn data(engine: Engine) -> impl Strategy<Value = Data> {
    let lane = (0u32..16, prop::bool::ANY, -64i32..64);
    let params = prop::collection::vec(0u32..16, 4);
    (params, prop::collection::vec(lane, 1..9), prop::bool::ANY).prop_map(
        move |(params, lanes, row)| {
            let position = |high: bool| if high { 16.0 } else { 1.0 };
            let of_lane = |high: bool| if engine == Engine::Mma { row } else { high };
            Data {
                // The first parameter is a scale in every format here.
                params: params.iter().enumerate().map(|(i, p)| parameter(i, *p)).collect(),
                codes: lanes.iter().map(|lane| lane.0).collect(),
                positions: lanes.iter().map(|lane| position(of_lane(lane.1))).collect(),
                activations: lanes.iter().map(|lane| f64::from(lane.2) / 16.0).collect(),
            }
        },
    )
}

fn parameter(index: usize, value: u32) -> f64 {
    if index == 0 {
        f64::from(value + 1) / 512.0
    } else {
        f64::from(value)
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs())
}

/// What a pattern's variables may stand for, by the role its rule's conditions ask for.
const WEIGHTS: [&str; 4] = ["(real q)", "(magic q)", "(* (real q) z)", "(- (real (^ q 5)) 3)"];
const UNIFORMS: [&str; 5] = ["s", "(+ z 2)", "0.25", "(neg s)", "(* s z)"];
const INTEGERS: [&str; 5] = ["q", "(^ q 5)", "(>> q 1)", "(& q 6)", "(& (<< q 1) 15)"];
const OUTERS: [&str; 2] = ["(sum (* (real q) x))", "(sum x)"];

fn choices(side: &Sides, variable: &str) -> Vec<&'static str> {
    match side.roles.iter().find(|(name, _)| *name == variable).map(|(_, role)| *role) {
        Some(Role::Weight) => WEIGHTS.into(),
        Some(Role::Integer) => INTEGERS.into(),
        Some(Role::Outer) => OUTERS.into(),
        Some(_) => UNIFORMS.into(),
        None => vec!["x", "(* 0.5 x)"],
    }
}

/// A side of a rule with its variables replaced; the same picks for both sides.
fn instance(side: &Sides, pattern: &str, picks: &[usize]) -> String {
    let names = ["?a", "?b", "?c", "?d", "?e", "?i", "?m", "?r", "?s", "?t", "?y", "?z"];
    names.iter().zip(picks).fold(pattern.to_string(), |text, (name, pick)| {
        let choices = choices(side, name);
        text.replace(name, choices[pick % choices.len()])
    })
}

proptest! {
    #[test]
    fn both_sides_of_every_rule_have_the_same_value(
        picks in prop::collection::vec(0usize..60, 12),
        data in data(Engine::Mma),
    ) {
        for act in [DType::F16, DType::Bf16] {
            // Short codes and every other operator have a meaning in this format.
            let spec = WeightSpec { codebook: thirds().codebook, ..awq() };
            let ctx = context(spec, Engine::Mma, act);
            let short = |side: &Sides| side.right.contains("(short") && act == DType::Bf16;
            for side in sides(&ctx).into_iter().filter(|side| !short(side)) {
                let left = instance(&side, &side.left, &picks);
                let right = instance(&side, &side.right, &picks);
                let value = |text: &str| data.values(&ctx).value(&text.parse().unwrap());
                let (l, r) = (value(&left), value(&right));
                prop_assert!(close(l, r), "{}: {left} = {l}, {right} = {r}", side.rule);
            }
        }
    }

    #[test]
    fn every_variant_means_what_the_format_says(
        on_mma in data(Engine::Mma),
        alternating in data(Engine::Half2),
    ) {
        for ctx in contexts() {
            let data = if ctx.engine == Engine::Mma { &on_mma } else { &alternating };
            let wanted = data.values(&ctx).value(&source(&ctx).unwrap());
            for term in known_variants(&ctx) {
                let value = data.values(&ctx).value(&term);
                prop_assert!(close(wanted, value), "{term}: {value}, not {wanted}");
            }
        }
    }

    #[test]
    fn terms_print_and_parse_back(term in any_term()) {
        let text = term.to_string();
        let parsed: Term = text.parse().unwrap();
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert_eq!(parsed.nodes(), term.nodes());
    }

    #[test]
    fn accepted_terms_have_values_within_their_facts(
        term in any_term(),
        data in data(Engine::F32),
    ) {
        let ctx = context(awq(), Engine::F32, DType::F16);
        if let Ok(lowered) = Lowered::new(&term, &ctx) {
            prop_assert!(data.values(&ctx).value(&term).is_finite());
            for (index, facts) in lowered.facts.iter().enumerate() {
                within_grid(&term, egg::Id::from(index), facts, &ctx, &data)?;
            }
        }
    }

    #[test]
    fn well_typed_terms_are_never_called_ill_typed(
        term in typed_term(),
        data in data(Engine::Mma),
    ) {
        let ctx = context(awq(), Engine::Mma, DType::F16);
        match Lowered::new(&term, &ctx) {
            Ok(lowered) => {
                for (index, facts) in lowered.facts.iter().enumerate() {
                    within_grid(&term, egg::Id::from(index), facts, &ctx, &data)?;
                }
                same_weights_in_both_interpreters(&term, &ctx, &data)?;
            }
            // Random offsets may overflow f16; nothing else may be wrong.
            Err(error) => {
                prop_assert!(matches!(error, DequantError::Illegal { .. }), "{term}: {error}");
            }
        }
    }
}

/// The value that error bounds are about is the exact interpreter's.
fn same_weights_in_both_interpreters(
    term: &Term,
    ctx: &Context,
    data: &Data,
) -> Result<(), TestCaseError> {
    let evaluator = Evaluator::new(term, ctx).unwrap();
    for sum in evaluator.sums() {
        let Some(weight) = sum.weight else { continue };
        for (k, code) in data.codes.iter().enumerate() {
            let exact = data.values(ctx).weight(term, weight, k);
            let bounded = evaluator.weight(sum, *code, &data.params, data.positions[k]);
            prop_assert_eq!(bounded.value, exact, "{}", term);
        }
    }
    Ok(())
}

/// The variants of a context, searched once per process.
fn known_variants(ctx: &Context) -> Vec<Term> {
    use std::sync::OnceLock;
    static KNOWN: OnceLock<Vec<(Context, Vec<Term>)>> = OnceLock::new();
    let arch = Arch::named("h200").unwrap();
    let search = |ctx: Context| {
        let params = cost_params(ctx.engine);
        let found = variants(&ctx, &params, &arch, &Options::default()).unwrap();
        (ctx, found.variants.into_iter().map(|variant| variant.term).collect())
    };
    let known = KNOWN.get_or_init(|| contexts().into_iter().map(search).collect());
    known.iter().find(|(known, _)| known == ctx).map(|(_, terms)| terms.clone()).unwrap_or_default()
}

fn within_grid(
    term: &Term,
    id: egg::Id,
    facts: &crate::dequant::Facts,
    ctx: &Context,
    data: &Data,
) -> Result<(), TestCaseError> {
    for (k, position) in data.positions.iter().enumerate() {
        let grid = facts.grid[usize::from(*position > 1.0)];
        if let (Some(grid), false) = (grid, facts.role >= Role::Activation) {
            let value = data.values(ctx).weight(term, id, k);
            let text = term.text_at(id);
            prop_assert!(grid.lo <= value && value <= grid.hi, "{text}: {value} not in {grid:?}");
        }
    }
    Ok(())
}

/// Terms of any shape, well typed or not: operators over leaves, up to five levels deep.
fn any_term() -> impl Strategy<Value = Term> {
    let leaf = prop::sample::select(vec!["q", "x", "p", "rp", "s", "z", "5", "0.25", "-3"]);
    let leaf = leaf.prop_map(str::to_string);
    let tree = leaf.prop_recursive(5, 40, 3, |inner| {
        let unary = prop::sample::select(vec!["real", "at", "magic", "subn", "neg", "sum"]);
        let binary = prop::sample::select(vec!["+", "-", "*", "^", "&", "|", "<<", ">>"]);
        prop_oneof![
            (unary, inner.clone()).prop_map(|(op, a)| format!("({op} {a})")),
            (binary, inner.clone(), inner.clone()).prop_map(|(op, a, b)| format!("({op} {a} {b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("(fma {a} {b} {c})")),
            inner.clone().prop_map(|a| format!("(sum (* {a} x))")),
            inner.clone().prop_map(|a| format!("(* s (sum (* (* (real q) {a}) x)))")),
        ]
    });
    tree.prop_map(|text| text.parse().unwrap())
}

#[test]
fn ill_typed_terms_are_refused_by_name() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    let cases = [
        ("(sum (* (real s) x))", "(real s)"),
        ("(sum (* (+ q z) x))", "(+ q z)"),
        ("(sum (* (real (^ q 0.5)) x))", "(^ q 0.5)"),
        ("(sum (* (real (<< q q)) x))", "(<< q q)"),
        ("(sum (* (at q) x))", "(* (at q) x)"),
        ("(sum (* (real (at (at q))) x))", "(at (at q))"),
        ("(sum (* (+ (real q) x) x))", "(+ (real q) x)"),
        ("(sum (* w x))", "w"),
        ("(sum (real q))", "(sum (real q))"),
        ("(* (sum x) (sum x))", "(* (sum x) (sum x))"),
        ("(+ (real q) (sum x))", "(+ (real q) (sum x))"),
        ("(sum (* (sum x) x))", "(* (sum x) x)"),
    ];
    for (text, at) in cases {
        match Lowered::new(&text.parse().unwrap(), &ctx) {
            Err(DequantError::IllTyped { at: place, .. }) => assert_eq!(place, at, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn terms_that_an_engine_cannot_compute_are_refused_with_the_limit() {
    let cases = [
        (Engine::Half2, DType::F16, "(sum (* (- (real q) z) x))", "overflow"),
        (Engine::Half2, DType::F16, "(* 256 (sum (* (subn q) (* 0.00390625 x))))", "underflow"),
        (Engine::Mma, DType::Bf16, "(sum (* (subn q) x))", "f16 trick"),
        (Engine::Mma, DType::Bf16, "(sum (* (magic (at q)) x))", "does not fit below 128"),
        (Engine::Mma, DType::F16, "(sum (* (* 16777216 (subn q)) x))", "overflow f16"),
        (Engine::Mma, DType::F16, "(sum (* (* (* s 16777216) (subn q)) x))", "overflow f16"),
        (Engine::Mma, DType::F16, "(sum (* (real (<< q 1)) x))", "code's 4 bits"),
        (Engine::Mma, DType::F16, "(sum (* (subn (at (^ q 21))) x))", "code's 4 bits"),
        (Engine::F32, DType::F16, "(* rp (sum (* (real (at q)) x)))", "cannot leave the sum"),
        (Engine::Mma, DType::F16, "(sum (* (real q) (* 3 x)))", "power of two"),
        (Engine::Mma, DType::F16, "(- (sum (* (real q) (* 2 x))) (sum x))", "differently"),
        (Engine::Mma, DType::F16, "(* s z)", "no sum"),
    ];
    for (engine, act, text, limit) in cases {
        let ctx = context(awq(), engine, act);
        let error = Lowered::new(&text.parse().unwrap(), &ctx).unwrap_err().to_string();
        assert!(error.contains(limit), "{text}: {error}");
    }
}

#[test]
fn source_terms_wrap_integers_where_arithmetic_begins() {
    let cases = [
        ("(* (- q z) s)", "(sum (* (* (- (real q) z) s) x))"),
        ("(* (& (>> q 1) 3) s)", "(sum (* (* (real (& (>> q 1) 3)) s) x))"),
        ("(+ q q)", "(sum (* (+ (real q) (real q)) x))"),
        ("q", "(sum (* (real q) x))"),
    ];
    for (expr, wanted) in cases {
        let ctx = context(spec(expr, &awq_params()), Engine::Mma, DType::F16);
        assert_eq!(source(&ctx).unwrap().to_string(), wanted);
    }
    for expr in ["(* s z)", "(* q x)", "(sum q)", "(* q p)", "(^ q s)", "(* q t)", "(+ q"] {
        let ctx = context(spec(expr, &awq_params()), Engine::Mma, DType::F16);
        assert!(source(&ctx).is_err(), "{expr}");
    }
}

fn awq_params() -> [(&'static str, ParamType); 2] {
    [("s", ParamType::F16), ("z", ParamType::Code(4))]
}

/// Well-typed terms of one or two sums.
fn typed_term() -> impl Strategy<Value = Term> {
    let body = (weight(), prop::sample::select(vec!["x", "(* 0.5 x)"]));
    let scale = prop::sample::select(UNIFORMS.to_vec());
    (body, scale, weight(), prop::bool::ANY).prop_map(|((weight, y), scale, other, two)| {
        let sum = format!("(* {scale} (sum (* {weight} {y})))");
        let text = if two { format!("(- {sum} (sum (* {other} {y})))") } else { sum };
        text.parse().unwrap()
    })
}

/// Expressions of one weight.
fn weight() -> impl Strategy<Value = String> {
    let integer = prop::sample::select(INTEGERS.to_vec());
    let place = prop::sample::select(vec!["real", "magic", "subn"]);
    let leaf = (place, integer, prop::bool::ANY).prop_map(|(op, i, in_place)| {
        if in_place {
            format!("({op} (at {i}))")
        } else {
            format!("({op} {i})")
        }
    });
    let uniform = prop::sample::select([&UNIFORMS[..], &["p", "rp"]].concat());
    leaf.prop_recursive(3, 8, 3, move |inner| {
        let binary = prop::sample::select(vec!["+", "-", "*"]);
        prop_oneof![
            (binary, inner.clone(), uniform.clone())
                .prop_map(|(op, a, u)| format!("({op} {a} {u})")),
            (inner.clone(), uniform.clone(), inner.clone())
                .prop_map(|(a, u, c)| format!("(fma {a} {u} {c})")),
            inner.prop_map(|a| format!("(neg {a})")),
        ]
    })
}
