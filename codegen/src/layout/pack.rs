//! Packing: from rows of codes and values of group parameters to the bytes of a layout.
//!
//! Codes of 4 bits are packed by the slab where that lies inside of the matrix ([`super::nibbles`]),
//! narrower ones and the edges eight at a time where a lane's piece does: the nibbles of an octet are put
//! together from the bytes of its rows, and split into the order of the layout by shifts of the whole
//! word. What is left, and wider codes, go one by one.

use super::{nibbles, Kind, Layout, LANES};
use half::slice::HalfFloatSliceExt;
use qtune_ir::dequant::{e4m3_code, CodeOrder, Field};
use qtune_ir::{ParamType, OCTET_CODES, PIECE_OCTETS};

/// The lowest bit of the exponent of a f32.
pub(crate) const F32_EXPONENT: u32 = 23;

/// The codes of one output row, as decoders keep them.
#[derive(Clone, Copy, Debug)]
pub enum CodeRow<'a> {
    /// Codes of up to 4 bits, two to a byte, the even column in the low nibble.
    Nibbles(&'a [u8]),
    /// One code to a byte.
    Bytes(&'a [u8]),
}

impl CodeRow<'_> {
    pub(super) fn code(self, k: u32) -> u8 {
        let k = k as usize;
        match self {
            CodeRow::Nibbles(bytes) => bytes[k / 2] >> (4 * (k % 2)) & 15,
            CodeRow::Bytes(bytes) => bytes[k],
        }
    }
}

