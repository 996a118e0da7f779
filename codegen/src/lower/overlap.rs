//! What a kernel does for the ones before and after it on the stream.

use super::{factor, nested, Lowering};
use crate::intrinsics::WAIT_AHEAD;
use crate::kernel::LINE_BYTES;
use crate::kir::{var, Body, Expr, Type};

/// Buffers that no kernel writes: a dependent launch may read them before it waits.
pub(super) const EARLY: [&str; 5] =
    ["weights", "params", factor::BUFFER, nested::SOURCE, "next_matrix"];
/// Pieces of 16 bytes in a line of L2.
pub(super) const LINE_PIECES: u32 = LINE_BYTES / 16;

/// Under programmatic dependent launch: waits for the kernel ahead, and lets the next one start.
/// That one waits in its turn until this one has ended, so it cannot start too early.
pub(super) fn wait_ahead(cx: &Lowering, body: &mut Body) {
    if cx.overlap.pdl {
        body.call(WAIT_AHEAD, []);
        body.call("start_next", []);
    }
}

/// Asks L2 for the matrix that the launch names, spread over the `threads` threads of all blocks.
/// By now each block has asked for all of its own weights.
pub(super) fn prefetch_next(cx: &Lowering, threads: u32, body: &mut Body) {
    if !cx.overlap.prefetch {
        return;
    }
    body.section("ask L2 for the next matrix, line by line");
    let plane = var("blockIdx.z") * var("gridDim.y") + var("blockIdx.y");
    let block = plane * var("gridDim.x") + var("blockIdx.x");
    let block = body.bind("block", Type::I32, block);
    let blocks = var("gridDim.x") * var("gridDim.y") * var("gridDim.z");
    let from = block * threads + var("thread");
    body.range("line", from, var("next_lines"), blocks * threads, |body, line| {
        body.call("prefetch_l2", [Expr::address("next_matrix", line * LINE_PIECES)]);
    });
}
