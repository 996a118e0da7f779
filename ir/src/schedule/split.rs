//! How thread blocks share the work along K.

use super::{require, Rejected};
use crate::Arch;
use std::fmt;
use std::ops::Range;

/// How thread blocks share the k of output tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// `split=N`: every output tile is shared by this many blocks, 1 for none.
    Blocks(u32),
    /// `split=N@cluster`: the same, but that the blocks are a cluster, whose partial sums meet in
    /// distributed shared memory.
    Cluster(u32),
    /// `split=stream:N`: stream-K (Osama et al., "Stream-K: Work-centric Parallel Decomposition for
    /// Dense Matrix-Matrix Multiplication on the GPU", PPoPP 2023). A grid of this many blocks deals
    /// the steps of all tiles out evenly: see [`Shares`].
    Stream(u32),
}

/// Most blocks of a stream-K grid: more than any GPU has room for.
const MOST_BLOCKS: u32 = 1 << 14;
/// What the value of a `split=` word begins with under stream-K.
const STREAM: &str = "stream:";
/// What it ends with where the blocks are a cluster.
const CLUSTER: &str = "@cluster";
/// Blocks of a cluster that every GPU with clusters takes (CUDA C++ Programming Guide, "Thread Block
/// Clusters").
pub(super) const MOST_CLUSTER: u32 = 8;

impl Split {
    /// A block has an output tile to itself.
    pub const NONE: Split = Split::Blocks(1);

    /// Thread blocks that share every output tile; 1 under stream-K, where only those tiles are
    /// shared in which one block's share ends and the next one's begins.
    #[must_use]
    pub fn per_tile(self) -> u32 {
        match self {
            Split::Blocks(blocks) | Split::Cluster(blocks) => blocks,
            Split::Stream(_) => 1,
        }
    }

    /// Blocks of a stream-K grid.
    #[must_use]
    pub fn stream(self) -> Option<u32> {
        match self {
            Split::Stream(blocks) => Some(blocks),
            Split::Blocks(_) | Split::Cluster(_) => None,
        }
    }

    /// Blocks of a cluster.
    #[must_use]
    pub fn cluster(self) -> Option<u32> {
        match self {
            Split::Cluster(blocks) => Some(blocks),
            Split::Blocks(_) | Split::Stream(_) => None,
        }
    }

    /// Whether partial sums meet in global memory, which takes a workspace.
    #[must_use]
    pub fn in_global(self) -> bool {
        !matches!(self, Split::NONE | Split::Cluster(_))
    }

    /// From the value of a `split=` word; `None` if it is none.
    pub(super) fn parse(word: &str) -> Option<Split> {
        let number = |text: &str| text.parse().ok().filter(|n| (1..=1 << 16).contains(n));
        match (word.strip_prefix(STREAM), word.strip_suffix(CLUSTER)) {
            (Some(blocks), _) => number(blocks).map(Split::Stream),
            (_, Some(blocks)) => number(blocks).map(Split::Cluster),
            (None, None) => number(word).map(Split::Blocks),
        }
    }

    /// Whether `tiles` output tiles of `steps` steps along K can be shared like this.
    pub(super) fn check(self, tiles: u64, steps: u32, arch: &Arch) -> Result<(), Rejected> {
        match self {
            Split::Cluster(blocks) => {
                require(arch.has_clusters(), || {
                    format!("clusters need compute capability 9.0, {} has less", arch.target())
                })?;
                require((2..=steps.min(MOST_CLUSTER)).contains(&blocks), || {
                    format!("a cluster of {blocks} blocks, not 2 to {MOST_CLUSTER}, for {steps} k tiles")
                })
            }
            Split::Blocks(blocks) => require((1..=steps.min(16)).contains(&blocks), || {
                format!("{blocks} splits of {steps} k tiles")
            }),
            Split::Stream(blocks) => {
                let most = (tiles * u64::from(steps)).min(MOST_BLOCKS.into());
                require((1..=most).contains(&blocks.into()), || {
                    format!("stream-K over {blocks} blocks, not 1 to {most}")
                })
            }
        }
    }
}

/// The value of a `split=` word.
impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Split::Blocks(blocks) => blocks.fmt(f),
            Split::Cluster(blocks) => write!(f, "{blocks}{CLUSTER}"),
            Split::Stream(blocks) => write!(f, "{STREAM}{blocks}"),
        }
    }
}

