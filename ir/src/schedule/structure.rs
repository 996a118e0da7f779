//! What schedules have in common that differ in depth, memory and arithmetic alone.

use super::{Family, Schedule, Split};

/// How a kernel is built: a cost model that misjudges one schedule of a structure mostly misjudges
/// all of them, so a search that is to survive the model's errors keeps several structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Structure {
    /// The kernel family.
    pub family: Family,
    /// How thread blocks share the k of a tile.
    pub sharing: Sharing,
    /// Rows and tokens of a block's output tile.
    pub tile: (u32, u32),
}

/// The kinds of [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sharing {
    /// A block has its tile to itself.
    Alone,
    /// Partial sums meet in global memory.
    Global,
    /// Partial sums meet in a cluster's shared memory.
    Cluster,
    /// Stream-K.
    Stream,
}

impl Schedule {
    /// What the kernel of this schedule is built like.
    pub fn structure(&self) -> Structure {
        let sharing = match self.split() {
            Split::NONE => Sharing::Alone,
            Split::Blocks(_) => Sharing::Global,
            Split::Cluster(_) => Sharing::Cluster,
            Split::Stream(_) => Sharing::Stream,
        };
        Structure { family: self.family(), sharing, tile: self.tile() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(words: &str) -> Structure {
        let text = format!("mma {words} pad=16 raster=rows dequant=(sum x)");
        text.parse::<Schedule>().unwrap().structure()
    }

    #[test]
    fn depth_and_the_number_of_blocks_do_not_matter_and_where_they_meet_does() {
        let of = |split: &str| structure(&format!("tile=16x64x256 warps=1x4 stages=4 {split}"));
        assert_eq!(of("split=2"), structure("tile=16x64x128 warps=2x2 stages=3 split=8"));
        let kinds = ["split=1", "split=2", "split=2@cluster", "split=stream:132"];
        let distinct: std::collections::BTreeSet<_> = kinds.into_iter().map(of).collect();
        assert_eq!(distinct.len(), kinds.len());
        assert_ne!(of("split=2"), structure("tile=16x128x256 warps=1x4 stages=4 split=2"));
    }
}
