//! The `wgmma` family: `C^T = W A^T`. Dequantized weights are the register operand of
//! `wgmma.m64nNk16`, 64 rows for a warpgroup, tokens the columns; activations stay in shared memory.
//!
//! The producer fills a ring: one bulk copy each for the weights and parameters of a stage, which
//! lie contiguous, and one tensor copy for every 64 of k of the activations, which the hardware
//! swizzles. A stage has two barriers: `full` counts the bytes of its copies, `empty` the consumer
//! warps that are done with it.
//!
//! A consumer walks a stage in units, all its 64-row tiles by 64 or 32 of k: a lane loads the piece that
//! is its part of four fragments of each, converts it, and their multiplies go off as one batch. Waiting
//! for all batches but the newest leaves that one running while the next unit is converted; two fragment
//! buffers take turns.

use super::octet::Octet;
use super::output::{self, Tile};
use super::overlap;
use super::rows::{self, Rows};
use super::stream::{self, Incoming};
use super::table::SharedTable;
use super::term::Plan;
use super::{beyond, CodegenError, Lowered, Lowering};
use crate::intrinsics::{self, multiply_name};
use crate::kir::{call, hex, int, load, select, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::Term;
use qtune_ir::{DType, Producer, Raster, Split, WgmmaSchedule, PRODUCER_REGISTERS};

/// Bytes of one 16-byte piece, the unit of addresses here.
const PIECE: u32 = 16;
/// Multiplies of a row tile by a panel: 64 of k.
const PANEL_K16: u32 = 4;
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

/// A stage of the ring: its slot, whether it is another than the block's first, and the slot of the one
/// before it.
struct Stage {
    slot: Expr,
    later: Expr,
    drained: Expr,
}

/// The slot of the stage before that in `slot`.
fn before(slot: &Expr, stages: u32) -> Expr {
    select(slot.clone().equals(0u32), int(stages - 1), slot.clone() - 1u32)
}

/// A unit of work: a panel within its segment and within its stage, and a part of it.
struct Unit<'a> {
    panel: &'a Expr,
    whole: &'a Expr,
    part: &'a Expr,
}

