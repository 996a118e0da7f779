//! A schedule on its way up the ladder.

use qtune_ir::tile::{DequantChoice, Estimate};
use qtune_ir::{Arch, DenseGemm, Problem, Schedule, WeightSpec};
use std::cmp::Ordering;

/// A schedule, what the cost model says of it, and the rung that proposed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The schedule, with its dequantization term.
    pub schedule: Schedule,
    /// The schedule's text: the last word in every ranking.
    pub text: String,
    /// Lane-instructions per weight of the dequantization term.
    pub dequant_cost: f64,
    /// The cost model's word.
    pub estimate: Estimate,
    /// The rung that proposed it, from 1; 0 for the default schedule.
    pub rung: u8,
}

impl Candidate {
    /// `schedule` with the term of `choice`, modelled.
    pub(crate) fn new(
        (problem, spec, arch): (&Problem, &WeightSpec, &Arch),
        schedule: &Schedule,
        choice: &DequantChoice,
        rung: u8,
    ) -> Candidate {
        let schedule = schedule.with_dequant(&choice.term);
        let dequant_cost = choice.instructions_per_weight;
        let estimate = qtune_ir::tile::estimate(problem, spec, arch, &schedule, dequant_cost);
        Candidate { text: schedule.to_string(), schedule, dequant_cost, estimate, rung }
    }

    /// The faster first. What the model cannot tell apart stays with the earlier rung: a change
    /// that brings nothing is not made. Then the text decides, so that the order is total.
    pub(crate) fn order(&self, other: &Candidate) -> Ordering {
        let picoseconds = |c: &Candidate| (c.estimate.time_us * 1e6).round();
        picoseconds(self)
            .total_cmp(&picoseconds(other))
            .then(self.rung.cmp(&other.rung))
            .then_with(|| self.text.cmp(&other.text))
    }
}

/// The cost term of issuing instructions.
const ISSUE: &str = "issue";
/// Times within this factor of the best are the same to the cost model. Its absolute error is
/// larger, but mostly common to the schedules of one problem.
const MODEL_NOISE: f64 = 1.05;
/// What the model may miss of each further token tile, as a share of the time: it has the weights
/// come from L2 without delay.
const REREAD: f64 = 0.03;
/// Matrices of at least this many bytes must keep [`IN_FLIGHT`] bytes under way.
const LARGE_MATRIX: u64 = 8 << 20;
/// Bytes of loads in flight per SM that hide DRAM's latency (Little's law: 4.8 TB/s times 0.8 us
/// over 132 SMs is 29 KB; loads are not spread evenly).
const IN_FLIGHT: u64 = 40 << 10;
/// Share of the time that issuing instructions takes which may not hide behind memory and tensor
/// cores, beyond what the model has for it.
const EXPOSED: f64 = 0.25;
/// Instructions per weight nearer than this are the same.
const INSTRUCTIONS_STEP: f64 = 0.02;
/// Times that differ by less than this share are the same.
const TIME_STEP: f64 = 0.005;

/// The order in which candidates of one problem deserve to win when nothing is timed: of those
/// that are as fast as the best within the model's noise, and keep enough loads in flight without
/// bank conflicts, the one that is fastest if part of its instructions shows. So one that is a
/// little slower by the model wins if it has enough fewer instructions to make up for it, and no
/// time is given away for a few of them.
pub(crate) struct Preference {
    tokens: u32,
    fastest_us: f64,
    in_flight: u64,
}

impl Preference {
    /// The preference among `candidates`.
    pub fn among<'a>(
        problem: &Problem,
        spec: &WeightSpec,
        candidates: impl Iterator<Item = &'a Candidate>,
    ) -> Preference {
        let large = spec.compulsory_bytes(problem.n, problem.k) >= LARGE_MATRIX;
        Preference {
            tokens: problem.m,
            fastest_us: candidates.map(|c| c.estimate.time_us).fold(f64::INFINITY, f64::min),
            in_flight: if large { IN_FLIGHT } else { 0 },
        }
    }

    /// The preferred first. Of equals the one nearer to the sketches: what the model does not price
    /// stays as the tiling set it.
    pub fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        let steps = |value: f64, step: f64| (value / step).round();
        let key = |c: &Candidate| {
            let sound = c.estimate.bytes_in_flight_per_sm >= self.in_flight && conflict_free(c);
            match sound && self.near(c) {
                true => (0, steps(exposed_us(c) / self.fastest_us, TIME_STEP)),
                // Where nothing is near, as large tiles are not that read weights again, time decides.
                false => (1, steps(c.estimate.time_us / self.fastest_us, TIME_STEP)),
            }
        };
        let by_key = |a: (u8, f64), b: (u8, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let instructions =
            |c: &Candidate| steps(c.estimate.lane_instructions_per_weight, INSTRUCTIONS_STEP);
        let time = |c: &Candidate| steps(c.estimate.time_us / self.fastest_us, TIME_STEP);
        by_key(key(a), key(b))
            .then(instructions(a).total_cmp(&instructions(b)))
            .then(time(a).total_cmp(&time(b)))
            .then(a.rung.cmp(&b.rung))
            .then_with(|| a.order(b))
    }

    /// Whether a candidate is as fast as the best within the model's noise, the weights that
    /// further token tiles read again held against it.
    fn near(&self, candidate: &Candidate) -> bool {
        let again = self.tokens.div_ceil(candidate.schedule.tile().1) - 1;
        let time_us = candidate.estimate.time_us * (1.0 + REREAD * f64::from(again));
        time_us <= MODEL_NOISE * self.fastest_us
    }
}

