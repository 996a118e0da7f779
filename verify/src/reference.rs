//! What a correct kernel computes, and how far its rounding may take it from that.
//!
//! The reference is the format's expression on the stored codes and parameters, summed in f64. The
//! bound is linear in the activations: every weight has an *error weight*, and the bound of an
//! output is the dot product of the error weights with `|x|`, plus what underflow and the rounding
//! of the output add. Error weights depend on the code, the quant group and the position of the
//! code in its packed word alone, so they are tabulated like the weights.

use crate::codes::{CodeTable, Decoder};
use crate::inputs::{Activations, Pattern};
use crate::rounding::Rounding;
use crate::weights::{RowTile, Weights};
use qtune_codegen::Layout;
use rayon::prelude::*;
use std::ops::Range;

/// The expected value of one output element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    /// In exact arithmetic, up to f64 rounding.
    pub value: f64,
    /// Largest distance of a correct kernel's output.
    pub bound: f64,
    /// Whether a correct kernel may give infinity.
    pub may_overflow: bool,
}

/// One row tile with everything tabulated that does not depend on the activations.
pub(crate) struct Reference {
    tile: RowTile,
    /// Elements of k per quant group.
    group: usize,
    /// `[rows, groups]`.
    tables: Vec<CodeTable>,
    /// Index into a table for every weight, `[rows, K]`: see [`CodeTable::index`].
    entries: Vec<u8>,
    bias: Vec<f64>,
}

impl Reference {
    /// Tabulates a row tile; `layout` says where its codes lie in their words.
    pub fn new(
        decoder: &Decoder,
        weights: &Weights<'_>,
        tile: RowTile,
        layout: &Layout,
    ) -> Reference {
        let rows: Vec<u32> = tile.rows.clone().collect();
        let groups = tile.groups() as u32;
        let tables = rows
            .par_iter()
            .flat_map_iter(|&n| (0..groups).map(move |g| (n, g)))
            .map(|(n, g)| decoder.table(tile.row_params(n, g)))
            .collect();
        let entries = rows
            .par_iter()
            .flat_map_iter(|&n| {
                let codes = tile.row_codes(n).iter().zip(0..);
                codes.map(move |(&code, k)| CodeTable::index(code, position(layout, n, k)))
            })
            .collect();
        let bias = rows.iter().map(|&n| weights.bias(n).into()).collect();
        Reference { group: weights.group(), tile, tables, entries, bias }
    }

    /// The logical weights.
    pub fn tile(&self) -> &RowTile {
        &self.tile
    }

    /// Expected outputs of `tokens` for every row of the tile: `[rows][tokens]`.
    pub fn expected(
        &self,
        x: &Activations,
        tokens: Range<u32>,
        rounding: &Rounding,
    ) -> Vec<Vec<Expected>> {
        (0..self.tile.rows.len())
            .into_par_iter()
            .map(|index| {
                let row = self.row(index, x.pattern.products(), rounding);
                let tokens = tokens.clone();
                tokens.map(|t| row.expected(x.token(t), &x.pattern, rounding)).collect()
            })
            .collect()
    }

    /// Weights and error weights of a row, for tokens with at most `products` activations.
    fn row(&self, index: usize, products: u32, rounding: &Rounding) -> Row {
        let k = self.entries.len() / self.tile.rows.len();
        let entries = &self.entries[index * k..][..k];
        let groups = self.tile.groups();
        let tables = &self.tables[index * groups..][..groups];
        let relative = rounding.accumulation(products);
        let mut weights = Vec::with_capacity(k);
        let mut errors = Vec::with_capacity(k);
        let (mut all, mut largest) = (0.0, 0.0f64);
        for (entries, table) in entries.chunks(self.group).zip(tables) {
            let by_entry = table.errors(relative);
            weights.extend(entries.iter().map(|&entry| table.weight(entry)));
            errors.extend(entries.iter().map(|&entry| by_entry[usize::from(entry)]));
            all += entries.len() as f64 * table.sensitivity();
            largest = largest.max(table.sensitivity());
        }
        let floor = rounding.underflow() * all.min(f64::from(products) * largest);
        Row { weights, errors, floor, bias: self.bias[index] }
    }
}

/// Which of the two position weights the code of `(n, k)` has where it lies.
fn position(layout: &Layout, n: u32, k: u32) -> usize {
    (layout.slot(n, k).shift % 16 / 4 % 2) as usize
}

/// One output row, ready for dot products.
struct Row {
    weights: Vec<f64>,
    errors: Vec<f64>,
    floor: f64,
    bias: f64,
}

impl Row {
    fn expected(&self, x: &[f32], pattern: &Pattern, rounding: &Rounding) -> Expected {
        let (dot, error) = match pattern {
            Pattern::OneHot { .. } => self.sparse(x),
            _ => self.dense(x),
        };
        let value = dot + self.bias;
        let error = error + self.floor;
        Expected {
            value,
            bound: error + rounding.output(value, error),
            may_overflow: rounding.may_overflow(value, error),
        }
    }

    /// Four independent sums, so that the additions need not wait for each other.
    fn dense(&self, x: &[f32]) -> (f64, f64) {
        let mut dot = [0.0f64; 4];
        let mut error = [0.0f64; 4];
        let lanes = self.weights.chunks(4).zip(self.errors.chunks(4)).zip(x.chunks(4));
        for ((weights, errors), x) in lanes {
            for (lane, ((w, e), x)) in weights.iter().zip(errors).zip(x).enumerate() {
                let x = f64::from(*x);
                dot[lane] += w * x;
                error[lane] += e * x.abs();
            }
        }
        (dot.iter().sum(), error.iter().sum())
    }

    fn sparse(&self, x: &[f32]) -> (f64, f64) {
        let nonzero = x.iter().enumerate().filter(|(_, x)| **x != 0.0);
        nonzero.fold((0.0, 0.0), |(dot, error), (k, x)| {
            let x = f64::from(*x);
            (dot + self.weights[k] * x, error + self.errors[k] * x.abs())
        })
    }
}
