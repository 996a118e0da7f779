//! Offline weight layouts: where each code and group parameter lies in the packed buffers, so that
//! a load gives a lane exactly what its next instructions need.
//!
//! A lane's *piece* is 32 codes, four octets of four pairs each; codes of 4 bits fill four 32-bit
//! words, one load of 16 bytes. In such a word, where codes are converted, pair `j` has its first
//! code at bit `4j` and its second at bit `16 + 4j`, so that one mask yields both halves of a packed
//! 16-bit register. Pairs 1 and 3 sit four bits higher than 0 and 2: left in place they are worth 16
//! times more, the *position weight* of the dequantization algebra. Where codes are looked up, pair
//! `j` is byte `j` ([`CodeOrder`]). Other widths fill a piece as [`CodePacking`] says. Pieces that
//! take several loads are a *slab* for the 32 lanes of a warp: all first loads, then all second ones.
//!
//! | family | octet | pair `j` of an octet |
//! |---|---|---|
//! | `gemv` | eight consecutive k of one row | k `2j`, `2j+1` |
//! | `mma`, `wgmma` | the A fragment of `m16n8k16` for one lane (PTX ISA, "Matrix Fragments for mma.m16n8k16") | row `g + 8*(j&1)`, k `2t + 8*(j>>1)` and the next |
//!
//! Codes that name vectors of weights stay whole: an octet of a piece is one vector. A lane of a fragment
//! needs two weights of each of four vectors, which four lanes so share ([`vectors`]).
//!
//! In the fragment layout the position weight therefore depends on the row alone.

mod bytes;
mod levels;
mod loads;
mod nibbles;
mod pack;
mod vectors;

pub use loads::Loads;
pub(crate) use pack::F32_EXPONENT;
pub use pack::{CodeRow, ParamOrder};

use bytes::Bytes;
use qtune_ir::dequant::{fields, CodeOrder, Field, Levels};
use qtune_ir::{
    CodePacking, GemvSchedule, Group, MmaSchedule, Problem, Rejected, Schedule, VectorCodes,
    WeightSpec, WgmmaSchedule, NESTED_NUMBERS,
};

/// Lanes of a warp: pieces of a slab.
const LANES: u32 = 32;
/// Bytes of a layer's factors, f32 of even output features and of odd ones.
const FACTOR_BYTES: usize = 8;
/// Bytes of the scale of a layer's activations, f32.
const STATIC_SCALE_BYTES: usize = 4;

/// Where some bits of a code lie: in a 32-bit word of the packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Index of the 32-bit word.
    pub word: usize,
    /// Bit offset in it. Bits that reach the end of the word go on at bit 0.
    pub shift: u32,
    /// The lowest of these bits in the code.
    pub low: u32,
    /// How many they are.
    pub width: u32,
}

/// Where a code lies, whatever its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    slab: u32,
    lane: u32,
    octet: u32,
    pair: u32,
    half: u32,
}

/// The packed form of one weight matrix under one schedule.
///
/// Both buffers are divided into *row tiles* of [`Layout::tile_rows`] output rows, each
/// contiguous, so that a part of a matrix can be packed alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    n: u32,
    k: u32,
    group: u32,
    groups: u32,
    groups_per_step: u32,
    fields: Vec<Field>,
    groups_together: u32,
    levels: Option<Levels>,
    order: CodeOrder,
    packing: CodePacking,
    vectors: Option<VectorCodes>,
    /// Bytes of a layer's factors, or of its map of nested scales.
    number_bytes: usize,
    kind: Kind,
    /// Where codes lie that are multiplied as they are; else `kind` and `packing` say it.
    bytes: Option<Bytes>,
    /// Which weights share parameters.
    sharing: Group,
    /// Whether those have one scale to a row, for the end.
    scales_at_end: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Gemv(GemvSchedule),
    Fragments(Fragments),
}

/// Tiles of 16x16 fragments: what `mma` and `wgmma` share, as the register operand of both is laid
/// out alike.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fragments {
    block_n: u32,
    block_k: u32,
    /// Whether every stage has the parameters of its groups, to be copied with its codes; else stages
    /// of one group share them, to be read in place or copied once.
    params_by_stage: bool,
}

