//! The search against scripted times: from a model that the ranker cannot see, under noise, among
//! traps.

use super::*;
use crate::answers::Answers;
use crate::candidate::Candidate;
use crate::finalist::compile_all;
use crate::in_step::{in_step, Standing};
use crate::judge::{Judge, Judgement};
use crate::ladder::{Climb, Ladder};
use crate::log::Log;
use crate::progress::{NoProgress, Tally};
use crate::surrogate::Encoder;
use crate::terms::Terms;
use crate::{Effort, TuneRequest};
use qtune_cache::trial_log::TrialLog;
use qtune_cache::{MemoryStore, Store};
use rayon::prelude::*;
use std::collections::HashSet;
use std::ops::Range;

/// One problem, climbed once.
struct Setting {
    request: TuneRequest,
    task: Task,
    climb: Climb,
}

impl Setting {
    fn new(problem: &str) -> Setting {
        let arch = Arch::named("h200").unwrap();
        let shape =
            crate::Shape { name: "shape".into(), problem: problem.parse().unwrap(), calls: 1 };
        let request = TuneRequest::new(arch, vec![shape]);
        let task = request.tasks().unwrap().remove(0);
        let terms = Terms::new(&request.arch, false);
        let limits = Effort::Normal.limits().before_measuring();
        let poisoned = HashSet::new();
        let ladder =
            Ladder { task: &task, arch: &request.arch, terms: &terms, limits, poisoned: &poisoned };
        let climb = ladder.climb().unwrap();
        Setting { request, task, climb }
    }

    /// The search on `bed`, from the ladder's finalists to the verdict.
    fn judge(&self, bed: &Replay, store: &dyn Store) -> Judgement {
        let folder = tempfile::tempdir().unwrap();
        let mut trials = TrialLog::append_to(&folder.path().join("trials.jsonl")).unwrap();
        let (request, tasks) = (&self.request, std::slice::from_ref(&self.task));
        let (mut log, _) =
            Log::begin(&mut trials, &Answers { request, bed, store }, tasks).unwrap();
        let judge = Judge {
            index: 0,
            task: &self.task,
            arch: &request.arch,
            bed,
            store,
            limits: Effort::Normal.limits(),
            seed: 1,
            progress: &NoProgress,
            go_on: &|| true,
            default: None,
        };
        let finalists = self.climb.finalists.clone();
        let compiled =
            compile_all(&self.task, &request.arch, bed, finalists, &|| true, &|_: &_| ());
        judge.judge(compiled, &self.climb.ranked, Tally::default(), &mut log).unwrap()
    }
}

/// Numbers of a seed, in order.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        // Xorshift (Marsaglia, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0 and variance 1: Irwin and Hall's sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// Times that the cost model gets wrong: by a share for every field of a schedule, by the product
/// of some pairs of fields, and a little for each schedule.
fn hidden_times(ranked: &[Candidate], seed: u64) -> Vec<f64> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let encoder = Encoder::of(ranked.iter().map(|candidate| candidate.text.as_str()));
    let count = encoder.features("").len();
    let linear: Vec<f64> = (0..count).map(|_| 0.08 * random.normal()).collect();
    let pairs: Vec<(usize, usize, f64)> = (0..4)
        .map(|_| {
            let mut field = || (random.uniform() * count as f64) as usize;
            let (a, b) = (field(), field());
            (a, b, 0.01 * random.normal())
        })
        .collect();
    let time = |candidate: &Candidate| {
        let x = encoder.features(&candidate.text);
        let alone: f64 = linear.iter().zip(&x).map(|(w, x)| w * x).sum();
        let together: f64 = pairs.iter().map(|(a, b, w)| w * x[*a] * x[*b]).sum();
        let own = 0.005 * random.normal();
        candidate.estimate.time_us * (alone + together + own).exp()
    };
    ranked.iter().map(time).collect()
}

/// Why a schedule does not compile.
const UNFIT: &str = "it spills";

/// What lies in wait, as shares of all schedules.
#[derive(Clone, Copy, Default)]
struct Traps {
    /// Twice as fast, and wrong.
    wrong: f64,
    /// Do not compile.
    unfit: f64,
    /// Take their process down.
    lost: f64,
    /// Take 1.6 times as long in three of ten samples.
    bimodal: f64,
}

