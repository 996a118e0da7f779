//! Act-order: columns of the weights are stored sorted by quant group, and activations, which
//! arrive by input feature, have to be put into that order.

use super::{require, Rejected, Schedule};
use crate::{Problem, WeightSpec};

/// Most columns of an act-order layer: the place of a feature has 16 bits.
const MOST_COLUMNS: u32 = 1 << 16;

/// Who puts the activations into the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sorting {
    /// Nobody: columns are in the order of the features.
    None,
    /// A function of its own that runs first. What multiplies then reads 16 bytes at a time, or by
    /// tensor copies, as it always does.
    Step,
    /// A function of its own that rotates them first: see [`WeightSpec::is_rotated`].
    Rotation,
    /// Each block, while it stages its activations in shared memory and its first weights are on their
    /// way to L2: one launch, but every block reads the order.
    Prologue,
}

/// Parts of a token's features, each of which a thread block of [`Mover::Slices`] moves. Few, so that
/// what a part has of a quant group, which lies together in the order, fills sectors; enough to keep a GPU
/// busy with 16 tokens.
const SLICES: u32 = 8;
/// Thread blocks that take slices, about as many as SMs: more tokens to a block load the order less often.
const SLICE_BLOCKS: u32 = 128;
/// Most activations of such a block: 32 KB of shared memory.
const SLICE_ACTIVATIONS: u32 = 1 << 14;
/// Most tokens of which slices are moved.
const SLICED_TOKENS: u32 = 64;
/// Most columns that a block of [`Mover::Rows`] has in shared memory: 64 KB.
const ROW_COLUMNS: u32 = 1 << 15;
/// Most columns of [`Mover::Pairs`]: 96 KB of two tokens.
const PAIR_COLUMNS: u32 = 3 << 13;
/// Activations of a 16-byte access.
const PIECE: u32 = 8;
/// Most threads of a block of [`Mover::Slices`]: 2048 features are 8 for each.
const SLICE_THREADS_MAX: u32 = 256;
/// Most threads of a block of [`Mover::Rows`]: 8192 features are a load each.
const ROW_THREADS_MAX: u32 = 1024;

/// How the step of [`Sorting::Step`] moves activations. In both ways random places are in shared memory,
/// where they cost few wavefronts; in global memory they would be a sector of 32 bytes for each activation of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// Up to 64 tokens: a block loads [`sorted_slice`] features of this many tokens, and stores them in the
    /// order of their columns, run by run.
    Slices(u32),
    /// Tokens enough for a block each: it loads a token whole, and stores this many columns of it in whole pieces.
    Rows(u32),
    /// Tokens enough for a block to each two, whose activations are a word together: half as many places to scatter to,
    /// and the order is loaded half as often.
    Pairs,
}

impl Mover {
    /// The better one for a problem.
    pub fn of(p: &Problem) -> Mover {
        if p.m <= SLICED_TOKENS {
            let room = SLICE_ACTIVATIONS / sorted_slice(p.k);
            return Mover::Slices((p.m * SLICES).div_ceil(SLICE_BLOCKS).min(room).max(1));
        }
        if p.m > SLICE_BLOCKS && p.k <= PAIR_COLUMNS {
            return Mover::Pairs;
        }
        let parts = p.k.div_ceil(ROW_COLUMNS);
        Mover::Rows(p.k.div_ceil(PIECE * parts) * PIECE)
    }

    /// Threads of a block, for `k` features.
    pub fn threads(self, k: u32) -> u32 {
        let (pieces, most) = match self {
            Mover::Slices(_) => (sorted_slice(k) / PIECE, SLICE_THREADS_MAX),
            Mover::Rows(_) | Mover::Pairs => (k / PIECE, ROW_THREADS_MAX),
        };
        pieces.next_multiple_of(32).min(most)
    }

    /// Whether a block has as many threads as blocks can have. For two of them on an SM the compiler keeps to 32
    /// registers, and spills.
    pub fn fills_block(self, k: u32) -> bool {
        self.threads(k) == ROW_THREADS_MAX
    }

    /// Activations that a block has in shared memory, of `k` features.
    pub fn staged(self, k: u32) -> u32 {
        match self {
            Mover::Slices(tokens) => sorted_slice(k) * tokens,
            Mover::Rows(columns) => columns,
            Mover::Pairs => 2 * k,
        }
    }

