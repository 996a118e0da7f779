//! Tests of the search as a whole: what each rule brings, and what the model prefers.

use super::extract::Walk;
use super::factors::Factors;
use super::language::Cover;
use super::rules::rewrites;
use super::search::saturate;
use super::*;
use crate::{Arch, Family, Group, Param, ParamType, Problem, Schedule, WeightSpec};
use egg::Runner;
use std::collections::BTreeSet;

/// `awq-g128` as the format registry has it.
pub fn awq() -> WeightSpec {
    let param = |name: &str, dtype| Param { name: name.into(), dtype };
    WeightSpec {
        name: "awq-g128".into(),
        bits: 4,
        group: Group::Size(128),
        params: vec![param("s", ParamType::F16), param("z", ParamType::Code(4))],
        expr: "(* (- q z) s)".into(),
        codebook: Default::default(),
        act_order: false,
        activations: Default::default(),
    }
}

/// An `awq-g128` problem with f16 activations.
pub fn problem(n: u32, k: u32, m: u32) -> Problem {
    format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}").parse().unwrap()
}

/// The GPU of most tests.
pub fn h200() -> Arch {
    Arch::named("h200").unwrap()
}

fn dequant(_: &Schedule) -> Vec<DequantChoice> {
    vec![DequantChoice { term: "(sum x)".into(), instructions_per_weight: 1.2 }]
}

fn without(rules: &[&str]) -> Options {
    Options {
        disabled_rules: rules.iter().map(|name| name.to_string()).collect(),
        ..Options::default()
    }
}

fn search(p: &Problem, options: &Options) -> Search {
    sketches(p, &awq(), &h200(), &dequant, options).unwrap()
}

/// Every legal nest that the rules derive.
fn legal(p: &Problem, options: &Options) -> Vec<(Nest, Schedule)> {
    let arch = h200();
    let rules = rewrites(Factors::new(p, &arch), &options.disabled_rules).unwrap();
    let runner = saturate(Runner::new(Cover), &Nest::naive(extents(p)), &rules, options);
    let spec = awq();
    let walk = Walk::over(&runner.egraph, runner.roots[0], p, &spec, &arch, &dequant, false);
    walk.legal.into_iter().map(|c| (c.nest, c.schedule)).collect()
}

/// A schedule by the fields in which it differs from the smallest one of its family.
fn small(fields: &[(&str, &str)]) -> String {
    let gemv = "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
                cache=stream dequant=";
    let mma = "mma tile=8x16x64 warps=1x1 stages=1 split=1 pad=16 raster=tokens dequant=";
    let is_mma = fields.iter().any(|(key, _)| ["tile", "stages"].contains(key));
    let mut words: Vec<String> =
        (if is_mma { mma } else { gemv }).split(' ').map(String::from).collect();
    for (key, value) in fields {
        let prefix = format!("{key}=");
        let word = words.iter_mut().find(|w| w.starts_with(&prefix)).expect("a field");
        *word = format!("{prefix}{value}");
    }
    words.join(" ")
}

/// The smallest `wgmma` schedule: it needs two units of work and two stages.
const WGMMA: &str =
    "wgmma tile=8x64x128 groups=1 stages=2 split=1 producer=warp raster=tokens dequant=";

