//! A slab that a library multiplies: rows of floats, one after the other.
//!
//! In a fragment, four lanes hold 16 of k of a row, each two of the first eight and two of the second. Two
//! neighbours exchange a pair, so that each stores four that follow each other, and the four lanes a sector.

use super::super::{Lowering, Part};
use crate::kernel::Role;
use crate::kir::{call, int, select, var, Body, Expr, Type};
use crate::SlabProduct;
use qtune_ir::{DequantSchedule, LibraryGemm, Schedule};

/// Weights of one store.
const STORED: u32 = 4;
/// k of a fragment.
const FRAGMENT_K: u32 = 16;
/// The lane with which a lane exchanges pairs.
const NEIGHBOUR: u32 = 1;

/// The step that multiplies: no function of the text.
pub(super) fn multiplication(cx: &Lowering, s: &DequantSchedule) -> Part {
    Part {
        role: Role::Multiply,
        arguments: cx.arguments(&Schedule::Dequant(s.clone())),
        parameters: Vec::new(),
        threads: 0,
        resident: None,
        cluster: [1; 3],
        shared_bytes: 0,
        shared_align: 16,
        lowered: Default::default(),
        library: Some(SlabProduct::new(cx.problem, s.slab)),
    }
}

/// Binds where this lane's first store of a piece goes, `to`: `warp` is the number of the warp's pieces in the
/// row tile, its 16-row tiles by stages.
pub(super) fn bind_place(body: &mut Body, warp: &Expr, k: u32) {
    let row_stores = k.next_multiple_of(LibraryGemm::STAGE_K) / STORED;
    let tiles = LibraryGemm::ROWS / 16;
    let row = var("slab_tile") * LibraryGemm::ROWS + warp.clone() % tiles * 16u32;
    let row = row + var("lane") / 4u32;
    let stage = warp.clone() / tiles * (LibraryGemm::STAGE_K / STORED);
    // Of four lanes the first has k 0 to 3, the third 4 to 7, the second and the fourth what follows.
    let part = var("lane") % 2u32 * 2u32 + var("lane") % 4u32 / 2u32;
    body.bind("to", Type::I32, row * row_stores + stage + part);
}

/// Stores a fragment: `pairs` of rows `g` and `g + 8`, first of the lower half of k, then of the upper.
pub(super) fn store(body: &mut Body, pairs: [Expr; 4], k16: &Expr, k: u32) {
    let row_stores = k.next_multiple_of(LibraryGemm::STAGE_K) / STORED;
    let [low, low_8, high, high_8] = pairs;
    let rows = [("row", low, high, 0), ("row_8", low_8, high_8, 8 * row_stores)];
    for (name, low, high, distance) in rows {
        let low = body.bind(format!("{name}_low"), Type::U32, low);
        let high = body.bind(format!("{name}_high"), Type::U32, high);
        let is_low = || (var("lane") % 2u32).equals(int(0));
        let sent = select(is_low(), high.clone(), low.clone());
        let other = call("shfl_xor_u32", [sent, int(NEIGHBOUR)]);
        let other = body.bind(format!("{name}_other"), Type::U32, other);
        let first = select(is_low(), low, other.clone());
        let second = select(is_low(), other, high);
        let to = var("to") + k16.clone() * (FRAGMENT_K / STORED);
        let to = if distance == 0 { to } else { to + distance };
        body.store("slab", to, call("pack_u32x2", [first, second]));
    }
}
