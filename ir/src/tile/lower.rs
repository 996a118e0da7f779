//! Nests and schedules: every legal nest means exactly one coarse [`Schedule`], and back.
//!
//! A loop that has one step is left out, except `n lane`. From the outside to the inside:
//!
//! | `gemv` layer | field | `mma` layer | field |
//! |---|---|---|---|
//! | `m M block` | grid | `m M block` | grid |
//! | `m T reg` | `tokens = T` | `m BM reg` | `block_m = BM`, else 8 |
//! | `n N block` | grid | `n N block` | grid |
//! | `n BN warp` | `warps_n` = steps | `n BN warp` | `warps_n` = steps |
//! | `n WR lane` | `lanes = 32 / steps` | `n 16R reg` | `block_n / warps_n = 16R` |
//! | `stage x shared` | `stage_x` | | |
//! | `n R reg` | `rows = R` | | |
//! | `k K serial` or `k K (split S)` | `split = S` | the same | `split = S` |
//! | `k K (cluster S)` | `split = S@cluster` | the same | the same |
//! | | | `k K (stream B)` | `split = stream:B` |
//! | `k .. unroll` | `unroll` = steps | `ring S` | `stages = S` |
//! | `k .. warp` | `warps_k` = steps | `k BK warp` | `warps_k` = steps |
//! | `k 32L lane` | `lanes = L` | `k WK unroll` | `block_k / warps_k = WK` |
//! | `fma32`, `fma2` | `acc = f32, half2` | `k 64 reg` | a lane's piece |
//! | | | `mma16816` | |
//!
//! A `wgmma` nest is an `mma` nest with its own leaf, whose rows are 64: `n BN group` is `groups` =
//! steps, `n 64R reg` is `block_n / groups = 64R`, `m BM reg` is one `wgmma` as wide as `BM`, and no
//! loop deals k to warps.
//!
//! A `dequant` nest is either of them with `slab S` around `n N block`.
//!
//! The naive nest is the `gemv` schedule whose every number is 1, with default caching: each lane
//! takes one row, in a grid of one-warp blocks.
//!
//! What no nest says takes its usual value: vector loads of weights bypass L1 (they are read once),
//! rows of the activation tile of `mma` are padded (without it `ldmatrix` has eight-way conflicts), blocks
//! that share weights run one after the other when there are several token tiles; a warpgroup that gives
//! its registers away feeds several `wgmma` consumers, an extra warp feeds one. The dequantization term is empty until the caller sets it.

use super::nest::{Axis, Binding, Extents, Layer, Leaf, Loop, Nest, NestError};
use crate::{
    Accumulate, DenseGemm, DequantSchedule, GemvSchedule, MmaSchedule, Overlap, Problem, Producer,
    Raster, Schedule, Split, WeightCache, WgmmaSchedule, GROUP_ROWS, PIECE_CODES,
};

/// k of one lane's piece of codes: a `gemv` leaf.
pub(super) const PIECE_K: u32 = PIECE_CODES;
/// k of one lane's piece of a 16-row fragment: four `k16` steps.
pub(super) const CHUNK_K: u32 = 64;
/// Rows of a fragment.
pub(super) const FRAGMENT_N: u32 = 16;
/// Tokens of a fragment.
pub(super) const FRAGMENT_M: u32 = 8;

/// The problem's iteration space.
pub fn extents(problem: &Problem) -> Extents {
    [problem.m, problem.n, problem.k]
}

/// The schedule that a nest means.
///
/// # Errors
/// [`NestError`] if the layers are not those of a kernel family, in their order.
pub fn schedule(nest: &Nest, problem: &Problem) -> Result<Schedule, NestError> {
    schedule_of(&nest.layers, nest.leaf, problem).ok_or_else(|| {
        NestError::new("layers that are those of no kernel family in their order", nest)
    })
}

/// The place of a layer in a family's chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    For(Axis, Binding),
    /// `k K serial`, `k K (split S)`, `k K (cluster S)` or `k K (stream B)`.
    Steps,
    StageX,
    Ring,
    Slab,
}

