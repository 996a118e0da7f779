//! How well a model ranks: rank correlation of modelled with measured times.
//!
//! A search needs the order of candidates, not their times, so the model is judged by Spearman's
//! rho (Pearson's correlation of ranks) and Kendall's tau-b (concordant less discordant pairs),
//! both with ties: 1 is the same order, 0 none, -1 the opposite.

use qtune_cache::trial_log::{Outcome, TrialEvent};
use qtune_cache::Evidence;
use std::collections::BTreeMap;

/// Fewer pairs than this say nothing about an order.
const LEAST_PAIRS: usize = 3;

/// Rank correlation of two orders of the same things.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RankCorrelation {
    /// Spearman's rho, from -1 to 1.
    pub spearman: f64,
    /// Kendall's tau-b, from -1 to 1.
    pub kendall: f64,
    /// Things that were ranked.
    pub pairs: usize,
}

/// The rank correlation of pairs of values, neither of which may be NaN; `None` for fewer than
/// three pairs, and where one side is all the same.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<RankCorrelation> {
    if pairs.len() < LEAST_PAIRS {
        return None;
    }
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    Some(RankCorrelation {
        spearman: pearson(&ranks(&a), &ranks(&b))?,
        kendall: kendall(pairs)?,
        pairs: pairs.len(),
    })
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|v| *v < value).count() as f64;
        let equal = values.iter().filter(|v| *v == value).count() as f64;
        below + (equal + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let deviations: Vec<(f64, f64)> =
        a.iter().zip(b).map(|(x, y)| (x - mean_a, y - mean_b)).collect();
    let of = |f: &dyn Fn(&(f64, f64)) -> f64| deviations.iter().map(f).sum::<f64>();
    let spread = (of(&|d| d.0 * d.0) * of(&|d| d.1 * d.1)).sqrt();
    (spread > 0.0).then(|| of(&|d| d.0 * d.1) / spread)
}

fn kendall(pairs: &[(f64, f64)]) -> Option<f64> {
    let (mut balance, mut differ_a, mut differ_b) = (0.0, 0.0, 0.0);
    for (i, x) in pairs.iter().enumerate() {
        for y in &pairs[..i] {
            let sign = |d: f64| f64::from(i8::from(d > 0.0) - i8::from(d < 0.0));
            let (a, b) = (sign(x.0 - y.0), sign(x.1 - y.1));
            balance += a * b;
            differ_a += a.abs();
            differ_b += b.abs();
        }
    }
    let most = f64::sqrt(differ_a * differ_b);
    (most > 0.0).then(|| balance / most)
}

/// How well one problem's candidates were ranked.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ranking {
    /// Problem key.
    pub problem: String,
    /// Candidates that a device timed.
    pub timed: usize,
    /// The cost model before compiling against the times.
    pub before_compiling: Option<RankCorrelation>,
    /// The model with what the compiler made of the candidate against the times.
    pub compiled: Option<RankCorrelation>,
}

