//! Which thread blocks of a full-size launch are run and checked.
//!
//! Row tiles are chosen once, token tiles per launch. The first and the last of each are always
//! among them: that is where ragged edges lie. Every partner of a chosen block is run as well, since
//! the output of a tile is only there when all who share it have finished. Under stream-K they have
//! parts of other tiles, too: those are run without being finished.

use crate::random;
use qtune_codegen::{BlockTile, Kernel, Layout, Role};
use qtune_device::Blocks;
use qtune_ir::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Matrices of at most this many weights run whole.
const WHOLE_WEIGHTS: u64 = 1 << 19;
/// Products of weights and activations that a launch of a sample may take: a fraction of a second
/// of simulation.
const SAMPLE_COST: u64 = 1 << 25;
/// Packing and tabulating a weight costs about as much as this many tokens.
const PACKING_TOKENS: u64 = 16;

/// The part of a launch that is run, and so checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Thread blocks to run, of each step of the launch.
    pub blocks: Vec<Blocks>,
    /// Output tiles that those blocks complete.
    pub tiles: Vec<OutputTile>,
    /// Row tiles that those blocks read.
    pub read: BTreeSet<u32>,
    /// Arrivals that the launch leaves behind, by counter: tiles that those blocks do not complete.
    pub arrivals: BTreeMap<u32, u32>,
    /// Output tiles' worth of steps along K that those blocks walk.
    work: f64,
    /// Thread blocks run, over those in the grid.
    pub share: f64,
}

/// How much of the output a launch completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    /// Row tiles among which the output tiles are.
    pub row_tiles: usize,
    /// Output tiles' worth of work that was done for them, and for others that it did not complete.
    pub work: f64,
}

impl Sample {
    /// What a launch of the sample completes.
    pub fn completed(&self) -> Completed {
        let rows: BTreeSet<u32> = self.tiles.iter().map(|tile| tile.row_tile).collect();
        Completed { row_tiles: rows.len(), work: self.work }
    }
}

/// A rectangle of the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OutputTile {
    /// Index of the row tile.
    pub row_tile: u32,
    /// First token.
    pub first_token: u32,
    /// One past the last token.
    pub end_token: u32,
}

impl OutputTile {
    /// Output columns of the tile in the order of its rows, cut at the edge of the problem.
    pub fn columns(&self, layout: &Layout, problem: &Problem) -> Vec<u32> {
        let tile_rows = layout.tile_rows();
        let rows = self.row_tile * tile_rows..((self.row_tile + 1) * tile_rows).min(problem.n);
        // Rows in an order of their own are columns each.
        problem.epilogue.columns(rows).map(|column| layout.feature(column)).collect()
    }

    /// Tokens of the tile.
    pub fn tokens(&self) -> Range<u32> {
        self.first_token..self.end_token
    }
}

/// Row tiles to check: all of them for a small problem, else `limit` of them. Without a limit, as
/// many as [`SAMPLE_COST`] allows, two to eight.
pub(crate) fn row_tiles(kernel: &Kernel, limit: Option<usize>, seed: u64) -> Vec<u32> {
    let count = kernel.layout.tiles();
    let k = u64::from(kernel.problem.k);
    if u64::from(kernel.problem.n) * k <= WHOLE_WEIGHTS {
        return (0..count).collect();
    }
    let (rows, tokens) = kernel.schedule.tile();
    let cost = u64::from(rows) * k * (u64::from(tokens) + PACKING_TOKENS);
    let affordable = (SAMPLE_COST / cost).clamp(2, 8) as usize;
    // A cluster runs whole.
    let shared = kernel.schedule.multicast();
    let chosen = choose(count, limit.unwrap_or(affordable), seed);
    let whole =
        chosen.into_iter().flat_map(|tile| tile / shared * shared..(tile / shared + 1) * shared);
    whole.collect::<BTreeSet<u32>>().into_iter().collect()
}

