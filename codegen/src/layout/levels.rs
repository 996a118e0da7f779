//! Scales of two levels: first the integers of all groups of a step or stage, then the floats that groups
//! share.
//!
//! In both parts `gemv` finds its values by load, row of a lane and group.
//! Where fragments are multiplied they lie by 16-row tile, group and pair of rows g and g+8, each pair's
//! values together: four groups of a tile are 32 pairs, one for each lane that makes operands of them.

use super::pack::{apply, entries};
use super::{Kind, Layout, Loads, ParamOrder, LANES};
use qtune_ir::dequant::{Field, Levels};
use qtune_ir::GemvSchedule;

/// Rows of a fragment.
const FRAGMENT_ROWS: u32 = 16;

impl Layout {
    /// The levels of group parameters, where they are packed apart.
    pub fn levels(&self) -> Option<&Levels> {
        self.levels.as_ref()
    }

    /// Packs one row tile of parameters level by level: see [`Layout::pack_param_tile`].
    pub(super) fn pack_levels(
        &self,
        levels: &Levels,
        order: &ParamOrder,
        params: &[Vec<f32>],
    ) -> Vec<u8> {
        let mut packed = vec![0; self.tile_param_bytes()];
        let integers = integers(&levels.codes, params);
        let floats = entries(&levels.shared, params);
        let [code_bytes, shared_bytes] =
            [levels.code_bytes(), levels.shared_bytes()].map(|b| b as usize);
        // Integers and floats follow each other set by set.
        let sets = order.sets.max(1);
        let [codes, shared] =
            [&order.entries, &order.shared].map(|all| all.chunks((all.len() / sets).max(1)));
        let set_bytes = (packed.len() / sets).max(1);
        for (packed, (codes, shared)) in packed.chunks_mut(set_bytes).zip(codes.zip(shared)) {
            let (first, second) = packed.split_at_mut(codes.len() * code_bytes);
            match levels.nibbles {
                true => apply_nibbles(codes, &integers, first),
                false => apply(codes, code_bytes, &integers, first),
            }
            apply(shared, shared_bytes, &floats, second);
        }
        packed
    }

    /// Where the levels of a row tile go: see [`Layout::param_order`].
    pub(super) fn levels_order(&self, levels: &Levels) -> ParamOrder {
        match (&self.kind, self.loads()) {
            (Kind::Gemv(s), Some(loads)) => self.lane_levels_order(s, loads),
            _ => self.fragment_levels_order(levels),
        }
    }

    /// `[stage]`, in it the integers `[16-row tile][group][pair of rows]`, then the floats `[16-row
    /// tile][groups that share them][pair of rows]`.
    fn fragment_levels_order(&self, levels: &Levels) -> ParamOrder {
        let groups = self.groups_per_step();
        // Stages may reach past K: nothing multiplies what is there.
        let last = self.groups - 1;
        let mut order = ParamOrder::of_sets(self.param_sets());
        for set in 0..self.param_sets() {
            let each = |distance: u32, order: &mut Vec<u32>| {
                for tile in (0..self.tile_rows()).step_by(FRAGMENT_ROWS as usize) {
                    for group in (0..groups).step_by(distance as usize) {
                        let group = (set * groups + group).min(last);
                        let rows = (0..FRAGMENT_ROWS).map(|row| tile + row / 2 + 8 * (row & 1));
                        order.extend(rows.map(|row| row * self.groups + group));
                    }
                }
            };
            each(1, &mut order.entries);
            each(levels.sharing(groups), &mut order.shared);
        }
        order
    }