const SLOTS: usize = 11;

const GEMV: [Slot; SLOTS] = [
    Slot::For(Axis::M, Binding::Block),
    Slot::For(Axis::M, Binding::Reg),
    Slot::For(Axis::N, Binding::Block),
    Slot::For(Axis::N, Binding::Warp),
    Slot::For(Axis::N, Binding::Lane),
    Slot::StageX,
    Slot::For(Axis::N, Binding::Reg),
    Slot::Steps,
    Slot::For(Axis::K, Binding::Unroll),
    Slot::For(Axis::K, Binding::Warp),
    Slot::For(Axis::K, Binding::Lane),
];

const MMA: [Slot; SLOTS] = [
    Slot::For(Axis::M, Binding::Block),
    Slot::For(Axis::M, Binding::Reg),
    Slot::Slab,
    Slot::For(Axis::N, Binding::Block),
    Slot::For(Axis::N, Binding::Warp),
    Slot::For(Axis::N, Binding::Reg),
    Slot::Steps,
    Slot::Ring,
    Slot::For(Axis::K, Binding::Warp),
    Slot::For(Axis::K, Binding::Unroll),
    Slot::For(Axis::K, Binding::Reg),
];

const WGMMA: [Slot; SLOTS - 1] = [
    Slot::For(Axis::M, Binding::Block),
    Slot::For(Axis::M, Binding::Reg),
    Slot::Slab,
    Slot::For(Axis::N, Binding::Block),
    Slot::For(Axis::N, Binding::Group),
    Slot::For(Axis::N, Binding::Reg),
    Slot::Steps,
    Slot::Ring,
    Slot::For(Axis::K, Binding::Unroll),
    Slot::For(Axis::K, Binding::Reg),
];

impl Slot {
    fn takes(self, layer: &Layer) -> bool {
        match (self, layer) {
            (Slot::For(axis, binding), Layer::For(l)) => l.axis == axis && l.binding == binding,
            (Slot::Steps, Layer::For(l)) => {
                let walks = matches!(
                    l.binding,
                    Binding::Serial | Binding::Split(_) | Binding::Cluster(_) | Binding::Stream(_)
                );
                l.axis == Axis::K && walks
            }
            (Slot::StageX, Layer::StageX)
            | (Slot::Ring, Layer::Ring(_))
            | (Slot::Slab, Layer::Slab(_)) => true,
            _ => false,
        }
    }
}

/// A family's slots, each with the number of its layer, or `None` where there is no layer: the
/// steps of a loop, the stages of a ring.
struct Filled {
    slots: &'static [Slot],
    numbers: [Option<u32>; SLOTS],
    /// How blocks share the walk over k.
    split: Split,
}

impl Filled {
    /// Fits layers into slots in order. `None` if a layer has no slot, or if the grid loops or the
    /// walk over k are missing.
    fn fit(slots: &'static [Slot], layers: &[Layer], leaf: Leaf) -> Option<Filled> {
        let mut covered = leaf.extents();
        let mut filled = Filled { slots, numbers: [None; SLOTS], split: Split::NONE };
        let mut position = slots.len();
        for layer in layers.iter().rev() {
            position = slots[..position].iter().rposition(|slot| slot.takes(layer))?;
            filled.numbers[position] = Some(match layer {
                Layer::StageX => 1,
                Layer::Ring(number) | Layer::Slab(number) => *number,
                Layer::For(l) => {
                    let steps = l.extent.div_ceil(covered[l.axis.index()]);
                    covered[l.axis.index()] = l.extent;
                    match l.binding {
                        Binding::Split(blocks) => filled.split = Split::Blocks(blocks),
                        Binding::Cluster(blocks) => filled.split = Split::Cluster(blocks),
                        Binding::Stream(blocks) => filled.split = Split::Stream(blocks),
                        _ => {}
                    }
                    steps
                }
            });
        }
        let grid = [Slot::For(Axis::M, Binding::Block), Slot::For(Axis::N, Binding::Block)];
        grid.iter().chain(&[Slot::Steps]).try_for_each(|s| filled.slot(*s).map(drop))?;
        Some(filled)
    }

