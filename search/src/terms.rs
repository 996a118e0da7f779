//! Dequantization terms for schedules, from the algebra's e-graph, each found once.

use qtune_ir::dequant::{
    packing_rule, variants, Context, CostModel, CostParams, DequantError, Engine, Lowered, Options,
    PairTable, Rounding, Variant,
};
use qtune_ir::tile::DequantChoice;
use qtune_ir::{Arch, DType, Problem, Schedule, WeightSpec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the Pareto front of an engine depends on: format, activations, engine, cost parameters and rules
/// that are left out.
type Key = (String, DType, Engine, [u32; 5], &'static [&'static str]);

/// The terms of all problems of a search. Several threads may ask.
#[derive(Debug)]
pub(crate) struct Terms {
    arch: Arch,
    exact: bool,
    found: Mutex<HashMap<Key, Arc<Vec<DequantChoice>>>>,
}

impl Terms {
    /// `exact` leaves only terms that round as the checkpoint's reference does.
    pub fn new(arch: &Arch, exact: bool) -> Terms {
        Terms { arch: arch.clone(), exact, found: Mutex::default() }
    }

    /// What no other term beats in cost, rounding and shared memory, cheapest first; empty if the engine
    /// cannot compute the format.
    pub fn all(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Arc<Vec<DequantChoice>> {
        let params = schedule.cost_params(problem, spec);
        let CostParams { group, segment, tokens, row_tiles, row_lanes } = params;
        let engine = schedule.engine();
        let rules = schedule.useless_rules(spec);
        let sizes = [group, segment, tokens, row_tiles, row_lanes];
        let key = (spec.name.clone(), problem.act, engine, sizes, rules);
        let lock = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Arc::clone(found);
        }
        let context = schedule.context(problem, spec);
        let terms = Arc::new(self.search(&context, &params, rules));
        lock().insert(key, Arc::clone(&terms));
        terms
    }

