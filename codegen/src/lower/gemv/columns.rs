//! Weights whose columns have parameters of their own, which the rows of a warp share: a lane loads those of its
//! columns once for all of its rows, and makes operands of eight columns at a time.

use super::Gemv;
use crate::kir::{int, load, var, Body, Expr, Type};
use crate::lower::columns;
use crate::lower::term::Prepared;
use qtune_ir::{Group, OCTET_CODES, PIECE_CODES};

/// Bytes of a load.
const LOAD_BYTES: u32 = 16;
/// Pairs of an octet.
const PAIRS: u32 = OCTET_CODES as u32 / 2;

impl Gemv<'_> {
    /// Whether columns have parameters of their own.
    pub(super) fn has_columns(&self) -> bool {
        matches!(self.cx.spec.group, Group::Rows(_))
    }

    /// Loads of a lane's columns of a step.
    fn column_loads(&self) -> u32 {
        PIECE_CODES * self.cx.layout.entry_bytes() as u32 / LOAD_BYTES
    }

    /// Declares `columns[step][word]` for `count` steps.
    pub(super) fn declare_columns(&self, body: &mut Body, count: u32) {
        body.array("columns", Type::U32, &[count, self.column_loads() * LOAD_BYTES / 4]);
    }

    /// Asks for the parameters of a step's columns: `[row tile][step][row of parameters]`, in it `[load][lane of a row]`.
    pub(super) fn load_columns(&self, body: &mut Body, ahead: &Expr, step: &Expr) {
        let (s, layout) = (self.s, self.cx.layout);
        let tile = match layout.tiles_of_params() {
            1 => var("row_tile"),
            tiles => var("row_tile") / tiles,
        };
        let set = tile * layout.param_sets() + step.clone();
        let row = match layout.tile_param_rows() {
            1 => set,
            rows => set * rows + var("warp_n") * s.warp_rows() / layout.sharing().rows(),
        };
        let from = row * (self.column_loads() * s.lanes) + var("lane_k");
        let from = body.bind("columns_from", Type::I32, from);
        body.unrolled("nth", self.column_loads(), |body, nth| {
            let word = |word: u32| Expr::at("columns", [ahead.clone(), nth.clone() * 4u32 + word]);
            let value = load("params", from.clone() + nth.clone() * s.lanes);
            body.unpack((0..4).map(word).collect(), Type::U32x4, value);
        });
    }

    /// `invariant{i}[pair]`: operands of the eight weights `part` of all rows, a column in each half.
    pub(super) fn prepare_columns(&self, body: &mut Body, ahead: &Expr, part: &Expr) {
        let words = 2 * self.entry_words();
        let of_pair = |pair: u32| {
            let first = (part.clone() * PAIRS + pair) * words;
            let word = |word| Expr::at("columns", [ahead.clone(), first.clone() + word]);
            (0..words).map(word).collect::<Vec<_>>()
        };
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let name = format!("invariant{index}");
            body.array(&*name, Type::U32, &[PAIRS]);
            for pair in 0..PAIRS {
                let place = (&of_pair(pair)[..], pair as usize % 2);
                let operand = columns::operand(self.cx, &self.plan, id, place);
                body.assign(Expr::at(&*name, [int(pair)]), operand);
            }
        }
    }

    /// Where [`Self::prepare_columns`] put the operands.
    pub(super) fn prepared_columns(&self) -> Prepared {
        let mut values = Vec::new();
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            for pair in 0..PAIRS {
                values.push((
                    id,
                    pair as usize,
                    Expr::at(format!("invariant{index}"), [int(pair)]),
                ));
            }
        }
        Prepared::by_pair(values)
    }
}