fn script(setting: &Setting, traps: Traps, seed: u64) -> Script {
    let mut random = Random(seed.wrapping_mul(0xd134_2543_de82_ef95) | 1);
    let mut script = Script::default();
    let times = hidden_times(&setting.climb.ranked, seed);
    for (candidate, us) in setting.climb.ranked.iter().zip(times) {
        let mut entry = Entry { fate: Fate::Fine, us, second_mode: None, in_step_us: None };
        let draw = random.uniform();
        if draw < traps.wrong {
            entry = Entry { fate: Fate::Wrong("wrong".into()), us: us / 2.0, ..entry };
        } else if draw < traps.wrong + traps.unfit {
            entry.fate = Fate::Unfit(UNFIT.into());
        } else if draw < traps.wrong + traps.unfit + traps.lost {
            entry.fate = Fate::Lost("crashed".into());
        } else if draw < traps.wrong + traps.unfit + traps.lost + traps.bimodal {
            entry.second_mode = Some((0.3, 1.6));
        }
        script.insert(&setting.task.problem.to_string(), &candidate.text, entry);
    }
    script
}

/// The median of a schedule's samples under [`NOISE`]. Of one that is in its slow mode in three of
/// ten samples it is the 5/7 quantile of the fast mode, which lies 0.566 deviations above its middle.
fn level(entry: &Entry) -> f64 {
    match entry.second_mode {
        None => entry.us,
        Some(_) => entry.us * (1.0 + 0.566 * NOISE.relative),
    }
}

/// How far a winner is behind the best right schedule, and the share of the space that was launched.
fn outcome(setting: &Setting, script: &Script, noise: Noise, seed: u64) -> (f64, f64) {
    let problem = setting.task.problem.to_string();
    let entry = |text: &str| script.entry(&problem, text).unwrap();
    let fine = setting.climb.ranked.iter().map(|c| entry(&c.text)).filter(|e| e.fate == Fate::Fine);
    let best = fine.map(level).fold(f64::INFINITY, f64::min);
    let store = MemoryStore::default();
    let judgement = setting.judge(&Replay::scripted(script.clone(), noise, seed), &store);
    let won = judgement.won.expect("a right schedule is there");
    let winner = entry(&won.finalist.candidate.text);
    assert_eq!(winner.fate, Fate::Fine, "seed {seed}: a trap won");
    assert!(store.poison().unwrap().is_empty(), "a replay tells no news of the GPU");
    let unfit = judgement.failures.get(UNFIT).copied().unwrap_or_default();
    let launched = judgement.tally.timed + judgement.tally.rejected - unfit;
    (level(winner) / best - 1.0, launched as f64 / setting.climb.ranked.len() as f64)
}

/// Of these seeds, those whose winner is more than 2 % behind.
fn misses(problem: &str, traps: Traps, noise: Noise, seeds: Range<u64>) -> Vec<(u64, f64)> {
    let setting = Setting::new(problem);
    let run = |seed: u64| {
        let (behind, share) = outcome(&setting, &script(&setting, traps, seed), noise, seed);
        assert!(share <= 0.1, "seed {seed} launched {:.1} % of the space", 100.0 * share);
        (seed, behind, share)
    };
    let all: Vec<(u64, f64, f64)> = seeds.into_par_iter().map(run).collect();
    let most = |values: &mut dyn Iterator<Item = f64>| 100.0 * values.fold(0.0, f64::max);
    println!(
        "{problem}: {} seeds, at most {:.2} % behind, at most {:.2} % of {} schedules launched",
        all.len(),
        most(&mut all.iter().map(|(_, behind, _)| *behind)),
        most(&mut all.iter().map(|(_, _, share)| *share)),
        setting.climb.ranked.len()
    );
    all.into_iter().map(|(seed, behind, _)| (seed, behind)).filter(|(_, b)| *b > 0.02).collect()
}

/// A few tokens, and one.
const FEW: &str = "w4a16.awq-g128.f16-f16.n5120.k5120.m16";
const ONE: &str = "w4a16.awq-g128.f16-f16.n5120.k5120.m1";
const NOISE: Noise = Noise { relative: 0.05, drift: 0.0, drift_most: 0.0 };
const DRIFTING: Noise = Noise { drift: 5e-5, drift_most: 0.1, ..NOISE };
const TRAPS: Traps = Traps { wrong: 0.05, unfit: 0.1, lost: 0.02, bimodal: 0.1 };

