//! Weights whose columns have parameters of their own, which rows share: operands are made for each k16 of a
//! row tile.

use super::{Stage, Wgmma};
use crate::kir::{var, Body, Expr, Type};
use crate::lower::columns::Columns;
use crate::lower::term::Prepared;

/// Rows of a warp's part of a row tile, and such parts from one row tile to the next.
const WARP_ROWS: u32 = 16;
const TILE_WARPS: u32 = 4;
/// Pairs of columns of a panel, and of a k16.
const PANEL_PAIRS: u32 = 32;
const K16_PAIRS: u32 = 8;

impl Wgmma<'_> {
    /// The columns' parameters, where rows share them.
    pub(super) fn columns(&self) -> Option<Columns<'_>> {
        Columns::of(self.cx, &self.plan)
    }

    /// Makes the operands of a k16 of a panel of a stage, for a row tile.
    pub(super) fn prepare_columns(
        &self,
        body: &mut Body,
        columns: &Columns,
        stage: &Stage,
        [panel, k16, row_part]: [&Expr; 3],
    ) -> Prepared {
        let layout = self.cx.layout;
        let row = match layout.tile_param_rows() {
            1 => stage.slot.clone(),
            rows => {
                let tile = var("warp_tile") + row_part.clone() * TILE_WARPS;
                stage.slot.clone() * rows + tile * WARP_ROWS / layout.sharing().rows()
            }
        };
        let pair = panel.clone() * PANEL_PAIRS + k16.clone() * K16_PAIRS + var("lane") % 4u32;
        let pair = body.bind("pair_at", Type::I32, row * (self.s.block_k / 2) + pair);
        columns.prepare(body, "row_pairs", &pair);
        columns.prepared()
    }
}
