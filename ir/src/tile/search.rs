//! Searching the e-graph of tilings, and explaining what was found.

use super::extract::{best, Candidate, Walk};
use super::factors::Factors;
use super::language::{from_expr, to_expr, Cover, EGraph, Tile};
use super::nest::{Nest, NestError};
use super::rules::{rewrites, rule_named};
use super::space::Space;
use super::{estimate, extents, lower, Estimate};
use crate::{Arch, Problem, Schedule, WeightSpec};
use egg::{FlatTerm, RecExpr, Rewrite, Runner, SimpleScheduler};
use std::collections::BTreeMap;
use std::time::Duration;

/// Limits and switches of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sketches to return.
    pub k: usize,
    /// Iterations of equality saturation; the longest derivation takes nine.
    pub iterations: usize,
    /// Nodes of the e-graph; a model's shapes take one to two thousand.
    pub nodes: usize,
    /// Names of rules that are left out, of [`super::rule_names`].
    pub disabled_rules: Vec<String>,
    /// Whether [`Search::space`] is filled, which takes as long as the rest of the search.
    pub survey: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { k: 24, iterations: 16, nodes: 20_000, disabled_rules: Vec::new(), survey: false }
    }
}

/// A sketch that is this many times slower than the fastest is not worth a compile.
const SLACK: f64 = 3.0;
/// egg's limit on time would make results depend on the machine; the other limits suffice.
const NO_TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A dequantization term for a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantChoice {
    /// The term as the schedule prints it.
    pub term: String,
    /// Lane-instructions per weight, as [`estimate`] counts them.
    pub instructions_per_weight: f64,
}

/// Offers dequantization terms for a schedule, none if the format has none for it: the cheapest of
/// those that take equally much shared memory, of which the schedule gets the one that suits it.
/// Asked once for all schedules of equal family, accumulation, tokens, register rows, lanes or warp
/// tile along k, and k tile: the offer may depend on nothing else.
pub type Dequant<'a> = dyn Fn(&Schedule) -> Vec<DequantChoice> + 'a;

/// One way to compute the problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    /// The loop nest.
    pub nest: Nest,
    /// The schedule that it means, with a dequantization term.
    pub schedule: Schedule,
    /// What the model says of it.
    pub estimate: Estimate,
    /// The rules that derive it from the naive nest, in order.
    pub rules: Vec<&'static str>,
}

/// The outcome of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The best first.
    pub sketches: Vec<Sketch>,
    /// Why equality saturation ended, with the limit if it was one.
    pub stop_reason: String,
    /// Nodes of the e-graph.
    pub nodes: usize,
    /// Classes of the e-graph.
    pub classes: usize,
    /// Nests that were judged.
    pub considered: usize,
    /// Nests that were rejected, by reason (numbers in reasons are written `#`).
    pub rejected: BTreeMap<String, usize>,
    /// The same by family, with the values of every dimension, if [`Options::survey`] is set.
    pub space: Space,
}

/// What can go wrong in a search for tilings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A disabled rule that does not exist.
    #[error("no tiling rule is called `{name}`; known: {}", known.join(", "))]
    UnknownRule {
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// No nest is legal for the problem.
    #[error("no legal schedule for {problem} on {arch}: {reasons}")]
    NoSketch {
        /// The problem.
        problem: String,
        /// The GPU.
        arch: String,
        /// Why nests were rejected, most frequent first.
        reasons: String,
    },
    /// A schedule that no nest describes.
    #[error(transparent)]
    Nest(#[from] NestError),
    /// A schedule whose nest the rules do not reach.
    #[error("the tiling rules do not derive {nest}")]
    NotDerivable {
        /// The nest of the schedule.
        nest: Box<Nest>,
    },
}

/// One step of a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: &'static str,
    /// The nest that it leads to.
    pub nest: Nest,
}

/// How a nest follows from the naive nest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The nest of the mathematics.
    pub start: Nest,
    /// The steps from it to the nest of the schedule.
    pub steps: Vec<Step>,
}

/// Applies the rules to a nest until nothing new is found or a limit is reached.
pub(super) fn saturate(
    runner: Runner<Tile, Cover>,
    start: &Nest,
    rules: &[Rewrite<Tile, Cover>],
    options: &Options,
) -> Runner<Tile, Cover> {
    runner
        .with_scheduler(SimpleScheduler)
        .with_iter_limit(options.iterations)
        .with_node_limit(options.nodes)
        .with_time_limit(NO_TIME_LIMIT)
        .with_expr(&to_expr(start))
        .run(rules)
}