/// For each rule, the smallest schedules that need it, with all the rules that they need.
fn needs() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let gemv = "bind-rows-to-lanes";
    let mma = "tensorize-mma";
    let wgmma = "tensorize-wgmma";
    let ring = vec![wgmma, "k-tile", "ring-pipeline"];
    let tile = ("tile", "8x16x64");
    vec![
        (gemv, small(&[]), vec![gemv]),
        (mma, small(&[tile]), vec![mma]),
        (wgmma, WGMMA.into(), ring.clone()),
        (
            "warpgroups-along-n",
            WGMMA
                .replace("x64x", "x128x")
                .replace("groups=1", "groups=2")
                .replace("producer=warp", "producer=group"),
            ring.clone(),
        ),
        ("tile-tokens", WGMMA.replace("8x64", "16x64").replace("tokens", "rows"), ring.clone()),
        ("rows-in-registers", WGMMA.replace("x64x", "x128x"), ring.clone()),
        ("split-k-over-blocks", WGMMA.replace("split=1", "split=2"), ring.clone()),
        ("tensorize-fma2", small(&[("acc", "half2")]), vec![gemv]),
        ("tile-tokens", small(&[("tokens", "4")]), vec![gemv]),
        (
            "tile-tokens",
            small(&[("tile", "16x16x64")]).replace("tokens dequ", "rows dequ"),
            vec![mma],
        ),
        ("rows-in-registers", small(&[("rows", "2")]), vec![gemv]),
        ("rows-in-registers", small(&[("tile", "8x32x64")]), vec![mma]),
        ("lanes-along-k", small(&[("lanes", "8")]), vec![gemv]),
        ("warps-along-n", small(&[("warps", "2x1")]), vec![gemv]),
        ("warps-along-n", small(&[("tile", "8x32x64"), ("warps", "2x1")]), vec![mma]),
        ("stage-activations-shared", small(&[("x", "shared")]), vec![gemv]),
        ("warps-along-k", small(&[("warps", "1x2")]), vec![gemv]),
        ("warps-along-k", small(&[("tile", "8x16x128"), ("warps", "1x2")]), vec![mma]),
        ("unroll", small(&[("unroll", "2")]), vec![gemv]),
        ("k-tile", small(&[("tile", "8x16x128")]), vec![mma]),
        ("ring-pipeline", small(&[("stages", "4")]), vec![mma]),
        ("split-k-over-blocks", small(&[("split", "2")]), vec![gemv]),
        ("split-k-over-blocks", small(&[tile, ("split", "2")]), vec![mma]),
        ("split-k-over-cluster", small(&[("split", "4@cluster")]), vec![gemv]),
        ("split-k-over-cluster", small(&[tile, ("split", "4@cluster")]), vec![mma]),
        ("split-k-over-cluster", WGMMA.replace("split=1", "split=4@cluster"), ring.clone()),
        (
            "stream-k-over-blocks",
            small(&[("stages", "4"), ("split", "stream:132")]),
            vec![mma, "ring-pipeline"],
        ),
        ("stream-k-over-blocks", WGMMA.replace("split=1", "split=stream:132"), ring),
    ]
}

/// The rule that applies to many tokens only.
const MANY_TOKENS: &str = "dequantize-slabs";

#[test]
fn without_a_rule_just_the_schedules_that_need_it_disappear() {
    let p = problem(5120, 5120, 16);
    let schedules = |options: &Options| -> BTreeSet<String> {
        legal(&p, options).into_iter().map(|(_, s)| s.to_string()).collect()
    };
    let all = schedules(&Options::default());
    for rule in rule_names().into_iter().filter(|rule| *rule != MANY_TOKENS) {
        let rest = schedules(&without(&[rule]));
        assert!(rest.is_subset(&all));
        let mut named = 0;
        for (own, schedule, others) in needs() {
            assert!(all.contains(&schedule), "{schedule} is not derived");
            let needed = own == rule || others.contains(&rule);
            assert_eq!(rest.contains(&schedule), !needed, "{schedule} without {rule}");
            named += u32::from(own == rule);
        }
        assert!(named > 0, "no schedule is named for {rule}");
    }
}

#[test]
fn without_slabs_just_the_schedules_that_dequantize_ahead_disappear() {
    let p = problem(1024, 1024, 512);
    let families = |options: &Options| -> BTreeSet<Family> {
        legal(&p, options).into_iter().map(|(_, s)| s.family()).collect()
    };
    let rest = families(&without(&[MANY_TOKENS]));
    assert!(!rest.contains(&Family::Dequant) && rest.len() == 3, "{rest:?}");
    let all = families(&Options::default());
    assert!(all.contains(&Family::Dequant) && all.is_superset(&rest), "{all:?}");
}

#[test]
fn without_rules_the_naive_schedule_is_left() {
    let found = search(&problem(5120, 5120, 16), &without(&rule_names()));
    let [only] = &found.sketches[..] else { panic!("{} sketches", found.sketches.len()) };
    assert_eq!(
        only.schedule.to_string(),
        "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal \
         dequant=(sum x)"
    );
    assert!(only.rules.is_empty());
}

