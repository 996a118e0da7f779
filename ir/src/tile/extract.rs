//! The extractor: from the e-graph of all derivable nests to the k best different sketches.
//!
//! Every class is a chain of layers (see [`Link`]), so the derivable nests are the paths from the
//! root class to a leaf; there are tens of thousands, each is visited once and mapped to its
//! schedule. What belongs to one term is decided here: legality by [`Schedule::check`], registers,
//! shared memory, modelled time. Survivors are peeled into Pareto fronts over (time, shared bytes,
//! registers).

use super::cost::{times, Times};
use super::language::{link, EGraph, Link};
use super::lower::schedule_of;
use super::nest::{Layer, Leaf, Nest};
use super::space::Space;
use super::{Dequant, DequantChoice};
use crate::{Arch, Family, Problem, Schedule, Structure, WeightSpec};
use egg::Id;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A legal schedule with the numbers that rank it.
pub(super) struct Candidate {
    pub nest: Nest,
    /// Without its dequantization term.
    pub schedule: Schedule,
    pub dequant: DequantKey,
    /// Index into the terms that are offered for `dequant`.
    pub choice: usize,
    pub time_us: f64,
    pub shared_bytes: u32,
    pub registers: u32,
}

/// What the choice of a dequantization term may depend on, and so what it is asked once for:
/// the engine, the register tile and the extents between which group sums are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DequantKey {
    family: Family,
    half2: bool,
    tokens: u32,
    rows: u32,
    lane_k: u32,
    tile_k: u32,
}

impl DequantKey {
    fn of(schedule: &Schedule) -> DequantKey {
        let family = schedule.family();
        match schedule {
            // Weights are dequantized by themselves: the term depends on nothing else.
            Schedule::Dequant(_) => {
                DequantKey { family, half2: false, tokens: 1, rows: 1, lane_k: 1, tile_k: 1 }
            }
            Schedule::Gemv(s) => DequantKey {
                family,
                half2: s.accumulate == crate::Accumulate::Half2,
                tokens: s.tokens,
                rows: s.rows,
                lane_k: s.lanes,
                tile_k: s.step_k() * s.unroll,
            },
            Schedule::Mma(s) => DequantKey {
                family,
                half2: false,
                tokens: s.block_m,
                rows: s.row_tiles(),
                lane_k: s.warp_k(),
                tile_k: s.block_k,
            },
            Schedule::Wgmma(s) => DequantKey {
                family,
                half2: false,
                tokens: s.block_m,
                rows: s.row_tiles(),
                lane_k: s.block_k,
                tile_k: s.block_k,
            },
        }
    }
}

/// More layers than any nest has: three grid loops, a loop for each binding, two wrappers.
const MOST_LAYERS: usize = 16;

/// The outcome of a walk over all derivable nests.
pub(super) struct Walk<'a> {
    problem: &'a Problem,
    spec: &'a WeightSpec,
    arch: &'a Arch,
    dequant: &'a Dequant<'a>,
    pub choices: HashMap<DequantKey, Vec<DequantChoice>>,
    pub legal: Vec<Candidate>,
    pub considered: usize,
    pub rejected: BTreeMap<String, usize>,
    /// Filled if asked for.
    pub space: Space,
    survey: bool,
}

/// Nodes of one class as chain nodes.
type Links = HashMap<Id, Vec<Link>>;

