//! What is special about products of codes of 8 bits, in main loops over pairs of them (see
//! [`qtune_ir::Schedule::in_pairs`]) and behind these: the type of operands and sums, when sums are added
//! up, and the scales that wait for the end.

use super::term::Plan;
use super::Lowering;
use crate::kir::{call, float, load, Body, Expr, Type};
use qtune_ir::{Activations, DType};

impl Lowering<'_> {
    /// Whether weights and activations are codes of 8 bits that are multiplied as they are.
    pub(super) fn has_codes(&self) -> bool {
        self.spec.activations.are_quantized()
    }

    /// What tensor cores multiply, as the names of their multiplies have it.
    pub(super) fn operands(&self) -> &'static str {
        match (self.spec.activations, self.problem.act) {
            (Activations::Integers(_), _) => "s8",
            (Activations::E4m3(_), _) => "e4m3",
            (Activations::Floats, DType::Bf16) => "bf16",
            (Activations::Floats, _) => "f16",
        }
    }

    /// Whether tensor cores add up the totals of a term themselves.
    pub(super) fn adds_directly(&self, plan: &Plan) -> bool {
        plan.is_direct() && !self.spec.activations.sums_by_stage()
    }

    /// The type of the accumulators of a multiply: sums of integers are exact.
    pub(super) fn sum_type(&self) -> Type {
        match self.spec.activations {
            Activations::Integers(_) => Type::U32,
            Activations::Floats | Activations::E4m3(_) => Type::F32,
        }
    }

    /// A complete accumulator in f32.
    pub(super) fn widened_sum(&self, sum: Expr) -> Expr {
        match self.sum_type() {
            Type::U32 => call("int_f32", [sum]),
            _ => sum,
        }
    }

    /// The scale of a token of codes; `None` where activations are floats.
    pub(super) fn token_scale(&self, body: &mut Body, token: &Expr) -> Option<Expr> {
        let scale = || body.bind("token_scale", Type::F32, load("token_scales", token.clone()));
        self.has_codes().then(scale)
    }

    /// The scale of a row of codes, the only parameter that it has.
    pub(super) fn row_scale(&self, row: Expr) -> Expr {
        let word = load("params", row).cast(Type::U32);
        let fields = self.param_values(&[word], 0).into_iter();
        // Formats whose codes are multiplied as they are have a scale, and legality wants no more.
        fields.map(|(_, value)| value).next().unwrap_or(float(f64::NAN))
    }
}
