//! The search: build the e-graph, extract, keep what no other variant beats.

use super::cost::{CostModel, CostParams};
use super::extract::Extraction;
use super::rounding::of_node;
use super::rules::{rewrites, Algebra, Graph, HARDWARE_FLOAT};
use super::{source, Context, DequantError, Lowered, PairTable, Rounding, Term};
use crate::Arch;
use egg::{Id, Runner, SimpleScheduler, StopReason};
use std::sync::Arc;
use std::time::Duration;

/// Limits of a search. The defaults saturate every registered format; they are there so that an
/// odd expression cannot run away.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Rounds of matching and applying all rules.
    pub iterations: usize,
    /// E-nodes.
    pub nodes: usize,
    /// Wall-clock limit of the saturation; generous, because a search that it stops is not
    /// reproducible.
    pub time: Duration,
    /// Terms kept per e-class and rounding.
    pub k: usize,
    /// Names of rules that are left out.
    pub disabled_rules: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            iterations: 24,
            nodes: 4000,
            time: Duration::from_secs(10),
            k: 3,
            disabled_rules: &[],
        }
    }
}

/// One legal way to compute a quant group's dot product.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The term.
    pub term: Term,
    /// Lane-instructions per weight: the total of [`CostModel::term`].
    pub cost: f64,
    /// Where it rounds.
    pub rounding: Rounding,
    /// Bytes of shared memory that its table takes.
    pub table_bytes: u32,
}

/// The result of a search.
#[derive(Clone, Debug)]
pub struct Search {
    /// What no other variant beats in cost, rounding and shared memory, cheapest first.
    pub variants: Vec<Variant>,
    /// The other legal terms that were extracted, cheapest first.
    pub beaten: Vec<Variant>,
    /// Why the saturation ended, such as `saturated`.
    pub stop_reason: String,
    /// E-nodes at the end.
    pub nodes: usize,
    /// E-classes at the end.
    pub classes: usize,
    /// Iterations that were run.
    pub iterations: usize,
}

/// Finds the ways to compute a quant group's dot product on an engine.
///
/// The same arguments give the same result, unless the time limit ends the saturation.
///
/// # Errors
/// [`DequantError`] if the format's expression is ill-typed, a disabled rule is unknown, or no
/// legal term is left.
pub fn variants(
    ctx: &Context,
    params: &CostParams,
    arch: &Arch,
    options: &Options,
) -> Result<Search, DequantError> {
    let model = CostModel::new(ctx, params, arch);
    if ctx.spec.activations.are_quantized() {
        return only(ctx, &model);
    }
    let mut disabled = options.disabled_rules.to_vec();
    if !arch.converts_float8() {
        disabled.push(HARDWARE_FLOAT);
    }
    let options = &Options { disabled_rules: &disabled, ..options.clone() };
    let saturated = saturate(ctx, options, false)?;
    let graph = &saturated.runner.egraph;
    let extraction = Extraction::new(graph, ctx, &model, options.k);
    let mut all: Vec<Variant> = extraction
        .candidates(graph.find(saturated.root))
        .filter_map(|candidate| Variant::of(Term::new(&candidate.to_expr()), ctx, &model).ok())
        .collect();
    all.sort_by(Variant::order);
    let (variants, beaten) = front(all);
    if variants.is_empty() {
        return Err(DequantError::NoLegalTerm {
            source_term: saturated.source.to_string(),
            engine: ctx.engine,
            act: ctx.act,
        });
    }
    Ok(Search {
        variants,
        beaten,
        stop_reason: describe(saturated.runner.stop_reason.as_ref()),
        nodes: graph.total_size(),
        classes: graph.number_of_classes(),
        iterations: saturated.runner.iterations.len(),
    })
}

