//! The epilogue that all families share: partial sums meet in shared memory, split-K blocks meet
//! in global memory, and the result gets its bias, the problem's epilogue and its output type.
//!
//! Split K is deterministic: every block stores its partial tile, the last one to arrive adds all
//! of them in order. Nobody waits, so blocks may run in any order. Stream-K does the same for the
//! tiles that several blocks share. The blocks of a cluster read each other's sums in shared memory
//! instead, each for its part of the tile.

use super::{factor, overlap, stream, Lowering};
use crate::intrinsics::CLUSTER_BARRIER;
use crate::kir::{call, int, load, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::{DType, Epilogue, Group, Split};

/// The tile that a block reduces: the buffer `red` holds `parts` copies of `[tokens][pitch]` f32.
pub(super) struct Tile {
    pub tokens: u32,
    pub rows: u32,
    pub pitch: u32,
    pub parts: u32,
    pub split: Split,
    pub threads: u32,
}

/// Emits the epilogue. `row_tile`, `token_tile`, `split` and `thread` are bound by the prologue, or
/// those of [`stream`]; `red` and `arrived` are shared views; all warps have stored to `red` before
/// this.
pub(super) fn emit(cx: &Lowering, tile: &Tile, body: &mut Body) {
    let output = Output { cx, tile, paired: is_paired(cx) };
    match tile.split {
        Split::Blocks(_) | Split::Cluster(_) => overlap::prefetch_next(cx, tile.threads, body),
        Split::Stream(_) if cx.overlap.prefetch => {
            let at_last_tile = var("to").equals(var("last"));
            body.when(at_last_tile, |body| overlap::prefetch_next(cx, tile.threads, body));
        }
        Split::Stream(_) => {}
    }
    body.section("epilogue: add the warps' partial sums");
    body.barrier();
    match tile.split {
        Split::NONE => output.whole(body),
        Split::Cluster(blocks) => output.meet_in_cluster(body, blocks),
        Split::Blocks(blocks) => {
            let id = var("token_tile") * cx.layout.tiles() + var("row_tile");
            let counter = body.bind("tile_id", Type::I32, id);
            let slot = |part: Expr| var("tile_id") * blocks + part;
            let last = Expr::Hex(blocks - 1);
            let parts = Parts::Unrolled(blocks);
            output.meet(body, &Meeting { counter, own: var("split"), last, parts, slot: &slot });
        }
        Split::Stream(_) => {
            body.when_uniform(stream::has_whole_tile(), |body| output.whole(body));
            body.when_uniform(stream::shares_tile(), |body| {
                stream::bind_partners(body);
                let (counter, own) = (var("tile"), var("blockIdx.x"));
                let last = (var("last_block") - var("first_block")).cast(Type::U32);
                let parts = Parts::Counted(var("first_block"), var("last_block") + 1u32);
                output.meet(body, &Meeting { counter, own, last, parts, slot: &stream::slot });
            });
        }
    }
}

/// How the partial sums of a tile meet in global memory.
struct Meeting<'a> {
    /// The tile's counter of arrivals.
    counter: Expr,
    /// This block's part.
    own: Expr,
    /// Arrivals before the last one.
    last: Expr,
    parts: Parts,
    /// The place of a part among all partial tiles.
    slot: &'a dyn Fn(Expr) -> Expr,
}

/// The parts of a tile, in the order in which they are added.
enum Parts {
    /// So many.
    Unrolled(u32),
    /// From the first to the second, exclusive.
    Counted(Expr, Expr),
}

/// Whether gate and up rows lie by turns and give one output column together.
fn is_paired(cx: &Lowering) -> bool {
    cx.problem.epilogue == Epilogue::SiluMul
}

/// A second view of `red`, at byte `offset` of shared memory, where rows are read in pairs.
pub(super) fn pair_view(cx: &Lowering, offset: u32) -> Option<Buffer> {
    let view = || Buffer {
        name: "red_pairs".into(),
        space: Space::Shared { offset },
        element: Type::U32x2,
    };
    is_paired(cx).then(view)
}

