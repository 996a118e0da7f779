//! Finalists timed in step: among the kernels of a model's other matrices, in the order of its layers.
//!
//! Alone, a kernel finds what its own last launch left: clocks, a warm instruction cache, an L2 that
//! holds nothing else. In a model another matrix's kernel runs before it and after it, and the order
//! among finalists that are near each other can be another one. So when every problem has a winner,
//! those that ran side by side with it run again, each as part of a whole step: the layer's kernels in
//! the order of the request, often enough that L2 is cold, in one chain. Problems take their turn once,
//! in the order of the request, the others at their winners so far.

use crate::bed::{possible, TestBed, Watch};
use crate::candidate::Candidate;
use crate::fault::Fault;
use crate::finalist::Finalist;
use crate::judge::{Judgement, Lost, Won};
use crate::log::Log;
use crate::progress::Progress;
use crate::request::Task;
use crate::run_off::{run_off, Ranking, TIE};
use crate::timed::{load_only, simplicity};
use crate::timing::Stopwatch;
use crate::SearchError;
use qtune_cache::trial_log::Outcome;
use qtune_device::{Device, Timing, TimingPlan};
use std::collections::HashMap;
use std::rc::Rc;

/// Layers of a timed chain, at least and at most.
const LAYERS: (u64, u64) = (2, 16);
/// Their weights together take this many times the L2 cache, so that each launch finds it cold.
const COLD_FACTOR: u64 = 2;
/// Chains of one sample: each is many launches already.
const CHAINS_PER_SAMPLE: u32 = 2;
/// The finalist's share of a step below which differences are not resolved any finer.
const SHARE_MIN: f64 = 0.02;

/// A problem that has been judged.
pub(crate) struct Standing {
    /// Index of the task.
    pub index: usize,
    pub judgement: Judgement,
    /// The default schedule's text, if the problem has one.
    pub default: Option<String>,
}

/// One kernel of a step.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Whichever finalist is being timed.
    Contender,
    /// Another problem's winner.
    Other(&'a Task, &'a Finalist),
}

/// A step with finalists of one problem to try in it.
pub(crate) struct Step<'a> {
    pub task: &'a Task,
    pub contenders: Vec<&'a Finalist>,
    /// The kernels of one layer, in order.
    pub layer: Vec<Place<'a>>,
    /// Those that run once, after all layers.
    pub once: Vec<Place<'a>>,
}

/// Times the finalists of all problems in step and puts those in front that win there. Returns the
/// positions of the problems that have another winner now.
///
/// # Errors
/// [`SearchError::Cache`] if the trial log cannot be written.
pub(crate) fn in_step(
    (bed, tasks): (&dyn TestBed, &[Task]),
    standings: &mut [Standing],
    log: &mut Log<'_>,
    progress: &dyn Progress,
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<usize>, SearchError> {
    let mut changed = Vec::new();
    for at in 0..standings.len() {
        let task = &tasks[standings[at].index];
        let bucket = bucket_of(tasks, standings, task.problem.m);
        let rivals = !standings[at].judgement.rivals.is_empty();
        if bucket.len() < 2 || !rivals || !bucket.contains(&at) || !go_on() {
            continue;
        }
        let Some(step) = step(tasks, standings, &bucket, at) else { continue };
        let ranking = match run(bed, &step, tie(standings, &bucket, at, tasks), log)? {
            Ok(ranking) => ranking,
            Err(fault) => {
                let reason = format!("not timed in step: {fault:?}");
                tracing::warn!(problem = %task.problem, %reason);
                progress.note(&format!("{}: {reason}", task.name));
                continue;
            }
        };
        let simplest = |a: &&usize, b: &&usize| {
            let [a, b] = [a, b].map(|at| &step.contenders[**at].candidate);
            simplicity(a).cmp(&simplicity(b))
        };
        // Who wins alone and is not behind in step stays.
        let winner = match ranking.tied.contains(&0) {
            true => 0,
            false => ranking.tied.iter().min_by(simplest).copied().unwrap_or(0),
        };
        if let Some(rival) = winner.checked_sub(1) {
            drop(step);
            promote(&mut standings[at], rival);
            standings[at].judgement.load_only_us = standings[at]
                .judgement
                .won
                .as_ref()
                .and_then(|won| load_only(bed, task, &won.finalist));
            progress.note(&format!("{}: another kernel wins in step", task.name));
            changed.push(at);
        }
    }
    Ok(changed)
}

/// Positions of the problems of a token bucket that have a winner, in the order of the request.
fn bucket_of(tasks: &[Task], standings: &[Standing], tokens: u32) -> Vec<usize> {
    let belongs = |at: &usize| {
        let standing = &standings[*at];
        tasks[standing.index].problem.m == tokens && standing.judgement.won.is_some()
    };
    let mut bucket: Vec<usize> = (0..standings.len()).filter(belongs).collect();
    bucket.sort_by_key(|at| standings[*at].index);
    bucket
}

/// How often each of a bucket's problems runs in a layer, from its calls in a whole step: 0 for what is
/// no part of a layer, such as the last projection.
fn launches_per_layer(calls: &[u32]) -> Vec<u32> {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let layers = sorted.get(sorted.len() / 2).copied().unwrap_or(1).max(1);
    calls.iter().map(|calls| (calls + layers / 2) / layers).collect()
}

fn step<'a>(
    tasks: &'a [Task],
    standings: &'a [Standing],
    bucket: &[usize],
    at: usize,
) -> Option<Step<'a>> {
    let task = |at: usize| &tasks[standings[at].index];
    let calls: Vec<u32> = bucket.iter().map(|&at| task(at).calls).collect();
    let (mut layer, mut once) = (Vec::new(), Vec::new());
    for (&other, times) in bucket.iter().zip(launches_per_layer(&calls)) {
        let place = match other == at {
            true => Place::Contender,
            false => Place::Other(task(other), &standings[other].judgement.won.as_ref()?.finalist),
        };
        match times {
            0 => once.push(place),
            times => layer.extend((0..times).map(|_| place)),
        }
    }
    let judgement = &standings[at].judgement;
    let finalists = judgement.won.iter().chain(&judgement.rivals);
    let contenders = finalists.map(|contender| &contender.finalist).collect();
    Some(Step { task: task(at), contenders, layer, once })
}

