//! The rungs: sketches from the tiling e-graph, then neighbours of the best, ranked by the model.

use crate::candidate::{Candidate, Preference};
use crate::neighbours::{neighbours, Extent, RUNGS};
use crate::report::Failures;
use crate::request::{Limits, Task};
use crate::terms::Terms;
use crate::SearchError;
use qtune_ir::tile::{self, DequantChoice, Options, Space};
use qtune_ir::{Arch, Family, Rejected, Schedule, Structure};
use std::collections::HashSet;

/// Candidates of one shape that a rung keeps, at most.
const VARIANTS_OF_SHAPE: usize = 2;
/// The first of a structure is kept if it is within this factor of the fastest: what a cost model
/// that is wrong about a structure as a whole may miss.
const NEAR_STRUCTURE: f64 = 1.2;
/// The best of another family is compiled for comparison up to this many times the best time.
const FAR_BEHIND: f64 = 1.5;

/// What the ladder found for one problem.
#[derive(Clone, Debug)]
pub(crate) struct Climb {
    /// The best, the fastest first: what is worth compiling.
    pub finalists: Vec<Candidate>,
    /// Everything that a rung kept, once, in the order of rungs: for the trial log.
    pub kept: Vec<Candidate>,
    /// Nests that the tiling e-graph offered.
    pub sketches_considered: usize,
    /// Everything legal that was ranked, each once.
    pub ranked: Vec<Candidate>,
    /// Neighbours that were left out, by cause.
    pub rejected: Failures,
    /// Everything that was considered, if [`Ladder::survey`] was asked for it.
    pub space: Option<Space>,
}

impl Climb {
    fn reject(&mut self, schedule: &Schedule, cause: String) {
        if let Some(space) = &mut self.space {
            space.count(schedule, Some(&cause));
        }
        *self.rejected.entry(cause).or_default() += 1;
    }

    fn rank(&mut self, candidate: &Candidate) {
        if let Some(space) = &mut self.space {
            space.count(&candidate.schedule, None);
        }
        self.ranked.push(candidate.clone());
    }
}

/// What the ladder needs to know.
pub(crate) struct Ladder<'a> {
    pub task: &'a Task,
    pub arch: &'a Arch,
    pub terms: &'a Terms,
    pub limits: Limits,
    /// Schedules that must not be tried again.
    pub poisoned: &'a HashSet<String>,
}

