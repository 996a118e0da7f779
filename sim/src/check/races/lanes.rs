//! The history of shared memory as single lanes of a warp know it.

use std::ops::Range;

use super::word::{byte_mask, Word, MBARRIER};
use super::Races;
use crate::check::clocks::{Clocks, PENDING};
use crate::check::lanes::LaneAccess;

impl Races {
    /// An earlier access to a range that `warp` (of the cluster) knows of, but not `lane`, or for an
    /// access of the whole warp one of its lanes; one of the two writes. Returns who accessed, what
    /// it did, and the lane.
    pub(crate) fn unaware(
        &self,
        clocks: &Clocks,
        range: Range<usize>,
        (warp, lane): (u32, Option<usize>),
        access: LaneAccess,
    ) -> Option<(u32, LaneAccess, u32)> {
        if !clocks.lanes_differ(warp) {
            return None;
        }
        let unaware = |agent: u32, clock: u32| {
            let lanes = clocks.unaware_lanes(warp, agent, clock);
            let lanes = lane.map_or(lanes, |lane| lanes & 1 << lane);
            (lanes != 0).then(|| lanes.trailing_zeros())
        };
        let of_word = |word: &Word, bytes: u8| {
            let writer = u32::from(word.writer);
            let ended = word.write_clock != PENDING && word.writer != MBARRIER;
            if word.written & bytes != 0 && ended && writer != warp {
                if let Some(lane) = unaware(writer, word.write_clock) {
                    return Some((writer, LaneAccess::Write, lane));
                }
            }
            if access == LaneAccess::Read || word.read & bytes == 0 {
                return None;
            }
            let mut readers = self.sets.of(word, self.first_warp).filter(|&(by, _)| by != warp);
            readers.find_map(|(reader, clock)| {
                unaware(reader, clock).map(|lane| (reader, LaneAccess::Read, lane))
            })
        };
        let (mut index, end) = (range.start / 4, range.end.div_ceil(4));
        // Words next to each other mostly have the same history.
        let mut latest = None;
        while index < end {
            let (word, next) = self.words.run(index);
            let start = range.start.max(4 * index);
            let bytes = byte_mask(start, range.end.min(4 * index + 4) - start);
            if latest != Some((*word, bytes)) {
                let found = of_word(word, bytes);
                if found.is_some() {
                    return found;
                }
                latest = Some((*word, bytes));
            }
            index = next;
        }
        None
    }
}