/// Names of the sums that make an output column.
const SINGLE: [&str; 1] = ["sum"];
const PAIR: [&str; 2] = ["gate", "up"];

/// What every part of the epilogue knows.
struct Output<'a> {
    cx: &'a Lowering<'a>,
    tile: &'a Tile,
    paired: bool,
}

/// One element of the tile.
struct At {
    /// Row, or pair of rows, in the tile.
    place: Expr,
    token: Expr,
    /// `token * rows + row`, or the same in pairs.
    index: Expr,
}

impl Output<'_> {
    /// All rows of the tile, rows fastest, spread over the block's threads.
    fn for_rows(&self, body: &mut Body, each: impl FnOnce(&mut Body, &At)) {
        self.for_places(body, "row", self.tile.rows, self.own_turns(), each);
    }

    /// All output columns of the tile, likewise.
    fn for_columns(&self, body: &mut Body, each: impl FnOnce(&mut Body, &At)) {
        self.for_columns_in(body, self.own_turns(), each);
    }

    /// Columns from the first on, one in so many.
    fn for_columns_in(
        &self,
        body: &mut Body,
        turns: (Expr, u32),
        each: impl FnOnce(&mut Body, &At),
    ) {
        let name = if self.paired { "pair" } else { "row" };
        self.for_places(body, name, self.columns(), turns, each);
    }

    /// A thread's first place and its step, where the block has all places.
    fn own_turns(&self) -> (Expr, u32) {
        (var("thread"), self.tile.threads)
    }

    fn for_places(
        &self,
        body: &mut Body,
        name: &str,
        places: u32,
        (first, step): (Expr, u32),
        each: impl FnOnce(&mut Body, &At),
    ) {
        body.range("i", first, places * self.tile.tokens, step, |body, i| {
            let place = body.bind(name, Type::I32, i.clone() % places);
            let token = body.bind("token", Type::I32, i.clone() / places);
            each(body, &At { place, token, index: i });
        });
    }

    /// Output columns of the tile.
    fn columns(&self) -> u32 {
        self.tile.rows / self.cx.problem.epilogue.rows_per_column()
    }

    /// The epilogue of a tile that no other block shares.
    fn whole(&self, body: &mut Body) {
        self.for_columns(body, |body, at| {
            let sums = self.sum_parts(body, at);
            self.store(body, at, sums);
        });
    }

    /// The epilogue of a tile that blocks share.
    fn meet(&self, body: &mut Body, meeting: &Meeting) {
        self.for_rows(body, |body, at| {
            let sum = sum_rows(self.tile, body, &at.place, &at.token);
            let place = self.partial(meeting, meeting.own.clone(), at.index.clone());
            body.store("partials", place, sum);
        });
        body.section("the last block to arrive adds the splits in order");
        body.call("fence_device", []);
        body.barrier();
        body.when(var("thread").equals(0u32), |body| {
            let before = body.variable("before", Type::U32, Expr::Hex(0));
            let counter = Expr::address("counters", meeting.counter.clone());
            body.call("count_arrival", [before.clone(), counter]);
            body.store("arrived", int(0), before);
        });
        body.barrier();
        let last = load("arrived", int(0)).equals(meeting.last.clone());
        body.when_uniform(last, |body| {
            body.call("fence_device", []);
            self.for_columns(body, |body, at| {
                let sums = self.sum_splits(body, meeting, &at.index);
                self.store(body, at, sums);
            });
            body.when(var("thread").equals(0u32), |body| {
                body.store("counters", meeting.counter.clone(), Expr::Hex(0));
            });
        });
    }

    /// The epilogue of a tile that the blocks of a cluster share: each finishes one column in as many
    /// as there are blocks.
    fn meet_in_cluster(&self, body: &mut Body, blocks: u32) {
        if self.tile.parts > 1 {
            self.for_rows(body, |body, at| {
                let sum = sum_rows(self.tile, body, &at.place, &at.token);
                body.store("red", at.token.clone() * self.tile.pitch + at.place.clone(), sum);
            });
        }
        body.section("the blocks of the cluster add the splits in order");
        body.call(CLUSTER_BARRIER, []);
        let first = var("split") * self.tile.threads + var("thread");
        self.for_columns_in(body, (first, blocks * self.tile.threads), |body, at| {
            let sums = self.sum_cluster(body, blocks, at);
            self.store(body, at, sums);
        });
        body.comment("shared memory is there as long as its block is");
        body.call(CLUSTER_BARRIER, []);
    }

    /// The column's sums over the blocks of the cluster.
    fn sum_cluster(&self, body: &mut Body, blocks: u32, at: &At) -> Vec<Expr> {
        let sums = self.zero_sums(body);
        body.unrolled("part", blocks, |body, part| {
            for (row, sum) in (0u32..).zip(&sums) {
                let place =
                    if self.paired { at.place.clone() * 2u32 + row } else { at.place.clone() };
                let place = at.token.clone() * self.tile.pitch + place;
                let value = [Expr::address("red", place), part.clone()];
                body.assign(sum.clone(), sum.clone() + call("load_cluster_f32", value));
            }
        });
        sums
    }

    /// One variable for each row of a column.
    fn zero_sums(&self, body: &mut Body) -> Vec<Expr> {
        let names: &[&str] = if self.paired { &PAIR } else { &SINGLE };
        names.iter().map(|name| body.variable(*name, Type::F32, Expr::Float(0.0))).collect()
    }

    /// Place of a row's partial sum: `index` is `token * rows + row`.
    fn partial(&self, meeting: &Meeting, part: Expr, index: Expr) -> Expr {
        (meeting.slot)(part) * (self.tile.rows * self.tile.tokens) + index
    }

    /// The column's sums over the warps along K.
    fn sum_parts(&self, body: &mut Body, at: &At) -> Vec<Expr> {
        if !self.paired {
            return vec![sum_rows(self.tile, body, &at.place, &at.token)];
        }
        let tile = self.tile;
        let sums = PAIR.map(|name| body.variable(name, Type::F32, Expr::Float(0.0)));
        body.unrolled("part", tile.parts, |body, part| {
            let token = part * tile.tokens + at.token.clone();
            let place = token * (tile.pitch / 2) + at.place.clone();
            body.array("halves", Type::U32, &[2]);
            let halves = [0, 1].map(|half| Expr::at("halves", [int(half)]));
            body.unpack(halves.to_vec(), Type::U32x2, load("red_pairs", place));
            for (sum, half) in sums.iter().zip(halves) {
                body.assign(sum.clone(), sum.clone() + call("bits_f32", [half]));
            }
        });
        sums.into()
    }

    /// The column's sums over the splits of K.
    fn sum_splits(&self, body: &mut Body, meeting: &Meeting, index: &Expr) -> Vec<Expr> {
        let sums = self.zero_sums(body);
        let add = |body: &mut Body, part: Expr| {
            for (row, sum) in (0u32..).zip(&sums) {
                let index = if self.paired { index.clone() * 2u32 + row } else { index.clone() };
                let place = self.partial(meeting, part.clone(), index);
                let partial = Expr::address("partials", place);
                body.assign(sum.clone(), sum.clone() + call("load_l2_f32", [partial]));
            }
        };
        match &meeting.parts {
            Parts::Unrolled(parts) => body.unrolled("part", *parts, add),
            Parts::Counted(from, to) => body.range("part", from.clone(), to.clone(), 1u32, add),
        }
        sums
    }

    /// The output feature of a row, see [`Group::feature`].
    fn feature(&self, body: &mut Body, row: Expr) -> Expr {
        let Group::Rows(rows) = self.cx.layout.sharing() else { return row };
        let apart = self.cx.problem.n / rows;
        body.bind("feature", Type::I32, row.clone() % rows * apart + row / rows)
    }

    /// Bias, the problem's epilogue, conversion and the guarded store of one column.
    fn store(&self, body: &mut Body, at: &At, sums: Vec<Expr>) {
        let (cx, tile) = (self.cx, self.tile);
        let columns = if self.paired { var("N") / 2u32 } else { var("N") };
        let n = var("row_tile") * self.columns() + at.place.clone();
        let n = body.bind("n", Type::I32, n);
        let m = body.bind("m", Type::I32, var("token_tile") * tile.tokens + at.token.clone());
        let inside = n.clone().less(columns.clone()).and(m.clone().less(var("tokens")));
        body.when(inside, |body| {
            let n = self.feature(body, n);
            let to = m.clone() * columns + n.clone();
            let scale = cx.token_scale(body, &m);
            let biased = |(nth, sum): (u32, Expr)| {
                let row = if self.paired { n.clone() * 2u32 + nth } else { n.clone() };
                let sum = factor::applied(cx, sum, &row, self.paired.then_some(nth));
                let sum = match &scale {
                    Some(scale) => sum * (cx.row_scale(row.clone()) * scale.clone()),
                    None => sum,
                };
                match cx.problem.bias {
                    true => sum + widen(cx.problem.out, load("bias", row)),
                    false => sum,
                }
            };
            let sums: Vec<Expr> = (0u32..).zip(sums).map(biased).collect();
            let value = finish(cx, &sums, &to);
            body.store("out", to, narrow(cx.problem.out, value));
        });
    }
}