/// `limit` of `0..count`, ascending: the first, the last, and seeded others.
fn choose(count: u32, limit: usize, seed: u64) -> Vec<u32> {
    let limit = limit.max(2).min(count as usize);
    let mut chosen = BTreeSet::from([0, count - 1]);
    let mut draw = seed;
    while chosen.len() < limit {
        draw = random::mix(draw);
        chosen.insert((draw % u64::from(count)) as u32);
    }
    chosen.into_iter().collect()
}

/// The sample of a launch with `tokens` tokens that computes the given row tiles. Up to three
/// token tiles of each: the first, the last and a seeded one; all where every row tile is run. Every
/// block that contributes to one of them is among those that run: partners along K, and the blocks
/// that dequantize its rows.
pub(crate) fn sample(kernel: &Kernel, row_tiles: &[u32], tokens: u32, seed: u64) -> Sample {
    let whole = row_tiles.len() == kernel.layout.tiles() as usize;
    let token_tiles = tokens.div_ceil(kernel.schedule.tile().1);
    let kept: BTreeSet<u32> = match whole {
        true => (0..token_tiles).collect(),
        false => choose(token_tiles, 3, seed).into_iter().collect(),
    };
    let wanted: BTreeSet<u32> = row_tiles.iter().copied().collect();
    let is_wanted = |tile: &BlockTile| {
        // What dequantizes serves all tokens: the first token tile is always kept.
        let token_tile = tile.tokens.start / kernel.schedule.tile().1;
        wanted.contains(&tile.row_tile) && kept.contains(&token_tile)
    };
    let (mut blocks, mut parts, mut read) = (Vec::new(), Parts::default(), BTreeSet::new());
    let (mut run, mut total) = (0, 0);
    for step in kernel.steps(tokens) {
        if kernel.prepares(&step) || kernel.role(&step) == Role::Finish {
            // All row tiles read what it writes, or it reads what all of them wrote.
            run += step.blocks() as usize;
            total += step.blocks() as usize;
            blocks.push(Blocks::All);
            continue;
        }
        let mut own = Vec::new();
        for block in 0..step.blocks() {
            let tiles = kernel.block_tiles(&step, block, tokens);
            if !tiles.iter().any(is_wanted) {
                continue;
            }
            own.push(block);
            read.extend(tiles.iter().map(|tile| tile.row_tile));
            if kernel.is_main(&step) {
                tiles.iter().for_each(|tile| parts.add(tile));
            }
        }
        run += own.len();
        total += step.blocks() as usize;
        let all = own.len() == step.blocks() as usize;
        blocks.push(if all { Blocks::All } else { Blocks::List(own) });
    }
    let share = run as f64 / total as f64;
    parts.sample(kernel.layout.steps(), Sample { blocks, read, share, ..Sample::default() })
}

/// Parts of output tiles that blocks have, added up.
#[derive(Default)]
struct Parts {
    /// Steps along K, blocks, and the tile's counter.
    of: BTreeMap<OutputTile, (u32, u32, Option<u32>)>,
}

impl Parts {
    fn add(&mut self, part: &BlockTile) {
        let tile = OutputTile {
            row_tile: part.row_tile,
            first_token: part.tokens.start,
            end_token: part.tokens.end,
        };
        let (steps, blocks, counter) = self.of.entry(tile).or_default();
        *steps += part.steps.len() as u32;
        *blocks += 1;
        *counter = part.counter;
    }

    /// Adds what is complete to `sample`, and what is not.
    fn sample(self, whole: u32, mut sample: Sample) -> Sample {
        for (tile, (steps, blocks, counter)) in self.of {
            sample.work += f64::from(steps) / f64::from(whole);
            match counter {
                Some(counter) if steps < whole => drop(sample.arrivals.insert(counter, blocks)),
                _ => sample.tiles.push(tile),
            }
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_are_always_chosen_and_the_seed_decides_the_rest() {
        let chosen = choose(1000, 6, 1);
        assert_eq!(chosen.len(), 6);
        assert_eq!((chosen[0], chosen[5]), (0, 999));
        assert_ne!(chosen, choose(1000, 6, 2));
        assert_eq!(choose(1, 6, 1), [0]);
        assert_eq!(choose(3, 6, 1), [0, 1, 2]);
    }
}
