//! What a term costs: lane-instructions per weight spent on dequantization.
//!
//! The unit is one lane-instruction at Hopper's rate for its pipe; a pipe with half that rate (packed
//! half arithmetic on sm_86, sm_89 and sm_120, f32 on sm_80) counts twice. Loads and the products
//! themselves are the same for every term and are not counted.
//!
//! Three parts add up:
//! - per weight: packed operations at one half each, masks, shifts, conversions;
//! - per row and segment (the k that shares one application of group parameters): uniform values,
//!   once for each position weight where `p` varies along k. Constants are folded and cost nothing;
//! - per row, token and segment: the root, added into a running total, so that `c * sum` is one FMA.

use super::{Context, Engine, Facts, Op, Role, Term};
use crate::{Arch, DType};
use egg::{Id, Language};

/// How often the parts of a term are computed.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CostParams {
    /// Quant group size in elements of k.
    pub group: u32,
    /// k over which a lane (`Half2`, `F32`) or a warp (`Mma`) accumulates before the group
    /// parameters apply.
    pub segment: u32,
    /// Tokens per thread block.
    pub tokens: u32,
    /// Rows per lane (`Half2`, `F32`) or 16-row tiles per warp (`Mma`) that share one sum of
    /// activations.
    pub row_tiles: u32,
}

/// Warp instructions per clock and SM that count as one: Hopper's.
const FULL_HALF2: f64 = 4.0;
const FULL_FP32: f64 = 4.0;
const FULL_INT: f64 = 2.0;
const FULL_CONVERT: f64 = 2.0;

/// The cost model of one search.
#[derive(Clone, Debug)]
pub struct CostModel<'a> {
    ctx: &'a Context,
    half2: f64,
    int: f64,
    convert: f64,
    /// Weighted by one uniform operation.
    per_uniform: f64,
    /// Weighted by one outer operation.
    per_outer: f64,
    /// Of `(sum Y)`.
    plain_sum: f64,
}

/// Operations of an outer expression.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OuterOps {
    /// To have its value in a register.
    pub value: f64,
    /// To add it to a running total.
    pub add: f64,
}

impl<'a> CostModel<'a> {
    /// The model for an engine on a GPU.
    pub fn new(ctx: &'a Context, params: &CostParams, arch: &Arch) -> CostModel<'a> {
        let pair = match ctx.compute() {
            DType::Bf16 => arch.rates.bf162,
            DType::F16 | DType::F32 => arch.rates.half2,
        };
        let (half2, fp32) = (FULL_HALF2 / pair, FULL_FP32 / arch.rates.fp32);
        let segment = f64::from(params.segment.min(params.group).max(1));
        let rows = f64::from(params.row_tiles.max(1));
        let (per_uniform, per_outer, plain_sum) = match ctx.engine {
            Engine::Mma => {
                // A lane holds rows g and g+8 of a 16-row tile, which has segment/2 weights per
                // lane, and 4 accumulators per 8 tokens. One mma is 1/8 of a lane-instruction per
                // weight.
                let token_tiles = f64::from(params.tokens.div_ceil(8));
                (4.0 / segment, 8.0 * token_tiles / segment, 0.125 * token_tiles / rows)
            }
            Engine::Half2 => {
                let tokens = f64::from(params.tokens);
                (1.0 / segment, tokens / segment, 0.5 * half2 * tokens / rows)
            }
            Engine::F32 => {
                let tokens = f64::from(params.tokens);
                (1.0 / segment, tokens / segment, fp32 * tokens / rows)
            }
        };
        CostModel {
            ctx,
            half2,
            int: FULL_INT / arch.rates.int,
            convert: FULL_CONVERT / arch.rates.convert,
            per_uniform: per_uniform * fp32,
            per_outer: per_outer * fp32,
            plain_sum,
        }
    }

    /// Lane-instructions per weight of a whole term, equal sub-expressions computed once.
    pub fn term(&self, term: &Term, facts: &[Facts]) -> f64 {
        let fact = |id: Id| &facts[usize::from(id)];
        let mut outer: Vec<OuterOps> = Vec::with_capacity(facts.len());
        let mut total = 0.0;
        for (op, own) in term.nodes().iter().zip(facts) {
            total += self.node(op, own, fact);
            outer.push(outer_ops(op, own, |id| (fact(id), outer[usize::from(id)])));
        }
        total + self.outer(outer[usize::from(term.root())])
    }

    /// The cost of the root, added to the running total.
    pub(super) fn outer(&self, ops: OuterOps) -> f64 {
        self.per_outer * ops.add
    }

    /// What one node adds per weight, without its children and without outer operations.
    pub(super) fn node<'f>(&self, op: &Op, own: &Facts, child: impl Fn(Id) -> &'f Facts) -> f64 {
        let own_cost = match own.role {
            Role::Constant | Role::Activation => 0.0,
            Role::Uniform => self.uniform(op, own),
            Role::Integer if op.is_leaf() => 0.0,
            Role::Integer => 0.5 * self.int,
            Role::Word | Role::Product => 0.0,
            Role::Weight => self.weight(op, &child),
            Role::Outer => match op {
                Op::Sum(body) if child(*body).role == Role::Activation => self.plain_sum,
                _ => 0.0,
            },
        };
        own_cost + self.handed_over(op, own, child)
    }

