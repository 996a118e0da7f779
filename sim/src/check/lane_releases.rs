//! What the release of a part of a warp covers.
//!
//! The clocks of [`super::clocks`] order whole warps. Often one lane arrives at an mbarrier for
//! its warp; causality order goes from thread to thread (PTX ISA 8.10), so what another lane did
//! since the lanes last waited for each other is not released with it, unless that lane arrived
//! too. Such an arrival leaves a record here, by the clock that it released; whoever knows the
//! warp by just this clock has to look at lanes (see [`super::Clocks::lane_release`]).
//!
//! The records are kind where they cannot know: earlier releases of the same lanes count as known
//! to whoever knows a later one.

use std::collections::VecDeque;

use crate::state::{lanes, lanes_where, FULL, LANES};

/// Most records of one warp; what older ones left out is forgotten.
const RECORDS: usize = 256;

/// By lane, the last interval between synchronisations of the lanes (see [`super::lanes`]) that
/// the releasing lanes have seen.
pub(crate) type SeenIntervals = Box<[u32; LANES]>;

/// A release by some lanes of a warp that left others behind.
#[derive(Debug)]
pub(crate) struct LaneRelease {
    /// Clock of the warp that it released.
    clock: u32,
    seen: SeenIntervals,
    /// By lane, the warp's clock at the lane's own last release.
    released: [u32; LANES],
}

impl LaneRelease {
    /// Whether an access by a lane of the warp is released with it.
    pub(crate) fn covers(&self, lane: usize, interval: u32, clock: u32) -> bool {
        interval <= self.seen[lane] || clock <= self.released[lane]
    }
}

/// The partial releases of the warps of a cluster.
#[derive(Debug, Default)]
pub(super) struct LaneReleases {
    /// By warp, by clock.
    records: Vec<VecDeque<LaneRelease>>,
    /// By warp and lane, the warp's clock at the last release that the lane took part in.
    released: Vec<[u32; LANES]>,
    /// The same for the first release since the lanes waited for each other; 0 for none.
    first: Vec<[u32; LANES]>,
}

impl LaneReleases {
    pub(super) fn new(warps: usize) -> LaneReleases {
        LaneReleases {
            records: (0..warps).map(|_| VecDeque::new()).collect(),
            released: vec![[0; LANES]; warps],
            first: vec![[0; LANES]; warps],
        }
    }

    pub(super) fn reset(&mut self) {
        self.records.iter_mut().for_each(VecDeque::clear);
        self.released.fill([0; LANES]);
        self.first.fill([0; LANES]);
    }

    /// All lanes of a warp waited for each other.
    pub(super) fn synchronised(&mut self, warp: u32) {
        self.first[warp as usize] = [0; LANES];
    }

    /// Lanes of a warp with a release since then of which somebody knows who knows the warp's
    /// `clock`.
    pub(super) fn known_by(&self, warp: u32, clock: u32) -> u32 {
        lanes_where(FULL, |lane| (1..=clock).contains(&self.first[warp as usize][lane]))
    }

    /// The whole warp releases.
    pub(super) fn whole(&mut self, warp: u32, clock: u32) {
        self.released[warp as usize] = [clock; LANES];
        self.first[warp as usize] = self.first[warp as usize].map(|first| match first {
            0 => clock,
            first => first,
        });
    }

    /// The lanes of `mask` release and leave others behind.
    pub(super) fn part(&mut self, warp: u32, clock: u32, mask: u32, seen: SeenIntervals) {
        let (records, released) =
            (&mut self.records[warp as usize], &mut self.released[warp as usize]);
        let first = &mut self.first[warp as usize];
        for lane in lanes(mask) {
            released[lane] = clock;
            if first[lane] == 0 {
                first[lane] = clock;
            }
        }
        if records.len() == RECORDS {
            records.pop_front();
        }
        records.push_back(LaneRelease { clock, seen, released: *released });
    }

    /// The partial release of a warp at a clock, if it was one.
    pub(super) fn at(&self, warp: u32, clock: u32) -> Option<&LaneRelease> {
        let records = &self.records[warp as usize];
        let index = records.binary_search_by_key(&clock, |record| record.clock).ok()?;
        records.get(index)
    }

    /// Whether a warp ever left lanes behind.
    pub(super) fn any(&self, warp: u32) -> bool {
        !self.records[warp as usize].is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_release_covers_its_lanes_and_what_they_have_seen() {
        let mut releases = LaneReleases::new(1);
        let mut seen = Box::new([2; LANES]);
        seen[7] = 3;
        releases.part(0, 10, 0b11, seen);
        let record = releases.at(0, 10).unwrap();
        assert!(record.covers(1, 3, 10));
        assert!(record.covers(7, 3, 10));
        assert!(!record.covers(8, 3, 10));
        assert!(record.covers(8, 2, 10));
        assert!(releases.at(0, 11).is_none());
    }

    #[test]
    fn a_lane_that_released_before_is_covered_up_to_then() {
        let mut releases = LaneReleases::new(1);
        releases.part(0, 10, 1 << 5, Box::new([0; LANES]));
        releases.part(0, 12, 1, Box::new([0; LANES]));
        let record = releases.at(0, 12).unwrap();
        assert!(record.covers(5, 1, 10));
        assert!(!record.covers(5, 1, 11));
        releases.whole(0, 13);
        releases.part(0, 14, 1, Box::new([0; LANES]));
        assert!(releases.at(0, 14).unwrap().covers(9, 1, 13));
        assert!(!releases.at(0, 14).unwrap().covers(9, 1, 14));
    }

    #[test]
    fn who_knows_a_clock_knows_the_lanes_that_released_by_then() {
        let mut releases = LaneReleases::new(1);
        releases.part(0, 4, 0b1, Box::new([0; LANES]));
        releases.part(0, 6, 0b11, Box::new([0; LANES]));
        assert_eq!([3, 4, 5, 6].map(|clock| releases.known_by(0, clock)), [0, 1, 1, 3]);
        releases.synchronised(0);
        assert_eq!(releases.known_by(0, 6), 0);
        releases.whole(0, 7);
        assert_eq!(releases.known_by(0, 7), FULL);
    }

    #[test]
    fn old_records_are_forgotten() {
        let mut releases = LaneReleases::new(1);
        for clock in 1..=RECORDS as u32 + 1 {
            releases.part(0, clock, 1, Box::new([0; LANES]));
        }
        assert!(releases.at(0, 1).is_none() && releases.at(0, 2).is_some());
    }
}
