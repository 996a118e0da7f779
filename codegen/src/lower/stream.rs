//! Stream-K in kernel IR: the share of a block, its tiles one after the other, and the blocks that
//! share a tile. [`qtune_ir::Shares`] says the same on the host.
//!
//! A block's steps are numbered among those of all output tiles: step `s` is step `s % STEPS` of
//! tile `s / STEPS`. The stages of a ring follow that numbering across tiles, so that a tile's
//! first stages arrive while the sums of the one before it are stored.

use super::Lowering;
use crate::kir::{int, select, var, Body, Expr, Type};
use qtune_ir::Raster;

/// Constants that the share of a block is computed with.
pub(super) fn constants(cx: &Lowering) -> Vec<(String, i64)> {
    vec![("ROW_TILES".into(), cx.layout.tiles().into())]
}

/// Binds this block's share: steps `first..last`. The grid has no more blocks than there are steps.
pub(super) fn bind_share(block_m: u32, body: &mut Body) {
    let token_tiles = (var("tokens") + (block_m - 1)) / block_m;
    body.bind("token_tiles", Type::I32, token_tiles);
    body.bind("total_steps", Type::I32, var("token_tiles") * var("ROW_TILES") * var("STEPS"));
    let share = body.bind("share", Type::I32, var("total_steps") / var("gridDim.x"));
    let longer = var("total_steps") - share.clone() * var("gridDim.x");
    let longer = body.bind("longer", Type::I32, longer);
    let block = var("blockIdx.x");
    let is_longer = block.clone().less(longer.clone());
    let before = select(is_longer.clone(), block.clone(), longer);
    let first = body.bind("first", Type::I32, block * share.clone() + before);
    body.bind("last", Type::I32, first + share + select(is_longer, int(1), int(0)));
}

/// Row tile and token tile of an output tile.
fn coordinates(raster: Raster, tile: &Expr) -> (Expr, Expr) {
    let inner = match raster {
        Raster::Rows => var("ROW_TILES"),
        Raster::Tokens => var("token_tiles"),
    };
    let (slow, fast) = (tile.clone() / inner.clone(), tile.clone() % inner);
    match raster {
        Raster::Rows => (fast, slow),
        Raster::Tokens => (slow, fast),
    }
}

/// A stage on its way: its place among those of the packed weights, its step along K and the first
/// token of its tile.
pub(super) struct Incoming {
    pub index: Expr,
    pub step: Expr,
    pub first_token: Expr,
}

/// Finds the stage of `step`.
pub(super) fn incoming(raster: Raster, block_m: u32, body: &mut Body, step: &Expr) -> Incoming {
    let tile = body.bind("load_tile", Type::I32, step.clone() / var("STEPS"));
    let (row, token) = coordinates(raster, &tile);
    let along_k = body.bind("load_step", Type::I32, step.clone() - tile * var("STEPS"));
    let index = body.bind("load_stage", Type::I32, row * var("STEPS") + along_k.clone());
    let first_token = body.bind("load_token", Type::I32, token * block_m);
    Incoming { index, step: along_k, first_token }
}

/// `each` for every tile of the share, with `row_tile` and `token_tile` bound, and the share's steps
/// of it: `from..to`.
pub(super) fn for_tiles(raster: Raster, body: &mut Body, each: impl FnOnce(&mut Body)) {
    let tiles_end = (var("last") + (var("STEPS") - 1u32)) / var("STEPS");
    body.range("tile", var("first") / var("STEPS"), tiles_end, 1u32, |body, tile| {
        let (row, token) = coordinates(raster, &tile);
        body.bind("row_tile", Type::I32, row);
        body.bind("token_tile", Type::I32, token);
        let begin = body.bind("tile_begin", Type::I32, tile * var("STEPS"));
        let end = body.bind("tile_end", Type::I32, begin.clone() + var("STEPS"));
        let from = select(begin.clone().less(var("first")), var("first"), begin);
        body.bind("from", Type::I32, from);
        let to = select(end.clone().less(var("last")), end, var("last"));
        body.bind("to", Type::I32, to);
        each(body);
    });
}

/// Whether the block has all steps of the tile.
pub(super) fn has_whole_tile() -> Expr {
    (var("to") - var("from")).equals(var("STEPS"))
}

/// Whether other blocks have steps of the tile.
pub(super) fn shares_tile() -> Expr {
    (var("to") - var("from")).less(var("STEPS"))
}

/// Binds `first_block` and `last_block`, those who have the tile's first and last step: they and all
/// between them share the tile.
pub(super) fn bind_partners(body: &mut Body) {
    // Shares that are one step longer come first.
    let cut = body.bind("longer_end", Type::I32, var("longer") * (var("share") + 1u32));
    let owner = |step: Expr| {
        let behind = var("longer") + (step.clone() - cut.clone()) / var("share");
        select(step.clone().less(cut.clone()), step / (var("share") + 1u32), behind)
    };
    body.bind("first_block", Type::I32, owner(var("tile_begin")));
    body.bind("last_block", Type::I32, owner(var("tile_end") - 1u32));
}

/// Where a block's partial sums of the tile lie: a block has two places, one for a tile that it does
/// not begin and one for a tile that it does not end. Only the first of a tile's blocks begins it.
pub(super) fn slot(block: Expr) -> Expr {
    let begins = block.clone().equals(var("first_block"));
    block * 2u32 + select(begins, int(1), int(0))
}
