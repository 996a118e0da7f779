//! The `gemv` family: CUDA cores, a few tokens, weights streamed straight into registers.
//!
//! A lane loads a piece, 32 weights of one row (16 bytes if they have 4 bits), and owns the matching 32 activations of every
//! token. Lanes that share a row add up by shuffles, warps that share it through shared memory.

mod columns;
mod fold;
mod levels;
mod params;
mod staging;

use super::factor;
use super::octet::Octet;
use super::output::{self, Tile};
use super::overlap;
use super::sort;
use super::table::SharedTable;
use super::term::{Plan, Prepared, Row};
use super::vectors;
use super::{beyond, CodegenError, Lowered, Lowering};
use crate::kernel::LINE_BYTES;
use crate::kir::{call, int, load, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::Term;
use qtune_ir::{Accumulate, DType, GemvSchedule, Sorting, WeightCache};
use staging::STAGED_HALVES;

pub(super) fn lower(cx: &Lowering, s: &GemvSchedule) -> Result<Lowered, CodegenError> {
    let term: Term = s.dequant.parse()?;
    let plan = Plan::new(&term, &cx.context)?;
    let scale = plan.activation_scale();
    let table = cx.shared_table(&plan);
    let gemv = Gemv { cx, s, plan, scale, table };
    let mut body = Body::new();
    gemv.prologue(&mut body);
    gemv.ask_ahead(&mut body);
    if let Some(table) = &gemv.table {
        table.fill(&mut body, s.threads());
    }
    if let Some(map) = cx.scale_map {
        map.fill(&mut body, s.threads(), gemv.lane_group());
    }
    overlap::wait_ahead(cx, &mut body);
    if s.stage_x {
        gemv.stage_activations(&mut body);
    }
    if s.stage_x || gemv.table.is_some() || cx.scale_map.is_some() {
        body.barrier();
    }
    gemv.mainloop(&mut body);
    gemv.reduce(&mut body);
    let tile = Tile {
        tokens: s.tokens,
        rows: s.block_n(),
        pitch: s.block_n(),
        parts: s.warps_k,
        split: s.split,
        threads: s.threads(),
    };
    output::emit(cx, &tile, &mut body);
    Ok((body.finish(), gemv.shared(), vec![("STEPS".into(), gemv.steps().into())]))
}

struct Gemv<'a> {
    cx: &'a Lowering<'a>,
    s: &'a GemvSchedule,
    plan: Plan<'a>,
    /// Factor on staged activations.
    scale: f64,
    /// The codebook's table in shared memory.
    table: Option<SharedTable>,
}

