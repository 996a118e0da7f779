//! The verifier: which terms are well typed, legal on an engine, and accepted by codegen.
//!
//! The shape of such terms is described in the module's documentation ("What codegen accepts").

use super::{float8, CodeOrder, Context, DequantError, Engine, Facts, Op, PairTable, Role, Term};
use crate::DType;
use egg::{Id, Language};

/// Products that one half of a half2 accumulator adds before it is widened: the longest chain.
pub const HALF2_CHAIN: u32 = 16;

/// One distinct sum of a term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SumSite {
    /// The `sum` node.
    pub id: Id,
    /// The expression `A` of a weight; `None` for the plain sum of activations.
    pub weight: Option<Id>,
    /// The constant `c` that activations are multiplied by when they are staged.
    pub activation_scale: f64,
}

/// A term that codegen accepts, with what it needs to know about each node.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Facts of [`Term::nodes`], by index.
    pub facts: Vec<Facts>,
    /// The distinct sums, in node order.
    pub sums: Vec<SumSite>,
    /// Whether codes are used where they lie (`at`), so that the position weight matters.
    pub in_place: bool,
    /// The order in which the term wants the codes of a word.
    pub order: CodeOrder,
}

impl Lowered {
    /// Checks `term` for the engine of `ctx`.
    ///
    /// # Errors
    /// [`DequantError::IllTyped`] or [`DequantError::Illegal`], naming the sub-expression.
    pub fn new(term: &Term, ctx: &Context) -> Result<Lowered, DequantError> {
        ctx.check()?;
        let facts = typed(term, ctx)?;
        let illegal = |id: Id, why: String| DequantError::Illegal {
            at: term.text_at(id),
            engine: ctx.engine,
            act: ctx.act,
            why,
        };
        for (index, op) in term.nodes().iter().enumerate() {
            let own = &facts[index];
            check_node(ctx, op, own, |id| &facts[usize::from(id)])
                .map_err(|why| illegal(Id::from(index), why))?;
        }
        let root = &facts[usize::from(term.root())];
        if root.role != Role::Outer {
            return Err(illegal(term.root(), "the root contains no sum".into()));
        }
        let sums = sum_sites(term, &facts).map_err(|(id, why)| illegal(id, why))?;
        let in_place = term.nodes().iter().any(|op| matches!(op, Op::At(_) | Op::Raised(_)));
        let order = code_order(term).map_err(|(id, why)| illegal(id, why))?;
        Ok(Lowered { facts, sums, in_place, order })
    }

    /// Facts of one node.
    pub fn facts(&self, id: Id) -> &Facts {
        &self.facts[usize::from(id)]
    }
}

/// The facts of every node.
fn typed(term: &Term, ctx: &Context) -> Result<Vec<Facts>, DequantError> {
    let mut facts: Vec<Facts> = Vec::with_capacity(term.nodes().len());
    for (index, op) in term.nodes().iter().enumerate() {
        let of = Facts::of(ctx, op, |id| &facts[usize::from(id)]);
        let at = || term.text_at(Id::from(index));
        facts.push(of.map_err(|why| DequantError::IllTyped { at: at(), why })?);
    }
    Ok(facts)
}

/// The one order that all conversions of a term want; at most one table may be in shared memory.
fn code_order(term: &Term) -> Result<CodeOrder, (Id, String)> {
    let mut wanted: Option<CodeOrder> = None;
    let mut shared = 0;
    for (index, op) in term.nodes().iter().enumerate() {
        let illegal = |why: &str| Err((Id::from(index), why.to_string()));
        if matches!(op, Op::Vector(code) if *term.node(*code) != Op::Code) {
            return illegal("a vector is named by the code as it is");
        }
        let Some(order) = CodeOrder::of(op, term) else { continue };
        if wanted.is_some_and(|other| other != order) {
            return illegal("its codes lie in another order than those of the rest of the term");
        }
        wanted = Some(order);
        shared += u32::from(PairTable::of(op).is_some());
        if shared > 1 {
            return illegal("one table fits shared memory, not two");
        }
    }
    Ok(wanted.unwrap_or(CodeOrder::Split))
}

fn sum_sites(term: &Term, facts: &[Facts]) -> Result<Vec<SumSite>, (Id, String)> {
    let mut sites: Vec<SumSite> = Vec::new();
    for (index, op) in term.nodes().iter().enumerate() {
        let Op::Sum(body) = op else { continue };
        let id = Id::from(index);
        let (weight, activation) = match term.node(*body) {
            Op::Mul([a, y]) if facts[usize::from(*body)].role == Role::Product => (Some(*a), *y),
            _ => (None, *body),
        };
        let activation_scale = activation_scale(term, facts, activation)
            .ok_or_else(|| (id, "activations may only be scaled by one power of two".into()))?;
        if sites.first().is_some_and(|first| first.activation_scale != activation_scale) {
            return Err((id, "sums of one term scale the activations differently".into()));
        }
        sites.push(SumSite { id, weight, activation_scale });
    }
    Ok(sites)
}

fn activation_scale(term: &Term, facts: &[Facts], id: Id) -> Option<f64> {
    match term.node(id) {
        Op::Activation => Some(1.0),
        Op::Mul([c, x]) if *term.node(*x) == Op::Activation => {
            let value = facts[usize::from(*c)].constant?.value();
            let power_of_two = value > 0.0 && value.to_bits() & ((1 << 52) - 1) == 0;
            power_of_two.then_some(value)
        }
        _ => None,
    }
}

