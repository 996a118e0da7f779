//! Scales whose two levels are packed apart: a lane loads the integers of its groups and the floats that
//! they multiply for all of its rows at once, and makes of them the entries that each row would have had.

use super::super::beyond;
use super::super::levels::{halves, ONE_CODE, TWO_CODES};
use super::Gemv;
use crate::kir::{call, int, load, var, Body, Expr, Type};

/// Selectors that put the lower half of a second word above that of a first, and how to take the first
/// one's upper half instead.
const LOWER_HALVES: u32 = 0x5410;
const UPPER_HALF: u32 = 0x0022;

impl Gemv<'_> {
    /// Declares what the loads of `count` steps fill: the integers of a lane's groups, and the floats.
    pub(super) fn declare_levels(&self, body: &mut Body, count: u32) {
        let Some(loads) = self.cx.layout.loads() else { return };
        let [codes, shared] = [loads.codes, loads.shared].map(|each| each * loads.bytes / 4);
        body.array("codes", Type::U32, &[count, self.lane_groups(), codes]);
        body.array("shared", Type::U32, &[count, shared]);
    }

    /// Asks for both levels of a step: `[warp tile][step]`, in it the integers `[load][lane's row][group]`, then
    /// the floats `[load][lane's row][groups that share them]`.
    pub(super) fn load_levels(&self, body: &mut Body, ahead: &Expr, step: &Expr) {
        let (layout, lanes) = (self.cx.layout, self.s.lanes);
        let Some(loads) = layout.loads() else { return };
        let group_k = self.cx.spec.group.size(self.cx.problem.k);
        let [all_codes, all_shared] = [loads.groups, loads.spans()].map(|each| 32 / lanes * each);
        let codes = all_codes * loads.codes;
        let set = codes + all_shared * loads.shared;
        let from = (var("warp_tile") * layout.param_sets() + step.clone()) * set;
        let from = body.bind("params_from", Type::I32, from);
        let k = var("lane_k") * 32u32;
        body.unrolled("lane_group", self.lane_groups(), |body, inner| {
            let nth = inner.clone() * (loads.groups / loads.lane_groups);
            let group = var("lane_row") * loads.groups + nth;
            let group = group + k.clone() / (group_k * loads.lane_groups);
            let place = |word| Expr::at("codes", [ahead.clone(), inner.clone(), int(word)]);
            self.load_run(body, from.clone() + group, (loads.codes, all_codes), place);
        });
        let span = var("lane_row") * loads.spans() + k / (group_k * loads.sharing);
        let place = |word| Expr::at("shared", [ahead.clone(), int(word)]);
        self.load_run(body, from + codes + span, (loads.shared, all_shared), place);
    }

    /// Loads this far apart, into the words that `place` gives.
    fn load_run(
        &self,
        body: &mut Body,
        from: Expr,
        (count, distance): (u32, u32),
        place: impl Fn(u32) -> Expr,
    ) {
        let ty = self.cx.params_element();
        let words = ty.words() as u32;
        for nth in 0..count {
            let places = (0..words).map(|word| place(nth * words + word)).collect();
            body.unpack(places, ty, load("params", beyond(from.clone(), nth * distance)));
        }
    }

    /// The entries of a step: floats as they are, integers as f16, which has all that fit a byte.
    pub(super) fn join_levels(&self, body: &mut Body, ahead: &Expr) {
        let Some(levels) = self.cx.layout.levels() else { return };
        let groups = self.lane_groups();
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
}