    /// A uniform operation, where it depends on a parameter: others are constants in the code.
    fn uniform(&self, op: &Op, own: &Facts) -> f64 {
        if op.is_leaf() || !own.param {
            return 0.0;
        }
        let variants = if own.position && self.ctx.engine != Engine::Mma { 2.0 } else { 1.0 };
        variants * self.per_uniform
    }

    /// Rounding a uniform value to the compute type and doubling it, where a weight uses it.
    fn handed_over<'f>(&self, op: &Op, own: &Facts, child: impl Fn(Id) -> &'f Facts) -> f64 {
        if !matches!(own.role, Role::Weight | Role::Product) {
            return 0.0;
        }
        let uses = op.children().iter().filter(|id| child(**id).hoistable() && child(**id).param);
        uses.count() as f64 * self.per_uniform
    }

    fn weight<'f>(&self, op: &Op, child: &impl Fn(Id) -> &'f Facts) -> f64 {
        let packed = 0.5 * self.half2;
        match op {
            Op::Magic(i) | Op::Subnormal(i) => self.extraction(child(*i)),
            // Shift and mask one code, convert it, and pack two: scalar work for each weight.
            Op::Real(_) => 2.0 * self.int + self.convert + 0.5 * self.int,
            Op::Mul(ids) => {
                // Unscaling by `rp` is a multiplication by 1 for half of the codes.
                let unscales = ids
                    .iter()
                    .any(|id| child(*id).position && !child(*id).param && child(*id).hoistable());
                if unscales {
                    0.5 * packed
                } else {
                    packed
                }
            }
            _ => packed,
        }
    }

    /// One `lop3` masks two codes and sets the magic bits; in place, one shift by 8 serves a word
    /// of eight codes, otherwise three of its four pairs are shifted down.
    fn extraction(&self, integer: &Facts) -> f64 {
        let shift = if integer.role == Role::Word { 0.125 } else { 0.375 };
        (0.5 + shift) * self.int
    }
}

/// Operations per (row, token) of an outer expression, given its children's.
pub(super) fn outer_ops<'f>(
    op: &Op,
    own: &Facts,
    child: impl Fn(Id) -> (&'f Facts, OuterOps),
) -> OuterOps {
    if own.hoistable() {
        return OuterOps { value: 0.0, add: 1.0 };
    }
    if own.role != Role::Outer {
        return OuterOps::default();
    }
    match op {
        Op::Sum(_) => OuterOps { value: 0.0, add: 1.0 },
        Op::Add([a, b]) | Op::Sub([a, b]) => {
            let (a, b) = (child(*a).1, child(*b).1);
            OuterOps { value: (a.value + b.add).min(a.add + b.value), add: a.add + b.add }
        }
        Op::Mul([a, b]) => {
            let factor = child(*a).1.value + child(*b).1.value;
            OuterOps { value: factor + 1.0, add: factor + 1.0 }
        }
        Op::Fma([a, b, c]) => {
            let factor = child(*a).1.value + child(*b).1.value;
            let c = child(*c).1;
            OuterOps { value: factor + c.value + 1.0, add: factor + 1.0 + c.add }
        }
        Op::Neg(a) => {
            let a = child(*a).1;
            OuterOps { value: a.value + 1.0, add: a.add }
        }
        _ => OuterOps::default(),
    }
}
