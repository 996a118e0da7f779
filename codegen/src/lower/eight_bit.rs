//! What is special about products of codes of 8 bits, in main loops over pairs of them (see
//! [`qtune_ir::Schedule::in_pairs`]) and behind these: the type of operands and sums, when sums are added
//! up, and the scales that wait for the end.

use super::term::Plan;
use super::Lowering;
use crate::kir::{call, float, int, load, select, var, Body, Expr, Type};
use qtune_ir::{Activations, DType};

/// Tokens of a row of scales of groups: those of whole tiles.
pub(super) fn scale_stride(block_m: u32) -> Expr {
    (var("tokens") + (block_m - 1)) / block_m * block_m
}

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

    /// The scale of a token of codes; `None` where activations are floats, or sums are scaled already.
    pub(super) fn token_scale(&self, body: &mut Body, token: &Expr) -> Option<Expr> {
        let scale = || body.bind("token_scale", Type::F32, load("token_scales", token.clone()));
        self.layout.scales_at_end().then(scale)
    }

    /// Whether the sum of each quant group is scaled, by the scales of its row and of its activations.
    pub(super) fn scales_groups(&self) -> bool {
        self.spec.activations.are_grouped()
    }

    /// Loads `x_scales[tile][2]`, the scales of the activations of quant group `group` in the two tokens that a
    /// lane has of each of `tiles` token tiles of eight. What a short last stage pads has no scale: sums are zero
    /// there, and take any.
    pub(super) fn load_group_scales(&self, body: &mut Body, tiles: u32, group: Expr) {
        let last = int(self.layout.groups() - 1);
        let group = body.bind("x_group", Type::I32, group);
        let group = select(group.clone().less(last.clone()), group, last);
        // In pairs of tokens.
        let row = group * (scale_stride(8 * tiles) / 2u32);
        let at = row + var("token_tile") * (4 * tiles) + var("lane") % 4u32;
        let at = body.bind("x_scales_at", Type::I32, at);
        body.array("x_scales", Type::U32, &[tiles, 2]);
        body.unrolled("token_part", tiles, |body, tile| {
            let places = (0..2).map(|half| Expr::at("x_scales", [tile.clone(), int(half)]));
            let pair = load("token_scales", at + tile.clone() * 4u32);
            body.unpack(places.collect(), Type::U32x2, pair);
        });
    }

    /// The coefficient of a row's sum in accumulator `c` of a token tile.
    pub(super) fn group_coefficient(&self, row: Expr, tile: &Expr, c: u32) -> Expr {
        match self.scales_groups() {
            true => row * call("bits_f32", [Expr::at("x_scales", [tile.clone(), int(c % 2)])]),
            false => row,
        }
    }

    /// The scale of a row of codes, the only parameter that it has.
    pub(super) fn row_scale(&self, row: Expr) -> Expr {
        let word = load("params", row).cast(Type::U32);
        let fields = self.param_values(&[word], 0).into_iter();
        // Formats whose codes are multiplied as they are have a scale, and legality wants no more.
        fields.map(|(_, value)| value).next().unwrap_or(float(f64::NAN))
    }
}
