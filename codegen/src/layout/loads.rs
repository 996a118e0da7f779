//! How a lane of `gemv` loads group parameters: those of all its rows at once. Its run of them is cut into
//! loads; what a warp loads at once lies together. So loads are few and wide, and sectors full.

use super::{Kind, Layout, LANES};
use qtune_ir::dequant::Levels;
use qtune_ir::{GemvSchedule, PIECE_CODES};

/// Most bytes of one load.
const WIDEST: u32 = 16;
/// Bytes of a word and of two, and of what DRAM and L2 give at least.
const WORD: u32 = 4;
const PAIR: u32 = 8;
const SECTOR: u32 = 32;

/// How a lane loads the parameters of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loads {
    /// Bytes of one load.
    pub bytes: u32,
    /// Loads of a group's parameters for the rows of a lane; where levels are packed apart, of its integers.
    pub codes: u32,
    /// Loads of the floats of the groups that share them; 0 where there is one level.
    pub shared: u32,
    /// Bytes of one of these.
    pub shared_bytes: u32,
    /// Quant groups of a step.
    pub groups: u32,
    /// Quant groups of the weights that a lane loads at once: the first ones of all lanes lie together, then
    /// the second ones.
    pub lane_groups: u32,
    /// Quant groups that share their floats.
    pub sharing: u32,
    rows: u32,
}

impl Loads {
    /// Times that groups share floats in a step.
    pub fn spans(&self) -> u32 {
        self.groups / self.sharing
    }

    /// Loads of a step that take so many bytes each.
    pub fn of_width(&self, bytes: u32) -> u32 {
        let codes = if self.bytes == bytes { self.lane_groups * self.codes } else { 0 };
        codes + if self.shared_bytes == bytes { self.shared } else { 0 }
    }

    /// Bytes of a row's parameters in a step.
    pub(super) fn row_bytes(&self) -> u32 {
        let codes = self.groups * self.codes * self.bytes;
        (codes + self.spans() * self.shared * self.shared_bytes) / self.rows
    }
}

impl Layout {
    /// How a lane of `gemv` loads the parameters of its rows, if these have any of their own.
    pub fn loads(&self) -> Option<Loads> {
        let Kind::Gemv(s) = &self.kind else { return None };
        if self.shares_rows() {
            return None;
        }
        let [codes, shared, sharing] = match &self.levels {
            Some(levels) => {
                let sharing = levels.sharing(self.groups_per_step());
                [levels.code_bytes(), levels.shared_bytes(), sharing]
            }
            None => [self.entry_bytes() as u32, 0, self.groups_per_step()],
        };
        let [codes, shared] = [codes, shared].map(|bytes| bytes * s.rows);
        if codes == 0 {
            return None;
        }
        // There are as many floats as integers, of as many bytes or more: what divides the integers of all rows
        // divides the floats.
        let bytes = (1 << codes.trailing_zeros()).min(WIDEST);
        let (groups, lane_rows) = (self.groups_per_step(), LANES / s.lanes);
        // Few lanes have floats of their own, and words of theirs would leave a sector half empty.
        let narrow = bytes == WORD && lane_rows * (groups / sharing) * WORD < SECTOR;
        let aligned = shared % PAIR == 0 && lane_rows * groups * codes % PAIR == 0;
        // Nested scales have more bytes of floats than of integers.
        let nested = self.levels.as_ref().is_some_and(Levels::is_nested);
        let wide = nested && shared % WIDEST == 0 && lane_rows * groups * codes % WIDEST == 0;
        let shared_bytes = match (wide, narrow && aligned) {
            (true, _) => WIDEST,
            (_, true) => PAIR,
            _ => bytes,
        };
        Some(Loads {
            bytes,
            codes: codes / bytes,
            shared: shared / shared_bytes,
            shared_bytes,
            groups,
            lane_groups: self.lane_groups(s),
            sharing,
            rows: s.rows,
        })
    }

    /// Quant groups of the weights that a lane loads at once.
    pub(super) fn lane_groups(&self, s: &GemvSchedule) -> u32 {
        (self.groups_per_step() / s.lanes).max(1)
    }

    /// Tells row of parameters and column of every entry of a `gemv` row tile whose rows share them: of each step
    /// and row of parameters all lanes' first loads, then all second ones.
    pub(super) fn for_columns<Columns: Iterator<Item = u32> + Clone>(
        &self,
        s: &GemvSchedule,
        columns: impl Fn(u32) -> Columns,
        mut each: impl FnMut(u32, u32),
    ) {
        let of_load = WIDEST as usize / self.entry_bytes();
        for columns in (0..self.param_sets()).map(&columns) {
            let load = |lane: u32, nth: usize| {
                let first = (lane * PIECE_CODES) as usize + nth * of_load;
                columns.clone().skip(first).take(of_load)
            };
            for row in 0..self.tile_param_rows() {
                for nth in 0..PIECE_CODES as usize / of_load {
                    (0..s.lanes).for_each(|lane| load(lane, nth).for_each(|k| each(row, k)));
                }
            }
        }
    }

    /// Tells row in the tile and quant group of every parameter entry of a `gemv` row tile, lane by lane: for
    /// a warp and set `[row of the lanes][group][row of the lane]`. `groups` are those of a set.
    pub(super) fn for_runs<Groups: Iterator<Item = u32> + Clone>(
        &self,
        s: &GemvSchedule,
        groups: impl Fn(u32) -> Groups,
        mut each: impl FnMut(u32, u32),
    ) {
        let (lane_rows, lane_groups) = (LANES / s.lanes, self.lane_groups(s) as usize);
        for warp in (0..self.tile_rows()).step_by(s.warp_rows() as usize) {
            for set in (0..self.param_sets()).map(&groups) {
                for row in warp..warp + lane_rows {
                    let of_lanes = |nth| set.clone().skip(nth).step_by(lane_groups);
                    for group in (0..lane_groups).flat_map(of_lanes) {
                        (0..s.rows).for_each(|part| each(row + part * lane_rows, group));
                    }
                }
            }
        }
    }

    /// Cuts the runs that [`Self::for_runs`] has put side by side into loads: all first ones of a warp and
    /// set, then all second ones.
    pub(super) fn cut_runs(&self, s: &GemvSchedule, loads: Loads, packed: Vec<u8>) -> Vec<u8> {
        if loads.codes == 1 {
            return packed;
        }
        let width = loads.bytes as usize;
        let run = width * loads.codes as usize;
        let set = run * (loads.groups * LANES / s.lanes) as usize;
        let mut cut = Vec::with_capacity(packed.len());
        for set in packed.chunks_exact(set) {
            for load in (0..run).step_by(width) {
                set.chunks_exact(run).for_each(|run| cut.extend(&run[load..load + width]));
            }
        }
        cut
    }
}
