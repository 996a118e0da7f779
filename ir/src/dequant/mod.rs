//! The dequantization algebra: what one weight means, and the ways to compute a quant group's dot
//! product with it.

mod check;
mod context;
mod cost;
mod error_bound;
mod explain;
mod extract;
mod facts;
mod interp;
mod language;
mod root;
mod rounding;
mod rules;
mod search;
mod term;

pub use check::{Lowered, SumSite, HALF2_CHAIN};
pub use context::{Context, Engine, POSITIONS};
pub use cost::{CostModel, CostParams};
pub use error_bound::{Bounded, Evaluator};
pub use explain::{explain, Derivation, Step};
pub use facts::{Facts, Grid, Role};
pub use interp::Group;
pub use language::{Name, Num, Op};
pub use root::source;
pub use rounding::Rounding;
pub use rules::{rule_names, Rule, RULES};
pub use search::{variants, Options, Search, Variant};
pub use term::Term;

use crate::DType;

/// Why an expression or a search was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DequantError {
    /// Text that is not a term: the format's row or a stored schedule is at fault.
    #[error("`{text}` is not a dequantization term: {why}")]
    Parse {
        /// The text given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An operator on operands it does not take.
    #[error("`{at}` does not type-check: {why}")]
    IllTyped {
        /// The sub-expression.
        at: String,
        /// What it expects.
        why: String,
    },
    /// A well-typed term that this engine cannot compute.
    #[error("`{at}` cannot be computed on {engine} with {act} activations: {why}")]
    Illegal {
        /// The sub-expression.
        at: String,
        /// The engine.
        engine: Engine,
        /// The activations' type.
        act: DType,
        /// The limit it breaks.
        why: String,
    },
    /// An engine, activation type and code width that no kernel combines.
    #[error("{what}: {why}")]
    Context {
        /// Format, engine and activations.
        what: String,
        /// The limit.
        why: &'static str,
    },
    /// The search found no term that the engine can compute.
    #[error("no legal way to compute `{source_term}` on {engine} with {act} activations")]
    NoLegalTerm {
        /// The source term.
        source_term: String,
        /// The engine.
        engine: Engine,
        /// The activations' type.
        act: DType,
    },
    /// A term that the rules do not lead to from the format's expression.
    #[error("`{term}` does not follow from `{source_term}` by the rules in use")]
    NotDerivable {
        /// The term given.
        term: String,
        /// The source term.
        source_term: String,
    },
    /// A rule name that does not exist.
    #[error("unknown rule `{name}`; known: {}", known.join(", "))]
    UnknownRule {
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
}