/// How a stream-K grid shares its work. The steps of all output tiles, one tile after the other,
/// are dealt to the blocks in contiguous shares of equal length; the first few are one step longer.
/// A block so walks the end of one tile, whole tiles, and the beginning of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Blocks of the grid: no more than there are steps.
    pub blocks: u32,
    /// Steps of all tiles.
    total: u64,
    /// Steps of one tile.
    steps: u32,
}

impl Shares {
    /// The shares of `blocks` blocks, or of as many as there are steps, in `tiles` output tiles of
    /// `steps` steps along K. None of the three is 0.
    #[must_use]
    pub fn new(blocks: u32, tiles: u64, steps: u32) -> Shares {
        let total = tiles * u64::from(steps);
        Shares { blocks: total.min(blocks.into()) as u32, total, steps }
    }

    /// Steps of every share, and how many of the first shares have one more.
    fn even(&self) -> (u64, u64) {
        (self.total / u64::from(self.blocks), self.total % u64::from(self.blocks))
    }

    /// Steps of the longest share.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.total.div_ceil(self.blocks.into())
    }

    /// A block's steps among those of all tiles.
    #[must_use]
    pub fn of(&self, block: u32) -> Range<u64> {
        let (even, longer) = self.even();
        let first = |block: u64| block * even + block.min(longer);
        first(block.into())..first(u64::from(block) + 1)
    }

    /// The tiles that a block contributes to, each with its steps of it.
    pub fn tiles(&self, block: u32) -> impl Iterator<Item = (u64, Range<u32>)> {
        let (share, steps) = (self.of(block), u64::from(self.steps));
        let tiles = share.start / steps..share.end.div_ceil(steps);
        tiles.map(move |tile| {
            let inside = |step: u64| (step.max(tile * steps) - tile * steps).min(steps) as u32;
            (tile, inside(share.start)..inside(share.end))
        })
    }

    /// Most blocks that share one tile.
    #[must_use]
    pub fn most_partners(&self) -> u32 {
        let (even, _) = self.even();
        let partners = u64::from(self.steps - 1).div_ceil(even.max(1)) + 1;
        partners.min(self.blocks.into()) as u32
    }

    /// Most parts of tiles that are not whole: one more than there are blocks for every tile that
    /// blocks share, two to a block.
    #[must_use]
    pub fn most_parts(&self) -> u64 {
        let blocks = u64::from(self.blocks);
        (2 * blocks).min(blocks - 1 + self.total / u64::from(self.steps))
    }

    /// Most tiles that a block contributes to.
    #[must_use]
    pub fn most_tiles(&self) -> u64 {
        (self.longest() - 1).div_ceil(self.steps.into()) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_step_of_every_tile_is_in_one_share(
            blocks in 1u32..40,
            tiles in 1u64..30,
            steps in 1u32..20,
        ) {
            let (shares, per_tile) = (Shares::new(blocks, tiles, steps), steps as usize);
            let mut next = vec![0; tiles as usize];
            let (mut partners, mut parts) = (vec![0; tiles as usize], 0);
            for block in 0..shares.blocks {
                let own: Vec<_> = shares.tiles(block).collect();
                prop_assert!(own.len() as u64 <= shares.most_tiles());
                let length: u64 = own.iter().map(|(_, steps)| steps.len() as u64).sum();
                prop_assert!(length <= shares.longest() && length + 1 >= shares.longest());
                for (tile, steps) in own {
                    prop_assert!(!steps.is_empty());
                    prop_assert_eq!(steps.start, next[tile as usize]);
                    next[tile as usize] = steps.end;
                    partners[tile as usize] += 1;
                    parts += u64::from(steps.len() < per_tile);
                }
            }
            prop_assert!(next.iter().all(|end| *end == steps));
            prop_assert!(parts <= shares.most_parts());
            prop_assert!(partners.iter().all(|count| *count <= shares.most_partners()));
        }
    }

    #[test]
    fn a_share_may_end_in_the_middle_of_a_tile() {
        let shares = Shares::new(4, 5, 8);
        let own: Vec<_> = shares.tiles(1).collect();
        assert_eq!(own, [(1, 2..8), (2, 0..4)]);
        assert_eq!(Shares::new(100, 5, 8).blocks, 40, "a block has a step at least");
    }

    #[test]
    fn words_say_how_many_blocks_share_what() {
        for split in [Split::NONE, Split::Blocks(4), Split::Cluster(8), Split::Stream(264)] {
            assert_eq!(Split::parse(&split.to_string()), Some(split));
        }
        for wrong in ["0", "stream", "stream:", "stream:0", "stream:70000", "@cluster", "x"] {
            assert_eq!(Split::parse(wrong), None, "{wrong}");
        }
    }
}
