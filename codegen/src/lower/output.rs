//! The epilogue that all families share: partial sums meet in shared memory, split-K blocks meet
//! in global memory, and the result gets its bias and its output type.
//!
//! Split K is deterministic: every block stores its partial tile, the last one to arrive adds all
//! of them in order. Nobody waits, so blocks may run in any order.

use super::Lowering;
use crate::kir::{call, int, load, var, Body, Expr, Type};
use qtune_ir::DType;

/// The tile that a block reduces: the buffer `red` holds `parts` copies of `[tokens][pitch]` f32.
pub(super) struct Tile {
    pub tokens: u32,
    pub rows: u32,
    pub pitch: u32,
    pub parts: u32,
    pub split_k: u32,
    pub threads: u32,
}

/// Emits the epilogue. `row_tile`, `token_tile`, `split` and `thread` are bound by the prologue,
/// `red` and `arrived` are shared views; all warps have stored to `red` before this.
pub(super) fn emit(cx: &Lowering, tile: &Tile, body: &mut Body) {
    body.section("epilogue: add the warps' partial sums");
    body.barrier();
    if tile.split_k == 1 {
        for_elements(tile, body, |body, row, token, _| {
            let sum = sum_parts(tile, body, &row, &token);
            store(cx, tile, body, &row, &token, sum);
        });
        return;
    }
    let column = |part: Expr, i: Expr| {
        let tile_id = var("tile_id") * tile.split_k + part;
        tile_id * (tile.rows * tile.tokens) + i
    };
    body.bind("tile_id", Type::I32, var("token_tile") * cx.layout.tiles() + var("row_tile"));
    for_elements(tile, body, |body, row, token, i| {
        let sum = sum_parts(tile, body, &row, &token);
        body.store("partials", column(var("split"), i), sum);
    });
    body.section("the last block to arrive adds the splits in order");
    body.call("fence_device", []);
    body.barrier();
    body.when(var("thread").equals(0u32), |body| {
        let before = body.variable("before", Type::U32, Expr::Hex(0));
        body.call("count_arrival", [before.clone(), Expr::address("counters", var("tile_id"))]);
        body.store("arrived", int(0), before);
    });
    body.barrier();
    let last = load("arrived", int(0)).equals(Expr::Hex(tile.split_k - 1));
    body.when_uniform(last, |body| {
        body.call("fence_device", []);
        for_elements(tile, body, |body, row, token, i| {
            let sum = body.variable("sum", Type::F32, Expr::Float(0.0));
            body.unrolled("part", tile.split_k, |body, part| {
                let partial = Expr::address("partials", column(part, i));
                body.assign(sum.clone(), sum.clone() + call("load_l2_f32", [partial]));
            });
            store(cx, tile, body, &row, &token, sum);
        });
        body.when(var("thread").equals(0u32), |body| {
            body.store("counters", var("tile_id"), Expr::Hex(0));
        });
    });
}

/// All elements of the tile, rows fastest, spread over the block's threads.
fn for_elements(tile: &Tile, body: &mut Body, each: impl FnOnce(&mut Body, Expr, Expr, Expr)) {
    let count = tile.rows * tile.tokens;
    body.range("i", var("thread"), count, tile.threads, |body, i| {
        let row = body.bind("row", Type::I32, i.clone() % tile.rows);
        let token = body.bind("token", Type::I32, i.clone() / tile.rows);
        each(body, row, token, i);
    });
}

fn sum_parts(tile: &Tile, body: &mut Body, row: &Expr, token: &Expr) -> Expr {
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

/// Bias, conversion and the guarded store of one element.
fn store(cx: &Lowering, tile: &Tile, body: &mut Body, row: &Expr, token: &Expr, sum: Expr) {
    let n = body.bind("n", Type::I32, var("row_tile") * tile.rows + row.clone());
    let m = body.bind("m", Type::I32, var("token_tile") * tile.tokens + token.clone());
    let inside = n.clone().less(var("N")).and(m.clone().less(var("tokens")));
    body.when(inside, |body| {
        let value = match cx.problem.bias {
            true => sum + widen(cx.problem.out, load("bias", n.clone())),
            false => sum,
        };
        body.store("out", m * var("N") + n, narrow(cx.problem.out, value));
    });
}

fn narrow(dtype: DType, value: Expr) -> Expr {
    match dtype {
        DType::F16 => call("to_f16", [value]),
        DType::Bf16 => call("to_bf16", [value]),
        DType::F32 => value,
    }
}

fn widen(dtype: DType, value: Expr) -> Expr {
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