impl Layout {
    /// Packs one row tile of codes. `rows(n)` is asked for rows that exist, whose codes it gives for
    /// every k; padding is zero.
    pub fn pack_weight_tile<'a>(&self, tile: u32, rows: &impl Fn(u32) -> CodeRow<'a>) -> Vec<u8> {
        let mut packed = vec![0; self.tile_weight_bytes()];
        if let Some(bytes) = &self.bytes {
            let first = tile * self.tile_rows();
            let row = |row: u32| (first + row < self.n).then(|| rows(first + row));
            bytes.pack(row, self.k, &mut packed);
            return packed;
        }
        let (words, width) = (self.packing.words(), self.packing.load_words());
        let slab_bytes = (4 * LANES * words) as usize;
        for slab in self.slabs_by_row() {
            let bytes = &mut packed[slab as usize * slab_bytes..][..slab_bytes];
            if self.pack_slab_of_nibbles(tile, slab, rows, bytes) {
                continue;
            }
            for lane in 0..LANES {
                let piece = self.pack_piece(tile, (slab, lane), rows);
                let loads = piece[..words as usize].chunks(width as usize);
                for (load, words) in (0..).zip(loads) {
                    let at = 4 * ((load * LANES + lane) * width) as usize;
                    let places = bytes[at..at + 4 * words.len()].chunks_exact_mut(4);
                    for (place, word) in places.zip(words) {
                        place.copy_from_slice(&word.to_le_bytes());
                    }
                }
            }
        }
        packed
    }

    /// The slabs of a row tile, those of the same rows one after another: codes are read by the row.
    fn slabs_by_row(&self) -> impl Iterator<Item = u32> {
        let (steps, row_tiles, slabs) = match &self.kind {
            Kind::Gemv(s) => (1, 1, self.tile_rows() / s.warp_rows() * self.steps() * s.rows),
            Kind::Fragments(s) => (self.steps(), s.block_n / 16, s.block_k / 64),
        };
        let of_step = move |row_tile, step| {
            (0..slabs).map(move |slab| (step * row_tiles + row_tile) * slabs + slab)
        };
        (0..row_tiles).flat_map(move |row| (0..steps).flat_map(move |step| of_step(row, step)))
    }

    /// Packs a slab of 4-bit codes if all of its weights exist; tells whether it has.
    fn pack_slab_of_nibbles<'a>(
        &self,
        tile: u32,
        slab: u32,
        rows: &impl Fn(u32) -> CodeRow<'a>,
        packed: &mut [u8],
    ) -> bool {
        // k and rows of a slab.
        let (run_k, slab_rows) = match &self.kind {
            Kind::Gemv(s) => (s.step_k(), LANES / s.lanes),
            Kind::Fragments(_) => (2 * nibbles::ROW_BYTES as u32, nibbles::ROWS as u32),
        };
        let (row, k) = self.piece_origin(slab, 0);
        let n = tile * self.tile_rows() + row;
        if self.packing.bits() != 4 || n + slab_rows > self.n || k + run_k > self.k {
            return false;
        }
        let codes = |n: u32| match rows(n) {
            CodeRow::Nibbles(row) => Some(&row[k as usize / 2..][..run_k as usize / 2]),
            CodeRow::Bytes(_) => None,
        };
        match &self.kind {
            Kind::Gemv(_) => {
                (n..).zip(packed.chunks_exact_mut(run_k as usize / 2)).all(|(n, run)| {
                    codes(n).map(|row| nibbles::row_run(row, self.order, run)).is_some()
                })
            }
            Kind::Fragments(_) => {
                let mut all = [&[0; nibbles::ROW_BYTES]; nibbles::ROWS];
                for (n, row) in (n..).zip(&mut all) {
                    let Some(codes) = codes(n).and_then(|codes| codes.first_chunk()) else {
                        return false;
                    };
                    *row = codes;
                }
                let packed = packed.first_chunk_mut();
                packed.map(|packed| nibbles::fragment_slab(&all, self.order, packed)).is_some()
            }
        }
    }

    /// The words of a lane's piece; the first [`qtune_ir::CodePacking::words`] count.
    fn pack_piece<'a>(
        &self,
        tile: u32,
        (slab, lane): (u32, u32),
        rows: &impl Fn(u32) -> CodeRow<'a>,
    ) -> [u32; 8] {
        let (row, k) = self.piece_origin(slab, lane);
        let n = tile * self.tile_rows() + row;
        let row = |n: u32| (n < self.n).then(|| rows(n));
        if self.order == CodeOrder::Vectors {
            return self.vector_piece((slab, lane), |n| row(tile * self.tile_rows() + n));
        }
        let first = row(n);
        let second = match &self.kind {
            Kind::Gemv(_) => first,
            Kind::Fragments(_) => row(n + 8),
        };
        match (first, second) {
            (Some(CodeRow::Nibbles(first)), Some(CodeRow::Nibbles(second)))
                if self.packing.bits() <= 4 && k + self.octet_k() * 4 <= self.k =>
            {
                let octets = self.nibbles(first, second, k as usize / 2);
                self.packing.pack_nibbles(octets, self.order)
            }
            _ => self.packing.pack(&self.codes([first, second], k), self.order),
        }
    }

    /// The octets of a piece, from the bytes of its rows from byte `at` on.
    fn nibbles(&self, first: &[u8], second: &[u8], at: usize) -> [u32; PIECE_OCTETS] {
        match &self.kind {
            Kind::Gemv(_) => std::array::from_fn(|octet| {
                let bytes = &first[at + 4 * octet..at + 4 * octet + 4];
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            }),
            // A pair of k is a byte of its row; the second half of a k16 lies four bytes on.
            Kind::Fragments(_) => std::array::from_fn(|octet| {
                let at = at + 8 * octet;
                u32::from_le_bytes([first[at], second[at], first[at + 4], second[at + 4]])
            }),
        }
    }

    /// The codes of a piece, with zeros where there are none.
    fn codes(&self, rows: [Option<CodeRow<'_>>; 2], k: u32) -> [[u8; OCTET_CODES]; PIECE_OCTETS] {
        let mut octets = [[0; OCTET_CODES]; PIECE_OCTETS];
        for (octet, codes) in (0..).zip(&mut octets) {
            for (pair, places) in (0..).zip(codes.chunks_mut(2)) {
                let (row, column) = self.pair_offset(pair);
                let Some(codes) = rows[row as usize / 8] else { continue };
                let k = k + octet * self.octet_k() + column;
                for (k, place) in (k..self.k).zip(places) {
                    *place = codes.code(k);
                }
            }
        }
        octets
    }

    /// Packs one row tile of group parameters, from the values of each, `[rows, groups]` for those rows
    /// of the tile that exist, or rows of parameters; of a layer with a factor, before it multiplies them. Rows past N get zeros, so that padding contributes nothing.
    pub fn pack_param_tile(&self, order: &ParamOrder, params: &[Vec<f32>]) -> Vec<u8> {
        if let Some(levels) = &self.levels {
            return self.pack_levels(levels, order, params);
        }
        let mut packed = vec![0; self.tile_param_bytes()];
        apply(&order.entries, self.entry_bytes(), &entries(&self.fields, params), &mut packed);
        match (&self.kind, self.loads()) {
            (Kind::Gemv(s), Some(loads)) => self.cut_runs(s, loads, packed),
            _ if self.has_halves_by_parameter() => {
                // Two columns of two parameters: [a b] [a b] becomes [a a] [b b].
                for columns in packed.chunks_exact_mut(8) {
                    columns.swap(2, 4);
                    columns.swap(3, 5);
                }
                packed
            }
            _ => packed,
        }
    }

    /// Where the group parameters of a row tile go, the same in all of them.
    pub fn param_order(&self) -> ParamOrder {
        if let Some(levels) = &self.levels {
            return self.levels_order(levels);
        }
        let mut order = ParamOrder::of_sets(1);
        self.for_entries(|row, group| order.entries.push(row * self.groups + group));
        order
    }

    /// Tells row (of parameters) in the tile and quant group of every parameter entry of a row tile, in their order.
    fn for_entries(&self, mut each: impl FnMut(u32, u32)) {
        let (sets, rows) = (self.param_sets(), self.tile_rows());
        let last = self.groups - 1;
        let groups = |set: u32| {
            let base = u64::from(set) * u64::from(self.steps_per_param_set() * self.step_k());
            let first = (base / u64::from(self.group)) as u32;
            (first..first + self.groups_per_step()).map(move |group| group.min(last))
        };
        match &self.kind {
            Kind::Gemv(s) if self.shares_rows() => self.for_columns(s, groups, each),
            // Sets of one warp follow each other.
            Kind::Gemv(s) => self.for_runs(s, groups, each),
            // Read by the row, at the end.
            Kind::Fragments(_) if self.scales_at_end => (0..rows).for_each(|row| each(row, 0)),
            // Columns side by side: one load serves two of them.
            Kind::Fragments(_) if self.shares_rows() => {
                for set in (0..sets).map(groups) {
                    for row in 0..self.tile_param_rows() {
                        set.clone().for_each(|column| each(row, column));
                    }
                }
            }
            // Rows g and g+8 of a 16-row tile lie side by side: one load serves a lane.
            Kind::Fragments(_) => {
                let groups: Vec<u32> = (0..sets).flat_map(groups).collect();
                for together in groups.chunks(self.groups_together as usize) {
                    for pair in 0..rows / 2 {
                        let row = pair / 8 * 16 + pair % 8;
                        together
                            .iter()
                            .flat_map(|g| [(row, g), (row + 8, g)])
                            .for_each(|(r, g)| each(r, *g));
                    }
                }
            }
        }
    }
}

