//! The ladders of the families: schedules without terms, from the shape that suits most problems down to the one that
//! asks for least.

use qtune_ir::dequant::PairTable;
use qtune_ir::{
    Accumulate, Arch, DType, DenseGemm, DequantSchedule, Family, GemvSchedule, MmaSchedule,
    Overlap, Problem, Producer, Raster, Schedule, Split, WeightCache, WeightSpec, WgmmaSchedule,
    PAIR_CODES, PIECE_CODES,
};

/// Most tokens of a thread block of `gemv`.
pub(super) const GEMV_TILE: u32 = 2;
/// Thread blocks per SM that a grid should have before K is split.
const BLOCKS_PER_SM: u32 = 2;

/// Stages that fill a ring: the least that a part of K has.
const PART_STEPS: u32 = 4;

/// Part of L2 that a slab fills, as a divisor.
const SLAB_OF_L2: u64 = 4;

/// Most rows of a slab.
const SLAB_ROWS_MAX: u32 = 16384;

pub(super) fn ladder(
    family: Family,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Vec<Schedule> {
    match family {
        Family::Gemv => gemv_ladder(problem, spec),
        Family::Mma => mma_ladder(problem, spec, arch),
        Family::Wgmma => wgmma_ladder(problem, spec, arch),
        Family::Dequant => dequant_ladder(problem, arch),
    }
}

/// The widest tiles of the family that the GPU multiplies with, slab by slab. Narrower k tiles than
/// those of codes: a float takes four times the room.
fn dequant_ladder(problem: &Problem, arch: &Arch) -> Vec<Schedule> {
    let mut ladder = Vec::new();
    for gemm in dense_rungs(problem, arch).into_iter().filter_map(DenseGemm::of) {
        let slab = slab_rows(&gemm, problem, arch);
        ladder.push(Schedule::Dequant(DequantSchedule { slab, gemm }));
    }
    ladder
}

/// As many whole row tiles as fill a part of L2.
pub(super) fn slab_rows(gemm: &DenseGemm, problem: &Problem, arch: &Arch) -> u32 {
    let (block_n, _) = gemm.tile();
    let row = u64::from(gemm.padded_k(problem.k)) * 2;
    let fitting = (arch.l2_bytes / SLAB_OF_L2 / row) as u32;
    let most = problem.n.next_multiple_of(block_n).min(SLAB_ROWS_MAX / block_n * block_n);
    (fitting / block_n * block_n).clamp(block_n, most)
}

/// Multiplications of floats: deep rings first.
fn dense_rungs(problem: &Problem, arch: &Arch) -> Vec<Schedule> {
    let mut rungs = Vec::new();
    let raster = |block_m| if problem.m > block_m { Raster::Tokens } else { Raster::Rows };
    let block_m = problem.m.next_multiple_of(8).min(256);
    for (block_n, stages) in [(256, 2), (128, 3), (128, 2)] {
        if !arch.has_wgmma() {
            break;
        }
        rungs.push(Schedule::Wgmma(WgmmaSchedule {
            block_m: if block_n == 256 { block_m.min(128) } else { block_m },
            block_n,
            block_k: 128,
            groups: 2,
            stages,
            split: Split::NONE,
            producer: Producer::Group,
            raster: raster(block_m),
            multicast: 1,
            overlap: Overlap::NONE,
            dequant: String::new(),
        }));
    }
    let block_m = if problem.m <= 8 { 8 } else { problem.m.next_multiple_of(16).min(128) };
    let shapes = [(256, 8, 3), (256, 8, 2), (128, 4, 3), (128, 4, 2), (64, 2, 2), (16, 1, 2)];
    for (block_n, warps_n, stages) in shapes {
        rungs.push(Schedule::Mma(MmaSchedule {
            block_m,
            block_n,
            block_k: 64,
            warps_n,
            warps_k: 1,
            stages,
            split: Split::NONE,
            padded: true,
            raster: raster(block_m),
            overlap: Overlap::NONE,
            dequant: String::new(),
        }));
    }
    rungs
}

/// Wide rows first, and several that share the loads of activations: fewer lanes per row serve short K
/// and small quant groups.
fn gemv_ladder(problem: &Problem, spec: &WeightSpec) -> Vec<Schedule> {
    // Half sums of wide codes overflow: then f32 takes over.
    let accumulate = match problem.act {
        DType::F16 => [Accumulate::Half2, Accumulate::F32].as_slice(),
        DType::Bf16 | DType::F32 => &[Accumulate::F32],
    };
    // Blocks that stage many activations or hold a table are few per SM: they need more warps to have
    // enough loads in flight.
    let table = if spec.codebook.values().is_empty() { 0 } else { PairTable::PAGED.bytes() };
    let warps_n = match problem.m.min(GEMV_TILE) * problem.k * problem.act.bytes() + table {
        0..=32768 => 2,
        32769..=65536 => 4,
        _ => 8,
    };
    // Vectors of two codebooks for two steps are more than fit registers.
    let unroll = 2 / spec.codebook.vectors().map_or(1, |codes| codes.books());
    let mut ladder = Vec::new();
    let staging =
        accumulate.iter().flat_map(|accumulate| [(*accumulate, true), (*accumulate, false)]);
    for (accumulate, stage_x) in staging {
        let rung = |rows, lanes, (warps_n, warps_k)| {
            Schedule::Gemv(GemvSchedule {
                tokens: problem.m.min(GEMV_TILE),
                rows,
                lanes,
                warps_n,
                warps_k,
                unroll,
                split: Split::NONE,
                stage_x,
                sorted_ahead: false,
                accumulate,
                cache: WeightCache::NoAllocate,
                overlap: Overlap::NONE,
                dequant: String::new(),
            })
        };
        ladder.extend(unpadded(problem.k, spec).map(|(lanes, warps)| rung(4, lanes, warps)));
        for (rows, lanes) in [(4, 32), (2, 32), (2, 16), (2, 8), (2, 4), (2, 2), (2, 1)] {
            let warps = [(warps_n, 2), (4, 1), (1, 1)];
            ladder.extend(warps.map(|warps| rung(rows, lanes, warps)));
        }
    }
    ladder
}

/// Lanes of a row and warps along N and K where rows of K weights, padded to whole steps of a full
/// warp, would be more than half a percent longer: the most lanes that pad less. Fewer weights to a
/// warp's step take more warps along K for as many loads in flight; a lane that loads twice for codes of
/// more than 4 bits takes half of them, and has registers for both loads.
fn unpadded(k: u32, spec: &WeightSpec) -> Option<(u32, (u32, u32))> {
    let fits = |lanes: u32| {
        let step = lanes * PIECE_CODES;
        200 * (k.next_multiple_of(step) - k) <= k
    };
    let shapes = [(16, (4, 4)), (8, (2, if spec.bits > 4 { 4 } else { 8 }))];
    shapes.into_iter().find(|(lanes, _)| fits(*lanes)).filter(|_| !fits(32))
}

/// Most rows of a tile of many tokens whose parts meet in global memory, where the last block adds all of them
/// alone. Those of a greater tile take it longer than the multiplication: they meet in a cluster.
const MEETING_ROWS: u32 = 256;

/// Rows, k, warps along both and stages of tiles that spend few instructions per weight, the fewest
/// first: a lane has many weights to a stage, and many rows to a load of activations.
type Tile = (u32, u32, (u32, u32), u32);

fn wide_tiles(block_m: u32, spec: &WeightSpec, arch: &Arch) -> &'static [Tile] {
    match block_m {
        // Stages of whole super-blocks bring what all of its groups share once.
        9..=16 if spec.has_two_levels() => &[(256, 256, (2, 2), 3), (128, 256, (1, 2), 3)],
        17..=32 if spec.has_two_levels() => &[(256, 256, (4, 1), 3), (128, 256, (2, 1), 3)],
        33.. if spec.has_two_levels() => &[(256, 256, (8, 1), 2), (128, 256, (4, 1), 3)],
        0..=8 => &[
            (128, 512, (1, 4), 3),
            (128, 256, (1, 2), 3),
            (128, 256, (2, 2), 4),
            (64, 256, (1, 2), 4),
        ],
        9..=16 => &[(256, 256, (2, 2), 3), (256, 128, (2, 1), 3)],
        17..=32 if multiplies_apart(spec, arch) => &[(256, 128, (8, 1), 3), (128, 128, (4, 1), 4)],
        17..=32 => &[(256, 128, (4, 1), 3), (128, 128, (2, 1), 4)],
        _ => &[
            (512, 256, (8, 1), 2),
            (512, 128, (8, 1), 3),
            (256, 256, (4, 2), 2),
            (256, 128, (8, 1), 3),
            (128, 128, (4, 1), 4),
            (128, 128, (4, 1), 3),
        ],
    }
}

