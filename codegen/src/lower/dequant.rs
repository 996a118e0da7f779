//! The `dequant` family: two functions that take turns, slab by slab. The first one dequantizes the
//! rows of a slab, here; the second multiplies them: an `mma` or `wgmma` main loop whose weights are
//! floats already.
//!
//! A thread takes one piece of codes at a time, four A fragments of its lane, and writes a piece of
//! floats, in the order in which the multiplication's lanes load them: both sides are
//! coalesced, and neither goes through shared memory. For a library that multiplies, the floats go into rows
//! ([`row_major`]).

mod row_major;

use super::columns::Columns;
use super::factor;
use super::octet::Octet;
use super::rows::{self, Rows};
use super::table::SharedTable;
use super::term::{Plan, Prepared};
use super::vectors;
use super::{beyond, load_type, CodegenError, Lowered, Lowering, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{call, int, load, select, var, Body, Buffer, Expr, Parameter, Space, Type};
use crate::layout::Layout;
use qtune_ir::dequant::{PairTable, Term};
use qtune_ir::{CodePacking, DenseGemm, DequantSchedule, VectorCodes, WeightSpec};

/// Threads of a block that dequantizes.
const THREADS: u32 = 256;
/// Pieces of one such block, about: enough to hide a block's start, few enough to fill the GPU.
const BLOCK_PIECES: u32 = 8 * THREADS;
/// Lanes of a warp: pieces of 64 of k of a 16-row tile.
const LANES: u32 = 32;
/// k of a chunk.
const CHUNK_K: u32 = 64;

/// The function that dequantizes, then the one that multiplies.
pub(super) fn lower(cx: &Lowering, s: &DequantSchedule) -> Result<Vec<Part>, CodegenError> {
    let term: Term = s.gemm.dequant().parse()?;
    let plan = Plan::new(&term, &cx.context)?;
    if !plan.is_direct() || plan.activation_scale() != 1.0 {
        let reason = "a slab's weights are complete before anything is multiplied".to_string();
        return Err(qtune_ir::Rejected { reason }.into());
    }
    let dense = WeightSpec::dense();
    let multiply = Lowering { spec: &dense, context: cx.context.clone(), ..*cx };
    let multiply = multiplication(&multiply, s)?;
    let table = cx.shared_table(&plan);
    let slab = Slab { cx, s, plan, table };
    let mut arguments = vec![Argument::Weights, Argument::Params, Argument::Slab];
    arguments.retain(|a| *a != Argument::Params || slab.rows().needed());
    arguments.extend(cx.has_table().then_some(Argument::Table));
    arguments.push(Argument::FirstTile);
    let parameter = |argument: &Argument| match argument {
        Argument::Params => reads("row_pairs", rows::pair_type(cx)),
        Argument::Weights => reads("weights", load_type(cx.packing())),
        Argument::Slab if slab.is_row_major() => {
            let (space, element) = (Space::GlobalWrite, Type::U32x2);
            Parameter::Buffer(Buffer { name: "slab".into(), space, element })
        }
        other => cx.parameter(*other),
    };
    let dequantize = Part {
        role: Role::Dequantize,
        parameters: arguments.iter().map(parameter).collect(),
        arguments,
        threads: THREADS,
        resident: None,
        cluster: [1; 3],
        shared_bytes: PairTable::of_term(s.gemm.dequant()).map_or(0, PairTable::bytes),
        // Both functions declare the same memory.
        shared_align: multiply.shared_align,
        lowered: slab.lower(),
        library: None,
    };
    Ok(vec![dequantize, multiply])
}

/// What multiplies a slab: one of our own main loops, or a library.
pub(super) fn multiplication(cx: &Lowering, s: &DequantSchedule) -> Result<Part, CodegenError> {
    match s.gemm.own() {
        Some(own) => cx.part(&own),
        None => Ok(row_major::multiplication(cx, s)),
    }
}

/// An operand that goes straight from global memory to registers.
fn reads(name: &str, element: Type) -> Parameter {
    Parameter::Buffer(Buffer { name: name.into(), space: Space::GlobalRead, element })
}

/// Stages of a row tile that one block dequantizes.
fn block_stages(s: &DequantSchedule, layout: &Layout) -> u32 {
    (BLOCK_PIECES / stage_pieces(s, layout)).max(1)
}

/// Pieces of codes of a row tile in a stage.
fn stage_pieces(s: &DequantSchedule, layout: &Layout) -> u32 {
    layout.tile_rows() / 16 * (s.block_k() / CHUNK_K) * LANES
}

/// Thread blocks that share the dequantization of a row tile.
pub(crate) fn slab_parts(s: &DequantSchedule, layout: &Layout) -> u32 {
    layout.steps().div_ceil(block_stages(s, layout))
}

struct Slab<'a> {
    cx: &'a Lowering<'a>,
    s: &'a DequantSchedule,
    plan: Plan<'a>,
    /// The codebook's table in shared memory.
    table: Option<SharedTable>,
}

