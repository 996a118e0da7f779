//! Group parameters of the rows that a lane of a fragment holds: rows g and g+8 of each 16-row tile
//! lie side by side in shared memory, one load serves both.

use super::term::{Plan, Prepared, Row};
use super::uniform::in_one_word;
use super::{entry_type, Lowering};
use crate::kir::{call, int, load, Body, Expr, Type};
use egg::Id;

/// The parameters of the row tiles of one lane, in `row_words`: one place for each tile and quant
/// group of a segment, the groups of a tile side by side.
pub(super) struct Rows<'a> {
    pub cx: &'a Lowering<'a>,
    pub plan: &'a Plan<'a>,
    /// Row tiles per lane.
    pub tiles: u32,
    /// Quant groups of a segment: more than one where groups are shorter than what is accumulated
    /// or loaded at once.
    pub groups: u32,
    /// What parameters are multiplied by where weights are complete at once: see [`super::factor`].
    pub factor: Option<Expr>,
}

/// The type that loads the parameters of rows g and g+8, in all groups that lie together.
pub(super) fn pair_type(cx: &Lowering) -> Type {
    entry_type(2 * cx.layout.entry_bytes() * cx.layout.groups_together() as usize)
}

impl Rows<'_> {
    /// Places: row tiles by quant groups of a segment.
    pub fn count(&self) -> u32 {
        self.tiles * self.groups
    }

    /// The place of a row tile in the quant group `group` of the segment.
    pub fn place(&self, row_part: &Expr, group: Expr) -> Expr {
        match self.groups {
            1 => row_part.clone(),
            groups => row_part.clone() * groups + group,
        }
    }

    /// Row tile and quant group of a place.
    pub fn tile_and_group(&self, place: &Expr) -> (Expr, Expr) {
        match self.groups {
            1 => (place.clone(), int(0)),
            groups => (place.clone() / groups, place.clone() % groups),
        }
    }

    fn words(&self) -> u32 {
        pair_type(self.cx).words() as u32
    }

    /// Whether the rows' parameters are needed at all.
    pub fn needed(&self) -> bool {
        !self.cx.spec.params.is_empty()
    }

    /// Places whose groups lie together.
    fn together(&self) -> u32 {
        self.cx.layout.groups_together()
    }

    /// Declares `row_words`.
    pub fn declare(&self, body: &mut Body) {
        body.array("row_words", Type::U32, &[self.count() / self.together(), self.words()]);
    }

    /// Loads `row_words`; `pair(place)` is the index in `row_pairs` of the pair of a place, the first of those
    /// whose groups lie together.
    pub fn load(&self, body: &mut Body, pair: impl Fn(&Expr) -> Expr) {
        let ty = pair_type(self.cx);
        body.unrolled("row_part", self.count() / self.together(), |body, row_part| {
            let place = match self.together() {
                1 => row_part.clone(),
                together => row_part.clone() * together,
            };
            let value = load("row_pairs", pair(&place));
            let places =
                (0..self.words()).map(|w| Expr::at("row_words", [row_part.clone(), int(w)]));
            body.unpack(places.collect(), ty, value);
        });
    }

    /// The named parameters of row g (`half` 0) or g+8 (`half` 1) of a place; of places whose groups lie
    /// together those of a further group have further halves.
    pub fn params(&self, row_part: &Expr, half: usize) -> Vec<(String, Expr)> {
        let words: Vec<Expr> =
            (0..self.words()).map(|w| Expr::at("row_words", [row_part.clone(), int(w)])).collect();
        let values = self.cx.param_values(&words, half);
        match &self.factor {
            Some(factor) => {
                values.into_iter().map(|(name, value)| (name, value * factor.clone())).collect()
            }
            None => values,
        }
    }

    /// `invariant{i}[place]`: operands of weights that are fixed within the group, of row g in the low half and
    /// of row g+8 in the high one where both come from the same operations, else of each row in a word.
    pub fn prepare(&self, body: &mut Body) {
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let name = format!("invariant{index}");
            let words = if self.in_one_word(id) { 1 } else { 2 };
            body.array(&*name, Type::U32, &[self.count(), words]);
            let together = self.together();
            body.unrolled("row_part", self.count() / together, |body, row_part| {
                for nth in 0..together {
                    let place = match together {
                        1 => row_part.clone(),
                        _ => row_part.clone() * together + nth,
                    };
                    for (word, value) in (0u32..).zip(self.operands(id, &row_part, nth)) {
                        body.assign(Expr::at(&*name, [place.clone(), int(word)]), value);
                    }
                }
            });
        }
    }

    /// An operand in group `nth` of those that lie together: of rows g and g+8 in a word, or in two.
    fn operands(&self, id: Id, row_part: &Expr, nth: u32) -> Vec<Expr> {
        let rows = [0, 1].map(|half| {
            let params = self.params(row_part, 2 * nth as usize + half);
            self.plan.broadcast(id, &Row { params: &params, position: half })
        });
        match in_one_word(&rows[0], &rows[1]) {
            Some(both) => vec![both],
            None => rows.to_vec(),
        }
    }

    /// Whether an operand of rows g and g+8 is in one word.
    fn in_one_word(&self, id: Id) -> bool {
        self.operands(id, &int(0), 0).len() == 1
    }

    /// Where [`Rows::prepare`] put the operands of a place.
    pub fn prepared(&self, row_part: &Expr) -> Prepared {
        let mut values = Vec::new();
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let at = |word| Expr::at(format!("invariant{index}"), [row_part.clone(), int(word)]);
            // Which half of an operand it takes, an instruction says at no cost.
            let rows = match self.in_one_word(id) {
                true => ["h2_both_low", "h2_both_high"].map(|half| call(half, [at(0)])),
                false => [at(0), at(1)],
            };
            values.extend(rows.into_iter().enumerate().map(|(half, value)| (id, half, value)));
        }
        Prepared::new(values)
    }

    /// The coefficients of the term's sums in the rows of `half`: name, sum, value.
    pub fn coefficients(&self, row_part: &Expr, half: usize) -> Vec<(String, usize, Expr)> {
        let params = match self.needed() {
            true => self.params(row_part, half),
            false => Vec::new(),
        };
        let row = Row { params: &params, position: half };
        let found = self.plan.coefficients(&row).into_iter().enumerate();
        let named = found.map(|(nth, (sum, coefficient))| {
            (format!("coefficient{nth}_{half}"), sum, coefficient)
        });
        named.collect()
    }
}