impl Gemv<'_> {
    fn steps(&self) -> u32 {
        self.cx.layout.steps()
    }

    fn packed(&self) -> bool {
        self.s.accumulate == Accumulate::Half2
    }

    fn pitch(&self) -> u32 {
        self.s.staged_pitch(self.cx.problem.k)
    }

    fn shared(&self) -> Vec<Buffer> {
        let staged = self.s.staged_bytes(self.cx.problem);
        let view = |name: &str, offset: u32, element: Type| Buffer {
            name: name.into(),
            space: Space::Shared { offset },
            element,
        };
        let mut views = vec![view("red", staged, Type::F32)];
        if self.s.stage_x {
            views.push(view("staged_x", 0, Type::U32x4));
        }
        if self.cx.sorting == Sorting::Prologue {
            views.push(sort::halves(STAGED_HALVES, 0));
        }
        if self.s.split.in_global() {
            views.push(view("arrived", staged, Type::U32));
        }
        views.extend(output::pair_view(self.cx, staged));
        views.extend(self.table.iter().flat_map(SharedTable::views));
        views.extend(self.cx.scale_map.iter().flat_map(|map| map.views()));
        views
    }

    fn prologue(&self, body: &mut Body) {
        let s = self.s;
        body.comment("prologue: this block's tile, this warp's rows, this lane's part of a row");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        let lane = body.bind("lane", Type::I32, thread.clone() % 32u32);
        let warp = body.bind("warp", Type::I32, thread / 32u32);
        body.bind("warp_n", Type::I32, warp.clone() % s.warps_n);
        body.bind("warp_k", Type::I32, warp / s.warps_n);
        body.bind("lane_row", Type::I32, lane.clone() / s.lanes);
        body.bind("lane_k", Type::I32, lane % s.lanes);
        body.bind("row_tile", Type::I32, var("blockIdx.x"));
        body.bind("token_tile", Type::I32, var("blockIdx.y"));
        if s.split.per_tile() > 1 {
            body.bind("split", Type::I32, var("blockIdx.z"));
        }
        let warp_tile = var("row_tile") * s.warps_n + var("warp_n");
        body.bind("warp_tile", Type::I32, warp_tile);
        output::split_range(body, s.split.per_tile());
        self.selector(body);
        factor::bind(self.cx, body);
        body.zeros("total", Type::F32, &[s.tokens, s.rows]);
    }

    /// Has the weights of this warp's first steps on their way to L2 before it waits for the kernel ahead,
    /// under programmatic dependent launch, or sorts activations.
    fn ask_ahead(&self, body: &mut Body) {
        let s = self.s;
        if !self.cx.overlap.pdl && self.cx.sorting != Sorting::Prologue {
            return;
        }
        body.section("ask L2 for this warp's first weights");
        let step = var("first") + var("warp_k");
        body.unrolled("ahead", s.unroll, |body, ahead| {
            let at = body.bind("at", Type::I32, step + ahead * s.warps_k);
            let packing = self.cx.packing();
            let line_loads = LINE_BYTES / (4 * packing.load_words());
            let asks = (var("lane") % line_loads).equals(0u32);
            body.when(at.clone().less(var("last")).and(asks), |body| {
                body.unrolled("row_part", s.rows, |body, row_part| {
                    for load in 0..packing.loads() {
                        let place = beyond(self.piece(&at, &row_part), 32 * load);
                        body.call("prefetch_l2", [Expr::address("weights", place)]);
                    }
                });
            });
        });
    }

    /// The first load of this lane's piece of a step.
    fn piece(&self, step: &Expr, row_part: &Expr) -> Expr {
        let slab = (var("warp_tile") * var("STEPS") + step.clone()) * self.s.rows;
        (slab + row_part.clone()) * self.cx.slab_loads() + var("lane")
    }

    /// Whole turns of `unroll` steps without a question asked, then what is left one by one.
    fn mainloop(&self, body: &mut Body) {
        let s = self.s;
        if self.has_params_once() {
            body.section("one quant group spans K: its parameters serve all steps");
            self.declare_params(body, 1);
            self.load_params(body, &int(0), &var("first"));
            self.begin_group(body, &int(0));
        }
        body.section("mainloop: load the weights of several steps, then use them");
        let from = var("first") + var("warp_k");
        if s.unroll == 1 {
            return body.range("step", from, var("last"), s.warps_k, |body, step| {
                self.turn(body, &step, 1);
            });
        }
        let from = body.bind("from", Type::I32, from);
        let (stride, reach) = (s.warps_k * s.unroll, s.warps_k * (s.unroll - 1));
        body.range("step", from.clone(), var("last") - reach, stride, |body, step| {
            self.turn(body, &step, s.unroll);
        });
        body.section("the steps of an incomplete turn");
        let turns = (var("last") - reach + (stride - 1) - from.clone()) / stride;
        let from = body.bind("rest", Type::I32, from + turns * stride);
        body.range("step", from, var("last"), s.warps_k, |body, step| {
            self.turn(body, &step, 1);
        });
    }

    /// Steps `step + i * warps_k` for `i` below `count`.
    fn turn(&self, body: &mut Body, step: &Expr, count: u32) {
        let s = self.s;
        body.array("words", Type::U32, &[count, s.rows, self.cx.packing().words()]);
        match self.has_columns() {
            true => self.declare_columns(body, count),
            false if self.has_params_once() => {}
            false => self.declare_params(body, count),
        }
        let at = |ahead: &Expr| step.clone() + ahead.clone() * s.warps_k;
        body.unrolled("ahead", count, |body, ahead| self.load(body, &ahead, &at(&ahead)));
        body.unrolled("ahead", count, |body, ahead| self.compute(body, &ahead, &at(&ahead)));
    }

    /// The load that bypasses L1.
    fn stream(&self) -> &'static str {
        match self.cx.packing().load_words() {
            1 => "load_stream_4",
            2 => "load_stream_8",
            _ => "load_stream",
        }
    }

    /// Quant groups of a lane's weights in one row and step.
    fn lane_groups(&self) -> u32 {
        self.s.groups_per_lane(self.cx.spec, self.cx.problem.k)
    }

    /// Parameter entries of a lane in one step: those of a row side by side.
    fn entries(&self) -> u32 {
        self.s.rows * self.lane_groups()
    }

    /// The entry of a row's eight weights `part`.
    fn entry_of(&self, row_part: &Expr, part: &Expr) -> Expr {
        match self.lane_groups() {
            1 => row_part.clone(),
            groups => row_part.clone() * groups + part.clone() / (4 / groups),
        }
    }

    fn needs_params(&self) -> bool {
        !self.cx.spec.params.is_empty()
    }

    /// Whether a lane has parameters, the same ones for all of its steps.
    fn has_params_once(&self) -> bool {
        self.needs_params() && self.cx.layout.groups() == 1
    }

    fn load(&self, body: &mut Body, ahead: &Expr, step: &Expr) {
        let s = self.s;
        body.unrolled("row_part", s.rows, |body, row_part| {
            let piece = self.piece(step, &row_part);
            let place = |w: u32| Expr::at("words", [ahead.clone(), row_part.clone(), int(w)]);
            self.cx.load_piece(body, place, |distance| {
                let piece = beyond(piece.clone(), distance);
                match s.cache {
                    WeightCache::Normal => load("weights", piece),
                    WeightCache::NoAllocate => {
                        call(self.stream(), [Expr::address("weights", piece)])
                    }
                }
            });
        });
        match self.has_columns() {
            true => self.load_columns(body, ahead, step),
            false if self.has_params_once() => {}
            false => self.load_params(body, ahead, step),
        }
    }

    /// One step: eight weights at a time against the matching activations of every token.
    fn compute(&self, body: &mut Body, ahead: &Expr, step: &Expr) {
        let s = self.s;
        let group = if self.has_params_once() {
            int(0)
        } else {
            if !self.has_columns() {
                self.begin_group(body, ahead);
            }
            ahead.clone()
        };
        for (index, _) in self.plan.sums().iter().enumerate() {
            body.zeros(self.sum_name(index), self.sum_type(), &[s.tokens, self.entries()]);
        }
        body.unrolled("part", 4, |body, part| {
            body.array("act", Type::U32, &[s.tokens, 4]);
            body.unrolled("token", s.tokens, |body, token| {
                self.load_activations(body, step, &token, &part);
            });
            if self.has_columns() {
                self.prepare_columns(body, ahead, &part);
            }
            body.unrolled("row_part", s.rows, |body, row_part| {
                let word = |w| Expr::at("words", [ahead.clone(), row_part.clone(), w]);
                let octet = match self.cx.vectors() {
                    Some(codes) => vectors::octet(self.cx, body, codes, vectors::code(&part, word)),
                    None => Octet::load(self.cx.packing(), body, &part, word),
                };
                self.multiply(body, &self.entry_of(&row_part, &part), &octet);
            });
        });
        self.accumulate(body, &group);
    }

    /// Makes of loaded parameters what the steps of their quant group need.
    fn begin_group(&self, body: &mut Body, ahead: &Expr) {
        self.join_params(body, ahead);
        self.prepare_invariants(body, ahead);
    }

    fn load_activations(&self, body: &mut Body, step: &Expr, token: &Expr, part: &Expr) {
        let places =
            |token: &Expr| (0..4u32).map(|w| Expr::at("act", [token.clone(), int(w)])).collect();
        if self.s.stage_x {
            let position = (step.clone() - var("first")) * self.s.lanes + var("lane_k");
            let place = self.staged_place(token, part.clone(), position);
            return body.unpack(places(token), Type::U32x4, load("staged_x", place));
        }
        let k8 = (step.clone() * self.s.lanes + var("lane_k")) * 4u32 + part.clone();
        self.fetch(body, "piece", token.clone(), k8);
        let copied: Vec<Expr> = places(token);
        for (word, place) in copied.into_iter().enumerate() {
            body.assign(place, Expr::at("piece", [int(word as u32)]));
        }
    }

    fn sum_type(&self) -> Type {
        match self.packed() {
            true => Type::U32,
            false => Type::F32,
        }
    }

    fn sum_name(&self, index: usize) -> String {
        format!("group_sum{index}")
    }

    fn row_params(&self, ahead: &Expr, row_part: &Expr) -> Vec<(String, Expr)> {
        let words: Vec<Expr> = (0..self.entry_words())
            .map(|w| Expr::at("entry", [ahead.clone(), row_part.clone(), int(w)]))
            .collect();
        match self.cx.has_small_scales() {
            true => self.joined_scales(&words[0]),
            false => self.cx.param_values(&words, 0),
        }
    }

    /// `invariant{i}[entry][position]`: operands of weights that are fixed within the group, one
    /// per position weight, since odd pairs stay four bits higher.
    fn prepare_invariants(&self, body: &mut Body, ahead: &Expr) {
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            let name = format!("invariant{index}");
            body.array(&*name, Type::U32, &[self.entries(), 2]);
            body.unrolled("row_part", self.entries(), |body, row_part| {
                let params = self.row_params(ahead, &row_part);
                for position in 0..2 {
                    let row = Row { params: &params, position };
                    let place = Expr::at(&*name, [row_part.clone(), int(position as u32)]);
                    body.assign(place, self.plan.broadcast(id, &row));
                }
            });
        }
    }

    fn prepared(&self, row_part: &Expr) -> Prepared {
        if self.has_columns() {
            return self.prepared_columns();
        }
        let mut values = Vec::new();
        for (index, id) in self.plan.invariants().into_iter().enumerate() {
            for position in 0..2 {
                let place = [row_part.clone(), int(position as u32)];
                values.push((id, position, Expr::at(format!("invariant{index}"), place)));
            }
        }
        Prepared::new(values)
    }

    fn multiply(&self, body: &mut Body, row_part: &Expr, octet: &Octet) {
        let prepared = self.prepared(row_part);
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let weights = sum.weight.map(|weight| {
                let pairs = self.plan.pairs(body, index, weight, octet, &prepared);
                let name = |pair: usize| format!("weight{index}_{pair}");
                let bind = |(pair, value)| body.bind(name(pair), Type::U32, value);
                pairs.into_iter().enumerate().map(bind).collect::<Vec<_>>()
            });
            let sums = self.sum_name(index);
            body.unrolled("token", self.s.tokens, |body, token| {
                let sum = Expr::at(sums, [token.clone(), row_part.clone()]);
                for pair in 0..4usize {
                    let act = Expr::at("act", [token.clone(), int(pair as u32)]);
                    let weight = weights.as_ref().map(|weights| weights[pair].clone());
                    self.multiply_pair(body, &sum, weight, act);
                }
            });
        }
    }

    /// `sum += weight * act` for both halves of a pair; without a weight, `sum += act`.
    fn multiply_pair(&self, body: &mut Body, sum: &Expr, weight: Option<Expr>, act: Expr) {
        if self.packed() {
            let value = match weight {
                Some(weight) => call("h2_fma", [weight, act, sum.clone()]),
                None => call("h2_add", [sum.clone(), act]),
            };
            return body.assign(sum.clone(), value);
        }
        let (low, high) = match self.cx.problem.act {
            DType::Bf16 => ("bf2_low", "bf2_high"),
            _ => ("h2_low", "h2_high"),
        };
        for (widen_act, widen_weight) in [(low, "h2_low"), (high, "h2_high")] {
            let act = call(widen_act, [act.clone()]);
            let value = match &weight {
                Some(weight) => {
                    let weight = call(widen_weight, [weight.clone()]);
                    call("fma_f32", [weight, act, sum.clone()])
                }
                None => sum.clone() + act,
            };
            body.assign(sum.clone(), value);
        }
    }

    /// Adds the lanes of a row, then stores every warp's totals to `red[warp_k][token][row]`.
    fn reduce(&self, body: &mut Body) {
        let s = self.s;
        body.section("lanes of a row add up by shuffles; warps meet in shared memory");
        body.unrolled("token", s.tokens, |body, token| {
            body.unrolled("row_part", s.rows, |body, row_part| {
                let total = Expr::at("total", [token.clone(), row_part.clone()]);
                let mut distance = s.lanes / 2;
                while distance > 0 {
                    let other = call("shfl_xor", [total.clone(), int(distance)]);
                    body.assign(total.clone(), total.clone() + other);
                    distance /= 2;
                }
                body.when(var("lane_k").equals(0u32), |body| {
                    let row = var("warp_n") * s.warp_rows() + row_part * (32 / s.lanes);
                    let part = (var("warp_k") * s.tokens + token) * s.block_n();
                    let total = self.plan.finished(total, 0);
                    body.store("red", part + row + var("lane_row"), total);
                });
            });
        });
    }
}
