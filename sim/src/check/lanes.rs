//! Races between the lanes of one warp in shared memory.
//!
//! A warp runs in lockstep here, but PTX lets its lanes run apart: two lanes that touch the same
//! bytes, one of them writing, are ordered only by `bar.warp.sync` of both or by a barrier of the
//! thread block (PTX ISA 9.7.13.1, 9.7.13.2; shuffles, votes and matches order no memory). Each
//! shared word remembers the lanes that touched it since the warp last synchronised; what other
//! warps did is the subject of [`super::races`].
//!
//! Time is counted in intervals between synchronisations, per warp. As long as whole warps
//! synchronise, accesses of earlier intervals are simply over. After `bar.warp.sync` of some lanes
//! only, a matrix says which interval of each lane every other lane has seen.
//!
//! A word keeps the history of one warp, that of its last access: a write of a warp after another
//! warp's access without a barrier is a race between warps already.
//!
//! Most warps never come near a race, because between two synchronisations they read one part of
//! shared memory and write another. So their requests only go into a list at first (see
//! [`super::interval`]), and into the words when one of them might conflict with another.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::histories::{Histories, History, ROW};
use super::interval::Interval;
use super::lane_releases::SeenIntervals;
use crate::request::Request;
use crate::state::{lanes, FULL, LANES};

/// Bits of [`Cell::stamp`] above the flags that count intervals; the warp is above them.
const INTERVAL_BITS: u32 = 24;
/// The most intervals before the table is cleared and counting starts again.
const LAST_INTERVAL: u32 = (1 << INTERVAL_BITS) - 1;
/// Set in a word whose bytes have histories of their own.
const SPLIT: u32 = 4;
const KIND: u32 = 3;

/// What a lane does to bytes. Atomics of several lanes do not race among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneAccess {
    Read = 0,
    Atomic = 1,
    Write = 2,
}

impl LaneAccess {
    /// What a lane does, in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LaneAccess::Read => "load",
            LaneAccess::Atomic => "atomic",
            LaneAccess::Write => "store",
        }
    }

    /// What a lane did, in words.
    pub(crate) fn past(self) -> &'static str {
        match self {
            LaneAccess::Read => "read",
            LaneAccess::Atomic => "changed atomically",
            LaneAccess::Write => "wrote",
        }
    }
}

/// An earlier access of another lane without an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneConflict {
    /// The lowest such lane.
    pub other: u32,
    pub earlier: LaneAccess,
}

/// The last accesses to some bytes, by lanes of one warp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastAccess {
    /// Number of the 4-byte word.
    pub word: usize,
    /// Warp of the block.
    pub warp: u32,
    pub lanes: u32,
    pub interval: u32,
    pub kind: LaneAccess,
}

/// Lanes that accessed some bytes in one interval of a warp.
///
/// The stamp holds, from the top, warp (5 bits), interval, [`SPLIT`] and the strongest access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    stamp: u32,
    lanes: u32,
}

impl Cell {
    fn interval(self) -> u32 {
        self.stamp >> 3 & LAST_INTERVAL
    }

    fn kind(self) -> LaneAccess {
        match self.stamp & KIND {
            0 => LaneAccess::Read,
            1 => LaneAccess::Atomic,
            _ => LaneAccess::Write,
        }
    }

    /// Enters an access of the lane `own` (its bit) that cannot conflict; false when it might.
    #[inline(always)]
    fn note(&mut self, time: &WarpTime, own: u32, access: LaneAccess) -> bool {
        if self.stamp == time.stamp && access == LaneAccess::Read {
            self.lanes |= own;
        } else if self.stamp & !KIND == time.stamp && self.lanes == own {
            self.stamp = time.stamp | (self.stamp & KIND).max(access as u32);
        } else if time.concerns(*self) || self.stamp & SPLIT != 0 {
            return false;
        } else {
            *self = Cell { stamp: time.stamp | access as u32, lanes: own };
        }
        true
    }
}

impl History for Cell {
    fn stands_alone(&self) -> bool {
        self.stamp & SPLIT == 0
    }
}

/// How far the lanes of a warp are synchronised.
#[derive(Debug)]
struct WarpTime {
    /// Warp and present interval as in a stamp without flags.
    stamp: u32,
    /// First interval that is not over for all lanes.
    open: u32,
    /// Lanes that accessed shared memory since the whole warp synchronised.
    touched: u32,
    /// By lane and other lane, the last interval of the other that the lane has seen; only after
    /// a part of the warp synchronised.
    seen: Option<Box<[[u32; LANES]; LANES]>>,
}

