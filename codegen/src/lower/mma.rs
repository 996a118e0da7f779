//! The `mma` family: weights are the 16-row A operand of `mma.m16n8k16`, tokens the 8 columns.
//!
//! One weight's way: `cp.async` brings the 16 bytes that a lane needs into that lane's own place
//! of the ring; after the wait the lane reads them back, masks four pairs out of each word (one
//! A fragment of 16x16), and multiplies. No other lane ever sees them, so weights need no
//! transpose and no barrier; the barrier per stage is for the activations, which all warps share.

use super::output::{self, Tile};
use super::term::{Plan, Prepared, Row};
use super::{entry_type, CodegenError, Lowered, Lowering};
use crate::kir::{call, int, load, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::Term;
use qtune_ir::{DType, MmaSchedule, Raster};

/// Bytes of one asynchronous copy.
const COPY: u32 = 16;

pub(super) fn lower(cx: &Lowering, s: &MmaSchedule) -> Result<Lowered, CodegenError> {
    let term: Term = s.dequant.parse()?;
    let plan = Plan::new(&term, &cx.context)?;
    if plan.activation_scale() != 1.0 {
        let reason = "mma stages activations unscaled".to_string();
        return Err(qtune_ir::Rejected { reason }.into());
    }
    let mma = Mma { cx, s, plan };
    let mut body = Body::new();
    mma.prologue(&mut body);
    mma.mainloop(&mut body);
    mma.reduce(&mut body);
    let tile = Tile {
        tokens: s.block_m,
        rows: s.block_n,
        pitch: s.reduction_pitch(),
        parts: s.warps_k,
        split_k: s.split_k,
        threads: s.threads(),
    };
    output::emit(cx, &tile, &mut body);
    let constants = vec![("STEPS".into(), mma.steps().into())];
    Ok((body.finish(), mma.shared(), constants))
}

struct Mma<'a> {
    cx: &'a Lowering<'a>,
    s: &'a MmaSchedule,
    plan: Plan<'a>,
}