impl Layout {
    /// The layout that `schedule` reads.
    ///
    /// # Errors
    /// [`Rejected`] where kernels do not read codes of this width.
    pub fn new(
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Result<Layout, Rejected> {
        let packing = CodePacking::of(spec.bits).ok_or_else(|| Rejected {
            reason: format!("no layout holds codes of {} bits", spec.bits),
        })?;
        let bytes = Bytes::of(spec, schedule);
        let scales_at_end = bytes.is_some() && !spec.activations.are_grouped();
        let levels = schedule.levels(spec, problem.k);
        let fields = match &levels {
            Some(levels) => levels.entry.clone(),
            None => fields(schedule.dequant(), spec),
        };
        let apart = bytes.is_some() || levels.is_some();
        let groups_together = if apart { 1 } else { together(&fields, problem.k, spec, schedule) };
        Ok(Layout {
            n: problem.n,
            k: problem.k,
            group: spec.group.size(problem.k),
            groups: spec.group.count(problem.k),
            groups_per_step: match schedule {
                Schedule::Gemv(s) => s.groups_per_step(spec, problem.k),
                Schedule::Mma(s) => s.groups_per_stage(spec, problem.k),
                Schedule::Wgmma(s) => s.groups_per_stage(spec, problem.k),
                Schedule::Dequant(s) => s.groups_per_stage(spec, problem.k),
            },
            fields,
            groups_together,
            levels,
            order: CodeOrder::of_term(schedule.dequant()),
            packing,
            vectors: spec.codebook.vectors(),
            number_bytes: number_bytes(spec),
            kind: match schedule {
                Schedule::Gemv(s) => Kind::Gemv(s.clone()),
                Schedule::Mma(MmaSchedule { block_n, block_k, .. })
                | Schedule::Wgmma(WgmmaSchedule { block_n, block_k, .. }) => {
                    let (block_n, block_k) = (*block_n, *block_k);
                    let params_by_stage =
                        !scales_at_end && !schedule.has_params_once(spec, problem.k);
                    Kind::Fragments(Fragments { block_n, block_k, params_by_stage })
                }
                Schedule::Dequant(s) => Kind::Fragments(Fragments {
                    block_n: schedule.tile().0,
                    block_k: s.block_k(),
                    params_by_stage: false,
                }),
            },
            bytes,
            sharing: spec.group,
            scales_at_end,
        })
    }

    /// How codes fill words.
    pub fn packing(&self) -> CodePacking {
        self.packing
    }

    /// A line that identifies the layout: two schedules with the same id read the same bytes.
    pub fn id(&self) -> String {
        if let Some(bytes) = &self.bytes {
            return match (self.scales_at_end, self.param_sets()) {
                (true, _) => bytes.id(),
                (false, sets) => format!("{}.{sets}x{}", bytes.id(), self.groups_per_step()),
            };
        }
        let tiles = match &self.kind {
            Kind::Gemv(s) => format!("gemv.{}x{}.n{}", s.rows, s.lanes, s.block_n()),
            Kind::Fragments(s) => {
                // What is stored once is stored as for what dequantizes ahead.
                let name = if s.params_by_stage { "mma" } else { "dequant" };
                format!("{name}.{}x{}.g{}", s.block_n, s.block_k, self.groups_per_step())
            }
        };
        let tiles = match self.sharing {
            Group::Rows(rows) => format!("{tiles}.rows{rows}"),
            Group::Size(_) | Group::Channel => tiles,
        };
        let tiles = match self.packing.bits() {
            4 => tiles,
            bits => format!("{tiles}.w{bits}"),
        };
        let tiles = match &self.levels {
            Some(levels) if levels.is_nested() => tiles + ".nested",
            Some(_) => tiles + ".levels",
            None => tiles,
        };
        let tiles = match self.groups_together {
            1 => tiles,
            together => format!("{tiles}.by{together}"),
        };
        match self.order {
            CodeOrder::Split => tiles,
            CodeOrder::Raised => tiles + ".raised",
            CodeOrder::Sequential => tiles + ".sequential",
            CodeOrder::Vectors => tiles + ".vectors",
        }
    }

    /// Whether the `gemv` family reads this layout.
    pub fn is_gemv(&self) -> bool {
        matches!(self.kind, Kind::Gemv(_))
    }

    /// Output rows per row tile.
    pub fn tile_rows(&self) -> u32 {
        match &self.kind {
            Kind::Gemv(s) => s.block_n(),
            Kind::Fragments(s) => s.block_n,
        }
    }

    /// The output feature that a row of codes is for.
    pub fn feature(&self, row: u32) -> u32 {
        self.sharing.feature(row, self.n)
    }

    /// Which weights share parameters.
    pub fn sharing(&self) -> Group {
        self.sharing
    }

    /// Whether rows share their parameters, of which every column has its own.
    fn shares_rows(&self) -> bool {
        matches!(self.sharing, Group::Rows(_))
    }

    /// Whether parameters of 16 bits lie in the halves of a word for two columns, side by side as their weights are; else
    /// the entries of both follow each other.
    pub fn has_halves_by_parameter(&self) -> bool {
        self.shares_rows() && self.fields.len() == 2 && self.entry_bytes() == 4
    }

    /// Row tiles that read the same parameters: in `gemv`, whose tiles are small, those whose rows share them.
    pub fn tiles_of_params(&self) -> u32 {
        match &self.kind {
            Kind::Gemv(_) => (self.sharing.rows() / self.tile_rows()).max(1),
            Kind::Fragments(_) => 1,
        }
    }

    /// The byte at which the parameters of a row tile start.
    pub fn param_offset(&self, tile: u32) -> usize {
        (tile / self.tiles_of_params()) as usize * self.tile_param_bytes()
    }

    /// Rows of parameters in a row tile.
    pub fn tile_param_rows(&self) -> u32 {
        self.sharing.param_rows(self.tile_rows())
    }

    /// Number of row tiles; the last one may reach past N.
    pub fn tiles(&self) -> u32 {
        self.n.div_ceil(self.tile_rows())
    }

    /// k that one step (`gemv`) or stage (`mma`, `wgmma`) covers.
    fn step_k(&self) -> u32 {
        match &self.kind {
            Kind::Gemv(s) => s.step_k(),
            Kind::Fragments(s) => s.block_k,
        }
    }

    /// Steps (or stages) along K.
    pub fn steps(&self) -> u32 {
        self.k.div_ceil(self.step_k())
    }

    /// Quant groups of a row of parameters.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// Quant groups that one step touches, as far as they are stored apart.
    pub fn groups_per_step(&self) -> u32 {
        self.groups_per_step
    }

    /// Steps that share one stored set of parameters. Rings copy parameters with every stage, unless one quant
    /// group spans K; `gemv`, and what dequantizes ahead, read them in place.
    pub fn steps_per_param_set(&self) -> u32 {
        match &self.kind {
            Kind::Fragments(s) if s.params_by_stage => 1,
            _ if self.group >= self.k => self.steps(),
            _ => (self.group / self.step_k()).max(1),
        }
    }

    /// Stored parameter sets per row of parameters.
    pub fn param_sets(&self) -> u32 {
        self.steps().div_ceil(self.steps_per_param_set())
    }

    /// What one (row, group) parameter entry holds, in order; where the levels are packed apart, once they
    /// are together in registers.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of one (row, group) parameter entry.
    pub fn entry_bytes(&self) -> usize {
        self.fields.iter().map(|field| field.dtype.packed_bytes() as usize).sum()
    }

    /// Whether parameters are scales of whole rows that wait for the end of K, which no stage brings.
    pub fn scales_at_end(&self) -> bool {
        self.scales_at_end
    }

    /// Quant groups whose entries for two rows of a fragment lie together, so that a load brings them all.
    pub fn groups_together(&self) -> u32 {
        self.groups_together
    }

    /// Bytes of packed weights in one row tile.
    pub fn tile_weight_bytes(&self) -> usize {
        let codes = self.tile_rows() as usize * (self.steps() * self.step_k()) as usize;
        codes * self.packing.bits() as usize / 8
    }

    /// Bytes of packed parameters of one row tile.
    pub fn tile_param_bytes(&self) -> usize {
        let rows = (self.param_sets() * self.tile_param_rows()) as usize;
        let row = match (self.loads(), &self.levels) {
            (Some(loads), _) => loads.row_bytes() as usize,
            (None, Some(levels)) => levels.bytes(self.groups_per_step()) as usize,
            (None, None) => self.groups_per_step() as usize * self.entry_bytes(),
        };
        rows * row
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.tiles() as usize * self.tile_weight_bytes()
    }

    /// Bytes of the packed group parameters.
    pub fn param_bytes(&self) -> usize {
        self.tiles().div_ceil(self.tiles_of_params()) as usize * self.tile_param_bytes()
    }

    /// Bytes of the numbers that a layer brings: [`crate::Argument::Table`]; 0 where it brings none.
    pub fn table_bytes(&self) -> usize {
        self.vectors.map_or(self.number_bytes, |vectors| 2 * vectors.values())
    }

    /// Whether what is looked up in a layer's table decides what caches can keep of it.
    pub fn has_vectors(&self) -> bool {
        self.vectors.is_some()
    }

    /// Where the bits of the code of weight `(n, k)` lie, from the lowest up. `n < N`, `k < K`.
    pub fn bits(&self, n: u32, k: u32) -> impl Iterator<Item = Bits> + '_ {
        let (packing, spot) = (self.packing, self.spot(n, k));
        let tile = (n / self.tile_rows()) as usize * self.tile_words();
        packing.planes().map(move |plane| {
            if let Some(bytes) = &self.bytes {
                let place = bytes.bits(n, k);
                return Bits { word: tile + place.word, ..place };
            }
            let Spot { octet, pair, half, .. } = spot;
            let place = packing.place(plane, octet, pair, half, self.order);
            let word = tile + self.word(spot.slab, spot.lane, place.word);
            Bits { word, shift: place.shift, low: plane.low, width: plane.width }
        })
    }

