//! What becomes of a lane's sums at the end of a step: the halves of packed ones are added, all are scaled and
//! added to the totals, in f32.
//!
//! Two conversions and an addition for each packed sum are a tenth of a main loop. One `mma.m16n8k16` does
//! four: a lane's sums are its registers of the A fragment, whose rows four lanes share, and B has ones
//! where it gives each lane the sums of its own registers back (PTX ISA, "Matrix Fragments for
//! mma.m16n8k16"). Products with one and zero are exact, accumulators are f32. Four sums are of one token:
//! an infinity among them makes all four NaN, and those of the neighbours in their rows.

use super::Gemv;
use crate::kir::{call, hex, select, var, Body, Expr, Type};
use crate::lower::term::Row;
use qtune_ir::FOLDED_SUMS;

/// One in both halves.
const ONES: u32 = 0x3c00_3c00;

impl Gemv<'_> {
    /// Whether the tensor cores add the halves of a lane's sums over weights.
    fn folds(&self) -> bool {
        let sums = self.plan.sums();
        let weighted = sums.iter().any(|sum| sum.weight.is_some());
        weighted && self.s.folds(self.cx.spec, self.cx.problem.k)
    }

    /// The B fragment: of lane `4g + t` it has rows `2t`, `2t + 1` and the two eight further on, of column `g`.
    /// The first two are a lane's lower k, whose sum belongs in its first column, `2t`; the others its upper
    /// k, whose sum belongs in its second one.
    pub(super) fn selector(&self, body: &mut Body) {
        if !self.folds() {
            return;
        }
        let first = var("lane") % 4u32 * 2u32;
        for (index, column) in [first.clone(), first + 1u32].into_iter().enumerate() {
            let own = (var("lane") / 4u32).equals(column);
            body.bind(format!("own{index}"), Type::U32, select(own, hex(ONES), hex(0)));
        }
    }

    /// Adds a lane's sums to its totals, with its rows' coefficients.
    pub(super) fn accumulate(&self, body: &mut Body, ahead: &Expr) {
        let s = self.s;
        if self.folds() {
            self.fold(body);
        }
        body.unrolled("row_part", self.entries(), |body, row_part| {
            // What columns have of their own stands inside of the sum.
            let params = match self.needs_params() && !self.has_columns() {
                true => self.row_params(ahead, &row_part),
                false => Vec::new(),
            };
            let row = Row { params: &params, position: 0 };
            for (nth, (sum, coefficient)) in self.plan.coefficients(&row).into_iter().enumerate() {
                let coefficient = body.bind(format!("coefficient{nth}"), Type::F32, coefficient);
                body.unrolled("token", s.tokens, |body, token| {
                    let value = self.widened(sum, [token.clone(), row_part.clone()]);
                    let row = match self.lane_groups() {
                        1 => row_part.clone(),
                        groups => row_part.clone() / groups,
                    };
                    let total = Expr::at("total", [token, row]);
                    body.assign(total.clone(), call("fma_f32", [coefficient, value, total]));
                });
            }
        });
    }

    /// `folded{i}[token][entry]`: both halves of each weighted sum, added.
    fn fold(&self, body: &mut Body) {
        for (index, _) in self.plan.sums().iter().enumerate().filter(|(_, s)| s.weight.is_some()) {
            let (sums, folded) = (self.sum_name(index), folded_name(index));
            body.zeros(&*folded, Type::F32, &[self.s.tokens, self.entries()]);
            body.unrolled("token", self.s.tokens, |body, token| {
                body.unrolled("four", self.entries() / FOLDED_SUMS, |body, four| {
                    let entry = |i: u32| [token.clone(), four.clone() * FOLDED_SUMS + i];
                    // A: row g, row g + 8, then the upper k of both. C: both columns of row g, then of row g + 8.
                    let c = (0..FOLDED_SUMS).map(|i| Expr::at(&*folded, entry(i)));
                    let a = [0, 2, 1, 3].map(|i| Expr::at(&*sums, entry(i)));
                    let b = [var("own0"), var("own1")];
                    body.call("mma_f16", c.chain(a).chain(b).collect::<Vec<_>>());
                });
            });
        }
    }

    /// Sum number `sum` of a token and entry, in f32.
    fn widened(&self, sum: usize, place: [Expr; 2]) -> Expr {
        if self.folds() && self.plan.sums()[sum].weight.is_some() {
            return Expr::at(folded_name(sum), place);
        }
        let value = Expr::at(self.sum_name(sum), place);
        match self.packed() {
            true => call("h2_low", [value.clone()]) + call("h2_high", [value]),
            false => value,
        }
    }
}

fn folded_name(sum: usize) -> String {
    format!("folded{sum}")
}