impl WarpTime {
    fn new(warp: usize) -> WarpTime {
        let stamp = (warp as u32) << (INTERVAL_BITS + 3) | 1 << 3;
        WarpTime { stamp, open: 1, touched: 0, seen: None }
    }

    fn interval(&self) -> u32 {
        self.stamp >> 3 & LAST_INTERVAL
    }

    /// Whether the access of `cell` belongs to this warp and is not over for all its lanes.
    fn concerns(&self, cell: Cell) -> bool {
        let warp = INTERVAL_BITS + 3;
        cell.stamp >> warp == self.stamp >> warp && cell.interval() >= self.open
    }

    /// Enters an access of a lane to whole aligned words up to the first where it might conflict,
    /// which makes it false.
    #[inline(always)]
    fn note_all(
        &self,
        words: &mut Histories<Cell>,
        at: usize,
        bytes: usize,
        lane: usize,
        access: LaneAccess,
    ) -> bool {
        if bytes >= ROW {
            for row in 0..bytes / ROW {
                match words.row(at + row * ROW) {
                    Some(cell) => {
                        if !cell.note(self, 1 << lane, access) {
                            return false;
                        }
                    }
                    None => return false,
                }
            }
        } else if bytes == 4 {
            return words.word(at / 4).note(self, 1 << lane, access);
        } else {
            for cell in words.split(at / 4..(at + bytes) / 4) {
                if !cell.note(self, 1 << lane, access) {
                    return false;
                }
            }
        }
        true
    }

    /// Lanes of a cell that `lane` has not synchronised with since.
    fn unseen(&self, cell: Cell, lane: usize) -> u32 {
        let others = cell.lanes & !(1 << lane);
        match &self.seen {
            Some(seen) => lanes(others)
                .filter(|&other| seen[lane][other] < cell.interval())
                .fold(0, |mask, other| mask | 1 << other),
            None => others,
        }
    }
}

/// The lane histories of a thread block's shared memory.
#[derive(Debug)]
pub(crate) struct LaneRaces {
    words: Histories<Cell>,
    /// Some request of the present thread block is in the words.
    entered: bool,
    /// Histories of the single bytes of split words; empty until there is one.
    bytes: Vec<[Cell; 4]>,
    warps: Vec<WarpTime>,
    /// By warp, what it did since it last synchronised.
    intervals: Vec<Interval>,
}

impl LaneRaces {
    /// Histories for `bytes` of shared memory (a multiple of 16) and a number of warps.
    pub(crate) fn new(bytes: usize, warps: usize) -> LaneRaces {
        LaneRaces {
            words: Histories::new(bytes),
            entered: false,
            bytes: Vec::new(),
            warps: (0..warps.min(LANES)).map(WarpTime::new).collect(),
            intervals: (0..warps.min(LANES)).map(|_| Interval::default()).collect(),
        }
    }

    /// Begins a new thread block: everything earlier is over.
    pub(crate) fn reset(&mut self) {
        (0..self.warps.len() as u32).for_each(|warp| self.synchronise(warp, FULL, FULL));
        self.entered = false;
    }

    /// The lanes of `mask`, out of `live` ones, wait for each other.
    pub(crate) fn synchronise(&mut self, warp: u32, mask: u32, live: u32) {
        let all = live & !mask == 0;
        if all {
            self.intervals[warp as usize].clear();
        } else {
            self.enter_requests(warp);
        }
        let time = &mut self.warps[warp as usize];
        let interval = time.interval();
        if interval == LAST_INTERVAL {
            return self.start_again();
        }
        time.stamp += 1 << 3;
        if all {
            (time.open, time.touched, time.seen) = (interval + 1, 0, None);
            return;
        }
        let seen = time.seen.get_or_insert_with(|| Box::new([[0; LANES]; LANES]));
        let mut joined = [0; LANES];
        for lane in lanes(mask) {
            seen[lane][lane] = interval;
            join(&mut joined, &seen[lane]);
        }
        lanes(mask).for_each(|lane| seen[lane] = joined);
    }

    /// The lanes of `to` learn what those of `from` did, out of `live` ones.
    pub(crate) fn learn(&mut self, warp: u32, (from, to): (u32, u32), live: u32) {
        if from == 0 {
            return;
        }
        let interval = self.warps[warp as usize].interval();
        if live & !(from & to) == 0 || interval == LAST_INTERVAL {
            return self.synchronise(warp, from & to, live);
        }
        self.enter_listed(warp);
        let time = &mut self.warps[warp as usize];
        time.stamp += 1 << 3;
        let seen = time.seen.get_or_insert_with(|| Box::new([[0; LANES]; LANES]));
        let mut joined = [0; LANES];
        for lane in lanes(from) {
            seen[lane][lane] = interval;
            join(&mut joined, &seen[lane]);
        }
        lanes(to).for_each(|lane| join(&mut seen[lane], &joined));
    }

