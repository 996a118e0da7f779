//! The factors that rules may choose from: what keeps the e-graph small.

use super::cost::L2_KEEPS;
use super::lower::{CHUNK_K, FRAGMENT_M, PIECE_K};
use crate::{Accumulate, Arch, DType, Problem, Schedule, Split, GROUP_ROWS};

/// Factor lists of one problem, each without 1 (a loop of one step is left out).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factors {
    /// Tokens per `gemv` block.
    pub tokens: Vec<u32>,
    /// 8-token tiles per `mma` block.
    pub token_tiles: Vec<u32>,
    /// 8-token columns per `wgmma` block.
    pub token_columns: Vec<u32>,
    /// Rows per `gemv` lane.
    pub rows: Vec<u32>,
    /// 16-row tiles per `mma` warp.
    pub row_tiles: Vec<u32>,
    /// 64-row tiles per warpgroup.
    pub group_row_tiles: Vec<u32>,
    /// Lanes that share a row.
    pub lanes: Vec<u32>,
    /// Warps along N.
    pub warps_n: Vec<u32>,
    /// Consumer warpgroups along N.
    pub groups: Vec<u32>,
    /// Warps along K.
    pub warps_k: Vec<u32>,
    /// Steps loaded ahead by a `gemv` lane.
    pub unroll: Vec<u32>,
    /// 64-k chunks per `mma` warp and stage.
    pub k_tiles: Vec<u32>,
    /// Stages of the ring.
    pub stages: Vec<u32>,
    /// Blocks along K.
    pub splits: Vec<u32>,
    /// Blocks of a cluster along K.
    pub clusters: Vec<u32>,
    /// Blocks of a stream-K grid.
    pub streams: Vec<u32>,
    /// Rows that are dequantized at a time.
    pub slabs: Vec<u32>,
    /// Whether half2 arithmetic computes in the type of the activations.
    pub half2: bool,
    /// Whether the arch has `mma.sync.m16n8k16`.
    pub mma: bool,
    /// Whether the arch has `wgmma` and there are tokens for more than its narrowest form.
    pub wgmma: bool,
}

/// Tokens from which dequantizing once may pay: fewer than the widest tile of any family read the
/// weights once anyway.
const SLAB_TOKENS: u32 = 512;
/// Rows of a slab are a multiple of this: the most rows that a tile derived by the rules has.
const SLAB_ROWS: u32 = 512;
/// Most rows of a slab: a schedule has no larger numbers.
const SLAB_ROWS_MAX: u32 = 1 << 16;
/// Rows that a block has at least when a grid is judged too small for the GPU.
const SPLIT_ROWS: u32 = 64;
/// Blocks per SM above which splitting K cannot help: enough to fill every SM and hide the tail.
const SPLIT_BLOCKS_PER_SM: u32 = 4;
/// Blocks per SM of a stream-K grid: one deep ring, or two whose epilogues fall to different times.
/// More are a neighbour of these.
const STREAM_RESIDENT: [u32; 2] = [1, 2];
/// Blocks of a cluster; half and twice as many are neighbours.
const CLUSTER: u32 = 4;
/// `mma.sync.m16n8k16` exists from this compute capability on (PTX ISA, `mma`, target notes).
const MMA_CAPABILITY: (u8, u8) = (8, 0);

/// The powers of two from `first` to `last`.
fn powers(first: u32, last: u32) -> Vec<u32> {
    std::iter::successors(Some(first), |f| f.checked_mul(2)).take_while(|f| *f <= last).collect()
}

