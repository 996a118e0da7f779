//! Warm starts: what won for a neighbour is worth a try here.
//!
//! A neighbour is the same kind of problem in another shape or for another token bucket, the same
//! problem on another GPU, or the same problem as an earlier generator or compiler solved it. Winners
//! of the problems that a search has to solve do not count, whether it finds them itself or a search
//! before it that was interrupted: with them, the outcome would depend on which problem happens to be
//! done first, on how problems are shared out over machines, and on when a search was interrupted.

use crate::candidate::Candidate;
use crate::request::Task;
use crate::terms::dequant_cost;
use qtune_cache::{CacheError, Store, WinnerKey};
use qtune_ir::tile::DequantChoice;
use qtune_ir::{Arch, Problem, Schedule};

/// Neighbours that are tried for one problem, at most.
const NEIGHBOURS: usize = 3;
/// Distance beyond which nothing is expected of a neighbour: doublings of M, N and K together.
const FAR: f64 = 6.0;
/// What another GPU counts as.
const OTHER_GPU: f64 = 1.0;

/// Winners of problems other than those of the search.
#[derive(Debug, Default)]
pub(crate) struct Known {
    winners: Vec<(WinnerKey, Problem, Schedule)>,
}

impl Known {
    /// Reads the winners whose problems and schedules this qtune knows.
    pub fn of(store: &dyn Store) -> Result<Known, CacheError> {
        let known = store.winners()?.into_iter().filter_map(|record| {
            let problem = record.key.problem.parse().ok()?;
            let schedule = record.winner.schedule.parse().ok()?;
            Some((record.key, problem, schedule))
        });
        Ok(Known { winners: known.collect() })
    }

    /// All but those that lie where the search stores its winners: what lies there is no neighbour. Nor
    /// is what replays of other logs found, or of the same log with other noise.
    pub fn without(mut self, own: &[WinnerKey]) -> Known {
        let same_replay = |key: &WinnerKey| own.iter().any(|o| o.fingerprint == key.fingerprint);
        self.winners
            .retain(|(key, ..)| !own.contains(key) && (!key.is_replay() || same_replay(key)));
        self
    }

    /// The nearest winners' schedules that are legal for `task`, modelled.
    pub fn candidates(&self, task: &Task, arch: &Arch) -> Vec<Candidate> {
        let here = arch.fingerprint();
        let mut near: Vec<(f64, &Schedule)> = self
            .winners
            .iter()
            .filter_map(|(key, problem, schedule)| {
                let there = if key.arch == here { 0.0 } else { OTHER_GPU };
                Some((distance(&task.problem, problem)? + there, schedule))
            })
            .filter(|(distance, _)| *distance <= FAR)
            .collect();
        near.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then_with(|| a.1.to_string().cmp(&b.1.to_string()))
        });
        let mut candidates: Vec<Candidate> = Vec::new();
        for candidate in near.into_iter().filter_map(|(_, s)| candidate(task, arch, s)) {
            let new = candidates.iter().all(|other| other.text != candidate.text);
            if new && candidates.len() < NEIGHBOURS {
                candidates.push(candidate);
            }
        }
        candidates
    }
}

/// Doublings between two problems of one kind; `None` for problems of different kinds.
fn distance(a: &Problem, b: &Problem) -> Option<f64> {
    let kind = |p: &Problem| (p.bits, p.format.clone(), p.act, p.out);
    let doublings = |a: u32, b: u32| (f64::from(a) / f64::from(b)).log2().abs();
    (kind(a) == kind(b)).then(|| doublings(a.m, b.m) + doublings(a.n, b.n) + doublings(a.k, b.k))
}