/// The search of a format whose codes are multiplied as they are: there is nothing to choose.
fn only(ctx: &Context, model: &CostModel) -> Result<Search, DequantError> {
    let term = ctx.spec.activations.term().parse()?;
    Ok(Search {
        variants: vec![Variant::of(term, ctx, model)?],
        beaten: Vec::new(),
        stop_reason: "codes are multiplied as they are".into(),
        nodes: 0,
        classes: 0,
        iterations: 0,
    })
}

/// A saturated e-graph of a format's source term.
pub(super) struct Saturated {
    pub source: Term,
    pub runner: Runner<super::Op, Algebra>,
    pub root: Id,
}

/// Runs the rules on the source term.
pub(super) fn saturate(
    ctx: &Context,
    options: &Options,
    explanations: bool,
) -> Result<Saturated, DequantError> {
    let source = source(ctx)?;
    let ctx = Arc::new(ctx.clone());
    let rules = rewrites(&ctx, options.disabled_rules)?;
    let fold_constants = !options.disabled_rules.contains(&super::rules::FOLD_CONSTANTS);
    let mut graph = Graph::new(Algebra { ctx, fold_constants });
    if explanations {
        graph = graph.with_explanations_enabled();
    }
    let runner = Runner::new(graph.analysis.clone())
        .with_egraph(graph)
        .with_expr(source.expr())
        .with_iter_limit(options.iterations)
        .with_node_limit(options.nodes)
        .with_time_limit(options.time)
        .with_scheduler(SimpleScheduler)
        .run(&rules);
    let root = runner.roots[0];
    Ok(Saturated { source, runner, root })
}

fn describe(reason: Option<&StopReason>) -> String {
    match reason {
        Some(StopReason::Saturated) => "saturated".into(),
        Some(StopReason::IterationLimit(n)) => format!("iteration limit {n}"),
        Some(StopReason::NodeLimit(n)) => format!("node limit {n}"),
        Some(StopReason::TimeLimit(seconds)) => format!("time limit {seconds} s"),
        Some(StopReason::Other(why)) => why.clone(),
        None => "not run".into(),
    }
}

impl Variant {
    /// Cost and rounding of a term, such as one that a stored schedule names.
    ///
    /// # Errors
    /// As [`Lowered::new`].
    pub fn of(term: Term, ctx: &Context, model: &CostModel) -> Result<Variant, DequantError> {
        let lowered = Lowered::new(&term, ctx)?;
        let cost = match ctx.spec.activations.are_quantized() {
            // Nothing is left to do for a code.
            true => 0.0,
            false => model.term(&term, &lowered.facts).total(),
        };
        let rounding = lowered.rounding(&term, ctx);
        let table_bytes = PairTable::of_term(&term.to_string()).map_or(0, PairTable::bytes);
        Ok(Variant { term, cost, rounding, table_bytes })
    }

    fn order(&self, other: &Variant) -> std::cmp::Ordering {
        self.cost
            .total_cmp(&other.cost)
            .then(self.term.nodes().len().cmp(&other.term.nodes().len()))
            .then_with(|| self.term.to_string().cmp(&other.term.to_string()))
    }
}

impl Lowered {
    /// All rounding classes of the term.
    pub fn rounding(&self, term: &Term, ctx: &Context) -> Rounding {
        let child = |id: Id| (term.node(id), self.facts(id));
        let nodes = term.nodes().iter().zip(&self.facts);
        nodes.fold(Rounding::EXACT, |all, (op, own)| all.with(of_node(ctx, op, own, child)))
    }
}

/// Splits variants in order of cost into those that no earlier one matches in rounding and shared
/// memory, and the rest.
fn front(sorted: Vec<Variant>) -> (Vec<Variant>, Vec<Variant>) {
    let mut kept: Vec<Variant> = Vec::new();
    let mut beaten = Vec::new();
    for variant in sorted {
        let beats = |better: &Variant| {
            variant.rounding.contains(better.rounding) && variant.table_bytes >= better.table_bytes
        };
        if kept.iter().any(beats) {
            beaten.push(variant);
        } else {
            kept.push(variant);
        }
    }
    (kept, beaten)
}
