//! The `mma` family: weights are the 16-row A operand of `mma.m16n8k16`, tokens the 8 columns.
//!
//! One weight's way: `cp.async` brings the 16 bytes that a lane needs into that lane's own place
//! of the ring; after the wait the lane reads them back, masks four pairs out of each word (one
//! A fragment of 16x16), and multiplies. No other lane ever sees them, so weights need no
//! transpose and no barrier; the barrier per stage is for the activations, which all warps share.
//! Where a lane's piece is not 16 bytes, all threads copy the stage as it lies in memory, and that
//! barrier is for the weights, too.

mod activations;
mod columns;

use super::factor;
use super::levels::RowLevels;
use super::octet::Octet;
use super::output::{self, Tile};
use super::overlap;
use super::rows::{self, Rows};
use super::stream::{self, Incoming};
use super::table::SharedTable;
use super::term::{Plan, Prepared};
use super::{beyond, CodegenError, Lowered, Lowering};
use crate::intrinsics::warp_multiply_name;
use crate::kir::{call, int, load, select, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::Term;
use qtune_ir::{MmaSchedule, Raster, Split};

/// Bytes of one asynchronous copy.
const COPY: u32 = 16;

pub(super) fn lower(cx: &Lowering, s: &MmaSchedule) -> Result<Lowered, CodegenError> {
    let term: Term = s.dequant.parse()?;
    let plan = Plan::new(&term, &cx.context)?;
    if plan.activation_scale() != 1.0 {
        let reason = "mma stages activations unscaled".to_string();
        return Err(qtune_ir::Rejected { reason }.into());
    }
    let table = cx.shared_table(&plan);
    let mma = Mma { cx, s, plan, table };
    mma.row_levels().map_or(Ok(()), |levels| levels.check())?;
    let mut body = Body::new();
    mma.prologue(&mut body);
    let mut constants = vec![("STEPS".into(), mma.steps().into())];
    match s.split {
        Split::Blocks(_) | Split::Cluster(_) => mma.one_tile(&mut body),
        Split::Stream(_) => {
            constants.extend(stream::constants(cx));
            mma.tiles_of_share(&mut body);
        }
    }
    Ok((body.finish(), mma.shared(), constants))
}

struct Mma<'a> {
    cx: &'a Lowering<'a>,
    s: &'a MmaSchedule,
    plan: Plan<'a>,
    /// The codebook's table in shared memory.
    table: Option<SharedTable>,
}