/// The powers of two up to `most`, and the number of tiles that just fits.
fn with_fitting(fitting: u32, most: u32) -> Vec<u32> {
    let mut tiles = powers(2, fitting.min(most));
    tiles.extend((2..=most).contains(&fitting).then_some(fitting));
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

/// Rows of the slab that L2 keeps beside activations and outputs, and all rows at once, which fill
/// the GPU where a slab's tiles do not; none for few tokens.
fn slabs(p: &Problem, arch: &Arch) -> Vec<u32> {
    if p.m < SLAB_TOKENS {
        return Vec::new();
    }
    let whole = p.n.next_multiple_of(SLAB_ROWS).min(SLAB_ROWS_MAX);
    let kept = (arch.l2_bytes as f64 * L2_KEEPS / (2.0 * f64::from(p.k))) as u32;
    let kept = (kept / SLAB_ROWS * SLAB_ROWS).clamp(SLAB_ROWS, whole);
    let mut slabs = vec![kept, whole];
    slabs.dedup();
    slabs
}

impl Factors {
    /// Powers of two that the problem has room for, and the number of token tiles that just fits:
    /// even, as one `ldmatrix.x4` brings two.
    pub fn new(p: &Problem, arch: &Arch) -> Factors {
        let tokens = p.m.next_power_of_two();
        let tiles = p.m.div_ceil(FRAGMENT_M);
        let slabs = slabs(p, arch);
        let most = if slabs.is_empty() { 8 } else { 16 };
        let token_tiles = if tiles == 1 { 1 } else { tiles.next_multiple_of(2) };
        let token_tiles = with_fitting(token_tiles, most);
        let token_columns = with_fitting(tiles, 32);
        let pieces = p.k.div_ceil(PIECE_K).next_power_of_two();
        let chunks = p.k.div_ceil(CHUNK_K).next_power_of_two();
        let room = SPLIT_BLOCKS_PER_SM * arch.sm_count / p.n.div_ceil(SPLIT_ROWS);
        let splits = powers(2, chunks.min(2 * room).min(8));
        Factors {
            tokens: powers(2, tokens.min(4)),
            token_tiles,
            token_columns,
            rows: powers(2, p.n.min(4)),
            row_tiles: powers(2, (p.n / 16).min(4)),
            group_row_tiles: powers(2, (p.n / GROUP_ROWS).min(2)),
            lanes: powers(4, pieces.min(32)),
            warps_n: powers(2, p.n.min(8)),
            groups: powers(2, (p.n / GROUP_ROWS).min(2)),
            warps_k: powers(2, chunks.min(8)),
            unroll: powers(2, pieces.min(4)),
            k_tiles: powers(2, chunks.min(4)),
            stages: vec![2, 3, 4, 6],
            clusters: if splits.contains(&CLUSTER) && arch.has_clusters() {
                vec![CLUSTER]
            } else {
                vec![]
            },
            splits,
            streams: STREAM_RESIDENT.iter().map(|blocks| blocks * arch.sm_count).collect(),
            slabs,
            half2: p.act == DType::F16,
            mma: arch.capability >= MMA_CAPABILITY,
            wgmma: arch.has_wgmma() && tiles > 1,
        }
    }

    /// Only the factors of one schedule: its derivation needs no others.
    pub fn of(schedule: &Schedule) -> Factors {
        let one = |factor: u32| if factor > 1 { vec![factor] } else { vec![] };
        let split = match schedule.split() {
            Split::Blocks(blocks) => one(blocks),
            Split::Cluster(_) | Split::Stream(_) => vec![],
        };
        let mut f = Factors {
            tokens: vec![],
            token_tiles: vec![],
            token_columns: vec![],
            rows: vec![],
            row_tiles: vec![],
            group_row_tiles: vec![],
            lanes: vec![],
            warps_n: vec![],
            groups: vec![],
            warps_k: vec![],
            unroll: vec![],
            k_tiles: vec![],
            stages: vec![],
            splits: split,
            clusters: schedule.split().cluster().into_iter().collect(),
            streams: schedule.split().stream().into_iter().collect(),
            slabs: vec![],
            half2: false,
            mma: false,
            wgmma: false,
        };
        match schedule {
            Schedule::Gemv(s) => {
                f.tokens = one(s.tokens);
                f.rows = one(s.rows);
                f.lanes = one(s.lanes);
                (f.warps_n, f.warps_k) = (one(s.warps_n), one(s.warps_k));
                f.unroll = one(s.unroll);
                f.half2 = s.accumulate == Accumulate::Half2;
            }
            Schedule::Mma(s) => {
                f.token_tiles = one(s.token_tiles());
                f.row_tiles = one(s.row_tiles());
                (f.warps_n, f.warps_k) = (one(s.warps_n), one(s.warps_k));
                f.k_tiles = one(s.warp_k() / CHUNK_K);
                f.stages = one(s.stages);
                f.mma = true;
            }
            Schedule::Wgmma(s) => {
                f.token_columns = one(s.block_m / FRAGMENT_M);
                f.group_row_tiles = one(s.row_tiles());
                f.groups = one(s.groups);
                f.k_tiles = one(s.block_k / CHUNK_K);
                f.stages = one(s.stages);
                f.wgmma = true;
            }
            Schedule::Dequant(s) => {
                let gemm = s.gemm.own().map_or(f, |own| Factors::of(&own));
                f = Factors { slabs: vec![s.slab], ..gemm };
            }
        }
        f
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(key: &str) -> Factors {
        Factors::new(&key.parse().unwrap(), &Arch::named("h200").unwrap())
    }

    #[test]
    fn a_single_token_is_not_tiled_and_a_large_grid_is_not_split() {
        let f = factors("w4a16.awq-g128.f16-f16.n55296.k5120.m1");
        assert!(f.tokens.is_empty() && f.token_tiles.is_empty() && f.splits.is_empty());
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n5120.k5120.m1").splits, [2, 4, 8]);
    }

    #[test]
    fn the_number_of_token_tiles_that_just_fits_is_among_the_factors() {
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n5120.k5120.m24").token_tiles, [2, 4]);
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n5120.k5120.m48").token_tiles, [2, 4, 6]);
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n5120.k5120.m64").token_tiles, [2, 4, 8]);
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n5120.k5120.m65").token_tiles, [2, 4, 8]);
    }

    #[test]
    fn a_short_row_has_no_room_for_many_lanes() {
        assert_eq!(factors("w4a16.awq-g128.f16-f16.n64.k128.m1").lanes, [4]);
    }
}