/// The ratio of steps that is a tie: that of kernels, by the share which they have in a step.
fn tie(standings: &[Standing], bucket: &[usize], at: usize, tasks: &[Task]) -> f64 {
    let time = |at: usize| {
        let won = standings[at].judgement.won.as_ref();
        won.map_or(0.0, |won| won.time_us) * f64::from(tasks[standings[at].index].calls)
    };
    let all: f64 = bucket.iter().map(|&at| time(at)).sum();
    TIE * (time(at) / all).clamp(SHARE_MIN, 1.0)
}

/// The contenders side by side, each in the step. A fault of one ends it: in a chain nobody can say
/// whose it is, and alone all of them passed every check.
fn run(
    bed: &dyn TestBed,
    step: &Step<'_>,
    tie: f64,
    log: &mut Log<'_>,
) -> Result<Result<Ranking, Fault>, SearchError> {
    for contender in &step.contenders {
        log.launch(step.task, &contender.candidate.text)?;
    }
    let ranking = bed.watch_in_step(step).and_then(|watches| {
        let (ranking, mut faults) = run_off(&watches, tie);
        match faults.is_empty() {
            true => Ok(ranking),
            false => Err(faults.swap_remove(0).1),
        }
    });
    for contender in &step.contenders {
        // The time of a step is no time of a kernel.
        log.result(step.task, &contender.candidate.text, Outcome::Ok, None)?;
    }
    Ok(ranking)
}

/// Makes a rival the winner.
fn promote(standing: &mut Standing, rival: usize) {
    let judgement = &mut standing.judgement;
    let rival = judgement.rivals.remove(rival);
    judgement.lost.retain(|lost| lost.text != rival.finalist.candidate.text);
    let Some(beaten) = judgement.won.replace(rival) else { return };
    let Won { finalist: Finalist { candidate: Candidate { text, .. }, .. }, time_us, .. } = &beaten;
    let mut reason = "faster alone, slower among the layer's other kernels".to_owned();
    if standing.default.as_ref() == Some(text) {
        reason = format!("{}: {reason}", crate::report::DEFAULT_LOST);
    }
    judgement.lost.push(Lost { text: text.clone(), time_us: *time_us, reason });
    judgement.lost.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
    judgement.rivals.push(beaten);
}

/// One launch of a chain.
struct Launch {
    /// Number of the kernel among the others; `None` for the contender.
    other: Option<usize>,
    /// Copy of its weights: another one than in the kernel's launch before.
    copy: usize,
}

