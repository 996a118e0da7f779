//! Group parameters of the columns that a lane of a fragment holds, where rows share them: columns 2t and 2t+1 of
//! each half of a k16 lie side by side, one load serves both, and all rows of the lane that share them.

use super::rows::pair_type;
use super::term::{Plan, Prepared, Row};
use super::Lowering;
use crate::kir::{call, int, load, Body, Expr, Type};
use egg::Id;
use qtune_ir::Group;

/// Pairs of columns of a lane in a k16.
const PAIRS: u32 = 2;
/// Pairs of a k16 from one half to the other.
const HALF_PAIRS: u32 = 4;

/// The parameters of a lane's columns of one k16, in `column_words`.
pub(super) struct Columns<'a> {
    pub cx: &'a Lowering<'a>,
    pub plan: &'a Plan<'a>,
}

impl<'a> Columns<'a> {
    /// Those of weights whose rows share parameters.
    pub fn of(cx: &'a Lowering<'a>, plan: &'a Plan<'a>) -> Option<Columns<'a>> {
        matches!(cx.spec.group, Group::Rows(_)).then_some(Columns { cx, plan })
    }

    fn words(&self) -> u32 {
        pair_type(self.cx).words() as u32
    }

    /// Loads the parameters from the buffer `from`, where `first` is the index of the lane's first pair of columns, and
    /// makes `invariant{i}[pair of columns][half]` of them: operands of weights of rows g (`half` 0)
    /// and g+8, a column in each half of a register.
    pub fn prepare(&self, body: &mut Body, from: &str, first: &Expr) {
        let ty = pair_type(self.cx);
        body.array("column_words", Type::U32, &[PAIRS, self.words()]);
        for pair in 0..PAIRS {
            let value = load(from, first.clone() + HALF_PAIRS * pair);
            body.unpack(self.loaded(pair), ty, value);
        }
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let name = format!("invariant{index}");
            body.array(&*name, Type::U32, &[PAIRS, 2]);
            for (pair, half) in places() {
                let place = Expr::at(&*name, [int(pair), int(half as u32)]);
                let operand = operand(self.cx, self.plan, id, (&self.loaded(pair), half));
                body.assign(place, operand);
            }
        }
    }

    /// Where [`Self::prepare`] put the operands.
    pub fn prepared(&self) -> Prepared {
        let mut values = Vec::new();
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            for (pair, half) in places() {
                let place = [int(pair), int(half as u32)];
                // Of an octet, pairs of the second half of a k16 follow those of the first.
                let octet_pair = half + 2 * pair as usize;
                values.push((id, octet_pair, Expr::at(format!("invariant{index}"), place)));
            }
        }
        Prepared::by_pair(values)
    }

    /// The loaded words of a pair.
    fn loaded(&self, pair: u32) -> Vec<Expr> {
        (0..self.words()).map(|word| Expr::at("column_words", [int(pair), int(word)])).collect()
    }
}

/// The operand of the weights of two columns, of their parameters in `words` and for a position weight.
pub(super) fn operand(
    cx: &Lowering,
    plan: &Plan,
    id: Id,
    (words, position): (&[Expr], usize),
) -> Expr {
    let columns = [0, 1].map(|column| params(cx, words, column));
    let rows = [&columns[0], &columns[1]].map(|params| Row { params, position });
    plan.side_by_side(id, [&rows[0], &rows[1]])
}

/// The parameters of one of two columns.
fn params(cx: &Lowering, words: &[Expr], column: usize) -> Vec<(String, Expr)> {
    if !cx.layout.has_halves_by_parameter() {
        return cx.param_values(words, column);
    }
    let half = if column == 0 { "h2_low" } else { "h2_high" };
    let fields = cx.layout.fields().iter().zip(words);
    fields.map(|(field, word)| (field.name.clone(), call(half, [word.clone()]))).collect()
}

/// Pairs of columns and halves of the rows.
fn places() -> impl Iterator<Item = (u32, usize)> {
    (0..PAIRS).flat_map(|pair| (0..2).map(move |half| (pair, half)))
}