    /// Thread blocks that move `tokens` tokens of `k` features, and parts of the features.
    pub fn blocks(self, tokens: u32, k: u32) -> [u32; 2] {
        match self {
            Mover::Slices(together) => [tokens.div_ceil(together), k.div_ceil(sorted_slice(k))],
            Mover::Rows(columns) => [tokens, k.div_ceil(columns)],
            Mover::Pairs => [tokens.div_ceil(2), 1],
        }
    }
}

/// Features of a slice, in whole 16-byte pieces.
pub fn sorted_slice(k: u32) -> u32 {
    k.div_ceil(PIECE * SLICES) * PIECE
}

impl Schedule {
    /// Who sorts the activations of a layer: staging sorts on the way unless the schedule says
    /// otherwise, all else has it done before.
    pub fn sorting(&self, spec: &WeightSpec) -> Sorting {
        match self {
            _ if spec.is_rotated() => Sorting::Rotation,
            _ if !spec.act_order => Sorting::None,
            Schedule::Gemv(s) if s.stage_x && !s.sorted_ahead => Sorting::Prologue,
            _ => Sorting::Step,
        }
    }
}

/// What sorting needs of a problem.
pub(super) fn check(p: &Problem, spec: &WeightSpec) -> Result<(), Rejected> {
    require(!spec.act_order || p.k <= MOST_COLUMNS, || {
        format!("K = {}; act-order layers have at most {MOST_COLUMNS} columns", p.k)
    })?;
    require(!spec.act_order || p.act.bytes() == 2, || {
        format!("{} activations; those of act-order layers have 16 bits", p.act)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::{awq, h200, problem};

    const STAGED: &str =
        "gemv tokens=1 rows=1 lanes=8 warps=1x4 unroll=1 split=1 x=shared acc=half2 \
                          cache=stream dequant=(sum x)";

    #[test]
    fn staging_sorts_and_all_else_is_sorted_before() {
        let spec = WeightSpec { act_order: true, ..awq() };
        let sorting =
            |text: &str, spec: &WeightSpec| text.parse::<Schedule>().unwrap().sorting(spec);
        let unstaged = STAGED.replace("x=shared", "x=global");
        let ahead = STAGED.replace("x=shared", "x=sorted");
        assert_eq!(sorting(STAGED, &spec), Sorting::Prologue);
        assert_eq!(sorting(&unstaged, &spec), Sorting::Step);
        assert_eq!(sorting(&ahead, &spec), Sorting::Step);
        let refused =
            ahead.parse::<Schedule>().unwrap().check(&problem(64, 4096, 1), &awq(), &h200());
        assert!(refused.unwrap_err().reason.contains("x=sorted"));
        assert_eq!(sorting(&unstaged, &awq()), Sorting::None);
    }

    #[test]
    fn slices_are_whole_pieces_and_hold_every_feature() {
        for k in [8, 72, 8192, 27648, 1 << 16] {
            let slice = sorted_slice(k);
            assert!(slice % PIECE == 0 && k.div_ceil(slice) <= SLICES, "{k}");
        }
    }

    #[test]
    fn blocks_take_more_tokens_once_there_are_enough_of_them_then_one_whole() {
        let mover = |k, m| Mover::of(&problem(64, k, m));
        let slices = [1, 16, 32, 33, 64].map(|m| mover(4096, m));
        assert_eq!(slices, [1, 1, 2, 3, 4].map(Mover::Slices));
        assert_eq!(mover(1 << 16, 64), Mover::Slices(2), "as many as have room");
        assert_eq!(mover(4096, 128), Mover::Rows(4096));
        assert_eq!(mover(4096, 129), Mover::Pairs);
        assert_eq!(mover(27648, 1024), Mover::Rows(27648), "two have no room");
        assert_eq!(mover(1 << 16, 1024), Mover::Rows(ROW_COLUMNS));
    }

    #[test]
    fn places_beyond_16_bits_are_refused() {
        let spec = WeightSpec { act_order: true, ..awq() };
        let schedule: Schedule = STAGED.replace("x=shared", "x=global").parse().unwrap();
        schedule.check(&problem(64, 1 << 16, 1), &spec, &h200()).unwrap();
        let refused = schedule.check(&problem(64, 1 << 17, 1), &spec, &h200()).unwrap_err();
        assert!(refused.reason.contains("65536 columns"), "{refused}");
        schedule.check(&problem(64, 1 << 17, 1), &awq(), &h200()).unwrap();
    }
}