/// The launches of so many layers and of what comes after them.
fn chain(layers: u64, layer: &[Option<usize>], once: &[Option<usize>]) -> Rc<[Launch]> {
    let mut launched: HashMap<Option<usize>, usize> = HashMap::new();
    let places = (0..layers).flat_map(|_| layer).chain(once);
    let launch = |&other: &Option<usize>| {
        let count = launched.entry(other).or_default();
        *count += 1;
        Launch { other, copy: *count - 1 }
    };
    places.map(launch).collect()
}

/// A step on a device, with one contender in its places.
struct StepWatch<'a> {
    device: &'a dyn Device,
    order: Rc<[Launch]>,
    others: Rc<[Stopwatch<'a>]>,
    contender: Stopwatch<'a>,
}

impl Watch for StepWatch<'_> {
    fn time(&self, plan: &TimingPlan) -> Result<Timing, Fault> {
        let kernel = |launch: &Launch| {
            let stopwatch = launch.other.map_or(&self.contender, |other| &self.others[other]);
            stopwatch.launch(launch.copy)
        };
        let chain: Vec<_> = self.order.iter().map(kernel).collect();
        let plan = TimingPlan { launches_per_sample: CHAINS_PER_SAMPLE, ..*plan };
        possible(self.device.time_chain(&chain, &plan)?)
    }
}

/// Sets a step up on a device, once for each contender; the other kernels' operands are shared.
///
/// # Errors
/// Those of loading kernels and allocating their operands.
pub(crate) fn step_watches<'a>(
    device: &'a dyn Device,
    step: &Step<'a>,
) -> Result<Vec<Box<dyn Watch + 'a>>, Fault> {
    let mut others: Vec<(&Finalist, Stopwatch<'a>)> = Vec::new();
    let mut number = |place: &Place<'a>| -> Result<Option<usize>, Fault> {
        let Place::Other(_, finalist) = *place else { return Ok(None) };
        if let Some(at) = others.iter().position(|(other, _)| std::ptr::eq(*other, finalist)) {
            return Ok(Some(at));
        }
        others.push((finalist, Stopwatch::new(device, &finalist.image)?));
        Ok(Some(others.len() - 1))
    };
    let layer = step.layer.iter().map(&mut number).collect::<Result<Vec<_>, Fault>>()?;
    let once = step.once.iter().map(&mut number).collect::<Result<Vec<_>, Fault>>()?;
    let contenders = step.contenders.iter().map(|c| Stopwatch::new(device, &c.image));
    let contenders = contenders.collect::<Result<Vec<_>, _>>()?;
    let others: Rc<[Stopwatch<'a>]> = others.into_iter().map(|(_, stopwatch)| stopwatch).collect();
    let bytes = |place: &Option<usize>| {
        let stopwatch = place.map_or_else(|| contenders.first(), |other| others.get(other));
        stopwatch.map_or(0, |stopwatch| stopwatch.weight_bytes() as u64)
    };
    let layer_bytes: u64 = layer.iter().map(bytes).sum();
    let layers = (COLD_FACTOR * device.arch().l2_bytes).div_ceil(layer_bytes.max(1)) + 1;
    let layers = layers.clamp(LAYERS.0, LAYERS.1);
    let order = chain(layers, &layer, &once);
    let watch = |contender: Stopwatch<'a>| -> Box<dyn Watch + 'a> {
        Box::new(StepWatch { device, order: order.clone(), others: others.clone(), contender })
    };
    Ok(contenders.into_iter().map(watch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_runs_what_every_layer_has_as_often_as_it_does() {
        assert_eq!(launches_per_layer(&[64, 64, 64, 64]), [1, 1, 1, 1]);
        // Query and output projections of one shape; the vocabulary's, once a step.
        assert_eq!(launches_per_layer(&[64, 128, 64, 1]), [1, 2, 1, 0]);
        assert_eq!(launches_per_layer(&[1, 1]), [1, 1]);
    }

    #[test]
    fn a_chain_launches_layer_after_layer_each_kernel_on_its_next_copy() {
        let chain = chain(2, &[Some(0), None, Some(0)], &[Some(1)]);
        let launches: Vec<_> = chain.iter().map(|launch| (launch.other, launch.copy)).collect();
        let first = [(Some(0), 0), (None, 0), (Some(0), 1)];
        let second = [(Some(0), 2), (None, 1), (Some(0), 3)];
        assert_eq!(launches, [&first[..], &second, &[(Some(1), 0)]].concat());
    }
}