/// Where the group parameters of a row tile go: [`Layout::param_order`].
#[derive(Clone, Debug)]
pub struct ParamOrder {
    /// Where levels are packed apart, how often integers and floats follow each other.
    pub(super) sets: usize,
    /// Of every packed entry, which of the tile's `[rows, groups]` it is; where levels are packed apart, of
    /// the integers.
    pub(super) entries: Vec<u32>,
    /// The same of the floats that groups share.
    pub(super) shared: Vec<u32>,
}

impl ParamOrder {
    /// Of so many sets, to be filled.
    pub(super) fn of_sets(sets: u32) -> ParamOrder {
        ParamOrder { sets: sets as usize, entries: Vec::new(), shared: Vec::new() }
    }
}

/// The values of `fields` side by side, an entry for each row and group.
pub(super) fn entries(fields: &[Field], params: &[Vec<f32>]) -> Vec<u8> {
    let size: usize = fields.iter().map(|field| field.dtype.packed_bytes() as usize).sum();
    let mut entries = vec![0; size * params.first().map_or(0, Vec::len)];
    let mut at = 0;
    for field in fields {
        let column = field.column(params);
        let (place, values) = ((size, at), column.iter());
        match field.dtype {
            ParamType::F16 | ParamType::Code(_) | ParamType::Shared(_) => {
                let mut halves = vec![half::f16::ZERO; column.len()];
                halves.convert_from_f32_slice(&column);
                put(&mut entries, place, halves.iter().map(|half| half.to_le_bytes()));
            }
            ParamType::NestedCode => put(&mut entries, place, values.map(|value| [*value as u8])),
            ParamType::E8M0 => {
                put(&mut entries, place, values.map(|v| [(v.to_bits() >> F32_EXPONENT) as u8]));
            }
            ParamType::E4M3 => put(&mut entries, place, values.map(|value| [e4m3_code(*value)])),
            ParamType::F32 | ParamType::Resolved | ParamType::NestedScale => {
                put(&mut entries, place, values.map(|value| value.to_le_bytes()))
            }
        }
        at += field.dtype.packed_bytes() as usize;
    }
    entries
}

/// Writes a value to every entry, at a byte of it.
fn put<const WIDTH: usize>(
    entries: &mut [u8],
    (size, at): (usize, usize),
    values: impl Iterator<Item = [u8; WIDTH]>,
) {
    match size {
        2 => put_sized::<WIDTH, 2>(entries, at, values),
        4 => put_sized::<WIDTH, 4>(entries, at, values),
        _ => {
            for (entry, value) in entries.chunks_exact_mut(size).zip(values) {
                entry[at..at + WIDTH].copy_from_slice(&value);
            }
        }
    }
}

