//! What a consumer of a `wgmma` block does with a stage: convert, multiply, add up.

use super::super::beyond;
use super::super::octet::Octet;
use super::super::term::Prepared;
use super::{Stage, Wgmma};
use crate::intrinsics::{self, multiply_name};
use crate::kir::{call, int, load, var, Body, Expr, Type};

/// Multiplies of a row tile by a panel: 64 of k.
const PANEL_K16: u32 = 4;

/// A unit of work: a panel within its segment and within its stage, and a part of it.
struct Unit<'a> {
    panel: &'a Expr,
    whole: &'a Expr,
    part: &'a Expr,
}

impl Wgmma<'_> {
    /// Waits for a stage, converts and multiplies it.
    pub(super) fn compute_stage(&self, body: &mut Body, phase: &Expr, stage: &Stage) {
        let slot = &stage.slot;
        body.call("barrier_wait", [Expr::address("full", slot.clone()), phase.clone()]);
        let loads = self.weight_bytes() / (4 * self.cx.packing().load_words());
        let weights = slot.clone() * loads + var("lane_piece");
        body.bind("weights_at", Type::I32, weights);
        let tokens = [var("ring_tile"), slot.clone() * self.act_pieces()];
        body.bind("tokens_at", Type::Descriptor, call("tile_behind", tokens));
        if let Some(levels) = self.row_levels() {
            // Lanes may still take operands of the stage before this one.
            body.call("warp_sync", []);
            levels.compute(body, slot);
        }
        let segments = self.segments();
        let panels = self.panels() / segments;
        body.unrolled("segment", segments, |body, segment| {
            match self.row_levels() {
                Some(levels) => levels.load(body, &segment),
                None if self.rows().needed() && self.columns().is_none() => {
                    self.load_params(body, slot, &segment);
                    self.rows().prepare(body);
                }
                None => {}
            }
            if self.cx.scales_groups() {
                let groups = self.cx.layout.groups_per_step();
                let group = stage.step.clone() * groups + segment.clone();
                self.cx.load_group_scales(body, self.s.block_m / 8, group);
            }
            body.unrolled("panel", panels, |body, panel| {
                let whole = segment.clone() * panels + panel.clone();
                self.load_words(body, &whole);
                body.unrolled("part", self.parts(), |body, part| {
                    let unit = Unit { panel: &panel, whole: &whole, part: &part };
                    self.compute_unit(body, stage, unit);
                });
            });
            if !self.starts_once() {
                body.call(intrinsics::WAIT, [int(0)]);
                self.apply_coefficients(body);
            }
        });
    }

    fn load_params(&self, body: &mut Body, slot: &Expr, segment: &Expr) {
        let (groups, within) = (self.cx.layout.groups_per_step(), self.rows().groups);
        let group = match (groups, within) {
            _ if self.once_param_bytes() > 0 => int(0),
            (1, _) => slot.clone(),
            (_, 1) => slot.clone() * groups + segment.clone(),
            _ => slot.clone() * groups + segment.clone() * within,
        };
        let together = self.cx.layout.groups_together();
        let set = if together == 1 { group } else { group / together };
        let first = set * (self.s.block_n / 2) + var("warp_tile") * 8u32 + var("lane") / 4u32;
        self.rows().load(body, |place| {
            let (row_part, inner) = self.rows().tile_and_group(place);
            match within / together {
                1 => first.clone() + row_part * 32u32,
                _ => first.clone() + inner * (self.s.block_n / 2) + row_part * 32u32,
            }
        });
    }

    /// Units of a panel.
    fn parts(&self) -> u32 {
        PANEL_K16 / self.unit_k16
    }

    /// The codes of a panel of all row tiles.
    fn load_words(&self, body: &mut Body, whole: &Expr) {
        let (rows, slab) = (self.s.row_tiles(), self.cx.slab_loads());
        body.array("words", Type::U32, &[rows, self.cx.packing().words()]);
        body.unrolled("row_part", rows, |body, row_part| {
            let at = row_part.clone() * (4 * self.panels() * slab) + whole.clone() * slab;
            let at = var("weights_at") + at;
            self.cx.load_piece(
                body,
                |word| Expr::at("words", [row_part.clone(), int(word)]),
                |distance| load(self.cx.lane_view(), beyond(at.clone(), distance)),
            );
        });
    }

    /// Converts and multiplies a unit. Row tiles take turns within a k16, as they read the same
    /// activations.
    fn compute_unit(&self, body: &mut Body, stage: &Stage, unit: Unit) {
        let Unit { panel, whole, part } = unit;
        let turn = match self.parts() {
            1 => whole.clone() % 2u32,
            _ => part.clone(),
        };
        let first = part.clone() * self.unit_k16;
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            body.unrolled("k16", self.unit_k16, |body, k16| {
                let octet = first.clone() + k16.clone();
                let columns = self.columns();
                let columns = columns.map(|columns| {
                    self.prepare_columns(body, &columns, stage, [whole, &octet, &row_part])
                });
                self.convert(body, &octet, [&turn, &row_part, &k16], columns);
            });
        });
        body.call(intrinsics::FENCE, []);
        let column = if self.starts_once() { whole } else { panel };
        body.unrolled("k16", self.unit_k16, |body, k16| {
            let pieces = whole.clone() * self.panel_pieces();
            let pieces = pieces + (first.clone() + k16.clone()) * 2u32;
            let inner = int(0).less(column.clone() + part.clone() + k16.clone());
            let keep = match self.starts_once() {
                true => stage.later.clone().or(inner),
                false => inner,
            };
            body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
                let place = [&turn, &row_part, &k16];
                self.multiply(body, place, pieces.clone(), keep.clone());
            });
        });
        body.call(intrinsics::COMMIT, []);
        body.call(intrinsics::WAIT, [int(1)]);
        self.release_previous(body, stage, whole.clone() + part.clone());
    }

    /// The first unit of a stage has waited for every multiply of the stage before it.
    fn release_previous(&self, body: &mut Body, stage: &Stage, unit: Expr) {
        body.when_uniform(unit.equals(0u32), |body| {
            body.call("warp_sync", []);
            let drained = Expr::address("empty", stage.drained.clone());
            match self.s.multicast {
                1 => body.when(stage.later.clone().and(var("lane").equals(0u32)), |body| {
                    body.call("barrier_arrive", [drained]);
                }),
                // A lane for each block, whose producer overwrites a part of the stage here.
                blocks => body.when(stage.later.clone().and(var("lane").less(blocks)), |body| {
                    body.call(intrinsics::REMOTE_ARRIVE, [drained, var("lane")]);
                }),
            }
        });
    }

    /// Makes the fragment of an octet, with the operands of its columns or those of its rows.
    fn convert(
        &self,
        body: &mut Body,
        index: &Expr,
        [turn, row_part, k16]: [&Expr; 3],
        columns: Option<Prepared>,
    ) {
        let word = |w| Expr::at("words", [row_part.clone(), w]);
        let octet = Octet::load(self.cx.packing(), body, index, word);
        let rows = self.rows();
        let group = index.clone() / (PANEL_K16 / rows.groups).max(1);
        let place = rows.place(row_part, group);
        let of_rows = || match self.row_levels() {
            Some(levels) => levels.prepared(&place),
            None => rows.prepared(&place),
        };
        let prepared = columns.unwrap_or_else(of_rows);
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let Some(weight) = sum.weight else { continue };
            let pairs = self.plan.pairs(body, index, weight, &octet, &prepared);
            for (pair, value) in pairs.into_iter().enumerate() {
                let place = [turn.clone(), row_part.clone(), k16.clone(), int(pair as u32)];
                body.assign(Expr::at(format!("frag{index}"), place), call("settled", [value]));
            }
        }
    }

    /// All sums of one k16. A fragment of ones adds up the activations of every token, in the very
    /// registers where the corrections are needed; the first row tile does so for all.
    fn multiply(
        &self,
        body: &mut Body,
        [turn, row_part, k16]: [&Expr; 3],
        pieces: Expr,
        keep: Expr,
    ) {
        let name = multiply_name(self.cx.operands(), self.s.block_m);
        for (index, sum) in self.plan.sums().iter().enumerate() {
            let sums = self.sum_name(index);
            let args = |row: Expr, a: Vec<Expr>| {
                let mut args = vec![Expr::at(sums, [row])];
                args.extend(a);
                args.extend([var("tokens_at"), pieces.clone(), keep.clone()]);
                args
            };
            match sum.weight {
                Some(_) => {
                    let place =
                        |pair: u32| [turn.clone(), row_part.clone(), k16.clone(), int(pair)];
                    let frag = |pair| Expr::at(format!("frag{index}"), place(pair));
                    body.call(name, args(row_part.clone(), (0..4).map(frag).collect()));
                }
                None => {
                    let ones = args(int(0), vec![var("ones"); 4]);
                    match self.s.row_tiles() {
                        1 => body.call(name, ones),
                        _ => body.when_uniform(row_part.clone().equals(0u32), |body| {
                            body.call(name, ones);
                        }),
                    }
                }
            }
        }
    }

    /// Adds the sums to the totals with the rows' coefficients, in f32.
    pub(super) fn apply_coefficients(&self, body: &mut Body) {
        if self.is_direct() {
            return;
        }
        body.unrolled("row_part", self.s.row_tiles(), |body, row_part| {
            for half in 0..2u32 {
                for (name, sum, value) in self.rows().coefficients(&row_part, half as usize) {
                    let coefficient = body.bind(name, Type::F32, value);
                    self.accumulate(body, &row_part, half, sum, coefficient);
                }
            }
        });
    }

    fn accumulate(
        &self,
        body: &mut Body,
        row_part: &Expr,
        half: u32,
        sum: usize,
        coefficient: Expr,
    ) {
        let name = self.sum_name(sum);
        let row = match self.plan.sums()[sum].weight {
            Some(_) => row_part.clone(),
            None => int(0),
        };
        body.unrolled("token_part", self.s.block_m / 8, |body, tile| {
            for c in [2 * half, 2 * half + 1] {
                let at = tile.clone() * 4u32 + c;
                let total = Expr::at("total", [row_part.clone(), at.clone()]);
                let value = Expr::at(&*name, [row.clone(), at]);
                let coefficient = self.cx.group_coefficient(coefficient.clone(), &tile, c);
                let fma = call("fma_f32", [coefficient, value, total.clone()]);
                // A plain addition would sink behind the fence, where a multiply owns the sum.
                let fma = match self.cx.has_codes() {
                    true => call("settled_f32", [fma]),
                    false => fma,
                };
                body.assign(total, fma);
            }
        });
    }

    /// Every warp's totals to `red[token][row]`.
    pub(super) fn reduce(&self, body: &mut Body) {
        let s = self.s;
        body.section("the output tile meets in shared memory");
        // Then no other block arrives at barriers here any more, either.
        self.meet(body);
        body.unrolled("row_part", s.row_tiles(), |body, row_part| {
            body.unrolled("token_part", s.block_m / 8, |body, tile| {
                for c in 0..4u32 {
                    let token = tile.clone() * 8u32 + var("lane") % 4u32 * 2u32 + (c % 2);
                    let row = (var("warp_tile") + row_part.clone() * 4u32) * 16u32;
                    let row = row + var("lane") / 4u32 + 8 * (c / 2);
                    let total = Expr::at("total", [row_part.clone(), tile.clone() * 4u32 + c]);
                    let total = self.plan.finished(self.cx.widened_sum(total), c as usize / 2);
                    body.store("red", token * s.reduction_pitch() + row, total);
                }
            });
        });
    }
}
