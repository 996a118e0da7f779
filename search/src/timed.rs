//! Judging where times are measured: rounds of check and time, the finals, the run-off.
//!
//! First the finalists of the ladder are measured. Then the measurements correct the model
//! (`surrogate`), and what the corrected model likes best of everything the ladder ranked is
//! compiled and measured, a few at a time, until the limit is reached or nothing promises to beat
//! the best. In the finals the best undergo the full check, and those that pass run side by side.

use crate::bed::{TestBed, Watch};
use crate::candidate::Candidate;
use crate::fault::Fault;
use crate::finalist::{compile_all, Finalist};
use crate::judge::{Judge, Judgement, Lost, Won};
use crate::log::Log;
use crate::request::Task;
use crate::run_off::{run_off, Ranking, TIE};
use crate::statistics::{median, standard_error};
use crate::surrogate::{Encoder, Point, Surrogate};
use crate::SearchError;
use qtune_cache::trial_log::Outcome;
use qtune_device::{Timing, TimingPlan};
use qtune_ir::Schedule;
use qtune_verify::{Effort, Verdict};
use std::collections::HashMap;

/// Candidates that are compiled and measured between two looks at the surrogate.
const BATCH: usize = 8;
/// One in so many of the ranked schedules is measured, at most.
const SPACE_SHARE: usize = 10;
/// Standard deviations of luck that an unmeasured candidate is given where it is compared with others.
const HOPE: f64 = 1.5;
/// Standard deviations of luck with which it must reach the best to be worth measuring at all. The
/// process is surer of itself than it should be where fields act together in ways that it does not
/// know, and stopping early loses more than a measurement costs.
const LUCK: f64 = 3.0;
/// Finalists this much slower than the best are still compared with it, side by side.
const NEAR: f64 = 0.02;
/// Standard deviations that are added to it.
const DOUBT: f64 = 2.0;
/// Finalists that are compared side by side, at most.
const CONTENDERS: usize = 8;
/// The error of a median is taken for no less than this share: clocks and counters are not finer.
const ERROR_MIN: f64 = 0.003;
/// The error of a median that cannot be known for lack of samples.
const ERROR_UNKNOWN: f64 = 0.02;
/// Distance between the quartiles of a kernel's samples, as a share of their median, beyond which it
/// is taken to have several modes...
const UNSTEADY: f64 = 0.15;
/// ...and how many times as many samples are then taken.
const LONGER: u32 = 5;
/// Finalists by which the clock is read.
const ANCHORS: usize = 5;
/// A clock that moved by less than this share is left alone.
const DRIFT_MIN: f64 = 0.02;

/// The fastest finalist that passes the full check wins; inside the noise the simpler one does.
pub(crate) fn by_time(
    judge: &Judge<'_>,
    fit: Vec<Finalist>,
    pool: &[Candidate],
    judgement: &mut Judgement,
    log: &mut Log<'_>,
) -> Result<(), SearchError> {
    let mut field = Field::new(judge, pool, judgement, log);
    fit.into_iter().try_for_each(|finalist| field.measure(finalist))?;
    field.explore()?;
    field.finals()
}

/// A finalist with its measured time.
struct Measured {
    finalist: Finalist,
    timing: Timing,
    /// Logarithm of its time, less what the clock has drifted, over the model's.
    point: Point,
}

/// How fast a finalist is, as logarithms of microseconds less what the clock has drifted.
#[derive(Clone, Copy)]
struct Level {
    /// By the process, which knows what others took.
    expected: f64,
    deviation: f64,
    /// By its own samples alone.
    timed: f64,
}

impl Level {
    /// Whether it might be as fast as `best`.
    fn is_near(&self, best: &Level) -> bool {
        let doubt = DOUBT * self.deviation.hypot(best.deviation);
        self.expected <= best.expected + NEAR + doubt
    }
}

/// One problem's measurements.
struct Field<'a, 'j, 'l> {
    judge: &'a Judge<'j>,
    judgement: &'a mut Judgement,
    log: &'a mut Log<'l>,
    encoder: Encoder,
    /// Schedules that the ladder ranked.
    ranked: usize,
    /// What may still be measured, with the model's time.
    open: Vec<(Candidate, f64)>,
    /// The model's time of everything that was ranked, before it was compiled.
    modelled: HashMap<String, f64>,
    measured: Vec<Measured>,
    /// Candidates launched. One that does not compile costs far less, and tells nothing.
    launched: usize,
    /// Candidates compiled after the ladder's.
    compiled: usize,
    /// Now over the first time of the first that was measured.
    drift: f64,
}

