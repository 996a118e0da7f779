//! Activations on their way to shared memory: as they come, or each to the place of its column.

use super::Gemv;
use crate::kir::{call, hex, int, load, var, Body, Expr, Type};
use crate::lower::sort;
use qtune_ir::Sorting;

/// The staged activations, one by one.
pub(super) const STAGED_HALVES: &str = "staged_halves";

impl Gemv<'_> {
    /// Eight activations from global memory, or zeros past M and K, packed and scaled.
    pub(super) fn fetch(&self, body: &mut Body, name: &str, token: Expr, k8: Expr) {
        let k8_end = var("K") / 8u32;
        body.zeros(name, Type::U32, &[4]);
        let m = var("token_tile") * self.s.tokens + token;
        let inside = m.clone().less(var("tokens")).and(k8.clone().less(k8_end.clone()));
        body.when(inside, |body| {
            let places = (0..4u32).map(|w| Expr::at(name, [int(w)]));
            body.unpack(places.collect(), Type::U32x4, load("x", m * k8_end + k8));
        });
        if self.scale != 1.0 {
            for word in 0..4u32 {
                let place = Expr::at(name, [int(word)]);
                body.assign(place.clone(), call("h2_mul", [place, self.plan.both(self.scale)]));
            }
        }
    }

    /// Stages this block's activations so that a lane's four 16-byte pieces lie in four parts:
    /// neighbouring lanes then read neighbouring pieces, without bank conflicts.
    pub(super) fn stage_activations(&self, body: &mut Body) {
        let s = self.s;
        if self.cx.sorting == Sorting::Prologue {
            return self.stage_sorted(body);
        }
        body.section("stage the activations of this block's k range");
        let chunks = (var("last") - var("first")) * (4 * s.lanes);
        let chunks = body.bind("chunks", Type::I32, chunks);
        body.unrolled("token", s.tokens, |body, token| {
            body.range("chunk", var("thread"), chunks, s.threads(), |body, chunk| {
                let k8 = var("first") * (4 * s.lanes) + chunk.clone();
                self.fetch(body, "piece", token.clone(), k8);
                let place = self.staged_place(&token, chunk.clone() % 4u32, chunk / 4u32);
                let words = (0..4u32).map(|w| Expr::at("piece", [int(w)]));
                let value = call("pack_u32x4", words.collect::<Vec<_>>());
                body.store("staged_x", place, value);
            });
        });
    }

    /// The same for columns that are sorted by quant group: every activation of every token is looked
    /// at, and put where its column is staged, if that is in this block's k range.
    fn stage_sorted(&self, body: &mut Body) {
        let s = self.s;
        body.section("stage the activations of this block's k range, each at its column");
        let range = (var("last") - var("first")) * (32 * s.lanes);
        let range = body.bind("columns_here", Type::I32, range);
        let first = body.bind("first_column", Type::I32, var("first") * (32 * s.lanes));
        self.pad_staged(body);
        body.range("features", var("thread"), var("K") / 8u32, s.threads(), |body, k8| {
            sort::load_places(body, &k8);
            body.unrolled("token", s.tokens, |body, token| {
                self.fetch(body, "piece", token.clone(), k8.clone());
                for (index, (column, value)) in sort::scattered("piece").into_iter().enumerate() {
                    let at = body.bind(format!("at{index}"), Type::I32, column - first.clone());
                    let (part, position) = (at.clone() / 8u32 % 4u32, at.clone() / 32u32);
                    let place = self.staged_place(&token, part, position) * 8u32;
                    let place = place + at.clone() % 8u32;
                    if s.split.per_tile() == 1 {
                        body.store(STAGED_HALVES, place, value);
                        continue;
                    }
                    let inside = int(-1).less(at.clone()).and(at.less(range.clone()));
                    body.when(inside, |body| body.store(STAGED_HALVES, place, value));
                }
            });
        });
    }

    /// Zeros for what is staged beyond K.
    fn pad_staged(&self, body: &mut Body) {
        let s = self.s;
        let (k, padded) = (self.cx.problem.k, s.padded_k(self.cx.problem.k));
        if k == padded {
            return;
        }
        let chunk = (var("first_column") + var("columns_here")) / 8u32;
        let from = var("K") / 8u32 + var("thread");
        body.range("chunk", from, chunk, s.threads(), |body, chunk| {
            let chunk = chunk - var("first_column") / 8u32;
            body.unrolled("token", s.tokens, |body, token| {
                let place = self.staged_place(&token, chunk.clone() % 4u32, chunk.clone() / 4u32);
                body.store("staged_x", place, call("pack_u32x4", [hex(0), hex(0), hex(0), hex(0)]));
            });
        });
    }

    pub(super) fn staged_place(&self, token: &Expr, part: Expr, position: Expr) -> Expr {
        (token.clone() * 4u32 + part) * self.pitch() + position
    }
}
