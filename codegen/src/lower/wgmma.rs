//! The `wgmma` family: `C^T = W A^T`. Dequantized weights are the register operand of
//! `wgmma.m64nNk16`, 64 rows for a warpgroup, tokens the columns; activations stay in shared memory.
//!
//! The producer fills a ring: one bulk copy each for the weights and parameters of a stage, which
//! lie contiguous, and one tensor copy for every 64 of k of the activations, which the hardware
//! swizzles. A stage has two barriers: `full` counts the bytes of its copies, `empty` the consumer
//! warps that are done with it. Blocks of a cluster that share their tokens (`multicast=`) copy a part
//! of the activations each, to all of them: an `empty` barrier then counts the warps of all blocks.
//!
//! A consumer walks a stage in units, all its 64-row tiles by 64 or 32 of k: a lane loads the piece that
//! is its part of four fragments of each, converts it, and their multiplies go off as one batch. Waiting
//! for all batches but the newest leaves that one running while the next unit is converted; two fragment
//! buffers take turns.

mod columns;
mod produce;
mod stage;

use super::factor;
use super::levels::RowLevels;
use super::output::{self, Tile};
use super::overlap;
use super::rows::{self, Rows};
use super::stream;
use super::table::SharedTable;
use super::term::Plan;
use super::{CodegenError, Lowered, Lowering};
use crate::intrinsics;
use crate::kir::{call, hex, int, select, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::Term;
use qtune_ir::{Producer, Raster, Split, WgmmaSchedule};

/// Bytes of one 16-byte piece, the unit of addresses here.
const PIECE: u32 = 16;
/// Pieces in a row of 64 activations.
const ROW_PIECES: u32 = 8;

pub(super) fn lower(cx: &Lowering, s: &WgmmaSchedule) -> Result<Lowered, CodegenError> {
    let term: Term = s.dequant.parse()?;
    let plan = Plan::new(&term, &cx.context)?;
    if plan.activation_scale() != 1.0 {
        let reason = "wgmma stages activations unscaled".to_string();
        return Err(qtune_ir::Rejected { reason }.into());
    }
    let table = cx.shared_table(&plan);
    let unit_k16 = s.unit_k16(cx.problem, cx.spec);
    let wgmma = Wgmma { cx, s, plan, table, unit_k16 };
    wgmma.row_levels().map_or(Ok(()), |levels| levels.check())?;
    let mut body = Body::new();
    wgmma.prologue(&mut body);
    body.roles(
        s.consumer_threads(),
        var("warp").less(s.consumer_threads() / 32),
        |body| wgmma.produce(body),
        |body| wgmma.consume(body),
    );
    let mut constants = vec![("STEPS".into(), cx.layout.steps().into())];
    if s.split.stream().is_some() {
        constants.extend(stream::constants(cx));
    }
    Ok((body.finish(), wgmma.shared(), constants))
}

struct Wgmma<'a> {
    cx: &'a Lowering<'a>,
    s: &'a WgmmaSchedule,
    plan: Plan<'a>,
    /// The codebook's table in shared memory.
    table: Option<SharedTable>,
    /// Multiplies of a row tile in a unit.
    unit_k16: u32,
}

/// A stage of the ring: its step along K, its slot, whether it is another than the block's first, and the
/// slot of the one before it.
struct Stage {
    step: Expr,
    slot: Expr,
    later: Expr,
    drained: Expr,
}

/// The slot of the stage before that in `slot`.
fn before(slot: &Expr, stages: u32) -> Expr {
    select(slot.clone().equals(0u32), int(stages - 1), slot.clone() - 1u32)
}