    fn slot(&self, slot: Slot) -> Option<u32> {
        self.numbers[self.slots.iter().position(|s| *s == slot)?]
    }

    /// `schedule`, or what it multiplies slab by slab where the nest has a slab.
    fn of_slab(&self, schedule: Schedule) -> Option<Schedule> {
        match self.slot(Slot::Slab) {
            None => Some(schedule),
            Some(slab) => {
                let gemm = DenseGemm::of(schedule)?;
                Some(Schedule::Dequant(DequantSchedule { slab, gemm }))
            }
        }
    }

    /// Steps of a loop, 1 if there is none.
    fn steps(&self, axis: Axis, binding: Binding) -> u32 {
        self.slot(Slot::For(axis, binding)).unwrap_or(1)
    }
}

/// [`schedule`] of a nest in parts, without an error text: the extractor asks this of every nest.
pub(super) fn schedule_of(layers: &[Layer], leaf: Leaf, problem: &Problem) -> Option<Schedule> {
    match leaf {
        Leaf::Mac => {
            let naive = Nest::naive(extents(problem));
            (layers == naive.layers).then_some(Schedule::Gemv(NAIVE))
        }
        Leaf::Fma32 => gemv(layers, leaf, Accumulate::F32),
        Leaf::Fma2 => gemv(layers, leaf, Accumulate::Half2),
        Leaf::Mma16816 => mma(layers, problem),
        Leaf::Wgmma64 => wgmma(layers, problem),
    }
}

/// The schedule of the naive nest.
const NAIVE: GemvSchedule = GemvSchedule {
    tokens: 1,
    rows: 1,
    lanes: 1,
    warps_n: 1,
    warps_k: 1,
    unroll: 1,
    split: Split::NONE,
    stage_x: false,
    sorted_ahead: false,
    accumulate: Accumulate::F32,
    cache: WeightCache::Normal,
    overlap: Overlap::NONE,
    dequant: String::new(),
};

