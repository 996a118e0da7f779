//! Derivations: the chain of terms from the format's expression to a variant, with rule names.

use super::rules::rule_of;
use super::search::{saturate, Options};
use super::{Context, DequantError, Op, Term};
use egg::FlatTerm;

/// One step of a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule that made this term from the one before, in either direction; empty for the first.
    pub rule: &'static str,
    /// The term.
    pub term: String,
}

/// How a variant follows from the format's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// Every intermediate term, the source first and the variant last.
    pub steps: Vec<Step>,
}

impl Derivation {
    /// The distinct rules, in order of first use.
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<&'static str> = Vec::new();
        for step in self.steps.iter().filter(|step| !step.rule.is_empty()) {
            if !rules.contains(&step.rule) {
                rules.push(step.rule);
            }
        }
        rules
    }
}

/// Derives `term` from the format's source term, with the rules that `options` leaves on.
///
/// Runs the search again with egg's proofs switched on, which are too slow to keep always.
///
/// # Errors
/// [`DequantError::NotDerivable`] if the rules do not lead to the term, and as
/// [`super::variants`].
pub fn explain(term: &Term, ctx: &Context, options: &Options) -> Result<Derivation, DequantError> {
    let mut saturated = saturate(ctx, options, true)?;
    let graph = &mut saturated.runner.egraph;
    let reached = graph.lookup_expr(term.expr()).map(|id| graph.find(id));
    if reached != Some(graph.find(saturated.root)) {
        return Err(DequantError::NotDerivable {
            term: term.to_string(),
            source_term: saturated.source.to_string(),
        });
    }
    let mut explanation = graph.explain_equivalence(saturated.source.expr(), term.expr());
    let flat = explanation.make_flat_explanation();
    let steps = flat.iter().map(|flat| Step {
        rule: used_rule(flat).unwrap_or_default(),
        term: flat.remove_rewrites().to_string(),
    });
    Ok(Derivation { steps: steps.collect() })
}

/// The rule that leads to this term, wherever in it.
fn used_rule(flat: &FlatTerm<Op>) -> Option<&'static str> {
    let own = flat.forward_rule.or(flat.backward_rule);
    let own = own.and_then(|name| rule_of(name.as_str()));
    own.or_else(|| flat.children.iter().find_map(used_rule))
}