    /// `[warp tile][step]`, in it the integers `[load][lane's row][group][row of the load]`, then the floats
    /// `[load][lane's row][groups that share them][row of the load]`.
    fn lane_levels_order(&self, s: &GemvSchedule, loads: Loads) -> ParamOrder {
        let lane_rows = LANES / s.lanes;
        // Steps may reach past K: nothing multiplies what is there.
        let last = self.groups - 1;
        let warps = (0..self.tile_rows()).step_by(s.warp_rows() as usize);
        let mut order = ParamOrder::of_sets(warps.len() as u32 * self.param_sets());
        for (warp, set) in warps.flat_map(|warp| (0..self.param_sets()).map(move |s| (warp, s))) {
            let of_set = |group: u32| (set * loads.groups + group).min(last);
            let of_lanes = |nth: u32| (nth..loads.groups).step_by(loads.lane_groups as usize);
            let all: Vec<u32> = (0..loads.lane_groups).flat_map(of_lanes).map(of_set).collect();
            let spans: Vec<u32> =
                (0..loads.groups).step_by(loads.sharing as usize).map(of_set).collect();
            let each = |count: u32, groups: &[u32], order: &mut Vec<u32>| {
                let rows = s.rows / count;
                for (load, lane_row) in (0..count).flat_map(|l| (0..lane_rows).map(move |r| (l, r)))
                {
                    for group in groups {
                        let row = |part| warp + (load * rows + part) * lane_rows + lane_row;
                        order.extend((0..rows).map(|part| row(part) * self.groups + group));
                    }
                }
            };
            each(loads.codes, &all, &mut order.entries);
            each(loads.shared, &spans, &mut order.shared);
        }
        order
    }
}

/// Puts two integers for each row and group in an order, a byte for those of one kind of two rows: see
/// [`Levels::nibbles`].
fn apply_nibbles(order: &[u32], integers: &[u8], packed: &mut [u8]) {
    let mut bytes = vec![0; 2 * order.len()];
    apply(order, 2, integers, &mut bytes);
    for (place, rows) in packed.chunks_exact_mut(2).zip(bytes.chunks_exact(4)) {
        place[0] = rows[0] | rows[2] << 4;
        place[1] = rows[1] | rows[3] << 4;
    }
}