impl<'a, 'j, 'l> Field<'a, 'j, 'l> {
    fn new(
        judge: &'a Judge<'j>,
        pool: &[Candidate],
        judgement: &'a mut Judgement,
        log: &'a mut Log<'l>,
    ) -> Field<'a, 'j, 'l> {
        let known = |text: &String| judgement.lost.iter().any(|lost| lost.text == *text);
        let open: Vec<(Candidate, f64)> = pool
            .iter()
            .filter(|candidate| !known(&candidate.text))
            .map(|candidate| (candidate.clone(), candidate.estimate.time_us))
            .collect();
        let modelled = open.iter().map(|(c, us)| (c.text.clone(), *us)).collect();
        let encoder = Encoder::of(pool.iter().map(|candidate| candidate.text.as_str()));
        Field {
            judge,
            judgement,
            log,
            encoder,
            ranked: pool.len(),
            open,
            modelled,
            measured: Vec::new(),
            launched: 0,
            compiled: 0,
            drift: 1.0,
        }
    }

    /// The quick check, and the time if it passes.
    fn measure(&mut self, finalist: Finalist) -> Result<(), SearchError> {
        let Field { judge, judgement, log, .. } = self;
        let text = finalist.candidate.text.clone();
        self.open.retain(|(candidate, _)| candidate.text != text);
        if !(judge.go_on)() {
            return Ok(());
        }
        self.launched += 1;
        log.compiled(judge.task, &finalist.candidate)?;
        log.launch(judge.task, &text)?;
        let timing = judge.check(&finalist, Effort::Quick).and_then(|_| time(judge, &finalist));
        match timing {
            Err(fault) => judge.condemn(judgement, log, &finalist.candidate, fault)?,
            Ok(timing) => {
                let time_us = timing.median_us;
                log.timed(judge.task, &text, &timing)?;
                log.result(judge.task, &text, Outcome::Ok, Some(time_us))?;
                judgement.tally.timed += 1;
                if judge.default == Some(text.as_str()) {
                    judgement.default_us = Some(time_us);
                }
                if self.measured.iter().all(|m| time_us < m.timing.median_us) {
                    judge.best(judgement, &finalist, time_us);
                }
                self.enter(finalist, timing);
            }
        }
        self.judge.progress.candidate(self.judge.index, &self.judgement.tally);
        Ok(())
    }

    fn enter(&mut self, finalist: Finalist, timing: Timing) {
        let candidate = &finalist.candidate;
        let modelled = self.modelled.get(&candidate.text);
        let modelled = *modelled.unwrap_or(&candidate.estimate.time_us);
        let value = (timing.median_us / self.drift / modelled).ln();
        let error = standard_error(&timing.samples_us) / timing.median_us;
        let error = if error.is_finite() { error.max(ERROR_MIN) } else { ERROR_UNKNOWN };
        let point = Point { at: self.encoder.features(&candidate.text), value, error };
        self.measured.push(Measured { finalist, timing, point });
    }

    /// Logarithm of the modelled time of what was measured.
    fn model(&self, measured: &Measured) -> f64 {
        let candidate = &measured.finalist.candidate;
        self.modelled.get(&candidate.text).unwrap_or(&candidate.estimate.time_us).ln()
    }

    /// Compiles and measures what the corrected model likes, a batch at a time.
    fn explore(&mut self) -> Result<(), SearchError> {
        let limits = self.judge.limits;
        let most = limits.measured.min((self.ranked / SPACE_SHARE).max(limits.finalists));
        while self.launched < most && self.compiled < 2 * most && (self.judge.go_on)() {
            let batch = self.choose(BATCH.min(most - self.launched));
            if batch.is_empty() {
                return Ok(());
            }
            self.open.retain(|(candidate, _)| batch.iter().all(|b| b.text != candidate.text));
            let done = |_: &_| ();
            let Judge { task, arch, bed, go_on, .. } = self.judge;
            let compiled = compile_all(task, arch, *bed, batch, *go_on, &done);
            self.judgement.tally.compiled += compiled.len();
            self.compiled += compiled.len();
            let fit = self.judge.admit(compiled, self.judgement, self.log)?;
            self.look_at_the_clock();
            fit.into_iter().try_for_each(|finalist| self.measure(finalist))?;
        }
        Ok(())
    }

    /// The candidates that promise most, of those that may beat the best at all. Each one chosen
    /// counts as measured with what is expected of it, so that the next one tells something else.
    fn choose(&self, count: usize) -> Vec<Candidate> {
        let mut points: Vec<Point> = self.measured.iter().map(|m| m.point.clone()).collect();
        let best = self.measured.iter().map(|m| self.model(m) + m.point.value);
        let best = best.fold(f64::INFINITY, f64::min);
        let mut open: Vec<(&Candidate, f64, Vec<f64>)> =
            self.open.iter().map(|(c, us)| (c, us.ln(), self.encoder.features(&c.text))).collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !open.is_empty() {
            let surrogate = Surrogate::of(&points);
            let promise = |(_, modelled, at): &(&Candidate, f64, Vec<f64>)| {
                let (mean, deviation) = surrogate.predict(at);
                let level = modelled + mean;
                (level - HOPE * deviation, level - LUCK * deviation)
            };
            let promises: Vec<(f64, f64)> = open.iter().map(promise).collect();
            let least = |a: &usize, b: &usize| promises[*a].0.total_cmp(&promises[*b].0);
            let possible = (0..open.len()).filter(|at| promises[*at].1 < best);
            let Some(first) = possible.min_by(least) else { break };
            let (candidate, _, at) = open.remove(first);
            let value = surrogate.predict(&at).0;
            points.push(Point { at, value, error: ERROR_UNKNOWN });
            chosen.push(candidate.clone());
        }
        chosen
    }

    /// Times the first finalists again: what most of them take more or less than before, the clock
    /// does. One alone could be in another of its moods.
    fn look_at_the_clock(&mut self) {
        let ratio = |m: &Measured| {
            let now = time(self.judge, &m.finalist).ok()?;
            Some(now.median_us / m.timing.median_us)
        };
        let ratios: Vec<f64> = self.measured.iter().take(ANCHORS).filter_map(ratio).collect();
        let ratio = median(&ratios);
        let moved = ratios.len() == ANCHORS && (ratio - 1.0).abs() > DRIFT_MIN;
        self.drift = if moved { ratio } else { 1.0 };
    }

    /// How fast everything that was measured is.
    fn levels(&self) -> Vec<Level> {
        let points: Vec<Point> = self.measured.iter().map(|m| m.point.clone()).collect();
        let surrogate = Surrogate::of(&points);
        let level = |m: &Measured| {
            let (modelled, (mean, deviation)) = (self.model(m), surrogate.predict(&m.point.at));
            Level { expected: modelled + mean, deviation, timed: modelled + m.point.value }
        };
        self.measured.iter().map(level).collect()
    }

    /// The full check for the best, then the run-off.
    fn finals(self) -> Result<(), SearchError> {
        let levels = self.levels();
        let Field { judge, judgement, log, measured, .. } = self;
        let mut ranked: Vec<(Measured, Level)> = measured.into_iter().zip(levels).collect();
        ranked.sort_by(|(a, x), (b, y)| {
            let [a, b] = [a, b].map(|measured| &measured.finalist.candidate);
            x.expected.total_cmp(&y.expected).then_with(|| simplicity(a).cmp(&simplicity(b)))
        });
        let mut contenders: Vec<(Measured, Verdict)> = Vec::new();
        let mut best: Option<Level> = None;
        let mut fastest = f64::INFINITY;
        for (measured, level) in ranked {
            let invited = best.is_none_or(|best| level.is_near(&best));
            // The process smooths: what it takes for luck may all be true of one that is unlike the
            // others. The run-off knows, so whoever was faster than all contenders is one.
            let enters = invited && contenders.len() < CONTENDERS || level.timed < fastest;
            if !enters || (best.is_some() && !(judge.go_on)()) {
                retire(judge, judgement, &measured, "slower when timed");
                continue;
            }
            let candidate = &measured.finalist.candidate;
            log.launch(judge.task, &candidate.text)?;
            match judge.check(&measured.finalist, Effort::Full) {
                Err(fault) => judge.condemn(judgement, log, candidate, fault)?,
                Ok(verdict) => {
                    let time_us = Some(measured.timing.median_us);
                    log.result(judge.task, &candidate.text, Outcome::Ok, time_us)?;
                    judgement.tally.verified += 1;
                    best = best.or(Some(level));
                    fastest = fastest.min(level.timed);
                    contenders.push((measured, verdict));
                }
            }
        }
        decide(judge, judgement, log, contenders)
    }
}