fn gemv(layers: &[Layer], leaf: Leaf, accumulate: Accumulate) -> Option<Schedule> {
    let filled = Filled::fit(&GEMV, layers, leaf)?;
    let lanes = filled.steps(Axis::K, Binding::Lane);
    let rows_of_lanes = filled.slot(Slot::For(Axis::N, Binding::Lane))?;
    (rows_of_lanes * lanes == 32).then(|| {
        Schedule::Gemv(GemvSchedule {
            tokens: filled.steps(Axis::M, Binding::Reg),
            rows: filled.steps(Axis::N, Binding::Reg),
            lanes,
            warps_n: filled.steps(Axis::N, Binding::Warp),
            warps_k: filled.steps(Axis::K, Binding::Warp),
            unroll: filled.steps(Axis::K, Binding::Unroll),
            split: filled.split,
            stage_x: filled.slot(Slot::StageX).is_some(),
            sorted_ahead: false,
            accumulate,
            cache: WeightCache::NoAllocate,
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    })
}

fn mma(layers: &[Layer], problem: &Problem) -> Option<Schedule> {
    let filled = Filled::fit(&MMA, layers, Leaf::Mma16816)?;
    let chunk_k = filled.steps(Axis::K, Binding::Reg) * Leaf::Mma16816.extents()[2];
    let (warps_n, warps_k) =
        (filled.steps(Axis::N, Binding::Warp), filled.steps(Axis::K, Binding::Warp));
    let block_m = FRAGMENT_M * filled.steps(Axis::M, Binding::Reg);
    let mma = (chunk_k == CHUNK_K).then(|| {
        Schedule::Mma(MmaSchedule {
            block_m,
            block_n: FRAGMENT_N * filled.steps(Axis::N, Binding::Reg) * warps_n,
            block_k: CHUNK_K * filled.steps(Axis::K, Binding::Unroll) * warps_k,
            warps_n,
            warps_k,
            stages: filled.slot(Slot::Ring).unwrap_or(1),
            split: filled.split,
            padded: true,
            raster: usual_raster(problem, block_m),
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    });
    filled.of_slab(mma?)
}

fn wgmma(layers: &[Layer], problem: &Problem) -> Option<Schedule> {
    let filled = Filled::fit(&WGMMA, layers, Leaf::Wgmma64)?;
    let chunk_k = filled.steps(Axis::K, Binding::Reg) * Leaf::Wgmma64.extents()[2];
    let groups = filled.steps(Axis::N, Binding::Group);
    let block_m = FRAGMENT_M * filled.steps(Axis::M, Binding::Reg);
    let wgmma = (chunk_k == CHUNK_K).then(|| {
        Schedule::Wgmma(WgmmaSchedule {
            block_m,
            block_n: GROUP_ROWS * filled.steps(Axis::N, Binding::Reg) * groups,
            block_k: CHUNK_K * filled.steps(Axis::K, Binding::Unroll),
            groups,
            stages: filled.slot(Slot::Ring).unwrap_or(1),
            split: filled.split,
            producer: if groups > 1 { Producer::Group } else { Producer::Warp },
            raster: usual_raster(problem, block_m),
            multicast: 1,
            overlap: Overlap::NONE,
            dequant: String::new(),
        })
    });
    filled.of_slab(wgmma?)
}

/// Several token tiles share their weights: they run one after the other.
fn usual_raster(problem: &Problem, block_m: u32) -> Raster {
    match problem.m > block_m {
        true => Raster::Tokens,
        false => Raster::Rows,
    }
}

/// The nest that a schedule refines: the inverse of [`schedule`], but for what nests do not say
/// (caching, padding, raster, launch options, dequantization). A schedule that is the naive one in every number
/// gives the naive nest.
///
/// # Errors
/// [`NestError`] if a tile is not a multiple of what it is made of: no nest describes it.
pub fn nest(schedule: &Schedule, problem: &Problem) -> Result<Nest, NestError> {
    let nest = match schedule {
        Schedule::Gemv(s) if numbers(s) == NAIVE => Nest::naive(extents(problem)),
        Schedule::Gemv(s) => gemv_nest(s, problem),
        Schedule::Mma(s) => mma_nest(s, problem),
        Schedule::Wgmma(s) => wgmma_nest(s, problem),
        Schedule::Dequant(s) => dequant_nest(s, problem)?,
    };
    super::verify(&nest, extents(problem))?;
    match schedule_of(&nest.layers, nest.leaf, problem) {
        Some(meant) if shape(&meant) == shape(schedule) => Ok(nest),
        _ => Err(NestError::new("a tile that is no multiple of its fragments", schedule)),
    }
}

/// A schedule without what nests do not say of the naive one.
fn numbers(s: &GemvSchedule) -> GemvSchedule {
    GemvSchedule { overlap: Overlap::NONE, dequant: String::new(), ..s.clone() }
}

/// Tile and computing threads of a schedule; who feeds them is not the nest's matter.
fn shape(schedule: &Schedule) -> ((u32, u32), u32) {
    let threads = match schedule {
        Schedule::Wgmma(s) => s.consumer_threads(),
        Schedule::Dequant(s) => match s.gemm.own() {
            Some(own) => return shape(&own),
            None => s.gemm.threads(),
        },
        Schedule::Gemv(_) | Schedule::Mma(_) => schedule.threads(),
    };
    (schedule.tile(), threads)
}

/// Layers under construction, from the inside to the outside.
struct Chain {
    layers: Vec<Layer>,
    covered: Extents,
    leaf: Leaf,
}

impl Chain {
    fn new(leaf: Leaf) -> Chain {
        Chain { layers: Vec::new(), covered: leaf.extents(), leaf }
    }

    fn wrap(mut self, layer: Option<Layer>) -> Chain {
        self.layers.extend(layer);
        self
    }

    /// A loop over all of an axis.
    fn whole(self, axis: Axis, extent: u32, binding: Binding) -> Chain {
        self.wrap(Some(Layer::For(Loop { axis, extent, binding })))
    }

    /// A loop of `steps` steps; none for one step, unless it binds the lanes to rows.
    fn steps(mut self, axis: Axis, steps: u32, binding: Binding) -> Chain {
        let extent = self.covered[axis.index()].saturating_mul(steps);
        self.covered[axis.index()] = extent;
        let said = steps > 1 || (axis, binding) == (Axis::N, Binding::Lane);
        self.wrap(said.then_some(Layer::For(Loop { axis, extent, binding })))
    }

    /// The grid loops over rows, then tokens.
    fn build(mut self) -> Nest {
        self.layers.reverse();
        Nest { layers: self.layers, leaf: self.leaf }
    }
}

fn walk(split: Split) -> Binding {
    match split {
        Split::NONE => Binding::Serial,
        Split::Blocks(blocks) => Binding::Split(blocks),
        Split::Cluster(blocks) => Binding::Cluster(blocks),
        Split::Stream(blocks) => Binding::Stream(blocks),
    }
}

fn gemv_nest(s: &GemvSchedule, p: &Problem) -> Nest {
    let leaf = match s.accumulate {
        Accumulate::F32 => Leaf::Fma32,
        Accumulate::Half2 => Leaf::Fma2,
    };
    Chain::new(leaf)
        .steps(Axis::K, s.lanes, Binding::Lane)
        .steps(Axis::K, s.warps_k, Binding::Warp)
        .steps(Axis::K, s.unroll, Binding::Unroll)
        .whole(Axis::K, p.k, walk(s.split))
        .steps(Axis::N, s.rows, Binding::Reg)
        .wrap(s.stage_x.then_some(Layer::StageX))
        .steps(Axis::N, 32 / s.lanes.clamp(1, 32), Binding::Lane)
        .steps(Axis::N, s.warps_n, Binding::Warp)
        .whole(Axis::N, p.n, Binding::Block)
        .steps(Axis::M, s.tokens, Binding::Reg)
        .whole(Axis::M, p.m, Binding::Block)
        .build()
}

fn mma_nest(s: &MmaSchedule, p: &Problem) -> Nest {
    Chain::new(Leaf::Mma16816)
        .steps(Axis::K, CHUNK_K / Leaf::Mma16816.extents()[2], Binding::Reg)
        .steps(Axis::K, s.warp_k() / CHUNK_K, Binding::Unroll)
        .steps(Axis::K, s.warps_k, Binding::Warp)
        .wrap((s.stages > 1).then_some(Layer::Ring(s.stages)))
        .whole(Axis::K, p.k, walk(s.split))
        .steps(Axis::N, s.row_tiles(), Binding::Reg)
        .steps(Axis::N, s.warps_n, Binding::Warp)
        .whole(Axis::N, p.n, Binding::Block)
        .steps(Axis::M, s.token_tiles(), Binding::Reg)
        .whole(Axis::M, p.m, Binding::Block)
        .build()
}

fn wgmma_nest(s: &WgmmaSchedule, p: &Problem) -> Nest {
    Chain::new(Leaf::Wgmma64)
        .steps(Axis::K, CHUNK_K / Leaf::Wgmma64.extents()[2], Binding::Reg)
        .steps(Axis::K, s.block_k / CHUNK_K, Binding::Unroll)
        .wrap((s.stages > 1).then_some(Layer::Ring(s.stages)))
        .whole(Axis::K, p.k, walk(s.split))
        .steps(Axis::N, s.row_tiles(), Binding::Reg)
        .steps(Axis::N, s.groups, Binding::Group)
        .whole(Axis::N, p.n, Binding::Block)
        .steps(Axis::M, s.block_m / FRAGMENT_M, Binding::Reg)
        .whole(Axis::M, p.m, Binding::Block)
        .build()
}

/// The nest of the multiplication with the slab around its rows.
fn dequant_nest(s: &DequantSchedule, p: &Problem) -> Result<Nest, NestError> {
    let own = s.gemm.own();
    let own = own.ok_or_else(|| NestError::new("a library's multiplication", s.slab))?;
    let mut nest = nest(&own, p)?;
    let rows =
        |l: &Layer| matches!(l, Layer::For(l) if (l.axis, l.binding) == (Axis::N, Binding::Block));
    let at = nest.layers.iter().position(rows).unwrap_or(0);
    nest.layers.insert(at, Layer::Slab(s.slab));
    Ok(nest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(key: &str) -> Problem {
        key.parse().unwrap()
    }

    #[test]
    fn the_naive_nest_is_the_naive_schedule() {
        let p = problem("w4a16.awq-g128.f16-f16.n96.k128.m2");
        let naive = schedule(&Nest::naive(extents(&p)), &p).unwrap();
        assert_eq!(
            naive.to_string(),
            "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
             cache=normal dequant="
        );
        assert_eq!(nest(&naive, &p).unwrap(), Nest::naive(extents(&p)));
    }

    #[test]
    fn each_schedule_has_one_nest_which_means_that_schedule() {
        let p = problem("w4a16.awq-g128.f16-f16.n5120.k5120.m48");
        for text in [
            "gemv tokens=4 rows=2 lanes=8 warps=4x2 unroll=2 split=4 x=shared acc=half2 cache=stream dequant=",
            "gemv tokens=4 rows=2 lanes=8 warps=4x2 unroll=2 split=4@cluster x=shared acc=half2 cache=stream dequant=",
            "gemv tokens=1 rows=1 lanes=32 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=stream dequant=",
            "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=stream dequant=",
            "mma tile=16x128x256 warps=2x2 stages=4 split=3 pad=16 raster=tokens dequant=",
            "mma tile=64x16x64 warps=1x1 stages=1 split=1 pad=16 raster=rows dequant=",
            "mma tile=16x64x256 warps=1x4 stages=4 split=stream:264 pad=16 raster=tokens dequant=",
            "wgmma tile=48x256x128 groups=2 stages=4 split=3 producer=group raster=rows dequant=",
            "wgmma tile=8x64x128 groups=1 stages=2 split=1 producer=warp raster=tokens dequant=",
            "wgmma tile=48x128x128 groups=2 stages=3 split=4@cluster producer=group raster=rows dequant=",
            "wgmma tile=48x128x128 groups=2 stages=3 split=stream:132 producer=group raster=rows dequant=",
            "dequant slab=512 gemm=wgmma tile=48x256x128 groups=2 stages=4 split=1 producer=group raster=rows dequant=",
            "dequant slab=64 gemm=mma tile=16x64x64 warps=2x1 stages=3 split=1 pad=16 raster=tokens dequant=",
        ] {
            let wanted: Schedule = text.parse().unwrap();
            let nest = nest(&wanted, &p).unwrap();
            assert_eq!(schedule(&nest, &p).unwrap().to_string(), text, "{nest}");
            crate::tile::verify(&nest, extents(&p)).unwrap();
        }
    }

    #[test]
    fn a_schedule_whose_tile_is_ragged_has_no_nest() {
        let p = problem("w4a16.awq-g128.f16-f16.n5120.k5120.m48");
        let text = "mma tile=16x100x256 warps=2x2 stages=4 split=3 pad=16 raster=tokens \
                    dequant=";
        assert!(nest(&text.parse().unwrap(), &p).is_err());
    }

    #[test]
    fn nests_of_no_family_are_refused() {
        let p = problem("w4a16.awq-g128.f16-f16.n64.k64.m1");
        for text in [
            "(for m 1 serial (for n 64 block (for n 32 lane (for k 64 serial (fma32)))))",
            "(for m 1 block (for n 64 block (for n 16 lane (for k 64 serial (fma32)))))",
            "(for m 1 block (for n 64 block (for k 64 serial (mma16816))))",
            "(for n 64 block (for m 1 block (for k 64 serial (for k 64 reg (mma16816)))))",
        ] {
            assert!(schedule(&text.parse().unwrap(), &p).is_err(), "{text}");
        }
    }
}
