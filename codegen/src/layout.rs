//! Offline weight layouts: where each code and group parameter lies in the packed buffers, so that
//! one 16-byte load gives a lane exactly what its next instructions need.
//!
//! A 32-bit word holds eight codes as four pairs. Where codes are converted, pair `j` has its first
//! code at bit `4j` and its second at bit `16 + 4j`, so that one mask yields both halves of a packed
//! 16-bit register. Pairs 1 and 3 sit four bits higher than 0 and 2: left in place they are worth 16
//! times more, the *position weight* of the dequantization algebra. Where codes are looked up, pair
//! `j` is byte `j` ([`CodeOrder`]).
//!
//! | family | word | pair `j` of a word |
//! |---|---|---|
//! | `gemv` | eight consecutive k of one row | k `2j`, `2j+1` |
//! | `mma`, `wgmma` | the A fragment of `m16n8k16` for one lane (PTX ISA, "Matrix Fragments for mma.m16n8k16") | row `g + 8*(j&1)`, k `2t + 8*(j>>1)` and the next |
//!
//! In the fragment layout the position weight therefore depends on the row alone.

use qtune_ir::dequant::CodeOrder;
use qtune_ir::{
    GemvSchedule, MmaSchedule, ParamType, Problem, Schedule, WeightSpec, WgmmaSchedule,
};
use rayon::prelude::*;

/// Codes in one 32-bit word of 4-bit weights.
const WORD_CODES: u32 = 8;
/// Bytes of one lane's load.
const LANE_BYTES: usize = 16;

/// Where a code lies: a 32-bit word of the packed weights and a bit offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the 32-bit word.
    pub word: usize,
    /// Bit offset of the code's low bit.
    pub shift: u32,
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
    params: Vec<ParamType>,
    order: CodeOrder,
    kind: Kind,
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
}

impl Layout {
    /// The layout that `schedule` reads.
    pub fn new(problem: &Problem, spec: &WeightSpec, schedule: &Schedule) -> Layout {
        Layout {
            n: problem.n,
            k: problem.k,
            group: spec.group.size(problem.k),
            groups: spec.group.count(problem.k),
            groups_per_step: match schedule {
                Schedule::Gemv(s) => s.groups_per_step(spec, problem.k),
                Schedule::Mma(s) => s.groups_per_stage(spec, problem.k),
                Schedule::Wgmma(s) => s.groups_per_stage(spec, problem.k),
            },
            params: spec.params.iter().map(|p| p.dtype).collect(),
            order: CodeOrder::of_term(schedule.dequant()),
            kind: match schedule {
                Schedule::Gemv(s) => Kind::Gemv(s.clone()),
                Schedule::Mma(MmaSchedule { block_n, block_k, .. })
                | Schedule::Wgmma(WgmmaSchedule { block_n, block_k, .. }) => {
                    Kind::Fragments(Fragments { block_n: *block_n, block_k: *block_k })
                }
            },
        }
    }

