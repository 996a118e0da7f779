//! Group parameters on their way to registers: a lane loads those of all its rows at once
//! ([`crate::layout::Loads`]), and has an entry for each row and group.

use super::Gemv;
use crate::kir::{call, hex, int, load, var, Body, Expr, Type};
use crate::lower::{beyond, entry_type, factor};

/// Selector of the bytes of a first word, and what it takes to begin a byte further on and end in a second one.
const FIRST_WORD: u32 = 0x3210;
const NEXT_BYTE: u32 = 0x1111;

/// Loads of a lane.
struct Run {
    /// The first one, in elements of the array.
    from: Expr,
    count: u32,
    /// Elements from one to the next.
    distance: u32,
}

impl Gemv<'_> {
    /// Words of an entry; the last one may be filled in part.
    pub(super) fn entry_words(&self) -> u32 {
        self.cx.layout.entry_bytes().div_ceil(4) as u32
    }

    /// Whether loads bring entries word by word: no levels to be joined, no entry that ends within a word.
    fn loads_entries(&self) -> bool {
        self.cx.layout.levels().is_none() && self.cx.layout.entry_bytes() % 4 == 0
    }

    /// Declares the entries of `count` steps and what loads fill before they are entries: what each group
    /// has, and what groups share.
    pub(super) fn declare_params(&self, body: &mut Body, count: u32) {
        let Some(loads) = self.cx.layout.loads() else { return };
        body.array("entry", Type::U32, &[count, self.entries(), self.entry_words()]);
        if self.loads_entries() {
            return;
        }
        let codes = (loads.codes * loads.bytes).div_ceil(4);
        let shared = loads.shared * loads.shared_bytes / 4;
        body.array("codes", Type::U32, &[count, self.lane_groups(), codes]);
        if shared > 0 {
            body.array("shared", Type::U32, &[count, shared]);
        }
    }

    /// Asks for the parameters of a step: `[warp tile][set]`, in it what groups have, `[load][lane's row][group]`,
    /// then what they share, `[load][lane's row][groups that share it]`.
    pub(super) fn load_params(&self, body: &mut Body, ahead: &Expr, step: &Expr) {
        let (layout, lanes) = (self.cx.layout, self.s.lanes);
        let Some(loads) = layout.loads() else { return };
        let group_k = self.cx.spec.group.size(self.cx.problem.k);
        let [all_codes, all_shared] = [loads.groups, loads.spans()].map(|each| 32 / lanes * each);
        let codes = all_codes * loads.codes;
        let set = match layout.steps_per_param_set() {
            1 => step.clone(),
            steps => step.clone() / steps,
        };
        // What is shared is counted in loads of what is not.
        let ratio = loads.shared_bytes / loads.bytes;
        let shared = all_shared * ratio;
        let from = (var("warp_tile") * layout.param_sets() + set) * (codes + shared * loads.shared);
        let from = body.bind("params_from", Type::I32, from);
        // The part of a step that this lane's weights are in, of parts of `k` weights.
        let part = |k: u32| match loads.groups {
            1 => int(0),
            _ => var("lane_k") * 32u32 / k,
        };
        body.unrolled("lane_group", self.lane_groups(), |body, inner| {
            let nth = inner.clone() * (loads.groups / loads.lane_groups);
            let group = var("lane_row") * loads.groups + nth + part(group_k * loads.lane_groups);
            let place = |word| self.place(ahead, &inner, word);
            let run = Run { from: from.clone() + group, count: loads.codes, distance: all_codes };
            self.load_run(body, run, loads.bytes, place);
        });
        let span = var("lane_row") * loads.spans() + part(group_k * loads.sharing);
        let span = if ratio == 1 { span } else { span * ratio };
        let place = |word| Expr::at("shared", [ahead.clone(), int(word)]);
        let run = Run { from: from + codes + span, count: loads.shared, distance: shared };
        self.load_run(body, run, loads.shared_bytes, place);
    }

    /// Where word `word` of what a group has for all rows of a lane goes.
    fn place(&self, ahead: &Expr, inner: &Expr, word: u32) -> Expr {
        if !self.loads_entries() {
            return Expr::at("codes", [ahead.clone(), inner.clone(), int(word)]);
        }
        let (row, word) = (word / self.entry_words(), word % self.entry_words());
        let entry = inner.clone() + row * self.lane_groups();
        Expr::at("entry", [ahead.clone(), entry, int(word)])
    }

    /// Loads of `bytes` each into the words that `place` gives.
    fn load_run(&self, body: &mut Body, run: Run, bytes: u32, place: impl Fn(u32) -> Expr) {
        let (ty, element) = (entry_type(bytes as usize), self.cx.params_element());
        let words = ty.words() as u32;
        for nth in 0..run.count {
            let at = beyond(run.from.clone(), nth * run.distance);
            let value = match ty {
                _ if ty == element => load("params", at),
                Type::U32x4 => call("load_four_words", [Expr::address("params", at)]),
                _ => call("load_two_words", [Expr::address("params", at)]),
            };
            if ty.bytes() >= 4 {
                let places = (0..words).map(|word| place(nth * words + word)).collect();
                body.unpack(places, ty, value);
                continue;
            }
            let of_word = 4 / ty.bytes();
            let (word, value) = (place(nth / of_word), value.cast(Type::U32));
            let value = match nth % of_word {
                0 => value,
                later => word.clone() | (value << (8 * ty.bytes() * later)),
            };
            body.assign(word, value);
        }
    }

    /// Makes entries of what the loads of a step brought.
    pub(super) fn join_params(&self, body: &mut Body, ahead: &Expr) {
        if self.loads_entries() || !self.needs_params() {
            return;
        }
        if let Some(levels) = self.cx.layout.levels() {
            return self.join_levels(body, levels, ahead);
        }
        if self.cx.has_small_scales() {
            return self.join_scales(body, ahead);
        }
        let bytes = self.cx.layout.entry_bytes() as u32;
        let groups = self.lane_groups();
        body.unrolled("lane_group", groups, |body, inner| {
            let code = |word| Expr::at("codes", [ahead.clone(), inner.clone(), int(word)]);
            for (row, word) in
                (0..self.s.rows).flat_map(|row| (0..self.entry_words()).map(move |w| (row, w)))
            {
                let (byte, left) = (row * bytes + 4 * word, bytes - 4 * word);
                let (at, before) = (byte / 4, byte % 4);
                let value = match before {
                    0 => code(at),
                    _ if before + left <= 4 => code(at) >> (8 * before),
                    _ => {
                        let across = hex(FIRST_WORD + before * NEXT_BYTE);
                        call("permute", [code(at), code(at + 1), across])
                    }
                };
                let entry = inner.clone() + row * groups;
                body.assign(Expr::at("entry", [ahead.clone(), entry, int(word)]), value);
            }
        });
    }

    /// Makes f16 of floats of 8 bits, two at a time.
    fn join_scales(&self, body: &mut Body, ahead: &Expr) {
        let groups = self.lane_groups();
        body.unrolled("lane_group", groups, |body, inner| {
            for pair in 0..self.s.rows.div_ceil(2) {
                let word = Expr::at("codes", [ahead.clone(), inner.clone(), int(pair / 2)]);
                let both = factor::halves(self.cx, word, pair % 2 == 1);
                let both = body.bind(format!("scales{pair}"), Type::U32, both);
                for row in (2 * pair..self.s.rows).take(2) {
                    let entry =
                        Expr::at("entry", [ahead.clone(), inner.clone() + row * groups, int(0)]);
                    let value = if row % 2 == 0 { both.clone() } else { both.clone() >> 16u32 };
                    body.assign(entry, value);
                }
            }
        });
    }

    /// The scale in an entry of [`Self::join_scales`].
    pub(super) fn joined_scales(&self, entry: &Expr) -> Vec<(String, Expr)> {
        let fields = self.cx.layout.fields().iter();
        fields.map(|field| (field.name.clone(), call("h2_low", [entry.clone()]))).collect()
    }
}
