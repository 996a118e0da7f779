//! Lane-instructions per weight, from machine code.
//!
//! The generator unrolls everything inside a main loop, so what a loop iteration does is read off
//! its code: an `mma` loop has a known number of tensor instructions per stage, a `gemv` loop a
//! known number of loads of weights per step. A loop that covers several steps (because the compiler
//! unrolled it) shows as a multiple, and what remains is covered by the loops with fewer. Loops
//! that only load weights (the filling of the ring) run once per stage ahead; a producer warp's loop
//! runs once per stage for all consumer warps together. Epilogues and the
//! staging of activations touch no weights and are left out.

use crate::codes::Meaning;
use qtune_device::KernelImage;
use qtune_ir::tile::occupancy::grid_blocks;
use qtune_ir::{
    Accumulate, Arch, DType, GemvSchedule, MmaSchedule, Schedule, Split, WeightSpec, WgmmaSchedule,
    PAIR_CODES, PIECE_CODES,
};
use qtune_sim::cubin::Cubin;
use qtune_sim::sass::{Class, Counts, Program};

/// Weights of one lane's piece.
const WEIGHTS_PER_PIECE: f64 = PIECE_CODES as f64;

/// Where an instruction count comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstructionSource {
    /// The loops of the machine code.
    Sass,
    /// The simulator's count of PTX instructions, prologue and epilogue included: the compiler
    /// left no loop, as it does for very short K.
    Ptx,
}

/// How one warp walks K.
struct Walk {
    /// Steps of the main loop per warp.
    steps: f64,
    /// Weights that a lane uses per step.
    weights: f64,
    /// Instructions of the marking kind per step.
    marks: u32,
    /// Whether tensor instructions mark a step, else loads as wide as those of weights do.
    tensor: bool,
    /// Bytes of such a load.
    mark_bytes: u8,
    /// Least multiply instructions per step: a loop that stages activations has loads, too.
    products: f64,
    /// Stages that are loaded before the main loop.
    ahead: f64,
    /// Turns of an inner loop that copies pieces.
    copy_turns: f64,
    /// Whether the main loop stands in a loop over output tiles.
    many_tiles: bool,
    /// Producer warps per consumer warp.
    producer_share: f64,
    /// Copies that its warp issues per stage.
    stage_copies: u32,
}

/// Lane-instructions per weight: all instructions of all loops that touch weights, times their trip
/// counts, over the weights consumed. `None` if the code has no loop that does the multiplying, as
/// for very short K.
pub fn instructions_per_weight(image: &KernelImage, spec: &WeightSpec) -> Option<f64> {
    let cubin = Cubin::parse(&image.cubin).ok()?;
    let code = cubin.kernel(&image.kernel.coded().name)?;
    let program = Program::decode(&code.text, cubin.sm).ok()?;
    let walk = Walk::of(image, spec)?;
    let trips = walk.trips(&program)?;
    let executed = program.executed_in_loops(&trips);
    let main = program.main_loop()?;
    let epilogues = walk.around(&program, main).map_or(0, |outer| program.loops[outer].own.total());
    Some((executed - f64::from(epilogues)) / (walk.steps * walk.weights))
}

/// Sums over weights and sums over activations alone of an image's dequantization term.
fn sums(image: &KernelImage, spec: &WeightSpec) -> Option<(u32, u32)> {
    let kernel = &image.kernel;
    let meaning = Meaning::new(&kernel.problem, spec, &kernel.schedule).ok()?;
    let lowered = meaning.lowered().ok()?;
    let weighted = lowered.sums.iter().filter(|sum| sum.weight.is_some()).count();
    Some((weighted as u32, (lowered.sums.len() - weighted) as u32))
}

/// The body of the main loop: what one warp executes in one iteration.
pub(crate) struct MainLoop {
    /// Counts of the loop's own instructions and of the loops inside, with their trips.
    parts: Vec<(Counts, f64)>,
    /// Iterations of one thread block.
    pub iterations: f64,
    /// Steps of K, as the schedule counts them, in one iteration.
    pub steps: f64,
}

