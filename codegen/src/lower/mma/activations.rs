//! Activations of the `mma` family: from memory to the ring, where all warps share them, and from there to B
//! fragments.

use super::{Mma, COPY};
use crate::kir::{call, int, select, var, Body, Expr, Type};
use crate::lower::stream::Incoming;
use qtune_ir::Split;

impl Mma<'_> {
    /// Eight activations per piece.
    pub(super) fn row_pieces(&self) -> u32 {
        self.s.block_k / 8
    }

    /// Where a thread's pieces of activations come from and go to, less what changes by stage.
    pub(super) fn plan_activations(&self, body: &mut Body) {
        let row = self.row_pieces();
        let turns = self.act_pieces().div_ceil(self.s.threads());
        // Zeros for the threads that the last turn leaves without a piece: the compiler may compute
        // their addresses all the same.
        body.zeros("x_from", Type::I32, &[turns]);
        self.for_pieces(body, "x_piece", self.act_pieces(), |body, piece, turn| {
            let chunk = piece.clone() % row;
            let from = match self.s.split {
                // The tile of tokens changes by stage.
                Split::Stream(_) => chunk,
                Split::Blocks(_) | Split::Cluster(_) => {
                    let first = var("token_tile") * self.s.block_m;
                    self.token_row(body, first, &(piece / row)) + chunk
                }
            };
            body.assign(Expr::at("x_from", [turn]), from);
        });
        body.array("x_to", Type::I32, &[turns.min(self.place_turns())]);
        body.unrolled("x_place_turn", turns.min(self.place_turns()), |body, turn| {
            let piece = turn.clone() * self.s.threads() + var("thread");
            let piece = body.bind("x_place", Type::I32, piece);
            let token = body.bind("x_token", Type::I32, piece.clone() / row);
            let chunk = self.swizzled(piece % row, token.clone() % 8u32);
            body.assign(Expr::at("x_to", [turn]), token * row + chunk);
        });
    }

    /// Turns after which a thread's pieces lie as those of its first turns do, so many tokens further: the
    /// swizzle repeats every eight.
    fn place_turns(&self) -> u32 {
        let (threads, row) = (self.s.threads(), self.row_pieces());
        let repeats = |turns: &u32| turns * threads % (8 * row) == 0;
        (1..=8).find(repeats).unwrap_or(u32::MAX)
    }

    /// Where a thread's piece of a turn goes, less what changes by stage. What is known at compile time comes
    /// last, so that it becomes an offset of the instruction.
    fn place(&self, turn: Expr) -> Expr {
        match self.place_turns() {
            u32::MAX => Expr::at("x_to", [turn]),
            turns => {
                let further = turn.clone() / turns * (turns * self.s.threads());
                Expr::at("x_to", [turn % turns]) + further
            }
        }
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
        let row = self.row_pieces();
        let to = body.bind("x_stage", Type::I32, slot.clone() * self.act_pieces());
        let from = body.bind("x_k8", Type::I32, stage.step.clone() * row);
        self.for_pieces(body, "x_copy", self.act_pieces(), |body, piece, turn| {
            let to = Expr::address("ring_x", to.clone() + self.place(turn.clone()));
            let index = from.clone() + Expr::at("x_from", [turn]);
            let index = match self.s.split {
                Split::Stream(_) => {
                    let token = piece.clone() / row;
                    self.token_row(body, stage.first_token.clone(), &token) + index
                }
                Split::Blocks(_) | Split::Cluster(_) => index,
            };
            if self.cx.problem.k % self.s.block_k == 0 {
                return body.call("copy_async_16", [to, Expr::address("x", index)]);
            }
            let valid = (from.clone() + piece % row).less(var("K") / 8u32);
            let valid = body.bind("x_valid", Type::Bool, valid);
            let index = select(valid.clone(), index, int(0));
            body.call("copy_async_16_or_zero", [to, Expr::address("x", index), valid]);
        });
    }

    fn swizzled(&self, chunk: Expr, key: Expr) -> Expr {
        match self.s.swizzle {
            true => chunk ^ key,
            false => chunk,
        }
    }

    /// The lane's part of an `ldmatrix` address, less what changes by stage and chunk: lane 8i+r
    /// names row r of matrix i. With one token tile the four matrices are four k8 chunks, else two
    /// k8 chunks of two token tiles. The swizzle changes only the low three bits of the k8 chunk,
    /// so the possible values are few and computed once.
    pub(super) fn plan_tokens(&self, body: &mut Body) {
        let (lane, row) = (var("lane"), self.row_pieces());
        let single = self.s.token_tiles() == 1;
        let token = match single {
            true => lane.clone() % 8u32,
            false => lane.clone() / 16u32 * 8u32 + lane.clone() % 8u32,
        };
        let chunk = var("warp_k") * (self.chunks() * 8);
        let tokens = body.bind("lane_tokens", Type::I32, token * row + chunk);
        let (parts, width) = if single { (2, 4u32) } else { (4, 2) };
        body.array("lane_rows", Type::U32, &[parts]);
        body.unrolled("part", parts, |body, part| {
            let k8 = part.clone() * width + lane.clone() / 8u32 % width;
            let k8 = self.swizzled(k8, lane % 8u32);
            let place = Expr::address("ring_x", tokens + k8);
            body.assign(Expr::at("lane_rows", [part]), call("shared_place", [place]));
        });
    }

    /// `frag_b[k16][token tile]`: the activations of k32 for all tokens.
    pub(super) fn load_tokens(&self, body: &mut Body, chunk: &Expr, half: &Expr) {
        let tiles = self.s.token_tiles();
        body.array("frag_b", Type::U32, &[2, tiles, 2]);
        // What is known at compile time comes last, so that it becomes an offset of the instruction.
        let behind = |place: Expr, pieces: Expr| call("shared_behind", [place, pieces * COPY]);
        let at = |part: Expr| behind(Expr::at("lane_rows", [part]), var("tokens_at"));
        let offset = chunk.clone() * 8u32;
        let b = |k16: Expr, tile: Expr, r: u32| Expr::at("frag_b", [k16, tile, int(r)]);
        if tiles == 1 {
            let regs = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(k16, r)| b(int(k16), int(0), r));
            let mut args = regs.to_vec();
            args.push(behind(at(half.clone()), offset));
            return body.call("ldmatrix_x4", args);
        }
        body.unrolled("k16", 2, |body, k16| {
            let part = half.clone() * 2u32 + k16.clone();
            let at = body.bind("matrices_at", Type::U32, at(part));
            body.unrolled("pair", tiles / 2, |body, pair| {
                let regs = [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .map(|(t, r)| b(k16.clone(), pair.clone() * 2u32 + u32::from(t == 1), r));
                let mut args = regs.to_vec();
                args.push(behind(at, offset + pair * (16 * self.row_pieces())));
                body.call("ldmatrix_x4", args);
            });
        });
    }
}
