//! Rounding classes: where a term's machine arithmetic may differ from exact arithmetic.

use super::{Context, Engine, Facts, Op, Role};
use crate::ParamType;
use egg::Language;
use std::fmt;

/// A set of rounding classes; the empty set computes exact weights and sums them as the reference
/// does. Fewer classes are better, and two sets may be incomparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rounding(u16);

/// Every class: its set, its name in output, what it says.
const CLASSES: [(Rounding, &str, &str); 9] = [
    (Rounding::WEIGHT_ROUNDED, "weight-rounded", "rounded as the format's expression is"),
    (Rounding::WEIGHT_REASSOCIATED, "weight-reassociated", "rounded in another order"),
    (Rounding::SCALED_AFTER_SUM, "scaled-after-sum", "a group parameter multiplies a sum"),
    (Rounding::OFFSET_CORRECTION, "offset-correction", "an offset is corrected by sum(x)"),
    (Rounding::LARGE_OFFSET, "large-offset", "the offset is large against the codes"),
    (Rounding::HALF2_PARTIAL_SUMS, "half2-partial-sums", "partial sums are kept in f16"),
    (Rounding::PRESCALED, "activation-prescaled", "activations are scaled by a power of two"),
    (Rounding::CODEBOOK_ROUNDED, "codebook-rounded", "values of the codebook are rounded"),
    (
        Rounding::SCALE_ROUNDED,
        "scale-rounded",
        "scales of two levels are multiplied and rounded ahead",
    ),
];

impl Rounding {
    /// Codes stay exact, nothing is moved.
    pub const EXACT: Rounding = Rounding(0);
    /// A weight is rounded to the compute type, operation by operation as the format's own
    /// expression would be: what the checkpoint's reference does.
    pub const WEIGHT_ROUNDED: Rounding = Rounding(1);
    /// A weight is rounded in another order than the format's expression: by an FMA, or through a
    /// precomputed value that is itself rounded.
    pub const WEIGHT_REASSOCIATED: Rounding = Rounding(2);
    /// A group parameter multiplies a sum in f32.
    pub const SCALED_AFTER_SUM: Rounding = Rounding(4);
    /// An offset is left in the weights and corrected with the sum of activations; the error grows
    /// with the offset even where `q = z`.
    pub const OFFSET_CORRECTION: Rounding = Rounding(8);
    /// The weights inside a sum are all far from zero (a magic number was left in).
    pub const LARGE_OFFSET: Rounding = Rounding(16);
    /// Partial sums are kept in f16.
    pub const HALF2_PARTIAL_SUMS: Rounding = Rounding(32);
    /// Activations are scaled by a power of two: small ones lose bits to underflow.
    pub const PRESCALED: Rounding = Rounding(64);

    /// Values of the codebook are rounded to the compute type before they meet the scale.
    pub const CODEBOOK_ROUNDED: Rounding = Rounding(128);

    /// A scale of scales and an integer scale are multiplied when weights are packed, and rounded to
    /// f16.
    pub const SCALE_ROUNDED: Rounding = Rounding(256);

    /// Whether every class of `other` is in this set.
    pub fn contains(self, other: Rounding) -> bool {
        self.0 & other.0 == other.0
    }

    /// All classes of both.
    pub fn with(self, other: Rounding) -> Rounding {
        Rounding(self.0 | other.0)
    }

    /// The names of the classes; `exact` alone where there is none.
    pub fn names(self) -> Vec<&'static str> {
        let named = CLASSES.iter().filter(|(class, _, _)| self.contains(*class));
        let names: Vec<&str> = named.map(|(_, name, _)| *name).collect();
        if names.is_empty() {
            vec!["exact"]
        } else {
            names
        }
    }

    /// Name and one-line meaning of every class.
    pub fn legend() -> impl Iterator<Item = (&'static str, &'static str)> {
        CLASSES.iter().map(|(_, name, meaning)| (*name, *meaning))
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("+"))
    }
}

/// The classes that one node adds, given facts and operators of its children.
pub(super) fn of_node<'a>(
    ctx: &Context,
    op: &Op,
    own: &Facts,
    child: impl Fn(egg::Id) -> (&'a Op, &'a Facts),
) -> Rounding {
    match own.role {
        Role::Weight => weight_classes(ctx, op, own, child),
        Role::Product => {
            let Op::Mul([a, _]) = op else { return Rounding::EXACT };
            let (weight_op, weight) = child(*a);
            let bias = if far_from_zero(weight) { Rounding::LARGE_OFFSET } else { Rounding::EXACT };
            bias.with(uniform_classes(ctx, weight_op, weight))
        }
        Role::Activation if *op != Op::Activation => Rounding::PRESCALED,
        Role::Uniform if matches!(op, Op::Stored(_)) => Rounding::SCALE_ROUNDED,
        Role::Outer => outer_classes(ctx, op, child),
        _ => Rounding::EXACT,
    }
}

