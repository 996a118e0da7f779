//! What a correct kernel computes, and how far its rounding may take it from that.
//!
//! The reference is the format's expression on the stored codes and parameters, summed in f64. The
//! bound is linear in the activations: every weight has an *error weight*, and the bound of an
//! output is the dot product of the error weights with `|x|`, plus what underflow and the rounding
//! of the output add. Error weights depend on the code, the quant group and the position of the
//! code in its packed word alone, so they are tabulated like the weights.

use crate::codes::{CodeTable, Decoder};
use crate::epilogue::{Approximate, Finish};
use crate::inputs::{Activations, Pattern};
use crate::rounding::Rounding;
use crate::weights::{RowTile, Weights};
use crate::VerifyError;
use qtune_codegen::Layout;
use qtune_formats::Vectors;
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
    /// `[rows of parameters, groups]`.
    tables: Vec<CodeTable>,
    /// Index into a table for every weight, `[rows, K]`: see [`CodeTable::index`].
    entries: Vec<u32>,
    bias: Vec<f64>,
}

impl Reference {
    /// Tabulates a row tile; `layout` says where its codes lie in their words.
    ///
    /// # Errors
    /// [`VerifyError::Term`] if the term cannot be computed for codes that name vectors.
    pub fn new(
        decoder: &Decoder,
        weights: &Weights<'_>,
        tile: RowTile,
        layout: &Layout,
    ) -> Result<Reference, VerifyError> {
        let rows: Vec<u32> = tile.rows.clone().collect();
        let bias = rows.iter().map(|&n| weights.bias(layout.feature(n)).into()).collect();
        let (tables, entries) = match weights.vectors() {
            Some(vectors) => vector_tables(decoder, vectors, &tile)?,
            None => code_tables(decoder, &tile, layout),
        };
        Ok(Reference { group: weights.group(), tile, tables, entries, bias })
    }

    /// The logical weights.
    pub fn tile(&self) -> &RowTile {
        &self.tile
    }

    /// Expected outputs of `tokens` for the output columns of the tile: `[columns][tokens]`.
    pub fn expected(
        &self,
        x: &Activations,
        tokens: Range<u32>,
        rounding: &Rounding,
        finish: &Finish,
        columns: &[u32],
    ) -> Vec<Vec<Expected>> {
        let rows = self.sums(x, tokens.clone(), rounding, finish);
        let together = finish.epilogue().rows_per_column() as usize;
        let column = |(rows, &column): (&[Vec<Approximate>], &u32)| {
            let element = |(at, token)| {
                let sums: Vec<Approximate> = rows.iter().map(|row| row[at]).collect();
                finish.expected(&sums, token, column)
            };
            tokens.clone().enumerate().map(element).collect()
        };
        rows.chunks(together).zip(columns).map(column).collect()
    }

    /// Sums with their biases, `[rows][tokens]`.
    fn sums(
        &self,
        x: &Activations,
        tokens: Range<u32>,
        rounding: &Rounding,
        finish: &Finish,
    ) -> Vec<Vec<Approximate>> {
        let one_hot = |token: &u32| matches!(x.pattern(*token), Pattern::OneHot(_));
        let dense = !tokens.clone().all(|token| one_hot(&token));
        (0..self.tile.rows.len())
            .into_par_iter()
            .map(|index| {
                let row = self.row(index);
                let dots = if dense { Some(row.dots(rounding)) } else { None };
                let share = |token: u32| match (x.pattern(token), &dots) {
                    (Pattern::OneHot(k), _) => {
                        let (value, error) = row.one_hot(k as usize, rounding);
                        let hot = f64::from(x.token(token)[k as usize]);
                        (value * hot, error * hot)
                    }
                    (_, Some(dots)) => dots.of(x.token(token)),
                    // Without dots every token is one-hot.
                    (_, None) => (0.0, 0.0),
                };
                let sum = |token| {
                    let (value, error) = share(token);
                    let (value, error) = (value * x.unit(token), error * x.unit(token));
                    finish.biased(Approximate { value, error }, row.bias)
                };
                tokens.clone().map(sum).collect()
            })
            .collect()
    }