/// What must hold of one node, given its own and its children's facts.
///
/// # Errors
/// One line saying what does not.
pub(super) fn check_node<'a>(
    ctx: &Context,
    op: &Op,
    own: &Facts,
    child: impl Fn(Id) -> &'a Facts,
) -> Result<(), String> {
    if let Op::Real(i)
    | Op::At(i)
    | Op::Raised(i)
    | Op::Magic(i)
    | Op::Subnormal(i)
    | Op::Narrow(i)
    | Op::Wide(i)
    | Op::Converted(i) = op
    {
        fits_code(ctx, child(*i))?;
    }
    match op {
        Op::At(_) if ctx.spec.bits > 4 => {
            return Err("codes of more than 4 bits do not lie at bit 0 or 4".into());
        }
        Op::Raised(_) if ctx.spec.bits != 4 => {
            return Err("only words of 4-bit codes are rotated".into());
        }
        Op::Magic(i) => fits_magic(ctx, child(*i))?,
        Op::Subnormal(i) => fits_subnormal(ctx, child(*i))?,
        Op::Real(i) if !child(*i).exact_in(ctx.compute()) => {
            return Err(format!("codes are not exact in {}", ctx.compute()));
        }
        Op::Lookup(_) => return Err("a lookup needs a table to read".into()),
        Op::Pair(_) | Op::Page(_) | Op::Permuted(_) => fits_table(ctx)?,
        Op::Short(_) => fits_short(ctx)?,
        // Where codes are multiplied as they are, nothing moves them.
        Op::Float8(_) if !ctx.spec.activations.are_float8() => {
            return Err("the bits of a float of 8 bits are moved first".into())
        }
        Op::Narrow(_) | Op::Converted(_) => float8::fits(ctx, DType::F16)?,
        Op::Wide(_) => float8::fits(ctx, DType::Bf16)?,
        Op::Sum(body) if ctx.engine == Engine::Half2 => fits_half2_sum(child(*body))?,
        _ => {}
    }
    match own.role {
        Role::Weight | Role::Product => {
            fits_compute(ctx, own)?;
            op.children().iter().try_for_each(|id| fits_compute(ctx, child(*id)))
        }
        Role::Outer if own.position && ctx.engine != Engine::Mma => {
            Err("p varies along k, so it cannot leave the sum".into())
        }
        _ => Ok(()),
    }
}

/// An integer made from a code must fit the code's own bits, because its neighbours lie right
/// beside it.
fn fits_code(ctx: &Context, integer: &Facts) -> Result<(), String> {
    match integer.magnitude() {
        Some(hi) if integer.role == Role::Integer && hi > f64::from(ctx.code_max()) => {
            Err(format!("values up to {hi} do not fit the code's {} bits", ctx.spec.bits))
        }
        _ => Ok(()),
    }
}

/// A value of the weight's computation must not overflow the compute type.
fn fits_compute(ctx: &Context, facts: &Facts) -> Result<(), String> {
    let limit = ctx.compute().max_finite();
    match facts.magnitude() {
        Some(magnitude) if magnitude > limit && facts.role != Role::Activation => {
            Err(format!("values up to {magnitude} overflow {}", ctx.compute()))
        }
        _ => Ok(()),
    }
}

/// The integer must stay below the last mantissa bit that the magic number leaves free.
pub(super) fn fits_magic(ctx: &Context, integer: &Facts) -> Result<(), String> {
    match integer.magnitude() {
        Some(hi) if hi < ctx.magic_base() => Ok(()),
        hi => Err(format!("{} does not fit below {}", hi.unwrap_or(f64::NAN), ctx.magic_base())),
    }
}

/// The integer must fit the ten bits of an f16 subnormal, or the first eleven of an f16: numbers of the
/// least exponent go on evenly where subnormals end. Its products must not underflow.
pub(super) fn fits_subnormal(ctx: &Context, integer: &Facts) -> Result<(), String> {
    if ctx.compute() != DType::F16 {
        return Err("subnormal codes are an f16 trick".into());
    }
    if ctx.engine == Engine::Half2 {
        return Err("products of subnormal codes underflow in half FMAs".into());
    }
    match integer.magnitude() {
        Some(hi) if hi < 2.0 * ctx.magic_base() => Ok(()),
        _ => Err("does not fit eleven bits".into()),
    }
}

/// Tables are read with 4-bit codes as they are packed, whatever integer is made of them.
pub(super) fn fits_table(ctx: &Context) -> Result<(), String> {
    if ctx.spec.bits == 4 && !ctx.spec.codebook.values().is_empty() {
        return Ok(());
    }
    Err(format!("tables are for a codebook and 4-bit codes, not {}", ctx.spec.bits))
}

/// As [`fits_table`], and every entry must fit one byte.
pub(super) fn fits_short(ctx: &Context) -> Result<(), String> {
    fits_table(ctx)?;
    if ctx.short_unit().is_nan() {
        return Err(format!("the codebook does not fit the upper bytes of {}", ctx.compute()));
    }
    Ok(())
}

/// A chain of half FMAs must not overflow, whatever the activations are: the body's grid is in
/// units of the largest f16.
fn fits_half2_sum(body: &Facts) -> Result<(), String> {
    match body.magnitude() {
        Some(magnitude) if magnitude * f64::from(HALF2_CHAIN) <= 1.0 => Ok(()),
        Some(magnitude) => Err(format!(
            "{HALF2_CHAIN} products of up to {magnitude} times the largest f16 overflow"
        )),
        None => Err("products of unknown size may overflow f16".into()),
    }
}
