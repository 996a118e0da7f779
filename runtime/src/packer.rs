//! Packing the codes and group parameters of a layer into the layout of a kernel, by blocks of row tiles.

use qtune_codegen::{CodeRow, Layout, ParamOrder};
use qtune_formats::QuantizedLinear;
use std::ops::Range;

/// Packs one layer into one layout. A block is as many row tiles as are decoded at once, which then are in
/// the cache of the core that packs them; blocks have nothing to do with each other.
#[derive(Debug)]
pub struct Packer<'a> {
    layer: &'a QuantizedLinear,
    layout: &'a Layout,
    order: ParamOrder,
    tiles_at_once: u32,
}

/// One packed row tile.
#[derive(Clone, Debug)]
pub struct PackedTile {
    /// [`Layout::tile_weight_bytes`] bytes.
    pub weights: Vec<u8>,
    /// [`Layout::tile_param_bytes`] bytes; none where a tile before it has the same.
    pub params: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// Of a layer and a layout for a problem of its sizes.
    pub fn new(layer: &'a QuantizedLinear, layout: &'a Layout) -> Packer<'a> {
        let tiles_at_once = (layer.codes.rows_at_once() as u32 / layout.tile_rows()).max(1);
        Packer { layer, layout, order: layout.param_order(), tiles_at_once }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u32 {
        self.layout.tiles().div_ceil(self.tiles_at_once)
    }

    /// The row tiles of a block.
    pub fn tiles(&self, block: u32) -> Range<u32> {
        let tiles = self.layout.tiles();
        let first = (block * self.tiles_at_once).min(tiles);
        first..tiles.min(first + self.tiles_at_once)
    }

    /// Packs the row tiles of a block. Codes that are not decoded are decoded into `scratch`.
    pub fn pack(&self, block: u32, scratch: &mut Vec<u8>) -> Vec<PackedTile> {
        let tiles = self.tiles(block);
        let tile_rows = self.layout.tile_rows() as usize;
        let row = |tile: u32| (tile as usize * tile_rows).min(self.layer.n);
        let codes = self.layer.codes.block(row(tiles.start)..row(tiles.end), scratch);
        let code_row = |n: u32| match self.layer.spec.bits {
            0..=4 => CodeRow::Nibbles(codes.row(n as usize)),
            _ => CodeRow::Bytes(codes.row(n as usize)),
        };
        let groups = self.layer.groups();
        let pack = |tile: u32| {
            let sharing = self.layout.sharing().rows() as usize;
            let entries = row(tile) / sharing * groups..row(tile + 1).div_ceil(sharing) * groups;
            let values = self.layer.params.iter().map(|param| param.values.packed(entries.clone()));
            let params = match tile % self.layout.tiles_of_params() {
                0 => self.layout.pack_param_tile(&self.order, &values.collect::<Vec<_>>()),
                _ => Vec::new(),
            };
            PackedTile { weights: self.layout.pack_weight_tile(tile, &code_row), params }
        };
        tiles.map(pack).collect()
    }
}
