//! What the machine code of a main loop says about a candidate's cost, before anything has run.

use qtune_device::KernelImage;
use crate::terms::context;
use qtune_ir::dequant::{Lowered, Term};
use qtune_ir::{DType, Schedule, WeightSpec};
use qtune_sim::cubin::Cubin;
use qtune_sim::sass::{Class, Program};

/// Weights in one 16-byte load.
const WEIGHTS_PER_LOAD: f64 = 32.0;
/// Weights of a 16x16 fragment in one lane.
const WEIGHTS_PER_FRAGMENT: f64 = 8.0;

/// Lane-instructions per weight of the main loop in steady state, inner loops taken once.
///
/// `None` if the code has no loop that does the arithmetic, or cannot be read. This ranks
/// candidates; what is recorded of a winner is the verifier's count, which also knows how often
/// the other loops run.
pub(crate) fn main_loop_instructions(image: &KernelImage, spec: &WeightSpec) -> Option<f64> {
    let cubin = Cubin::parse(&image.cubin).ok()?;
    let code = cubin.kernel(&image.kernel.entry)?;
    let program = Program::decode(&code.text, cubin.sm).ok()?;
    let index = program.main_loop()?;
    let body: Vec<_> = program.loop_instructions(index).collect();
    let weights = match &image.kernel.schedule {
        Schedule::Gemv(s) => {
            let loads = body
                .iter()
                .filter(|i| i.class == Class::GlobalLoad && i.bytes_per_lane == Some(16))
                .count();
            let others = match (s.stage_x, image.kernel.problem.act) {
                (true, _) => 0,
                (false, DType::F32) => 8 * s.tokens,
                (false, _) => 4 * s.tokens,
            };
            let steps = loads as f64 / f64::from(s.rows + others);
            steps * f64::from(s.rows) * WEIGHTS_PER_LOAD
        }
        Schedule::Mma(s) => {
            let products = body.iter().filter(|i| i.class == Class::Tensor).count();
            let sums = Sums::of(image, spec)?;
            let per_k16 = s.token_tiles() * (sums.weighted * s.row_tiles() + sums.plain);
            let k16_steps = products as f64 / f64::from(per_k16);
            k16_steps * f64::from(s.row_tiles()) * WEIGHTS_PER_FRAGMENT
        }
    };
    (weights > 0.0).then(|| body.len() as f64 / weights)
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