/// The problem's epilogue on a column's sums; `to` is the element's index in the output.
fn finish(cx: &Lowering, sums: &[Expr], to: &Expr) -> Expr {
    match (cx.problem.epilogue, sums) {
        (Epilogue::SiluMul, [gate, up]) => call("silu", [gate.clone()]) * up.clone(),
        (Epilogue::Residual, [sum]) => {
            let load = match cx.problem.out {
                DType::F16 | DType::Bf16 => "load_own_u16",
                DType::F32 => "load_own_f32",
            };
            let residual = call(load, [Expr::address("residual", to.clone())]);
            sum.clone() + widen(cx.problem.out, residual)
        }
        _ => sums[0].clone(),
    }
}

/// The sum over the warps along K of one row.
fn sum_rows(tile: &Tile, body: &mut Body, row: &Expr, token: &Expr) -> Expr {
    let at = |part: Expr| (part * tile.tokens + token.clone()) * tile.pitch + row.clone();
    if tile.parts == 1 {
        return load("red", at(int(0)));
    }
    let sum = body.variable("sum", Type::F32, load("red", at(int(0))));
    body.unrolled("part", tile.parts - 1, |body, part| {
        body.assign(sum.clone(), sum.clone() + load("red", at(part + 1u32)));
    });
    sum
}

pub(super) fn narrow(dtype: DType, value: Expr) -> Expr {
    match dtype {
        DType::F16 => call("to_f16", [value]),
        DType::Bf16 => call("to_bf16", [value]),
        DType::F32 => value,
    }
}

pub(super) fn widen(dtype: DType, value: Expr) -> Expr {
    match dtype {
        DType::F16 => call("h2_low", [value.cast(Type::U32)]),
        DType::Bf16 => call("bf2_low", [value.cast(Type::U32)]),
        DType::F32 => value,
    }
}

/// Binds `first` and `last`, the range of steps that this block's split takes: whole steps, as
/// even as they come.
pub(super) fn split_range(body: &mut Body, split_k: u32) {
    if split_k == 1 {
        body.bind("first", Type::I32, int(0));
        body.bind("last", Type::I32, var("STEPS"));
        return;
    }
    body.bind("first", Type::I32, var("split") * var("STEPS") / split_k);
    body.bind("last", Type::I32, (var("split") + 1u32) * var("STEPS") / split_k);
}
