//! Activations of the `mma` family: from memory to the ring, where all warps share them, and from there to B
//! fragments.
//!
//! A token's row of a stage is padded by one piece of 16 bytes, so that the same piece of eight tokens lies in
//! eight different groups of four banks: `ldmatrix` reads them at once, and every address is one register and
//! a constant.

use super::{Mma, COPY};
use crate::kir::{call, int, select, var, Body, Expr, Type};
use crate::lower::stream::Incoming;
use qtune_ir::Split;

impl Mma<'_> {
    /// Pieces of a token in a stage: eight activations of 16 bits each.
    fn row_pieces(&self) -> u32 {
        self.s.block_k / 8
    }

    /// Pieces of shared memory from a token to the next.
    fn pitch(&self) -> u32 {
        self.s.act_pitch() / COPY
    }

    /// Pieces of activations of a stage.
    fn act_pieces(&self) -> u32 {
        self.s.stage_act_bytes() / COPY
    }

    /// `each(piece, plan)` for what a thread plans once: the first of its pieces where all are of one token
    /// ([`act_lanes`](qtune_ir::MmaSchedule::act_lanes)), else every one.
    fn for_plans(&self, body: &mut Body, name: &str, each: impl Fn(&mut Body, Expr, Expr)) {
        let pieces = match self.s.act_lanes() {
            Some(_) => self.s.threads(),
            None => self.act_pieces(),
        };
        self.for_pieces(body, name, pieces, each);
    }

    /// Token and piece of it that a plan begins with.
    fn token_and_piece(&self, piece: &Expr) -> (Expr, Expr) {
        let Some(lanes) = self.s.act_lanes() else {
            let row = self.row_pieces();
            return (piece.clone() / row, piece.clone() % row);
        };
        let token = piece.clone() / lanes;
        let chunk = piece.clone() % lanes;
        if lanes >= 8 {
            return (token, chunk);
        }
        // Eight lanes store at once: pieces of tokens that lie `lanes` apart are in different banks.
        let (together, of_eight) = (8 / lanes, token.clone() % 8u32);
        let apart = of_eight.clone() % together * lanes + of_eight / together;
        (token / 8u32 * 8u32 + apart, chunk)
    }

    /// Where a thread's pieces of activations come from and go to, less what changes by stage.
    pub(super) fn plan_activations(&self, body: &mut Body) {
        let plans = self.s.act_plans();
        // Zeros for the threads that the last turn leaves without a piece: the compiler may compute
        // their addresses all the same.
        body.zeros("x_from", Type::I32, &[plans]);
        body.zeros("x_to", Type::U32, &[plans]);
        self.for_plans(body, "x_piece", |body, piece, plan| {
            let (token, chunk) = self.token_and_piece(&piece);
            let token = body.bind("x_token", Type::I32, token);
            let from = match self.s.split {
                // The tile of tokens changes by stage.
                Split::Stream(_) => chunk.clone(),
                Split::Blocks(_) | Split::Cluster(_) => {
                    let first = var("token_tile") * self.s.block_m;
                    self.token_row(body, first, &token) + chunk.clone()
                }
            };
            body.assign(Expr::at("x_from", [plan.clone()]), from);
            let to = Expr::address("ring_x", token * self.pitch() + chunk);
            body.assign(Expr::at("x_to", [plan]), call("shared_place", [to]));
        });
    }

    /// Index of the first piece of a token's activations. Tokens past M repeat the last one: their
    /// columns are computed and never stored.
    fn token_row(&self, body: &mut Body, first_token: Expr, token: &Expr) -> Expr {
        let m = body.bind("x_m", Type::I32, first_token + token.clone());
        let m = select(m.clone().less(var("tokens")), m, var("tokens") - 1u32);
        m * (var("K") / 8u32)
    }

    /// Activations `[token][k]`; k past K becomes zeros without being read.
    pub(super) fn load_activations(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let to = slot.clone() * self.s.stage_act_space();
        let to = body.bind("x_stage", Type::I32, to);
        let from = body.bind("x_k8", Type::I32, stage.step.clone() * self.row_pieces());
        self.for_plans(body, "x_copy", |body, piece, plan| {
            let (token, chunk) = self.token_and_piece(&piece);
            let index = from.clone() + Expr::at("x_from", [plan.clone()]);
            let index = match self.s.split {
                Split::Stream(_) => self.token_row(body, stage.first_token.clone(), &token) + index,
                Split::Blocks(_) | Split::Cluster(_) => index,
            };
            let to = call("shared_behind", [Expr::at("x_to", [plan]), to.clone()]);
            self.copy_token(body, from.clone() + chunk, index, to);
        });
    }

    /// The copies of a plan: to `to` from piece `index` of the activations, which is piece `k8` of its token.
    fn copy_token(&self, body: &mut Body, k8: Expr, index: Expr, to: Expr) {
        let (copies, lanes) = match self.s.act_lanes() {
            Some(lanes) => (self.row_pieces() / lanes, lanes),
            None => (1, 0),
        };
        body.unrolled("x_turn", copies, |body, turn| {
            // What is known at compile time comes last, so that it becomes an offset of the instruction.
            let to = call("shared_behind", [to.clone(), turn.clone() * (lanes * COPY)]);
            let index = index.clone() + turn.clone() * lanes;
            if self.cx.problem.k % self.s.block_k == 0 {
                return body.call("copy_async_16", [to, Expr::address("x", index)]);
            }
            let valid = (k8.clone() + turn * lanes).less(var("K") / 8u32);
            let valid = body.bind("x_valid", Type::Bool, valid);
            let index = select(valid.clone(), index, int(0));
            body.call("copy_async_16_or_zero", [to, Expr::address("x", index), valid]);
        });
    }

    /// The lane's part of an `ldmatrix` address, less what changes by stage and chunk: lane 8i+r
    /// names row r of matrix i. With one token tile the four matrices are four k8 chunks, else two
    /// k8 chunks of two token tiles.
    pub(super) fn plan_tokens(&self, body: &mut Body) {
        let lane = var("lane");
        let (token, chunk) = match self.s.token_tiles() == 1 {
            true => (lane.clone() % 8u32, lane / 8u32),
            false => (lane.clone() / 16u32 * 8u32 + lane.clone() % 8u32, lane / 8u32 % 2u32),
        };
        let chunk = var("warp_k") * (self.chunks() * 8) + chunk;
        let place = Expr::address("ring_x", token * self.pitch() + chunk);
        body.bind("lane_tokens", Type::U32, call("shared_place", [place]));
    }

    /// Binds `tokens_at`: the lane's part of an address in the stage of `slot`.
    pub(super) fn find_tokens(&self, body: &mut Body, slot: &Expr) {
        let stage = slot.clone() * self.s.stage_act_space();
        let place = call("shared_behind", [var("lane_tokens"), stage]);
        body.bind("tokens_at", Type::U32, place);
    }

    /// `frag_b[k16][token tile]`: the activations of k32 for all tokens.
    pub(super) fn load_tokens(&self, body: &mut Body, chunk: &Expr, half: &Expr) {
        let tiles = self.s.token_tiles();
        body.array("frag_b", Type::U32, &[2, tiles, 2]);
        // What is known at compile time comes last, so that it becomes an offset of the instruction.
        let at = |pieces: Expr| call("shared_behind", [var("tokens_at"), pieces * COPY]);
        let first = chunk.clone() * 8u32 + half.clone() * 4u32;
        let b = |k16: Expr, tile: Expr, r: u32| Expr::at("frag_b", [k16, tile, int(r)]);
        if tiles == 1 {
            let regs = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(k16, r)| b(int(k16), int(0), r));
            let mut args = regs.to_vec();
            args.push(at(first));
            return body.call("ldmatrix_x4", args);
        }
        body.unrolled("k16", 2, |body, k16| {
            body.unrolled("pair", tiles / 2, |body, pair| {
                let regs = [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .map(|(t, r)| b(k16.clone(), pair.clone() * 2u32 + u32::from(t == 1), r));
                let mut args = regs.to_vec();
                args.push(at(first.clone() + k16.clone() * 2u32 + pair * (16 * self.pitch())));
                body.call("ldmatrix_x4", args);
            });
        });
    }
}
