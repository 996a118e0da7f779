//! Two tokens to a block: the activations of a feature are a word of shared memory, which goes to its column as one.

use super::{half, load_places, FirstStages, PIECE};
use crate::kir::{call, hex, int, load, select, var, Body, Expr, Type};

/// Columns of two tokens in 16 bytes of shared memory.
const COLUMNS: u32 = 4;

/// The statements of a block of `threads` threads.
pub(super) fn lower(body: &mut Body, first: &FirstStages, threads: u32) {
    body.comment("each block: two tokens");
    let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
    let token = body.bind("token", Type::I32, var("blockIdx.x") * 2u32);
    let second = (token.clone() + 1u32).less(var("tokens"));
    let second = body.bind("second", Type::Bool, second);
    first.ask(body, threads);
    body.section("every pair of activations goes to its column");
    // Where there is no second token the first stands for it.
    let other = select(second.clone(), token.clone() + 1u32, token.clone());
    let rows = [token.clone(), other].map(|token| token * (var("K") / PIECE));
    body.range("piece", thread.clone(), var("K") / PIECE, threads, |body, piece| {
        for (words, row) in ["words", "others"].into_iter().zip(rows) {
            body.array(words, Type::U32, &[4]);
            let places = (0..4u32).map(|w| Expr::at(words, [int(w)]));
            body.unpack(places.collect(), Type::U32x4, load("x", row + piece.clone()));
        }
        load_places(body, &piece);
        for feature in 0..PIECE {
            let column = half("columns", feature).cast(Type::I32);
            let word = |array| Expr::at(array, [int(feature / 2)]);
            let pair = both(feature % 2, word("words"), word("others"));
            body.store("pairs", column, pair);
        }
    });
    body.barrier();
    body.section("columns leave in order, token by token");
    let row = body.bind("row", Type::I32, token * (var("K") / COLUMNS));
    body.range("piece", thread, var("K") / COLUMNS, threads, |body, piece| {
        body.array("words", Type::U32, &[4]);
        let words = || (0..4u32).map(|w| Expr::at("words", [int(w)]));
        body.unpack(words().collect(), Type::U32x4, load("row_pieces", piece.clone()));
        let columns = |which| {
            let at = |w: u32| Expr::at("words", [int(w)]);
            let words = [both(which, at(0), at(1)), both(which, at(2), at(3))];
            call("pack_u32x2", words)
        };
        body.store("sorted", row.clone() + piece.clone(), columns(0));
        body.when(second, |body| {
            body.store("sorted", row + var("K") / COLUMNS + piece, columns(1));
        });
    });
}

/// The lower (`which` 0) or upper halves of two words, as a word.
fn both(which: u32, low: Expr, high: Expr) -> Expr {
    match which {
        0 => (low & hex(0xffff)) | high << 16u32,
        _ => low >> 16u32 | (high & hex(0xffff_0000)),
    }
}