impl Wgmma<'_> {
    fn rows(&self) -> Rows<'_> {
        let groups = self.s.groups_per_segment(self.cx.spec, self.cx.problem.k);
        Rows { cx: self.cx, plan: &self.plan, tiles: self.s.row_tiles(), groups, factor: None }
    }

    /// The levels of the warp's rows, where group parameters are packed by them.
    fn row_levels(&self) -> Option<RowLevels<'_>> {
        let (s, cx) = (self.s, self.cx);
        Some(RowLevels {
            rows: self.rows(),
            levels: cx.layout.levels()?,
            tile: var("warp_tile"),
            tile_stride: 4,
            group: int(0),
            groups: cx.layout.groups_per_step(),
            params: self.param_offset(),
            operands: s.operand_offset(cx.problem, cx.spec),
        })
    }

    fn weight_bytes(&self) -> u32 {
        self.s.stage_weight_bytes(self.cx.spec)
    }

    fn param_bytes(&self) -> u32 {
        self.s.stage_param_bytes(self.cx.spec, self.cx.problem.k)
    }

    /// Bytes of group parameters that serve all stages and arrive with the first.
    fn once_param_bytes(&self) -> u32 {
        self.s.once_param_bytes(self.cx.spec, self.cx.problem.k)
    }

    /// Pieces of one panel of activations: all tokens by 64 of k.
    fn panel_pieces(&self) -> u32 {
        self.s.block_m * ROW_PIECES
    }

    /// 64-wide panels of k in a stage.
    fn panels(&self) -> u32 {
        self.s.block_k / 64
    }

    fn act_pieces(&self) -> u32 {
        self.s.stage_act_bytes() / PIECE
    }

    /// k over which sums run before coefficients apply, and how many such segments a stage has.
    fn segments(&self) -> u32 {
        self.s.block_k / self.s.segment_k(self.cx.spec, self.cx.problem.k)
    }

    /// Whether coefficients wait for the end of K: one quant group spans it.
    fn scales_once(&self) -> bool {
        self.cx.layout.groups() == 1 && !self.cx.spec.activations.sums_by_stage()
    }

    /// Whether tensor cores add up the totals themselves.
    fn is_direct(&self) -> bool {
        self.cx.adds_directly(&self.plan)
    }

    /// Whether sums run from the first multiply of a block to its last, across quant groups.
    fn starts_once(&self) -> bool {
        self.is_direct() || self.scales_once()
    }

    /// Where group parameters start in the ring, behind activations and weights.
    fn param_offset(&self) -> u32 {
        self.s.stages * (self.s.stage_act_bytes() + self.weight_bytes())
    }

    /// Activations first, where the swizzle wants addresses of 1024 bytes; then weights,
    /// parameters, barriers. The output tile takes the ring's place once it is drained, but under
    /// stream-K, where the ring never is.
    fn shared(&self) -> Vec<Buffer> {
        let stages = self.s.stages;
        let weights = stages * self.s.stage_act_bytes();
        let params = self.param_offset();
        let red = self.s.reduction_offset(self.cx.problem, self.cx.spec);
        let barriers = self.s.barrier_offset(self.cx.problem, self.cx.spec);
        let view = |name: &str, offset: u32, element: Type| Buffer {
            name: name.into(),
            space: Space::Shared { offset },
            element,
        };
        let mut views = vec![
            view("ring_x", 0, Type::U32x4),
            view("ring_weights", weights, Type::U32x4),
            view("red", red, Type::F32),
            view("full", barriers, Type::Barrier),
            view("empty", barriers + 8 * stages, Type::Barrier),
        ];
        if self.rows().needed() {
            views.push(view("ring_params", params, Type::U32x4));
            match self.row_levels() {
                Some(levels) => views.extend(levels.views()),
                None => views.push(view("row_pairs", params, rows::pair_type(self.cx))),
            }
        }
        views.extend(self.cx.lane_words(weights));
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
        body.comment("prologue: this block's tile, the barriers of the ring");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        body.bind("lane", Type::I32, thread.clone() % 32u32);
        body.bind("warp", Type::I32, thread.clone() / 32u32);
        match s.split {
            Split::Blocks(blocks) | Split::Cluster(blocks) => self.bind_tile(body, blocks),
            Split::Stream(_) => stream::bind_share(s.block_m, body),
        }
        body.when(thread.equals(0u32), |body| {
            body.range("stage", 0u32, s.stages, 1u32, |body, stage| {
                body.call("barrier_init", [Expr::address("full", stage.clone()), int(1)]);
                let warps = int(s.consumer_threads() / 32 * s.multicast);
                body.call("barrier_init", [Expr::address("empty", stage), warps]);
            });
            body.call("barrier_init_fence", []);
        });
        self.meet(body);
    }

    /// A barrier of the threads that come here, or of all in the cluster.
    fn meet(&self, body: &mut Body) {
        match self.s.multicast {
            1 => body.barrier(),
            _ => body.call(intrinsics::CLUSTER_BARRIER, []),
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
        if self.s.multicast > 1 {
            body.bind("rank", Type::I32, var(row) % self.s.multicast);
        }
    }

    /// The next stage; the parity of its phase turns with every lap.
    fn advance(&self, body: &mut Body, slot: &Expr, phase: &Expr) {
        let after = slot.clone() + 1u32;
        let wraps = after.clone().equals(self.s.stages);
        body.assign(slot.clone(), select(wraps, int(0), after));
        let turned = phase.clone() ^ hex(1);
        body.assign(phase.clone(), select(slot.clone().equals(0u32), turned, phase.clone()));
    }

    fn consume(&self, body: &mut Body) {
        let s = self.s;
        body.comment("consumers: convert a unit while the one before it is multiplied");
        if s.producer == Producer::Group {
            body.call("take_registers", [int(s.consumer_registers())]);
        }
        factor::bind(self.cx, body);
        let tile = body.bind("warp_tile", Type::I32, self.warp_tile());
        let slab = self.cx.slab_loads();
        body.bind("lane_piece", Type::I32, tile * (self.panels() * slab) + var("lane"));
        if let Some(levels) = self.row_levels() {
            levels.plan(body);
        }
        let tokens = call("tile_128b", [Expr::address("ring_x", int(0))]);
        body.bind("ring_tile", Type::Descriptor, tokens);
        if s.split.stream().is_none() {
            self.declare_sums(body);
        }
        self.declare_operands(body);
        if let Some(table) = &self.table {
            table.fill(body, s.consumer_threads());
        }
        if let Some(map) = self.cx.scale_map {
            map.fill(body, s.consumer_threads(), var("lane"));
        }
        if self.table.is_some() || self.cx.scale_map.is_some() {
            body.barrier();
        }
        overlap::wait_ahead(self.cx, body);
        match s.split {
            Split::Blocks(_) | Split::Cluster(_) => {
                self.mainloop(body);
                self.finish(body);
            }
            Split::Stream(_) => self.tiles_of_share(body),
        }
    }

    /// Fragments in turn, and what rows need.
    fn declare_operands(&self, body: &mut Body) {
        for (index, sum) in self.plan.sums().iter().enumerate() {
            if sum.weight.is_some() {
                let dims = [2, self.s.row_tiles(), self.unit_k16, 4];
                body.array(format!("frag{index}"), Type::U32, &dims);
            }
        }
        if self.plan.sums().iter().any(|sum| sum.weight.is_none()) {
            body.bind("ones", Type::U32, call("settled", [self.plan.both(1.0)]));
        }
        if self.rows().needed() && self.row_levels().is_none() {
            self.rows().declare(body);
        }
    }

    /// From the last multiply of a tile to its output.
    fn finish(&self, body: &mut Body) {
        let s = self.s;
        body.call(intrinsics::WAIT, [int(0)]);
        if s.split.stream().is_some() {
            self.release_last(body);
        }
        if self.scales_once() {
            self.apply_coefficients(body);
        }
        self.reduce(body);
        let tile = Tile {
            tokens: s.block_m,
            rows: s.block_n,
            pitch: s.reduction_pitch(),
            parts: 1,
            split: s.split,
            threads: s.consumer_threads(),
        };
        output::emit(self.cx, &tile, body);
    }

    /// All tiles of a block's share under stream-K. The ring runs on from one to the next: the producer
    /// knows of no tiles, so that the next one's first stages arrive while sums are stored.
    fn tiles_of_share(&self, body: &mut Body) {
        let stages = self.s.stages;
        let slot = body.variable("slot", Type::I32, int(0));
        let phase = body.variable("phase", Type::U32, hex(0));
        body.section("mainloop: the share's tiles, stage by stage");
        stream::for_tiles(self.s.raster, body, |body| {
            self.declare_sums(body);
            body.range("step", var("from"), var("to"), 1u32, |body, step| {
                let later = var("from").less(step.clone());
                let drained = body.bind("drained", Type::I32, before(&slot, stages));
                let step = step - var("tile_begin");
                let stage = Stage { step, slot: slot.clone(), later, drained };
                self.compute_stage(body, &phase, &stage);
                self.advance(body, &slot, &phase);
            });
            self.finish(body);
        });
    }

    /// The last stage of a tile has no next one to release it.
    fn release_last(&self, body: &mut Body) {
        body.call("warp_sync", []);
        body.when(var("lane").equals(0u32), |body| {
            let drained = before(&var("slot"), self.s.stages);
            body.call("barrier_arrive", [Expr::address("empty", drained)]);
        });
    }

    /// Whole laps of the ring, in which slots are constants, then what is left stage by stage.
    fn mainloop(&self, body: &mut Body) {
        let stages = self.s.stages;
        body.section("mainloop: a lap of the ring at a time");
        let phase = body.variable("phase", Type::U32, hex(0));
        let end = var("last") - (stages - 1);
        body.range("lap", var("first"), end, stages, |body, lap| {
            body.unrolled("slot", stages, |body, slot| {
                let step = lap.clone() + slot.clone();
                let later = int(0).less(slot.clone()).or(var("first").less(lap));
                let drained = (slot.clone() + (stages - 1)) % stages;
                self.compute_stage(body, &phase, &Stage { step, slot, later, drained });
            });
            body.assign(phase.clone(), phase.clone() ^ hex(1));
        });
        body.section("the stages of an incomplete lap");
        let rest = var("last") - (var("last") - var("first")) % stages;
        let rest = body.bind("rest", Type::I32, rest);
        body.range("step", rest.clone(), var("last"), 1u32, |body, step| {
            let slot = body.bind("slot", Type::I32, step.clone() - rest);
            let later = var("first").less(step.clone());
            let drained = before(&slot, stages);
            self.compute_stage(body, &phase, &Stage { step, slot, later, drained });
        });
    }

    /// The first 16-row tile of this warp: a warpgroup's row tiles lie one after the other, each
    /// of them four tiles of 16, one for each warp.
    fn warp_tile(&self) -> Expr {
        var("warp") / 4u32 * (4 * self.s.row_tiles()) + var("warp") % 4u32
    }

    fn sum_name(&self, index: usize) -> String {
        match self.is_direct() {
            true => "total".into(),
            false => format!("group_sum{index}"),
        }
    }

    /// Accumulators of the sums, which the first multiply overwrites, and the totals, which start
    /// at zero.
    fn declare_sums(&self, body: &mut Body) {
        let (rows, count) = (self.s.row_tiles(), self.s.accumulators());
        if self.is_direct() {
            return body.array("total", self.cx.sum_type(), &[rows, count]);
        }
        for (index, sum) in self.plan.sums().iter().enumerate() {
            match sum.weight {
                Some(_) => body.array(self.sum_name(index), Type::F32, &[rows, count]),
                None => body.array(self.sum_name(index), Type::F32, &[1, count]),
            }
        }
        body.zeros("total", Type::F32, &[rows, count]);
    }
}