/// The same where the size is known when this is compiled.
fn put_sized<const WIDTH: usize, const SIZE: usize>(
    entries: &mut [u8],
    at: usize,
    values: impl Iterator<Item = [u8; WIDTH]>,
) {
    assert!(at + WIDTH <= SIZE, "{WIDTH} bytes at {at} of {SIZE}");
    for (entry, value) in entries.chunks_exact_mut(SIZE).zip(values) {
        entry[at..at + WIDTH].copy_from_slice(&value);
    }
}

/// Puts entries of `size` bytes in an order, those of them that are there.
pub(super) fn apply(order: &[u32], size: usize, entries: &[u8], packed: &mut [u8]) {
    match size {
        0 => {}
        1 => apply_sized::<1>(order, entries, packed),
        2 => apply_sized::<2>(order, entries, packed),
        4 => apply_sized::<4>(order, entries, packed),
        6 => apply_sized::<6>(order, entries, packed),
        8 => apply_sized::<8>(order, entries, packed),
        _ => {
            for (place, index) in packed.chunks_exact_mut(size).zip(order) {
                let first = size * *index as usize;
                if let Some(entry) = entries.get(first..first + size) {
                    place.copy_from_slice(entry);
                }
            }
        }
    }
}

/// The same where the size is known when this is compiled: copies are single instructions.
fn apply_sized<const SIZE: usize>(order: &[u32], entries: &[u8], packed: &mut [u8]) {
    for (place, index) in packed.chunks_exact_mut(SIZE).zip(order) {
        let entry = entries.get(SIZE * *index as usize..).and_then(|rest| rest.first_chunk());
        if let Some(entry) = entry {
            place.copy_from_slice(entry as &[u8; SIZE]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::layouts;
    use super::*;
    use crate::fixtures::two_levels;
    use qtune_ir::{Group, Param, Problem};

    /// Rows of codes, one to a byte and as decoders keep them.
    fn rows(bits: u32, n: u32, k: u32) -> Vec<[Vec<u8>; 2]> {
        let code = |n: u32, k: u32| ((n * 7 + k * 3 + k / 16 + 1) & ((1 << bits) - 1)) as u8;
        let row = |n: u32| {
            let bytes: Vec<u8> = (0..k).map(|k| code(n, k)).collect();
            let nibbles = bytes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
            [bytes, nibbles]
        };
        (0..n).map(row).collect()
    }

    fn packed<'a>(layout: &Layout, row: &impl Fn(u32) -> CodeRow<'a>) -> Vec<u8> {
        (0..layout.tiles()).flat_map(|tile| layout.pack_weight_tile(tile, row)).collect()
    }

    #[test]
    fn packing_round_trips_codes_and_pads_with_zeros() {
        for (n, k) in [(40, 96), (48, 320), (9, 72)] {
            for layout in layouts(n, k, Group::Channel) {
                let rows = rows(layout.packing().bits(), n, k);
                let bytes = packed(&layout, &|n| CodeRow::Bytes(&rows[n as usize][0]));
                for (n, row) in (0..n).zip(&rows) {
                    let codes: Vec<u8> = (0..k).map(|k| layout.code(&bytes, n, k)).collect();
                    assert_eq!(codes, row[0], "{} row {n}", layout.id());
                }
                let ones = |bytes: &[u8]| bytes.iter().map(|b| b.count_ones()).sum::<u32>();
                let codes: u32 = rows.iter().map(|row| ones(&row[0])).sum();
                assert_eq!(ones(&bytes), codes, "{}", layout.id());
            }
        }
    }

    #[test]
    fn nibbles_are_packed_as_bytes_are() {
        for (n, k) in [(40, 96), (48, 320)] {
            let narrow = layouts(n, k, Group::Channel);
            for layout in narrow.iter().filter(|layout| layout.packing().bits() <= 4) {
                let rows = rows(layout.packing().bits(), n, k);
                let bytes = packed(layout, &|n| CodeRow::Bytes(&rows[n as usize][0]));
                let nibbles = packed(layout, &|n| CodeRow::Nibbles(&rows[n as usize][1]));
                assert_eq!(bytes, nibbles, "{}", layout.id());
            }
        }
    }

    #[test]
    fn powers_of_two_are_packed_as_the_exponent_of_f32() {
        let problem: Problem = "w4a16.test.f16-f16.n16.k64.m1".parse().unwrap();
        let power = Param { name: "s".into(), dtype: ParamType::E8M0 };
        let mut spec = two_levels();
        spec.params = vec![power];
        spec.expr = "(* q s)".into();
        let schedule = "mma tile=8x16x64 warps=1x1 stages=2 split=1 pad=16 raster=rows \
                        dequant=(* s (sum (* (- (magic q) 1024) x)))";
        let layout = Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap();
        // Row n, group g: 2^(n - 2g), and something too small for f32's normal numbers.
        let mut values: Vec<f32> = (0..32).map(|at| 2.0f32.powi(at / 2 - 2 * (at % 2))).collect();
        values[6] = 2.0f32.powi(-128);
        let packed = layout.pack_param_tile(&layout.param_order(), &[values]);
        assert_eq!(packed.len(), 32, "a byte each");
        // Of each group, rows g and g+8 side by side.
        assert_eq!(packed[..4], [127, 135, 128, 136]);
        assert_eq!(packed[16..20], [125, 133, 126, 134]);
        assert_eq!(packed[6], 0);
    }

    #[test]
    fn groups_that_lanes_need_at_once_lie_together() {
        let problem: Problem = "w4a16.test.f16-f16.n16.k64.m1".parse().unwrap();
        let mut spec = two_levels();
        spec.params = vec![Param { name: "s".into(), dtype: ParamType::E8M0 }];
        (spec.expr, spec.group) = ("(* q s)".into(), Group::Size(16));
        let schedule = "mma tile=8x16x64 warps=1x1 stages=2 split=1 pad=16 raster=rows \
                        dequant=(sum (* (* (- (magic q) 1024) s) x))";
        let layout = Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap();
        assert_eq!(layout.groups_together(), 2);
        assert!(layout.id().ends_with(".by2"), "{}", layout.id());
        // Row n, group g: 2^(4n + g).
        let values: Vec<f32> = (0..64).map(|at| 2.0f32.powi(at)).collect();
        let packed = layout.pack_param_tile(&layout.param_order(), &[values]);
        assert_eq!(packed[..4], [0, 32, 1, 33].map(|exponent| 127 + exponent));
        assert_eq!(packed[32..36], [2, 34, 3, 35].map(|exponent| 127 + exponent));
    }

    #[test]
    fn columns_lie_side_by_side_where_rows_share_their_parameters() {
        let problem: Problem = "w4a16.test.f16-f16.n48.k72.m1".parse().unwrap();
        let param = |name: &str| Param { name: name.into(), dtype: ParamType::F16 };
        let mut spec = two_levels();
        (spec.group, spec.params) = (Group::Rows(16), vec![param("s"), param("z")]);
        spec.expr = "(* (- q z) s)".into();
        let schedule = "mma tile=8x32x64 warps=1x1 stages=2 split=1 pad=16 raster=rows \
                        dequant=(sum (* (* (- (magic q) 1024) s) x))";
        let layout = Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap();
        let features: Vec<u32> = (0..48).map(|row| layout.feature(row)).collect();
        assert_eq!(features[..3], [0, 3, 6], "rows that are three apart share parameters");
        assert_eq!(features[16..18], [1, 4]);
        // Of the second row tile one row of parameters exists.
        let values: Vec<f32> = (0..72u8).map(f32::from).collect();
        let packed = layout.pack_param_tile(&layout.param_order(), &[values.clone(), values]);
        // Of two columns the first parameter, then the second one.
        let first = |column: usize| {
            let at = 8 * (column / 2) + 2 * (column % 2);
            half::f16::from_le_bytes([packed[at], packed[at + 1]])
        };
        assert_eq!(packed.len(), 2 * 128 * layout.entry_bytes());
        assert_eq!([0, 1, 63].map(|column| first(column).to_f32()), [0.0, 1.0, 63.0]);
        assert_eq!(first(64).to_f32(), 0.0, "the row that does not exist");
        assert_eq!(first(128 + 7).to_f32(), 71.0, "the second stage");
        assert_eq!(layout.param_bytes(), 2 * packed.len());
    }

    #[test]
    fn every_group_of_every_row_is_among_the_packed_parameters() {
        for group in [Group::Size(32), Group::Size(128), Group::Channel, Group::Rows(8)] {
            for layout in layouts(40, 256, group) {
                let mut seen = std::collections::HashSet::new();
                let mut entries = 0;
                layout.for_entries(|row, group| {
                    seen.insert((row, group));
                    entries += 1;
                });
                assert_eq!(entries * layout.entry_bytes(), layout.tile_param_bytes());
                let wanted = layout.tile_param_rows() * group.count(256);
                assert_eq!(seen.len(), wanted as usize, "{} {group}", layout.id());
            }
        }
    }
}