impl<'a> Walk<'a> {
    /// Visits every nest that `root` stands for.
    pub fn over(
        egraph: &EGraph,
        root: Id,
        problem: &'a Problem,
        spec: &'a WeightSpec,
        arch: &'a Arch,
        dequant: &'a Dequant<'a>,
        survey: bool,
    ) -> Walk<'a> {
        let lookup = |id: Id| &egraph[id].nodes[0];
        let links: Links = egraph
            .classes()
            .map(|class| (class.id, class.iter().filter_map(|node| link(node, &lookup)).collect()))
            .collect();
        let mut walk = Walk {
            problem,
            spec,
            arch,
            dequant,
            choices: HashMap::new(),
            legal: Vec::new(),
            considered: 0,
            rejected: BTreeMap::new(),
            space: Space::default(),
            survey,
        };
        walk.descend(egraph, &links, root, &mut Vec::new());
        walk
    }

    fn descend(&mut self, egraph: &EGraph, links: &Links, class: Id, layers: &mut Vec<Layer>) {
        for link in &links[&egraph.find(class)] {
            match link {
                Link::Layer(layer, body) => {
                    debug_assert!(layers.len() < MOST_LAYERS, "a class that contains itself");
                    layers.push(*layer);
                    self.descend(egraph, links, *body, layers);
                    layers.pop();
                }
                Link::Leaf(leaf) => self.consider(layers, *leaf),
            }
        }
    }

    fn consider(&mut self, layers: &[Layer], leaf: Leaf) {
        self.considered += 1;
        let Some(schedule) = schedule_of(layers, leaf, self.problem) else {
            return *self.rejected.entry("no kernel family".into()).or_default() += 1;
        };
        let verdict = self.judge(layers, leaf, &schedule);
        if self.survey {
            self.space.count(&schedule, verdict.as_ref().err().map(String::as_str));
        }
        if let Err(reason) = verdict {
            *self.rejected.entry(reason).or_default() += 1;
        }
    }

    /// Keeps a legal nest, or says why it is none.
    fn judge(&mut self, layers: &[Layer], leaf: Leaf, schedule: &Schedule) -> Result<(), String> {
        schedule
            .check(self.problem, self.spec, self.arch)
            .map_err(|r| without_numbers(&r.reason))?;
        let key = DequantKey::of(schedule);
        let ask = || (self.dequant)(schedule);
        let offered = self.choices.entry(key).or_insert_with(ask);
        let (problem, spec, arch) = (self.problem, self.spec, self.arch);
        let mut best: Option<(usize, Times)> = None;
        let mut refusal = "no dequantization term".to_string();
        for (index, choice) in offered.iter().enumerate() {
            match complete(problem, spec, arch, schedule, choice) {
                Ok(t) if best.as_ref().is_none_or(|(_, best)| t.time_us < best.time_us) => {
                    best = Some((index, t));
                }
                Ok(_) => {}
                Err(reason) => refusal = reason,
            }
        }
        let (choice, t) = best.ok_or(refusal)?;
        self.legal.push(Candidate {
            nest: Nest { layers: layers.to_vec(), leaf },
            schedule: schedule.clone(),
            dequant: key,
            choice,
            time_us: t.time_us,
            shared_bytes: t.shared_bytes,
            registers: t.registers,
        });
        Ok(())
    }
}

/// The model's word on a schedule with a term, or why the two do not go together: the term decides
/// whether group sums take registers of their own, and whether a table takes shared memory.
fn complete(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    schedule: &Schedule,
    choice: &DequantChoice,
) -> Result<Times, String> {
    let complete = schedule.with_dequant(&choice.term);
    complete.check(problem, spec, arch).map_err(|r| without_numbers(&r.reason))?;
    let t = times(problem, spec, arch, &complete, choice.instructions_per_weight);
    if t.resident == 0 {
        return Err("more registers than there are".into());
    }
    Ok(t)
}

/// A reason without its numbers, so that equal reasons count together.
fn without_numbers(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    for c in reason.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(c),
        }
    }
    text
}

/// Of a structure that no sketch has, the fastest takes a place if it is within this factor of the
/// fastest of all: what the model may be wrong about.
const STRUCTURE_SLACK: f64 = 1.25;

