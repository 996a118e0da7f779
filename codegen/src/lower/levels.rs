//! Scales whose two levels are packed apart, where fragments are multiplied. Four lanes hold weights of the
//! same rows: once for each stage they share the rows' quant groups, compute from both levels the operands
//! of the groups' weights, and leave them in shared memory, where each of them finds all. No other warp has
//! these rows and groups, so that a warp meets nobody else.

use super::nested;
use super::rows::Rows;
use super::term::{Prepared, Row};
use super::{entry_type, Lowering};
use crate::kir::{call, hex, int, load, var, Body, Buffer, Expr, Space, Type};
use egg::Id;
use qtune_ir::dequant::{Field, Levels};
use qtune_ir::{Rejected, MOST_OPERANDS, ROW_LANES};

/// The upper bytes of two f16 that have integers in their lower ones: 1024 and the integer.
const MAGIC_BYTES: u32 = 0x6464_6464;
/// 1024 in both halves.
const MAGIC_BASE: u32 = 0x6400_6400;
/// 1/16 in both halves, and -1024/16.
const SIXTEENTH: u32 = 0x2c00_2c00;
const LESS_64: u32 = 0xd400_d400;
/// Selectors of the bytes 0 and 1 of a word, and of byte 0 twice, under the upper bytes.
pub(super) const TWO_CODES: u32 = 0x4140;
pub(super) const ONE_CODE: u32 = 0x4040;
/// From either to the codes that lie a byte further on.
const NEXT_BYTE: u32 = 0x0101;
/// Pairs of rows g and g+8 in a 16-row tile.
const PAIRS: u32 = 8;

/// Two codes of a word as f16, those that `selectors` take `byte` bytes further on.
pub(super) fn halves(word: Expr, selectors: u32, byte: Expr) -> Expr {
    let selectors = (byte * NEXT_BYTE + selectors).cast(Type::U32);
    let placed = call("permute", [word, hex(MAGIC_BYTES), selectors]);
    call("h2_sub", [placed, hex(MAGIC_BASE)])
}

/// Of two rows whose integers take half a byte each, both of the second one (`odd`) or of the first as f16.
/// `byte` has the first integer of each, the one behind it the second.
pub(super) fn nibbles(word: Expr, byte: u32, odd: bool) -> Expr {
    let placed = call("permute", [word, hex(MAGIC_BYTES), hex(TWO_CODES + byte * NEXT_BYTE)]);
    match odd {
        false => call("h2_sub", [placed & hex(MAGIC_BASE | 0x000f_000f), hex(MAGIC_BASE)]),
        // 16 times too much, and so is the part of 1024 that is taken away.
        true => {
            let upper = placed & hex(MAGIC_BASE | 0x00f0_00f0);
            call("h2_fma", [upper, hex(SIXTEENTH), hex(LESS_64)])
        }
    }
}

/// The levels of a warp's rows.
pub(super) struct RowLevels<'a> {
    pub rows: Rows<'a>,
    pub levels: &'a Levels,
    /// The warp's first 16-row tile in the block, and how many tiles further on the next one is.
    pub tile: Expr,
    pub tile_stride: u32,
    /// The first of the warp's quant groups in a stage, and how many they are.
    pub group: Expr,
    pub groups: u32,
    /// Bytes of dynamic shared memory where the ring's parameters start, and the operands.
    pub params: u32,
    pub operands: u32,
}