/// The k best different legal sketches of a problem, the fastest first: the fastest of the Pareto
/// front over modelled time, shared memory and registers, then of the next front, and so on.
///
/// # Errors
/// [`TileError::UnknownRule`], or [`TileError::NoSketch`] with the reasons.
pub fn sketches(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    dequant: &Dequant,
    options: &Options,
) -> Result<Search, TileError> {
    let rules = rewrites(Factors::new(problem, arch), &options.disabled_rules)?;
    let start = Nest::naive(extents(problem));
    let runner = saturate(Runner::new(Cover), &start, &rules, options);
    let egraph: &EGraph = &runner.egraph;
    let mut walk =
        Walk::over(egraph, runner.roots[0], problem, spec, arch, dequant, options.survey);
    let legal = std::mem::take(&mut walk.legal);
    if legal.is_empty() {
        return Err(no_sketch(problem, arch, &walk.rejected));
    }
    let finish = |c: Candidate| -> Result<Sketch, TileError> {
        let choice = &walk.choices[&c.dequant][c.choice];
        let schedule = c.schedule.with_dequant(&choice.term);
        let cost = choice.instructions_per_weight;
        let derivation = derive(problem, &c.schedule, &c.nest, options)?;
        Ok(Sketch {
            estimate: estimate(problem, spec, arch, &schedule, cost),
            rules: derivation.steps.iter().map(|step| step.rule).collect(),
            nest: c.nest,
            schedule,
        })
    };
    Ok(Search {
        sketches: best(legal, options.k, SLACK)
            .into_iter()
            .map(finish)
            .collect::<Result<_, _>>()?,
        stop_reason: runner.stop_reason.as_ref().map_or(String::new(), |r| format!("{r:?}")),
        nodes: egraph.total_number_of_nodes(),
        classes: egraph.number_of_classes(),
        considered: walk.considered,
        rejected: walk.rejected,
        space: walk.space,
    })
}

fn no_sketch(problem: &Problem, arch: &Arch, rejected: &BTreeMap<String, usize>) -> TileError {
    let mut counted: Vec<_> = rejected.iter().map(|(why, count)| (*count, why)).collect();
    counted.sort_by(|a, b| b.cmp(a));
    let reasons: Vec<_> = counted.iter().map(|(count, why)| format!("{why} ({count})")).collect();
    TileError::NoSketch {
        problem: problem.to_string(),
        arch: arch.to_string(),
        reasons: reasons.join("; "),
    }
}

/// How a schedule's nest is derived from the naive nest. What nests do not say (caching, padding,
/// raster, dequantization) is not part of it.
///
/// # Errors
/// [`TileError::Nest`] if no nest describes the schedule, [`TileError::NotDerivable`] if the rules
/// that are not disabled do not reach it.
pub fn explain(
    problem: &Problem,
    schedule: &Schedule,
    options: &Options,
) -> Result<Derivation, TileError> {
    let nest = lower::nest(schedule, problem)?;
    derive(problem, schedule, &nest, options)
}

/// Derives `nest` in a small e-graph that has only the factors of its schedule, with egg's
/// explanations switched on.
fn derive(
    problem: &Problem,
    schedule: &Schedule,
    nest: &Nest,
    options: &Options,
) -> Result<Derivation, TileError> {
    let rules = rewrites(Factors::of(schedule), &options.disabled_rules)?;
    let start = Nest::naive(extents(problem));
    let runner = Runner::new(Cover).with_explanations_enabled();
    let mut runner = saturate(runner, &start, &rules, options);
    let (from, to) = (to_expr(&start), to_expr(nest));
    let reached = runner.egraph.lookup_expr(&to);
    if reached != Some(runner.egraph.find(runner.roots[0])) {
        return Err(TileError::NotDerivable { nest: Box::new(nest.clone()) });
    }
    let mut explanation = runner.explain_equivalence(&from, &to);
    let terms = explanation.make_flat_explanation();
    let steps = terms.iter().filter_map(step).collect();
    Ok(Derivation { start, steps })
}

/// The step that leads to a term of an explanation; the first term has none.
fn step(term: &FlatTerm<Tile>) -> Option<Step> {
    let rule = applied(term)?;
    let expr: RecExpr<Tile> = term.get_recexpr();
    Some(Step { rule, nest: from_expr(&expr)? })
}

/// The rule that is applied somewhere in a term. Rules only ever refine, so no step is backward.
fn applied(term: &FlatTerm<Tile>) -> Option<&'static str> {
    match term.forward_rule {
        Some(symbol) => rule_named(symbol),
        None => term.children.iter().find_map(applied),
    }
}