/// The `k` best candidates by Pareto fronts: the fastest of the first front, then of the second,
/// and so on; ties go to fewer resources, then to the lesser nest. None is slower than `slack`
/// times the fastest. The fastest of each kernel family, and of each structure that is near the
/// fastest of all, are among them if `k` has room, because the model may misjudge one as a whole.
/// The result is sorted by time.
pub(super) fn best(mut candidates: Vec<Candidate>, k: usize, slack: f64) -> Vec<Candidate> {
    candidates.sort_by(|a, b| {
        let numbers = a.time_us.total_cmp(&b.time_us);
        let resources = (a.shared_bytes, a.registers).cmp(&(b.shared_bytes, b.registers));
        numbers.then(resources).then_with(|| a.nest.cmp(&b.nest))
    });
    if let Some(limit) = candidates.first().map(|c| c.time_us * slack) {
        candidates.retain(|c| c.time_us <= limit);
    }
    let mut chosen = Vec::new();
    while chosen.len() < k && !candidates.is_empty() {
        let (mut front, mut rest) = peel(candidates);
        rest.splice(0..0, front.split_off(front.len().min(k - chosen.len())));
        chosen.extend(front);
        candidates = rest;
    }
    candidates.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
    for newcomer in newcomers(&chosen, candidates, k / 2) {
        make_room(&mut chosen, newcomer);
    }
    chosen.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
    chosen
}

/// The fastest of each family, then of each near structure, that `chosen` lacks: no more than
/// `most`, of which there is at least one. `rest` is sorted by time.
fn newcomers(chosen: &[Candidate], rest: Vec<Candidate>, most: usize) -> Vec<Candidate> {
    let mut families: HashSet<Family> = chosen.iter().map(|c| c.schedule.family()).collect();
    let mut fastest_of: HashMap<Structure, f64> = HashMap::new();
    for candidate in chosen {
        let known = fastest_of.entry(candidate.schedule.structure()).or_insert(f64::INFINITY);
        *known = known.min(candidate.time_us);
    }
    let fastest = fastest_of.values().copied().fold(f64::INFINITY, f64::min);
    let (mut of_families, mut of_structures) = (Vec::new(), Vec::new());
    for candidate in rest {
        let near = candidate.time_us <= STRUCTURE_SLACK * fastest;
        let known = fastest_of.entry(candidate.schedule.structure()).or_insert(f64::INFINITY);
        let new = candidate.time_us < *known;
        *known = known.min(candidate.time_us);
        match families.insert(candidate.schedule.family()) {
            true => of_families.push(candidate),
            false if new && near => of_structures.push(candidate),
            false => {}
        }
    }
    of_families.into_iter().chain(of_structures).take(most.max(1)).collect()
}

/// Takes `newcomer` for the last of a structure that has others or, where it is the first of its
/// family, of a family that has others.
fn make_room(chosen: &mut [Candidate], newcomer: Candidate) {
    fn crowded<T: PartialEq>(chosen: &[Candidate], of: impl Fn(&Schedule) -> T) -> Option<usize> {
        let alike = |c: &Candidate| {
            chosen.iter().filter(|other| of(&other.schedule) == of(&c.schedule)).count()
        };
        chosen.iter().rposition(|c| alike(c) > 1)
    }
    let family = newcomer.schedule.family();
    let first = chosen.iter().all(|c| c.schedule.family() != family);
    let of_family = || crowded(chosen, Schedule::family).filter(|_| first);
    if let Some(spare) = crowded(chosen, Schedule::structure).or_else(of_family) {
        chosen[spare] = newcomer;
    }
}