#[test]
fn every_nest_that_the_rules_derive_visits_each_point_once() {
    let mut rules = BTreeSet::new();
    for (p, step) in [(problem(130, 200, 9), 17), (problem(66, 200, 520), 491)] {
        for (nest, schedule) in legal(&p, &Options::default()).iter().step_by(step) {
            verify(nest, extents(&p)).unwrap();
            let visits = interpret::visits(nest, extents(&p));
            assert!(visits.iter().all(|&count| count == 1), "{nest}");
            rules.extend(
                explain(&p, schedule, &Options::default()).unwrap().steps.iter().map(|s| s.rule),
            );
        }
    }
    assert_eq!(rules.len(), rule_names().len(), "only {rules:?} were exercised");
}

#[test]
fn each_nest_means_one_schedule_and_each_schedule_one_nest() {
    let p = problem(640, 1280, 12);
    let all = legal(&p, &Options::default());
    let schedules: BTreeSet<String> = all.iter().map(|(_, s)| s.to_string()).collect();
    assert_eq!(schedules.len(), all.len());
    for (derived, schedule) in &all {
        assert_eq!(nest(schedule, &p).unwrap(), *derived, "{schedule}");
    }
}

#[test]
fn a_derivation_starts_naive_goes_step_by_step_and_ends_in_the_nest() {
    let p = problem(5120, 5120, 16);
    for sketch in search(&p, &Options::default()).sketches {
        let derivation = explain(&p, &sketch.schedule, &Options::default()).unwrap();
        assert_eq!(derivation.start, Nest::naive(extents(&p)));
        let last = derivation.steps.last().unwrap();
        assert_eq!(last.nest, sketch.nest);
        assert_eq!(derivation.steps.iter().map(|s| s.rule).collect::<Vec<_>>(), sketch.rules);
        let distinct: BTreeSet<_> = sketch.rules.iter().collect();
        assert_eq!(distinct.len(), sketch.rules.len(), "{:?}", sketch.rules);
        for step in &derivation.steps {
            verify(&step.nest, extents(&p)).unwrap();
        }
    }
}

#[test]
fn a_schedule_beyond_the_factor_lists_is_explained_too() {
    let p = problem(5120, 5120, 2);
    let text = "gemv tokens=2 rows=3 lanes=16 warps=5x3 unroll=8 split=3 x=shared acc=half2 \
                cache=normal dequant=(sum x)";
    let derivation = explain(&p, &text.parse().unwrap(), &Options::default()).unwrap();
    assert_eq!(derivation.steps.len(), 10);
    let options = without(&["unroll"]);
    let error = explain(&p, &text.parse().unwrap(), &options).unwrap_err();
    assert!(matches!(error, TileError::NotDerivable { .. }), "{error}");
}

#[test]
fn the_same_search_has_the_same_result() {
    let p = problem(7168, 5120, 4);
    let (a, b) = (search(&p, &Options::default()), search(&p, &Options::default()));
    assert_eq!(a, b);
    assert_eq!(a.stop_reason, "Saturated");
    assert!(a.nodes < 2000, "{} nodes", a.nodes);
    let distinct: BTreeSet<String> = a.sketches.iter().map(|s| s.schedule.to_string()).collect();
    assert_eq!(distinct.len(), a.sketches.len());
    assert_eq!(a.sketches.len(), Options::default().k);
}

#[test]
fn limits_end_the_search_and_are_named() {
    let options = Options { iterations: 1, ..Options::default() };
    assert_eq!(search(&problem(5120, 5120, 1), &options).stop_reason, "IterationLimit(1)");
}

#[test]
fn one_token_comes_close_to_the_roof() {
    let best = &search(&problem(55296, 5120, 1), &Options::default()).sketches[0];
    assert!(best.estimate.time_us < 1.35 * best.estimate.roof_us, "{:?}", best.estimate);
    let small = &search(&problem(5120, 5120, 1), &Options::default()).sketches[0];
    assert_eq!(small.schedule.family(), Family::Gemv, "{}", small.schedule);
}

#[test]
fn sixteen_tokens_take_tensor_cores_for_every_shape_of_a_model() {
    for (n, k) in [(7168, 5120), (5120, 5120), (55296, 5120), (5120, 27648)] {
        let best = &search(&problem(n, k, 16), &Options::default()).sketches[0];
        assert_ne!(best.schedule.family(), Family::Gemv, "{n} x {k}: {}", best.schedule);
    }
}

