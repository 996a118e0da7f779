//! Codes with a scale for each [`ACTIVATION_GROUP`] activations of a token: so many lanes as have a piece of
//! a group find its largest activation among themselves, and all is read once.

use super::super::eight_bit::scale_stride;
use super::super::first::FirstStages;
use super::{Quantize, PIECE, THREADS};
use crate::kir::{call, float, int, select, var, Body, Expr, Type};
use qtune_ir::{ACTIVATION_GROUP, LEAST_LARGEST};

/// Lanes that share a group: half of a warp.
const LANES: u32 = ACTIVATION_GROUP / PIECE;

impl Quantize {
    /// Makes the codes of a token, and its scales.
    pub(super) fn lower_groups(&self, ask: &FirstStages, body: &mut Body) {
        body.comment("each block: the activations of one token, half a warp for each group");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        ask.ask(body, THREADS);
        // Codes fill whole 16-byte pieces, two of 8 activations.
        let pieces = 2 * self.code_pieces();
        body.range("first", 0u32, pieces, THREADS, |body, first| {
            let piece = body.bind("piece", Type::I32, first + thread);
            body.zeros("words", Type::U32, &[4]);
            body.when(piece.clone().less(self.pieces()), |body| {
                self.load(body, 0, var("blockIdx.x") * self.pieces() + piece.clone());
            });
            let largest = self.largest_of_group(body);
            let top = float(self.to.top().into());
            let inverse = call("divide_f32", [top.clone(), largest.clone()]);
            let inverse = body.bind("inverse", Type::F32, inverse);
            let leads = (piece.clone() % LANES).equals(0u32);
            body.when(leads.and(piece.clone().less(self.pieces())), |body| {
                let scale = body.bind("scale", Type::F32, call("divide_f32", [largest, top]));
                self.store_scales(body, piece.clone() / LANES, &scale);
            });
            body.when(piece.clone().less(pieces), |body| {
                let codes: Vec<Expr> = (0..2).map(|word| self.codes(word, &inverse)).collect();
                let to = var("blockIdx.x") * pieces + piece;
                body.store("codes", to, call("pack_u32x2", codes));
            });
        });
    }

    /// Stores the scale of a group. The last token's is also that of what pads its tile, which is computed, but
    /// not stored.
    fn store_scales(&self, body: &mut Body, group: Expr, scale: &Expr) {
        let stride = scale_stride(self.tile);
        let row = body.bind("scales_at", Type::I32, group * stride.clone());
        let behind = var("blockIdx.x") + 1u32;
        let end = select(behind.clone().equals(var("tokens")), stride, behind);
        let end = body.bind("tokens_end", Type::I32, end);
        body.range("token", var("blockIdx.x"), end, 1u32, |body, token| {
            body.store("scales", row + token, scale.clone());
        });
    }

    /// The largest activation of a lane's group. Lanes past the last activation have zeros.
    fn largest_of_group(&self, body: &mut Body) -> Expr {
        let largest = body.variable("largest", Type::F32, float(LEAST_LARGEST.into()));
        for value in (0..4).flat_map(|word| self.widened(word)) {
            body.assign(largest.clone(), call("largest_f32", [largest.clone(), value]));
        }
        let masks = std::iter::successors(Some(LANES / 2), |mask| Some(mask / 2));
        for mask in masks.take_while(|mask| *mask > 0) {
            let other = call("shfl_xor", [largest.clone(), int(mask)]);
            body.assign(largest.clone(), call("largest_f32", [largest.clone(), other]));
        }
        largest
    }
}