impl Mma<'_> {
    fn rows(&self) -> Rows<'_> {
        let groups = self.s.groups_per_segment(self.cx.spec, self.cx.problem.k);
        Rows { cx: self.cx, plan: &self.plan, tiles: self.s.row_tiles(), groups, factor: None }
    }

    /// The levels of the warp's rows, where group parameters are packed by them.
    fn row_levels(&self) -> Option<RowLevels<'_>> {
        let (s, cx) = (self.s, self.cx);
        let groups = s.warp_k() / cx.spec.group.size(cx.problem.k);
        let group = if s.warps_k == 1 { int(0) } else { var("warp_k") * groups };
        Some(RowLevels {
            rows: self.rows(),
            levels: cx.layout.levels()?,
            tile: var("warp_n") * s.row_tiles(),
            tile_stride: 1,
            group,
            groups,
            params: self.param_offset(),
            operands: s.operand_offset(cx.problem, cx.spec),
        })
    }

    fn steps(&self) -> u32 {
        self.cx.layout.steps()
    }

    /// 16-byte pieces of weights per stage.
    fn weight_pieces(&self) -> u32 {
        self.s.stage_weight_bytes(self.cx.spec) / COPY
    }

    fn param_bytes(&self) -> u32 {
        self.s.stage_param_bytes(self.cx.spec, self.cx.problem.k)
    }

    /// 64-wide k chunks of one warp and stage.
    fn chunks(&self) -> u32 {
        self.s.warp_k() / 64
    }

    /// Where activations start in the ring, behind all stages of weights.
    fn act_offset(&self) -> u32 {
        self.s.stages * self.s.stage_weight_bytes(self.cx.spec)
    }

    /// Where group parameters do, behind activations.
    fn param_offset(&self) -> u32 {
        self.act_offset() + self.s.stages * self.s.stage_act_space()
    }

    /// Views of dynamic shared memory: the ring's three parts, and the reduction buffer.
    fn shared(&self) -> Vec<Buffer> {
        let (acts, params) = (self.act_offset(), self.param_offset());
        let red = self.s.reduction_offset(self.cx.problem, self.cx.spec);
        let view = |name: &str, offset: u32, element: Type| Buffer {
            name: name.into(),
            space: Space::Shared { offset },
            element,
        };
        let mut views = vec![
            view("ring_weights", 0, Type::U32x4),
            view("ring_x", acts, Type::U32x4),
            view("red", red, Type::F32),
        ];
        if !self.cx.spec.params.is_empty() {
            views.push(view("ring_params", params, Type::U32x4));
            match self.row_levels() {
                Some(levels) => views.extend(levels.views()),
                None => views.push(view("row_pairs", params, rows::pair_type(self.cx))),
            }
        }
        views.extend(self.cx.lane_words(0));
        if self.s.split.in_global() {
            views.push(view("arrived", red, Type::U32));
        }
        views.extend(output::pair_view(self.cx, red));
        views.extend(self.table.iter().flat_map(SharedTable::views));
        views.extend(self.cx.scale_map.iter().flat_map(|map| map.views()));
        views
    }

    fn prologue(&self, body: &mut Body) {
        let s = self.s;
        body.comment("prologue: this block's tile and this warp's part of it");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        let lane = body.bind("lane", Type::I32, thread.clone() % 32u32);
        let warp = body.bind("warp", Type::I32, thread / 32u32);
        body.bind("warp_n", Type::I32, warp.clone() % s.warps_n);
        body.bind("warp_k", Type::I32, warp / s.warps_n);
        match s.split {
            Split::Blocks(blocks) | Split::Cluster(blocks) => self.bind_tile(body, blocks),
            Split::Stream(_) => stream::bind_share(s.block_m, body),
        }
        factor::bind(self.cx, body);
        let piece =
            var("warp_n") * s.row_tiles() * (s.block_k / 64) + var("warp_k") * self.chunks();
        body.bind("lane_piece", Type::I32, piece * self.cx.slab_loads() + lane);
        if self.in_own_places() {
            let place = Expr::address("ring_weights", var("lane_piece"));
            body.bind("lane_weights", Type::U32, call("shared_place", [place]));
        } else {
            self.plan_copies("weight", body);
        }
        if self.param_bytes() > 0 {
            self.plan_copies("param", body);
        }
        self.plan_activations(body);
        self.plan_tokens(body);
        if let Some(levels) = self.row_levels() {
            levels.plan(body);
        }
    }

    /// Binds the block's output tile and its steps `first..last` of it.
    fn bind_tile(&self, body: &mut Body, splits: u32) {
        let (row, token) = match self.s.raster {
            Raster::Rows => ("blockIdx.x", "blockIdx.y"),
            Raster::Tokens => ("blockIdx.y", "blockIdx.x"),
        };
        self.cx.bind_row_tile(body, row);
        body.bind("token_tile", Type::I32, var(token));
        if splits > 1 {
            body.bind("split", Type::I32, var("blockIdx.z"));
        }
        output::split_range(body, splits);
    }

    fn zero_totals(&self, body: &mut Body) {
        body.zeros("total", self.cx.sum_type(), &[self.s.row_tiles(), self.s.token_tiles(), 4]);
    }

    /// All that is left of a block that has one output tile.
    fn one_tile(&self, body: &mut Body) {
        self.zero_totals(body);
        self.start(body);
        self.walk(body, "first", "last");
        self.drain(body);
        self.reduce(body);
        output::emit(self.cx, &self.tile(), body);
    }

    /// The same under stream-K. The ring never runs empty before the end of the share.
    fn tiles_of_share(&self, body: &mut Body) {
        self.start(body);
        stream::for_tiles(self.s.raster, body, |body| {
            self.zero_totals(body);
            self.walk(body, "from", "to");
            self.reduce(body);
            output::emit(self.cx, &self.tile(), body);
        });
        self.drain(body);
    }

    fn tile(&self) -> Tile {
        let s = self.s;
        Tile {
            tokens: s.block_m,
            rows: s.block_n,
            pitch: s.reduction_pitch(),
            parts: s.warps_k,
            split: s.split,
            threads: s.threads(),
        }
    }

    /// What comes before the first stage is waited for.
    fn start(&self, body: &mut Body) {
        self.load_params_once(body);
        if self.s.stages == 1 {
            self.fill_table(body);
            overlap::wait_ahead(self.cx, body);
            return body.section("mainloop: load a stage, wait for it, compute");
        }
        self.fill_ring(body);
        self.fill_table(body);
        body.section("mainloop: wait for the oldest stage, refill the one before it, compute");
        body.variable("slot", Type::I32, int(0));
        if self.s.stages > 2 {
            body.variable("free", Type::I32, int(self.s.stages - 1));
        }
    }

    /// Leaves no copy on its way.
    fn drain(&self, body: &mut Body) {
        if self.s.stages > 1 {
            body.call("copy_wait", [int(0)]);
        }
    }

    /// The steps `from..to` of a tile; those up to `last` are loaded ahead.
    fn walk(&self, body: &mut Body, from: &str, to: &str) {
        let stages = self.s.stages;
        if stages == 1 {
            return body.range("step", var(from), var(to), 1u32, |body, step| {
                self.load_stage(body, &step, &int(0));
                body.call("copy_commit", []);
                body.call("copy_wait", [int(0)]);
                body.barrier();
                self.compute_stage(body, &int(0), &step);
                body.barrier();
            });
        }
        let slot = var("slot");
        body.range("step", var(from), var(to), 1u32, |body, step| {
            body.call("copy_wait", [int(stages - 2)]);
            body.barrier();
            let next = body.bind("next", Type::I32, step.clone() + (stages - 1));
            body.when_uniform(next.clone().less(var("last")), |body| {
                let free = match stages {
                    2 => body.bind("free", Type::I32, int(1) - slot.clone()),
                    _ => var("free"),
                };
                self.load_stage(body, &next, &free);
            });
            body.call("copy_commit", []);
            self.compute_stage(body, &slot, &step);
            if stages == 2 {
                return body.assign(slot.clone(), int(1) - slot.clone());
            }
            body.assign(var("free"), slot.clone());
            let after = slot.clone() + 1u32;
            let wraps = after.clone().equals(stages);
            body.assign(slot.clone(), select(wraps, int(0), after));
        });
    }

    /// All stages but one. A dependent launch has all of their weights on their way, in the group of
    /// the first stage, before it waits for the kernel ahead.
    fn fill_ring(&self, body: &mut Body) {
        if !self.cx.overlap.pdl {
            body.section("fill the ring: all stages but one");
            return self.for_ring(body, |body, step, slot| self.load_stage(body, step, slot), true);
        }
        body.section(
            "fill the ring with weights, wait for the kernel ahead, then with activations",
        );
        self.for_ring(body, |body, step, slot| self.load_constants(body, step, slot), false);
        overlap::wait_ahead(self.cx, body);
        let activations = |body: &mut Body, step: &Expr, slot: &Expr| {
            let stage = self.incoming(body, step);
            self.load_activations(body, &stage, slot);
        };
        self.for_ring(body, activations, true);
    }

    /// `load(step, slot)` for every stage but one, each closed as a group of copies if `commit`.
    fn for_ring(&self, body: &mut Body, load: impl Fn(&mut Body, &Expr, &Expr), commit: bool) {
        body.range("ahead", 0u32, self.s.stages - 1, 1u32, |body, ahead| {
            let step = body.bind("step", Type::I32, var("first") + ahead.clone());
            body.when_uniform(step.clone().less(var("last")), |body| load(body, &step, &ahead));
            if commit {
                body.call("copy_commit", []);
            }
        });
    }

    /// Copies are on their way meanwhile; the barrier of the first stage shows all threads the table.
    fn fill_table(&self, body: &mut Body) {
        if let Some(table) = &self.table {
            table.fill(body, self.s.threads());
        }
        if let Some(map) = self.cx.scale_map {
            map.fill(body, self.s.threads(), var("lane"));
        }
    }

    /// Offset of the first load of a lane's piece from its first in a stage: the same in global memory
    /// and in the ring, and a constant once the loops over row tiles and chunks are unrolled.
    fn weight_offset(&self, row_part: Expr, chunk: Expr) -> Expr {
        let slab = self.cx.slab_loads();
        row_part * (self.s.block_k / 64 * slab) + chunk * slab
    }

    fn load_stage(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        let stage = self.incoming(body, step);
        self.load_weights(body, &stage, slot);
        self.load_activations(body, &stage, slot);
        self.load_params(body, &stage, slot);
    }

    /// Weights and group parameters of a stage.
    fn load_constants(&self, body: &mut Body, step: &Expr, slot: &Expr) {
        let stage = self.incoming(body, step);
        self.load_weights(body, &stage, slot);
        self.load_params(body, &stage, slot);
    }

    /// Where the stage of a step of the block comes from.
    fn incoming(&self, body: &mut Body, step: &Expr) -> Incoming {
        let s = self.s;
        match s.split {
            Split::Stream(_) => stream::incoming(s.raster, s.block_m, body, step),
            Split::Blocks(_) | Split::Cluster(_) => Incoming {
                index: self.cx.stage_index(step),
                step: step.clone(),
                first_token: var("token_tile") * s.block_m,
            },
        }
    }

    /// Whether each lane copies the weights that it multiplies, and no others, to a place of its own.
    fn in_own_places(&self) -> bool {
        4 * self.cx.packing().words() == COPY
    }

    fn load_weights(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let pieces = self.weight_pieces();
        if !self.in_own_places() {
            return self.copy_stage(body, "weight", pieces, (stage, slot));
        }
        let to = call("shared_behind", [var("lane_weights"), slot.clone() * (pieces * COPY)]);
        let to = body.bind("weights_to", Type::U32, to);
        let from = stage.index.clone() * pieces + var("lane_piece");
        let from = body.bind("weights_from", Type::I32, from);
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            body.unrolled("chunk", self.chunks(), |body, chunk| {
                let offset = self.weight_offset(row_part, chunk);
                let to = call("shared_behind", [to, offset.clone() * COPY]);
                body.call("copy_async_16", [to, Expr::address("weights", from + offset)]);
            });
        });
    }

    /// Group parameters of a stage, where stages have them.
    fn load_params(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        if self.param_bytes() > 0 {
            self.copy_stage(body, "param", self.param_bytes() / COPY, (stage, slot));
        }
    }

    /// Bytes of group parameters that serve all stages.
    fn once_param_bytes(&self) -> u32 {
        self.s.once_param_bytes(self.cx.spec, self.cx.problem.k)
    }

    /// Copies those, in the group of the first stage.
    fn load_params_once(&self, body: &mut Body) {
        let pieces = self.once_param_bytes() / COPY;
        if pieces == 0 {
            return;
        }
        body.section("one quant group spans K: its parameters serve all stages");
        let from = body.bind("params_from", Type::I32, var("row_tile") * pieces);
        let to = Expr::address("ring_params", var("thread"));
        let to = body.bind("params_to", Type::U32, call("shared_place", [to]));
        self.copy_pieces(body, "param", pieces, [to, from]);
    }

    /// Binds where a thread's first piece of the array `{name}s` goes in the first stage.
    fn plan_copies(&self, name: &str, body: &mut Body) {
        let place = Expr::address(format!("ring_{name}s"), var("thread"));
        body.bind(format!("thread_{name}s"), Type::U32, call("shared_place", [place]));
    }

    /// A stage's part of the array `{name}s`, copied as it lies by all threads.
    fn copy_stage(
        &self,
        body: &mut Body,
        name: &str,
        pieces: u32,
        (stage, slot): (&Incoming, &Expr),
    ) {
        let stage_to = slot.clone() * (pieces * COPY);
        let to = call("shared_behind", [var(format!("thread_{name}s")), stage_to]);
        let to = body.bind(format!("{name}s_to"), Type::U32, to);
        let from = stage.index.clone() * pieces;
        let from = body.bind(format!("{name}s_from"), Type::I32, from);
        self.copy_pieces(body, name, pieces, [to, from]);
    }

    /// Spreads copies of 16 bytes over the block's threads: `to` is where a thread's first piece goes, `from` the
    /// first piece of all in the array `{name}s`.
    fn copy_pieces(&self, body: &mut Body, name: &str, pieces: u32, [to, from]: [Expr; 2]) {
        let threads = self.s.threads();
        let turns = pieces.div_ceil(threads);
        body.unrolled(&format!("{name}_turn"), turns, |body, turn| {
            let piece = turn.clone() * threads + var("thread");
            let piece = body.bind(format!("{name}_piece"), Type::I32, piece);
            let to = call("shared_behind", [to, turn * (threads * COPY)]);
            let from = Expr::address(format!("{name}s"), from + piece.clone());
            match pieces % threads {
                0 => body.call("copy_async_16", [to, from]),
                _ => body.call("copy_async_16_if", [to, from, piece.less(pieces)]),
            }
        });
    }

    /// Spreads 16-byte pieces over the block's threads, in unrolled turns: `each(piece, turn)`.
    fn for_pieces(
        &self,
        body: &mut Body,
        name: &str,
        pieces: u32,
        each: impl Fn(&mut Body, Expr, Expr),
    ) {
        let threads = self.s.threads();
        let turns = pieces.div_ceil(threads);
        body.unrolled(&format!("{name}_turn"), turns, |body, turn| {
            let piece = turn.clone() * threads + var("thread");
            let piece = body.bind(name, Type::I32, piece);
            if pieces % threads == 0 {
                return each(body, piece, turn);
            }
            body.when(piece.clone().less(pieces), |body| each(body, piece, turn));
        });
    }

    /// One stage: quant-group segments, in each of them k chunks of 32 with one B fragment load.
    fn compute_stage(&self, body: &mut Body, slot: &Expr, step: &Expr) {
        let s = self.s;
        let segment = s.segment_k(self.cx.spec, self.cx.problem.k);
        let per_chunk = (64 / segment).max(1);
        let chunks = (segment / 64).max(1);
        let stage = self.s.stage_weight_bytes(self.cx.spec) / (4 * self.cx.packing().load_words());
        let weights = slot.clone() * stage + var("lane_piece");
        body.bind("weights_at", Type::I32, weights);
        self.find_tokens(body, slot);
        if let Some(levels) = self.row_levels() {
            levels.compute(body, slot);
        }
        if self.columns().is_some() {
            self.begin_columns(body, slot);
        }
        body.unrolled("segment", s.warp_k() / segment, |body, index| {
            self.begin_segment(body, slot, &index, segment);
            if self.cx.scales_groups() {
                let groups = self.cx.layout.groups_per_step();
                let group = self.step_along_k(step) * groups + self.group_of_stage(&index, segment);
                self.cx.load_group_scales(body, s.token_tiles(), group);
            }
            body.unrolled("chunk", chunks, |body, chunk| {
                let whole = index.clone() / per_chunk * chunks + chunk;
                let halves = segment.min(64) / 32;
                self.load_words(body, &whole);
                body.unrolled("half", halves, |body, half| {
                    let half = index.clone() % per_chunk * halves + half;
                    self.multiply_k32(body, &whole, &half);
                });
            });
            self.end_segment(body);
        });
    }

    fn load_words(&self, body: &mut Body, chunk: &Expr) {
        body.array("words", Type::U32, &[self.s.row_tiles(), self.cx.packing().words()]);
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            let index = var("weights_at") + self.weight_offset(row_part.clone(), chunk.clone());
            let place = |w: u32| Expr::at("words", [row_part.clone(), int(w)]);
            self.cx.load_piece(body, place, |distance| {
                load(self.cx.lane_view(), beyond(index.clone(), distance))
            });
        });
    }

    /// Two k16 steps: B fragments of all token tiles, then A fragments one row tile at a time.
    fn multiply_k32(&self, body: &mut Body, chunk: &Expr, half: &Expr) {
        self.load_tokens(body, chunk, half);
        body.unrolled("k16", 2, |body, k16| {
            self.sum_activations(body, &k16);
            let index = half.clone() * 2u32 + k16.clone();
            let multiply = |body: &mut Body, row_part: &Expr, prepared: &Prepared| {
                let word = |w| Expr::at("words", [row_part.clone(), w]);
                let octet = Octet::load(self.cx.packing(), body, &index, word);
                self.multiply_row_tile(body, &octet, (row_part, &k16), prepared);
            };
            if let Some(columns) = self.columns() {
                let k16 = chunk.clone() * 4u32 + index.clone();
                return self.multiply_columns(body, &columns, &k16, multiply);
            }
            body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
                // A segment of several groups has one for each k16.
                let place = self.rows().place(&row_part, k16.clone());
                let prepared = match self.row_levels() {
                    Some(levels) => levels.prepared(&place),
                    None => self.rows().prepared(&place),
                };
                multiply(body, &row_part, &prepared);
            });
        });
    }

    fn multiply_row_tile(
        &self,
        body: &mut Body,
        octet: &Octet,
        (row_part, k16): (&Expr, &Expr),
        prepared: &Prepared,
    ) {
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let Some(weight) = sum.weight else { continue };
            let pairs = self.plan.pairs(body, index, weight, octet, prepared);
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
                body.call(warp_multiply_name(self.cx.operands()), args);
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
                body.call(warp_multiply_name(self.cx.operands()), args);
            });
        }
    }

    /// Whether tensor cores add up the totals themselves.
    fn is_direct(&self) -> bool {
        self.cx.adds_directly(&self.plan)
    }

    fn sum_name(&self, index: usize) -> String {
        match self.is_direct() {
            true => "total".into(),
            false => format!("group_sum{index}"),
        }
    }

    /// Zeroes the group's sums and prepares what its rows need.
    fn begin_segment(&self, body: &mut Body, slot: &Expr, segment: &Expr, segment_k: u32) {
        let (rows, tiles) = (self.s.row_tiles(), self.s.token_tiles());
        if !self.is_direct() {
            for (index, sum) in self.plan.sums().iter().enumerate() {
                match sum.weight {
                    Some(_) => body.zeros(self.sum_name(index), Type::F32, &[rows, tiles, 4]),
                    None => body.zeros(self.sum_name(index), Type::F32, &[tiles, 4]),
                }
            }
        }
        match self.row_levels() {
            Some(levels) => levels.load(body, segment),
            None if self.rows().needed() && self.columns().is_none() => {
                self.load_row_params(body, slot, segment, segment_k);
                self.rows().prepare(body);
            }
            None => {}
        }
    }

    /// The quant group of a segment of a stage, or its first.
    fn group_of_stage(&self, segment: &Expr, segment_k: u32) -> Expr {
        match self.cx.layout.groups_per_step() {
            1 => int(0),
            _ => {
                let k = var("warp_k") * self.s.warp_k() + segment.clone() * segment_k;
                k / self.cx.spec.group.size(self.cx.problem.k)
            }
        }
    }

    /// The step along K of a step of the block.
    fn step_along_k(&self, step: &Expr) -> Expr {
        match self.s.split {
            Split::Stream(_) => step.clone() - var("tile_begin"),
            Split::Blocks(_) | Split::Cluster(_) => step.clone(),
        }
    }

    fn load_row_params(&self, body: &mut Body, slot: &Expr, segment: &Expr, segment_k: u32) {
        let s = self.s;
        let groups = self.cx.layout.groups_per_step();
        let group = self.group_of_stage(segment, segment_k);
        self.rows().declare(body);
        self.rows().load(body, |place| {
            let (row_part, inner) = self.rows().tile_and_group(place);
            let row = var("warp_n") * s.row_tiles() + row_part;
            let group = match self.rows().groups {
                1 => group.clone(),
                _ => group.clone() + inner,
            };
            let pair = match (self.once_param_bytes(), self.cx.layout.groups_together()) {
                (0, 1) => (slot.clone() * groups + group) * (s.block_n / 2) + row * 8u32,
                (0, together) => {
                    let set = (slot.clone() * groups + group) / together;
                    set * (s.block_n / 2) + row * 8u32
                }
                _ => row * 8u32,
            };
            pair + var("lane") / 4u32
        });
    }

    /// Adds the group's sums to the totals, with the rows' coefficients, in f32.
    fn end_segment(&self, body: &mut Body) {
        if self.is_direct() {
            return;
        }
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            for half in 0..2usize {
                for (name, sum, value) in self.rows().coefficients(&row_part, half) {
                    let coefficient = body.bind(name, Type::F32, value);
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
                let coefficient = self.cx.group_coefficient(coefficient.clone(), &tile, c);
                let fma = call("fma_f32", [coefficient, value, total.clone()]);
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
                    let total = self.plan.finished(self.cx.widened_sum(total), c as usize / 2);
                    body.store("red", token * s.reduction_pitch() + row, total);
                }
            });
        });
    }
}