/// Wide tiles where they keep the GPU busy. Then deep rings of small tiles: less of everything serves
/// short K, small quant groups, narrow matrices and GPUs with less shared memory. Many tokens take
/// warps along N, so that their accumulators fit registers.
fn mma_ladder(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Vec<Schedule> {
    let block_m = match problem.m {
        0..=8 => 8,
        m => m.next_multiple_of(16).min(mma_tokens(spec, arch)),
    };
    let split_of = |block_n, blocks| match block_n > MEETING_ROWS && blocks > 1 {
        true => Split::Cluster(blocks),
        false => Split::Blocks(blocks),
    };
    let rung = |(block_n, block_k, (warps_n, warps_k), stages): Tile, split_k| {
        Schedule::Mma(MmaSchedule {
            block_m,
            block_n,
            block_k,
            warps_n,
            warps_k,
            stages,
            split: split_of(block_n, split_k),
            padded: true,
            raster: if problem.m > block_m { Raster::Tokens } else { Raster::Rows },
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    };
    // Codes that are multiplied as they are come in chunks of twice as many.
    let chunks = if has_codes(problem) { PAIR_CODES } else { 1 };
    let split = |n, k, steps| split_k(problem, arch, (n, k, steps), block_m);
    // A ragged last stage takes a choice with every copy of activations: first what has none.
    let (whole, ragged): (Vec<&Tile>, Vec<_>) =
        wide_tiles(block_m, spec, arch).iter().partition(|(_, k, ..)| problem.k % k == 0);
    let ragged = ragged.into_iter().filter(|(_, k, ..)| pads_little(problem.k, *k));
    // Four row tiles of 64 tokens take all registers of a warp; where blocks count tokens, too, more than all.
    let fits = |tile: &&Tile| problem.m <= block_m || block_m * tile.0 / tile.2 .0 < 64 * 64;
    let tiles: Vec<&Tile> = whole.into_iter().chain(ragged).filter(fits).collect();
    // Where parts of so many steps leave SMs idle, three whole super-blocks are long enough, too.
    let parts = if spec.has_two_levels() { [PART_STEPS, 3].as_slice() } else { &[PART_STEPS] };
    let mut ladder = Vec::new();
    for steps in parts {
        let wide = tiles.iter().map(|tile| rung(**tile, split(tile.0, tile.1, *steps)));
        ladder.extend(wide.filter(|s| is_busy(s, problem, arch)));
    }
    let shapes = match block_m {
        0..=16 => [(256, (1, 4)), (128, (1, 2)), (128, (1, 1)), (64, (1, 1))],
        _ => [(128, (2, 2)), (64, (2, 1)), (128, (1, 1)), (64, (1, 1))],
    };
    for (block_k, warps) in shapes.map(|(block_k, warps)| (block_k * chunks, warps)) {
        for stages in [4, 3, 2] {
            for block_n in [64, 32, 16] {
                for split in [split(block_n, block_k, PART_STEPS), 1] {
                    ladder.push(rung((block_n, block_k, warps, stages), split));
                }
            }
        }
    }
    ladder
}

/// Whether a multiply of 8-bit floats is taken apart into others, as tensor cores have none.
fn multiplies_apart(spec: &WeightSpec, arch: &Arch) -> bool {
    spec.activations.are_float8() && !arch.has_float8_mma()
}

/// Most tokens of an `mma` block: a multiply that is taken apart takes the registers of half of them.
fn mma_tokens(spec: &WeightSpec, arch: &Arch) -> u32 {
    match multiplies_apart(spec, arch) {
        true => 32,
        false => 64,
    }
}

/// Whether stages of `block_k` copy at most a hundredth more than K.
fn pads_little(k: u32, block_k: u32) -> bool {
    (k.next_multiple_of(block_k) - k) * 100 <= k
}

/// Whether three SMs of four have a block, and three SMs five warps: fewer hide too little latency.
fn is_busy(schedule: &Schedule, problem: &Problem, arch: &Arch) -> bool {
    let blocks = blocks(schedule, problem);
    let warps = blocks * schedule.threads() / 32;
    blocks * 4 >= arch.sm_count * 3 && warps * 3 >= arch.sm_count * 5
}

fn blocks(schedule: &Schedule, problem: &Problem) -> u32 {
    let (block_n, block_m) = schedule.tile();
    let tiles = problem.n.div_ceil(block_n) * problem.m.div_ceil(block_m);
    tiles * schedule.split().per_tile()
}

/// The shapes of [`wgmma_rungs`] that give every other SM a block: one block fills an SM, and a warp's
/// multiply, which could fill them all, takes twice the instructions per weight.
fn wgmma_ladder(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Vec<Schedule> {
    let busy = |s: &Schedule| blocks(s, problem) * 2 >= arch.sm_count;
    wgmma_rungs(problem, spec, arch).into_iter().filter(busy).collect()
}

/// One `wgmma` as wide as the tokens, more rows where the accumulators leave registers for them;
/// deep rings first.
pub(super) fn wgmma_rungs(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Vec<Schedule> {
    let mut ladder = Vec::new();
    // Sums of 8-bit floats that are kept apart from totals take twice the accumulators.
    let tiles: &[(u32, u32)] = match has_codes(problem) {
        true => &[(256, 128), (128, 256), (128, 128)],
        false => &[(256, 128), (128, 256)],
    };
    for &(block_n, most) in tiles {
        // As many tokens as accumulators have registers for, evenly.
        let (columns, least_k, rings) = match has_codes(problem) {
            true => (16, 256, [(4, 256), (3, 256), (2, 256)].as_slice()),
            false => (8, 128, [(3, 256), (6, 128), (4, 128), (3, 128), (2, 128)].as_slice()),
        };
        // Stages of whole super-blocks bring what all of its groups share once.
        let rings = match spec.has_two_levels() {
            true => &[[(3, 256), (2, 256)].as_slice(), &rings[1..]].concat(),
            false => rings,
        };
        let block_m = problem.m.div_ceil(problem.m.div_ceil(most)).next_multiple_of(columns);
        for &(stages, block_k) in rings {
            // A long stage has the fewest instructions per weight, but must not copy padding.
            let ragged = problem.k % block_k != 0 && block_k > least_k;
            // Half a super-block of padding is less than what shorter stages repeat of it.
            let shares = spec.has_two_levels() && pads_little(problem.k, block_k);
            if ragged && !shares {
                continue;
            }
            let blocks = problem.n.div_ceil(block_n) * problem.m.div_ceil(block_m);
            let steps = problem.k.div_ceil(block_k);
            // Two super-blocks of k are as much as four shorter stages.
            let least = if spec.has_two_levels() && block_k == 256 { 2 } else { 4 };
            let split_k = (arch.sm_count / blocks.max(1)).min(steps / least).clamp(1, 8);
            // A lap of the ring is unrolled: one that no block has steps for costs, and loads no more.
            if stages > (steps / split_k).max(2) {
                continue;
            }
            ladder.push(Schedule::Wgmma(WgmmaSchedule {
                block_m,
                block_n,
                block_k,
                groups: 2,
                stages,
                split: Split::Blocks(split_k),
                producer: Producer::Group,
                raster: if problem.m > block_m { Raster::Tokens } else { Raster::Rows },
                multicast: 1,
                overlap: Overlap::NONE,
                dequant: String::new(),
            }));
        }
    }
    ladder
}

/// Whether weights and activations are codes of 8 bits that are multiplied as they are.
fn has_codes(problem: &Problem) -> bool {
    problem.act_bits == 8
}

/// Splits of K that bring the grid to [`BLOCKS_PER_SM`], as long as each has `steps` stages of `block_k`.
fn split_k(
    problem: &Problem,
    arch: &Arch,
    (block_n, block_k, steps): (u32, u32, u32),
    block_m: u32,
) -> u32 {
    let blocks = problem.n.div_ceil(block_n) * problem.m.div_ceil(block_m);
    let wanted = (BLOCKS_PER_SM * arch.sm_count).div_ceil(blocks);
    wanted.min(problem.k.div_ceil(block_k) / steps).clamp(1, 8)
}
