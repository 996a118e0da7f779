//! The dequantization term of a rung.

use super::modelled::modelled_us;
use qtune_ir::dequant::{self, packing_rule, Engine, Options, SumSite};
use qtune_ir::{Arch, Problem, Rejected, Schedule, WeightSpec};

/// The rule whose terms need scales of at most [`dequant::Context::scale_max`].
const RAISE: &str = "raise-code-into-fma";

/// `schedule` with the cheapest term for scales of any size: raised codes need scales of at most
/// [`dequant::Context::scale_max`], as those of published models are.
///
/// # Errors
/// [`Rejected`] if its family has no such term.
pub fn for_any_scale(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let terms = Terms { most: f64::INFINITY, any_scale: true };
    with_term(schedule, problem, spec, arch, terms)
}

/// Which dequantization terms are wanted.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// At most this many times the cost of the cheapest.
    pub most: f64,
    /// Without a limit on scales.
    pub any_scale: bool,
}

/// Tells which of the schedules that a search finds may be taken.
type Wanted<'a> = &'a dyn Fn(&Schedule) -> bool;

/// The schedule with the cheapest of the wanted terms that its family can lower and that fits it: among
/// those with the fewest bytes to read where these differ.
pub(super) fn with_term(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    terms: Terms,
) -> Result<Schedule, Rejected> {
    let cheapest = |disabled: &[&str], wanted: Wanted| {
        let options = Options { disabled_rules: disabled, ..Options::default() };
        cheapest(schedule, problem, spec, arch, (terms, &options, wanted))
    };
    // Without it, what it makes needless is found: the best of what is left.
    let raise = terms.any_scale.then_some(RAISE);
    let disabled: Vec<&str> = schedule.useless_rules(spec).iter().copied().chain(raise).collect();
    let packed = || cheapest(&disabled, &|_| true);
    let rule = packing_rule(spec).filter(|_| schedule.levels(spec, problem.k).is_some());
    let Some(rule) = rule else { return packed() };
    let levels = |found: &Schedule| found.levels(spec, problem.k).is_some();
    let factors = [&disabled[..], &[rule]].concat();
    let Ok(smallest) = cheapest(&factors, &levels) else { return packed() };
    if spec.has_nested_scales() {
        // Lookups may take longer than the bytes that they save.
        let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
        let packed = packed()?;
        return Ok(if us(&smallest) < us(&packed) { smallest } else { packed });
    }
    Ok(smallest)
}

/// The same of what a search with these options finds, as far as schedules are wanted.
fn cheapest(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    (terms, options, wanted): (Terms, &Options, Wanted),
) -> Result<Schedule, Rejected> {
    let engine = schedule.engine();
    let ctx = schedule.context(problem, spec);
    let params = schedule.cost_params(problem, spec);
    let reject = |reason: String| Rejected { reason };
    let search =
        dequant::variants(&ctx, &params, arch, options).map_err(|e| reject(e.to_string()))?;
    // Tensor-core kernels stage activations as they are.
    let usable = search.variants.into_iter().filter(|variant| {
        let lowered = dequant::Lowered::new(&variant.term, &ctx);
        let unscaled = |sum: &SumSite| engine != Engine::Mma || sum.activation_scale == 1.0;
        lowered.is_ok_and(|l| l.sums.iter().all(unscaled))
    });
    let usable: Vec<_> = usable.collect();
    let limit = usable.first().map_or(0.0, |cheapest| terms.most * cheapest.cost);
    let affordable = usable.iter().filter(|variant| variant.cost <= limit);
    // A term may need shared memory that the shape leaves no room for.
    let mut complete = affordable.map(|variant| schedule.with_dequant(&variant.term.to_string()));
    complete
        .find(|schedule| wanted(schedule) && schedule.check(problem, spec, arch).is_ok())
        .ok_or_else(|| reject(format!("no term of {} fits {engine}", spec.name)))
}
