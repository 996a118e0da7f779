//! From a format's expression of one weight to the term of a quant group's dot product.

use super::{Context, DequantError, Facts, Op, Role, Term};
use egg::{Id, Language, RecExpr};

/// The source term `(sum (* W x))` of a format: `W` is the format's expression, with every maximal
/// integer sub-expression that feeds real arithmetic wrapped in `real`.
///
/// # Errors
/// [`DequantError::Parse`] or [`DequantError::IllTyped`] if the format's expression is not one of a
/// weight; [`DequantError::Context`] if the engine does not take these activations.
pub fn source(ctx: &Context) -> Result<Term, DequantError> {
    ctx.check()?;
    let format: Term = ctx.spec.expr.parse()?;
    let ill =
        |id: Id, why: &str| DequantError::IllTyped { at: format.text_at(id), why: why.into() };
    let mut expr = RecExpr::default();
    let mut facts: Vec<Facts> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for (index, op) in format.nodes().iter().enumerate() {
        let id = Id::from(index);
        if matches!(op, Op::Activation | Op::Sum(_) | Op::Position | Op::Unposition) {
            return Err(ill(id, "a format's expression is of q, parameters and constants"));
        }
        let wants_real = wants_real(op);
        let op = op.clone().map_children(|child| {
            let place = &mut places[usize::from(child)];
            if wants_real {
                place.real(&mut expr, &mut facts, ctx)
            } else {
                place.raw
            }
        });
        let own = Facts::of(ctx, &op, |id| &facts[usize::from(id)])
            .map_err(|why| DequantError::IllTyped { at: format.text_at(id), why })?;
        places.push(Place { raw: expr.add(op), real: None });
        facts.push(own);
    }
    let last = places.len() - 1;
    let weight = places[last].real(&mut expr, &mut facts, ctx);
    if facts[usize::from(weight)].role != Role::Weight {
        return Err(ill(Id::from(last), "the expression does not depend on the code q"));
    }
    let activation = expr.add(Op::Activation);
    let product = expr.add(Op::Mul([weight, activation]));
    expr.add(Op::Sum(product));
    Ok(Term::new(&expr))
}

/// Whether an operator's operands are real numbers.
fn wants_real(op: &Op) -> bool {
    matches!(op, Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Fma(_) | Op::Neg(_))
}

/// A node of the format's expression in the new one, as it is and as a real number.
struct Place {
    raw: Id,
    real: Option<Id>,
}

impl Place {
    fn real(&mut self, expr: &mut RecExpr<Op>, facts: &mut Vec<Facts>, ctx: &Context) -> Id {
        if facts[usize::from(self.raw)].role != Role::Integer {
            return self.raw;
        }
        if let Some(id) = self.real {
            return id;
        }
        let op = Op::Real(self.raw);
        // Always true: `real` takes any integer.
        if let Ok(own) = Facts::of(ctx, &op, |id| &facts[usize::from(id)]) {
            facts.push(own);
            self.real = Some(expr.add(op));
        }
        self.real.unwrap_or(self.raw)
    }
}
