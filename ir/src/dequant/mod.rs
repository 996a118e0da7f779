//! The dequantization algebra: what one weight means, and the ways to compute a quant group's dot
//! product with it.
//!
//! A format says what a weight is, `(* (- q z) s)` for instance. [`source`] makes of it the dot
//! product of one quant group, `(sum (* (* (- (real q) z) s) x))`; [`variants`] finds the cheapest
//! equal terms for an engine with an e-graph; codegen emits one of them and sees nothing else of
//! the format. [`explain`] derives a variant, [`Evaluator`] bounds its rounding errors for the
//! verifier.
//!
//! ```
//! use qtune_ir::dequant::{explain, variants, Context, CostParams, Engine, Options};
//! use qtune_ir::{Arch, DType, Group, Param, ParamType, WeightSpec};
//!
//! let spec = WeightSpec {
//!     name: "awq-g128".into(),
//!     bits: 4,
//!     group: Group::Size(128),
//!     params: vec![
//!         Param { name: "s".into(), dtype: ParamType::F16 },
//!         Param { name: "z".into(), dtype: ParamType::Code(4) },
//!     ],
//!     expr: "(* (- q z) s)".into(),
//!     codebook: Default::default(),
//!     act_order: false,
//!     activations: Default::default(),
//! };
//! let ctx = Context { act: DType::F16, engine: Engine::Half2, spec };
//! let params = CostParams { group: 128, segment: 32, tokens: 1, row_tiles: 2, row_lanes: 1 };
//! let arch = Arch::named("h200").unwrap();
//! let best = variants(&ctx, &params, &arch, &Options::default()).unwrap().variants.remove(0);
//! assert_eq!(
//!     best.term.to_string(),
//!     "(* (* 256 s) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) (* 0.00390625 x))))"
//! );
//! let derivation = explain(&best.term, &ctx, &Options::default()).unwrap();
//! assert!(derivation.rules().contains(&"offset-into-fma"));
//! ```
//!
//! # The language
//!
//! | operator | meaning |
//! |---|---|
//! | `1024`, `0.00390625` | a constant, as the shortest decimal |
//! | `q` | the weight's unsigned code |
//! | `x` | the activation |
//! | `s`, `z`, any other name | a group parameter, by its name in [`crate::WeightSpec::params`] |
//! | `p`, `rp` | the position weight of a code that is left in place in its word, and `1/p` |
//! | `(^ i c)`, `&`, `\|`, `<<`, `>>` | integer operations of a code and a constant |
//! | `(real i)` | the integer as a real number: a plain conversion |
//! | `(at i)` | the integer left where it lies: value `p * i` |
//! | `(raise i)` | the same in a word that was rotated up by three bits when it was packed: value `8 * p * i` |
//! | `(magic i)` | bits `0x6400 \| i` of an f16 (`0x4300 \| i` of a bf16): value `1024 + i` (`128 + i`) |
//! | `(subn i)` | the bits taken as an f16 subnormal: value `i * 2^-24`, also for the 11 bits that reach the first normal numbers |
//! | `(lookup i)` | the value of the format's codebook at `i`, see [`crate::WeightSpec::codebook`] |
//! | `(pair i)`, `(page i)` | the same, rounded, from a table of all pairs of codes in shared memory |
//! | `(prmt i)` | the same, rounded, from a table in registers by byte permutations |
//! | `(short i)` | the same over [`Context::short_unit`], from a table of upper bytes in registers |
//! | `(vector q)` | the weight's number in the vector that its octet of codes names, a sum of entries of the layer's codebooks, see [`crate::VectorCodes`]; rounded to the compute type |
//! | `(e4m3 i)` | the float of 8 bits that the code is: 4 bits of exponent, 3 of mantissa |
//! | `(narrow i)` | its bits under the exponent of an f16: the value over 256 |
//! | `(cvt i)` | the value, converted by an instruction that takes two codes and gives a pair of f16 |
//! | `(wide i)` | its bits under the exponent of a bf16, multiplied back: the value |
//! | `+ - * fma neg` | real arithmetic; `(fma a b c)` is `a * b + c` with one rounding |
//! | `(stored a b)` | the product of two group parameters, or of one and a constant, rounded to f16 when weights are packed ([`Field`]) |
//! | `(nested s c n)` | the group parameter `s`, made in the kernel of `c` and `n` ([`crate::NestedMap`]) with the roundings that it was made with |
//! | `(sum e)` | the sum over one quant group's k |
//!
//! Weights come in 16-bit half words, of up to four fields of 4 bits with a code each. A word shifted by
//! 0 or 8 has a code at bit 0 (`p = 1`) or bit 4 (`p = 16`) of each half word. Codes of more bits have
//! fields of 8 bits ([`crate::CodePacking`]) and are not used in place. On [`Engine::Mma`] `p` is a constant of the
//! row, on the others it alternates along k and cannot leave the sum.
//!
//! Codes that are looked up one by one lie in order instead ([`CodeOrder`]), a pair of them in each byte.
//!
//! # What codegen accepts
//!
//! [`Lowered`] checks it and is its proof:
//! - the root is an f32 expression of `+ - * fma neg` per (row, token, quant group) over sums and
//!   uniform values (constants, group parameters; on `Mma` also `p` and `rp`);
//! - a sum is `(sum Y)` or `(sum (* A Y))`, where `Y` is `x` or `(* c x)` with a power of two `c`,
//!   the same `c` in every sum of the term because activations are staged once;
//! - `A` is computed per weight in [`Context::compute`]'s type by `+ - * fma neg` from conversions
//!   of the code and from uniform values. Integer expressions have values that fit the code's own
//!   bits (intermediate ones may not: the code is masked before it is shifted). A maximal uniform
//!   sub-expression of `A` is computed in f32 once per row, quant group and position weight, and
//!   rounded once to the compute type;
//! - `(sum Y)` costs one more `mma` with a fragment of ones per k-step and warp on `Mma`, and
//!   adding the lane's activations on the other engines.
//!
//! # Files
//!
//! [`language`](Op) operators · [`term`](Term) parser and printer · [`context`](Context) engine
//! and format · [`root`](source) source term · [`facts`](Facts) types and ranges ·
//! [`check`](Lowered) verifier · [`rules`](RULES) the rewrites, with `README.md` ·
//! [`cost`](CostModel) · [`rounding`](Rounding) classes · [`extract`](Search) k best terms ·
//! [`search`](variants) · [`tables`](PairTable) of codebooks · `float8` codes · [`explain`] derivations · [`interp`](GroupValues) exact values ·
//! [`error_bound`](Evaluator) · [`fields`] of packed parameters.

mod check;
mod code_table;
mod context;
mod cost;
mod error_bound;
mod explain;
mod extract;
mod facts;
mod fields;
mod float8;
mod interp;
mod language;
mod root;
mod rounding;
mod rules;
mod search;
mod tables;
mod term;

pub use check::{Lowered, SumSite, HALF2_CHAIN};
pub use code_table::CodeTable;
pub use context::{Context, Engine, POSITIONS};
pub use cost::{CostModel, CostParams, CostParts};
pub use error_bound::{Bounded, Evaluator};
pub use explain::{explain, Derivation, Step};
pub use facts::{Facts, Grid, Role};
pub use fields::{fields, packed_param_bytes, reads_nested, Field, Levels};
pub use float8::{e4m3, e4m3_code, e4m3_nearest};
pub use interp::GroupValues;
pub use language::{Name, Num, Op};
pub use root::source;
pub use rounding::Rounding;
pub use rules::{packing_rule, rule_names, Rule, OUT_OF_SUM, RULES};
pub use search::{variants, Options, Search, Variant};
pub use tables::{CodeOrder, PairTable};
pub use term::{runs_on, Term};

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

#[cfg(test)]
pub(crate) mod tests;