impl Ladder<'_> {
    /// Climbs all rungs.
    ///
    /// # Errors
    /// [`SearchError::Tile`] if the e-graph holds no legal sketch.
    pub fn climb(&self) -> Result<Climb, SearchError> {
        self.climb_from(self.sketches(false)?)
    }

    /// Climbs all rungs, and surveys the space.
    ///
    /// # Errors
    /// As [`Ladder::climb`].
    pub fn survey(&self) -> Result<Climb, SearchError> {
        self.climb_from(self.sketches(true)?)
    }

    fn climb_from(&self, mut climb: Climb) -> Result<Climb, SearchError> {
        let mut seen: HashSet<String> = climb.kept.iter().map(|c| c.text.clone()).collect();
        let mut pool = self.keep_of_each_family(&climb.kept);
        for _ in 0..self.limits.passes {
            for rung in RUNGS {
                let fresh = self.rung(rung, &pool, &mut seen, &mut climb);
                fresh.iter().for_each(|candidate| climb.rank(candidate));
                pool.extend(fresh);
                pool = self.keep_of_each_family(&pool);
                // A later pass may keep again what an earlier rung kept.
                let new = pool.iter().filter(|c| climb.kept.iter().all(|k| k.text != c.text));
                let new: Vec<Candidate> = new.cloned().collect();
                climb.kept.extend(new);
            }
        }
        climb.finalists = self.keep(&climb.kept, self.limits.finalists);
        climb.finalists.extend(self.best_of_other_families(&climb));
        climb.finalists.sort_by(Candidate::order);
        Ok(climb)
    }

    fn sketches(&self, survey: bool) -> Result<Climb, SearchError> {
        let Task { problem, spec, .. } = self.task;
        let offers = |s: &Schedule| self.terms.offers(problem, spec, s);
        let options = Options { k: self.limits.sketches, survey, ..Options::default() };
        let search = tile::sketches(problem, spec, self.arch, &offers, &options)?;
        let own_choice = |s: &Schedule| offers(s).into_iter().find(|c| c.term == s.dequant());
        let kept: Vec<Candidate> = search
            .sketches
            .iter()
            .filter_map(|sketch| Some((&sketch.schedule, own_choice(&sketch.schedule)?)))
            .map(|(schedule, choice)| self.candidate(schedule, &choice, 1))
            .filter(|candidate| !self.poisoned.contains(&candidate.text))
            .collect();
        Ok(Climb {
            finalists: Vec::new(),
            ranked: kept.clone(),
            kept,
            sketches_considered: search.considered,
            rejected: Failures::new(),
            space: survey.then_some(search.space),
        })
    }

    /// The legal neighbours of `pool` that nobody has seen.
    fn rung(
        &self,
        rung: u8,
        pool: &[Candidate],
        seen: &mut HashSet<String>,
        climb: &mut Climb,
    ) -> Vec<Candidate> {
        let mut fresh = Vec::new();
        for parent in pool {
            for schedule in self.schedules(rung, parent) {
                // The shape alone: the term that it gets may need less shared memory.
                if let Err(illegal) = self.check(&schedule.with_dequant("")) {
                    if seen.insert(schedule.to_string()) {
                        climb.reject(&schedule, without_numbers(&illegal.reason));
                    }
                    continue;
                }
                for choice in self.choices(rung, parent, &schedule) {
                    let complete = schedule.with_dequant(&choice.term);
                    if !seen.insert(complete.to_string()) {
                        continue;
                    }
                    if let Err(illegal) = self.check(&complete) {
                        climb.reject(&complete, without_numbers(&illegal.reason));
                        continue;
                    }
                    let candidate = self.candidate(&schedule, &choice, rung);
                    match self.refusal(&candidate) {
                        Some(cause) => climb.reject(&complete, cause.into()),
                        None => fresh.push(candidate),
                    }
                }
            }
        }
        fresh
    }

    fn schedules(&self, rung: u8, parent: &Candidate) -> Vec<Schedule> {
        let problem = &self.task.problem;
        let extent = Extent { tokens: problem.m, rows: problem.n, sms: self.arch.sm_count };
        let mut schedules = neighbours(&parent.schedule, rung, extent);
        if rung == 4 {
            schedules.push(parent.schedule.clone());
        }
        schedules
    }

    /// The terms to try with a neighbour: the cheapest of each size where the shape changed, all of
    /// them at rung 4, elsewhere the parent's.
    fn choices(&self, rung: u8, parent: &Candidate, schedule: &Schedule) -> Vec<DequantChoice> {
        let Task { problem, spec, .. } = self.task;
        match rung {
            2 => self.terms.offers(problem, spec, schedule),
            4 => self.terms.all(problem, spec, schedule).to_vec(),
            _ => vec![DequantChoice {
                term: parent.schedule.dequant().into(),
                instructions_per_weight: parent.dequant_cost,
            }],
        }
    }

    fn check(&self, schedule: &Schedule) -> Result<(), Rejected> {
        schedule.check(&self.task.problem, &self.task.spec, self.arch)
    }

    fn candidate(&self, schedule: &Schedule, choice: &DequantChoice, rung: u8) -> Candidate {
        let Task { problem, spec, .. } = self.task;
        Candidate::new((problem, spec, self.arch), schedule, choice, rung)
    }

    /// The best of each family: families climb apart, because what the model gets wrong about one
    /// of them must not push it out before anything is compiled.
    fn keep_of_each_family(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let of = |family| {
            let own = candidates.iter().filter(|c| c.schedule.family() == family);
            self.keep(&own.cloned().collect::<Vec<_>>(), self.limits.kept)
        };
        Family::ALL.into_iter().flat_map(of).collect()
    }

    /// The best `count`, the fastest first. Half of the places go to the first of each structure
    /// that is near, the rest to the first of all, in an order that takes the fastest and the most
    /// preferred by turns; but few of any one shape, so that one shape's variants do not crowd out
    /// the others.
    fn keep(&self, candidates: &[Candidate], count: usize) -> Vec<Candidate> {
        let order = self.by_turns(candidates);
        let Some(fastest) = order.first().map(|c| c.estimate.time_us) else { return Vec::new() };
        let mut structures = HashSet::new();
        let mut first = |c: &&Candidate| {
            c.estimate.time_us <= NEAR_STRUCTURE * fastest
                && structures.insert(c.schedule.structure())
        };
        let firsts: Vec<&Candidate> =
            order.iter().copied().filter(&mut first).take(count.div_ceil(2)).collect();
        let mut kept: Vec<&Candidate> = Vec::new();
        for candidate in firsts.into_iter().chain(order) {
            let own = shape(&candidate.schedule);
            let alike = kept.iter().filter(|k| shape(&k.schedule) == own).count();
            let new = kept.iter().all(|k| k.text != candidate.text);
            if new && kept.len() < count && alike < VARIANTS_OF_SHAPE {
                kept.push(candidate);
            }
        }
        let mut kept: Vec<Candidate> = kept.into_iter().cloned().collect();
        kept.sort_by(Candidate::order);
        kept
    }

    /// By turns the fastest and the most preferred: every candidate comes twice.
    fn by_turns<'c>(&self, candidates: &'c [Candidate]) -> Vec<&'c Candidate> {
        let Task { problem, spec, .. } = self.task;
        let preference = Preference::among(problem, spec, candidates.iter());
        let mut fast: Vec<&Candidate> = candidates.iter().collect();
        let mut preferred = fast.clone();
        fast.sort_by(|a, b| a.order(b));
        preferred.sort_by(|a, b| preference.order(a, b));
        fast.into_iter().zip(preferred).flat_map(|(a, b)| [a, b]).collect()
    }

    /// The fastest of each family that has no finalist, unless it is far behind.
    fn best_of_other_families(&self, climb: &Climb) -> Vec<Candidate> {
        let Some(fastest) = climb.finalists.first() else { return Vec::new() };
        let limit = fastest.estimate.time_us * FAR_BEHIND;
        let best = |family: Family| {
            let of = |all: &[Candidate]| {
                all.iter().filter(|c| c.schedule.family() == family).cloned().collect::<Vec<_>>()
            };
            let missing = of(&climb.finalists).is_empty();
            let best = of(&climb.kept).into_iter().min_by(|a, b| a.order(b));
            best.filter(|best| missing && best.estimate.time_us <= limit)
        };
        Family::ALL.into_iter().filter_map(best).collect()
    }

    /// Why a legal candidate is left out before it is compiled.
    fn refusal(&self, candidate: &Candidate) -> Option<&'static str> {
        if self.poisoned.contains(&candidate.text) {
            return Some("poisoned");
        }
        (candidate.estimate.resident_blocks == 0).then_some("a block does not fit on an SM")
    }
}