    /// Forgets everything when a warp has synchronised 2^24 times.
    #[cold]
    fn start_again(&mut self) {
        self.words.reset();
        self.bytes.clear();
        self.intervals.iter_mut().for_each(Interval::clear);
        for (index, warp) in self.warps.iter_mut().enumerate() {
            *warp = WarpTime::new(index);
        }
    }

    /// From now on the words know what the warp did since it last synchronised.
    fn enter_listed(&mut self, warp: u32) {
        if self.intervals[warp as usize].lists() {
            self.enter_requests(warp);
        }
    }

    /// Enters the listed requests of a warp into the words, and from now on every further one.
    #[cold]
    fn enter_requests(&mut self, warp: u32) {
        for (request, access) in self.intervals[warp as usize].give_up() {
            for lane in lanes(self.note_lanes(&request, warp, access)) {
                self.note(request.at(lane), request.bytes(), (warp, lane), access);
            }
        }
    }

    /// Notes a request, as far as it is plain; returns the lanes whose accesses need
    /// [`LaneRaces::access`].
    #[inline(always)]
    pub(crate) fn access_lanes(&mut self, request: &Request, warp: u32, access: LaneAccess) -> u32 {
        self.warps[warp as usize].touched |= request.mask();
        let interval = &mut self.intervals[warp as usize];
        if interval.lists() {
            if request.bytes() >= 4 && interval.add(request, access) {
                return 0;
            }
            self.enter_requests(warp);
        }
        self.note_lanes(request, warp, access)
    }

    /// The part of [`LaneRaces::access_lanes`] that looks at the words.
    #[inline(always)]
    fn note_lanes(&mut self, request: &Request, warp: u32, access: LaneAccess) -> u32 {
        self.entered = true;
        let bytes = request.bytes();
        if bytes < 4 {
            return request.mask();
        }
        let time = &self.warps[warp as usize];
        let mut closer = 0;
        for lane in lanes(request.mask()) {
            let plain = time.note_all(&mut self.words, request.at(lane), bytes, lane, access);
            closer |= u32::from(!plain) << lane;
        }
        closer
    }

    /// Notes an aligned access of one lane and checks it against those of the other lanes.
    pub(crate) fn access(
        &mut self,
        at: usize,
        bytes: usize,
        (warp, lane): (u32, usize),
        access: LaneAccess,
    ) -> Option<LaneConflict> {
        self.warps[warp as usize].touched |= 1 << lane;
        self.enter_listed(warp);
        self.note(at, bytes, (warp, lane), access)
    }

    fn note(
        &mut self,
        at: usize,
        bytes: usize,
        (warp, lane): (u32, usize),
        access: LaneAccess,
    ) -> Option<LaneConflict> {
        self.entered = true;
        if bytes < 4 {
            return self.access_bytes(at, bytes, (warp, lane), access);
        }
        let mut conflict = None;
        for index in at / 4..(at + bytes) / 4 {
            let time = &self.warps[warp as usize];
            let word = &mut self.words.split(index..index + 1)[0];
            if word.stamp & SPLIT == 0 {
                conflict = update(word, time, lane, access).or(conflict);
                continue;
            }
            let cells = &mut self.bytes[index];
            for cell in cells.iter_mut() {
                conflict = update(cell, time, lane, access).or(conflict);
            }
            if cells.iter().all(|cell| *cell == cells[0]) {
                *word = cells[0];
            }
        }
        conflict
    }

    /// By lane, the last interval that the lanes of `mask` have seen of it, if they leave behind a
    /// lane that accessed shared memory since the whole warp synchronised.
    pub(crate) fn left_behind(&mut self, warp: u32, mask: u32) -> Option<SeenIntervals> {
        if self.warps[warp as usize].touched & !mask == 0 {
            return None;
        }
        // What they did is looked for in the words, even after the warp has synchronised.
        self.enter_listed(warp);
        let time = &self.warps[warp as usize];
        let mut intervals = Box::new([time.open - 1; LANES]);
        if let Some(seen) = &time.seen {
            lanes(mask).for_each(|member| join(&mut intervals, &seen[member]));
        }
        Some(intervals)
    }

    /// The first earlier access to a range by another lane of the warp that `lane` has not
    /// synchronised with, if one of the two writes. Nothing is noted: for accesses by the async
    /// proxy, which have no lane.
    pub(crate) fn unsynchronised(
        &mut self,
        range: Range<usize>,
        (warp, lane): (u32, usize),
        access: LaneAccess,
    ) -> Option<LaneConflict> {
        self.enter_listed(warp);
        let time = &self.warps[warp as usize];
        self.cells(range).find_map(|(_, cell)| {
            if !time.concerns(cell) || cell.kind() == access && access != LaneAccess::Write {
                return None;
            }
            let unseen = time.unseen(cell, lane);
            (unseen != 0)
                .then(|| LaneConflict { other: unseen.trailing_zeros(), earlier: cell.kind() })
        })
    }