    /// Of [`Terms::all`] the cheapest for each size of shared memory: what a new shape is tried with.
    pub fn offers(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Vec<DequantChoice> {
        let mut sizes = Vec::new();
        let mut new = |choice: &&DequantChoice| {
            let size = PairTable::of_term(&choice.term).map(PairTable::bytes);
            let new = !sizes.contains(&size);
            sizes.push(size);
            new
        };
        self.all(problem, spec, schedule).iter().filter(&mut new).cloned().collect()
    }

    fn variants(&self, context: &Context, params: &CostParams, disabled: &[&str]) -> Vec<Variant> {
        let options = Options { disabled_rules: disabled, ..Options::default() };
        match variants(context, params, &self.arch, &options) {
            Ok(search) => search.variants,
            Err(error) => {
                tracing::debug!(%error, "no dequantization term");
                Vec::new()
            }
        }
    }

    fn search(
        &self,
        context: &Context,
        params: &CostParams,
        disabled: &[&str],
    ) -> Vec<DequantChoice> {
        let mut found = self.variants(context, params, disabled);
        // What scales are made of is fewer bytes than scales: a term that costs more may save traffic.
        if let Some(rule) = packing_rule(&context.spec) {
            let known: Vec<String> = found.iter().map(|v| v.term.to_string()).collect();
            let others = self.variants(context, params, &[disabled, &[rule]].concat());
            found.extend(others.into_iter().filter(|v| !known.contains(&v.term.to_string())));
            found.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        }
        let usable = found.into_iter().filter(|variant| {
            let lowered = Lowered::new(&variant.term, context);
            // Codes that are multiplied as they are are not rounded at all.
            let rounds = !context.spec.activations.are_quantized() && !is_exact(variant);
            !(rounds && self.exact) && lowered.is_ok_and(|l| family_takes(context.engine, &l))
        });
        let choice = |variant: Variant| DequantChoice {
            term: variant.term.to_string(),
            instructions_per_weight: variant.cost,
        };
        usable.map(choice).collect()
    }
}

/// Lane-instructions per weight of a schedule's own dequantization term.
///
/// # Errors
/// [`DequantError`] if the term is none that the schedule's engine can compute.
pub(crate) fn dequant_cost(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
) -> Result<Variant, DequantError> {
    let context = schedule.context(problem, spec);
    let params = schedule.cost_params(problem, spec);
    let model = CostModel::new(&context, &params, arch);
    Variant::of(schedule.dequant().parse()?, &context, &model)
}

/// Whether weights are rounded just as the checkpoint's reference rounds them, and nothing else.
pub(crate) fn is_exact(variant: &Variant) -> bool {
    Rounding::WEIGHT_ROUNDED.contains(variant.rounding)
}

/// Tensor-core kernels copy activations to shared memory as they are: nothing scales them.
fn family_takes(engine: Engine, lowered: &Lowered) -> bool {
    engine != Engine::Mma || lowered.sums.iter().all(|sum| sum.activation_scale == 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(text: &str) -> (Problem, WeightSpec, Arch, Schedule) {
        let problem: Problem = "w4a16.awq-g128.f16-f16.n5120.k5120.m16".parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        (problem, spec, Arch::named("h200").unwrap(), text.parse().unwrap())
    }

    const MMA: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows \
                       dequant=x";

    #[test]
    fn every_engine_has_a_choice_of_terms_and_the_cheapest_is_first() {
        let (problem, spec, arch, schedule) = fixture(MMA);
        let terms = Terms::new(&arch, false).all(&problem, &spec, &schedule);
        assert!(terms.len() >= 2, "{terms:?}");
        let costs: Vec<f64> = terms.iter().map(|t| t.instructions_per_weight).collect();
        assert!(costs.windows(2).all(|pair| pair[0] <= pair[1]), "{costs:?}");
    }

    #[test]
    fn scales_that_have_codes_are_offered_made_in_the_kernel_and_packed() {
        let (_, _, arch, schedule) = fixture(MMA);
        let problem: Problem = "w4a16.nf4-b64-dq.f16-f16.n5120.k5120.m16".parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let terms = Terms::new(&arch, false).all(&problem, &spec, &schedule);
        let legal = |term: &&DequantChoice| {
            schedule.with_dequant(&term.term).check(&problem, &spec, &arch).is_ok()
        };
        let (made, packed): (Vec<_>, Vec<_>) =
            terms.iter().filter(legal).partition(|term| term.term.contains("(nested s c n)"));
        assert!(!made.is_empty() && !packed.is_empty(), "{terms:?}");
    }

    #[test]
    fn exact_terms_are_fewer_and_never_move_the_scale_out_of_the_sum() {
        let (problem, spec, arch, schedule) = fixture(MMA);
        let free = Terms::new(&arch, false).all(&problem, &spec, &schedule);
        let exact = Terms::new(&arch, true).all(&problem, &spec, &schedule);
        assert!(!exact.is_empty() && exact.len() < free.len(), "{exact:?}");
        assert!(exact.iter().all(|t| t.term.starts_with("(sum")), "{exact:?}");
    }

    #[test]
    fn what_is_dequantized_ahead_is_offered_terms_of_whole_weights() {
        let gemm = MMA.replace(
            "tile=16x64x256 warps=1x4 stages=4 split=2",
            "tile=16x64x64 warps=4x1 stages=3 split=1",
        );
        let (_, _, arch, schedule) = fixture(&format!("dequant slab=256 gemm={gemm}"));
        let terms = Terms::new(&arch, false);
        for format in ["awq-g128", "q4_k"] {
            let problem: Problem =
                format!("w4a16.{format}.f16-f16.n512.k1024.m16").parse().unwrap();
            let spec = qtune_formats::resolve(format).unwrap();
            let all = terms.all(&problem, &spec, &schedule);
            assert!(!all.is_empty() && all.iter().all(|t| t.term.starts_with("(sum")), "{all:?}");
        }
    }
}