/// Runs the contenders side by side; the simplest of the fastest wins.
fn decide(
    judge: &Judge<'_>,
    judgement: &mut Judgement,
    log: &mut Log<'_>,
    contenders: Vec<(Measured, Verdict)>,
) -> Result<(), SearchError> {
    let (ranking, faults) = side_by_side(judge, &contenders);
    for (at, fault) in faults {
        let candidate = &contenders[at].0.finalist.candidate;
        judge.condemn(judgement, log, candidate, fault)?;
    }
    let candidate = |at: usize| &contenders[at].0.finalist.candidate;
    let simplest =
        |a: &&usize, b: &&usize| simplicity(candidate(**a)).cmp(&simplicity(candidate(**b)));
    let winner = ranking.tied.iter().min_by(simplest).copied();
    for (at, (measured, verdict)) in contenders.into_iter().enumerate() {
        if ranking.broken.contains(&at) {
            continue;
        }
        if Some(at) != winner {
            let tied = ranking.tied.contains(&at);
            let reason = if tied { "as fast, but less simple" } else { "slower side by side" };
            retire(judge, judgement, &measured, reason);
        }
        let samples_us = ranking.samples_us.get(at).filter(|s| !s.is_empty());
        let samples_us = samples_us.unwrap_or(&measured.timing.samples_us).clone();
        let contender = Won {
            time_us: median(&samples_us),
            samples_us,
            finalist: measured.finalist,
            verdict,
            evidence: judge.bed.evidence(),
        };
        match Some(at) == winner {
            true => judgement.won = Some(contender),
            false => judgement.rivals.push(contender),
        }
    }
    let won = judgement.won.as_ref();
    judgement.load_only_us = won.and_then(|won| load_only(judge.bed, judge.task, &won.finalist));
    Ok(())
}

