//! Every rule is needed: without it a named candidate is gone.

use super::*;
use crate::dequant::{explain, rule_names, source, variants, DequantError, Options, Search};
use crate::Arch;

const MMA_F16: (Engine, DType) = (Engine::Mma, DType::F16);
const MMA_BF16: (Engine, DType) = (Engine::Mma, DType::Bf16);
const HALF2: (Engine, DType) = (Engine::Half2, DType::F16);

fn search(ctx: &Context, disabled: &[&str]) -> Result<Search, DequantError> {
    let options = Options { disabled_rules: disabled, ..Options::default() };
    variants(ctx, &cost_params(ctx.engine), &Arch::named("h200").unwrap(), &options)
}

fn terms(ctx: &Context, disabled: &[&str]) -> Vec<String> {
    let variants = search(ctx, disabled).map(|search| search.variants).unwrap_or_default();
    variants.into_iter().map(|variant| variant.term.to_string()).collect()
}

/// Rule, format, engine, and a variant that is found only with the rule.
type Row = (&'static str, fn() -> WeightSpec, (Engine, DType), &'static str);

#[rustfmt::skip]
const CANDIDATES: &[Row] = &[
    ("scale-after-sum", awq, MMA_F16,
        "(* s (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) x)))"),
    ("zero-as-correction", awq, MMA_F16,
        "(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))"),
    ("merge-corrections", float_zero, MMA_BF16,
        "(* s (- (sum (* (magic q) x)) (* (+ 128 z) (sum x))))"),
    ("prescale-activations", awq, HALF2,
        "(* (* 256 s) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) (* 0.00390625 x))))"),
    ("merge-scales", awq, HALF2,
        "(* (* 256 s) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) (* 0.00390625 x))))"),
    ("distribute-scale", awq, MMA_F16,
        "(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))"),
    ("store-product", two_levels, MMA_F16,
        "(- (* (* (stored d i) (* rp 16777216)) (sum (* (subn (at q)) x))) (* (stored e j) (sum x)))"),
    ("resolve-nested", nested, MMA_F16, "(* s (sum (* (pair q) x)))"),
    ("magic-number", awq, MMA_BF16,
        "(* s (sum (* (- (magic q) (+ 128 z)) x)))"),
    ("subnormal", awq, MMA_F16,
        "(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))"),
    ("code-in-place", awq, MMA_F16,
        "(sum (* (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) s) x))"),
    ("narrow-float", float8, HALF2,
        "(* (* s 65536) (sum (* (narrow q) (* 0.00390625 x))))"),
    ("hardware-float", float8, MMA_F16, "(* s (sum (* (cvt q) x)))"),
    ("wide-float", float8, MMA_BF16, "(* s (sum (* (wide q) x)))"),
    ("pair-table", codebook, MMA_F16, "(* s (sum (* (pair q) x)))"),
    ("page-table", codebook, MMA_BF16, "(* s (sum (* (page q) x)))"),
    ("register-table", codebook, HALF2,
        "(* (* 256 s) (sum (* (prmt q) (* 0.00390625 x))))"),
    ("short-table", thirds, MMA_F16, "(* (* s 0.6666666865348816) (sum (* (short q) x)))"),
    ("offset-into-zero", awq, MMA_BF16,
        "(* s (sum (* (- (magic q) (+ 128 z)) x)))"),
    ("unscale-by-fma", awq, MMA_F16,
        "(* s (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) x)))"),
    ("offset-into-fma", symmetric, HALF2,
        "(* (* 256 s) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) 8)) (* 0.00390625 x))))"),
    ("precompute-offset", float_zero, MMA_BF16,
        "(sum (* (fma (- (magic q) 128) s (neg (* z s))) x))"),
    ("fuse-multiply-add", odd, MMA_BF16,
        "(sum (* (fma (- (magic (^ q 5)) 128) s (neg t)) x))"),
    ("raise-code-into-fma", awq, MMA_F16,
        "(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 s) (* (neg (* z s)) (* p 0.00390625))) x)))"),
    ("fold-constants", symmetric, MMA_BF16,
        "(* s (sum (* (- (magic q) 136) x)))"),
];

#[test]
fn every_rule_has_a_candidate_that_disappears_without_it() {
    let mut tested: Vec<&str> = Vec::new();
    for (rule, spec, (engine, act), candidate) in CANDIDATES {
        let ctx = context(spec(), *engine, *act);
        let (with, without) = (terms(&ctx, &[]), terms(&ctx, &[rule]));
        let has = |terms: &[String]| terms.iter().any(|term| term == candidate);
        assert!(has(&with), "{candidate} is not among {with:#?}");
        assert!(!has(&without), "{candidate} does not need {rule}");
        tested.push(rule);
    }
    assert!(rule_names().iter().all(|rule| tested.contains(rule)), "a rule has no candidate");
}

