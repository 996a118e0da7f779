//! Act-order: activations put into the order in which a layer's columns are stored, sorted by quant
//! group. A step of its own does it for whatever multiplies; `gemv`, which stages activations anyway, may
//! scatter them in shared memory by the column of each input feature.
//!
//! The step has a slice of few tokens in shared memory, where random places cost few wavefronts, and stores it
//! in the order of the columns. Columns of a quant group are in the order of the features, so that what a slice
//! has of it is a run: sectors are written almost whole. A slice's order is loaded once for several tokens. Many
//! tokens are scattered in shared memory, each by a block of its own; twice as many, two by a block ([`pairs`]).

mod pairs;

use super::first::FirstStages;
use super::{Lowering, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{hex, int, load, select, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{sorted_slice, Mover, Problem};

/// Activations of a 16-byte access.
const PIECE: u32 = 8;

/// Thread blocks of the step that sorts, in x and y: parts of the tokens, and of K.
pub(crate) fn grid(problem: &Problem, tokens: u32) -> [u32; 3] {
    let [tokens, features] = Mover::of(problem).blocks(tokens, problem.k);
    [tokens, features, 1]
}

/// The function that sorts ahead of the one that multiplies. All functions declare the same shared
/// memory, so its alignment is theirs.
pub(super) fn part(cx: &Lowering, first: &FirstStages, shared_align: u32) -> Part {
    let k = cx.problem.k;
    let mut body = Body::new();
    if cx.overlap.pdl {
        // What multiplies asks for weights meanwhile, and waits for the end of this step.
        body.call("start_next", []);
    }
    let mover = Mover::of(cx.problem);
    let threads = mover.threads(k);
    let (order, sorted) = match mover {
        Mover::Slices(tokens) => {
            Slices { slice: sorted_slice(k), tokens, threads }.lower(first, &mut body);
            (Type::U32, Type::U16)
        }
        Mover::Rows(columns) => {
            scatter(&mut body, columns, columns == k, (first, threads));
            (Type::U32x4, Type::U32x4)
        }
        Mover::Pairs => {
            pairs::lower(&mut body, first, threads);
            (Type::U32x4, Type::U32x2)
        }
    };
    Shape { mover, order, sorted }.part(cx, first, shared_align, body)
}

/// What tells the ways of moving activations apart from outside.
struct Shape {
    mover: Mover,
    /// What the order is loaded as.
    order: Type,
    /// What sorted activations are stored as.
    sorted: Type,
}

impl Shape {
    /// Shared memory in what is put at random places.
    fn places(&self) -> Buffer {
        let space = Space::Shared { offset: 0 };
        match self.mover {
            Mover::Slices(_) | Mover::Rows(_) => halves("row", 0),
            Mover::Pairs => Buffer { name: "pairs".into(), space, element: Type::U32 },
        }
    }

    fn part(self, cx: &Lowering, first: &FirstStages, shared_align: u32, body: Body) -> Part {
        let k = cx.problem.k;
        let buffer = |name: &str, space, element| {
            Parameter::Buffer(Buffer { name: name.into(), space, element })
        };
        let mut arguments = vec![Argument::Activations, Argument::Places, Argument::Prepared];
        let mut parameters = vec![
            buffer("x", Space::GlobalRead, Type::U32x4),
            buffer("places", Space::GlobalRead, self.order),
            buffer("sorted", Space::GlobalWrite, self.sorted),
        ];
        if !matches!(self.mover, Mover::Rows(_)) {
            arguments.push(Argument::Tokens);
            parameters.push(cx.parameter(Argument::Tokens));
        }
        let (asked, buffers): (Vec<_>, Vec<_>) = first.arguments().unzip();
        arguments.extend(asked);
        parameters.extend(buffers);
        let space = Space::Shared { offset: 0 };
        let pieces = Buffer { name: "row_pieces".into(), space, element: Type::U32x4 };
        Part {
            role: Role::Sort,
            parameters,
            arguments,
            threads: self.mover.threads(k),
            resident: self.mover.fills_block(k).then_some(1),
            cluster: [1; 3],
            shared_bytes: self.mover.staged(k) * cx.problem.act.bytes(),
            shared_align,
            lowered: (body.finish(), vec![self.places(), pieces], Vec::new()),
            library: None,
        }
    }
}

/// A view of shared memory in single activations, from byte `offset`.
pub(super) fn halves(name: &str, offset: u32) -> Buffer {
    Buffer { name: name.into(), space: Space::Shared { offset }, element: Type::U16 }
}

/// What a block does: a slice of several tokens.
struct Slices {
    /// Features.
    slice: u32,
    tokens: u32,
    threads: u32,
}

impl Slices {
    fn lower(&self, first_stages: &FirstStages, body: &mut Body) {
        body.comment("each block: a slice of several tokens");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        body.bind("first_token", Type::I32, var("blockIdx.x") * self.tokens);
        let first = body.bind("first", Type::I32, var("blockIdx.y") * self.slice);
        let end = first.clone() + self.slice;
        let end = select(end.clone().less(var("K")), end, var("K"));
        body.bind("end", Type::I32, end);
        body.section("ask for the order: place in the slice and column of each feature");
        let each = self.slice.div_ceil(self.threads);
        body.zeros("order", Type::U32, &[each]);
        body.bind("feature", Type::I32, first + thread);
        self.for_features(body, |body, nth, feature| {
            // Behind the column of each feature.
            let entry = load("places", var("K") / 2u32 + feature);
            body.assign(Expr::at("order", [nth]), entry);
        });
        first_stages.ask(body, self.threads);
        self.stage(body);
        body.barrier();
        body.section("every activation goes to its column");
        let left = var("tokens") - var("first_token");
        let here = select(left.clone().less(self.tokens), left, int(self.tokens));
        let here = body.bind("here", Type::I32, here);
        body.range("token", 0u32, here, 1u32, |body, token| {
            let to = (var("first_token") + token.clone()) * var("K");
            let to = body.bind("to", Type::I32, to);
            let from = body.bind("from", Type::I32, token * self.slice);
            self.for_features(body, |body, nth, _| {
                let entry = Expr::at("order", [nth]);
                let [place, column] =
                    [entry.clone() & hex(0xffff), entry >> 16u32].map(|part| part.cast(Type::I32));
                body.store("sorted", to.clone() + column, load("row", from.clone() + place));
            });
        });
    }

    /// `each(nth, feature)` for the features of a thread, as far as there are so many.
    fn for_features(&self, body: &mut Body, each: impl Fn(&mut Body, Expr, Expr)) {
        let count = self.slice.div_ceil(self.threads);
        body.unrolled("nth", count, |body, nth| {
            let feature = var("feature") + nth.clone() * self.threads;
            body.when(feature.clone().less(var("end")), |body| each(body, nth, feature));
        });
    }

    /// Copies the slice of all tokens to shared memory, 16 bytes at a time.
    fn stage(&self, body: &mut Body) {
        body.section("stage the slice");
        let row = self.slice / PIECE;
        body.range("piece", var("thread"), self.tokens * row, self.threads, |body, piece| {
            let token = body.bind("token", Type::I32, var("first_token") + piece.clone() / row);
            let chunk = var("first") / PIECE + piece.clone() % row;
            let chunk = body.bind("chunk", Type::I32, chunk);
            let inside = token.clone().less(var("tokens"));
            let inside = inside.and(chunk.clone().less(var("K") / PIECE));
            body.when(inside, |body| {
                body.store("row_pieces", piece, load("x", token * (var("K") / PIECE) + chunk));
            });
        });
    }
}

/// A part of one token's columns to a block, which looks at all of its activations; `whole` if the part
/// is everything.
fn scatter(
    body: &mut Body,
    columns: u32,
    whole: bool,
    (first_stages, threads): (&FirstStages, u32),
) {
    body.comment("each block: one token, a part of its columns");
    let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
    let row = body.bind("token_piece", Type::I32, var("blockIdx.x") * (var("K") / PIECE));
    let first = body.bind("first", Type::I32, var("blockIdx.y") * columns);
    first_stages.ask(body, threads);
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