impl MainLoop {
    /// The main loop of a kernel, if its machine code has one.
    pub(crate) fn of(image: &KernelImage, spec: &WeightSpec) -> Option<MainLoop> {
        let cubin = Cubin::parse(&image.cubin).ok()?;
        let code = cubin.kernel(&image.kernel.coded().name)?;
        let program = Program::decode(&code.text, cubin.sm).ok()?;
        let walk = Walk::of(image, spec)?;
        let trips = walk.trips(&program)?;
        let runs = |index: &usize| trips[*index] > 0.0;
        // A ring that is deeper than a block has steps never turns: its steps are in another loop.
        let others = (0..trips.len()).filter(runs).filter(|l| walk.marks_in(&program, *l) > 0);
        let busiest = others.max_by_key(|l| walk.marks_in(&program, *l));
        let main = program.main_loop().filter(runs).or(busiest)?;
        let inside = program.loops.iter().zip(&trips).filter(|(l, _)| l.parent == Some(main));
        let mut parts: Vec<(Counts, f64)> = inside.map(|(l, &t)| (l.own, t)).collect();
        parts.push((program.loops[main].own, 1.0));
        let steps = f64::from(walk.marks_in(&program, main)) / f64::from(walk.marks);
        Some(MainLoop { parts, iterations: walk.steps / steps, steps })
    }

    /// Warp instructions of these classes per iteration.
    pub(crate) fn count(&self, classes: &[Class]) -> f64 {
        self.parts.iter().map(|(own, trips)| f64::from(own.sum(classes)) * trips).sum()
    }

    /// All warp instructions per iteration.
    pub(crate) fn total(&self) -> f64 {
        self.parts.iter().map(|(own, trips)| f64::from(own.total()) * trips).sum()
    }
}

/// Deals steps to loops that cover so many each iteration: the one that covers most goes first, the
/// others do what it leaves.
fn deal(mut left: f64, loops: &mut [(f64, usize)], trips: &mut [f64]) {
    loops.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (nth, (steps, index)) in loops.iter().enumerate() {
        let last = nth + 1 == loops.len();
        let turns = if last { left / steps } else { (left / steps).floor() };
        trips[*index] = turns;
        left -= turns * steps;
    }
}

/// Whether stages bring group parameters: scales of whole rows of codes that are multiplied as they are wait
/// for the end.
fn has_stage_params(image: &KernelImage) -> bool {
    image.kernel.layout.entry_bytes() > 0 && !image.kernel.layout.scales_at_end()
}

/// Steps of a block whose ring walks K, those of all blocks averaged.
fn ring_steps(split: Split, image: &KernelImage) -> f64 {
    let (kernel, problem) = (&image.kernel, &image.kernel.problem);
    let blocks = grid_blocks(problem, &kernel.schedule) as f64;
    let tiles = match split {
        Split::Stream(_) => kernel.schedule.output_tiles(problem, problem.m) as f64 / blocks,
        Split::Blocks(blocks) | Split::Cluster(blocks) => 1.0 / f64::from(blocks),
    };
    f64::from(kernel.layout.steps()) * tiles
}

/// Machine instructions of one `mma` of codes: 8-bit floats may be multiplied as halves of f16 ones.
fn multiplies(image: &KernelImage, spec: &WeightSpec) -> u32 {
    let of_target = |arch: &Arch| arch.target() == image.target;
    let mut gpus = Arch::names().filter_map(|name| Arch::named(name).ok());
    let expanded = gpus.find(of_target).is_some_and(|arch| !arch.has_float8_mma());
    match spec.activations.are_float8() && expanded {
        true => 2,
        false => 1,
    }
}

