//! The schedule that is used where nothing has been tuned.
//!
//! A short ladder from the shape that suits most problems down to the one that asks for least. The
//! first rung that is legal wins, so that every problem that any rung can serve has a schedule.

use qtune_ir::dequant::{
    self, packing_rule, CostModel, Engine, Options, PairTable, SumSite, Variant,
};
use qtune_ir::tile::{estimate, registers, Estimate};
use qtune_ir::{
    Accumulate, Arch, DType, DenseGemm, DequantSchedule, Family, GemvSchedule, LibraryGemm,
    MmaSchedule, Overlap, Problem, Producer, Raster, Rejected, Schedule, Sorting, Split,
    WeightCache, WeightSpec, WgmmaSchedule, PAIR_CODES, PIECE_CODES,
};

/// Fewest tokens for which a warpgroup's multiply is preferred to a warp's.
const WGMMA_TOKENS: u32 = 64;
/// Fewest tokens for which weights are dequantized ahead where warps multiply: from there on the
/// cost model has the multiplications of floats make up for it.
const DEQUANT_TOKENS: u32 = 4096;
/// Most tokens for which CUDA cores are preferred to tensor cores where they have packed FMAs: from the second on,
/// products alone cost them half an instruction per weight.
const GEMV_TOKENS: u32 = 1;
/// Most tokens for which vectors that codes name are multiplied as they are looked up: tensor cores take a step
/// that looks up every weight first.
const VECTOR_GEMV_TOKENS: u32 = 2;
/// Most tokens of a thread block of theirs.
const GEMV_TILE: u32 = 2;
/// Thread blocks per SM that a grid should have before K is split.
const BLOCKS_PER_SM: u32 = 2;
/// Stages that fill a ring: the least that a part of K has.
const PART_STEPS: u32 = 4;

/// Times that count as the same when parts of K are chosen.
const EVEN: f64 = 1.01;
/// Bytes of loads in flight per SM that bring a large matrix from DRAM at its speed.
const IN_FLIGHT: u64 = 40 << 10;
/// Part of L2 that a slab fills, as a divisor.
const SLAB_OF_L2: u64 = 4;
/// Most rows of a slab.
const SLAB_ROWS_MAX: u32 = 16384;
/// The rule whose terms need scales of at most [`dequant::Context::scale_max`].
const RAISE: &str = "raise-code-into-fma";
/// Most registers of an `mma` thread, by estimate, with which no default was seen to spill.
const ROOMY_REGISTERS: u32 = 240;
/// A lower rung is taken rather than a term that costs more than this many times the cheapest, for
/// which the shape may lack shared memory.
const TERM_COST: f64 = 1.5;

/// A legal schedule for `problem` on `arch`: `gemv` for one token in f16, `gemv` or `mma` for two, `wgmma` for
/// many where the GPU has it and the grid fills it, `dequant` for thousands where it has not, else `mma`; `gemv` or
/// `dequant` for codes that name vectors; another family where the preferred one is not legal.
///
/// # Errors
/// [`Rejected`] with the reason of the first rung if no rung of any family is legal.
pub fn default_schedule(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let vectors = spec.codebook.vectors().is_some();
    let order = match problem.m {
        0..=VECTOR_GEMV_TOKENS if vectors => [Family::Gemv, Family::Dequant].as_slice(),
        _ if vectors => &[Family::Dequant, Family::Gemv],
        // A ring brings the parameters that rows share once for all rows of a block, `gemv` for those of a warp.
        0..=GEMV_TOKENS if spec.group.rows() > 1 => &[Family::Mma, Family::Gemv],
        0..=GEMV_TOKENS if problem.act == DType::F16 => &[Family::Gemv, Family::Mma],
        0..=GEMV_TILE => return of_few_tokens(problem, spec, arch),
        WGMMA_TOKENS.. if arch.has_wgmma() => &[Family::Wgmma, Family::Mma, Family::Gemv],
        DEQUANT_TOKENS.. => &[Family::Dequant, Family::Mma, Family::Gemv],
        _ => &[Family::Mma, Family::Gemv],
    };
    let rungs = order.iter().flat_map(|family| ladder(*family, problem, spec, arch));
    first_legal(rungs, problem, spec, arch)
}

