//! The step that makes codes of 8 bits of the activations, ahead of a multiplication of codes. A block
//! takes one token: it looks for the largest activation, unless the layer brings the scale, then rounds all of
//! them, by the steps that [`qtune_ir::Activations`] defines to the bit.

mod groups;

use super::first::FirstStages;
use super::{Lowering, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{call, float, int, load, var, Body, Buffer, Expr, Parameter, Space, Type};
use crate::layout::Layout;
use qtune_ir::{pairs_of_k, Activations, DType, Problem, Schedule, LEAST_LARGEST};

/// Threads of a block.
const THREADS: u32 = 256;
/// Warps of a block.
const WARPS: u32 = THREADS / 32;
/// Activations of a 16-byte load; half of the codes of a 16-byte store.
const PIECE: u32 = 8;

/// Thread blocks: one for each token.
pub(crate) fn grid(tokens: u32) -> [u32; 3] {
    [tokens, 1, 1]
}

/// Bytes of the codes of all tokens: rows of whole 16-byte pieces.
pub(crate) fn code_bytes(problem: &Problem, tokens: u32) -> usize {
    tokens as usize * (pairs_of_k(problem.k) * 2) as usize
}

/// Bytes of the scales of all tokens, or of all groups of whole tiles of them.
pub(crate) fn scale_bytes(layout: &Layout, schedule: &Schedule, tokens: u32) -> usize {
    4 * match layout.scales_at_end() {
        true => tokens as usize,
        false => layout.groups() as usize * tokens.next_multiple_of(schedule.tile().1) as usize,
    }
}

/// The function that quantizes ahead of the one that multiplies. All functions declare the same shared
/// memory, so its alignment is theirs.
pub(super) fn part(
    cx: &Lowering,
    problem: &Problem,
    (schedule, first): (&Schedule, &FirstStages),
    shared_align: u32,
) -> Part {
    let (to, tile) = (cx.spec.activations, schedule.tile().1);
    let step = Quantize { act: problem.act, k: problem.k, to, tile };
    let buffer = |name: &str, space, element| {
        Parameter::Buffer(Buffer { name: name.into(), space, element })
    };
    let warps =
        Buffer { name: "of_warps".into(), space: Space::Shared { offset: 0 }, element: Type::F32 };
    let (given, grouped) = (step.to.are_static(), step.to.are_grouped());
    let mut body = Body::new();
    if cx.overlap.pdl {
        // What multiplies asks for weights meanwhile, and waits for the end of this step.
        body.call("start_next", []);
    }
    match grouped {
        true => step.lower_groups(first, &mut body),
        false => step.lower(first, &mut body),
    }
    let codes = if grouped { Type::U32x2 } else { Type::U32x4 };
    let tokens = Parameter::Scalar("tokens".into(), Type::I32);
    let all = [
        (given, Argument::Table, buffer("layer_scale", Space::GlobalRead, Type::F32)),
        (true, Argument::Activations, buffer("activations", Space::GlobalRead, Type::U32x4)),
        (true, Argument::Prepared, buffer("codes", Space::GlobalWrite, codes)),
        (true, Argument::TokenScales, buffer("scales", Space::GlobalWrite, Type::F32)),
        (grouped, Argument::Tokens, tokens),
    ];
    let needed = all.into_iter().filter(|(needed, ..)| *needed);
    let needed = needed.map(|(_, argument, parameter)| (argument, parameter));
    let (arguments, parameters) = needed.chain(first.arguments()).unzip();
    let meets = !given && !grouped;
    Part {
        role: Role::Quantize,
        parameters,
        arguments,
        threads: THREADS,
        resident: None,
        cluster: [1; 3],
        shared_bytes: if meets { 4 * WARPS } else { 0 },
        shared_align,
        lowered: (body.finish(), if meets { vec![warps] } else { Vec::new() }, Vec::new()),
        library: None,
    }
}

struct Quantize {
    act: DType,
    /// Activations of a token.
    k: u32,
    to: Activations,
    /// Tokens of an output tile.
    tile: u32,
}

impl Quantize {
    /// 16-byte pieces of activations.
    fn pieces(&self) -> u32 {
        self.k / PIECE
    }

    /// 16-byte pieces of codes.
    fn code_pieces(&self) -> u32 {
        self.pieces().div_ceil(2)
    }

    fn lower(&self, first: &FirstStages, body: &mut Body) {
        body.comment("each block: the activations of one token");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        let row = body.bind("row", Type::I32, var("blockIdx.x") * self.pieces());
        first.ask(body, THREADS);
        match self.to.are_static() {
            true => self.take_scale(body, &thread),
            false => self.find_scale(body, &thread, &row),
        }
        let inverse = var("inverse");
        body.range("piece", thread, self.code_pieces(), THREADS, |body, piece| {
            body.zeros("words", Type::U32, &[8]);
            self.load(body, 0, row.clone() + piece.clone() * 2u32);
            let second = body.bind("second", Type::I32, piece.clone() * 2u32 + 1u32);
            let whole = self.pieces() % 2 == 0;
            let from = row.clone() + second.clone();
            match whole {
                true => self.load(body, 4, from),
                false => body.when(second.less(self.pieces()), |body| self.load(body, 4, from)),
            }
            let codes: Vec<Expr> = (0..4).map(|word| self.codes(word, &inverse)).collect();
            let to = var("blockIdx.x") * self.code_pieces() + piece;
            body.store("codes", to, call("pack_u32x4", codes));
        });
    }

    /// Stores the scale of the token's largest activation and binds its inverse.
    fn find_scale(&self, body: &mut Body, thread: &Expr, row: &Expr) {
        let largest = body.variable("largest", Type::F32, float(LEAST_LARGEST.into()));
        body.range("piece", thread.clone(), self.pieces(), THREADS, |body, piece| {
            body.array("words", Type::U32, &[4]);
            self.load(body, 0, row.clone() + piece);
            for value in (0..4).flat_map(|word| self.widened(word)) {
                body.assign(largest.clone(), call("largest_f32", [largest.clone(), value]));
            }
        });
        self.meet(body, &largest);
        body.section("the largest activation becomes the largest code");
        let top = float(self.to.top().into());
        let inverse = call("divide_f32", [top.clone(), largest.clone()]);
        body.bind("inverse", Type::F32, inverse);
        body.when(thread.clone().equals(0u32), |body| {
            body.store("scales", var("blockIdx.x"), call("divide_f32", [largest.clone(), top]));
        });
    }

    /// Stores the layer's scale as the token's, where the multiplication looks for it, and binds its
    /// inverse.
    fn take_scale(&self, body: &mut Body, thread: &Expr) {
        let scale = body.bind("scale", Type::F32, load("layer_scale", int(0)));
        let inverse = call("divide_f32", [float(1.0), scale.clone()]);
        body.bind("inverse", Type::F32, inverse);
        body.when(thread.clone().equals(0u32), |body| {
            body.store("scales", var("blockIdx.x"), scale.clone());
        });
    }

    /// Loads eight activations into `words` from word `first` on.
    fn load(&self, body: &mut Body, first: u32, index: Expr) {
        let places = (first..first + 4).map(|word| Expr::at("words", [int(word)]));
        body.unpack(places.collect(), Type::U32x4, load("activations", index));
    }

    /// The two activations of a word, in f32.
    fn widened(&self, word: u32) -> [Expr; 2] {
        let names = match self.act {
            DType::Bf16 => ["bf2_low", "bf2_high"],
            _ => ["h2_low", "h2_high"],
        };
        names.map(|name| call(name, [Expr::at("words", [int(word)])]))
    }

    /// Four codes, of two words of activations.
    fn codes(&self, word: u32, inverse: &Expr) -> Expr {
        let name = match self.to {
            Activations::E4m3(_) => "e4m3_pair",
            Activations::Floats | Activations::Integers(_) => "s8_pair",
        };
        let pair = |word| call(name, self.widened(word).map(|value| value * inverse.clone()));
        pair(2 * word) | pair(2 * word + 1) << 16u32
    }

    /// The largest of a block, in all of its threads.
    fn meet(&self, body: &mut Body, largest: &Expr) {
        body.section("the largest of all threads");
        for mask in [16, 8, 4, 2, 1] {
            let other = call("shfl_xor", [largest.clone(), int(mask)]);
            body.assign(largest.clone(), call("largest_f32", [largest.clone(), other]));
        }
        let thread = var("thread");
        body.when((thread.clone() % 32u32).equals(0u32), |body| {
            body.store("of_warps", thread / 32u32, largest.clone());
        });
        body.barrier();
        body.unrolled("warp", WARPS, |body, warp| {
            let of_warp = load("of_warps", warp);
            body.assign(largest.clone(), call("largest_f32", [largest.clone(), of_warp]));
        });
    }
}