/// The modelled time with part of the instructions not hidden, in microseconds.
fn exposed_us(candidate: &Candidate) -> f64 {
    let issue = candidate.estimate.terms.iter().find(|term| term.name == ISSUE);
    candidate.estimate.time_us + EXPOSED * issue.map_or(0.0, |term| term.us)
}

/// Whether shared memory is read without bank conflicts, as far as the schedule decides it.
fn conflict_free(candidate: &Candidate) -> bool {
    match &candidate.schedule {
        Schedule::Gemv(_) | Schedule::Wgmma(_) => true,
        Schedule::Mma(s) => s.padded,
        Schedule::Dequant(s) => match &s.gemm {
            DenseGemm::Mma(s) => s.padded,
            DenseGemm::Wgmma(_) | DenseGemm::Library(_) => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::tile::DequantChoice;

    fn candidate(text: &str, time_us: f64, instructions: f64) -> Candidate {
        let problem: Problem = "w4a16.awq-g128.f16-f16.n5120.k5120.m16".parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named("h200").unwrap();
        let choice = DequantChoice { term: "(sum x)".into(), instructions_per_weight: 1.0 };
        let schedule = format!("{text} dequant=(sum x)").parse().unwrap();
        let mut candidate = Candidate::new((&problem, &spec, &arch), &schedule, &choice, 1);
        candidate.estimate.time_us = time_us;
        candidate.estimate.lane_instructions_per_weight = instructions;
        for term in candidate.estimate.terms.iter_mut().filter(|term| term.name == ISSUE) {
            term.us = instructions;
        }
        candidate
    }

    const WIDE: &str = "mma tile=16x128x256 warps=2x2 stages=3 split=2 pad=16 raster=rows";
    const DEEP: &str = "mma tile=16x128x256 warps=2x2 stages=4 split=2 pad=16 raster=rows";
    const LONE: &str = "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
                        cache=normal";

    fn preferred(candidates: [Candidate; 2]) -> String {
        preferred_for(16, candidates)
    }

    fn preferred_for(m: u32, candidates: [Candidate; 2]) -> String {
        let problem = format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}");
        let problem: Problem = problem.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let preference = Preference::among(&problem, &spec, candidates.iter());
        let first = candidates.into_iter().min_by(|a, b| preference.order(a, b));
        first.unwrap().text.replace(" dequant=(sum x)", "")
    }

    #[test]
    fn where_every_tile_reads_weights_again_the_fastest_wins() {
        let candidates = [candidate(WIDE, 10.0, 4.0), candidate(DEEP, 20.0, 1.0)];
        assert_eq!(preferred_for(512, candidates), WIDE);
    }

    #[test]
    fn inside_the_models_noise_instructions_count_as_far_as_they_may_show() {
        assert_eq!(preferred([candidate(WIDE, 10.0, 4.0), candidate(DEEP, 10.4, 2.0)]), DEEP);
        assert_eq!(preferred([candidate(WIDE, 10.0, 4.0), candidate(DEEP, 10.6, 1.0)]), WIDE);
        assert_eq!(preferred([candidate(WIDE, 10.0, 2.0), candidate(DEEP, 10.4, 1.9)]), WIDE);
        assert_eq!(preferred([candidate(WIDE, 10.0, 2.0), candidate(DEEP, 10.01, 1.97)]), DEEP);
    }

    #[test]
    fn further_token_tiles_must_be_nearer_to_the_best() {
        let narrow = DEEP.replace("16x128", "8x128");
        let wide = candidate(WIDE, 10.0, 4.0);
        assert_eq!(preferred([wide.clone(), candidate(&narrow, 10.6, 1.2)]), WIDE);
        assert_eq!(preferred([wide, candidate(&narrow, 10.1, 1.2)]), narrow);
    }

    #[test]
    fn bank_conflicts_are_never_preferred_for_their_instructions() {
        let conflicts = DEEP.replace("pad=16", "pad=0");
        let preferred = preferred([candidate(WIDE, 10.0, 2.0), candidate(&conflicts, 10.0, 1.0)]);
        assert_eq!(preferred, WIDE);
    }

    #[test]
    fn too_few_loads_in_flight_are_never_preferred_for_their_instructions() {
        assert_eq!(preferred([candidate(WIDE, 10.0, 2.0), candidate(LONE, 10.1, 1.0)]), WIDE);
    }
}