#[test]
fn the_naive_schedule_is_far_behind() {
    for p in [problem(5120, 5120, 1), problem(55296, 5120, 16)] {
        let best = search(&p, &Options::default()).sketches[0].estimate.time_us;
        let naive = search(&p, &without(&rule_names())).sketches[0].estimate.time_us;
        assert!(naive > 5.0 * best, "{p}: {naive} and {best}");
    }
}

/// Kernels for `sm_90a` as NVRTC 13.0 compiles them: tokens, schedule, lane-instructions per
/// weight that the dequantization algebra claims for the term, instructions per weight of the main
/// loop's machine code, registers.
const COMPILED: [(u32, &str, f64, f64, u32); 10] = [
    (
        1,
        "gemv tokens=1 rows=2 lanes=8 warps=1x4 unroll=4 split=1 x=shared acc=half2",
        1.28,
        2.34,
        68,
    ),
    (
        1,
        "gemv tokens=1 rows=4 lanes=8 warps=1x2 unroll=2 split=1 x=shared acc=half2",
        1.28,
        2.29,
        72,
    ),
    (
        1,
        "gemv tokens=1 rows=1 lanes=32 warps=4x1 unroll=4 split=1 x=shared acc=half2",
        1.28,
        2.56,
        40,
    ),
    (
        2,
        "gemv tokens=2 rows=4 lanes=4 warps=1x2 unroll=1 split=1 x=shared acc=half2",
        1.31,
        2.86,
        64,
    ),
    (
        4,
        "gemv tokens=4 rows=2 lanes=16 warps=1x2 unroll=2 split=1 x=shared acc=half2",
        1.38,
        4.51,
        72,
    ),
    (1, "mma tile=8x64x256 warps=2x2 stages=4 split=1", 0.88, 1.78, 67),
    (16, "mma tile=16x64x256 warps=1x4 stages=4 split=2", 1.44, 2.44, 126),
    (16, "mma tile=16x128x128 warps=4x1 stages=4 split=1", 1.12, 2.13, 92),
    (32, "mma tile=32x64x128 warps=2x2 stages=4 split=1", 1.75, 3.75, 134),
    (64, "mma tile=64x128x128 warps=4x1 stages=3 split=1", 1.69, 3.80, 244),
];

#[test]
fn the_model_knows_what_compiled_kernels_take() {
    for (m, head, dequant, instructions, registers) in COMPILED {
        let rest = match head.starts_with("mma") {
            true => "pad=16 raster=rows dequant=(* s (sum x))",
            false => "cache=stream dequant=(* s (sum x))",
        };
        let schedule: Schedule = format!("{head} {rest}").parse().unwrap();
        let e = estimate(&problem(5120, 5120, m), &awq(), &h200(), &schedule, dequant);
        let ratio = e.lane_instructions_per_weight / instructions;
        assert!((0.9..1.1).contains(&ratio), "{head}: {ratio} of the instructions");
        let ratio = e.registers as f64 / registers as f64;
        assert!((0.95..1.25).contains(&ratio), "{head}: {ratio} of the registers");
    }
}

#[test]
fn the_winner_is_slower_without_its_rules() {
    let cases = [
        ("unroll", problem(5120, 5120, 1)),
        ("tensorize-fma2", problem(5120, 5120, 1)),
        ("lanes-along-k", problem(5120, 5120, 1)),
        ("tensorize-mma", problem(55296, 5120, 8)),
        ("tensorize-wgmma", problem(55296, 5120, 128)),
        ("warpgroups-along-n", problem(55296, 5120, 128)),
        ("tile-tokens", problem(55296, 5120, 64)),
        ("rows-in-registers", problem(55296, 5120, 64)),
        ("ring-pipeline", problem(5120, 5120, 16)),
        ("split-k-over-cluster", problem(5120, 5120, 16)),
        ("stream-k-over-blocks", problem(5120, 27648, 64)),
    ];
    for (rule, p) in cases {
        let with = &search(&p, &Options::default()).sketches[0];
        assert!(with.rules.contains(&rule), "{rule} is not in {:?} of {p}", with.rules);
        let without = search(&p, &without(&[rule])).sketches[0].estimate.time_us;
        assert!(without > with.estimate.time_us, "{p} without {rule}");
    }
}