#[test]
fn under_noise_the_winner_is_near_the_best_in_99_of_100_seeds() {
    let missed = misses(FEW, Traps::default(), NOISE, 1..101);
    assert!(missed.len() <= 1, "{missed:?}");
}

#[test]
fn among_traps_and_with_a_drifting_clock_it_still_is() {
    let missed = misses(ONE, TRAPS, DRIFTING, 1..101);
    assert!(missed.len() <= 1, "{missed:?}");
}

#[test]
#[ignore = "takes minutes; prints how far behind the worst seeds are"]
fn seeds_that_nobody_looked_at_do_no_worse() {
    for (problem, traps, noise) in [(FEW, Traps::default(), NOISE), (ONE, TRAPS, DRIFTING)] {
        let missed = misses(problem, traps, noise, 1000..1100);
        println!("{} of them are more than 2 % behind: {missed:?}", missed.len());
        assert!(missed.len() <= 1, "{missed:?}");
    }
}

#[test]
fn the_same_seed_and_script_give_the_same_judgement() {
    let setting = Setting::new(FEW);
    let script = script(&setting, TRAPS, 3);
    let judged = |seed: u64| {
        let bed = Replay::scripted(script.clone(), DRIFTING, seed);
        let judgement = setting.judge(&bed, &MemoryStore::default());
        let won = judgement.won.unwrap();
        (won.finalist.candidate.text, won.samples_us, judgement.lost)
    };
    assert_eq!(judged(1), judged(1));
    assert_ne!(judged(1).1, judged(2).1);
}

/// A problem judged on the bed, as it stands before finalists are timed in step.
fn stand(setting: &Setting, bed: &Replay, index: usize) -> Standing {
    let judgement = setting.judge(bed, &MemoryStore::default());
    Standing { index, judgement, default: None }
}

#[test]
fn who_is_fastest_alone_loses_in_step_where_the_script_says_so() {
    let settings = ["n5120.k5120", "n7168.k5120"]
        .map(|size| Setting::new(&format!("w4a16.awq-g128.f16-f16.{size}.m16")));
    let text = |standing: &Standing| {
        standing.judgement.won.as_ref().unwrap().finalist.candidate.text.clone()
    };
    let mut both = Script::default();
    for setting in &settings {
        let problem = setting.task.problem.to_string();
        // All are near: the model's order, in a hundredth of its differences.
        for candidate in &setting.climb.ranked {
            let us = 10.0 + 0.01 * candidate.estimate.time_us;
            let entry = Entry { fate: Fate::Fine, us, second_mode: None, in_step_us: None };
            both.insert(&problem, &candidate.text, entry);
        }
    }
    let bed = Replay::scripted(both.clone(), Noise::default(), 1);
    let mut alone: Vec<Standing> =
        settings.iter().enumerate().map(|(index, s)| stand(s, &bed, index)).collect();
    let fastest: Vec<String> = alone.iter().map(text).collect();
    let tasks: Vec<Task> = settings.iter().map(|setting| setting.task.clone()).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut trials = TrialLog::append_to(&folder.path().join("trials.jsonl")).unwrap();
    let (request, store) = (&settings[0].request, MemoryStore::default());
    let (mut log, _) =
        Log::begin(&mut trials, &Answers { request, bed: &bed, store: &store }, &tasks).unwrap();
    let mut run = |bed: &Replay, standings: &mut [Standing]| {
        in_step((bed, &tasks), standings, &mut log, &NoProgress, &|| true).unwrap()
    };
    assert_eq!(run(&bed, &mut alone), [0; 0], "in the same order as alone");
    // The first problem's winner takes a fifth longer between others.
    let problem = tasks[0].problem.to_string();
    let entry = both.entry(&problem, &fastest[0]).unwrap().clone();
    let slow = Entry { in_step_us: Some(1.2 * entry.us), ..entry };
    both.insert(&problem, &fastest[0], slow);
    let bed = Replay::scripted(both, Noise { relative: 0.01, ..Noise::default() }, 1);
    assert_eq!(run(&bed, &mut alone), [0]);
    assert_ne!(text(&alone[0]), fastest[0]);
    assert_eq!(text(&alone[1]), fastest[1]);
    assert!(alone[0].judgement.lost.iter().any(|lost| lost.text == fastest[0]));
}
