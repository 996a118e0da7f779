//! What a term costs: lane-instructions per weight spent on dequantization.
//!
//! The unit is one lane-instruction at Hopper's rate for its pipe; a pipe with half that rate
//! (packed half arithmetic on sm_86, sm_89 and sm_120, f32 on sm_80) counts twice. Loads and the
//! products themselves are the same for every term and are not counted.
//!
//! Three parts add up:
//! - per weight: packed operations at one half each, masks, shifts, conversions;
//! - per row and segment (the k that shares one application of group parameters): uniform values,
//!   once for each position weight where `p` varies along k, or a part of them where lanes share them. Constants are folded and cost nothing;
//! - per row, token and segment: the root, added into a running total, so that `c * sum` is one
//!   FMA. The expression is taken as written; that codegen flattens it only makes it cheaper. A root
//!   that is a sum, or a constant of the row times one, costs nothing on tensor cores, which add it to
//!   the total themselves.

use super::{Context, Engine, Facts, Op, Role, Term};
use crate::{Arch, DType, VectorCodes, VECTOR_WEIGHTS};
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
    /// Lanes that share the uniform values of their rows where a sum that runs on reads both levels of
    /// scales ([`crate::Schedule::levels`]); 1 where each computes its own.
    pub row_lanes: u32,
}

/// The cost of a term by what it is spent on, in lane-instructions per weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CostParts {
    /// Masks, shifts, conversions and packed arithmetic on weights.
    pub weights: f64,
    /// Uniform values: per row and segment.
    pub uniforms: f64,
    /// Plain sums of activations.
    pub sums: f64,
    /// The root: per row, token and segment.
    pub outer: f64,
}

impl CostParts {
    /// All parts together.
    pub fn total(&self) -> f64 {
        self.weights + self.uniforms + self.sums + self.outer
    }

    fn add(&mut self, other: CostParts) {
        self.weights += other.weights;
        self.uniforms += other.uniforms;
        self.sums += other.sums;
        self.outer += other.outer;
    }
}

/// Warp instructions per clock and SM that count as one: Hopper's.
const FULL_HALF2: f64 = 4.0;
const FULL_FP32: f64 = 4.0;
const FULL_INT: f64 = 2.0;
const FULL_CONVERT: f64 = 2.0;