fn weight_classes<'a>(
    ctx: &Context,
    op: &Op,
    own: &Facts,
    child: impl Fn(egg::Id) -> (&'a Op, &'a Facts),
) -> Rounding {
    let rounds = !own.exact_in(ctx.compute());
    let mut classes = match op {
        Op::Fma(_) if rounds => Rounding::WEIGHT_ROUNDED.with(Rounding::WEIGHT_REASSOCIATED),
        Op::Add(_) | Op::Sub(_) | Op::Mul(_) if rounds => Rounding::WEIGHT_ROUNDED,
        // The reference rounds a product with the codebook's own value, not with a rounded one.
        Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_) if rounds => {
            Rounding::WEIGHT_ROUNDED.with(Rounding::CODEBOOK_ROUNDED)
        }
        // Codebooks are f16, their sums are not.
        Op::Vector(_) if ctx.compute() != crate::DType::F16 || summed(ctx) => {
            Rounding::WEIGHT_ROUNDED.with(Rounding::CODEBOOK_ROUNDED)
        }
        _ => Rounding::EXACT,
    };
    for id in op.children() {
        let (child_op, facts) = child(*id);
        classes = classes.with(uniform_classes(ctx, child_op, facts));
    }
    classes
}

/// Whether weights are sums of entries of several codebooks.
fn summed(ctx: &Context) -> bool {
    ctx.spec.codebook.vectors().is_some_and(|vectors| vectors.books() > 1)
}

/// The classes of a uniform value that is rounded to the compute type for use in a weight.
fn uniform_classes(ctx: &Context, op: &Op, facts: &Facts) -> Rounding {
    if !facts.hoistable() || facts.exact_in(ctx.compute()) {
        return Rounding::EXACT;
    }
    let stored = |name: &str| ctx.param(name).map(|(_, dtype)| dtype);
    match op {
        Op::Param(name)
            if stored(name.as_str()) == Some(ParamType::F16)
                && ctx.compute() == crate::DType::F16 =>
        {
            Rounding::EXACT
        }
        Op::Param(_) | Op::Nested(_) | Op::Const(_) => Rounding::WEIGHT_ROUNDED,
        _ => Rounding::WEIGHT_ROUNDED.with(Rounding::WEIGHT_REASSOCIATED),
    }
}

fn outer_classes<'a>(
    ctx: &Context,
    op: &Op,
    child: impl Fn(egg::Id) -> (&'a Op, &'a Facts),
) -> Rounding {
    match op {
        Op::Sum(body) => {
            let plain = child(*body).1.role == Role::Activation;
            let offset = if plain { Rounding::OFFSET_CORRECTION } else { Rounding::EXACT };
            let half2 = ctx.engine == Engine::Half2;
            offset.with(if half2 { Rounding::HALF2_PARTIAL_SUMS } else { Rounding::EXACT })
        }
        Op::Mul(ids) if ids.iter().any(|id| child(*id).1.param && child(*id).1.hoistable()) => {
            Rounding::SCALED_AFTER_SUM
        }
        Op::Fma([a, b, _]) if [a, b].into_iter().any(|id| child(*id).1.hoistable()) => {
            Rounding::SCALED_AFTER_SUM
        }
        _ => Rounding::EXACT,
    }
}

/// Whether all values are at least four times further from zero than they spread.
fn far_from_zero(weight: &Facts) -> bool {
    weight.grid.iter().any(|grid| grid.is_some_and(|g| g.magnitude() > 4.0 * (g.hi - g.lo)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_distinct_and_print_their_names() {
        let all = CLASSES.iter().fold(Rounding::EXACT, |set, (class, _, _)| set.with(*class));
        assert_eq!(all.names().len(), CLASSES.len());
        assert_eq!(Rounding::EXACT.to_string(), "exact");
        let two = Rounding::SCALED_AFTER_SUM.with(Rounding::OFFSET_CORRECTION);
        assert_eq!(two.to_string(), "scaled-after-sum+offset-correction");
        assert!(two.contains(Rounding::OFFSET_CORRECTION) && !Rounding::EXACT.contains(two));
    }
}