    fn row(&self, index: usize) -> Row<'_> {
        let k = self.entries.len() / self.tile.rows.len();
        let groups = self.tile.groups();
        let param_row = self.tile.param_row(self.tile.rows.start + index as u32);
        Row {
            entries: &self.entries[index * k..][..k],
            tables: &self.tables[param_row * groups..][..groups],
            group: self.group,
            bias: self.bias[index],
        }
    }
}

/// Tables `[rows of parameters, groups]`, and an index into them for every weight.
type Tables = (Vec<CodeTable>, Vec<u32>);

fn code_tables(decoder: &Decoder, tile: &RowTile, layout: &Layout) -> Tables {
    let rows: Vec<u32> = tile.rows.clone().collect();
    let groups = tile.groups() as u32;
    let param_rows: Vec<u32> = tile.param_rows().collect();
    let tables = param_rows
        .par_iter()
        .flat_map_iter(|&n| (0..groups).map(move |g| (n, g)))
        .map(|(n, g)| decoder.table(tile.row_params(n, g)))
        .collect();
    let entries = rows
        .par_iter()
        .flat_map_iter(|&n| {
            let codes = tile.row_codes(n).iter().zip(0..);
            codes.map(move |(&code, k)| CodeTable::index(code.into(), layout.position(n, k)))
        })
        .collect();
    (tables, entries)
}

/// A row's table is of the numbers that occur in its vectors: such formats have one group to a row.
fn vector_tables(
    decoder: &Decoder,
    vectors: &Vectors,
    tile: &RowTile,
) -> Result<Tables, VerifyError> {
    let row = |n: u32| {
        let values = vectors.row(tile.row_codes(n));
        let mut distinct = values.clone();
        distinct.sort_unstable_by(f32::total_cmp);
        distinct.dedup_by(|a, b| a.to_bits() == b.to_bits());
        let table = decoder.table_of(&distinct, tile.row_params(n, 0))?;
        let index = |value: &f32| {
            // Every value is among the distinct ones.
            let found = distinct.binary_search_by(|other| other.total_cmp(value)).unwrap_or(0);
            CodeTable::index(found as u32, 0)
        };
        Ok((table, values.iter().map(index).collect()))
    };
    let rows: Vec<(CodeTable, Vec<u32>)> =
        tile.rows.clone().into_par_iter().map(row).collect::<Result<_, VerifyError>>()?;
    let (tables, entries): (Vec<CodeTable>, Vec<Vec<u32>>) = rows.into_iter().unzip();
    Ok((tables, entries.concat()))
}

/// One output row.
struct Row<'a> {
    entries: &'a [u32],
    tables: &'a [CodeTable],
    group: usize,
    bias: f64,
}

/// Weights and error weights of a row, for activations that are mostly not zero.
struct Dots {
    weights: Vec<f64>,
    errors: Vec<f64>,
    /// What underflow may add.
    floor: f64,
}

impl Row<'_> {
    fn dots(&self, rounding: &Rounding) -> Dots {
        let relative = rounding.accumulation(u32::MAX);
        let mut dots = Dots {
            weights: Vec::with_capacity(self.entries.len()),
            errors: Vec::with_capacity(self.entries.len()),
            floor: 0.0,
        };
        for (entries, table) in self.entries.chunks(self.group).zip(self.tables) {
            let errors = table.errors(relative);
            dots.weights.extend(entries.iter().map(|&entry| table.weight(entry)));
            dots.errors.extend(entries.iter().map(|&entry| errors[entry as usize]));
            dots.floor += rounding.underflow() * entries.len() as f64 * table.sensitivity();
        }
        dots
    }

    /// Exact sum and its error for an activation of 1 at `k`: adding the zeros is exact.
    fn one_hot(&self, k: usize, rounding: &Rounding) -> (f64, f64) {
        let (table, entry) = (&self.tables[k / self.group], self.entries[k]);
        let error = table.error(entry, rounding.accumulation(1));
        (table.weight(entry), error + rounding.underflow() * table.sensitivity())
    }
}

impl Dots {
    /// Exact sum and its error. Four independent sums, so that the additions need not wait for
    /// each other.
    fn of(&self, x: &[f32]) -> (f64, f64) {
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
        (dot.iter().sum(), error.iter().sum::<f64>() + self.floor)
    }
}