/// A neighbour's schedule as a candidate here, if it is legal.
pub(crate) fn candidate(task: &Task, arch: &Arch, schedule: &Schedule) -> Option<Candidate> {
    let Task { problem, spec, .. } = task;
    schedule.check(problem, spec, arch).ok()?;
    let variant = dequant_cost(problem, spec, arch, schedule).ok()?;
    let choice =
        DequantChoice { term: schedule.dequant().into(), instructions_per_weight: variant.cost };
    let candidate = Candidate::new((problem, spec, arch), schedule, &choice, 0);
    (candidate.estimate.resident_blocks > 0).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::{Family, MmaSchedule};

    fn problem(text: &str) -> Problem {
        format!("w4a16.{text}").parse().unwrap()
    }

    #[test]
    fn neighbours_are_the_same_kind_of_problem_and_nearer_shapes_come_first() {
        let own = problem("awq-g128.f16-f16.n4096.k4096.m16");
        let far = |text: &str| distance(&own, &problem(text));
        assert_eq!(far("awq-g128.f16-f16.n4096.k4096.m16+bias"), Some(0.0));
        assert_eq!(far("awq-g128.f16-f16.n8192.k4096.m8"), Some(2.0));
        assert_eq!(far("awq-g64.f16-f16.n4096.k4096.m16"), None);
        assert_eq!(far("awq-g128.bf16-bf16.n4096.k4096.m16"), None);
    }

    const OWN: &str = "awq-g128.f16-f16.n4096.k4096.m16";

    /// What is tried for [`OWN`] on an H200, in order, where `winners` are known: problem, GPU, and the
    /// stages by which their schedules are told apart.
    fn tried(winners: &[(&str, &str, u32)]) -> Vec<u32> {
        let arch = Arch::named("h200").unwrap();
        let task = Task {
            name: "own".into(),
            spec: qtune_formats::resolve("awq-g128").unwrap(),
            problem: problem(OWN),
            calls: 1,
        };
        let key = |text: &str, gpu: &str| {
            let arch = Arch::named(gpu).unwrap();
            WinnerKey::of(&problem(text), &arch, "fingerprint".into())
        };
        let default =
            qtune_verify::default_of_family(Family::Mma, &task.problem, &task.spec, &arch).unwrap();
        let Schedule::Mma(default) = default else { panic!("{default}") };
        let winner = |(text, gpu, stages): &(&str, &str, u32)| {
            let schedule = MmaSchedule { stages: *stages, ..default.clone() };
            (key(text, gpu), problem(text), Schedule::Mma(schedule))
        };
        let known = Known { winners: winners.iter().map(winner).collect() };
        let candidates = known.without(&[key(OWN, "h200")]).candidates(&task, &arch);
        let stages = |candidate: Candidate| match candidate.schedule {
            Schedule::Mma(schedule) => schedule.stages,
            other => panic!("{other}"),
        };
        candidates.into_iter().map(stages).collect()
    }

    #[test]
    fn winners_of_other_shapes_buckets_and_gpus_are_tried_the_nearest_first() {
        let shape = ("awq-g128.f16-f16.n8192.k8192.m16", "h200", 1);
        let bucket = ("awq-g128.f16-f16.n4096.k4096.m8", "h200", 2);
        let gpu = ("awq-g128.f16-f16.n4096.k4096.m16", "a100", 3);
        assert_eq!(tried(&[shape, bucket, gpu]), [2, 3, 1]);
        let near = ("awq-g128.f16-f16.n5120.k4096.m16", "h200", 4);
        assert_eq!(tried(&[shape, bucket, gpu, near]), [4, 2, 3], "three at most");
        assert_eq!(tried(&[bucket, ("awq-g128.f16-f16.n8192.k4096.m16", "h200", 2)]), [2], "once");
    }

    #[test]
    fn replays_of_other_logs_are_no_neighbours() {
        let key = |text: &str, log: &str| {
            let arch = Arch::named("h200").unwrap();
            WinnerKey::of(&problem(text), &arch, log.into()).of_replay()
        };
        let bucket = "awq-g128.f16-f16.n4096.k4096.m8";
        let winners = ["own", "other"].map(|log| key(bucket, log));
        let (arch, spec) =
            (Arch::named("h200").unwrap(), qtune_formats::resolve("awq-g128").unwrap());
        let schedule = qtune_verify::default_schedule(&problem(OWN), &spec, &arch).unwrap();
        let winners = winners.map(|key| (key, problem(bucket), schedule.clone())).to_vec();
        let left = |own: WinnerKey| {
            let known = Known { winners: winners.clone() }.without(&[own]);
            known.winners.into_iter().map(|(key, ..)| key).collect::<Vec<_>>()
        };
        assert_eq!(left(key(OWN, "own")), [key(bucket, "own")]);
        let real = WinnerKey { fingerprint: "own".into(), ..key(OWN, "") };
        assert_eq!(left(real), []);
    }

    #[test]
    fn what_is_stored_here_is_far_or_illegal_is_not_tried() {
        let far = ("awq-g128.f16-f16.n64.k128.m16", "h200", 2);
        assert_eq!(tried(&[(OWN, "h200", 2), far]), [0; 0]);
        let too_deep = ("awq-g128.f16-f16.n8192.k4096.m16", "h200", 60);
        assert_eq!(tried(&[too_deep]), [0; 0]);
    }
}