    /// A line that identifies the layout: two schedules with the same id read the same bytes.
    pub fn id(&self) -> String {
        let tiles = match &self.kind {
            Kind::Gemv(s) => format!("gemv.{}x{}.n{}", s.rows, s.lanes, s.block_n()),
            Kind::Fragments(s) => {
                format!("mma.{}x{}.g{}", s.block_n, s.block_k, self.groups_per_step())
            }
        };
        match self.order {
            CodeOrder::Split => tiles,
            CodeOrder::Sequential => tiles + ".sequential",
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

    /// Quant groups of a row.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// Quant groups that one step touches, as far as they are stored apart.
    pub fn groups_per_step(&self) -> u32 {
        self.groups_per_step
    }

    /// Steps that share one stored set of parameters. Rings copy parameters with every stage;
    /// `gemv` reads them in place.
    pub fn steps_per_param_set(&self) -> u32 {
        match &self.kind {
            Kind::Gemv(_) if self.group >= self.k => self.steps(),
            Kind::Gemv(s) => (self.group / s.step_k()).max(1),
            Kind::Fragments(_) => 1,
        }
    }

    /// Stored parameter sets per row.
    pub fn param_sets(&self) -> u32 {
        self.steps().div_ceil(self.steps_per_param_set())
    }

    /// Bytes of one (row, group) parameter entry.
    pub fn entry_bytes(&self) -> usize {
        self.params.iter().map(|p| p.packed_bytes() as usize).sum()
    }

    /// Bytes of packed weights in one row tile.
    pub fn tile_weight_bytes(&self) -> usize {
        self.tile_rows() as usize * (self.steps() * self.step_k()) as usize / 2
    }

    /// Bytes of packed parameters in one row tile.
    pub fn tile_param_bytes(&self) -> usize {
        let entries = self.param_sets() * self.groups_per_step() * self.tile_rows();
        entries as usize * self.entry_bytes()
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.tiles() as usize * self.tile_weight_bytes()
    }

    /// Bytes of the packed group parameters.
    pub fn param_bytes(&self) -> usize {
        self.tiles() as usize * self.tile_param_bytes()
    }

    /// Where the code of weight `(n, k)` lies. `n < N`, `k < K`.
    pub fn slot(&self, n: u32, k: u32) -> Slot {
        let (tile, row) = (n / self.tile_rows(), n % self.tile_rows());
        let (step, k) = (k / self.step_k(), k % self.step_k());
        let (lane_word, pair, half) = match &self.kind {
            Kind::Gemv(s) => gemv_slot(s, self.steps(), row, step, k),
            Kind::Fragments(s) => fragment_slot(s, row, step, k),
        };
        let tile_words = self.tile_weight_bytes() / 4;
        Slot { word: tile as usize * tile_words + lane_word, shift: self.order.shift(pair, half) }
    }

    /// The inverse of [`Layout::slot`]: the weight at a slot, or `None` for padding.
    pub fn element(&self, slot: Slot) -> Option<(u32, u32)> {
        let (n, k) = self.word_origin(slot.word);
        let (rows, columns) = self.offset_in_word(slot.shift);
        let (n, k) = (n + rows, k + columns);
        (n < self.n && k < self.k).then_some((n, k))
    }

    /// The weight at bit 0 of a word, not cut at N and K.
    fn word_origin(&self, word: usize) -> (u32, u32) {
        let tile_words = self.tile_weight_bytes() / 4;
        let (tile, word) = (word / tile_words, word % tile_words);
        let (row, step, k) = match &self.kind {
            Kind::Gemv(s) => gemv_origin(s, self.steps(), word),
            Kind::Fragments(s) => fragment_origin(s, word),
        };
        (tile as u32 * self.tile_rows() + row, step * self.step_k() + k)
    }

    /// Rows and columns between the code at `shift` and the one at bit 0 of the same word.
    fn offset_in_word(&self, shift: u32) -> (u32, u32) {
        let (pair, half) = self.order.place(shift);
        match &self.kind {
            Kind::Gemv(_) => (0, 2 * pair + half),
            Kind::Fragments(_) => (8 * (pair & 1), 8 * (pair >> 1) + half),
        }
    }

    /// Packs one row tile of codes. `code(n, k)` is asked for every weight that exists; padding
    /// is zero.
    pub fn pack_weight_tile(&self, tile: u32, code: &(impl Fn(u32, u32) -> u8 + Sync)) -> Vec<u8> {
        let words = self.tile_weight_bytes() / 4;
        let first = tile as usize * words;
        // Divisions decode a word's origin once; its eight codes lie at fixed offsets from there.
        let offsets: [(u32, (u32, u32)); WORD_CODES as usize] = std::array::from_fn(|i| {
            let shift = self.order.shift(i as u32 >> 1, i as u32 & 1);
            (shift, self.offset_in_word(shift))
        });
        let mut bytes = Vec::with_capacity(words * 4);
        for word in first..first + words {
            let (n, k) = self.word_origin(word);
            let mut packed = 0;
            for (shift, (rows, columns)) in offsets {
                let (n, k) = (n + rows, k + columns);
                if n < self.n && k < self.k {
                    packed |= u32::from(code(n, k) & 15) << shift;
                }
            }
            bytes.extend_from_slice(&packed.to_le_bytes());
        }
        bytes
    }

    /// Packs one row tile of group parameters. `value(n, group, param)` is asked for every entry;
    /// rows past N get zeros, so that padding contributes nothing.
    pub fn pack_param_tile(
        &self,
        tile: u32,
        value: &(impl Fn(u32, u32, usize) -> f32 + Sync),
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.tile_param_bytes());
        let entries = self.param_sets() * self.groups_per_step() * self.tile_rows();
        for entry in 0..entries {
            let (row, group) = self.param_entry(entry);
            let n = tile * self.tile_rows() + row;
            for (index, dtype) in self.params.iter().enumerate() {
                let value = if n < self.n { value(n, group, index) } else { 0.0 };
                push_param(&mut bytes, *dtype, value);
            }
        }
        bytes
    }

    /// Row in the tile and quant group of a parameter entry of a row tile.
    fn param_entry(&self, entry: u32) -> (u32, u32) {
        let per_step = self.groups_per_step();
        let (set, row, group) = match &self.kind {
            Kind::Gemv(s) => {
                // Sets of one warp follow each other: [warp][set][row of the warp][group].
                let (row, group) = (entry / per_step, entry % per_step);
                let (set, row) = (row / s.warp_rows(), row % s.warp_rows());
                let (warp, set) = (set / self.param_sets(), set % self.param_sets());
                (set, warp * s.warp_rows() + row, group)
            }
            Kind::Fragments(_) => {
                // Rows g and g+8 of a 16-row tile lie side by side: one load serves a lane.
                let (group, row) = (entry / self.tile_rows(), entry % self.tile_rows());
                let row = row / 16 * 16 + row % 16 / 2 + 8 * (row & 1);
                (group / per_step, row, group % per_step)
            }
        };
        let base = set as u64 * (self.steps_per_param_set() * self.step_k()) as u64;
        let group = (base / self.group as u64) as u32 + group;
        (row, group.min(self.groups - 1))
    }

    /// Packs the whole matrix, row tiles in parallel: `(weights, params)`.
    pub fn pack(
        &self,
        code: impl Fn(u32, u32) -> u8 + Sync,
        value: impl Fn(u32, u32, usize) -> f32 + Sync,
    ) -> (Vec<u8>, Vec<u8>) {
        let mut weights = vec![0; self.weight_bytes()];
        let mut params = vec![0; self.param_bytes()];
        let tiles = weights
            .par_chunks_mut(self.tile_weight_bytes())
            .zip(params.par_chunks_mut(self.tile_param_bytes()));
        tiles.enumerate().for_each(|(tile, (weights, params))| {
            weights.copy_from_slice(&self.pack_weight_tile(tile as u32, &code));
            params.copy_from_slice(&self.pack_param_tile(tile as u32, &value));
        });
        (weights, params)
    }

    /// The code of weight `(n, k)` in a packed buffer.
    pub fn code(&self, weights: &[u8], n: u32, k: u32) -> u8 {
        let slot = self.slot(n, k);
        let at = slot.word * 4 + slot.shift as usize / 8;
        weights[at] >> (slot.shift % 8) & 15
    }
}

fn push_param(bytes: &mut Vec<u8>, dtype: ParamType, value: f32) {
    match dtype {
        ParamType::F16 | ParamType::Code(_) => {
            bytes.extend_from_slice(&half::f16::from_f32(value).to_le_bytes())
        }
        ParamType::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
    }
}

/// Word in the tile, pair and half of a weight: `row` in the tile, `k` in the step.
fn gemv_slot(s: &GemvSchedule, steps: u32, row: u32, step: u32, k: u32) -> (usize, u32, u32) {
    let lane_rows = 32 / s.lanes;
    let (warp, row) = (row / s.warp_rows(), row % s.warp_rows());
    let lane = row % lane_rows * s.lanes + k / 32;
    let load = ((warp * steps + step) * s.rows + row / lane_rows) * 32 + lane;
    (load as usize * LANE_BYTES / 4 + (k % 32 / 8) as usize, k % 8 / 2, k % 2)
}

/// Row in the tile, step and k in the step of the weight at bit 0 of a word of the tile.
fn gemv_origin(s: &GemvSchedule, steps: u32, word: usize) -> (u32, u32, u32) {
    let (load, word) = ((word / 4) as u32, (word % 4) as u32);
    let (lane, slab) = (load % 32, load / 32);
    let (r, step, warp) = (slab % s.rows, slab / s.rows % steps, slab / s.rows / steps);
    let row = warp * s.warp_rows() + r * (32 / s.lanes) + lane / s.lanes;
    (row, step, lane % s.lanes * 32 + word * 8)
}

fn fragment_slot(s: &Fragments, row: u32, step: u32, k: u32) -> (usize, u32, u32) {
    let (row_tile, row) = (row / 16, row % 16);
    let (chunk, k) = (k / 64, k % 64);
    let (word, k) = (k / 16, k % 16);
    let lane = row % 8 * 4 + k % 8 / 2;
    let chunks = s.block_k / 64;
    let load = ((step * (s.block_n / 16) + row_tile) * chunks + chunk) * 32 + lane;
    (load as usize * LANE_BYTES / 4 + word as usize, row / 8 + 2 * (k / 8), k % 2)
}

fn fragment_origin(s: &Fragments, word: usize) -> (u32, u32, u32) {
    let (load, word) = ((word / 4) as u32, (word % 4) as u32);
    let (lane, slab) = (load % 32, load / 32);
    let chunks = s.block_k / 64;
    let (chunk, slab) = (slab % chunks, slab / chunks);
    let (row_tile, step) = (slab % (s.block_n / 16), slab / (s.block_n / 16));
    let (g, t) = (lane / 4, lane % 4);
    (row_tile * 16 + g, step, chunk * 64 + word * 16 + 2 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(group: qtune_ir::Group) -> WeightSpec {
        let param = |name: &str, dtype| qtune_ir::Param { name: name.into(), dtype };
        WeightSpec {
            name: "test".into(),
            bits: 4,
            group,
            params: vec![param("s", ParamType::F16), param("z", ParamType::Code(4))],
            expr: "(* (- q z) s)".into(),
            codebook: Default::default(),
        }
    }

    fn layouts(n: u32, k: u32, group: qtune_ir::Group) -> Vec<Layout> {
        let problem: Problem = format!("w4a16.test.f16-f16.n{n}.k{k}.m1").parse().unwrap();
        let schedules = [
            "gemv tokens=1 rows=2 lanes=8 warps=2x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=q",
            "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
             cache=normal dequant=q",
            "mma tile=8x32x128 warps=2x1 stages=2 split=1 swizzle=xor raster=rows dequant=q",
            "mma tile=8x16x64 warps=1x1 stages=2 split=1 swizzle=xor raster=rows dequant=q",
            "gemv tokens=1 rows=2 lanes=8 warps=2x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=(sum (* (pair q) x))",
            "mma tile=8x32x128 warps=2x1 stages=2 split=1 swizzle=xor raster=rows \
             dequant=(sum (* (prmt q) x))",
            "wgmma tile=8x64x128 groups=1 stages=2 split=1 producer=warp raster=rows dequant=q",
        ];
        let spec = spec(group);
        schedules.iter().map(|s| Layout::new(&problem, &spec, &s.parse().unwrap())).collect()
    }

    #[test]
    fn every_weight_has_one_slot_and_the_slot_gives_it_back() {
        for layout in layouts(48, 320, qtune_ir::Group::Size(64)) {
            let mut seen = std::collections::HashSet::new();
            for (n, k) in (0..48).flat_map(|n| (0..320).map(move |k| (n, k))) {
                let slot = layout.slot(n, k);
                assert_eq!(layout.element(slot), Some((n, k)), "{} {slot:?}", layout.id());
                assert!(slot.word * 4 < layout.weight_bytes());
                assert!(seen.insert((slot.word, slot.shift)));
            }
        }
    }

    #[test]
    fn packing_round_trips_codes_and_pads_with_zeros() {
        let code = |n: u32, k: u32| ((n * 7 + k * 3 + 1) % 16) as u8;
        for layout in layouts(40, 96, qtune_ir::Group::Size(32)) {
            let (weights, _) = layout.pack(code, |_, _, _| 1.0);
            let nonzero = |n, k| layout.code(&weights, n, k) == code(n, k);
            assert!((0..40).all(|n| (0..96).all(|k| nonzero(n, k))), "{}", layout.id());
            let total: u32 = weights.iter().map(|b| (b >> 4) as u32 + (b & 15) as u32).sum();
            let codes = (0..40).flat_map(|n| (0..96).map(move |k| code(n, k) as u32));
            assert_eq!(total, codes.sum::<u32>());
        }
    }

    #[test]
    fn every_group_of_every_row_is_among_the_packed_parameters() {
        for group in
            [qtune_ir::Group::Size(32), qtune_ir::Group::Size(128), qtune_ir::Group::Channel]
        {
            for layout in layouts(40, 256, group) {
                let mut seen = std::collections::HashSet::new();
                for entry in 0..layout.tile_param_bytes() / layout.entry_bytes() {
                    seen.insert(layout.param_entry(entry as u32));
                }
                let wanted = layout.tile_rows() * group.count(256);
                assert_eq!(seen.len(), wanted as usize, "{} {group}", layout.id());
            }
        }
    }
}
