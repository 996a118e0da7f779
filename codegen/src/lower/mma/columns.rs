//! Weights whose columns have parameters of their own, which rows share: operands are made for each k16, and
//! serve the row tiles that share them.

use super::Mma;
use crate::kir::{var, Body, Expr, Type};
use crate::lower::columns::Columns;

/// Rows of a row tile.
const TILE_ROWS: u32 = 16;
/// Pairs of columns of a k16.
const K16_PAIRS: u32 = 8;

impl Mma<'_> {
    /// The columns' parameters, where rows share them.
    pub(super) fn columns(&self) -> Option<Columns<'_>> {
        Columns::of(self.cx, &self.plan)
    }

    /// Binds the first pair of columns of this warp's rows and k in a stage.
    pub(super) fn begin_columns(&self, body: &mut Body, slot: &Expr) {
        let (s, layout) = (self.s, self.cx.layout);
        let row = match layout.tile_param_rows() {
            1 => slot.clone(),
            rows => {
                let of_warp = var("warp_n") * self.warp_rows() / layout.sharing().rows();
                slot.clone() * rows + of_warp
            }
        };
        let pair = row * (s.block_k / 2) + var("warp_k") * (s.warp_k() / 2) + var("lane") % 4u32;
        body.bind("columns_at", Type::I32, pair);
    }

    /// The row tiles of this warp in a k16, told those that share parameters one after another.
    pub(super) fn multiply_columns(
        &self,
        body: &mut Body,
        columns: &Columns,
        k16: &Expr,
        multiply: impl Fn(&mut Body, &Expr, &super::Prepared),
    ) {
        let tiles = (self.cx.layout.sharing().rows() / TILE_ROWS).min(self.s.row_tiles());
        body.unrolled("shared", self.s.row_tiles() / tiles, |body, shared| {
            let row = shared.clone() * (self.s.block_k / 2);
            let pair = var("columns_at") + row + k16.clone() * K16_PAIRS;
            let pair = body.bind("pair_at", Type::I32, pair);
            columns.prepare(body, "row_pairs", &pair);
            let prepared = columns.prepared();
            body.unrolled("of_shared", tiles, |body, tile| {
                multiply(body, &(shared.clone() * tiles + tile), &prepared);
            });
        });
    }

    fn warp_rows(&self) -> u32 {
        TILE_ROWS * self.s.row_tiles()
    }
}
