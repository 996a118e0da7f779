//! What the machine code says about a candidate's cost, before anything has run.

use crate::terms::context;
use qtune_device::KernelImage;
use qtune_ir::dequant::{Lowered, Term};
use qtune_ir::{Accumulate, DType, GemvSchedule, MmaSchedule, Schedule, WeightSpec};
use qtune_sim::cubin::Cubin;
use qtune_sim::sass::{Class, Instruction, Program};

/// Weights in one 16-byte load.
const WEIGHTS_PER_LOAD: f64 = 32.0;
/// Weights of a 16x16 fragment in one lane.
const WEIGHTS_PER_FRAGMENT: f64 = 8.0;

/// Lane-instructions per weight of the main loop, inner loops taken once, and of the loops that
/// fill its ring.
///
/// `None` if the code has no loop that does the arithmetic, or cannot be read. This ranks
/// candidates; what is recorded of a winner is the verifier's count, which also knows how often
/// loops run that the compiler unrolled.
pub(crate) fn instructions_per_weight(image: &KernelImage, spec: &WeightSpec) -> Option<f64> {
    let cubin = Cubin::parse(&image.cubin).ok()?;
    let code = cubin.kernel(&image.kernel.entry)?;
    let program = Program::decode(&code.text, cubin.sm).ok()?;
    let main = program.main_loop()?;
    let body: Vec<&Instruction> = program.loop_instructions(main).collect();
    let (weights, copies) = match &image.kernel.schedule {
        Schedule::Gemv(s) => (gemv_weights(s, image.kernel.problem.act, &body), 0.0),
        Schedule::Mma(s) => {
            let steps = f64::from(image.kernel.layout.steps()) / f64::from(s.split_k);
            let fragments = s.warp_k() / 16 * s.row_tiles();
            let all_weights = steps * f64::from(fragments) * WEIGHTS_PER_FRAGMENT;
            let filling = f64::from(s.stages - 1) * copying(&program, None, main) / all_weights;
            let weights = mma_weights(s, &Sums::of(image, spec)?, &body);
            // A loop that copies activations piece by piece is in the body once.
            let turns = (s.stage_act_bytes() / 16).div_ceil(s.threads()).max(1);
            let copying = f64::from(turns - 1) * copying(&program, Some(main), main);
            (weights, filling + copying / weights)
        }
    };
    let plausible = weights > 0.0 && multiplies(image, &body, weights);
    plausible.then(|| body.len() as f64 / weights + copies)
}

/// Weights of one lane in a turn of a `gemv` main loop: told by its 16-byte loads.
fn gemv_weights(s: &GemvSchedule, act: DType, body: &[&Instruction]) -> f64 {
    let wide = |i: &&&Instruction| i.class == Class::GlobalLoad && i.bytes_per_lane == Some(16);
    let loads = body.iter().filter(wide).count();
    let activations = match (s.stage_x, act) {
        (true, _) => 0,
        (false, DType::F32) => 8 * s.tokens,
        (false, _) => 4 * s.tokens,
    };
    let steps = loads as f64 / f64::from(s.rows + activations);
    steps * f64::from(s.rows) * WEIGHTS_PER_LOAD
}

/// Whether a loop can be the one that multiplies so many weights. Where the compiler unrolled the
/// whole walk along K, what is left may be a loop that stages activations.
fn multiplies(image: &KernelImage, body: &[&Instruction], weights: f64) -> bool {
    let Schedule::Gemv(s) = &image.kernel.schedule else { return true };
    let products = weights * f64::from(s.tokens);
    let packed = |i: &&&Instruction| matches!(i.class, Class::Half2 | Class::Fp32);
    match s.accumulate {
        Accumulate::Half2 => body.iter().filter(packed).count() as f64 >= products / 2.0,
        Accumulate::F32 => body.iter().filter(packed).count() as f64 >= products,
    }
}

/// Weights of one lane in a turn of an `mma` main loop: told by its tensor instructions.
fn mma_weights(s: &MmaSchedule, sums: &Sums, body: &[&Instruction]) -> f64 {
    let products = body.iter().filter(|i| i.class == Class::Tensor).count();
    let per_k16 = s.token_tiles() * (sums.weighted * s.row_tiles() + sums.plain);
    let k16_steps = products as f64 / f64::from(per_k16);
    k16_steps * f64::from(s.row_tiles()) * WEIGHTS_PER_FRAGMENT
}

/// Instructions of the loops right inside `parent` that copy a stage, `main` itself left out.
fn copying(program: &Program, parent: Option<usize>, main: usize) -> f64 {
    let loops = program.loops.iter().enumerate();
    let copies = loops.filter(|(index, l)| {
        *index != main && l.parent == parent && l.own.get(Class::AsyncCopy) > 0
    });
    copies.map(|(_, l)| f64::from(l.own.total())).sum()
}

/// Sums over k in a dequantization term: over weights, and over activations alone.
struct Sums {
    weighted: u32,
    plain: u32,
}

impl Sums {
    fn of(image: &KernelImage, spec: &WeightSpec) -> Option<Sums> {
        let schedule = &image.kernel.schedule;
        let context = context(&image.kernel.problem, spec, schedule);
        let term: Term = schedule.dequant().parse().ok()?;
        let lowered = Lowered::new(&term, &context).ok()?;
        let weighted = lowered.sums.iter().filter(|sum| sum.weight.is_some()).count() as u32;
        Some(Sums { weighted, plain: lowered.sums.len() as u32 - weighted })
    }
}
