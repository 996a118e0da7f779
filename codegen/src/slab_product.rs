//! A dense multiplication that a library does in place of a function of ours.

use qtune_ir::{DType, Epilogue, LibraryGemm, Problem};
use std::ops::Range;

/// `D = X W^T (+ bias) (+ residual)` for a slab W of a layer's rows: X is `[M, K]`, W `[rows, K]` and D the
/// slab's columns of `[M, N]`, all of them row-major. Products and sums are f32; what is added is added in
/// f32, before the one rounding to the output's type.
///
/// A step that is one has the operands of a function that multiplies slabs: [`crate::Argument::Slab`],
/// activations, bias and residual where they are added, output, token count and first row tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlabProduct {
    /// Output features of the layer: elements of a row of the output and of the residual.
    pub n: u32,
    /// Input features: elements of a row of the activations, and those of a row of the slab that count.
    pub k: u32,
    /// Elements from one row of the slab to the next: K, padded to whole stages.
    pub slab_row: u32,
    /// Rows of a slab; the last slab may have fewer.
    pub slab_rows: u32,
    /// Element type of activations and slab: f16 or bf16.
    pub input: DType,
    /// Element type of bias, residual and output: that of the inputs, or f32.
    pub output: DType,
    /// Whether a bias `[N]` is added.
    pub bias: bool,
    /// Whether a residual `[M, N]` is added, which may be the output.
    pub residual: bool,
}

impl SlabProduct {
    /// The product of slabs of `slab_rows` rows. `problem` is what is multiplied: a store or a residual.
    pub(crate) fn new(problem: &Problem, slab_rows: u32) -> SlabProduct {
        SlabProduct {
            n: problem.n,
            k: problem.k,
            slab_row: problem.k.next_multiple_of(LibraryGemm::STAGE_K),
            slab_rows,
            input: problem.act,
            output: problem.out,
            bias: problem.bias,
            residual: problem.epilogue == Epilogue::Residual,
        }
    }

    /// Output features of the slab that begins at a row tile.
    pub fn rows(&self, first_tile: u32) -> Range<u32> {
        let first = first_tile * LibraryGemm::ROWS;
        first..(first + self.slab_rows).min(self.n)
    }
}