/// The run-off, unless there is nobody to run against.
fn side_by_side(
    judge: &Judge<'_>,
    contenders: &[(Measured, Verdict)],
) -> (Ranking, Vec<(usize, Fault)>) {
    if contenders.len() < 2 {
        return (Ranking::unopposed(contenders.len()), Vec::new());
    }
    let mut watches: Vec<Box<dyn Watch + '_>> = Vec::new();
    for (at, (measured, _)) in contenders.iter().enumerate() {
        match judge.bed.watch(judge.task, &measured.finalist) {
            Ok(watch) => watches.push(watch),
            // The others' operands went with the process, or there is no room for all: the
            // measurements so far decide.
            Err(fault) => return (Ranking::without(contenders.len(), at), vec![(at, fault)]),
        }
    }
    run_off(&watches, TIE)
}

/// A kernel's time. Of one that has several modes a few samples may mostly show the rarer one, so
/// it is timed for longer.
fn time(judge: &Judge<'_>, finalist: &Finalist) -> Result<Timing, Fault> {
    let (watch, plan) = (judge.bed.watch(judge.task, finalist)?, TimingPlan::default());
    let timing = watch.time(&plan)?;
    if timing.spread_us <= UNSTEADY * timing.median_us {
        return Ok(timing);
    }
    watch.time(&TimingPlan { samples: LONGER * plan.samples, ..plan })
}

/// What reading alone takes. That it is not known costs a winner nothing.
pub(crate) fn load_only(bed: &dyn TestBed, task: &Task, finalist: &Finalist) -> Option<f64> {
    let timed = bed.load_only(task, finalist);
    timed.unwrap_or_else(|fault| {
        let schedule = &finalist.candidate.text;
        tracing::warn!(problem = %task.problem, %schedule, ?fault, "no load-only time");
        None
    })
}

/// No stream-K, fewer blocks that share K or tokens, then threads, then loads ahead; the text decides the rest.
pub(crate) fn simplicity(candidate: &Candidate) -> (bool, u32, u32, u32, &str) {
    let schedule = &candidate.schedule;
    let split = schedule.split();
    let streams = split.stream().is_some();
    let together = split.per_tile() * schedule.multicast();
    (streams, together, schedule.threads(), depth(schedule), &candidate.text)
}

/// Loads ahead.
fn depth(schedule: &Schedule) -> u32 {
    match schedule {
        Schedule::Gemv(s) => s.unroll,
        Schedule::Mma(s) => s.stages,
        Schedule::Wgmma(s) => s.stages,
        Schedule::Dequant(s) => s.multiplication().map_or(1, |own| depth(&own)),
    }
}

fn retire(judge: &Judge<'_>, judgement: &mut Judgement, loser: &Measured, reason: &str) {
    let text = loser.finalist.candidate.text.clone();
    let reason = judge.named(&text, reason);
    judgement.lost.push(Lost { text, time_us: loser.timing.median_us, reason });
}
