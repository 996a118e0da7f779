//! The table of rewrites. `README.md` beside this file holds the rules about rules.

use super::check::{fits_magic, fits_short, fits_subnormal, fits_table};
use super::{float8, Context, DequantError, Engine, Facts, Op, Role};
use crate::{DType, WeightSpec};
use egg::{Analysis, DidMerge, EGraph, Id, Language, Pattern, Rewrite, Subst, Var};
use std::sync::Arc;

/// One row of the table: a named equality, used from left to right.
pub struct Rule {
    /// Its name, as printed in derivations and given to `Options::disabled_rules`.
    pub name: &'static str,
    /// What it is about; rows of a theme stand together.
    pub theme: &'static str,
    /// Pairs of left and right side. `BASE` stands for the compute type's magic base, `UNIT` for the
    /// unit of a short codebook.
    pub forms: &'static [(&'static str, &'static str)],
    /// Conditions, all of which must hold of the matched values.
    conditions: &'static [Need],
}

/// A condition on the values that a pattern's variables are bound to.
#[derive(Clone, Copy)]
enum Need {
    /// Depends on the code: computed per weight.
    Weight(&'static str),
    /// The same for all k of a quant group.
    Invariant(&'static str),
    /// Computed outside of the loop over k.
    Hoistable(&'static str),
    /// Not computed outside of the loop over k.
    Varying(&'static str),
    /// Depends on a group parameter, and not on the position weight.
    Scale(&'static str),
    /// Either contains a sum.
    AnyOuter(&'static str, &'static str),
    /// The sum or difference of the two is exact in the compute type.
    ExactOffset(&'static str, &'static str),
    /// Not much larger than the codes, so that rounding its product with a scale costs no bits of
    /// the codes; a magic base is.
    SmallOffset(&'static str),
    /// An integer in the low bits that fits below the magic base even in place.
    FitsInPlace(&'static str),
    /// An integer that fits below the magic base.
    FitsMagic(&'static str),
    /// An integer that can be read as an f16 subnormal.
    FitsSubnormal(&'static str),
    /// An integer in the low bits that can be read as an f16 where its word is raised.
    FitsRaised(&'static str),
    /// An integer that selects an entry of a table.
    FitsTable(&'static str),
    /// An integer that selects an entry of a table of single bytes.
    FitsShort(&'static str),
    /// An 8-bit float whose bits are moved under the exponent of an f16.
    FitsNarrow(&'static str),
    /// The same of a bf16.
    FitsWide(&'static str),
    /// Depends on group parameters alone.
    Parameter(&'static str),
    /// The format has scales of two levels.
    TwoLevels,
    /// The format has scales that are quantized themselves.
    NestedScales,
    /// The engine adds products in f16.
    HalfSums,
}

use Need::{
    AnyOuter, ExactOffset, FitsInPlace, FitsMagic, FitsNarrow, FitsRaised, FitsShort,
    FitsSubnormal, FitsTable, FitsWide, HalfSums, Hoistable, Invariant, NestedScales, Parameter,
    Scale, SmallOffset, TwoLevels, Varying, Weight,
};

/// The rules that take a factor or an offset of weights out of their sum. Where weights are complete before
/// anything is multiplied no such term can be lowered, and none may hide one that can: searches for
/// those kernels leave the rules out.
pub const OUT_OF_SUM: &[&str] = &["scale-after-sum", "zero-as-correction", "raise-code-into-fma"];

/// The rule that is only for GPUs with the instruction.
pub(super) const HARDWARE_FLOAT: &str = "hardware-float";

/// The rule by which products of scales of two levels are packed in place of their factors. Without it
/// kernels multiply: the integers among the factors are fewer bytes ([`super::Levels`]).
const STORE_PRODUCT: &str = "store-product";

/// The rule by which scales that are quantized themselves are made when weights are packed. Without it
/// kernels make them, of fewer bytes.
const RESOLVE_NESTED: &str = "resolve-nested";

/// The rule without which the kernels of a format read what its scales are made of: fewer bytes for more
/// instructions. `None` where scales are made of nothing, or kernels always read it.
pub fn packing_rule(spec: &WeightSpec) -> Option<&'static str> {
    match (spec.has_nested_scales(), spec.has_two_levels()) {
        (true, _) => Some(RESOLVE_NESTED),
        (_, true) => Some(STORE_PRODUCT),
        _ => None,
    }
}

/// The rule that the analysis applies: an operator on constants is a constant.
pub const FOLD_CONSTANTS: &str = "fold-constants";

const fn rule(
    name: &'static str,
    theme: &'static str,
    forms: &'static [(&'static str, &'static str)],
    conditions: &'static [Need],
) -> Rule {
    Rule { name, theme, forms, conditions }
}

/// Every rule, by theme.
#[rustfmt::skip]
pub static RULES: &[Rule] = &[
    rule("scale-after-sum", "sums",
        &[("(sum (* (* ?a ?c) ?y))", "(* ?c (sum (* ?a ?y)))"),
          ("(sum (* (* ?c ?a) ?y))", "(* ?c (sum (* ?a ?y)))")],
        &[Weight("?a"), Invariant("?c")]),
    rule("zero-as-correction", "sums",
        &[("(sum (* (- ?a ?c) ?y))", "(- (sum (* ?a ?y)) (* ?c (sum ?y)))"),
          ("(sum (* (+ ?a ?c) ?y))", "(+ (sum (* ?a ?y)) (* ?c (sum ?y)))")],
        &[Weight("?a"), Invariant("?c")]),
    rule("merge-corrections", "sums",
        &[("(- (- ?e (* ?a ?y)) (* ?b ?y))", "(- ?e (* (+ ?a ?b) ?y))")],
        &[Varying("?e"), Hoistable("?a"), Hoistable("?b"), AnyOuter("?y", "?y")]),
    rule("prescale-activations", "sums",
        &[("(sum (* ?a x))", "(* 256 (sum (* ?a (* 0.00390625 x))))")],
        &[Weight("?a"), HalfSums]),

    rule("merge-scales", "scales",
        &[("(* ?c (* ?d ?e))", "(* (* ?c ?d) ?e)"),
          ("(* (* ?d ?e) ?c)", "(* (* ?c ?d) ?e)"),
          ("(* (* ?e ?d) ?c)", "(* (* ?c ?d) ?e)")],
        &[Hoistable("?c"), Hoistable("?d"), Varying("?e")]),
    rule("distribute-scale", "scales",
        &[("(* ?s (- ?a ?b))", "(- (* ?s ?a) (* ?s ?b))"),
          ("(* ?s (+ ?a ?b))", "(+ (* ?s ?a) (* ?s ?b))")],
        &[Hoistable("?s"), AnyOuter("?a", "?b")]),

    rule(STORE_PRODUCT, "parameters",
        &[("(* ?c ?d)", "(stored ?c ?d)")],
        &[TwoLevels, Parameter("?c"), Parameter("?d")]),
    rule(RESOLVE_NESTED, "parameters",
        &[("(nested ?s ?c ?d)", "?s")],
        &[NestedScales, Parameter("?s"), Parameter("?c"), Parameter("?d")]),

    rule("magic-number", "conversions",
        &[("(real ?i)", "(- (magic ?i) BASE)")],
        &[FitsMagic("?i")]),
    rule("subnormal", "conversions",
        &[("(real ?i)", "(* 16777216 (subn ?i))")],
        &[FitsSubnormal("?i")]),
    rule("code-in-place", "conversions",
        &[("(real ?i)", "(* rp (real (at ?i)))")],
        &[FitsInPlace("?i")]),
    rule("narrow-float", "conversions",
        &[("(e4m3 ?i)", "(* 256 (narrow ?i))")],
        &[FitsNarrow("?i")]),
    rule(HARDWARE_FLOAT, "conversions",
        &[("(e4m3 ?i)", "(cvt ?i)")],
        &[FitsNarrow("?i")]),
    rule("wide-float", "conversions",
        &[("(e4m3 ?i)", "(wide ?i)")],
        &[FitsWide("?i")]),

    rule("pair-table", "lookups",
        &[("(lookup ?i)", "(pair ?i)")],
        &[FitsTable("?i")]),
    rule("page-table", "lookups",
        &[("(lookup ?i)", "(page ?i)")],
        &[FitsTable("?i")]),
    rule("register-table", "lookups",
        &[("(lookup ?i)", "(prmt ?i)")],
        &[FitsTable("?i")]),
    rule("short-table", "lookups",
        &[("(lookup ?i)", "(* UNIT (short ?i))")],
        &[FitsShort("?i")]),

    rule("offset-into-zero", "offsets",
        &[("(- (- ?m ?b) ?z)", "(- ?m (+ ?b ?z))"),
          ("(+ (- ?m ?b) ?z)", "(- ?m (- ?b ?z))")],
        &[Weight("?m"), Hoistable("?b"), Hoistable("?z"), ExactOffset("?b", "?z")]),
    rule("unscale-by-fma", "offsets",
        &[("(* rp (- ?m ?b))", "(fma ?m rp (neg (* ?b rp)))")],
        &[Weight("?m"), Hoistable("?b"), ExactOffset("?b", "?b")]),
    rule("offset-into-fma", "offsets",
        &[("(- (fma ?m ?r ?c) ?z)", "(fma ?m ?r (- ?c ?z))"),
          ("(+ (fma ?m ?r ?c) ?z)", "(fma ?m ?r (+ ?c ?z))")],
        &[Weight("?m"), Hoistable("?r"), Hoistable("?c"), Hoistable("?z"),
          ExactOffset("?c", "?z")]),

    rule("precompute-offset", "fma",
        &[("(* (- ?a ?z) ?s)", "(fma ?a ?s (neg (* ?z ?s)))"),
          ("(* ?s (- ?a ?z))", "(fma ?a ?s (neg (* ?z ?s)))"),
          ("(* (+ ?a ?z) ?s)", "(fma ?a ?s (* ?z ?s))"),
          ("(* ?s (+ ?a ?z))", "(fma ?a ?s (* ?z ?s))")],
        &[Weight("?a"), Hoistable("?z"), Scale("?s"), SmallOffset("?z")]),
    rule("fuse-multiply-add", "fma",
        &[("(- (* ?a ?s) ?t)", "(fma ?a ?s (neg ?t))"),
          ("(- (* ?s ?a) ?t)", "(fma ?a ?s (neg ?t))"),
          ("(+ (* ?a ?s) ?t)", "(fma ?a ?s ?t)"),
          ("(+ (* ?s ?a) ?t)", "(fma ?a ?s ?t)")],
        &[Weight("?a"), Scale("?s"), Hoistable("?t")]),
    rule("raise-code-into-fma", "fma",
        &[("(sum (* (fma (real ?i) ?s ?c) ?y))",
           "(* (* 256 rp) (sum (* (fma (subn (raise ?i)) (* 8192 ?s) (* ?c (* p 0.00390625))) ?y)))")],
        &[FitsRaised("?i"), Scale("?s"), Hoistable("?c")]),

    // No forms: `Algebra::modify` applies it, because it computes its right side.
    rule(FOLD_CONSTANTS, "constants", &[], &[]),
];

/// The names of all rules, in table order.
pub fn rule_names() -> Vec<&'static str> {
    RULES.iter().map(|rule| rule.name).collect()
}

/// The e-graph's analysis: facts about each class, and constant folding.
#[derive(Clone)]
pub(super) struct Algebra {
    pub ctx: Arc<Context>,
    pub fold_constants: bool,
}

/// The e-graph of the algebra.
pub(super) type Graph = EGraph<Op, Algebra>;

impl Analysis<Op> for Algebra {
    /// `None` only for nodes that no typed term contains.
    type Data = Option<Facts>;

    fn make(graph: &mut Graph, node: &Op, _id: Id) -> Self::Data {
        let children: Option<Vec<&Facts>> =
            node.children().iter().map(|id| graph[*id].data.as_ref()).collect();
        let children = children?;
        let child = |id| node.children().iter().position(|c| *c == id).map(|i| children[i]);
        let fallback = children.first().copied();
        let mut facts = Facts::of(&graph.analysis.ctx, node, |id| {
            child(id).or(fallback).expect("an operator asks only for its own children")
        })
        .ok()?;
        if graph.analysis.fold_constants && facts.role == Role::Constant {
            let values: Option<Vec<f64>> =
                children.iter().map(|f| f.constant.map(|c| c.value())).collect();
            facts.constant = facts.constant.or(values.and_then(|v| folded(node, &v)));
        }
        Some(facts)
    }

    fn merge(&mut self, a: &mut Self::Data, b: Self::Data) -> DidMerge {
        let before = b.clone();
        match (a.as_mut(), b) {
            (Some(a), Some(b)) => {
                let changed = a.merge(&b);
                DidMerge(changed, before.as_ref() != Some(a))
            }
            (None, Some(b)) => {
                *a = Some(b);
                DidMerge(true, false)
            }
            (_, None) => DidMerge(false, a.is_some()),
        }
    }

    fn modify(graph: &mut Graph, id: Id) {
        if !graph.analysis.fold_constants {
            return;
        }
        let Some(num) = graph[id].data.as_ref().and_then(|facts| facts.constant) else { return };
        if graph[id].nodes.iter().any(|node| matches!(node, Op::Const(_))) {
            return;
        }
        let constant = graph.add(Op::Const(num));
        if graph.are_explanations_enabled() {
            graph.union_trusted(id, constant, FOLD_CONSTANTS);
        } else {
            graph.union(id, constant);
        }
    }
}

/// An operator on constants, if it rounds nothing: folding must not change the value.
fn folded(op: &Op, v: &[f64]) -> Option<super::Num> {
    let value = match (op, v) {
        (Op::Add(_), [a, b]) => a + b,
        (Op::Sub(_), [a, b]) => a - b,
        (Op::Mul(_), [a, b]) => a * b,
        (Op::Neg(_), [a]) => -a,
        _ => return None,
    };
    let exact = crate::DType::F32.round(value) == value;
    exact.then(|| super::Num::new(value)).flatten()
}

/// The rewrites of all rules that are not disabled.
///
/// # Errors
/// [`DequantError::UnknownRule`] for a name that is not in the table.
pub(super) fn rewrites(
    ctx: &Arc<Context>,
    disabled: &[&str],
) -> Result<Vec<Rewrite<Op, Algebra>>, DequantError> {
    if let Some(name) = disabled.iter().find(|name| !rule_names().contains(name)) {
        return Err(DequantError::UnknownRule { name: name.to_string(), known: rule_names() });
    }
    let enabled = RULES.iter().filter(|rule| !disabled.contains(&rule.name));
    Ok(enabled.flat_map(|rule| rule.rewrites(ctx)).collect())
}

/// The rule that a rewrite belongs to: rewrites are named `rule#form`.
pub(super) fn rule_of(rewrite: &str) -> Option<&'static str> {
    let name = rewrite.split('#').next().unwrap_or(rewrite);
    RULES.iter().map(|rule| rule.name).find(|known| *known == name)
}

impl Rule {
    fn rewrites<'a>(
        &'static self,
        ctx: &'a Arc<Context>,
    ) -> impl Iterator<Item = Rewrite<Op, Algebra>> + 'a {
        self.forms.iter().enumerate().map(move |(index, (left, right))| {
            let (left, right) = (pattern(left, ctx), pattern(right, ctx));
            let guard = Guard { ctx: ctx.clone(), conditions: bind(self.conditions) };
            let applier = egg::ConditionalApplier { condition: guard, applier: right };
            Rewrite::new(format!("{}#{index}", self.name), left, applier)
                .expect("the right side uses only variables of the left: the table's test")
        })
    }
}

fn pattern(text: &str, ctx: &Context) -> Pattern<Op> {
    filled(text, ctx).parse().expect("patterns of the table parse: the table's test")
}

/// A side of a rule with the context's numbers in it. Without a unit no match passes the conditions,
/// so that any number will do.
fn filled(text: &str, ctx: &Context) -> String {
    let unit = Some(ctx.short_unit()).filter(|unit| !unit.is_nan()).unwrap_or(1.0);
    text.replace("BASE", &ctx.magic_base().to_string()).replace("UNIT", &unit.to_string())
}

/// Conditions with their variables parsed once.
fn bind(conditions: &'static [Need]) -> Vec<(Need, Vec<Var>)> {
    let var = |name: &str| name.parse().expect("variables of the table parse: the table's test");
    conditions.iter().map(|need| (*need, need.variables().into_iter().map(var).collect())).collect()
}

impl Need {
    fn variables(self) -> Vec<&'static str> {
        match self {
            Weight(a) | Invariant(a) | Hoistable(a) | Varying(a) | Scale(a) | SmallOffset(a)
            | FitsInPlace(a) | FitsMagic(a) | FitsSubnormal(a) | FitsRaised(a) | FitsTable(a)
            | FitsShort(a) | FitsNarrow(a) | FitsWide(a) | Parameter(a) => vec![a],
            AnyOuter(a, b) | ExactOffset(a, b) => vec![a, b],
            HalfSums | TwoLevels | NestedScales => vec![],
        }
    }

    fn holds(self, ctx: &Context, facts: &[&Facts]) -> bool {
        match (self, facts) {
            (Weight(_), [a]) => a.role == Role::Weight,
            (Invariant(_), [a]) => a.invariant(ctx.engine),
            (Hoistable(_), [a]) => a.hoistable(),
            (Varying(_), [a]) => !a.hoistable(),
            (Scale(_), [a]) => a.hoistable() && a.param && !a.position,
            (AnyOuter(..), [a, b]) => a.role == Role::Outer || b.role == Role::Outer,
            (ExactOffset(..), [a, b]) => a.offset_exact(b, ctx.compute()),
            (SmallOffset(_), [a]) => {
                a.magnitude().is_some_and(|m| m <= f64::from(4 * (ctx.code_max() + 1)))
            }
            (FitsInPlace(_), [i]) => {
                let last = super::POSITIONS[super::POSITIONS.len() - 1];
                i.role == Role::Integer
                    && ctx.spec.bits <= 4
                    && i.magnitude().is_some_and(|hi| hi * last < ctx.magic_base())
            }
            (FitsMagic(_), [i]) => fits_magic(ctx, i).is_ok(),
            (FitsSubnormal(_), [i]) => fits_subnormal(ctx, i).is_ok(),
            (FitsRaised(_), [i]) => {
                let raised = Facts::of(ctx, &Op::Raised(Id::from(0)), |_| i);
                let fits = |i| ctx.spec.bits == 4 && fits_subnormal(ctx, &i).is_ok();
                ctx.engine == Engine::Mma && raised.is_ok_and(fits)
            }
            (FitsTable(_), [_]) => fits_table(ctx).is_ok(),
            (FitsShort(_), [_]) => fits_short(ctx).is_ok(),
            (FitsNarrow(_), [_]) => float8::fits(ctx, DType::F16).is_ok(),
            (FitsWide(_), [_]) => float8::fits(ctx, DType::Bf16).is_ok(),
            (HalfSums, _) => ctx.engine == Engine::Half2,
            (Parameter(_), [a]) => a.hoistable() && a.param && !a.position,
            (TwoLevels, _) => ctx.spec.has_two_levels(),
            (NestedScales, _) => ctx.spec.has_nested_scales(),
            _ => false,
        }
    }
}

/// All conditions of a rule.
struct Guard {
    ctx: Arc<Context>,
    conditions: Vec<(Need, Vec<Var>)>,
}

impl egg::Condition<Op, Algebra> for Guard {
    fn check(&self, graph: &mut Graph, _class: Id, subst: &Subst) -> bool {
        self.conditions.iter().all(|(need, variables)| {
            let facts: Option<Vec<&Facts>> =
                variables.iter().map(|v| graph[subst[*v]].data.as_ref()).collect();
            facts.is_some_and(|facts| need.holds(&self.ctx, &facts))
        })
    }

    fn vars(&self) -> Vec<Var> {
        self.conditions.iter().flat_map(|(_, variables)| variables.clone()).collect()
    }
}

/// One form of a rule for the tests: its sides, and the roles that its variables must have.
#[cfg(test)]
pub(super) struct Sides {
    pub rule: &'static str,
    pub left: String,
    pub right: String,
    pub roles: Vec<(&'static str, Role)>,
}

#[cfg(test)]
impl Need {
    /// The roles that the condition asks for.
    fn roles(self) -> Vec<(&'static str, Role)> {
        match self {
            Weight(a) | Varying(a) => vec![(a, Role::Weight)],
            Invariant(a) | Hoistable(a) | Scale(a) | Parameter(a) => {
                vec![(a, Role::Uniform)]
            }
            FitsInPlace(a) | FitsMagic(a) | FitsSubnormal(a) | FitsRaised(a) | FitsTable(a)
            | FitsShort(a) | FitsNarrow(a) | FitsWide(a) => {
                vec![(a, Role::Integer)]
            }
            AnyOuter(a, b) => vec![(a, Role::Outer), (b, Role::Outer)],
            ExactOffset(..) | SmallOffset(_) | HalfSums | TwoLevels | NestedScales => vec![],
        }
    }
}

/// Every form of every rule.
#[cfg(test)]
pub(super) fn sides(ctx: &Context) -> Vec<Sides> {
    let of_rule = |rule: &'static Rule| {
        rule.forms.iter().map(move |(left, right)| Sides {
            rule: rule.name,
            left: filled(left, ctx),
            right: filled(right, ctx),
            roles: rule.conditions.iter().flat_map(|need| need.roles()).collect(),
        })
    };
    RULES.iter().flat_map(of_rule).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{awq, context};
    use super::*;

    #[test]
    fn the_table_parses_and_right_sides_use_only_variables_of_the_left() {
        let ctx = Arc::new(context(awq(), Engine::Mma, DType::F16));
        assert_eq!(
            rewrites(&ctx, &[]).unwrap().len(),
            RULES.iter().map(|rule| rule.forms.len()).sum::<usize>()
        );
    }

    #[test]
    fn names_are_unique_and_rows_of_a_theme_stand_together() {
        let names: std::collections::BTreeSet<_> = rule_names().into_iter().collect();
        assert_eq!(names.len(), RULES.len());
        let mut themes: Vec<&str> = RULES.iter().map(|rule| rule.theme).collect();
        themes.dedup();
        let distinct: std::collections::BTreeSet<_> = themes.iter().collect();
        assert_eq!(distinct.len(), themes.len());
    }

    #[test]
    fn the_readme_lists_every_form_of_every_rule() {
        let readme = include_str!("README.md");
        for rule in RULES {
            assert!(readme.contains(&format!("| `{}` |", rule.name)), "{} is missing", rule.name);
            for (left, right) in rule.forms {
                let row = format!("| `{left}` | `{right}` |");
                assert!(readme.contains(&row), "README.md lacks {row}");
            }
        }
    }
}