/// The values of integers side by side, a byte each.
fn integers(fields: &[Field], params: &[Vec<f32>]) -> Vec<u8> {
    let mut integers = vec![0; fields.len() * params.first().map_or(0, Vec::len)];
    for (at, field) in fields.iter().enumerate() {
        let places = integers.iter_mut().skip(at).step_by(fields.len());
        places.zip(&*field.column(params)).for_each(|(place, value)| *place = *value as u8);
    }
    integers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{nested, two_levels};
    use half::f16;
    use qtune_ir::Problem;

    /// The layout of weights whose groups share floats by eight.
    fn layout(schedule: &str) -> Layout {
        let spec = two_levels();
        let problem: Problem = "w4a16.test.f16-f16.n40.k1536.m1".parse().unwrap();
        Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap()
    }

    fn gemv(lanes: u32, rows: u32) -> Layout {
        layout(&format!(
            "gemv tokens=1 rows={rows} lanes={lanes} warps=1x1 unroll=1 split=1 x=shared acc=half2 \
             cache=stream dequant=(- (* (* d i) (sum (* (- (magic q) 1024) x))) (* (* e j) (sum x)))"
        ))
    }

    fn mma(block_k: u32, weight: &str) -> Layout {
        layout(&format!(
            "mma tile=8x32x{block_k} warps=2x1 stages=2 split=1 pad=16 raster=rows \
             dequant=(sum (* {weight} x))"
        ))
    }

    /// Row n, group g: d = n + g / 8, i = g, e = 100 + n, j = 63 - g.
    fn value(n: u32, g: u32, index: usize) -> f32 {
        match index {
            0 => (n + g / 8) as f32,
            1 => g as f32,
            2 => (100 + n) as f32,
            _ => (63 - g) as f32,
        }
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
    }

    #[test]
    fn integers_take_a_byte_and_floats_are_there_once_for_all_groups_that_share_them() {
        let layout = gemv(16, 4);
        let loads = layout.loads().unwrap();
        assert_eq!((loads.bytes, loads.codes, loads.shared, loads.spans()), (8, 1, 2, 2));
        assert_eq!(layout.param_bytes(), 40 * (48 * 2 + 6 * 4));
        assert!(layout.id().ends_with(".levels"), "{}", layout.id());
        assert!(gemv(4, 4).levels().is_none(), "a step has half of the groups that share");
        assert!(gemv(16, 1).levels().is_none(), "two bytes are no word");
    }

    #[test]
    fn the_rows_of_a_lane_lie_side_by_side() {
        let layout = gemv(16, 4);
        let rows = |index| (8..16).flat_map(move |n| (0..48).map(move |g| value(n, g, index)));
        let params: Vec<Vec<f32>> = (0..4).map(|index| rows(index).collect()).collect();
        let bytes = layout.pack_param_tile(&layout.param_order(), &params);
        assert_eq!(bytes.len(), layout.tile_param_bytes());
        // The second step of rows 8 to 15: 2 lane rows of 16 groups of 4 rows, 2 bytes each; then 2 loads for
        // 2 lane rows of 2 spans of 2 rows, 4 bytes each.
        let step = &bytes[2 * 16 * 8 + 2 * 2 * 2 * 8..];
        assert_eq!(step[(16 + 3) * 8..][..8], [19, 44, 19, 44, 19, 44, 19, 44]);
        let second_load_lane_row_1_span_1 = &step[2 * 16 * 8 + (4 + 2 + 1) * 8..][..8];
        assert_eq!(floats(second_load_lane_row_1_span_1), [16.0, 113.0, 18.0, 115.0]);
    }

    #[test]
    fn half_bytes_of_two_rows_lie_together_and_floats_fill_a_sector() {
        let schedule =
            "gemv tokens=1 rows=4 lanes=32 warps=1x1 unroll=1 split=1 x=shared acc=half2 \
                        cache=stream dequant=(- (* (* d i) (sum (* (- (magic q) 1024) x))) \
                        (* (* e j) (sum x)))";
        let mut spec = two_levels();
        for index in [1, 3] {
            spec.params[index].dtype = qtune_ir::ParamType::Code(4);
        }
        let problem: Problem = "w4a16.test.f16-f16.n4.k1024.m1".parse().unwrap();
        let layout = Layout::new(&problem, &spec, &schedule.parse().unwrap()).unwrap();
        let loads = layout.loads().unwrap();
        assert_eq!((loads.bytes, loads.codes, loads.shared_bytes, loads.shared), (4, 1, 8, 2));
        // Row n, group g: d = n, i = g, e = 10 + n, j = n, of integers four bits.
        let value = |n: u32, g: u32, index| match index {
            0 => n,
            1 => g % 16,
            2 => 10 + n,
            _ => n,
        };
        let rows =
            |index| (0..4).flat_map(move |n| (0..32).map(move |g| value(n, g, index) as f32));
        let params: Vec<Vec<f32>> = (0..4).map(|index| rows(index).collect()).collect();
        let bytes = layout.pack_param_tile(&layout.param_order(), &params);
        assert_eq!(bytes.len(), 32 * 4 + 4 * 16);
        assert_eq!(bytes[5 * 4..6 * 4], [0x55, 0x10, 0x55, 0x32], "group 5 of rows 0 to 3");
        assert_eq!(floats(&bytes[128..136]), [0.0, 10.0, 1.0, 11.0], "rows 0 and 1");
        assert_eq!(floats(&bytes[160..168]), [2.0, 12.0, 3.0, 13.0], "rows 2 and 3");
    }

    const BOTH: &str = "(fma (- (magic q) 1024) (* d i) (neg (* e j)))";

    #[test]
    fn every_level_of_a_fragment_is_found_again() {
        // A stage of half a super-block has the floats to itself, one of two has them twice.
        for (block_k, groups, spans) in [(128, 4, 1), (256, 8, 1), (512, 16, 2)] {
            let layout = mma(block_k, BOTH);
            assert!(layout.id().ends_with(".levels") && layout.loads().is_none());
            let params: Vec<Vec<f32>> = (0..4)
                .map(|index| {
                    (0..32).flat_map(|n| (0..48).map(move |g| value(n, g, index))).collect()
                })
                .collect();
            let bytes = layout.pack_param_tile(&layout.param_order(), &params);
            let stage_bytes = (32 * (groups * 2 + spans * 4)) as usize;
            assert_eq!(bytes.len(), layout.tile_param_bytes());
            assert_eq!(bytes.len(), (48 / groups) as usize * stage_bytes);
            for (n, g) in (0..32).flat_map(|n| (0..48).map(move |g| (n, g))) {
                let stage = &bytes[(g / groups) as usize * stage_bytes..][..stage_bytes];
                let (integers, shared) = stage.split_at((32 * groups * 2) as usize);
                let (tile, pair, half, group) = (n / 16, n % 8, n % 16 / 8, g % groups);
                let at = 2 * (((tile * groups + group) * 8 + pair) * 2 + half) as usize;
                let wanted = [value(n, g, 1), value(n, g, 3)].map(|value| value as u8);
                assert_eq!(integers[at..][..2], wanted, "row {n}, group {g} of {block_k}");
                let span = group / (groups / spans);
                let at = 4 * (((tile * spans + span) * 8 + pair) * 2 + half) as usize;
                let wanted = [value(n, g, 0), value(n, g, 2)];
                assert_eq!(floats(&shared[at..][..4]), wanted, "row {n}, group {g} of {block_k}");
            }
        }
    }

    /// Scales `n + g`, codes `g`, and what row `n` shares from group `g` on: `1000 n + g`.
    fn nested_params(rows: std::ops::Range<u32>, groups: u32, sharing: u32) -> Vec<Vec<f32>> {
        let value = |index, n: u32, g: u32| match index {
            0 => n + g,
            1 => g,
            _ => 1000 * n + g / sharing * sharing,
        };
        let column = |index| {
            let each = rows.clone().flat_map(|n| (0..groups).map(move |g| (n, g)));
            each.map(|(n, g)| value(index, n, g) as f32).collect()
        };
        (0..3).map(column).collect()
    }

    #[test]
    fn nested_scales_lie_as_bytes_and_the_floats_of_a_lane_side_by_side() {
        // Rows of 48 groups: 16 share a float, and a step has 8.
        let problem = "w4a16.test.f16-f16.n16.k3072.m1".parse().unwrap();
        let schedule = "gemv tokens=1 rows=4 lanes=16 warps=1x1 unroll=1 split=1 x=shared acc=half2 \
                        cache=stream dequant=(* (* (nested s c n) 256) (sum (* (prmt q) (* 0.00390625 x))))";
        let layout = Layout::new(&problem, &nested(), &schedule.parse().unwrap()).unwrap();
        let loads = layout.loads().unwrap();
        assert_eq!((loads.bytes, loads.codes, loads.shared_bytes, loads.shared), (4, 1, 16, 1));
        assert_eq!((loads.spans(), layout.entry_bytes(), layout.table_bytes()), (1, 4, 4 * 257));
        assert!(layout.id().ends_with(".nested.sequential"), "{}", layout.id());
        let params = nested_params(8..16, 48, 16);
        let bytes = layout.pack_param_tile(&layout.param_order(), &params);
        // Six steps of 2 lane rows of 8 groups of 4 rows, a byte each; then 2 lane rows of 4 floats.
        assert_eq!((bytes.len(), layout.tile_param_bytes()), (6 * (64 + 32), 6 * (64 + 32)));
        let step = &bytes[3 * 96..];
        assert_eq!(step[(8 + 5) * 4..][..4], [29; 4]);
        let floats: Vec<f32> = step[64 + 16..96]
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(floats, [9, 11, 13, 15].map(|n| (1000 * n + 16) as f32));
    }

    #[test]
    fn stages_that_do_not_divide_what_groups_share_and_stored_products_have_entries() {
        let stored = "(fma (- (magic q) 1024) (stored d i) (neg (stored e j)))";
        for (block_k, weight) in [(192, BOTH), (256, stored)] {
            let layout = mma(block_k, weight);
            assert!(layout.levels().is_none(), "{}", layout.id());
        }
    }
}