#[test]
fn without_rules_only_the_formats_own_expression_is_left() {
    for ctx in contexts() {
        let result = search(&ctx, &rule_names());
        match ctx.engine {
            // A codebook is read through a table, and tables come by rules, as ways to move the bits
            // of floats do.
            _ if !ctx.spec.codebook.values().is_empty() || ctx.spec == float8() => {
                assert!(matches!(result, Err(DequantError::NoLegalTerm { .. })));
            }
            // Unscaled half2 sums may overflow, so this engine depends on its rule.
            Engine::Half2 => assert!(matches!(result, Err(DequantError::NoLegalTerm { .. }))),
            Engine::Mma | Engine::F32 => {
                let only = [source(&ctx).unwrap().to_string()];
                assert_eq!(terms(&ctx, &rule_names()), only);
            }
        }
    }
    let awq = context(awq(), Engine::Mma, DType::F16);
    assert_eq!(terms(&awq, &rule_names()), ["(sum (* (* (- (real q) z) s) x))"]);
}

#[test]
fn every_format_saturates_and_has_variants_on_every_engine() {
    for ctx in contexts() {
        let search = search(&ctx, &[]).unwrap();
        assert_eq!(search.stop_reason, "saturated", "{}", ctx.spec.expr);
        assert!(search.variants.windows(2).all(|pair| pair[0].cost <= pair[1].cost));
    }
}

#[test]
fn no_variant_is_beaten_by_another() {
    for ctx in contexts() {
        let variants = search(&ctx, &[]).unwrap().variants;
        for (i, a) in variants.iter().enumerate() {
            for (j, b) in variants.iter().enumerate() {
                let beaten = b.cost <= a.cost
                    && b.table_bytes <= a.table_bytes
                    && a.rounding.contains(b.rounding);
                assert!(i == j || !beaten, "{} is beaten by {}", a.term, b.term);
            }
        }
    }
}

#[test]
fn searches_are_reproducible() {
    for ctx in contexts() {
        assert_eq!(search(&ctx, &[]).unwrap().variants, search(&ctx, &[]).unwrap().variants);
    }
}

#[test]
fn derivations_lead_from_the_source_to_every_variant() {
    for ctx in contexts() {
        for variant in search(&ctx, &[]).unwrap().variants {
            let derivation = explain(&variant.term, &ctx, &Options::default()).unwrap();
            let (first, last) = (&derivation.steps[0], derivation.steps.last().unwrap());
            assert_eq!(first.term, source(&ctx).unwrap().to_string());
            assert_eq!(last.term, variant.term.to_string());
            assert!(derivation.steps[1..].iter().all(|step| !step.rule.is_empty()));
        }
    }
}

#[test]
fn a_derivation_uses_the_rules_its_term_needs() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    let term = CANDIDATES[1].3.parse().unwrap();
    let rules = explain(&term, &ctx, &Options::default()).unwrap().rules();
    for rule in ["subnormal", "code-in-place", "zero-as-correction", "distribute-scale"] {
        assert!(rules.contains(&rule), "{rule} is not among {rules:?}");
    }
    let wrong = "(* s (sum x))".parse().unwrap();
    let error = explain(&wrong, &ctx, &Options::default()).unwrap_err();
    assert!(matches!(error, DequantError::NotDerivable { .. }));
}

#[test]
fn unknown_rules_and_impossible_engines_are_refused() {
    let ctx = context(awq(), Engine::Mma, DType::F16);
    let error = search(&ctx, &["no-such-rule"]).unwrap_err().to_string();
    assert!(error.contains("no-such-rule") && error.contains("subnormal"), "{error}");
    for (engine, act) in [(Engine::Mma, DType::F32), (Engine::Half2, DType::Bf16)] {
        let error = search(&context(awq(), engine, act), &[]).unwrap_err();
        assert!(matches!(error, DequantError::Context { .. }));
    }
}

#[test]
fn half_rate_gpus_pay_for_packed_arithmetic() {
    let ctx = context(awq(), Engine::Half2, DType::F16);
    let cost = |gpu: &str| {
        let arch = Arch::named(gpu).unwrap();
        let search = variants(&ctx, &cost_params(ctx.engine), &arch, &Options::default()).unwrap();
        search.variants[0].cost
    };
    assert!(cost("l40s") > cost("h200"));
}