/// The ranking of every problem in a trial log, by its key. A schedule that was timed several times
/// counts once, with its last time.
pub fn rankings(events: &[TrialEvent]) -> Vec<Ranking> {
    #[derive(Default)]
    struct Times {
        proposed: Option<f64>,
        compiled: Option<f64>,
        timed: Option<f64>,
    }
    let mut problems: BTreeMap<&str, BTreeMap<&str, Times>> = BTreeMap::new();
    let mut at = |problem, schedule, enter: &dyn Fn(&mut Times)| {
        let times: &mut Times = problems.entry(problem).or_default().entry(schedule).or_default();
        enter(times);
    };
    for event in events {
        match event {
            TrialEvent::Proposed { problem, schedule, predicted_us, .. } => {
                at(problem, schedule, &|times| times.proposed = Some(*predicted_us));
            }
            TrialEvent::Compiled { problem, schedule, predicted_us } => {
                at(problem, schedule, &|times| times.compiled = Some(*predicted_us));
            }
            TrialEvent::Result {
                problem,
                schedule,
                outcome: Outcome::Ok,
                time_us: Some(us),
                evidence: Evidence::Timed,
            } => at(problem, schedule, &|times| times.timed = Some(*us)),
            _ => {}
        }
    }
    let ranking = |(problem, schedules): (&str, BTreeMap<&str, Times>)| {
        let against = |model: fn(&Times) -> Option<f64>| {
            let pairs: Vec<(f64, f64)> = schedules
                .values()
                .filter_map(|times| Some((model(times)?, times.timed?)))
                .collect();
            rank_correlation(&pairs)
        };
        Ranking {
            problem: problem.to_owned(),
            timed: schedules.values().filter(|times| times.timed.is_some()).count(),
            before_compiling: against(|times| times.proposed),
            compiled: against(|times| times.compiled),
        }
    };
    problems.into_iter().map(ranking).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_order_is_one_and_the_opposite_minus_one() {
        let same = rank_correlation(&[(1.0, 10.0), (2.0, 11.0), (4.0, 90.0)]).unwrap();
        assert_eq!((same.spearman, same.kendall, same.pairs), (1.0, 1.0, 3));
        let opposite = rank_correlation(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]).unwrap();
        assert_eq!((opposite.spearman, opposite.kendall), (-1.0, -1.0));
    }

    /// By hand: ranks 1 2 3 4 against 2 1 4 3. Squared differences add up to 4, so
    /// rho = 1 - 6 * 4 / (4 * 15) = 0.6; 4 of 6 pairs agree, so tau = (4 - 2) / 6.
    #[test]
    fn two_swapped_neighbours_cost_what_the_textbook_says() {
        let found = rank_correlation(&[(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0)]).unwrap();
        assert!((found.spearman - 0.6).abs() < 1e-12);
        assert!((found.kendall - 1.0 / 3.0).abs() < 1e-12);
    }

    /// By hand: ranks 1.5 1.5 3 against 1 2 3; tau-b = 2 / sqrt(2 * 3).
    #[test]
    fn ties_share_their_ranks() {
        let found = rank_correlation(&[(5.0, 1.0), (5.0, 2.0), (9.0, 3.0)]).unwrap();
        assert!((found.spearman - 0.75f64.sqrt()).abs() < 1e-12);
        assert!((found.kendall - 2.0 / 6f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_order_has_no_correlation() {
        assert_eq!(rank_correlation(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(rank_correlation(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn a_log_is_ranked_by_device_timings_alone() {
        let problem = "p".to_owned();
        let mut events = Vec::new();
        for (schedule, proposed, compiled, timed) in
            [("a", 1.0, 3.0, 30.0), ("b", 2.0, 2.0, 20.0), ("c", 3.0, 1.0, 10.0)]
        {
            let (problem, schedule) = (problem.clone(), schedule.to_owned());
            let result = |evidence, us| TrialEvent::Result {
                problem: problem.clone(),
                schedule: schedule.clone(),
                outcome: Outcome::Ok,
                time_us: Some(us),
                evidence,
            };
            events.push(TrialEvent::Proposed {
                problem: problem.clone(),
                schedule: schedule.clone(),
                rung: 1,
                predicted_us: proposed,
            });
            events.push(result(Evidence::Timed, timed));
            events.push(result(Evidence::Modelled, proposed));
            events.push(TrialEvent::Compiled { problem, schedule, predicted_us: compiled });
        }
        let [ranking] = &rankings(&events)[..] else { panic!("one problem") };
        assert_eq!(ranking.timed, 3);
        assert_eq!(ranking.before_compiling.unwrap().kendall, -1.0);
        assert_eq!(ranking.compiled.unwrap().kendall, 1.0);
        events.retain(|e| !matches!(e, TrialEvent::Result { evidence: Evidence::Timed, .. }));
        assert_eq!(rankings(&events)[0].compiled, None);
    }
}