/// What makes a shape: the structure, and how the block's warps divide the tile.
fn shape(schedule: &Schedule) -> (Structure, (u32, u32)) {
    (schedule.structure(), warps(schedule))
}

fn warps(schedule: &Schedule) -> (u32, u32) {
    match schedule {
        Schedule::Gemv(s) => (s.warps_n, s.warps_k),
        Schedule::Mma(s) => (s.warps_n, s.warps_k),
        Schedule::Wgmma(s) => (s.groups, 1),
        Schedule::Dequant(s) => s.gemm.own().map_or((1, 1), |own| warps(&own)),
    }
}

/// A reason as a cause that can be counted: digits become `#`.
pub(crate) fn without_numbers(reason: &str) -> String {
    let mut cause = String::new();
    for c in reason.chars() {
        match c {
            c if !c.is_ascii_digit() => cause.push(c),
            _ if cause.ends_with('#') => {}
            _ => cause.push('#'),
        }
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effort;
    use qtune_ir::tile::Estimate;

    fn climb_on(gpu: &str, m: u32) -> Climb {
        let arch = Arch::named(gpu).unwrap();
        let (terms, limits) = (Terms::new(&arch, false), Effort::Normal.limits());
        let (task, poisoned) = (task(m), HashSet::new());
        let poisoned = &poisoned;
        Ladder { task: &task, arch: &arch, terms: &terms, limits, poisoned }.climb().unwrap()
    }

    fn task(m: u32) -> Task {
        let problem: qtune_ir::Problem =
            format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}").parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        Task { name: "o".into(), problem, spec, calls: 1 }
    }

    #[test]
    fn a_library_multiplies_where_the_device_has_it_and_is_left_out_by_name_elsewhere() {
        for library in [false, true] {
            let arch = Arch { library, ..Arch::named("h200").unwrap() };
            let (terms, limits) = (Terms::new(&arch, false), Effort::Quick.limits());
            let (task, poisoned) = (task(1024), HashSet::new());
            let poisoned = &poisoned;
            let ladder = Ladder { task: &task, arch: &arch, terms: &terms, limits, poisoned };
            let climb = ladder.survey().unwrap();
            let named = |c: &&Candidate| c.text.contains("gemm=library");
            assert_eq!(climb.ranked.iter().any(|c| named(&c)), library);
            // Where times are measured, it is to be timed.
            assert_eq!(climb.finalists.iter().any(|c| named(&c)), library);
            let space = &climb.space.unwrap().families[&Family::Dequant];
            let told = |reason: &String| reason.contains("libcublasLt");
            assert_eq!(space.pruned.keys().any(told), !library, "{:?}", space.pruned);
            for candidate in climb.ranked.iter().filter(named) {
                let Estimate { time_us, roof_us, bound, .. } = &candidate.estimate;
                assert!(time_us > roof_us && *bound == "tensor", "{}", candidate.text);
            }
        }
    }

    fn climb(m: u32, poisoned: &HashSet<String>) -> Climb {
        let arch = Arch::named("h200").unwrap();
        let terms = Terms::new(&arch, false);
        let (task, limits) = (task(m), Effort::Quick.limits());
        Ladder { task: &task, arch: &arch, terms: &terms, limits, poisoned }.climb().unwrap()
    }

    #[test]
    fn later_rungs_never_end_slower_than_the_sketches() {
        for m in [1, 16, 64] {
            let climb = climb(m, &HashSet::new());
            let sketches = climb.kept.iter().filter(|c| c.rung == 1);
            let best = sketches.map(|c| c.estimate.time_us).fold(f64::INFINITY, f64::min);
            assert!(climb.finalists[0].estimate.time_us <= best);
        }
    }

    #[test]
    fn the_same_problem_gives_the_same_finalists() {
        let texts = |c: Climb| c.finalists.into_iter().map(|c| c.text).collect::<Vec<_>>();
        assert_eq!(texts(climb(16, &HashSet::new())), texts(climb(16, &HashSet::new())));
    }

    #[test]
    fn finalists_are_legal_distinct_and_have_their_derivation() {
        let arch = Arch::named("h200").unwrap();
        for m in [1, 2, 16, 64] {
            let task = task(m);
            let finalists = climb(m, &HashSet::new()).finalists;
            let distinct: HashSet<&String> = finalists.iter().map(|c| &c.text).collect();
            assert_eq!(distinct.len(), finalists.len());
            for candidate in &finalists {
                candidate.schedule.check(&task.problem, &task.spec, &arch).unwrap();
                tile::explain(&task.problem, &candidate.schedule, &Options::default()).unwrap();
            }
        }
    }

    #[test]
    fn poisoned_schedules_are_not_proposed() {
        let first = climb(16, &HashSet::new()).finalists[0].text.clone();
        let again = climb(16, &HashSet::from([first.clone()]));
        assert!(again.finalists.iter().all(|c| c.text != first));
        assert!(again.kept.iter().all(|c| c.text != first));
    }

    #[test]
    fn both_families_reach_the_end_where_both_are_legal() {
        let families: HashSet<_> =
            climb(1, &HashSet::new()).finalists.iter().map(|c| c.schedule.family()).collect();
        assert_eq!(families.len(), 2);
    }

    /// 80 tiles of 32 tokens by 128 rows leave every fourth of 108 SMs idle.
    #[test]
    fn stream_k_is_proposed_where_the_last_wave_is_bad() {
        let finalists = climb_on("a100", 64).finalists;
        let is_stream = |c: &Candidate| c.schedule.split().stream().is_some();
        assert!(is_stream(&finalists[0]), "{}", finalists[0].text);
        assert!(!finalists.iter().all(is_stream), "others are compiled for comparison");
    }

    #[test]
    fn clusters_are_proposed_where_tiles_are_shared_and_the_gpu_has_them() {
        let is_cluster = |c: &Candidate| c.schedule.split().cluster().is_some();
        assert!(climb(1, &HashSet::new()).finalists.iter().any(is_cluster));
        assert!(!climb_on("a100", 64).ranked.iter().any(is_cluster));
    }

    #[test]
    fn causes_hold_no_numbers() {
        assert_eq!(without_numbers("12 splits of 5 k tiles"), "# splits of # k tiles");
    }
}