impl Wgmma<'_> {
    fn rows(&self) -> Rows<'_> {
        let groups = self.s.groups_per_segment(self.cx.spec, self.cx.problem.k);
        Rows { cx: self.cx, plan: &self.plan, tiles: self.s.row_tiles(), groups }
    }

    fn weight_bytes(&self) -> u32 {
        self.s.stage_weight_bytes(self.cx.spec)
    }

    fn param_bytes(&self) -> u32 {
        self.s.stage_param_bytes(self.cx.spec, self.cx.problem.k)
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
        self.cx.layout.groups() == 1
    }

    /// Whether sums run from the first multiply of a block to its last, across quant groups.
    fn starts_once(&self) -> bool {
        self.plan.is_direct() || self.scales_once()
    }

    /// Activations first, where the swizzle wants addresses of 1024 bytes; then weights,
    /// parameters, barriers. The output tile takes the ring's place once it is drained, but under
    /// stream-K, where the ring never is.
    fn shared(&self) -> Vec<Buffer> {
        let stages = self.s.stages;
        let weights = stages * self.s.stage_act_bytes();
        let params = weights + stages * self.weight_bytes();
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
            views.push(view("row_pairs", params, rows::pair_type(self.cx)));
        }
        views.extend(self.cx.lane_words(weights));
        if self.s.split.in_global() {
            views.push(view("arrived", red, Type::U32));
        }
        views.extend(output::pair_view(self.cx, red));
        views.extend(self.table.iter().flat_map(SharedTable::views));
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
                let warps = int(s.consumer_threads() / 32);
                body.call("barrier_init", [Expr::address("empty", stage), warps]);
            });
            body.call("barrier_init_fence", []);
        });
        body.barrier();
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

    /// One lane issues all copies.
    fn produce(&self, body: &mut Body) {
        body.comment("producer: refill each stage once all consumer warps are done with it");
        if self.s.producer == Producer::Group {
            body.call("give_registers", [int(PRODUCER_REGISTERS)]);
        }
        // The compiler knows that one lane is elected: it need not ask how many are there to copy.
        let mut elected = body.bind("elected", Type::Bool, call("elect", []));
        if self.s.producer == Producer::Group {
            elected = var("warp").equals(self.s.consumer_threads() / 32).and(elected);
        }
        body.when(elected, |body| {
            let slot = body.variable("slot", Type::I32, int(0));
            // A new barrier passes for one whose phase of parity 1 is complete: all stages are free.
            let phase = body.variable("phase", Type::U32, hex(1));
            let from = self.fill_ahead(body, &phase);
            body.range("step", from, var("last"), 1u32, |body, step| {
                body.call("barrier_wait", [Expr::address("empty", slot.clone()), phase.clone()]);
                let stage = self.incoming(body, &step);
                self.fill_constants(body, &stage, &slot);
                self.fill_tokens(body, &stage, &slot);
                self.advance(body, &slot, &phase);
            });
        });
    }

    /// A dependent launch fills the ring with weights, waits for the kernel ahead, then adds the
    /// activations: the producer's first lap. Returns the step that the ring is filled to.
    fn fill_ahead(&self, body: &mut Body, phase: &Expr) -> Expr {
        if !self.cx.overlap.pdl {
            return var("first");
        }
        let stages = self.s.stages;
        let lap = |body: &mut Body, fill: &dyn Fn(&mut Body, &Incoming, &Expr)| {
            body.range("ahead", 0u32, stages, 1u32, |body, ahead| {
                let step = body.bind("step", Type::I32, var("first") + ahead.clone());
                body.when(step.clone().less(var("last")), |body| {
                    let stage = self.incoming(body, &step);
                    fill(body, &stage, &ahead);
                });
            });
        };
        lap(body, &|body, stage, slot| self.fill_constants(body, stage, slot));
        overlap::wait_ahead(self.cx, body);
        lap(body, &|body, stage, slot| self.fill_tokens(body, stage, slot));
        body.assign(phase.clone(), hex(0));
        var("first") + stages
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

    /// Weights and group parameters of a stage; its barrier expects the activations too.
    fn fill_constants(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let s = self.s;
        let full = Expr::address("full", slot.clone());
        let bytes = s.stage_bytes(self.cx.spec, self.cx.problem.k);
        body.call("barrier_expect", [full.clone(), int(bytes)]);
        let stage = body.bind("stage", Type::I32, stage.index.clone());
        let mut parts = vec![("ring_weights", "weights", self.weight_bytes())];
        if self.rows().needed() {
            parts.push(("ring_params", "params", self.param_bytes()));
        }
        for (ring, global, bytes) in parts {
            let to = Expr::address(ring, slot.clone() * (bytes / PIECE));
            let from = Expr::address(global, stage.clone() * (bytes / PIECE));
            body.call("bulk_copy", [to, from, int(bytes), full.clone()]);
        }
    }

    fn fill_tokens(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let s = self.s;
        let full = Expr::address("full", slot.clone());
        body.unrolled("panel", self.panels(), |body, panel| {
            let to = slot.clone() * self.act_pieces() + panel.clone() * self.panel_pieces();
            let column = stage.step.clone() * s.block_k + panel * 64u32;
            let row = stage.first_token.clone();
            body.call("tensor_copy", [Expr::address("ring_x", to), var("x"), column, row, full]);
        });
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
        let tile = body.bind("warp_tile", Type::I32, self.warp_tile());
        let slab = self.cx.slab_loads();
        body.bind("lane_piece", Type::I32, tile * (self.panels() * slab) + var("lane"));
        let tokens = call("tile_128b", [Expr::address("ring_x", int(0))]);
        body.bind("ring_tile", Type::Descriptor, tokens);
        if s.split.stream().is_none() {
            self.declare_sums(body);
        }
        self.declare_operands(body);
        if let Some(table) = &self.table {
            table.fill(body, s.consumer_threads());
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
        if self.rows().needed() {
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
                let later = var("from").less(step);
                let drained = body.bind("drained", Type::I32, before(&slot, stages));
                let stage = Stage { slot: slot.clone(), later, drained };
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
                let later = int(0).less(slot.clone()).or(var("first").less(lap));
                let drained = (slot.clone() + (stages - 1)) % stages;
                self.compute_stage(body, &phase, &Stage { slot, later, drained });
            });
            body.assign(phase.clone(), phase.clone() ^ hex(1));
        });
        body.section("the stages of an incomplete lap");
        let rest = var("last") - (var("last") - var("first")) % stages;
        let rest = body.bind("rest", Type::I32, rest);
        body.range("step", rest.clone(), var("last"), 1u32, |body, step| {
            let slot = body.bind("slot", Type::I32, step.clone() - rest);
            let later = var("first").less(step);
            let drained = before(&slot, stages);
            self.compute_stage(body, &phase, &Stage { slot, later, drained });
        });
    }

    /// The first 16-row tile of this warp: a warpgroup's row tiles lie one after the other, each
    /// of them four tiles of 16, one for each warp.
    fn warp_tile(&self) -> Expr {
        var("warp") / 4u32 * (4 * self.s.row_tiles()) + var("warp") % 4u32
    }

    fn sum_name(&self, index: usize) -> String {
        match self.plan.is_direct() {
            true => "total".into(),
            false => format!("group_sum{index}"),
        }
    }

    /// Accumulators of the sums, which the first multiply overwrites, and the totals, which start
    /// at zero.
    fn declare_sums(&self, body: &mut Body) {
        let (rows, count) = (self.s.row_tiles(), self.s.accumulators());
        if self.plan.is_direct() {
            return body.array("total", Type::F32, &[rows, count]);
        }
        for (index, sum) in self.plan.sums().iter().enumerate() {
            match sum.weight {
                Some(_) => body.array(self.sum_name(index), Type::F32, &[rows, count]),
                None => body.array(self.sum_name(index), Type::F32, &[1, count]),
            }
        }
        body.zeros("total", Type::F32, &[rows, count]);
    }

    fn compute_stage(&self, body: &mut Body, phase: &Expr, stage: &Stage) {
        let slot = &stage.slot;
        body.call("barrier_wait", [Expr::address("full", slot.clone()), phase.clone()]);
        let loads = self.weight_bytes() / (4 * self.cx.packing().load_words());
        let weights = slot.clone() * loads + var("lane_piece");
        body.bind("weights_at", Type::I32, weights);
        let tokens = [var("ring_tile"), slot.clone() * self.act_pieces()];
        body.bind("tokens_at", Type::Descriptor, call("tile_behind", tokens));
        let segments = self.segments();
        let panels = self.panels() / segments;
        body.unrolled("segment", segments, |body, segment| {
            if self.rows().needed() {
                self.load_params(body, slot, &segment);
                self.rows().prepare(body);
            }
            body.unrolled("panel", panels, |body, panel| {
                let whole = segment.clone() * panels + panel.clone();
                self.load_words(body, &whole);
                body.unrolled("part", self.parts(), |body, part| {
                    let unit = Unit { panel: &panel, whole: &whole, part: &part };
                    self.compute_unit(body, stage, unit);
                });
            });
            if !self.starts_once() {
                body.call(intrinsics::WAIT, [int(0)]);
                self.apply_coefficients(body);
            }
        });
    }

    fn load_params(&self, body: &mut Body, slot: &Expr, segment: &Expr) {
        let (groups, within) = (self.cx.layout.groups_per_step(), self.rows().groups);
        let group = match (groups, within) {
            (1, _) => slot.clone(),
            (_, 1) => slot.clone() * groups + segment.clone(),
            _ => slot.clone() * groups + segment.clone() * within,
        };
        let first = group * (self.s.block_n / 2) + var("warp_tile") * 8u32 + var("lane") / 4u32;
        self.rows().load(body, |place| {
            let (row_part, inner) = self.rows().tile_and_group(place);
            match within {
                1 => first.clone() + row_part * 32u32,
                _ => first.clone() + inner * (self.s.block_n / 2) + row_part * 32u32,
            }
        });
    }

    /// Units of a panel.
    fn parts(&self) -> u32 {
        PANEL_K16 / self.unit_k16
    }

    /// The codes of a panel of all row tiles.
    fn load_words(&self, body: &mut Body, whole: &Expr) {
        let (rows, slab) = (self.s.row_tiles(), self.cx.slab_loads());
        body.array("words", Type::U32, &[rows, self.cx.packing().words()]);
        body.unrolled("row_part", rows, |body, row_part| {
            let at = row_part.clone() * (4 * self.panels() * slab) + whole.clone() * slab;
            let at = var("weights_at") + at;
            self.cx.load_piece(
                body,
                |word| Expr::at("words", [row_part.clone(), int(word)]),
                |distance| load(self.cx.lane_view(), beyond(at.clone(), distance)),
            );
        });
    }

    /// Converts and multiplies a unit. Row tiles take turns within a k16, as they read the same
    /// activations.
    fn compute_unit(&self, body: &mut Body, stage: &Stage, unit: Unit) {
        let Unit { panel, whole, part } = unit;
        let turn = match self.parts() {
            1 => whole.clone() % 2u32,
            _ => part.clone(),
        };
        let first = part.clone() * self.unit_k16;
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            body.unrolled("k16", self.unit_k16, |body, k16| {
                let octet = first.clone() + k16.clone();
                self.convert(body, &octet, [&turn, &row_part, &k16]);
            });
        });
        body.call(intrinsics::FENCE, []);
        let column = if self.starts_once() { whole } else { panel };
        body.unrolled("k16", self.unit_k16, |body, k16| {
            let pieces = whole.clone() * self.panel_pieces();
            let pieces = pieces + (first.clone() + k16.clone()) * 2u32;
            let inner = int(0).less(column.clone() + part.clone() + k16.clone());
            let keep = match self.starts_once() {
                true => stage.later.clone().or(inner),
                false => inner,
            };
            body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
                let place = [&turn, &row_part, &k16];
                self.multiply(body, place, pieces.clone(), keep.clone());
            });
        });
        body.call(intrinsics::COMMIT, []);
        body.call(intrinsics::WAIT, [int(1)]);
        self.release_previous(body, stage, whole.clone() + part.clone());
    }

    /// The first unit of a stage has waited for every multiply of the stage before it.
    fn release_previous(&self, body: &mut Body, stage: &Stage, unit: Expr) {
        body.when_uniform(unit.equals(0u32), |body| {
            body.call("warp_sync", []);
            body.when(stage.later.clone().and(var("lane").equals(0u32)), |body| {
                let drained = Expr::address("empty", stage.drained.clone());
                body.call("barrier_arrive", [drained]);
            });
        });
    }

    fn convert(&self, body: &mut Body, index: &Expr, [turn, row_part, k16]: [&Expr; 3]) {
        let word = |w| Expr::at("words", [row_part.clone(), w]);
        let octet = Octet::load(self.cx.packing(), body, index, word);
        let rows = self.rows();
        let group = index.clone() / (PANEL_K16 / rows.groups).max(1);
        let prepared = rows.prepared(&rows.place(row_part, group));
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let Some(weight) = sum.weight else { continue };
            let pairs = self.plan.pairs(body, index, weight, &octet, &prepared);
            for (pair, value) in pairs.into_iter().enumerate() {
                let place = [turn.clone(), row_part.clone(), k16.clone(), int(pair as u32)];
                body.assign(Expr::at(format!("frag{index}"), place), call("settled", [value]));
            }
        }
    }

    /// All sums of one k16. A fragment of ones adds up the activations of every token, in the very
    /// registers where the corrections are needed; the first row tile does so for all.
    fn multiply(
        &self,
        body: &mut Body,
        [turn, row_part, k16]: [&Expr; 3],
        pieces: Expr,
        keep: Expr,
    ) {
        let operands = match self.cx.problem.act {
            DType::Bf16 => "bf16",
            _ => "f16",
        };
        let name = multiply_name(operands, self.s.block_m);
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let sums = self.sum_name(index);
            let args = |row: Expr, a: Vec<Expr>| {
                let mut args = vec![Expr::at(sums, [row])];
                args.extend(a);
                args.extend([var("tokens_at"), pieces.clone(), keep.clone()]);
                args
            };
            match sum.weight {
                Some(_) => {
                    let place =
                        |pair: u32| [turn.clone(), row_part.clone(), k16.clone(), int(pair)];
                    let frag = |pair| Expr::at(format!("frag{index}"), place(pair));
                    body.call(name, args(row_part.clone(), (0..4).map(frag).collect()));
                }
                None => {
                    let ones = args(int(0), vec![var("ones"); 4]);
                    match self.s.row_tiles() {
                        1 => body.call(name, ones),
                        _ => body.when_uniform(row_part.clone().equals(0u32), |body| {
                            body.call(name, ones);
                        }),
                    }
                }
            }
        }
    }

    /// Adds the sums to the totals with the rows' coefficients, in f32.
    fn apply_coefficients(&self, body: &mut Body) {
        if self.plan.is_direct() {
            return;
        }
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            for half in 0..2u32 {
                for (name, sum, value) in self.rows().coefficients(&row_part, half as usize) {
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
        half: u32,
        sum: usize,
        coefficient: Expr,
    ) {
        let name = self.sum_name(sum);
        let row = match self.plan.sums()[sum].weight {
            Some(_) => row_part.clone(),
            None => int(0),
        };
        body.unrolled("token_part", self.s.block_m / 8, |body, tile| {
            for c in [2 * half, 2 * half + 1] {
                let at = tile.clone() * 4u32 + c;
                let total = Expr::at("total", [row_part.clone(), at.clone()]);
                let value = Expr::at(&*name, [row.clone(), at]);
                let fma = call("fma_f32", [coefficient.clone(), value, total.clone()]);
                body.assign(total, fma);
            }
        });
    }

    /// Every warp's totals to `red[token][row]`.
    fn reduce(&self, body: &mut Body) {
        let s = self.s;
        body.section("the output tile meets in shared memory");
        body.barrier();
        body.unrolled("row_part", s.row_tiles(), |body, row_part| {
            body.unrolled("token_part", s.block_m / 8, |body, tile| {
                for c in 0..4u32 {
                    let token = tile.clone() * 8u32 + var("lane") % 4u32 * 2u32 + (c % 2);
                    let row = (var("warp_tile") + row_part.clone() * 4u32) * 16u32;
                    let row = row + var("lane") / 4u32 + 8 * (c / 2);
                    let total = Expr::at("total", [row_part.clone(), tile.clone() * 4u32 + c]);
                    let total = self.plan.finished(total, c as usize / 2);
                    body.store("red", token * s.reduction_pitch() + row, total);
                }
            });
        });
    }
}
