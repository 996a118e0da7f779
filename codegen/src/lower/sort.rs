//! Act-order: activations put into the order in which a layer's columns are stored, sorted by quant
//! group. A step of its own gathers few tokens from global memory; many tokens, and what `gemv` stages
//! anyway, are scattered in shared memory by the place of each input feature.

use super::{Lowering, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{call, hex, int, load, select, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{Mover, Problem};

/// Activations of a 16-byte access.
const PIECE: u32 = 8;
/// Threads of a block that gathers: few, so that there are many blocks.
const GATHER_THREADS: u32 = 64;
/// Threads of a block that scatters, at most: 8192 features are one load each.
const SCATTER_THREADS_MAX: u32 = 1024;

/// Thread blocks of the step that sorts, in x and y: tokens, and parts of K.
pub(crate) fn grid(problem: &Problem, tokens: u32) -> [u32; 3] {
    let columns = match Mover::of(problem) {
        Mover::Gather => GATHER_THREADS * PIECE,
        Mover::Scatter(columns) => columns,
    };
    [tokens, problem.k.div_ceil(columns), 1]
}

/// The function that sorts ahead of the one that multiplies. All functions declare the same shared
/// memory, so its alignment is theirs.
pub(super) fn part(cx: &Lowering, shared_align: u32) -> Part {
    let k = cx.problem.k;
    let arguments = vec![Argument::Activations, Argument::Places, Argument::Prepared];
    let mut body = Body::new();
    if cx.overlap.pdl {
        // What multiplies asks for weights meanwhile, and waits for the end of this step.
        body.call("start_next", []);
    }
    let (x, threads, columns, shared) = match Mover::of(cx.problem) {
        Mover::Gather => {
            gather(&mut body);
            (Type::U16, GATHER_THREADS, 0, Vec::new())
        }
        Mover::Scatter(columns) => {
            let threads = (k / PIECE).next_multiple_of(32).min(SCATTER_THREADS_MAX);
            scatter(&mut body, columns, columns == k, threads);
            (Type::U32x4, threads, columns, vec![halves("row", 0), pieces("row_pieces")])
        }
    };
    let buffer = |name: &str, space, element| {
        Parameter::Buffer(Buffer { name: name.into(), space, element })
    };
    Part {
        role: Role::Sort,
        parameters: vec![
            buffer("x", Space::GlobalRead, x),
            buffer("places", Space::GlobalRead, Type::U32x4),
            buffer("sorted", Space::GlobalWrite, Type::U32x4),
        ],
        arguments,
        threads,
        // For two blocks of so many threads the compiler keeps to 32 registers, and spills.
        resident: (threads == SCATTER_THREADS_MAX).then_some(1),
        cluster: [1; 3],
        shared_bytes: columns * cx.problem.act.bytes(),
        shared_align,
        lowered: (body.finish(), shared, Vec::new()),
        library: None,
    }
}

/// A view of shared memory in single activations, from byte `offset`.
pub(super) fn halves(name: &str, offset: u32) -> Buffer {
    Buffer { name: name.into(), space: Space::Shared { offset }, element: Type::U16 }
}

fn pieces(name: &str) -> Buffer {
    Buffer { name: name.into(), space: Space::Shared { offset: 0 }, element: Type::U32x4 }
}

/// Eight columns of one token to a thread.
fn gather(body: &mut Body) {
    body.comment("each thread: eight columns of one token");
    let piece = var("blockIdx.y") * GATHER_THREADS + var("threadIdx.x");
    let piece = body.bind("piece", Type::I32, piece);
    let token = body.bind("token", Type::I32, var("blockIdx.x"));
    body.when(piece.clone().less(var("K") / PIECE), |body| {
        // Behind the column of each feature comes the feature of each column.
        load_places(body, &(var("K") / PIECE + piece.clone()));
        let first = body.bind("first", Type::I32, token.clone() * var("K"));
        let element = |index: u32| {
            let feature = half("columns", index).cast(Type::I32);
            load("x", first.clone() + feature).cast(Type::U32)
        };
        let words = (0..4u32).map(|word| element(2 * word) | (element(2 * word + 1) << 16u32));
        let value = call("pack_u32x4", words.collect::<Vec<_>>());
        body.store("sorted", token.clone() * (var("K") / PIECE) + piece, value);
    });
}

/// A part of one token's columns to a block, which looks at all of its activations; `whole` if the part
/// is everything.
fn scatter(body: &mut Body, columns: u32, whole: bool, threads: u32) {
    body.comment("each block: one token, a part of its columns");
    let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
    let row = body.bind("token_piece", Type::I32, var("blockIdx.x") * (var("K") / PIECE));
    let first = body.bind("first", Type::I32, var("blockIdx.y") * columns);
    body.section("every activation goes to its column");
    body.range("piece", thread.clone(), var("K") / PIECE, threads, |body, piece| {
        body.array("words", Type::U32, &[4]);
        let words = (0..4u32).map(|w| Expr::at("words", [int(w)]));
        body.unpack(words.collect(), Type::U32x4, load("x", row.clone() + piece.clone()));
        load_places(body, &piece);
        for (index, (column, value)) in scattered("words").into_iter().enumerate() {
            if whole {
                body.store("row", column, value);
                continue;
            }
            let place = body.bind(format!("place{index}"), Type::I32, column - first.clone());
            let inside = int(-1).less(place.clone()).and(place.clone().less(columns));
            body.when(inside, |body| body.store("row", place, value));
        }
    });
    body.barrier();
    body.section("columns leave in order");
    let start = body.bind("start", Type::I32, first / PIECE);
    let end = start.clone() + columns / PIECE;
    let end = select(end.clone().less(var("K") / PIECE), end, var("K") / PIECE);
    let end = body.bind("end", Type::I32, end);
    body.range("piece", start.clone() + thread, end, threads, |body, piece| {
        let value = load("row_pieces", piece.clone() - start.clone());
        body.store("sorted", row + piece, value);
    });
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
    let pair = |index| {
        let column = half("columns", index).cast(Type::I32);
        (column, half(array, index).cast(Type::U16))
    };
    (0..PIECE).map(pair).collect()
}

/// Half `index` of the words of `array`.
fn half(array: &str, index: u32) -> Expr {
    let word = Expr::at(array, [int(index / 2)]);
    match index % 2 {
        0 => word & hex(0xffff),
        _ => word >> 16u32,
    }
}