    /// Which of the two position weights ([`qtune_ir::dequant::POSITIONS`]) a code has where it lies.
    pub fn position(&self, n: u32, k: u32) -> usize {
        match self.bytes {
            Some(_) => 0,
            None => self.spot(n, k).pair as usize % 2,
        }
    }

    fn spot(&self, n: u32, k: u32) -> Spot {
        let row = n % self.tile_rows();
        let (step, k) = (k / self.step_k(), k % self.step_k());
        match &self.kind {
            Kind::Gemv(s) => gemv_spot(s, self.steps(), row, step, k),
            Kind::Fragments(s) if self.order == CodeOrder::Vectors => {
                vectors::fragment_spot(s, row, step, k)
            }
            Kind::Fragments(s) => fragment_spot(s, row, step, k),
        }
    }

    /// Words of a row tile.
    fn tile_words(&self) -> usize {
        self.tile_weight_bytes() / 4
    }

    /// Index in the row tile of a word of a lane's piece.
    fn word(&self, slab: u32, lane: u32, word: u32) -> usize {
        let width = self.packing.load_words();
        let load = slab * self.packing.loads() + word / width;
        ((load * LANES + lane) * width + word % width) as usize
    }

    /// Row in the tile and k of the first code of a piece, not cut at N and K.
    fn piece_origin(&self, slab: u32, lane: u32) -> (u32, u32) {
        let (row, step, k) = match &self.kind {
            Kind::Gemv(s) => gemv_origin(s, self.steps(), slab, lane),
            Kind::Fragments(s) => fragment_origin(s, slab, lane),
        };
        (row, step * self.step_k() + k)
    }