impl Walk {
    fn of(image: &KernelImage, spec: &WeightSpec) -> Option<Walk> {
        let kernel = &image.kernel;
        let Some(pairs) = kernel.schedule.in_pairs(&kernel.problem, spec) else {
            return Walk::of_schedule(&kernel.schedule, image, spec);
        };
        let walk = Walk::of_schedule(&pairs.schedule, image, spec)?;
        let warp = matches!(pairs.schedule, Schedule::Mma(_));
        Some(Walk {
            weights: walk.weights * f64::from(PAIR_CODES),
            marks: walk.marks * if warp { multiplies(image, spec) } else { 1 },
            ..walk
        })
    }

    fn of_schedule(schedule: &Schedule, image: &KernelImage, spec: &WeightSpec) -> Option<Walk> {
        match schedule {
            Schedule::Gemv(s) => Some(Walk::gemv(s, image)),
            Schedule::Mma(s) => {
                let (weighted, plain) = sums(image, spec)?;
                Some(Walk::mma(s, image, weighted, plain))
            }
            Schedule::Wgmma(s) => {
                let (weighted, plain) = sums(image, spec)?;
                Some(Walk::wgmma(s, image, weighted, plain))
            }
            // The loop that multiplies; dequantizing is a loop without a multiply, of which nothing is told.
            Schedule::Dequant(s) => Walk::of_schedule(&s.multiplication()?, image, spec),
        }
    }

    fn gemv(s: &GemvSchedule, image: &KernelImage) -> Walk {
        let layout = &image.kernel.layout;
        let activations = match (s.stage_x, image.kernel.problem.act) {
            (true, _) => 0,
            (false, DType::F32) => 8 * s.tokens,
            (false, _) => 4 * s.tokens,
        };
        let load_bytes = 4 * layout.packing().load_words();
        // Parameters that are loaded as wide as weights count as marks, too, where each step has its own.
        let params = layout.loads().filter(|_| layout.groups() > 1);
        let same_params = params.map_or(0, |loads| loads.of_width(load_bytes));
        let products_at_once = match s.accumulate {
            Accumulate::Half2 => 2.0,
            Accumulate::F32 => 1.0,
        };
        Walk {
            steps: f64::from(layout.steps()) / f64::from(s.warps_k * s.split.per_tile()),
            weights: WEIGHTS_PER_PIECE * f64::from(s.rows),
            marks: s.rows * layout.packing().loads()
                + same_params
                + if load_bytes == 16 { activations } else { 0 },
            mark_bytes: load_bytes as u8,
            tensor: false,
            products: WEIGHTS_PER_PIECE * f64::from(s.rows * s.tokens) / products_at_once,
            ahead: 0.0,
            copy_turns: 1.0,
            many_tiles: false,
            producer_share: 0.0,
            stage_copies: 0,
        }
    }

    /// As [`Walk::mma`]; the copies are a producer's, one of whose warps serves all consumers.
    fn wgmma(s: &WgmmaSchedule, image: &KernelImage, weighted: u32, plain: u32) -> Walk {
        let fragments = s.block_k / 16;
        Walk {
            steps: ring_steps(s.split, image),
            weights: 8.0 * f64::from(fragments * s.row_tiles()),
            marks: fragments * (weighted * s.row_tiles() + plain),
            tensor: true,
            mark_bytes: 0,
            products: 0.0,
            ahead: 0.0,
            copy_turns: 1.0,
            many_tiles: s.split.stream().is_some(),
            producer_share: 32.0 / f64::from(s.consumer_threads()),
            // Weights, parameters, and every 64 of k of the activations.
            stage_copies: 1 + u32::from(has_stage_params(image)) + s.block_k / 64,
        }
    }

