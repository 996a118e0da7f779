//! Judging on a device that measures: check, time, check in full, run off.

use crate::finalist::Finalist;
use crate::judge::{Fault, Judge, Judgement, Lost, Won};
use crate::log::Log;
use crate::timing::Stopwatch;
use crate::SearchError;
use qtune_cache::trial_log::Outcome;
use qtune_cache::Evidence;
use qtune_device::{Timing, TimingPlan};
use qtune_ir::Schedule;
use qtune_verify::{Effort, Verdict};
use std::cmp::Ordering;

/// Finalists this much slower than the best are still compared with it, side by side.
const NOISE: f64 = 1.02;
/// Finalists that are compared side by side, at most.
const CONTENDERS: usize = 3;
/// Interleaved rounds of a run-off.
const ROUNDS: u32 = 7;
/// Ratios of times nearer to one than this are a tie.
const TIE: f64 = 0.005;

/// A finalist with its measured time.
struct Measured {
    finalist: Finalist,
    time_us: f64,
    samples_us: Vec<f64>,
}

/// The fastest finalist that passes the full check wins; inside the noise the simpler one does.
pub(crate) fn by_time(
    judge: &Judge<'_>,
    fit: Vec<Finalist>,
    judgement: &mut Judgement,
    log: &mut Log<'_>,
) -> Result<(), SearchError> {
    let mut measured = measure_all(judge, fit, judgement, log)?;
    measured.sort_by(|a, b| {
        a.time_us.total_cmp(&b.time_us).then_with(|| simpler(&a.finalist, &b.finalist))
    });
    let mut champion: Option<(Measured, Verdict)> = None;
    let mut contenders = 0;
    for contender in measured {
        let near = |best: &Measured| contender.time_us <= best.time_us * NOISE;
        let enters = match &champion {
            None => true,
            Some((best, _)) => near(best) && contenders < CONTENDERS && (judge.go_on)(),
        };
        if !enters {
            retire(judge, judgement, contender, "slower when timed");
            continue;
        }
        let text = contender.finalist.candidate.text.clone();
        log.launch(judge.task, &text)?;
        match judge.check(&contender.finalist, Effort::Full) {
            Err(fault) => judge.condemn(judgement, log, &contender.finalist.candidate, fault)?,
            Ok(verdict) => {
                log.result(judge.task, &text, Outcome::Ok, Some(contender.time_us))?;
                judgement.tally.verified += 1;
                contenders += 1;
                champion = Some(match champion {
                    None => (contender, verdict),
                    Some(old) => duel(judge, judgement, log, old, (contender, verdict))?,
                });
            }
        }
    }
    judgement.won = champion.map(|(measured, verdict)| Won {
        finalist: measured.finalist,
        verdict,
        time_us: measured.time_us,
        samples_us: measured.samples_us,
        evidence: Evidence::Timed,
    });
    Ok(())
}

/// Checks every finalist quickly and times those that pass.
fn measure_all(
    judge: &Judge<'_>,
    fit: Vec<Finalist>,
    judgement: &mut Judgement,
    log: &mut Log<'_>,
) -> Result<Vec<Measured>, SearchError> {
    let mut measured: Vec<Measured> = Vec::new();
    for finalist in fit {
        if !(judge.go_on)() {
            break;
        }
        let text = finalist.candidate.text.clone();
        log.launch(judge.task, &text)?;
        let timing = judge.check(&finalist, Effort::Quick).and_then(|_| time(judge, &finalist));
        match timing {
            Err(fault) => judge.condemn(judgement, log, &finalist.candidate, fault)?,
            Ok(Timing { median_us: time_us, samples_us, .. }) => {
                log.result(judge.task, &text, Outcome::Ok, Some(time_us))?;
                judgement.tally.timed += 1;
                if judge.default == Some(text.as_str()) {
                    judgement.default_us = Some(time_us);
                }
                if measured.iter().all(|m| time_us < m.time_us) {
                    judge.best(judgement, &finalist, time_us);
                }
                measured.push(Measured { finalist, time_us, samples_us });
            }
        }
        judge.progress.candidate(judge.index, &judgement.tally);
    }
    Ok(measured)
}