#[test]
fn many_tokens_are_worth_dequantizing_ahead_where_warps_multiply() {
    let (spec, p) = (awq(), problem(8192, 8192, 8192));
    let on = |gpu: &str, options: &Options| {
        let arch = Arch::named(gpu).unwrap();
        let found = sketches(&p, &spec, &arch, &dequant, options).unwrap().sketches;
        found.into_iter().next().unwrap()
    };
    for gpu in ["a100", "rtx4090"] {
        let best = on(gpu, &Options::default());
        assert!(best.rules.contains(&MANY_TOKENS), "{gpu}: {} {:?}", best.schedule, best.estimate);
        let without = on(gpu, &without(&[MANY_TOKENS]));
        assert!(without.estimate.time_us > best.estimate.time_us, "{gpu}");
        let few = sketches(&p.with_m(64), &spec, &h200(), &dequant, &Options::default()).unwrap();
        assert!(few.sketches.iter().all(|s| s.schedule.family() != Family::Dequant));
    }
}

#[test]
fn ragged_shapes_and_every_group_size_have_legal_sketches() {
    let arch = Arch::named("rtx4090").unwrap();
    for group in [Group::Size(32), Group::Size(64), Group::Size(128), Group::Channel] {
        let spec = WeightSpec { group, ..awq() };
        for (n, k, m) in [(1, 32, 1), (7, 128, 3), (96, 352, 24), (1000, 1160, 70)] {
            let p = problem(n, k, m);
            let found = sketches(&p, &spec, &arch, &dequant, &Options::default()).unwrap();
            for sketch in &found.sketches {
                sketch.schedule.check(&p, &spec, &arch).unwrap();
                verify(&sketch.nest, extents(&p)).unwrap();
                assert!(sketch.estimate.resident_blocks > 0, "{p}: {}", sketch.schedule);
            }
        }
    }
}

#[test]
fn bf16_activations_and_old_gpus_leave_rules_out() {
    let p: Problem = "w4a16.awq-g128.bf16-bf16.n5120.k5120.m2".parse().unwrap();
    let found = sketches(&p, &awq(), &h200(), &dequant, &Options::default()).unwrap();
    assert!(found.sketches.iter().all(|s| !s.rules.contains(&"tensorize-fma2")));
    let turing = Arch { capability: (7, 5), ..h200() };
    let found = sketches(&p, &awq(), &turing, &dequant, &Options::default()).unwrap();
    assert!(found.sketches.iter().all(|s| s.schedule.family() == Family::Gemv));
}

#[test]
fn a_format_that_no_family_reads_is_refused_with_the_reasons() {
    let spec = WeightSpec { bits: 7, ..awq() };
    let p = problem(5120, 5120, 1);
    let error = sketches(&p, &spec, &h200(), &dequant, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("gemv reads no #-bit codes"), "{error}");
    let error = sketches(&p, &awq(), &h200(), &|_| vec![], &Options::default()).unwrap_err();
    assert!(error.to_string().contains("no dequantization term"), "{error}");
}

#[test]
fn of_the_terms_offered_a_schedule_gets_the_fastest_that_fits() {
    let offered = |_: &Schedule| {
        let choice = |term: &str, instructions_per_weight| DequantChoice {
            term: term.into(),
            instructions_per_weight,
        };
        vec![choice("(sum (* (page q) x))", 1.0), choice("(sum (* (prmt q) x))", 2.6)]
    };
    let (p, spec) = (problem(5120, 5120, 16), awq());
    let with_shared = |bytes| {
        let mut arch = h200();
        arch.sm.shared_per_block = bytes;
        let found = sketches(&p, &spec, &arch, &offered, &Options::default()).unwrap();
        let of = |operator| found.sketches.iter().any(|s| s.schedule.dequant().contains(operator));
        (of("page"), of("prmt"))
    };
    assert!(with_shared(227 << 10).0, "a table pays where there is room");
    assert_eq!(with_shared(60 << 10), (false, true));
}
