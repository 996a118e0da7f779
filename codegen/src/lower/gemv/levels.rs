//! Scales whose two levels are packed apart: of the integers of a lane's groups and the floats that they
//! multiply come the entries that each row would have had. Codes of nested scales are looked up for them.

use super::super::levels::{halves, nibbles, ONE_CODE, TWO_CODES};
use super::super::nested;
use super::Gemv;
use crate::kir::{call, int, var, Body, Expr, Type};
use qtune_ir::dequant::Levels;
use qtune_ir::PIECE_CODES;

/// Selectors that put the lower half of a second word above that of a first, and how to take the first
/// one's upper half instead.
const LOWER_HALVES: u32 = 0x5410;
const UPPER_HALF: u32 = 0x0022;

impl Gemv<'_> {
    /// The entries of a step: floats as they are, integers as f16, which has all that fit a byte.
    pub(super) fn join_levels(&self, body: &mut Body, levels: &Levels, ahead: &Expr) {
        if levels.nibbles {
            return self.join_nibbles(body, ahead);
        }
        let groups = self.lane_groups();
        if levels.is_nested() {
            return self.make_nested(body, ahead);
        }
        body.unrolled("row_part", self.s.rows, |body, row| {
            body.unrolled("lane_group", groups, |body, inner| {
                let entry = row.clone() * groups + inner.clone();
                let entry = |w| Expr::at("entry", [ahead.clone(), entry.clone(), int(w)]);
                let code = |word| Expr::at("codes", [ahead.clone(), inner.clone(), word]);
                let shared = |word| Expr::at("shared", [ahead.clone(), word]);
                if levels.codes.len() == 2 {
                    let byte = row.clone() % 2u32 * 2u32;
                    let codes = halves(code(row.clone() / 2u32), TWO_CODES, byte);
                    body.assign(entry(0), shared(row.clone()));
                    return body.assign(entry(1), codes);
                }
                let codes = halves(code(row.clone() / 4u32), ONE_CODE, row.clone() % 4u32);
                let selectors = row.clone() % 2u32 * UPPER_HALF + LOWER_HALVES;
                let selectors = selectors.cast(Type::U32);
                let joined = call("permute", [shared(row.clone() / 2u32), codes, selectors]);
                body.assign(entry(0), joined);
            });
        });
    }

    /// The same where a word has two integers of half a byte for each of four rows.
    fn join_nibbles(&self, body: &mut Body, ahead: &Expr) {
        let groups = self.lane_groups();
        body.unrolled("lane_group", groups, |body, inner| {
            for row in 0..self.s.rows {
                let entry = inner.clone() + row * groups;
                let entry = |w| Expr::at("entry", [ahead.clone(), entry.clone(), int(w)]);
                let word = Expr::at("codes", [ahead.clone(), inner.clone(), int(row / 4)]);
                body.assign(entry(0), Expr::at("shared", [ahead.clone(), int(row)]));
                body.assign(entry(1), nibbles(word, row % 4 / 2 * 2, row % 2 == 1));
            }
        });
    }
    /// The nested scales of a step: a code each, and the floats of its spans.
    fn make_nested(&self, body: &mut Body, ahead: &Expr) {
        let groups = self.lane_groups();
        body.unrolled("row_part", self.s.rows, |body, row| {
            body.unrolled("lane_group", groups, |body, inner| {
                let codes = [ahead.clone(), inner.clone(), row.clone() / 4u32];
                let codes = Expr::at("codes", codes);
                let shared = Expr::at("shared", [ahead.clone(), row.clone()]);
                let scale = nested::scale(codes, row.clone() % 4u32, shared);
                let entry = row.clone() * groups + inner;
                body.assign(Expr::at("entry", [ahead.clone(), entry, int(0)]), scale);
            });
        });
    }

    /// Tells lanes apart that have different quant groups, or rows.
    pub(super) fn lane_group(&self) -> Expr {
        let group = self.cx.spec.group.size(self.cx.problem.k);
        let lanes = (group / PIECE_CODES).clamp(1, self.s.lanes);
        var("lane") / lanes
    }
}
