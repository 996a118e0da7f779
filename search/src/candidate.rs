//! A schedule on its way up the ladder.

use qtune_ir::tile::{DequantChoice, Estimate};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
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
