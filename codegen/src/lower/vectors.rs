//! Codes that name vectors, looked up in a layer's codebooks in global memory, where L1 and L2 keep what is
//! used often: two codebooks of 256 vectors take 8 KB, one of 65536 takes 1 MB.

use super::octet::Octet;
use super::Lowering;
use crate::kir::{call, hex, int, load, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{DType, VectorCodes};

/// Words of a vector: pairs of f16.
const WORDS: u32 = 4;
const BUFFER: &str = "vectors";

impl Lowering<'_> {
    /// How codes name vectors, of a format whose codes do.
    pub(super) fn vectors(&self) -> Option<VectorCodes> {
        self.spec.codebook.vectors()
    }
}

/// The codebooks as a parameter: `gemv` loads whole vectors, lanes of fragments single pairs.
pub(super) fn parameter(cx: &Lowering) -> Parameter {
    let element = if cx.layout.is_gemv() { Type::U32x4 } else { Type::U32 };
    Parameter::Buffer(Buffer { name: BUFFER.into(), space: Space::GlobalRead, element })
}

/// The code of vector `index` of a piece whose words `word` gives.
pub(super) fn code(index: &Expr, word: impl Fn(Expr) -> Expr) -> Expr {
    word(index.clone() / 2u32) >> (index.clone() % 2u32 * 16u32)
}

/// The vector that a code names, a register for each pair of its f16.
pub(super) fn octet(cx: &Lowering, body: &mut Body, codes: VectorCodes, code: Expr) -> Octet {
    let code = body.bind("code", Type::U32, code);
    body.array("entry_words", Type::U32, &[codes.books(), WORDS]);
    for book in 0..codes.books() {
        let places = (0..WORDS).map(|w| Expr::at("entry_words", [int(book), int(w)])).collect();
        body.unpack(places, Type::U32x4, load(BUFFER, entry(codes, &code, book)));
    }
    let word = |book: u32, pair: usize| Expr::at("entry_words", [int(book), int(pair as u32)]);
    Octet::of_vectors(
        cx.packing(),
        std::array::from_fn(|pair| {
            let words = (0..codes.books()).map(|book| word(book, pair)).collect();
            sum(DType::F16, words)
        }),
    )
}

/// The pairs of a lane of a fragment in the compute type: its two of each vector. `word(i)` has the codes
/// of rows g and g+8, for `i` 0 and 1 of both halves of a k16.
pub(super) fn fragment(
    cx: &Lowering,
    body: &mut Body,
    codes: VectorCodes,
    word: impl Fn(Expr) -> Expr,
) -> Octet {
    let pairs = std::array::from_fn(|pair| {
        let code = code(&int(pair as u32), &word);
        let code = body.bind(format!("code{pair}"), Type::U32, code);
        let at = |book: u32| entry(codes, &code, book) * WORDS + var("lane") % WORDS;
        let words = (0..codes.books()).map(|book| {
            body.bind(format!("entry{pair}_{book}"), Type::U32, load(BUFFER, at(book)))
        });
        sum(cx.context.compute(), words.collect())
    });
    Octet::of_vectors(cx.packing(), pairs)
}

/// The entry of one codebook that a code names, among those of all. What lies above the code's 16 bits says
/// nothing.
fn entry(codes: VectorCodes, code: &Expr, book: u32) -> Expr {
    let part = match book {
        0 => code.clone(),
        _ => code.clone() >> (book * codes.part_bits()),
    };
    let part = (part & hex(codes.entries() - 1)).cast(Type::I32);
    match book {
        0 => part,
        _ => part + book * codes.entries(),
    }
}

/// One pair of f16 or the sum of two, rounded once to the compute type.
fn sum(compute: DType, words: Vec<Expr>) -> Expr {
    let wide = |half: &'static str| {
        let widened = words.iter().map(|word| call(half, [word.clone()]));
        widened.reduce(|a, b| a + b)
    };
    match (compute, &words[..], wide("h2_low"), wide("h2_high")) {
        (DType::Bf16, _, Some(low), Some(high)) => call("bf2_pack", [low, high]),
        (_, [first, second], ..) => call("h2_add", [first.clone(), second.clone()]),
        (_, words, ..) => words[0].clone(),
    }
}