    /// `weighted` sums over weights, `plain` ones over activations alone.
    fn mma(s: &MmaSchedule, image: &KernelImage, weighted: u32, plain: u32) -> Walk {
        let fragments = s.warp_k() / 16;
        let per_k16 = s.token_tiles() * (weighted * s.row_tiles() + plain);
        let pieces = (s.stage_act_bytes() / 16).max(1);
        Walk {
            steps: ring_steps(s.split, image),
            // A 16x16 fragment is eight weights per lane.
            weights: 8.0 * f64::from(fragments * s.row_tiles()),
            marks: fragments * per_k16,
            tensor: true,
            mark_bytes: 0,
            products: 0.0,
            ahead: f64::from(s.stages - 1),
            copy_turns: f64::from(pieces.div_ceil(s.threads())),
            many_tiles: s.split.stream().is_some(),
            producer_share: 0.0,
            stage_copies: 0,
        }
    }

    /// How often each loop runs per entry, or `None` if none of them is the main loop.
    fn trips(&self, program: &Program) -> Option<Vec<f64>> {
        let mut trips = vec![0.0; program.loops.len()];
        let mut main: Vec<(f64, usize)> = Vec::new();
        for index in 0..program.loops.len() {
            let steps = f64::from(self.marks_in(program, index)) / f64::from(self.marks);
            let own = &program.loops[index].own;
            let products = f64::from(own.get(Class::Half2) + own.get(Class::Fp32));
            if steps >= 1.0 && products >= steps * self.products {
                main.push((steps, index));
            }
        }
        if main.is_empty() {
            return None;
        }
        deal(self.steps, &mut main, &mut trips);
        // A share is walked as if it were one tile.
        for outer in main.iter().flat_map(|(_, main)| self.around(program, *main)) {
            trips[outer] = 1.0;
        }
        for (index, body) in program.loops.iter().enumerate() {
            let inside = |main: usize| body.parent == Some(main);
            let copies = body.own.get(Class::AsyncCopy) > 0;
            if main.iter().any(|(_, m)| inside(*m)) {
                trips[index] = if copies { self.copy_turns } else { 1.0 };
            } else if copies && trips[index] == 0.0 {
                trips[index] = self.ahead;
            }
        }
        if self.stage_copies > 0 {
            self.producer_trips(program, &mut trips);
        }
        Some(trips)
    }

    /// The loop over output tiles around the main loop, whose own instructions are epilogues.
    fn around(&self, program: &Program, main: usize) -> Option<usize> {
        program.loops[main].parent.filter(|_| self.many_tiles)
    }

    /// How often the loops of a producer run, one warp's share of it. Its waits are inside of them.
    fn producer_trips(&self, program: &Program, trips: &mut [f64]) {
        let copies = |index: usize| program.loops[index].own.get(Class::BulkCopy);
        let inside = |outer: usize| {
            let loops = program.loops.iter().enumerate();
            loops.filter(move |(_, body)| body.parent == Some(outer)).map(|(index, _)| index)
        };
        let mut found = Vec::new();
        for (index, body) in program.loops.iter().enumerate() {
            let all = copies(index) + inside(index).map(copies).sum::<u32>();
            if body.parent.is_none() && all > 0 {
                found.push((f64::from(all) / f64::from(self.stage_copies), index));
                inside(index).for_each(|index| trips[index] = 1.0);
            }
        }
        deal(self.steps, &mut found, trips);
        found.iter().for_each(|(_, index)| trips[*index] *= self.producer_share);
    }

    /// Instructions that mark steps among a loop's own.
    fn marks_in(&self, program: &Program, index: usize) -> u32 {
        let body = &program.loops[index];
        if self.tensor {
            return body.own.sum(&[Class::Tensor, Class::TensorGroup]);
        }
        let inner = |pc: u32| {
            let loops = program.loops.iter().enumerate();
            loops.into_iter().any(|(i, l)| i != index && l.parent == Some(index) && l.contains(pc))
        };
        let loads = program.loop_instructions(index).filter(|i| {
            i.class == Class::GlobalLoad
                && i.bytes_per_lane == Some(self.mark_bytes)
                && !inner(i.pc)
        });
        loads.count() as u32
    }
}
