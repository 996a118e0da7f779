//! A generated kernel: its text, and everything a launcher must know about it.

use crate::layout::Layout;
use qtune_ir::{DType, Problem, Raster, Schedule};
use std::ops::Range;

/// A kernel parameter, by meaning. Kernels take them in this order, leaving out what they do not
/// need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// Packed weights, read-only: see [`Layout`].
    Weights,
    /// Packed group parameters, read-only.
    Params,
    /// Activations A, `[M, K]` row-major in the problem's activation type, read-only, 16-byte
    /// aligned.
    Activations,
    /// The same, as a tensor map: see [`Kernel::activation_map`].
    ActivationMap,
    /// Bias, `[N]` in the output type, read-only.
    Bias,
    /// Residual, `[M, N]` row-major in the output type; may be the output.
    Residual,
    /// Output C, row-major in the output type: `[M, N]`, or `[M, N/2]` where rows are paired (see
    /// [`qtune_ir::Epilogue`]).
    Output,
    /// Workspace for partial sums of split K, f32. Any contents.
    Partials,
    /// One u32 per output tile, zero before the first launch; every launch leaves them zero.
    Counters,
    /// The token count M of this launch, u32.
    Tokens,
}

/// A row-major matrix in global memory as the hardware's tensor copies see it (CUDA driver API,
/// `cuTensorMapEncodeTiled`): copied in boxes, zeros beyond its edges, each box stored with rows of
/// 128 bytes in 128-byte swizzle. Every device encodes it its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TensorMapSpec {
    /// Element type.
    pub element: DType,
    /// Elements of a row, which follow each other without a gap.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// Elements of a row of a box: 128 bytes.
    pub box_columns: u32,
    /// Rows of a box.
    pub box_rows: u32,
}

/// A generated kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Name of the `extern "C"` entry.
    pub entry: String,
    /// CUDA C++ text.
    pub source: String,
    /// The parameters in order.
    pub arguments: Vec<Argument>,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// How weights and group parameters are packed for this kernel.
    pub layout: Layout,
    /// What the kernel computes; `m` is the largest token count the schedule is meant for.
    pub problem: Problem,
    /// How it computes it.
    pub schedule: Schedule,
}

/// The part of the output that one thread block contributes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTile {
    /// Output features, cut at N.
    pub rows: Range<u32>,
    /// Tokens, cut at M.
    pub tokens: Range<u32>,
    /// Index of the row tile: the packed buffers' row tile.
    pub row_tile: u32,
}

impl Kernel {
    /// Threads per block.
    pub fn threads(&self) -> u32 {
        self.schedule.threads()
    }

    fn row_tiles(&self) -> u32 {
        self.layout.tiles()
    }

    fn token_tiles(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.schedule.tile().1)
    }

    /// Grid for a launch with `tokens` tokens: row and token tiles in x and y by the schedule's
    /// order, split-K blocks in z.
    pub fn grid(&self, tokens: u32) -> [u32; 3] {
        let (rows, tokens) = (self.row_tiles(), self.token_tiles(tokens));
        match self.schedule.raster() {
            Raster::Rows => [rows, tokens, self.schedule.split_k()],
            Raster::Tokens => [tokens, rows, self.schedule.split_k()],
        }
    }

    /// The view of the activations that [`Argument::ActivationMap`] stands for in a launch with
    /// `tokens` tokens; `None` if the kernel takes a pointer.
    pub fn activation_map(&self, tokens: u32) -> Option<TensorMapSpec> {
        let Schedule::Wgmma(s) = &self.schedule else { return None };
        Some(TensorMapSpec {
            element: self.problem.act,
            columns: self.problem.k,
            rows: tokens,
            box_columns: 64,
            box_rows: s.block_m,
        })
    }

    /// The output tile of linear block `block` (x fastest) of a launch with `tokens` tokens.
    pub fn block_tile(&self, block: u32, tokens: u32) -> BlockTile {
        let [x_size, y_size, _] = self.grid(tokens);
        let (x, y) = (block % x_size, block / x_size % y_size);
        let (row_tile, token_tile) = match self.schedule.raster() {
            Raster::Rows => (x, y),
            Raster::Tokens => (y, x),
        };
        let (tile_n, tile_m) = self.schedule.tile();
        let cut = |tile: u32, size: u32, end: u32| tile * size..((tile + 1) * size).min(end);
        BlockTile {
            rows: cut(row_tile, tile_n, self.problem.n),
            tokens: cut(token_tile, tile_m, tokens),
            row_tile,
        }
    }

    /// The blocks that reduce into the same output tile as `block`, itself included.
    pub fn partners(&self, block: u32, tokens: u32) -> Vec<u32> {
        let [x, y, splits] = self.grid(tokens);
        let plane = x * y;
        (0..splits).map(|split| split * plane + block % plane).collect()
    }

    /// Bytes of [`Argument::Partials`] for a launch with `tokens` tokens; 0 without split K.
    pub fn partials_bytes(&self, tokens: u32) -> usize {
        let (tile_n, tile_m) = self.schedule.tile();
        match self.schedule.split_k() {
            1 => 0,
            splits => {
                let tiles = self.row_tiles() as usize * self.token_tiles(tokens) as usize;
                tiles * splits as usize * (tile_n * tile_m) as usize * 4
            }
        }
    }

    /// Bytes of [`Argument::Counters`] for a launch with `tokens` tokens; 0 without split K.
    pub fn counter_bytes(&self, tokens: u32) -> usize {
        match self.schedule.split_k() {
            1 => 0,
            _ => self.row_tiles() as usize * self.token_tiles(tokens) as usize * 4,
        }
    }
}