fn time(judge: &Judge<'_>, finalist: &Finalist) -> Result<Timing, Fault> {
    let stopwatch = Stopwatch::new(judge.device, &finalist.image)?;
    sound_timing(&stopwatch, &TimingPlan::default())
}

/// A timing that is a time at all.
fn sound_timing(stopwatch: &Stopwatch<'_>, plan: &TimingPlan) -> Result<Timing, Fault> {
    let wrong = |reason: String| Fault::Wrong(reason);
    let timing = stopwatch.time(plan)?.ok_or_else(|| wrong("the device gave no time".into()))?;
    match timing.median_us.is_finite() && timing.median_us > 0.0 {
        true => Ok(timing),
        false => Err(wrong(format!("the device timed it as {} us", timing.median_us))),
    }
}

/// Two verified finalists side by side; the loser is recorded.
fn duel(
    judge: &Judge<'_>,
    judgement: &mut Judgement,
    log: &mut Log<'_>,
    old: (Measured, Verdict),
    new: (Measured, Verdict),
) -> Result<(Measured, Verdict), SearchError> {
    let order = match run_off(judge, &old.0.finalist, &new.0.finalist) {
        Ok(order) => order,
        Err(Broken { old: true, fault }) => {
            judge.condemn(judgement, log, &old.0.finalist.candidate, fault)?;
            return Ok(new);
        }
        Err(Broken { old: false, fault }) => {
            judge.condemn(judgement, log, &new.0.finalist.candidate, fault)?;
            return Ok(old);
        }
    };
    let tie = order == Ordering::Equal;
    let order = order.then_with(|| simpler(&old.0.finalist, &new.0.finalist));
    let (winner, loser) = if order == Ordering::Greater { (new, old) } else { (old, new) };
    let reason = if tie { "as fast, but less simple" } else { "slower side by side" };
    retire(judge, judgement, loser.0, reason);
    Ok(winner)
}

/// A run-off that one side could not finish.
struct Broken {
    /// Whether it was the one that held the title.
    old: bool,
    fault: Fault,
}

/// `Less` if `old` is faster: the median of ratios of interleaved measurements.
fn run_off(judge: &Judge<'_>, old: &Finalist, new: &Finalist) -> Result<Ordering, Broken> {
    let broken = |old| move |fault| Broken { old, fault };
    let watch = |f: &Finalist| Stopwatch::new(judge.device, &f.image).map_err(Fault::from);
    let watches = [watch(old).map_err(broken(true))?, watch(new).map_err(broken(false))?];
    let plan = TimingPlan { samples: 3, warmup: 1, ..TimingPlan::default() };
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        // Whoever comes second finds the GPU warmer, so they take turns.
        let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut times = [0.0; 2];
        for side in turns {
            let timing = sound_timing(&watches[side], &plan).map_err(broken(side == 0))?;
            times[side] = timing.median_us;
        }
        ratios.push(times[0] / times[1]);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    Ok(match (ratio - 1.0).abs() <= TIE {
        true => Ordering::Equal,
        false => ratio.total_cmp(&1.0),
    })
}

/// Fewer splits, then threads, then loads ahead; the text decides the rest.
fn simpler(a: &Finalist, b: &Finalist) -> Ordering {
    let key = |f: &Finalist| {
        let schedule = &f.candidate.schedule;
        let depth = match schedule {
            Schedule::Gemv(s) => s.unroll,
            Schedule::Mma(s) => s.stages,
            Schedule::Wgmma(s) => s.stages,
        };
        (schedule.split_k(), schedule.threads(), depth, f.candidate.text.clone())
    };
    key(a).cmp(&key(b))
}

fn retire(judge: &Judge<'_>, judgement: &mut Judgement, loser: Measured, reason: &str) {
    let text = loser.finalist.candidate.text;
    let reason = judge.named(&text, reason);
    judgement.lost.push(Lost { text, time_us: loser.time_us, reason });
}
