//! What the wait of a part of a warp teaches.
//!
//! The clocks of [`super::clocks`] order whole warps. Often one lane waits for its warp, at an
//! mbarrier or at a flag; causality order goes from thread to thread (PTX ISA 8.10), so the other
//! lanes know what it learned only once they waited for it: by `bar.warp.sync` or a barrier of the
//! block or cluster. Shuffles, votes and instructions that are merely executed together order no
//! memory (PTX ISA 9.7.9.6, 9.7.13.2).
//!
//! Nothing is kept for warps that wait as a whole, or whose lanes met since.

use super::clocks::VectorClock;
use crate::state::FULL;

/// Most sets of lanes that are told apart; what further ones learn counts as known to all.
const SETS: usize = 32;

/// A warp some of whose lanes know more than the others.
#[derive(Debug)]
struct Ahead {
    /// What every lane knows.
    common: VectorClock,
    /// What the lanes of a mask know besides.
    gains: Vec<(u32, VectorClock)>,
}

impl Ahead {
    /// What all `live` lanes know is common to them. Tells whether some lanes still know more.
    fn settle(&mut self, live: u32) -> bool {
        let common = &mut self.common;
        self.gains.retain(|(lanes, gain)| {
            let all = live & !lanes == 0;
            if all {
                common.join(gain);
            }
            !all
        });
        !self.gains.is_empty()
    }
}

/// The partial acquisitions of the warps of a cluster.
#[derive(Debug, Default)]
pub(super) struct LaneAcquires(Vec<Option<Box<Ahead>>>);

impl LaneAcquires {
    pub(super) fn new(warps: usize) -> LaneAcquires {
        LaneAcquires((0..warps).map(|_| None).collect())
    }

    pub(super) fn reset(&mut self) {
        self.0.fill_with(|| None);
    }

    /// Whether some lanes of a warp know more than others.
    pub(super) fn any(&self, warp: u32) -> bool {
        self.0[warp as usize].is_some()
    }

    /// The lanes of `mask`, out of `live` ones, learn something; `known` is what their warp knew.
    pub(super) fn part(
        &mut self,
        warp: u32,
        (mask, live): (u32, u32),
        known: &VectorClock,
        learned: &VectorClock,
    ) {
        let slot = &mut self.0[warp as usize];
        let common = slot.as_ref().map_or(known, |ahead| &ahead.common);
        if learned.iter().all(|(agent, clock)| agent == warp || clock <= common.get(agent)) {
            return;
        }
        let ahead = slot
            .get_or_insert_with(|| Box::new(Ahead { common: known.clone(), gains: Vec::new() }));
        let same = ahead.gains.iter().position(|(lanes, _)| *lanes == mask);
        match same {
            Some(index) => ahead.gains[index].1.join(learned),
            None if ahead.gains.len() == SETS => ahead.common.join(learned),
            None => ahead.gains.push((mask, learned.clone())),
        }
        if !ahead.settle(live) {
            *slot = None;
        }
    }

    /// All lanes of a warp learn something.
    pub(super) fn whole(&mut self, warp: u32, learned: &VectorClock) {
        if let Some(ahead) = &mut self.0[warp as usize] {
            ahead.common.join(learned);
        }
    }

    /// The lanes of `to`, out of `live` ones, learn what those of `from` know.
    pub(super) fn pass_on(&mut self, warp: u32, (from, to): (u32, u32), live: u32) {
        let slot = &mut self.0[warp as usize];
        let Some(ahead) = slot else { return };
        for (lanes, _) in ahead.gains.iter_mut().filter(|(lanes, _)| lanes & from != 0) {
            *lanes |= to;
        }
        if !ahead.settle(live) {
            *slot = None;
        }
    }

    /// Lanes of a warp that do not know of a moment of another agent, which their warp knows.
    pub(super) fn unaware(&self, warp: u32, agent: u32, clock: u32) -> u32 {
        match &self.0[warp as usize] {
            Some(ahead) if agent != warp && ahead.common.get(agent) < clock => {
                let aware = ahead.gains.iter().filter(|(_, gain)| gain.get(agent) >= clock);
                FULL & !aware.fold(0, |all, (lanes, _)| all | lanes)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(moments: &[(u32, u32)]) -> VectorClock {
        let mut clock = VectorClock::default();
        moments.iter().for_each(|&(agent, moment)| clock.raise(agent, moment));
        clock
    }

    #[test]
    fn what_one_lane_learned_the_others_know_once_they_met() {
        let mut acquires = LaneAcquires::new(1);
        acquires.part(0, (1, FULL), &clock(&[(0, 4), (1, 2)]), &clock(&[(1, 5)]));
        assert_eq!(acquires.unaware(0, 1, 2), 0);
        assert_eq!(acquires.unaware(0, 1, 3), !1);
        acquires.pass_on(0, (0b11, 0b11), FULL);
        assert_eq!(acquires.unaware(0, 1, 5), !0b11);
        acquires.pass_on(0, (0b1100, 0b1100), FULL);
        assert_eq!(acquires.unaware(0, 1, 5), !0b11);
        acquires.pass_on(0, (FULL, FULL), FULL);
        assert!(!acquires.any(0));
    }

    #[test]
    fn a_wait_that_teaches_nothing_new_or_everybody_leaves_nobody_behind() {
        let mut acquires = LaneAcquires::new(1);
        let known = clock(&[(0, 4), (1, 2)]);
        acquires.part(0, (1, FULL), &known, &clock(&[(0, 9), (1, 2)]));
        acquires.part(0, (0b11, 0b11), &known, &clock(&[(1, 3)]));
        assert!(!acquires.any(0));
        acquires.part(0, (1, FULL), &known, &clock(&[(1, 3)]));
        acquires.whole(0, &clock(&[(1, 3), (2, 1)]));
        assert_eq!(acquires.unaware(0, 1, 3) | acquires.unaware(0, 2, 1), 0);
    }

    #[test]
    fn lanes_that_wait_one_after_the_other_know_the_same_in_the_end() {
        let mut acquires = LaneAcquires::new(1);
        let (known, learned) = (clock(&[(0, 1)]), clock(&[(1, 7)]));
        for lane in 0..31 {
            acquires.part(0, (1 << lane, FULL), &known, &learned);
        }
        assert_eq!(acquires.unaware(0, 1, 7), 1 << 31);
        acquires.part(0, (1 << 31, FULL), &known, &learned);
        assert_eq!(acquires.unaware(0, 1, 7), 0);
    }
}