    /// k from one octet of a piece to the next.
    fn octet_k(&self) -> u32 {
        match &self.kind {
            Kind::Gemv(_) => 8,
            Kind::Fragments(_) => 16,
        }
    }

    /// Rows and columns between a pair of an octet and the first.
    fn pair_offset(&self, pair: u32) -> (u32, u32) {
        match &self.kind {
            Kind::Gemv(_) => (0, 2 * pair),
            Kind::Fragments(_) => (8 * (pair & 1), 8 * (pair >> 1)),
        }
    }

    /// The code of weight `(n, k)` in a packed buffer.
    pub fn code(&self, weights: &[u8], n: u32, k: u32) -> u8 {
        let part = |bits: Bits| {
            let word = [0, 1, 2, 3].map(|byte| weights[4 * bits.word + byte]);
            let word = u32::from_le_bytes(word).rotate_right(bits.shift);
            ((word & ((1 << bits.width) - 1)) << bits.low) as u8
        };
        let stored = self.bits(n, k).map(part).fold(0, |code, part| code | part);
        stored ^ self.bytes.map_or(0, |bytes| bytes.flip)
    }
}

/// Quant groups that lanes of fragments need at once, where an entry is but a byte.
fn together(fields: &[Field], k: u32, spec: &WeightSpec, schedule: &Schedule) -> u32 {
    /// Entries of two rows that one load brings.
    const MOST: u32 = 8;
    let needed = match schedule {
        Schedule::Mma(s) => s.groups_per_segment(spec, k),
        Schedule::Wgmma(s) => s.groups_per_segment(spec, k),
        Schedule::Gemv(_) | Schedule::Dequant(_) => 1,
    };
    let bytes: u32 = fields.iter().map(|field| field.dtype.packed_bytes()).sum();
    match bytes == 1 && needed.is_power_of_two() && needed <= MOST {
        true => needed,
        false => 1,
    }
}