/// Operations that make a nested scale: a shift and a mask for the address in the map, a load, a product and a
/// sum.
const NESTED: f64 = 5.0;

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
    /// See [`CostParams::row_lanes`].
    row_lanes: f64,
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
            row_lanes: params.row_lanes.max(1).into(),
        }
    }

    /// The cost of a whole term, equal sub-expressions computed once. `facts` are those of its
    /// nodes, as in [`super::Lowered`].
    pub fn term(&self, term: &Term, facts: &[Facts]) -> CostParts {
        let fact = |id: Id| &facts[usize::from(id)];
        let mut ops: Vec<OuterOps> = Vec::with_capacity(facts.len());
        let mut parts = CostParts::default();
        for (op, own) in term.nodes().iter().zip(facts) {
            parts.add(self.node(op, own, fact));
            ops.push(outer_ops(op, own, |id| (fact(id), ops[usize::from(id)])));
        }
        let root = term.root();
        let runs_on = term.runs_on().is_some();
        if runs_on && self.reads_levels(term) {
            parts.uniforms /= self.row_lanes;
        }
        parts.outer = self.outer(runs_on, ops[usize::from(root)]);
        parts
    }

    /// Whether a term reads what scales are made of: both levels, or codes of the scales themselves.
    fn reads_levels(&self, term: &Term) -> bool {
        let any = |wanted: fn(&Op) -> bool| term.nodes().iter().any(wanted);
        match self.ctx.spec.has_nested_scales() {
            true => any(|op| matches!(op, Op::Nested(_))),
            false => !any(|op| matches!(op, Op::Stored(_))),
        }
    }

    /// The cost of the root, added to the running total, which a sum that `runs_on` is
    /// ([`Term::runs_on`]).
    pub(super) fn outer(&self, runs_on: bool, ops: OuterOps) -> f64 {
        match (self.ctx.engine, runs_on) {
            (Engine::Mma, true) => 0.0,
            _ => self.per_outer * ops.add,
        }
    }

    /// What one node adds, without its children and without outer operations.
    pub(super) fn node<'f>(
        &self,
        op: &Op,
        own: &Facts,
        child: impl Fn(Id) -> &'f Facts,
    ) -> CostParts {
        let mut parts = CostParts::default();
        match own.role {
            Role::Constant | Role::Activation | Role::Word => {}
            Role::Uniform => parts.uniforms = self.uniform(op, own),
            Role::Integer if op.is_leaf() => {}
            Role::Integer => parts.weights = 0.5 * self.int,
            Role::Product => parts.uniforms = self.handed_over(op, child),
            Role::Weight => {
                parts.weights = self.weight(op, &child);
                parts.uniforms = self.handed_over(op, child);
            }
            Role::Outer => match op {
                Op::Sum(body) if child(*body).role == Role::Activation => {
                    parts.sums = self.plain_sum;
                }
                // Coefficients are f32: the parameters of a lane's rows are widened.
                _ if self.ctx.engine == Engine::Mma => {
                    parts.uniforms = self.per_parameter(op, child);
                }
                _ => {}
            },
        }
        parts
    }

    /// A uniform operation, where it depends on a parameter: others are constants in the code.
    fn uniform(&self, op: &Op, own: &Facts) -> f64 {
        // A sign goes to a constant or to what uses the value.
        if op.is_leaf() || !own.param || matches!(op, Op::Stored(_) | Op::Neg(_)) {
            return 0.0;
        }
        let variants = if own.position && self.ctx.engine != Engine::Mma { 2.0 } else { 1.0 };
        match op {
            // Made once, whatever the position.
            Op::Nested(_) => NESTED * self.per_uniform,
            _ => variants * self.per_uniform,
        }
    }

    /// Rounding a uniform value to the compute type and doubling it, where a weight uses it. Packed
    /// halves of tensor-core kernels are rounded already, and either half of a register may stand
    /// for both.
    fn handed_over<'f>(&self, op: &Op, child: impl Fn(Id) -> &'f Facts) -> f64 {
        match (self.ctx.engine, self.ctx.compute()) {
            (Engine::Mma, DType::F16) => 0.0,
            _ => self.per_parameter(op, child),
        }
    }

    /// One operation on each uniform value with a parameter that `op` uses.
    fn per_parameter<'f>(&self, op: &Op, child: impl Fn(Id) -> &'f Facts) -> f64 {
        let uses = op.children().iter().filter(|id| child(**id).hoistable() && child(**id).param);
        uses.count() as f64 * self.per_uniform
    }

    fn weight<'f>(&self, op: &Op, child: &impl Fn(Id) -> &'f Facts) -> f64 {
        let packed = 0.5 * self.half2;
        match op {
            Op::Magic(i) | Op::Subnormal(i) => self.extraction(child(*i)),
            Op::Converted(_) => 0.5 * self.convert,
            Op::Narrow(_) => self.moved(),
            Op::Wide(_) => self.moved() + packed,
            // Shift and mask one code, convert it, and pack two: scalar work for each weight.
            Op::Real(_) => (2.5 + self.unpacking()) * self.int + self.convert,
            Op::Vector(_) => self.vector(),
            Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_) => self.lookup(op),
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

    /// Per weight of a word of eight. Addresses of a pair's entry take a shift and a `lop3`, or one
    /// `prmt`; then there is one load. From registers, two masks and three shifts make the
    /// selectors; per byte plane, every four codes take a `prmt` for each half of the table and one
    /// to choose; two more interleave the planes.
    fn lookup(&self, op: &Op) -> f64 {
        match op {
            Op::Pair(_) => (8.0 * self.int + 4.0) / 8.0,
            Op::Page(_) => (4.0 * self.int + 4.0) / 8.0,
            Op::Short(_) => (5.0 + 2.0 * (3.0 + 2.0)) * self.int / 8.0,
            _ => (5.0 + 2.0 * (6.0 + 2.0)) * self.int / 8.0,
        }
    }

    /// Per vector and codebook: a shift and a mask, an address of 64 bits, a load; then packed additions.
    fn vector(&self) -> f64 {
        let books = self.ctx.spec.codebook.vectors().map_or(1, VectorCodes::books);
        let sums = f64::from(books - 1) * 0.5 * self.half2;
        f64::from(books) * (4.0 * self.int + 1.0) / VECTOR_WEIGHTS as f64 + sums
    }

    /// One `lop3` masks two codes and sets the magic bits; in place, one shift by 8 serves a word
    /// of eight codes, otherwise three of its four pairs are shifted down. Codes in bytes take one
    /// `prmt` for two.
    fn extraction(&self, integer: &Facts) -> f64 {
        let shift = match integer.role {
            _ if self.ctx.spec.bits > 4 => 0.0,
            Role::Word => 0.125,
            _ => 0.375,
        };
        (0.5 + shift + self.unpacking()) * self.int
    }

    /// For two codes of the four of a word: a shift, a mask and the `lop3` that adds the signs; for the
    /// other two also a shift that brings these to the top.
    fn moved(&self) -> f64 {
        (3.0 + 4.0) / 4.0 * self.int
    }

    /// Integer operations per code that bring planes of bits into their fields: see
    /// [`crate::CodePacking`]. Shifts of octets that share a word are counted at their average.
    fn unpacking(&self) -> f64 {
        let per_octet = match self.ctx.spec.bits {
            2 => 0.5,
            3 => 0.5 + 0.75 + 1.0,
            5 => 0.75 + 2.0 + 4.0,
            6 => 0.5 + 2.0 + 4.0,
            _ => 0.0,
        };
        per_octet / 8.0
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

#[cfg(test)]
mod tests {
    use super::super::tests::{awq, context, two_levels};
    use super::super::Lowered;
    use super::*;

    fn cost(engine: Engine, act: DType, params: CostParams, gpu: &str, text: &str) -> f64 {
        let (ctx, arch) = (context(awq(), engine, act), Arch::named(gpu).unwrap());
        let term: Term = text.parse().unwrap();
        let lowered = Lowered::new(&term, &ctx).unwrap();
        CostModel::new(&ctx, &params, &arch).term(&term, &lowered.facts).total()
    }

    /// Groups so long that only the work per weight counts.
    const PER_WEIGHT: CostParams = CostParams {
        group: 1 << 30,
        segment: 1 << 30,
        tokens: 8,
        row_tiles: 1 << 20,
        row_lanes: 1,
    };

    fn per_weight(act: DType, text: &str) -> f64 {
        (cost(Engine::Mma, act, PER_WEIGHT, "h200", text) * 1000.0).round() / 1000.0
    }

    #[test]
    fn eight_codes_in_place_take_four_masks_and_one_shift() {
        let term = "(- (* s (sum (* (subn (at q)) x))) (* (* s z) (sum x)))";
        assert_eq!(per_weight(DType::F16, term), (4.0 + 1.0) / 8.0);
    }

    #[test]
    fn eight_codes_in_low_bits_take_three_shifts_and_packed_operations_one_half() {
        let term = "(* s (sum (* (- (magic q) (+ 128 z)) x)))";
        assert_eq!(per_weight(DType::Bf16, term), (4.0 + 3.0 + 4.0) / 8.0);
    }

    #[test]
    fn sums_of_activations_cost_one_mma_per_row_tile_they_serve() {
        let params = CostParams { row_tiles: 4, tokens: 16, ..PER_WEIGHT };
        let of = |text| cost(Engine::Mma, DType::F16, params, "h200", text);
        let plain = "(* s (sum (* (subn (at q)) x)))";
        let corrected = "(- (* s (sum (* (subn (at q)) x))) (sum x))";
        assert!((of(corrected) - of(plain) - 2.0 / (8.0 * 4.0)).abs() < 1e-6);
    }

    #[test]
    fn tensor_cores_add_a_bare_sum_to_the_total_themselves() {
        let params = CostParams { segment: 64, tokens: 64, ..PER_WEIGHT };
        let of = |text| cost(Engine::Mma, DType::F16, params, "h200", text);
        // 64 accumulators per 16x8 tiles of 64 k, which are 32 weights per lane and tile.
        let scaled = of("(* s (sum (* (subn q) x)))") - of("(sum (* (subn q) x))");
        // Two rows of a lane have a scale to widen.
        assert_eq!(scaled, (8.0 * 4.0 + 2.0) / 32.0);
    }

    #[test]
    fn lanes_share_the_uniform_values_of_sums_that_read_both_levels() {
        let (ctx, arch) =
            (context(two_levels(), Engine::Mma, DType::F16), Arch::named("h200").unwrap());
        let uniforms = |row_lanes: u32, text: &str| {
            let params = CostParams { segment: 32, row_lanes, ..PER_WEIGHT };
            let term: Term = text.parse().unwrap();
            let lowered = Lowered::new(&term, &ctx).unwrap();
            CostModel::new(&ctx, &params, &arch).term(&term, &lowered.facts).uniforms
        };
        let inside = "(sum (* (fma (- (magic q) 1024) (* d i) (neg (* e j))) x))";
        assert_eq!(uniforms(4, inside), uniforms(1, inside) / 4.0);
        let outside = "(- (* (* d i) (sum (* (subn q) x))) (* (* e j) (sum x)))";
        assert_eq!(uniforms(4, outside), uniforms(1, outside), "each lane needs coefficients");
    }

    #[test]
    fn roots_are_fmas_into_the_running_total() {
        let params =
            CostParams { group: 128, segment: 32, tokens: 2, row_tiles: 1 << 20, row_lanes: 1 };
        let of = |text| cost(Engine::F32, DType::F16, params, "h200", text);
        let one = of("(* s (sum (* (subn q) x)))") - of("(sum (* (subn q) x))");
        assert_eq!(one, 0.0, "a product and a plain sum are both one addition to the total");
        let nested = of("(* s (* 256 (sum (* (subn q) x))))") - of("(* s (sum (* (subn q) x)))");
        assert_eq!(nested, 2.0 / 32.0);
    }
}
