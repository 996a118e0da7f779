//! A generated kernel: its text, and everything a launcher must know about it.
//!
//! A schedule compiles to one text with one or more entries. What callers launch is the whole: a
//! list of [`Step`]s, each a grid of one entry, which run one after the other. Most kernels have one
//! entry and one step; a `dequant` kernel has two entries that take turns, a step each for every
//! slab. Where activations have to be sorted or quantized, a step that does so comes first. An entry need
//! not be a function of the text: a slab may be multiplied by a library ([`SlabProduct`]).

use crate::layout::Layout;
use crate::lower;
use crate::SlabProduct;
use qtune_ir::{pairs_of_k, DType, DenseGemm, DequantSchedule, Problem, Raster, Schedule, Shares};
use std::ops::Range;

/// A kernel parameter, by meaning. Kernels take them in this order, leaving out what they do not
/// need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// Packed weights, read-only: see [`Layout`].
    Weights,
    /// Packed group parameters, read-only.
    Params,
    /// Numbers that a layer brings, read-only, 16-byte aligned: codebooks of vectors, f16 `[books, entries, 8]`; or
    /// the factor of all weights, f32 `[2]`, of even output features and of odd ones, which differ where rows of
    /// two layers lie by turns; or the map of nested scales, f32 `[257]`, the values, then the offset
    /// ([`qtune_ir::NestedMap`]); or the scale of a layer's activations, f32 `[1]`.
    Table,
    /// Activations A, `[M, K]` row-major in the problem's activation type, read-only, 16-byte
    /// aligned.
    Activations,
    /// The same, as a tensor map: see [`Kernel::activation_map`].
    ActivationMap,
    /// The order of a layer's columns (act-order): u16 `[K]`, the column of each input feature, then u16
    /// `[K, 2]`, by slices ([`qtune_ir::sorted_slice`]) in the order of the columns, a feature's place in its
    /// slice and its column. Read-only.
    Places,
    /// What the first step makes of the activations, read by the others: activations in the order of
    /// the columns, or rotated, like [`Argument::Activations`], or codes of 8 bits, in rows of whole 16-byte pieces.
    /// Any contents before a launch.
    Prepared,
    /// The same as a tensor map.
    PreparedMap,
    /// The scales of tokens whose activations are codes, f32 `[M]`, or where each 128 of a token have one
    /// `[K/128, M]`, M rounded up to whole tiles; written by the first step, read by the others. Any contents before a launch.
    TokenScales,
    /// Factors of the input features of a layer between rotations, f16 `[K]`, read-only.
    InputFactors,
    /// The same of the output features, `[N]`.
    OutputFactors,
    /// Products before they are rotated, f32 `[M, N]`; written by the steps that multiply, read by the last.
    /// Any contents before a launch.
    Products,
    /// Bias, `[N]` in the output type, read-only.
    Bias,
    /// Residual, `[M, N]` row-major in the output type; may be the output.
    Residual,
    /// Output C, row-major in the output type: `[M, N]`, or `[M, N/2]` where rows are paired (see
    /// [`qtune_ir::Epilogue`]).
    Output,
    /// Workspace for partial sums of tiles that blocks share, f32. Any contents.
    Partials,
    /// One u32 per output tile, zero before the first launch; every launch leaves them zero.
    Counters,
    /// What the next kernel will read, for schedules that ask L2 for it: never read, so it may be
    /// any address while there are no lines.
    Next,
    /// How many lines of 128 bytes [`Argument::Next`] has, u32; 0 asks for nothing. More than a
    /// part of L2 evicts what this kernel still needs.
    NextLines,
    /// The token count M of this launch, u32.
    Tokens,
    /// Dequantized weights of one slab, 16-bit floats as fragments lie in registers, or row-major where a
    /// library multiplies them; written by one step, read by the next. Any contents before a launch.
    Slab,
    /// The first row tile of a step, u32: see [`Step::first_tile`].
    FirstTile,
}

/// Bytes of a line of L2, the unit of [`Argument::NextLines`].
pub const LINE_BYTES: u32 = 128;

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

/// What a function of a kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Puts the activations of all tokens into the order of the columns.
    Sort,
    /// Makes codes of the activations of all tokens.
    Quantize,
    /// Rotates the activations of all tokens.
    Turn,
    /// Dequantizes a slab.
    Dequantize,
    /// Multiplies and writes the output, or the products that are rotated for it.
    Multiply,
    /// Rotates the products of all tokens and writes the output.
    Finish,
}