/// For a tile of `gemv`: CUDA cores take more instructions per weight than tensor cores; but their blocks have less to
/// do before and after the weights, and sort activations while the first ones are on their way. The less as the cost
/// model has it.
fn of_few_tokens(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Result<Schedule, Rejected> {
    let of_family = |family| default_of_family(family, problem, spec, arch);
    let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
    match (of_family(Family::Gemv), of_family(Family::Mma)) {
        (Ok(gemv), Ok(mma)) => Ok(if us(&gemv) <= us(&mma) { gemv } else { mma }),
        (gemv, mma) => gemv.or(mma),
    }
}

/// The default schedule of one family.
///
/// # Errors
/// [`Rejected`] with the reason of the first rung if no rung is legal.
pub fn default_of_family(
    family: Family,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let mut rungs = ladder(family, problem, spec, arch);
    if family == Family::Wgmma {
        // Asked for, it also serves grids that do not fill the GPU.
        rungs.extend(wgmma_rungs(problem, spec, arch));
    }
    first_legal(rungs.into_iter(), problem, spec, arch)
}

/// The default schedule of [`Family::Dequant`] with cuBLASLt as what multiplies.
///
/// # Errors
/// [`Rejected`] where `arch` is not one of a device that has the library, or the problem is none for it.
pub fn default_with_library(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let gemm = DenseGemm::Library(LibraryGemm { dequant: String::new() });
    let slab = slab_rows(&gemm, problem, arch);
    let rung = Schedule::Dequant(DequantSchedule { slab, gemm });
    first_legal([rung].into_iter(), problem, spec, arch)
}

fn ladder(family: Family, problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Vec<Schedule> {
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
fn slab_rows(gemm: &DenseGemm, problem: &Problem, arch: &Arch) -> u32 {
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

fn first_legal(
    ladder: impl Iterator<Item = Schedule>,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let mut first: Option<Rejected> = None;
    let ladder: Vec<Schedule> = ladder.collect();
    for most in [TERM_COST, f64::INFINITY] {
        let terms = Terms { most, any_scale: false };
        let mut crowded = None;
        for rung in &ladder {
            let legal = rung.check(problem, spec, arch);
            let complete = legal.and_then(|()| with_term(rung, problem, spec, arch, terms));
            // The term decides whether accumulators fit registers.
            match complete.and_then(|s| s.check(problem, spec, arch).map(|()| s)) {
                Ok(s) if is_crowded(&s, problem, spec) => crowded = crowded.or(Some(s)),
                Ok(schedule) => {
                    let even = with_even_parts(schedule, problem, spec, arch);
                    return Ok(beside_sorting(even, problem, spec, arch));
                }
                Err(reason) => first = first.or(Some(reason)),
            }
        }
        if let Some(schedule) = crowded {
            return Ok(beside_sorting(schedule, problem, spec, arch));
        }
    }
    Err(first.unwrap_or(Rejected { reason: "the ladder of default schedules is empty".into() }))
}

/// At most as many parts of K as the rung has, so many that the cost model has the least time: one block more than
/// the GPU holds at once takes as long as a second wave of them. Of parts within a hundredth of that the fewest; never
/// fewer bytes in flight than [`IN_FLIGHT`], if the rung has as many.
fn with_even_parts(
    schedule: Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Schedule {
    let parts = schedule.split().per_tile();
    let in_tiles = matches!(schedule.family(), Family::Mma | Family::Wgmma);
    if !in_tiles || parts == 1 {
        return schedule;
    }
    let others = (1..parts).map(|fewer| {
        schedule.with_split(match schedule.split() {
            Split::Cluster(_) if fewer > 1 => Split::Cluster(fewer),
            _ => Split::Blocks(fewer),
        })
    });
    let all: Vec<(Schedule, Estimate)> = others
        .chain([schedule.clone()])
        .filter(|s| s.check(problem, spec, arch).is_ok())
        .filter_map(|s| modelled(&s, problem, spec, arch).map(|estimate| (s, estimate)))
        .collect();
    let enough = all.last().map_or(0, |(_, e)| e.bytes_in_flight_per_sm.min(IN_FLIGHT));
    let sound = || all.iter().filter(|(_, e)| e.bytes_in_flight_per_sm >= enough);
    let least = sound().map(|(_, e)| e.time_us).fold(f64::INFINITY, f64::min);
    let first = sound().find(|(_, e)| e.time_us <= least * EVEN);
    first.map_or(schedule, |(s, _)| s.clone())
}

/// Where a step sorts the activations and the GPU lets them overlap, what multiplies asks for its weights
/// meanwhile: most of the step's time is that of a launch. Where blocks could sort as they stage, or could leave the
/// step room on their SMs, the cost model decides which is less.
fn beside_sorting(
    schedule: Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Schedule {
    let ahead = match &schedule {
        Schedule::Gemv(s) if schedule.sorting(spec) == Sorting::Prologue => {
            Schedule::Gemv(GemvSchedule { sorted_ahead: true, ..s.clone() })
        }
        _ => schedule.clone(),
    };
    if ahead.sorting(spec) != Sorting::Step {
        return schedule;
    }
    let overlapped = |schedule: Schedule| {
        let early = schedule.with_overlap(Overlap { pdl: true, ..Overlap::NONE });
        early.check(problem, spec, arch).is_ok().then_some(early)
    };
    let inside = schedule.sorting(spec) == Sorting::Prologue;
    let ahead = overlapped(ahead.clone()).unwrap_or(ahead);
    let roomy = leaving_registers(&schedule).and_then(overlapped);
    let all = inside.then_some(schedule).into_iter().chain([ahead]).chain(roomy);
    let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
    all.min_by(|a, b| us(a).total_cmp(&us(b))).expect("one at least")
}

/// The same multiplication by blocks that leave registers of their SM to others: of those whose producer gives its
/// registers away, no thread of another kernel can have any.
fn leaving_registers(schedule: &Schedule) -> Option<Schedule> {
    let Schedule::Wgmma(s) = schedule else { return None };
    Some(Schedule::Wgmma(WgmmaSchedule { producer: Producer::Warp, ..s.clone() }))
}

/// The time that the cost model has for a schedule with its term, in us; infinite where the term is none of
/// its family's.
fn modelled_us(schedule: &Schedule, problem: &Problem, spec: &WeightSpec, arch: &Arch) -> f64 {
    modelled(schedule, problem, spec, arch).map_or(f64::INFINITY, |estimate| estimate.time_us)
}

/// What the cost model says of a schedule with its term; none where the term is none of its family's.
fn modelled(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Option<Estimate> {
    let (context, params) = (schedule.context(problem, spec), schedule.cost_params(problem, spec));
    let model = CostModel::new(&context, &params, arch);
    let term = schedule.dequant().parse().ok()?;
    let variant = Variant::of(term, &context, &model).ok()?;
    Some(estimate(problem, spec, arch, schedule, variant.cost))
}

/// Whether the sums of `mma` leave the compiler so few registers that it may spill.
fn is_crowded(schedule: &Schedule, problem: &Problem, spec: &WeightSpec) -> bool {
    let is_mma = schedule.family() == Family::Mma;
    is_mma && registers(problem, spec, schedule) > ROOMY_REGISTERS
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
            (256, 128, (8, 1), 2),
            (128, 128, (4, 1), 4),
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
    let tiles: Vec<&Tile> = whole.into_iter().chain(ragged).collect();
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
fn wgmma_rungs(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Vec<Schedule> {
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

/// `schedule` with the cheapest term for scales of any size: raised codes need scales of at most
/// [`dequant::Context::scale_max`], as those of published models are.
///
/// # Errors
/// [`Rejected`] if its family has no such term.
pub fn for_any_scale(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let terms = Terms { most: f64::INFINITY, any_scale: true };
    with_term(schedule, problem, spec, arch, terms)
}

/// Which dequantization terms are wanted.
#[derive(Clone, Copy)]
struct Terms {
    /// At most this many times the cost of the cheapest.
    most: f64,
    /// Without a limit on scales.
    any_scale: bool,
}

/// Tells which of the schedules that a search finds may be taken.
type Wanted<'a> = &'a dyn Fn(&Schedule) -> bool;

/// The schedule with the cheapest of the wanted terms that its family can lower and that fits it: among
/// those with the fewest bytes to read where these differ.
fn with_term(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    terms: Terms,
) -> Result<Schedule, Rejected> {
    let cheapest = |disabled: &[&str], wanted: Wanted| {
        let options = Options { disabled_rules: disabled, ..Options::default() };
        cheapest(schedule, problem, spec, arch, (terms, &options, wanted))
    };
    // Without it, what it makes needless is found: the best of what is left.
    let raise = terms.any_scale.then_some(RAISE);
    let disabled: Vec<&str> = schedule.useless_rules(spec).iter().copied().chain(raise).collect();
    let packed = || cheapest(&disabled, &|_| true);
    let rule = packing_rule(spec).filter(|_| schedule.levels(spec, problem.k).is_some());
    let Some(rule) = rule else { return packed() };
    let levels = |found: &Schedule| found.levels(spec, problem.k).is_some();
    let factors = [&disabled[..], &[rule]].concat();
    let Ok(smallest) = cheapest(&factors, &levels) else { return packed() };
    if spec.has_nested_scales() {
        // Lookups may take longer than the bytes that they save.
        let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
        let packed = packed()?;
        return Ok(if us(&smallest) < us(&packed) { smallest } else { packed });
    }
    Ok(smallest)
}

/// The same of what a search with these options finds, as far as schedules are wanted.
fn cheapest(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    (terms, options, wanted): (Terms, &Options, Wanted),
) -> Result<Schedule, Rejected> {
    let engine = schedule.engine();
    let ctx = schedule.context(problem, spec);
    let params = schedule.cost_params(problem, spec);
    let reject = |reason: String| Rejected { reason };
    let search =
        dequant::variants(&ctx, &params, arch, options).map_err(|e| reject(e.to_string()))?;
    // Tensor-core kernels stage activations as they are.
    let usable = search.variants.into_iter().filter(|variant| {
        let lowered = dequant::Lowered::new(&variant.term, &ctx);
        let unscaled = |sum: &SumSite| engine != Engine::Mma || sum.activation_scale == 1.0;
        lowered.is_ok_and(|l| l.sums.iter().all(unscaled))
    });
    let usable: Vec<_> = usable.collect();
    let limit = usable.first().map_or(0.0, |cheapest| terms.most * cheapest.cost);
    let affordable = usable.iter().filter(|variant| variant.cost <= limit);
    // A term may need shared memory that the shape leaves no room for.
    let mut complete = affordable.map(|variant| schedule.with_dequant(&variant.term.to_string()));
    complete
        .find(|schedule| wanted(schedule) && schedule.check(problem, spec, arch).is_ok())
        .ok_or_else(|| reject(format!("no term of {} fits {engine}", spec.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(key: &str, gpu: &str) -> Result<Schedule, Rejected> {
        let problem: Problem = key.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named(gpu).unwrap();
        let schedule = default_schedule(&problem, &spec, &arch)?;
        schedule.check(&problem, &spec, &arch)?;
        Ok(schedule)
    }

    #[test]
    fn scales_that_have_codes_are_made_in_the_kernel_where_bytes_bound_it() {
        let made = |m: u32, end: &str| {
            let key = format!("w4a16.nf4-b64-dq.f16-f16.n8192.k8192.m{m}{end}");
            default(&key, "h200").unwrap().dequant().contains("(nested s c n)")
        };
        assert!(made(1, "") && made(16, ""));
        assert!(!made(64, ""), "lookups of codes and of their scales meet in shared memory");
        assert!(!made(512, ""), "arithmetic bounds it");
        assert!(!made(1, "+silu_mul"), "gate and up have maps of their own");
    }

    #[test]
    fn every_group_size_dtype_and_bucket_has_a_legal_default() {
        for group in ["g32", "g64", "g128", "ch"] {
            for act in ["f16", "bf16"] {
                for (n, k) in [(5120, 27648), (96, 128), (40, 1152), (64, 352)] {
                    if group != "ch" && k % group[1..].parse::<u32>().unwrap() != 0 {
                        continue;
                    }
                    for m in [1, 2, 3, 16, 33, 200] {
                        let key = format!("w4a16.awq-{group}.{act}-{act}.n{n}.k{k}.m{m}");
                        for gpu in ["h200", "rtx4090"] {
                            default(&key, gpu).unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn codes_of_8_bits_have_a_default_wherever_they_are_multiplied() {
        for (format, gpus) in [
            ("int8-ch-a8", ["h200", "a100", "rtx4090"].as_slice()),
            ("fp8-e4m3-ch-a8", &["h200", "rtx4090", "rtx5090"]),
            ("fp8-e4m3-g128-a8", &["h200", "rtx4090", "rtx5090"]),
        ] {
            for (n, k) in [(5120, 27648), (96, 128), (40, 1160), (64, 8)] {
                for m in [1, 2, 3, 16, 33, 200, 1024] {
                    let key = format!("w8a8.{format}.bf16-bf16.n{n}.k{k}.m{m}");
                    for gpu in gpus {
                        let schedule = default(&key, gpu);
                        schedule.unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                    }
                }
            }
        }
        let refused = default("w8a8.fp8-e4m3-ch-a8.f16-f16.n64.k64.m16", "a100").unwrap_err();
        assert!(refused.reason.contains("8.9"), "{refused}");
        for format in ["int8-ch-a8", "fp8-e4m3-ch-a8", "fp8-e4m3-g128-a8"] {
            for m in [256, 257, 1024] {
                let key = format!("w8a8.{format}.f16-f16.n10240.k8192.m{m}");
                let prompt = default(&key, "h200").unwrap();
                assert!(matches!(prompt, Schedule::Wgmma(_)), "{key}: {prompt}");
            }
        }
    }

    #[test]
    fn a_schedule_for_any_scale_does_not_raise_codes() {
        let problem: Problem = "w4a16.awq-g128.f16-f16.n27648.k5120.m128".parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named("h200").unwrap();
        let schedule = default_schedule(&problem, &spec, &arch).unwrap();
        assert!(schedule.dequant().contains("(raise q)"), "{schedule}");
        let wide = for_any_scale(&schedule, &problem, &spec, &arch).unwrap();
        assert!(!wide.dequant().contains("raise"), "{wide}");
        assert!(!wide.dequant().contains("(sum x)"), "sums of many tokens cost more: {wide}");
        wide.check(&problem, &spec, &arch).unwrap();
    }

    #[test]
    fn few_tokens_take_cuda_cores_and_small_grids_split_k() {
        let one = default("w4a16.awq-g128.f16-f16.n5120.k5120.m1", "h200").unwrap();
        assert!(matches!(one, Schedule::Gemv(_)), "{one}");
        let many = default("w4a16.awq-g128.f16-f16.n5120.k5120.m16", "h200").unwrap();
        assert!(matches!(&many, Schedule::Mma(s) if s.split.per_tile() > 1), "{many}");
        let wide = default("w4a16.awq-g128.f16-f16.n110592.k5120.m16", "h200").unwrap();
        assert!(matches!(&wide, Schedule::Mma(s) if s.split == Split::NONE), "{wide}");
    }

    #[test]
    fn wide_tiles_have_stages_that_divide_k_and_warps_that_hide_latency() {
        let tile = |n: u32, k: u32, m: u32| {
            let schedule = default(&format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}"), "h200");
            let Schedule::Mma(mma) = schedule.unwrap() else { panic!("mma for {n} x {k}, {m}") };
            (mma.block_n, mma.block_k, mma.warps_n * mma.warps_k)
        };
        assert_eq!(tile(10240, 8192, 8), (128, 512, 4));
        assert_eq!(tile(8192, 5376, 8), (128, 256, 2), "512 does not divide K");
        assert_eq!(tile(8192, 29568, 8), (128, 512, 4), "nor does 256");
        assert_eq!(tile(8192, 29568, 16), (256, 128, 2), "256 does not divide K");
        assert_eq!(tile(4096, 4096, 16), (256, 128, 2), "wider stages leave SMs idle");
        assert_eq!(tile(4608, 3584, 8), (128, 256, 4), "108 blocks of two warps are too few");
    }

    #[test]
    fn warpgroups_multiply_though_some_sms_stay_idle() {
        let prompt = default("w4a16.awq-g128.f16-f16.n10240.k8192.m256", "h200").unwrap();
        assert!(matches!(prompt, Schedule::Wgmma(_)), "{prompt}");
        let tiny = default("w4a16.awq-g128.f16-f16.n256.k1024.m64", "h200").unwrap();
        assert!(matches!(tiny, Schedule::Mma(_)), "{tiny}");
    }

    #[test]
    fn rows_that_a_full_warp_would_pad_take_fewer_lanes() {
        for (k, lanes) in [(5120, 32), (29568, 32), (3584, 16), (18944, 16), (5376, 8), (11008, 8)]
        {
            let schedule = default(&format!("w4a16.awq-g128.f16-f16.n5376.k{k}.m1"), "h200");
            let Schedule::Gemv(gemv) = schedule.unwrap() else { panic!("gemv for K = {k}") };
            assert_eq!(gemv.lanes, lanes, "K = {k}");
            assert!(200 * (gemv.padded_k(k) - k) <= k, "K = {k}");
        }
    }

    #[test]
    fn thousands_of_tokens_are_worth_dequantizing_ahead_where_warps_multiply() {
        let of = |gpu: &str, m: u32| {
            let key = format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}");
            default(&key, gpu).unwrap().family()
        };
        assert_eq!([of("a100", 4096), of("a100", 512)], [Family::Dequant, Family::Mma]);
        assert_eq!(of("h200", 4096), Family::Wgmma);
    }

    #[test]
    fn slabs_are_legal_for_every_format_and_gpu() {
        for format in ["awq-g32", "awq-g128", "awq-ch", "nf4-b64"] {
            for (n, k, m) in [(5120, 5120, 4096), (96, 1152, 257), (512, 1024, 768)] {
                let key = format!("w4a16.{format}.bf16-bf16.n{n}.k{k}.m{m}");
                let problem: Problem = key.parse().unwrap();
                let spec = qtune_formats::resolve(&problem.format).unwrap();
                for gpu in ["h200", "a100", "rtx4090"] {
                    let arch = Arch::named(gpu).unwrap();
                    let found = default_of_family(Family::Dequant, &problem, &spec, &arch);
                    let schedule = found.unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                    schedule.check(&problem, &spec, &arch).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_tensor_cores_multiply_can_be_dequantized_ahead() {
        let arch = Arch::named("h200").unwrap();
        for format in qtune_formats::FORMATS.iter().flat_map(|row| row.examples) {
            let spec = qtune_formats::resolve(format).unwrap();
            // Floats take activations of 16 bits.
            if spec.activations.bits() != 16 {
                continue;
            }
            let key = format!("w{}a16.{format}.f16-f16.n512.k1024.m64", spec.bits);
            let problem: Problem = key.parse().unwrap();
            let of = |family| default_of_family(family, &problem, &spec, &arch);
            if of(Family::Mma).is_ok() {
                let schedule = of(Family::Dequant).unwrap_or_else(|e| panic!("{key}: {e}"));
                assert!(schedule.dequant().starts_with("(sum"), "{schedule}");
            }
        }
    }

    #[test]
    fn a_k_that_no_kernel_reads_is_rejected_with_the_reason() {
        let error = default("w4a16.awq-ch.f16-f16.n64.k100.m1", "h200").unwrap_err();
        assert!(error.reason.contains("100"), "{error}");
    }
}