/// The Pareto front of candidates sorted by time, and the rest, both in that order.
fn peel(sorted: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
    // Resources of the front so far: what is faster and takes no more of either dominates.
    let mut stairs: Vec<(u32, u32)> = Vec::new();
    sorted.into_iter().partition(|c| {
        let point = (c.shared_bytes, c.registers);
        let dominated = stairs.iter().any(|s| s.0 <= point.0 && s.1 <= point.1);
        if !dominated {
            stairs.retain(|s| !(point.0 <= s.0 && point.1 <= s.1));
            stairs.push(point);
        }
        !dominated
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(time_us: f64, shared_bytes: u32, registers: u32) -> Candidate {
        let schedule: Schedule = "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 \
                                  x=global acc=f32 cache=normal dequant="
            .parse()
            .unwrap();
        let dequant = DequantKey::of(&schedule);
        let nest = Nest::naive([1, shared_bytes, registers]);
        Candidate { nest, schedule, dequant, choice: 0, time_us, shared_bytes, registers }
    }

    fn points(candidates: &[Candidate]) -> Vec<(f64, u32, u32)> {
        candidates.iter().map(|c| (c.time_us, c.shared_bytes, c.registers)).collect()
    }

    #[test]
    fn fronts_are_peeled_one_after_the_other() {
        let all = || {
            vec![
                candidate(1.0, 8, 8),
                candidate(1.5, 9, 8),
                candidate(2.0, 4, 8),
                candidate(2.5, 5, 8),
                candidate(2.7, 8, 4),
                candidate(9.0, 0, 0),
            ]
        };
        let three = points(&best(all(), 3, 4.0));
        assert_eq!(three, [(1.0, 8, 8), (2.0, 4, 8), (2.7, 8, 4)]);
        let four = points(&best(all(), 4, 4.0));
        assert_eq!(four, [(1.0, 8, 8), (1.5, 9, 8), (2.0, 4, 8), (2.7, 8, 4)]);
        let two = points(&best(all(), 2, 4.0));
        assert_eq!(two, [(1.0, 8, 8), (2.0, 4, 8)]);
        assert_eq!(best(all(), 99, 4.0).len(), 5, "the last is beyond the slack");
        assert_eq!(best(all(), 99, 10.0).len(), 6);
    }

    #[test]
    fn the_fastest_of_each_family_is_kept() {
        let mma = "mma tile=8x16x64 warps=1x1 stages=1 split=1 pad=16 raster=rows dequant=";
        let tensor =
            |time_us| Candidate { schedule: mma.parse().unwrap(), ..candidate(time_us, 90, 90) };
        let all = || vec![tensor(3.5), tensor(3.0), candidate(1.0, 8, 8), candidate(2.0, 4, 8)];
        assert_eq!(points(&best(all(), 2, 4.0)), [(1.0, 8, 8), (3.0, 90, 90)]);
        assert_eq!(points(&best(all(), 1, 4.0)), [(1.0, 8, 8)]);
        assert_eq!(points(&best(all(), 2, 2.5)), [(1.0, 8, 8), (2.0, 4, 8)]);
    }

    #[test]
    fn the_fastest_of_each_structure_near_the_fastest_is_kept() {
        let sharing = |split: &str, time_us| {
            let text = format!(
                "mma tile=8x16x64 warps=1x1 stages=1 split={split} pad=16 raster=rows dequant="
            );
            Candidate { schedule: text.parse().unwrap(), ..candidate(time_us, 8, 8) }
        };
        let all = || {
            let crowd = [1.0, 1.01, 1.02, 1.03].map(|us| sharing("4@cluster", us));
            let others = [sharing("1", 1.1), sharing("1", 1.12), sharing("stream:9", 1.3)];
            crowd.into_iter().chain(others).collect::<Vec<_>>()
        };
        assert_eq!(points(&best(all(), 4, 4.0)).last(), Some(&(1.1, 8, 8)), "1.3 is too far");
        assert_eq!(points(&best(all(), 2, 4.0)), [(1.0, 8, 8), (1.1, 8, 8)]);
        assert_eq!(points(&best(all(), 1, 4.0)), [(1.0, 8, 8)]);
    }

    #[test]
    fn reasons_count_together_without_their_numbers() {
        assert_eq!(without_numbers("12 warps along K for 3 steps"), "# warps along K for # steps");
    }
}