impl Slab<'_> {
    fn rows(&self) -> Rows<'_> {
        let factor = self.cx.has_factor().then(|| var("factor"));
        Rows { cx: self.cx, plan: &self.plan, tiles: 1, groups: 1, factor }
    }

    /// Whether the slab is a row-major matrix.
    fn is_row_major(&self) -> bool {
        matches!(self.s.gemm, DenseGemm::Library(_))
    }

    /// 64-wide chunks of k in a stage.
    fn chunks(&self) -> u32 {
        self.s.block_k() / CHUNK_K
    }

    fn stage_pieces(&self) -> u32 {
        stage_pieces(self.s, self.cx.layout)
    }

    fn lower(&self) -> Lowered {
        let mut body = Body::new();
        body.comment("prologue: this block's row tile and its part of K");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        body.bind("lane", Type::I32, thread.clone() % 32u32);
        if self.cx.has_factor() {
            // Tiles start at even rows, and so do the pairs of rows g and g+8.
            let factor = factor::of_row(self.cx, var("lane") / 4u32 % 2u32);
            body.bind("factor", Type::F32, factor);
        }
        body.bind("slab_tile", Type::I32, var("blockIdx.x"));
        body.bind("row_tile", Type::I32, var("first_tile") + var("slab_tile"));
        if let Some(table) = &self.table {
            table.fill(&mut body, THREADS);
            body.barrier();
        }
        let stages = block_stages(self.s, self.cx.layout);
        let first = body.bind("first", Type::I32, var("blockIdx.y") * stages);
        let last = body.bind("last", Type::I32, first.clone() + stages);
        let last = select(last.clone().less(var("STEPS")), last, var("STEPS"));
        let end = body.bind("end", Type::I32, last * self.stage_pieces());
        body.section("every piece of codes becomes a piece of floats");
        let from = first * self.stage_pieces() + thread;
        body.range("piece", from, end, THREADS, |body, piece| self.dequantize(body, &piece));
        let shared = self.table.iter().flat_map(SharedTable::views).collect();
        (body.finish(), shared, vec![("STEPS".into(), self.cx.layout.steps().into())])
    }

    /// One piece of codes of this row tile: the pieces of both sides lie in the same order.
    fn dequantize(&self, body: &mut Body, piece: &Expr) {
        let (pieces, packing) = (self.stage_pieces(), self.cx.packing());
        let warp = piece.clone() / LANES;
        let codes = var("row_tile") * var("STEPS") * (pieces / LANES) + warp.clone();
        let codes = codes * self.cx.slab_loads() + var("lane");
        let codes = body.bind("codes", Type::I32, codes);
        body.array("words", Type::U32, &[packing.words()]);
        let word = |word: Expr| Expr::at("words", [word]);
        if self.cx.vectors().is_none() {
            self.cx.load_piece(
                body,
                |w| word(int(w)),
                |distance| load("weights", beyond(codes.clone(), distance)),
            );
        }
        if self.is_row_major() {
            row_major::bind_place(body, &warp, self.cx.problem.k);
        } else {
            let to = var("slab_tile") * var("STEPS") * (pieces / LANES) + warp;
            body.bind("to", Type::I32, to * (LANES * CodePacking::FLOATS.loads()) + var("lane"));
        }
        if self.rows().needed() {
            body.bind("stage", Type::I32, piece.clone() / pieces);
            body.bind("chunk", Type::I32, piece.clone() % pieces / LANES);
        }
        let halves = self.parts();
        body.unrolled("half", halves, |body, half| {
            if self.rows().needed() && self.columns().is_none() {
                self.load_params(body, &half);
            }
            body.unrolled("k16", 4 / halves, |body, k16| {
                let k16 = half.clone() * (4 / halves) + k16;
                let prepared = self.prepared(body, &k16);
                let octet = match self.cx.vectors() {
                    Some(vectors) => self.vectors(body, vectors, &codes, &k16),
                    None => Octet::load(packing, body, &k16, word),
                };
                self.store(body, &octet, &k16, &prepared);
            });
        });
    }

    /// The columns' parameters, where rows share them.
    fn columns(&self) -> Option<Columns<'_>> {
        Columns::of(self.cx, &self.plan)
    }

    /// The operands of a k16's weights: those of its rows, or of its columns, which are made now.
    fn prepared(&self, body: &mut Body, k16: &Expr) -> Prepared {
        let Some(columns) = self.columns() else { return self.rows().prepared(&int(0)) };
        let (layout, chunks) = (self.cx.layout, self.chunks());
        let set = var("row_tile") * layout.param_sets() + var("stage");
        let row = match layout.tile_param_rows() {
            1 => set,
            rows => set * rows + var("chunk") / chunks * 16u32 / layout.sharing().rows(),
        };
        let k16 = var("chunk") % chunks * (CHUNK_K / 16) + k16.clone();
        let pair = row * (self.s.block_k() / 2) + k16 * 8u32 + var("lane") % 4u32;
        let pair = body.bind("pair_at", Type::I32, pair);
        columns.prepare(body, "row_pairs", &pair);
        columns.prepared()
    }

    /// The numbers of this lane's weights of a k16. Four lanes share vectors, and their codes lie side by side.
    fn vectors(&self, body: &mut Body, vectors: VectorCodes, codes: &Expr, k16: &Expr) -> Octet {
        let word = |word: Expr| Expr::at("words", [word]);
        let of_lane = codes.clone() - var("lane") + k16.clone() * 8u32 + var("lane") / 4u32;
        self.cx.load_piece(body, |w| word(int(w)), |_| load("weights", of_lane.clone()));
        vectors::fragment(self.cx, body, vectors, word)
    }

    /// Parts of a chunk with parameters of their own: halves or quarters.
    fn parts(&self) -> u32 {
        let k = self.cx.problem.k;
        match self.cx.spec.group.size(k) {
            _ if self.columns().is_some() => 1,
            group if self.rows().needed() && group < CHUNK_K.min(k) => CHUNK_K / group,
            _ => 1,
        }
    }

    fn load_params(&self, body: &mut Body, half: &Expr) {
        let layout = self.cx.layout;
        let (groups, chunks) = (layout.groups_per_step(), self.chunks());
        let stage = match layout.steps_per_param_set() {
            1 => var("stage"),
            shared => var("stage") / shared,
        };
        let set = (var("row_tile") * layout.param_sets() + stage) * groups;
        let set = match groups {
            1 => set,
            _ => {
                let k = var("chunk") % chunks * CHUNK_K
                    + half.clone() * (CHUNK_K / self.parts().max(2));
                set + k / self.cx.spec.group.size(self.cx.problem.k)
            }
        };
        let rows = self.cx.layout.tile_rows();
        let pair = set * (rows / 2) + var("chunk") / chunks * 8u32 + var("lane") / 4u32;
        let pair = body.bind("pair_at", Type::I32, pair);
        self.rows().declare(body);
        self.rows().load(body, |_| pair.clone());
        self.rows().prepare(body);
    }

    fn store(&self, body: &mut Body, octet: &Octet, k16: &Expr, prepared: &Prepared) {
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let Some(weight) = sum.weight else { continue };
            let pairs = self.plan.pairs(body, index, weight, octet, prepared);
            if self.is_row_major() {
                row_major::store(body, pairs, k16, self.cx.problem.k);
                continue;
            }
            let to = var("to") + k16.clone() * LANES;
            body.store("slab", to, call("pack_u32x4", pairs));
        }
    }
}
