//! Why a schedule: both derivations with rule names, and the terms of its modelled time.

use crate::terms::dequant_cost;
use crate::SearchError;
use qtune_ir::dequant::{self, DequantError};
use qtune_ir::tile::{self, Estimate};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use std::collections::BTreeMap;

/// What begins a tiling rule in a stored derivation.
const TILE: &str = "tile:";
/// What begins a dequantization rule in a stored derivation.
const DEQUANT: &str = "dequant:";

/// Where a schedule comes from and what it is expected to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// From the naive loop nest to the schedule's.
    pub tiling: tile::Derivation,
    /// From the format's expression to the schedule's term.
    pub dequant: dequant::Derivation,
    /// Names of the term's rounding classes.
    pub rounding: Vec<&'static str>,
    /// Lane-instructions per weight of the term.
    pub dequant_cost: f64,
    /// The cost model's terms, before compiling.
    pub estimate: Estimate,
}

/// Derives a schedule again and models it.
///
/// # Errors
/// [`SearchError::Tile`] or [`SearchError::Dequant`] if the rules do not lead to the schedule, as
/// for one that was written by hand.
pub fn explain(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
) -> Result<Explanation, SearchError> {
    let variant = dequant_cost(problem, spec, arch, schedule)?;
    Ok(Explanation {
        tiling: tile::explain(problem, schedule, &tile::Options::default())?,
        dequant: derive_term(problem, spec, schedule)?,
        rounding: variant.rounding.names(),
        dequant_cost: variant.cost,
        estimate: tile::estimate(problem, spec, arch, schedule, variant.cost),
    })
}

fn derive_term(
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
) -> Result<dequant::Derivation, DequantError> {
    let context = schedule.context(problem, spec);
    let term = schedule.dequant().parse()?;
    dequant::explain(&term, &context, &dequant::Options::default())
}

/// The rules behind a schedule as a record stores them: `tile:NAME` in order, then `dequant:NAME`.
/// A part that the rules do not reach, as of a schedule written by hand, is left out.
pub(crate) fn derivation(problem: &Problem, spec: &WeightSpec, schedule: &Schedule) -> Vec<String> {
    let mut rules = Vec::new();
    match tile::explain(problem, schedule, &tile::Options::default()) {
        Ok(found) => rules.extend(found.steps.iter().map(|step| format!("{TILE}{}", step.rule))),
        Err(error) => tracing::debug!(%schedule, %error, "tiling not derived"),
    }
    match derive_term(problem, spec, schedule) {
        Ok(found) => rules.extend(found.rules().iter().map(|rule| format!("{DEQUANT}{rule}"))),
        Err(error) => tracing::debug!(%schedule, %error, "term not derived"),
    }
    rules
}

/// How many winners each rule is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RuleUsage {
    /// Rules of the tiling e-graph.
    pub tiling: BTreeMap<String, usize>,
    /// Rules of the dequantization e-graph.
    pub dequant: BTreeMap<String, usize>,
}

/// Counts the rules in stored derivations ([`qtune_cache::Winner::derivation`]), each once a winner.
pub fn rule_usage<'a>(derivations: impl IntoIterator<Item = &'a [String]>) -> RuleUsage {
    let mut usage = RuleUsage::default();
    for derivation in derivations {
        let mut rules: Vec<&String> = derivation.iter().collect();
        rules.sort();
        rules.dedup();
        for rule in rules {
            if let Some(name) = rule.strip_prefix(TILE) {
                *usage.tiling.entry(name.into()).or_default() += 1;
            } else if let Some(name) = rule.strip_prefix(DEQUANT) {
                *usage.dequant.entry(name.into()).or_default() += 1;
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Task;
    use crate::terms::Terms;
    use crate::{ladder::Ladder, Effort};
    use std::collections::HashSet;

    fn best(m: u32, n: u32, k: u32) -> (Problem, WeightSpec, Schedule) {
        let problem: Problem = format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}").parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named("h200").unwrap();
        let task =
            Task { name: "w".into(), problem: problem.clone(), spec: spec.clone(), calls: 1 };
        let (limits, terms) = (Effort::Quick.limits(), Terms::new(&arch, false));
        let poisoned = HashSet::new();
        let ladder =
            Ladder { task: &task, arch: &arch, terms: &terms, limits, poisoned: &poisoned };
        let first = ladder.climb().unwrap().finalists.remove(0);
        (problem, spec, first.schedule)
    }

    #[test]
    fn the_presets_best_schedules_use_at_least_four_rules_of_each_graph() {
        let preset = qtune_formats::presets::preset("qwen2.5-32b").unwrap();
        let mut derivations = Vec::new();
        for matrix in preset.matrices() {
            for m in [1, 16, 64] {
                let (problem, spec, schedule) = best(m, matrix.n, matrix.k);
                derivations.push(derivation(&problem, &spec, &schedule));
            }
        }
        let usage = rule_usage(derivations.iter().map(Vec::as_slice));
        assert!(usage.tiling.len() >= 4, "{usage:?}");
        assert!(usage.dequant.len() >= 4, "{usage:?}");
    }

    #[test]
    fn an_explanation_ends_at_the_schedule() {
        let (problem, spec, schedule) = best(16, 5120, 5120);
        let arch = Arch::named("h200").unwrap();
        let explanation = explain(&problem, &spec, &arch, &schedule).unwrap();
        let last = explanation.dequant.steps.last().unwrap();
        assert_eq!(last.term, schedule.dequant());
        let nest = tile::nest(&schedule, &problem).unwrap();
        assert_eq!(explanation.tiling.steps.last().unwrap().nest, nest);
        assert!(explanation.estimate.time_us > explanation.estimate.roof_us);
    }

    #[test]
    fn a_term_that_no_rule_reaches_is_refused_and_left_out_of_records() {
        let (problem, spec, schedule) = best(16, 5120, 5120);
        let arch = Arch::named("h200").unwrap();
        let wrong = schedule.with_dequant("(* s (sum (* (magic q) x)))");
        assert!(explain(&problem, &spec, &arch, &wrong).is_err());
        let rules = derivation(&problem, &spec, &wrong);
        assert!(!rules.is_empty() && rules.iter().all(|rule| rule.starts_with(TILE)));
    }
}
