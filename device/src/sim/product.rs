//! A library's multiplication of a slab, in plain f32 on the host: what the step means, whatever order a
//! library adds in. Only the output tiles that are asked for are computed.

use crate::product::{Operands, Place};
use crate::{Blocks, Grid, LaunchOutcome};
use qtune_codegen::SlabProduct;
use qtune_ir::{DType, LibraryGemm};
use qtune_sim::{BufferId, Memory, SimError};
use rayon::prelude::*;
use std::ops::Range;

/// Sums that run beside each other, so that the compiler makes vectors of them.
const LANES: usize = 16;

/// Elements in a buffer of the simulator: the buffer, its name, and the byte at which the first lies.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    id: BufferId,
    place: Place<'a>,
    element: DType,
}

/// The operands of a multiplication, found in the simulator's memory.
pub(super) struct Matrices<'a> {
    product: &'a SlabProduct,
    tokens: u32,
    rows: Range<u32>,
    slab: Matrix<'a>,
    activations: Matrix<'a>,
    bias: Option<Matrix<'a>>,
    residual: Option<Matrix<'a>>,
    output: Matrix<'a>,
}

impl<'a> Matrices<'a> {
    /// Finds the operands; `id` is asked for the number of a buffer.
    pub fn new<E>(
        product: &'a SlabProduct,
        operands: Operands<'a>,
        id: impl Fn(Place<'a>) -> Result<BufferId, E>,
    ) -> Result<Matrices<'a>, E> {
        let matrix = |element| {
            let id = &id;
            move |place: Place<'a>| Ok(Matrix { id: id(place)?, place, element })
        };
        let (input, output) = (matrix(product.input), matrix(product.output));
        Ok(Matrices {
            product,
            tokens: operands.tokens,
            rows: operands.rows,
            slab: input(operands.slab)?,
            activations: input(operands.activations)?,
            bias: operands.bias.map(&output).transpose()?,
            residual: operands.residual.map(&output).transpose()?,
            output: output(operands.output)?,
        })
    }

    /// Computes the output tiles of `grid`: token tiles along x, row tiles along y. `alone` is for a caller
    /// that must not wait for other rayon tasks.
    pub fn run(
        &self,
        grid: &Grid<'_>,
        memory: &mut Memory,
        alone: bool,
    ) -> Result<LaunchOutcome, SimError> {
        let all = grid.size.iter().product();
        let blocks: Vec<u32> = match &grid.blocks {
            Blocks::All => (0..all).collect(),
            Blocks::List(blocks) => blocks.clone(),
        };
        let mut host = Host { memory, findings: Vec::new(), alone };
        for block in &blocks {
            self.tile(block / grid.size[0], block % grid.size[0], &mut host)?;
        }
        Ok(LaunchOutcome {
            findings: host.findings,
            blocks_run: blocks.len() as u64,
            blocks_total: u64::from(all),
            ..LaunchOutcome::default()
        })
    }

    fn tile(&self, row_tile: u32, token_tile: u32, host: &mut Host<'_>) -> Result<(), SimError> {
        let SlabProduct { n, k, slab_row, .. } = *self.product;
        let cut = |tile: u32, size: u32, end: u32| tile * size..((tile + 1) * size).min(end);
        let slab_rows = cut(row_tile, LibraryGemm::ROWS, self.rows.len() as u32);
        let tokens = cut(token_tile, LibraryGemm::TOKENS, self.tokens);
        let first = self.rows.start + slab_rows.start;
        let columns = slab_rows.len() as u32;
        let mut rows_of = |matrix: &Matrix<'_>, rows: Range<u32>, pitch: u32, start, count| {
            let row = |row: u32| host.read(matrix, row as usize * pitch as usize + start, count);
            rows.map(row).collect::<Result<Vec<_>, _>>()
        };
        let weights = rows_of(&self.slab, slab_rows, slab_row, 0, k)?;
        let x = rows_of(&self.activations, tokens.clone(), k, 0, k)?;
        let bias = match &self.bias {
            Some(bias) => rows_of(bias, 0..1, 0, first as usize, columns)?.concat(),
            None => vec![0.0; columns as usize],
        };
        let residual = match &self.residual {
            Some(residual) => rows_of(residual, tokens.clone(), n, first as usize, columns)?,
            None => vec![vec![0.0; columns as usize]; tokens.len()],
        };
        let of_token = |(x, residual): (&Vec<f32>, &Vec<f32>)| -> Vec<f32> {
            let sums = weights.iter().map(|row| dot(x, row)).zip(residual).zip(&bias);
            sums.map(|((sum, residual), bias)| sum + residual + bias).collect()
        };
        let results: Vec<Vec<f32>> = match host.alone {
            true => x.iter().zip(&residual).map(of_token).collect(),
            false => x.par_iter().zip(&residual).map(of_token).collect(),
        };
        for (token, row) in tokens.zip(&results) {
            host.write(&self.output, token as usize * n as usize + first as usize, row)?;
        }
        Ok(())
    }
}

/// The sum of products in f32, in an order that is always the same.
fn dot(x: &[f32], row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = x.len() / LANES * LANES;
    for (x, row) in x[..whole].chunks_exact(LANES).zip(row.chunks_exact(LANES)) {
        for (lane, (x, row)) in lanes.iter_mut().zip(x.iter().zip(row)) {
            *lane += x * row;
        }
    }
    let rest = x[whole..].iter().zip(&row[whole..]).map(|(x, row)| x * row);
    rest.fold(lanes.iter().sum(), |sum, product| sum + product)
}

/// The simulator's memory as the host sees it, and what it misses there.
struct Host<'a> {
    memory: &'a mut Memory,
    findings: Vec<String>,
    /// Whether only this thread may work.
    alone: bool,
}

impl Host<'_> {
    /// `count` elements from number `start` on.
    fn read(
        &mut self,
        matrix: &Matrix<'_>,
        start: usize,
        count: u32,
    ) -> Result<Vec<f32>, SimError> {
        let size = matrix.element.bytes() as usize;
        let (offset, bytes) = (matrix.place.1 + start * size, count as usize * size);
        let found = self.memory.read(matrix.id, offset, bytes)?;
        if !self.memory.is_defined(matrix.id, offset..offset + bytes) {
            let name = matrix.place.0.name();
            let finding = format!("the library reads undefined bytes of `{name}`");
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        Ok(matrix.element.decode(&found))
    }

    fn write(&mut self, matrix: &Matrix<'_>, start: usize, row: &[f32]) -> Result<(), SimError> {
        let offset = matrix.place.1 + start * matrix.element.bytes() as usize;
        self.memory.write(matrix.id, offset, &matrix.element.encode(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_is_part_of_the_sum_whatever_the_length() {
        for length in [1, 15, 16, 17, 33, 64] {
            let x: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let ones = vec![1.0; length];
            assert_eq!(dot(&x, &ones), (length * (length - 1) / 2) as f32);
        }
    }
}