/// One `__global__` function of a kernel, or what a library does for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it does.
    pub role: Role,
    /// Its `extern "C"` name; a name for people where a library does it.
    pub name: String,
    /// The parameters in order.
    pub arguments: Vec<Argument>,
    /// Threads per block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// What a library multiplies here, in place of a function of the text. Threads and shared memory are
    /// then none of ours, and a step's grid is that of the output tiles of which a part may be computed.
    pub library: Option<SlabProduct>,
}

/// One grid of a launch. The steps of a launch run one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index into [`Kernel::entries`].
    pub entry: usize,
    /// Thread blocks in x, y and z.
    pub grid: [u32; 3],
    /// The row tile at which the grid starts.
    pub first_tile: u32,
}

impl Step {
    /// Thread blocks in the grid.
    pub fn blocks(&self) -> u32 {
        self.grid.iter().product()
    }
}

/// What a schedule compiles to: one text, one or more entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// CUDA C++ text.
    pub source: String,
    /// The functions of the text. One of them multiplies.
    pub entries: Vec<Entry>,
    /// How weights and group parameters are packed for this kernel.
    pub layout: Layout,
    /// What the kernel computes; `m` is the largest token count the schedule is meant for.
    pub problem: Problem,
    /// How it computes it.
    pub schedule: Schedule,
}

/// A part of the output that one thread block contributes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTile {
    /// Output features, cut at N.
    pub rows: Range<u32>,
    /// Tokens, cut at M.
    pub tokens: Range<u32>,
    /// Index of the row tile: the packed buffers' row tile.
    pub row_tile: u32,
    /// The block's steps along K, of [`Layout::steps`].
    pub steps: Range<u32>,
    /// Index of the output tile among [`Argument::Counters`], if the tile is one that blocks share.
    pub counter: Option<u32>,
}

impl Kernel {
    /// The entry that multiplies; its name stands for the kernel.
    pub fn main(&self) -> &Entry {
        &self.entries[self.main_index()]
    }

