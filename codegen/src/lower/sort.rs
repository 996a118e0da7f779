//! Act-order: activations put into the order in which a layer's columns are stored, sorted by quant
//! group. Both ways scatter in shared memory by the place of each input feature: global memory is
//! read, and by the step also written, 16 bytes at a time.

use super::{Lowering, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{hex, int, load, select, var, Body, Buffer, Expr, Parameter, Space, Stmt, Type};
use qtune_ir::Problem;

/// Activations of a 16-byte access.
const PIECE: u32 = 8;
/// Columns of a block of the step: 32 KB of shared memory, which every GPU gives without being asked.
const BLOCK_COLUMNS: u32 = 1 << 14;
/// Threads of such a block at most: 8192 features are one load each.
const THREADS_MAX: u32 = 1024;

/// Thread blocks of the step that sorts, in x and y: tokens, and parts of K.
pub(crate) fn grid(problem: &Problem, tokens: u32) -> [u32; 3] {
    [tokens, problem.k.div_ceil(BLOCK_COLUMNS), 1]
}

/// The function that sorts ahead of the one that multiplies. A block reads all of a token's
/// activations and writes a part of its columns. All functions declare the same shared memory, so its
/// alignment is theirs.
pub(super) fn part(cx: &Lowering, shared_align: u32) -> Part {
    let k = cx.problem.k;
    let threads = (k / PIECE).next_multiple_of(32).min(THREADS_MAX);
    let arguments = vec![Argument::Activations, Argument::Places, Argument::Sorted];
    let parameter = |argument: &Argument| match argument {
        Argument::Sorted => sorted(Space::GlobalWrite),
        other => cx.parameter(*other),
    };
    Part {
        role: Role::Sort,
        parameters: arguments.iter().map(parameter).collect(),
        arguments,
        threads,
        alone: false,
        shared_bytes: k.min(BLOCK_COLUMNS) * cx.problem.act.bytes(),
        shared_align,
        lowered: (body(cx, threads), vec![halves("row", 0), pieces("row_pieces")], Vec::new()),
    }
}

fn sorted(space: Space) -> Parameter {
    Parameter::Buffer(Buffer { name: "sorted".into(), space, element: Type::U32x4 })
}

/// A view of shared memory in single activations, from byte `offset`.
pub(super) fn halves(name: &str, offset: u32) -> Buffer {
    Buffer { name: name.into(), space: Space::Shared { offset }, element: Type::U16 }
}

fn pieces(name: &str) -> Buffer {
    Buffer { name: name.into(), space: Space::Shared { offset: 0 }, element: Type::U32x4 }
}

fn body(cx: &Lowering, threads: u32) -> Vec<Stmt> {
    let whole = cx.problem.k <= BLOCK_COLUMNS;
    let mut body = Body::new();
    if cx.overlap.pdl {
        // What multiplies asks for weights meanwhile, and waits for the end of this step.
        body.call("start_next", []);
    }
    body.comment("each block: one token, a part of its columns");
    let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
    let row = body.bind("token", Type::I32, var("blockIdx.x")) * (var("K") / PIECE);
    let row = body.bind("token_piece", Type::I32, row);
    let first = body.bind("first", Type::I32, var("blockIdx.y") * BLOCK_COLUMNS);
    body.section("every activation goes to its column");
    body.range("piece", thread.clone(), var("K") / PIECE, threads, |body, piece| {
        body.array("words", Type::U32, &[4]);
        let places = (0..4u32).map(|w| Expr::at("words", [int(w)]));
        body.unpack(places.collect(), Type::U32x4, load("x", row.clone() + piece.clone()));
        load_places(body, &piece);
        for (index, (column, value)) in scattered("words").into_iter().enumerate() {
            if whole {
                body.store("row", column, value);
                continue;
            }
            let place = body.bind(format!("place{index}"), Type::I32, column - first.clone());
            let inside = int(-1).less(place.clone()).and(place.clone().less(BLOCK_COLUMNS));
            body.when(inside, |body| body.store("row", place, value));
        }
    });
    body.barrier();
    body.section("columns leave in order");
    let from = first.clone() / PIECE + thread;
    let end = (first + BLOCK_COLUMNS) / PIECE;
    let end = select(end.clone().less(var("K") / PIECE), end, var("K") / PIECE);
    let end = body.bind("end", Type::I32, end);
    body.range("piece", from, end, threads, |body, piece| {
        let place = piece.clone() % (BLOCK_COLUMNS / PIECE);
        body.store("sorted", row + piece, load("row_pieces", place));
    });
    body.finish()
}

/// Loads the columns of eight features into `columns`, two to a word.
pub(super) fn load_places(body: &mut Body, piece: &Expr) {
    body.array("columns", Type::U32, &[4]);
    let words = (0..4u32).map(|w| Expr::at("columns", [int(w)]));
    body.unpack(words.collect(), Type::U32x4, load("places", piece.clone()));
}

/// The column of each of eight features that [`load_places`] loaded, with its activation, the half of
/// a word of `array`.
pub(super) fn scattered(array: &str) -> Vec<(Expr, Expr)> {
    let half = |array: &str, index: u32| {
        let word = Expr::at(array, [int(index / 2)]);
        match index % 2 {
            0 => word & hex(0xffff),
            _ => word >> 16u32,
        }
    };
    let pair = |index| {
        let column = half("columns", index).cast(Type::I32);
        (column, half(array, index).cast(Type::U16))
    };
    (0..PIECE).map(pair).collect()
}