    /// Notes that a lane waited for an asynchronous read of a range (multiples of [`ROW`]) to end:
    /// from now on it is a read of this lane.
    pub(crate) fn end_read(&mut self, range: Range<usize>, (warp, lane): (u32, usize)) {
        self.warps[warp as usize].touched |= 1 << lane;
        self.entered = true;
        self.enter_listed(warp);
        for at in range.step_by(ROW) {
            let time = &self.warps[warp as usize];
            if !time.note_all(&mut self.words, at, ROW, lane, LaneAccess::Read) {
                self.note(at, ROW, (warp, lane), LaneAccess::Read);
            }
        }
    }

    /// The present interval of a warp.
    pub(crate) fn interval(&self, warp: u32) -> u32 {
        self.warps[warp as usize].interval()
    }

    /// Whether `lane` waited for another lane of its warp since that one's `interval`.
    pub(crate) fn has_met(&self, (warp, lane): (u32, usize), other: usize, interval: u32) -> bool {
        let time = &self.warps[warp as usize];
        let met = |seen: &[[u32; LANES]; LANES]| seen[lane][other] >= interval;
        lane == other || interval < time.open || time.seen.as_deref().is_some_and(met)
    }

    /// The accesses to a range by the warps that touched it last, with their words.
    pub(crate) fn last(&self, range: Range<usize>) -> impl Iterator<Item = LastAccess> + '_ {
        self.cells(range).filter(|(_, cell)| cell.lanes != 0).map(|(word, cell)| LastAccess {
            word,
            warp: cell.stamp >> (INTERVAL_BITS + 3),
            lanes: cell.lanes,
            interval: cell.interval(),
            kind: cell.kind(),
        })
    }

    /// The histories of a range with their words, of those that some warp touched.
    fn cells(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Cell)> + '_ {
        let end = if self.entered { range.end.div_ceil(4) } else { 0 };
        let words = range.start / 4..end;
        self.words.used(words).flat_map(move |(word, &whole)| {
            let bytes = match whole.stamp & SPLIT {
                0 => 0..1,
                _ => range.start.max(4 * word) - 4 * word..range.end.min(4 * word + 4) - 4 * word,
            };
            bytes.map(move |byte| match whole.stamp & SPLIT {
                0 => (word, whole),
                _ => (word, self.bytes[word][byte]),
            })
        })
    }

    /// Part of one word.
    fn access_bytes(
        &mut self,
        at: usize,
        bytes: usize,
        (warp, lane): (u32, usize),
        access: LaneAccess,
    ) -> Option<LaneConflict> {
        if self.bytes.is_empty() {
            self.bytes = vec![[Cell::default(); 4]; self.words.len()];
        }
        let word = &mut self.words.split(at / 4..at / 4 + 1)[0];
        let cells = &mut self.bytes[at / 4];
        if word.stamp & SPLIT == 0 {
            *cells = [*word; 4];
            word.stamp |= SPLIT;
        }
        let time = &self.warps[warp as usize];
        let mut conflict = None;
        for cell in &mut cells[at % 4..at % 4 + bytes] {
            conflict = update(cell, time, lane, access).or(conflict);
        }
        conflict
    }
}

/// Learns what another lane has seen.
fn join(all: &mut [u32; LANES], one: &[u32; LANES]) {
    for (all, one) in all.iter_mut().zip(one) {
        *all = (*all).max(*one);
    }
}

/// Checks one access against a history and enters it.
fn update(
    cell: &mut Cell,
    time: &WarpTime,
    lane: usize,
    access: LaneAccess,
) -> Option<LaneConflict> {
    let fresh = Cell { stamp: time.stamp | access as u32, lanes: 1 << lane };
    if !time.concerns(*cell) {
        *cell = fresh;
        return None;
    }
    let earlier = cell.kind();
    let conflict = if earlier == access && access != LaneAccess::Write {
        None
    } else {
        let unseen = time.unseen(*cell, lane);
        (unseen != 0).then(|| LaneConflict { other: unseen.trailing_zeros(), earlier })
    };
    if earlier == access && access != LaneAccess::Write {
        // The first interval stays: that of a lane that has seen less is never taken for more.
        cell.lanes |= 1 << lane;
    } else if access as u32 > earlier as u32 || access == LaneAccess::Write {
        *cell = fresh;
    }
    conflict
}
