//! Finalists side by side: interleaved rounds until it is clear who is slower.
//!
//! In one round everybody is timed once, in alternating order, because whoever comes later finds
//! the GPU warmer and a clock that drifts. What counts is the ratio to the leader in the same round,
//! in which the drift cancels. Rounds go on until every ratio is known to within half a tie or the
//! contender is out; a GPU that measures steadily is done after a few.

use crate::bed::Watch;
use crate::fault::Fault;
use crate::statistics::{median, standard_error};
use qtune_device::TimingPlan;

/// Ratios of times nearer to one than this are a tie.
pub(crate) const TIE: f64 = 0.005;
/// Rounds before anybody is judged.
const ROUNDS_MIN: usize = 7;
/// Rounds after which what is unclear counts as it stands.
const ROUNDS_MAX: usize = 121;
/// Standard errors by which a contender must be behind to be out before the end.
const CERTAIN: f64 = 4.0;

/// How a run-off ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ranking {
    /// Indices of the contenders that are as fast as the fastest, in the order given.
    pub tied: Vec<usize>,
    /// Times of each contender in microseconds, one a round.
    pub samples_us: Vec<Vec<f64>>,
    /// Contenders that could not finish.
    pub broken: Vec<usize>,
}

impl Ranking {
    /// Where nobody runs against the first of so many contenders.
    pub fn unopposed(contenders: usize) -> Ranking {
        let tied = (0..contenders.min(1)).collect();
        Ranking { tied, samples_us: vec![Vec::new(); contenders], broken: Vec::new() }
    }

    /// Where the contender `broken` keeps the others from running: the first of them wins.
    pub fn without(contenders: usize, broken: usize) -> Ranking {
        let tied = (0..contenders).filter(|at| *at != broken).take(1).collect();
        Ranking { tied, samples_us: vec![Vec::new(); contenders], broken: vec![broken] }
    }
}

/// A contender's times, one a round, until it is out.
struct Lane {
    times_us: Vec<f64>,
    running: bool,
}

/// Times all contenders side by side; ratios of times nearer to one than `tie` are one. The second
/// value holds the fault of each contender that broke.
pub(crate) fn run_off(watches: &[Box<dyn Watch + '_>], tie: f64) -> (Ranking, Vec<(usize, Fault)>) {
    let plan = TimingPlan { samples: 3, warmup: 1, ..TimingPlan::default() };
    let mut lanes: Vec<Lane> =
        watches.iter().map(|_| Lane { times_us: Vec::new(), running: true }).collect();
    let mut faults = Vec::new();
    for round in 0..ROUNDS_MAX {
        let mut turns: Vec<usize> = (0..lanes.len()).filter(|at| lanes[*at].running).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for at in turns {
            match watches[at].time(&plan) {
                Ok(timing) => lanes[at].times_us.push(timing.median_us),
                Err(fault) => {
                    lanes[at].running = false;
                    lanes[at].times_us.clear();
                    faults.push((at, fault));
                }
            }
        }
        if round + 1 >= ROUNDS_MIN && settled(&mut lanes, tie) {
            break;
        }
    }
    let Some(leader) = leader(&lanes) else {
        let broken = (0..lanes.len()).collect();
        return (Ranking { broken, ..Ranking::unopposed(0) }, faults);
    };
    let tied = |at: &usize| lanes[*at].running && behind(&lanes[*at], &lanes[leader]).0 <= tie;
    let ranking = Ranking {
        tied: (0..lanes.len()).filter(tied).collect(),
        broken: faults.iter().map(|(at, _)| *at).collect(),
        samples_us: lanes.into_iter().map(|lane| lane.times_us).collect(),
    };
    (ranking, faults)
}

/// The contender with the least median; of those that ran, as many rounds as the others.
fn leader(lanes: &[Lane]) -> Option<usize> {
    let running = lanes.iter().enumerate().filter(|(_, lane)| lane.running);
    running.min_by(|a, b| median(&a.1.times_us).total_cmp(&median(&b.1.times_us))).map(|(at, _)| at)
}

/// How far a contender is behind the leader, as a share, with its standard error.
fn behind(lane: &Lane, leader: &Lane) -> (f64, f64) {
    let pairs = lane.times_us.iter().zip(&leader.times_us);
    let ratios: Vec<f64> = pairs.map(|(own, best)| own / best - 1.0).collect();
    (median(&ratios), standard_error(&ratios))
}

/// Takes out who is certainly slower; whether all the rest is known well enough.
fn settled(lanes: &mut [Lane], tie: f64) -> bool {
    let Some(best) = leader(lanes) else { return true };
    let mut known = true;
    for at in 0..lanes.len() {
        if at == best || !lanes[at].running {
            continue;
        }
        let (share, error) = behind(&lanes[at], &lanes[best]);
        if share - CERTAIN * error > tie {
            lanes[at].running = false;
        } else if error > tie / 2.0 {
            known = false;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_device::Timing;
    use std::cell::Cell;

    /// Times that a closure gives, by round.
    struct Scripted<F: Fn(u32) -> Option<f64>> {
        time: F,
        round: Cell<u32>,
    }

    impl<F: Fn(u32) -> Option<f64>> Watch for Scripted<F> {
        fn time(&self, _: &TimingPlan) -> Result<Timing, Fault> {
            let round = self.round.replace(self.round.get() + 1);
            let median_us = (self.time)(round).ok_or_else(|| Fault::Lost("crashed".into()))?;
            Ok(Timing { median_us, samples_us: vec![median_us], ..Timing::default() })
        }
    }

    fn scripted<'a>(time: impl Fn(u32) -> Option<f64> + 'a) -> Box<dyn Watch + 'a> {
        Box::new(Scripted { time, round: Cell::new(0) })
    }

    #[test]
    fn a_drifting_clock_does_not_hide_who_is_faster() {
        let drift = |round: u32| 1.0 + 0.02 * f64::from(round);
        let watches =
            [scripted(move |r| Some(10.0 * drift(r))), scripted(move |r| Some(9.8 * drift(r)))];
        assert_eq!(run_off(&watches, TIE).0.tied, [1]);
    }

    #[test]
    fn what_differs_by_less_than_a_tie_is_tied() {
        let watches = [10.0, 10.03, 10.2].map(|us| scripted(move |_| Some(us)));
        assert_eq!(run_off(&watches, TIE).0.tied, [0, 1]);
    }

    #[test]
    fn a_contender_that_breaks_is_out_and_told() {
        let watches = [scripted(|r| (r < 3).then_some(1.0)), scripted(|_| Some(5.0))];
        let (ranking, faults) = run_off(&watches, TIE);
        assert_eq!((ranking.tied.as_slice(), ranking.broken.as_slice()), (&[1][..], &[0][..]));
        assert!(matches!(faults[0], (0, Fault::Lost(_))));
    }
}