impl Mma<'_> {
    fn steps(&self) -> u32 {
        self.cx.layout.steps()
    }

    /// 16-byte pieces of weights per stage.
    fn weight_pieces(&self) -> u32 {
        self.s.stage_weight_bytes(self.cx.spec) / COPY
    }

    fn act_pieces(&self) -> u32 {
        self.s.stage_act_bytes() / COPY
    }

    fn param_bytes(&self) -> u32 {
        self.s.stage_param_bytes(self.cx.spec, self.cx.problem.k)
    }

    /// 64-wide k chunks of one warp and stage.
    fn chunks(&self) -> u32 {
        self.s.warp_k() / 64
    }

    /// Views of dynamic shared memory: the ring's three parts, and the reduction buffer that
    /// reuses its place once the ring is drained.
    fn shared(&self) -> Vec<Buffer> {
        let stages = self.s.stages;
        let acts = stages * self.s.stage_weight_bytes(self.cx.spec);
        let params = acts + stages * self.s.stage_act_bytes();
        let view = |name: &str, offset: u32, element: Type| Buffer {
            name: name.into(),
            space: Space::Shared { offset },
            element,
        };
        let mut views = vec![
            view("ring_weights", 0, Type::U32x4),
            view("ring_x", acts, Type::U32x4),
            view("red", 0, Type::F32),
        ];
        if !self.cx.spec.params.is_empty() {
            views.push(view("ring_params", params, Type::U32x4));
            views.push(view("row_pairs", params, self.pair_type()));
        }
        if self.s.split_k > 1 {
            views.push(view("arrived", 0, Type::U32));
        }
        views
    }

    /// Loads the parameters of rows g and g+8, which lie side by side.
    fn pair_type(&self) -> Type {
        entry_type(2 * self.cx.layout.entry_bytes())
    }

    fn prologue(&self, body: &mut Body) {
        let s = self.s;
        body.comment("prologue: this block's tile and this warp's part of it");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        let lane = body.bind("lane", Type::I32, thread.clone() % 32u32);
        let warp = body.bind("warp", Type::I32, thread / 32u32);
        body.bind("warp_n", Type::I32, warp.clone() % s.warps_n);
        body.bind("warp_k", Type::I32, warp / s.warps_n);
        let (row, token) = match s.raster {
            Raster::Rows => ("blockIdx.x", "blockIdx.y"),
            Raster::Tokens => ("blockIdx.y", "blockIdx.x"),
        };
        body.bind("row_tile", Type::I32, var(row));
        body.bind("token_tile", Type::I32, var(token));
        if s.split_k > 1 {
            body.bind("split", Type::I32, var("blockIdx.z"));
        }
        body.bind("swizzle_key", Type::I32, lane % 8u32);
        output::split_range(body, s.split_k);
        body.zeros("total", Type::F32, &[s.row_tiles(), s.token_tiles(), 4]);
    }

    fn mainloop(&self, body: &mut Body) {
        let stages = self.s.stages;
        if stages == 1 {
            body.section("mainloop: load a stage, wait for it, compute");
            return body.range("step", var("first"), var("last"), 1u32, |body, step| {
                self.load_stage(body, &step, &int(0));
                body.call("copy_commit", []);
                body.call("copy_wait", [int(0)]);
                body.barrier();
                self.compute_stage(body, &int(0));
                body.barrier();
            });
        }
        body.section("fill the ring: all stages but one");
        body.range("ahead", 0u32, stages - 1, 1u32, |body, ahead| {
            let step = body.bind("step", Type::I32, var("first") + ahead.clone());
            body.when_uniform(step.clone().less(var("last")), |body| {
                self.load_stage(body, &step, &ahead);
            });
            body.call("copy_commit", []);
        });
        body.section("mainloop: wait for the oldest stage, refill the one before it, compute");
        let slot = body.variable("slot", Type::I32, int(0));
        body.range("step", var("first"), var("last"), 1u32, |body, step| {
            body.call("copy_wait", [int(stages - 2)]);
            body.barrier();
            let next = body.bind("next", Type::I32, step + (stages - 1));
            let wrapped = slot.clone().equals(0u32);
            let free = crate::kir::select(wrapped, int(stages - 1), slot.clone() - 1u32);
            let free = body.bind("free", Type::I32, free);
            body.when_uniform(next.clone().less(var("last")), |body| {
                self.load_stage(body, &next, &free);
            });
            body.call("copy_commit", []);
            self.compute_stage(body, &slot);
            let after = slot.clone() + 1u32;
            let wraps = after.clone().equals(stages);
            body.assign(slot.clone(), crate::kir::select(wraps, int(0), after));
        });
        body.call("copy_wait", [int(0)]);
    }

    fn load_stage(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        self.load_weights(body, step, slot);
        self.load_activations(body, step, slot);
        if !self.cx.spec.params.is_empty() {
            self.load_params(body, step, slot);
        }
    }

    /// Index of a lane's 16 bytes in a stage: the same in global memory and in the ring.
    fn weight_piece(&self, row_tile: Expr, chunk: Expr) -> Expr {
        let row_tile = var("warp_n") * self.s.row_tiles() + row_tile;
        let chunk = var("warp_k") * self.chunks() + chunk;
        (row_tile * (self.s.block_k / 64) + chunk) * 32u32 + var("lane")
    }

    /// Index of the stage's first piece in a global array that holds `pieces` per stage.
    fn stage_base(&self, step: &Expr, pieces: u32) -> Expr {
        (var("row_tile") * var("STEPS") + step.clone()) * pieces
    }

    fn load_weights(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        let pieces = self.weight_pieces();
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            body.unrolled("chunk", self.chunks(), |body, chunk| {
                let piece = self.weight_piece(row_part, chunk);
                let piece = body.bind("weight_piece", Type::I32, piece);
                let to = Expr::address("ring_weights", slot.clone() * pieces + piece.clone());
                let from = Expr::address("weights", self.stage_base(step, pieces) + piece);
                body.call("copy_async_16", [to, from]);
            });
        });
    }

    fn load_params(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        let pieces = self.param_bytes() / COPY;
        self.for_pieces(body, "param_piece", pieces, |body, piece| {
            let to = Expr::address("ring_params", slot.clone() * pieces + piece.clone());
            let from = Expr::address("params", self.stage_base(step, pieces) + piece);
            body.call("copy_async_16", [to, from]);
        });
    }

    /// Activations `[token][k]`; tokens past M and k past K become zeros without being read.
    fn load_activations(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        let row = self.s.block_k / 8;
        self.for_pieces(body, "x_piece", self.act_pieces(), |body, piece| {
            let token = body.bind("x_token", Type::I32, piece.clone() / row);
            let chunk = body.bind("x_chunk", Type::I32, piece % row);
            let m = var("token_tile") * self.s.block_m + token.clone();
            let m = body.bind("x_m", Type::I32, m);
            let k8 = body.bind("x_k8", Type::I32, step.clone() * row + chunk.clone());
            let k8_end = var("K") / 8u32;
            let valid = m.clone().less(var("tokens")).and(k8.clone().less(k8_end.clone()));
            let valid = body.bind("x_valid", Type::Bool, valid);
            let from = output::clamp(valid.clone(), m * k8_end + k8);
            let key = token.clone() % 8u32;
            let place = slot.clone() * self.act_pieces() + token * row + self.swizzled(chunk, key);
            let (to, from) = (Expr::address("ring_x", place), Expr::address("x", from));
            body.call("copy_async_16_or_zero", [to, from, valid]);
        });
    }

    fn swizzled(&self, chunk: Expr, key: Expr) -> Expr {
        match self.s.swizzle {
            true => chunk ^ key,
            false => chunk,
        }
    }

    /// Spreads 16-byte pieces over the block's threads.
    fn for_pieces(&self, body: &mut Body, name: &str, pieces: u32, each: impl Fn(&mut Body, Expr)) {
        let threads = self.s.threads();
        if pieces % threads == 0 {
            let turns = pieces / threads;
            return body.unrolled(&format!("{name}_turn"), turns, |body, turn| {
                let piece = body.bind(name, Type::I32, turn * threads + var("thread"));
                each(body, piece);
            });
        }
        body.range(name, var("thread"), pieces, threads, |body, piece| each(body, piece));
    }

    /// One stage: quant-group segments, in each of them k chunks of 32 with one B fragment load.
    fn compute_stage(&self, body: &mut Body, slot: &Expr) {
        let segment = self.s.segment_k(self.cx.spec, self.cx.problem.k);
        let per_chunk = (64 / segment).max(1);
        let chunks = (segment / 64).max(1);
        body.unrolled("segment", self.s.warp_k() / segment, |body, index| {
            self.begin_segment(body, slot, &index, segment);
            body.unrolled("chunk", chunks, |body, chunk| {
                let whole = index.clone() / per_chunk * chunks + chunk;
                let halves = segment.min(64) / 32;
                self.load_words(body, slot, &whole);
                body.unrolled("half", halves, |body, half| {
                    let half = index.clone() % per_chunk * halves + half;
                    self.multiply_k32(body, slot, &whole, &half);
                });
            });
            self.end_segment(body);
        });
    }

    fn load_words(&self, body: &mut Body, slot: &Expr, chunk: &Expr) {
        body.array("words", Type::U32, &[self.s.row_tiles(), 4]);
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            let piece = self.weight_piece(row_part.clone(), chunk.clone());
            let index = slot.clone() * self.weight_pieces() + piece;
            let places = (0..4u32).map(|w| Expr::at("words", [row_part.clone(), int(w)]));
            body.unpack(places.collect(), Type::U32x4, load("ring_weights", index));
        });
    }

    /// Two k16 steps: B fragments of all token tiles, then A fragments one row tile at a time.
    fn multiply_k32(&self, body: &mut Body, slot: &Expr, chunk: &Expr, half: &Expr) {
        self.load_tokens(body, slot, chunk, half);
        body.unrolled("k16", 2, |body, k16| {
            self.sum_activations(body, &k16);
            body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
                let word = Expr::at("words", [row_part.clone(), half.clone() * 2u32 + k16.clone()]);
                let word = body.bind("word", Type::U32, word);
                self.multiply_row_tile(body, &word, &row_part, &k16);
            });
        });
    }

    /// `tokens_b[k16][token tile]` by `ldmatrix`: lane 8i+r names row r of matrix i.
    fn load_tokens(&self, body: &mut Body, slot: &Expr, chunk: &Expr, half: &Expr) {
        let tiles = self.s.token_tiles();
        body.array("frag_b", Type::U32, &[2, tiles, 2]);
        let row = self.s.block_k / 8;
        let k8 = (var("warp_k") * self.chunks() + chunk.clone()) * 8u32 + half.clone() * 4u32;
        let place = |token: Expr, k8: Expr| {
            let chunk = self.swizzled(k8, var("swizzle_key"));
            Expr::address("ring_x", slot.clone() * self.act_pieces() + token * row + chunk)
        };
        let b = |k16: Expr, tile: Expr, r: u32| Expr::at("frag_b", [k16, tile, int(r)]);
        let lane = var("lane");
        if tiles == 1 {
            let address = place(lane.clone() % 8u32, k8 + lane / 8u32);
            let zero = || int(0);
            let regs = [b(zero(), zero(), 0), b(zero(), zero(), 1), b(int(1), zero(), 0)];
            let [r0, r1, r2] = regs;
            return body.call("ldmatrix_x4", [r0, r1, r2, b(int(1), zero(), 1), address]);
        }
        body.unrolled("k16", 2, |body, k16| {
            body.unrolled("pair", tiles / 2, |body, pair| {
                let token = pair.clone() * 16u32 + lane.clone() / 16u32 * 8u32;
                let k8 = k8.clone() + k16.clone() * 2u32 + lane.clone() / 8u32 % 2u32;
                let address = place(token + lane.clone() % 8u32, k8);
                let tile = |t: u32| pair.clone() * 2u32 + t;
                let regs = [
                    b(k16.clone(), tile(0), 0),
                    b(k16.clone(), tile(0), 1),
                    b(k16.clone(), tile(1), 0),
                    b(k16.clone(), tile(1), 1),
                    address,
                ];
                body.call("ldmatrix_x4", regs);
            });
        });
    }

    fn mma_name(&self) -> &'static str {
        match self.cx.problem.act {
            DType::Bf16 => "mma_bf16",
            _ => "mma_f16",
        }
    }

    fn multiply_row_tile(&self, body: &mut Body, word: &Expr, row_part: &Expr, k16: &Expr) {
        let prepared = self.prepared(row_part);
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let Some(weight) = sum.weight else { continue };
            let pairs = self.plan.pairs(body, index, weight, word.clone(), &prepared);
            let name = |pair: usize| format!("frag{index}_a{pair}");
            let a: Vec<Expr> = pairs
                .into_iter()
                .enumerate()
                .map(|(pair, value)| body.bind(name(pair), Type::U32, value))
                .collect();
            let sums = self.sum_name(index);
            body.unrolled("token_part", self.s.token_tiles(), |body, tile| {
                let c = |i: u32| Expr::at(&*sums, [row_part.clone(), tile.clone(), int(i)]);
                let b = |r: u32| Expr::at("frag_b", [k16.clone(), tile.clone(), int(r)]);
                let mut args: Vec<Expr> = (0..4).map(c).collect();
                args.extend(a.iter().cloned());
                args.extend([b(0), b(1)]);
                body.call(self.mma_name(), args);
            });
        }
    }

    /// Sums of activations: an A fragment of ones adds up k for every token, in the very registers
    /// where the corrections are needed. All row tiles share the result.
    fn sum_activations(&self, body: &mut Body, k16: &Expr) {
        for (index, sum) in self.plan.sums().iter().enumerate() {
            if sum.weight.is_some() {
                continue;
            }
            let sums = self.sum_name(index);
            let ones = self.plan.both(1.0);
            body.unrolled("token_part", self.s.token_tiles(), |body, tile| {
                let c = |i: u32| Expr::at(&*sums, [tile.clone(), int(i)]);
                let b = |r: u32| Expr::at("frag_b", [k16.clone(), tile.clone(), int(r)]);
                let mut args: Vec<Expr> = (0..4).map(c).collect();
                args.extend(std::iter::repeat_n(ones.clone(), 4));
                args.extend([b(0), b(1)]);
                body.call(self.mma_name(), args);
            });
        }
    }

    fn sum_name(&self, index: usize) -> String {
        match self.plan.is_direct() {
            true => "total".into(),
            false => format!("group_sum{index}"),
        }
    }

    /// Whether the rows' parameters are needed at all.
    fn needs_params(&self) -> bool {
        !self.cx.spec.params.is_empty()
    }

    /// Zeroes the group's sums and prepares what its rows need.
    fn begin_segment(&self, body: &mut Body, slot: &Expr, segment: &Expr, segment_k: u32) {
        let (rows, tiles) = (self.s.row_tiles(), self.s.token_tiles());
        if !self.plan.is_direct() {
            for (index, sum) in self.plan.sums().iter().enumerate() {
                match sum.weight {
                    Some(_) => body.zeros(self.sum_name(index), Type::F32, &[rows, tiles, 4]),
                    None => body.zeros(self.sum_name(index), Type::F32, &[tiles, 4]),
                }
            }
        }
        if self.needs_params() {
            self.load_row_params(body, slot, segment, segment_k);
            self.prepare_invariants(body);
        }
    }

    fn load_row_params(&self, body: &mut Body, slot: &Expr, segment: &Expr, segment_k: u32) {
        let s = self.s;
        let groups = self.cx.layout.groups_per_step();
        let group = match groups {
            1 => int(0),
            _ => {
                let k = var("warp_k") * s.warp_k() + segment.clone() * segment_k;
                k / self.cx.spec.group.size(self.cx.problem.k)
            }
        };
        let ty = self.pair_type();
        let words = ty.words() as u32;
        body.array("row_words", Type::U32, &[s.row_tiles(), words]);
        body.unrolled("row_part", s.row_tiles(), |body, row_part| {
            let row = var("warp_n") * s.row_tiles() + row_part.clone();
            let pair = (slot.clone() * groups + group) * (s.block_n / 2) + row * 8u32;
            let value = load("row_pairs", pair + var("lane") / 4u32);
            let places = (0..words).map(|w| Expr::at("row_words", [row_part.clone(), int(w)]));
            body.unpack(places.collect(), ty, value);
        });
    }

    fn row_params(&self, row_part: &Expr, half: usize) -> Vec<(String, Expr)> {
        let words: Vec<Expr> = (0..self.pair_type().words() as u32)
            .map(|w| Expr::at("row_words", [row_part.clone(), int(w)]))
            .collect();
        self.cx.param_values(&words, half)
    }

    /// `invariant{i}[row tile][half]`: operands of weights that are fixed within the group.
    fn prepare_invariants(&self, body: &mut Body) {
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let name = format!("invariant{index}");
            body.array(&*name, Type::U32, &[self.s.row_tiles(), 2]);
            body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
                for half in 0..2 {
                    let params = self.row_params(&row_part, half);
                    let row = Row { params: &params, position: half };
                    let place = Expr::at(&*name, [row_part.clone(), int(half as u32)]);
                    body.assign(place, self.plan.broadcast(id, &row));
                }
            });
        }
    }

    fn prepared(&self, row_part: &Expr) -> Prepared {
        let mut values = Vec::new();
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            for half in 0..2 {
                let place = [row_part.clone(), int(half as u32)];
                values.push((id, half, Expr::at(format!("invariant{index}"), place)));
            }
        }
        Prepared::new(values)
    }

    /// Adds the group's sums to the totals, with the rows' coefficients, in f32.
    fn end_segment(&self, body: &mut Body) {
        if self.plan.is_direct() {
            return;
        }
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            for half in 0..2usize {
                let params = match self.needs_params() {
                    true => self.row_params(&row_part, half),
                    false => Vec::new(),
                };
                let row = Row { params: &params, position: half };
                for (nth, (sum, coefficient)) in
                    self.plan.coefficients(&row).into_iter().enumerate()
                {
                    let name = format!("coefficient{nth}_{half}");
                    let coefficient = body.bind(name, Type::F32, coefficient);
                    self.accumulate(body, &row_part, half, sum, coefficient);
                }
            }
        });
    }

    fn accumulate(
        &self,
        body: &mut Body,
        row_part: &Expr,
        half: usize,
        sum: usize,
        coefficient: Expr,
    ) {
        let name = self.sum_name(sum);
        let shared_by_rows = self.plan.sums()[sum].weight.is_none();
        body.unrolled("token_part", self.s.token_tiles(), |body, tile| {
            for c in [2 * half as u32, 2 * half as u32 + 1] {
                let total = Expr::at("total", [row_part.clone(), tile.clone(), int(c)]);
                let value = match shared_by_rows {
                    true => Expr::at(&*name, [tile.clone(), int(c)]),
                    false => Expr::at(&*name, [row_part.clone(), tile.clone(), int(c)]),
                };
                let fma = call("fma_f32", [coefficient.clone(), value, total.clone()]);
                body.assign(total, fma);
            }
        });
    }

    /// Every warp's totals to `red[warp_k][token][row]`.
    fn reduce(&self, body: &mut Body) {
        let s = self.s;
        body.section("partial sums of all warps meet in shared memory");
        body.barrier();
        body.unrolled("row_part", s.row_tiles(), |body, row_part| {
            body.unrolled("token_part", s.token_tiles(), |body, tile| {
                for c in 0..4u32 {
                    let token = tile.clone() * 8u32 + var("lane") % 4u32 * 2u32 + (c % 2);
                    let row = (var("warp_n") * s.row_tiles() + row_part.clone()) * 16u32;
                    let row = row + var("lane") / 4u32 + 8 * (c / 2);
                    let token = var("warp_k") * s.block_m + token;
                    let total = Expr::at("total", [row_part.clone(), tile.clone(), int(c)]);
                    body.store("red", token * s.reduction_pitch() + row, total);
                }
            });
        });
    }
}