/// Bytes of the numbers that a layer of this format brings, codebooks of vectors aside.
fn number_bytes(spec: &WeightSpec) -> usize {
    match (spec.has_layer_factor(), spec.has_nested_scales()) {
        (true, _) => FACTOR_BYTES,
        (_, true) => 4 * NESTED_NUMBERS,
        _ if spec.activations.are_static() => STATIC_SCALE_BYTES,
        _ => 0,
    }
}

/// Where a weight's code lies: `row` in the tile, `k` in the step.
fn gemv_spot(s: &GemvSchedule, steps: u32, row: u32, step: u32, k: u32) -> Spot {
    let lane_rows = 32 / s.lanes;
    let (warp, row) = (row / s.warp_rows(), row % s.warp_rows());
    Spot {
        slab: (warp * steps + step) * s.rows + row / lane_rows,
        lane: row % lane_rows * s.lanes + k / 32,
        octet: k % 32 / 8,
        pair: k % 8 / 2,
        half: k % 2,
    }
}

/// Row in the tile, step and k in the step of the first weight of a piece.
fn gemv_origin(s: &GemvSchedule, steps: u32, slab: u32, lane: u32) -> (u32, u32, u32) {
    let (r, step, warp) = (slab % s.rows, slab / s.rows % steps, slab / s.rows / steps);
    let row = warp * s.warp_rows() + r * (32 / s.lanes) + lane / s.lanes;
    (row, step, lane % s.lanes * 32)
}

fn fragment_spot(s: &Fragments, row: u32, step: u32, k: u32) -> Spot {
    let (row_tile, row) = (row / 16, row % 16);
    let (chunk, k) = (k / 64, k % 64);
    let (octet, k) = (k / 16, k % 16);
    Spot {
        slab: (step * (s.block_n / 16) + row_tile) * (s.block_k / 64) + chunk,
        lane: row % 8 * 4 + k % 8 / 2,
        octet,
        pair: row / 8 + 2 * (k / 8),
        half: k % 2,
    }
}