impl RowLevels<'_> {
    /// Refuses terms with more operands than their place in shared memory holds.
    pub fn check(&self) -> Result<(), Rejected> {
        let operands = self.rows.plan.invariants().len();
        match operands <= MOST_OPERANDS as usize {
            true => Ok(()),
            false => Err(Rejected {
                reason: format!("{operands} operands of two levels, more than {MOST_OPERANDS}"),
            }),
        }
    }

    fn cx(&self) -> &Lowering<'_> {
        self.rows.cx
    }

    /// Quant groups of a stage.
    fn stage_groups(&self) -> u32 {
        self.cx().layout.groups_per_step()
    }

    /// Quant groups of a stage that share floats there.
    fn sharing(&self) -> u32 {
        self.levels.sharing(self.stage_groups())
    }

    /// Times that groups share floats in a stage.
    fn spans(&self) -> u32 {
        self.stage_groups() / self.sharing()
    }

    /// Lanes of a row that have different groups; the rest of them has other row tiles.
    fn group_lanes(&self) -> u32 {
        self.groups.min(ROW_LANES)
    }

    fn codes_type(&self) -> Type {
        entry_type(2 * self.levels.code_bytes() as usize)
    }

    fn floats_type(&self) -> Type {
        entry_type(2 * self.levels.shared_bytes() as usize)
    }

    fn operands_type(&self) -> Type {
        entry_type(4 * self.rows.plan.invariants().len())
    }

    /// Views of the levels in the ring, and of the operands.
    pub fn views(&self) -> [Buffer; 3] {
        let view = |name: &str, offset: u32, element: Type| Buffer {
            name: name.into(),
            space: Space::Shared { offset },
            element,
        };
        [
            view("level_codes", self.params, self.codes_type()),
            view("level_floats", self.params, self.floats_type()),
            view("operands", self.operands, self.operands_type()),
        ]
    }

    /// Binds the lane's places in a stage: where its weights' operands start, where those start that it
    /// computes, and the floats for these.
    pub fn plan(&self, body: &mut Body) {
        let (pair, part) = (var("lane") % PAIRS, var("lane") / PAIRS);
        let at = |tile: Expr, group: Expr, pair: Expr| {
            (tile * self.stage_groups() + group) * PAIRS + pair
        };
        let own = at(self.tile.clone(), self.group.clone(), var("lane") / ROW_LANES);
        body.bind("lane_operands", Type::I32, own);
        let tile = match self.group_lanes() {
            ROW_LANES => self.tile.clone(),
            lanes => self.tile.clone() + part.clone() / lanes * self.tile_stride,
        };
        let group = self.group.clone() + part % self.group_lanes();
        body.bind("lane_codes", Type::I32, at(tile.clone(), group, pair.clone()));
        let span = match self.spans() {
            1 => int(0),
            _ => self.group.clone() / self.sharing(),
        };
        let span = (tile * self.spans() + span) * PAIRS + pair;
        body.bind("lane_floats", Type::I32, span);
    }

    /// Computes the operands of the warp's rows in a stage.
    pub fn compute(&self, body: &mut Body, slot: &Expr) {
        let (rows, lanes) = (self.cx().layout.tile_rows(), self.group_lanes());
        let stage = rows * self.levels.bytes(self.stage_groups());
        let codes = slot.clone() * (stage / self.codes_type().bytes()) + var("lane_codes");
        body.bind("codes_at", Type::I32, codes);
        let floats = slot.clone() * (stage / self.floats_type().bytes()) + var("lane_floats");
        body.bind("floats_at", Type::I32, floats);
        let behind_codes = rows * self.stage_groups() * self.levels.code_bytes();
        let behind_codes = behind_codes / self.floats_type().bytes();
        let at_once = ROW_LANES / lanes;
        let run = self.sharing().min(self.groups);
        body.unrolled("row_turn", self.rows.tiles.div_ceil(at_once), |body, row_turn| {
            let first = row_turn.clone() * at_once;
            let tile = first.clone() * self.tile_stride;
            self.when_tile(body, first, |body| {
                body.unrolled("span", self.groups / run, |body, span| {
                    let from = (tile.clone() * self.spans() + span.clone()) * PAIRS + behind_codes;
                    self.load_floats(body, from);
                    body.unrolled("turn", run / lanes, |body, turn| {
                        let group = tile.clone() * self.stage_groups() + span * run + turn * lanes;
                        self.compute_pair(body, group * PAIRS);
                    });
                });
            });
        });
        body.call("warp_sync", []);
    }

    /// `then` for lanes whose row tile, this one or one after it, the warp has.
    fn when_tile(&self, body: &mut Body, first: Expr, then: impl FnOnce(&mut Body)) {
        let lanes = self.group_lanes();
        match self.rows.tiles % (ROW_LANES / lanes) {
            0 => then(body),
            _ => {
                let tile = first + var("lane") / PAIRS / lanes;
                body.when(tile.less(self.rows.tiles), then);
            }
        }
    }

    /// `floats`: those of rows g and g+8, side by side.
    fn load_floats(&self, body: &mut Body, from: Expr) {
        let ty = self.floats_type();
        body.array("floats", Type::U32, &[ty.words() as u32]);
        let places = (0..ty.words() as u32).map(|word| Expr::at("floats", [int(word)]));
        body.unpack(places.collect(), ty, load("level_floats", var("floats_at") + from));
    }

    /// The operands of a pair of rows in one group.
    fn compute_pair(&self, body: &mut Body, group: Expr) {
        let codes = load("level_codes", var("codes_at") + group.clone()).cast(Type::U32);
        let codes = body.bind("codes", Type::U32, codes);
        if self.levels.is_nested() {
            let rows = [0, 1].map(|half| self.nested(&codes, half));
            return self.store_operands(body, group, &rows);
        }
        let of_half = |half: u32| match self.levels.codes.len() {
            _ if self.levels.nibbles => nibbles(codes.clone(), 0, half == 1),
            1 => halves(codes.clone(), ONE_CODE, int(half)),
            _ => halves(codes.clone(), TWO_CODES, int(half * 2)),
        };
        let rows = [0u32, 1].map(|half| {
            let integers = of_half(half);
            let integers = body.bind(format!("integers{half}"), Type::U32, integers);
            self.params(half, &integers)
        });
        self.store_operands(body, group, &rows);
    }

    /// The nested scale of row g (`half` 0) or g+8 (`half` 1).
    fn nested(&self, codes: &Expr, half: u32) -> Vec<(String, Expr)> {
        let scale = nested::scale(codes.clone(), int(half), Expr::at("floats", [int(half)]));
        let named = |field: &Field| (field.name.clone(), call("bits_f32", [scale.clone()]));
        self.levels.entry.iter().map(named).collect()
    }

    /// Leaves the operands of rows g and g+8 with these parameters.
    fn store_operands(&self, body: &mut Body, group: Expr, rows: &[Vec<(String, Expr)>; 2]) {
        let row = |position: usize| Row { params: &rows[position], position };
        let plan = self.rows.plan;
        let words = match plan.invariants()[..] {
            [only] => plan.joined([(only, &row(0)), (only, &row(1))]),
            [first, second, ..] => {
                let word = |row: &Row| plan.joined([(first, row), (second, row)]);
                call("pack_u32x2", [word(&row(0)), word(&row(1))])
            }
            [] => return,
        };
        body.store("operands", var("lane_codes") + group, words);
    }

    /// The named parameters of row g (`half` 0) or g+8 (`half` 1): floats as they are, integers as f16,
    /// which has all that fit a byte.
    fn params(&self, half: u32, integers: &Expr) -> Vec<(String, Expr)> {
        let part =
            |word: Expr, half: u32| call(if half % 2 == 0 { "h2_low" } else { "h2_high" }, [word]);
        let count = self.levels.shared.len() as u32;
        let floats = (0..).zip(&self.levels.shared).map(|(nth, field)| {
            let at = half * count + nth;
            (field.name.clone(), part(Expr::at("floats", [int(at / 2)]), at))
        });
        let integers = (0..)
            .zip(&self.levels.codes)
            .map(|(nth, field)| (field.name.clone(), part(integers.clone(), nth)));
        floats.chain(integers).collect()
    }

    /// Loads the operands of the lane's rows in the groups of a segment: `joined[place]`, the invariants of row g
    /// before those of row g+8, two to a word.
    pub fn load(&self, body: &mut Body, segment: &Expr) {
        let (rows, ty) = (&self.rows, self.operands_type());
        body.array("joined", Type::U32, &[rows.count(), ty.words() as u32]);
        body.unrolled("row_part", rows.count(), |body, place| {
            let (row_part, inner) = rows.tile_and_group(&place);
            let group = row_part * (self.tile_stride * self.stage_groups())
                + segment.clone() * rows.groups
                + inner;
            let word = |word: u32| Expr::at("joined", [place.clone(), int(word)]);
            let words = (0..ty.words() as u32).map(word).collect();
            body.unpack(words, ty, load("operands", var("lane_operands") + group * PAIRS));
        });
    }

    /// Where [`RowLevels::load`] put the operands of a place.
    pub fn prepared(&self, place: &Expr) -> Prepared {
        let invariants = self.rows.plan.invariants();
        let values = (0..2).flat_map(|half| {
            let count = invariants.len();
            invariants.iter().enumerate().map(move |(index, id)| (half, half * count + index, *id))
        });
        let value = |(half, at, id): (usize, usize, Id)| {
            let word = Expr::at("joined", [place.clone(), int((at / 2) as u32)]);
            let both = if at % 2 == 0 { "h2_both_low" } else { "h2_both_high" };
            (id, half, call(both, [word]))
        };
        Prepared::new(values.map(value).collect())
    }
}