    /// The functions of the text: every entry but a library's.
    pub fn functions(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.library.is_none())
    }

    /// The function whose machine code stands for the kernel's: [`Kernel::main`], or what dequantizes for
    /// a library.
    pub fn coded(&self) -> &Entry {
        let ahead = self.entry_of(Role::Dequantize).map(|entry| &self.entries[entry]);
        match (self.main(), ahead) {
            (Entry { library: Some(_), .. }, Some(ahead)) => ahead,
            (main, _) => main,
        }
    }

    fn main_index(&self) -> usize {
        // The generator makes no kernel without such an entry.
        self.entries.iter().position(|entry| entry.role == Role::Multiply).unwrap_or(0)
    }

    /// The entry that does this, if there is one.
    fn entry_of(&self, role: Role) -> Option<usize> {
        self.entries.iter().position(|entry| entry.role == role)
    }

    /// What a step does.
    pub fn role(&self, step: &Step) -> Role {
        self.entries[step.entry].role
    }

    /// Whether a step is one of [`Kernel::main`].
    pub fn is_main(&self, step: &Step) -> bool {
        self.role(step) == Role::Multiply
    }

    /// Whether grids of an entry may start before what was launched ahead of them has ended: they wait
    /// by themselves.
    pub fn is_dependent(&self, entry: usize) -> bool {
        self.entries[entry].role == Role::Multiply && self.schedule.overlap().pdl
    }

    /// Whether a step makes something of the activations that all row tiles read.
    pub fn prepares(&self, step: &Step) -> bool {
        matches!(self.role(step), Role::Sort | Role::Quantize | Role::Turn)
    }

    /// Whether launches begin with a step that rotates the activations and end with one that rotates the
    /// products.
    pub fn rotates(&self) -> bool {
        self.entry_of(Role::Finish).is_some()
    }

    /// What the steps that multiply compute: everything, or products that are rotated afterwards.
    pub fn product(&self) -> Problem {
        match self.rotates() {
            true => lower::product(&self.problem),
            false => self.problem.clone(),
        }
    }

    fn row_tiles(&self) -> u32 {
        self.layout.tiles()
    }

    fn token_tiles(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.schedule.tile().1)
    }

    /// The steps of a launch with `tokens` tokens. Grids that multiply have row and token tiles in x
    /// and y by the schedule's order, split-K blocks in z.
    pub fn steps(&self, tokens: u32) -> Vec<Step> {
        let first = match self.entries[0].role {
            Role::Sort => Some(lower::sort_grid(&self.problem, tokens)),
            Role::Quantize => Some(lower::quantize_grid(tokens)),
            Role::Turn => Some([tokens, 1, 1]),
            Role::Dequantize | Role::Multiply | Role::Finish => None,
        };
        let first = first.map(|grid| Step { entry: 0, grid, first_tile: 0 });
        let mut steps: Vec<Step> = first.into_iter().collect();
        self.multiplying(&mut steps, tokens);
        let last = self.entry_of(Role::Finish);
        steps.extend(last.map(|entry| Step { entry, grid: [tokens, 1, 1], first_tile: 0 }));
        steps
    }

    /// Adds the steps that multiply, and dequantize for it.
    fn multiplying(&self, steps: &mut Vec<Step>, tokens: u32) {
        let main = self.main_index();
        let (Schedule::Dequant(s), Some(ahead)) = (&self.schedule, self.entry_of(Role::Dequantize))
        else {
            let grid = self.grid(self.row_tiles(), tokens);
            return steps.push(Step { entry: main, grid, first_tile: 0 });
        };
        let slab = s.slab_tiles();
        let parts = lower::slab_parts(s, &self.layout);
        for first_tile in (0..self.row_tiles()).step_by(slab as usize) {
            let tiles = slab.min(self.row_tiles() - first_tile);
            steps.push(Step { entry: ahead, grid: [tiles, parts, 1], first_tile });
            steps.push(Step { entry: main, grid: self.grid(tiles, tokens), first_tile });
        }
    }

    fn grid(&self, rows: u32, tokens: u32) -> [u32; 3] {
        if let Some(shares) = self.shares(tokens) {
            return [shares.blocks, 1, 1];
        }
        let (tokens, splits) = (self.token_tiles(tokens), self.schedule.split().per_tile());
        match self.schedule.raster() {
            Raster::Rows => [rows, tokens, splits],
            Raster::Tokens => [tokens, rows, splits],
        }
    }

    /// The shares of a stream-K grid in a launch with `tokens` tokens.
    fn shares(&self, tokens: u32) -> Option<Shares> {
        self.schedule.shares(&self.problem, tokens)
    }

    /// The view of the activations that [`Argument::ActivationMap`] stands for in a launch with
    /// `tokens` tokens; `None` if the kernel takes a pointer.
    pub fn activation_map(&self, tokens: u32) -> Option<TensorMapSpec> {
        let box_rows = match &self.schedule {
            Schedule::Wgmma(s) => s.block_m / s.multicast,
            Schedule::Dequant(DequantSchedule { gemm: DenseGemm::Wgmma(s), .. }) => s.block_m,
            Schedule::Gemv(_) | Schedule::Mma(_) | Schedule::Dequant(_) => return None,
        };
        let (element, columns) = match self.problem.act_bits {
            // Pairs of codes take the place of floats.
            8 => (DType::F16, pairs_of_k(self.problem.k)),
            _ => (self.problem.act, self.problem.k),
        };
        Some(TensorMapSpec { element, columns, rows: tokens, box_columns: 64, box_rows })
    }

    /// The output tiles that linear block `block` (x fastest) of a step contributes to, in a launch
    /// with `tokens` tokens: all tokens for a block that dequantizes, several tiles under stream-K.
    /// Not for a step that prepares activations or rotates products, whose blocks serve all row tiles.
    pub fn block_tiles(&self, step: &Step, block: u32, tokens: u32) -> Vec<BlockTile> {
        if let Some(shares) = self.shares(tokens) {
            let own = shares.tiles(block);
            return own.map(|(tile, steps)| self.shared_tile(tile as u32, steps, tokens)).collect();
        }
        let [x_size, y_size, z_size] = step.grid;
        let (x, y, z) = (block % x_size, block / x_size % y_size, block / x_size / y_size);
        let (row_tile, token_tile) = match (self.is_main(step), self.schedule.raster()) {
            (false, _) => (x, None),
            (true, Raster::Rows) => (x, Some(y)),
            (true, Raster::Tokens) => (y, Some(x)),
        };
        let steps = self.layout.steps();
        let (splits, tile) = match token_tile {
            Some(tile) => (z_size, tile),
            None => (1, 0),
        };
        let steps = z % splits * steps / splits..(z % splits + 1) * steps / splits;
        let shared = splits > 1 && self.schedule.split().in_global();
        let counter = shared.then(|| tile * self.row_tiles() + row_tile);
        let row_tile = step.first_tile + row_tile;
        vec![self.tile_part(row_tile, token_tile, tokens, (steps, counter))]
    }

    /// An output tile of a stream-K grid.
    fn shared_tile(&self, tile: u32, steps: Range<u32>, tokens: u32) -> BlockTile {
        let (rows, columns) = (self.row_tiles(), self.token_tiles(tokens));
        let (row_tile, token_tile) = match self.schedule.raster() {
            Raster::Rows => (tile % rows, tile / rows),
            Raster::Tokens => (tile / columns, tile % columns),
        };
        let counter = (steps.len() < self.layout.steps() as usize).then_some(tile);
        self.tile_part(row_tile, Some(token_tile), tokens, (steps, counter))
    }

    fn tile_part(
        &self,
        row_tile: u32,
        token_tile: Option<u32>,
        tokens: u32,
        (steps, counter): (Range<u32>, Option<u32>),
    ) -> BlockTile {
        let (tile_n, tile_m) = self.schedule.tile();
        let cut = |tile: u32, size: u32, end: u32| tile * size..((tile + 1) * size).min(end);
        BlockTile {
            rows: cut(row_tile, tile_n, self.problem.n),
            tokens: token_tile.map_or(0..tokens, |tile| cut(tile, tile_m, tokens)),
            row_tile,
            steps,
            counter,
        }
    }

    fn output_tiles(&self, tokens: u32) -> usize {
        self.row_tiles() as usize * self.token_tiles(tokens) as usize
    }

    /// Bytes of [`Argument::Partials`] for a launch with `tokens` tokens; 0 where no blocks share a
    /// tile.
    pub fn partials_bytes(&self, tokens: u32) -> usize {
        let parts = match (self.shares(tokens), self.schedule.split()) {
            // The beginning of a share and its end.
            (Some(shares), _) => 2 * shares.blocks as usize,
            (None, split) if !split.in_global() => 0,
            (None, split) => self.output_tiles(tokens) * split.per_tile() as usize,
        };
        let (tile_n, tile_m) = self.schedule.tile();
        parts * (tile_n * tile_m) as usize * 4
    }

    /// Bytes of [`Argument::Counters`] for a launch with `tokens` tokens; 0 where no blocks share a
    /// tile.
    pub fn counter_bytes(&self, tokens: u32) -> usize {
        match self.schedule.split().in_global() {
            true => self.output_tiles(tokens) * 4,
            false => 0,
        }
    }

    /// Bytes of [`Argument::Prepared`] for a launch with `tokens` tokens; 0 for a kernel without that
    /// step.
    pub fn prepared_bytes(&self, tokens: u32) -> usize {
        match self.entries[0].role {
            Role::Sort | Role::Turn => {
                tokens as usize * (self.problem.k * self.problem.act.bytes()) as usize
            }
            Role::Quantize => lower::code_bytes(&self.problem, tokens),
            Role::Dequantize | Role::Multiply | Role::Finish => 0,
        }
    }

    /// Bytes of [`Argument::TokenScales`] for a launch with `tokens` tokens; 0 for a kernel that does
    /// not quantize.
    pub fn token_scale_bytes(&self, tokens: u32) -> usize {
        match self.entries[0].role {
            Role::Quantize => lower::scale_bytes(&self.layout, &self.schedule, tokens),
            _ => 0,
        }
    }

    /// Bytes of [`Argument::Products`] for a launch with `tokens` tokens; 0 for a kernel without rotations.
    pub fn product_bytes(&self, tokens: u32) -> usize {
        match self.rotates() {
            true => tokens as usize * self.problem.n as usize * 4,
            false => 0,
        }
    }

    /// Bytes of [`Argument::Slab`]; 0 for a kernel without slabs.
    pub fn slab_bytes(&self) -> usize {
        match &self.schedule {
            Schedule::Dequant(s) => s.slab_bytes(self.problem.k) as usize,
            Schedule::Gemv(_) | Schedule::Mma(_) | Schedule::Wgmma(_) => 0,
        }
    }
}