fn fragment_origin(s: &Fragments, slab: u32, lane: u32) -> (u32, u32, u32) {
    let chunks = s.block_k / 64;
    let (chunk, slab) = (slab % chunks, slab / chunks);
    let (row_tile, step) = (slab % (s.block_n / 16), slab / (s.block_n / 16));
    let (g, t) = (lane / 4, lane % 4);
    (row_tile * 16 + g, step, chunk * 64 + 2 * t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::ParamType;

    fn spec(bits: u8, group: qtune_ir::Group) -> WeightSpec {
        let param = |name: &str, dtype| qtune_ir::Param { name: name.into(), dtype };
        WeightSpec {
            name: "test".into(),
            bits,
            group,
            params: vec![param("s", ParamType::F16), param("z", ParamType::Code(bits))],
            expr: "(* (- q z) s)".into(),
            codebook: Default::default(),
            act_order: false,
            activations: Default::default(),
        }
    }

    /// Layouts of every family and width.
    pub(super) fn layouts(n: u32, k: u32, group: qtune_ir::Group) -> Vec<Layout> {
        let problem: Problem = format!("w4a16.test.f16-f16.n{n}.k{k}.m1").parse().unwrap();
        let schedules = [
            "gemv tokens=1 rows=2 lanes=8 warps=2x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=q",
            "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
             cache=normal dequant=q",
            "mma tile=8x32x128 warps=2x1 stages=2 split=1 pad=16 raster=rows dequant=q",
            "mma tile=8x16x64 warps=1x1 stages=2 split=1 pad=16 raster=rows dequant=q",
            "wgmma tile=8x64x128 groups=1 stages=2 split=1 producer=warp raster=rows dequant=q",
            "dequant slab=64 gemm=mma tile=8x32x64 warps=2x1 stages=2 split=1 pad=16 \
             raster=rows dequant=q",
        ];
        let tables = [
            "gemv tokens=1 rows=2 lanes=8 warps=2x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=(sum (* (pair q) x))",
            "mma tile=8x32x128 warps=2x1 stages=2 split=1 pad=16 raster=rows \
             dequant=(sum (* (prmt q) x))",
            "mma tile=8x32x128 warps=2x1 stages=2 split=1 pad=16 raster=rows \
             dequant=(sum (* (subn (raise q)) x))",
        ];
        let vectors = [
            "gemv tokens=1 rows=2 lanes=8 warps=2x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=(sum (* (vector q) x))",
            "dequant slab=64 gemm=mma tile=8x32x128 warps=2x1 stages=2 split=1 pad=16 \
             raster=rows dequant=(sum (* (vector q) x))",
        ];
        let layout = |bits, schedule: &str| {
            Layout::new(&problem, &spec(bits, group), &schedule.parse().unwrap()).unwrap()
        };
        let widths = [2, 3, 4, 5, 6, 8].into_iter();
        let mut all: Vec<Layout> =
            widths.flat_map(|bits| schedules.map(|schedule| layout(bits, schedule))).collect();
        all.extend(tables.map(|schedule| layout(4, schedule)));
        all.extend(vectors.map(|schedule| layout(2, schedule)));
        // Rows of codes that are multiplied as they are have one scale.
        let floats = qtune_ir::Activations::E4m3(qtune_ir::ActivationScales::Token);
        all.extend((group == qtune_ir::Group::Channel).then(|| bytes(n, k, floats)));
        all
    }

    /// The layout of codes that are multiplied as they are.
    pub(super) fn bytes(n: u32, k: u32, activations: qtune_ir::Activations) -> Layout {
        let problem: Problem = format!("w8a8.test.f16-f16.n{n}.k{k}.m1").parse().unwrap();
        let spec = WeightSpec { activations, ..spec(8, qtune_ir::Group::Channel) };
        let schedule = "mma tile=8x32x256 warps=2x1 stages=2 split=1 pad=16 raster=rows \
                        dequant=(sum x)";
        Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap()
    }

    #[test]
    fn every_bit_of_every_weight_has_its_own_place() {
        let channel = layouts(48, 320, qtune_ir::Group::Channel);
        for layout in layouts(48, 320, qtune_ir::Group::Size(64)).iter().chain(&channel) {
            let mut taken = vec![0u32; layout.weight_bytes() / 4];
            for (n, k) in (0..48).flat_map(|n| (0..320).map(move |k| (n, k))) {
                let mut width = 0;
                for bits in layout.bits(n, k) {
                    assert_eq!(bits.low, width);
                    width += bits.width;
                    let mask = ((1u32 << bits.width) - 1) << bits.shift;
                    assert_eq!(taken[bits.word] & mask, 0, "{} {bits:?}", layout.id());
                    taken[bits.word] |= mask;
                }
                assert_eq!(width, layout.packing().bits());
            }
        }
    }
}
