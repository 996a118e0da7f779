//! Race detection on shared memory, after FastTrack (Flanagan and Freund 2009).
//!
//! Every warp has a vector clock (see [`super::clocks`]); barriers join the clocks of the warps
//! that arrive into those that wait. Each 4-byte word remembers its last write and its readers by
//! agent and clock. Two accesses to the same byte by different agents, one of them a write, race
//! unless the later one's clock has seen the earlier access. Within a warp, program order holds.
//!
//! A word that is the target of a pending asynchronous copy carries a mark; touching it before the
//! copy was waited for is reported even where the data happens to be there already. Words that an
//! asynchronous operation still reads are counted beside the history (see [`Races::begin_reads`]).

mod asynchronous;
#[cfg(test)]
mod tests;
mod word;

use std::collections::HashMap;
use std::ops::Range;

use super::clocks::{Clocks, VectorClock, PENDING};
use super::histories::{Histories, ROW};
use crate::state::{lanes, Lanes64};
use word::{byte_mask, unseen_write, Plain, PlainRead, PlainWrite, Word, Writer, HAS_OLDER};

/// Two accesses without an order. Warps and asynchronous agents are numbered over the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Another agent wrote.
    WrittenBy(u32),
    /// Another agent read (the lowest of them).
    ReadBy(u32),
    /// An asynchronous copy issued by this agent has not been waited for.
    Pending(u32),
    /// An asynchronous operation is still reading.
    BeingRead,
    /// Written by a warp that executed no `fence.proxy.async` since.
    Unfenced(u32),
    /// The bytes are an mbarrier object.
    Mbarrier,
}

/// Names a set of asynchronous reads that end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u32);

/// Histories of all words of a thread block's shared memory.
#[derive(Debug)]
pub(crate) struct Races {
    words: Histories<Word>,
    /// Cluster-wide number of the block's first warp.
    first_warp: u32,
    warps: u32,
    /// Readers with other clocks than the word's own or from elsewhere, by word.
    older: HashMap<usize, VectorClock>,
    /// Asynchronous reads in progress, by unit; empty before the first.
    reading: Vec<u16>,
    /// Ranges of each of them.
    reads: HashMap<Ticket, Vec<Range<usize>>>,
    next_ticket: u32,
}

/// The warps of a mask.
fn warps_of(mask: u32) -> impl Iterator<Item = u32> {
    lanes(mask).map(|warp| warp as u32)
}

impl Races {
    /// Histories for `bytes` of shared memory (a multiple of 16) of the block whose `warps` warps
    /// are numbered from `first_warp`.
    pub(crate) fn new(bytes: usize, first_warp: u32, warps: u32) -> Races {
        Races {
            words: Histories::new(bytes),
            first_warp,
            warps,
            older: HashMap::new(),
            reading: Vec::new(),
            reads: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// Forgets everything, for the next thread block.
    pub(crate) fn reset(&mut self) {
        self.words.reset();
        self.older.clear();
        self.reading.fill(0);
        self.reads.clear();
    }

    /// Notes reads of `bytes` at each lane's aligned address by a warp of the block, as far as they
    /// are plain; returns the lanes whose reads need [`Races::read`].
    #[inline(always)]
    pub(crate) fn read_lanes(
        &mut self,
        clocks: &Clocks,
        at: &Lanes64,
        mask: u32,
        bytes: usize,
        warp: u32,
    ) -> u32 {
        let bit = 1 << (warp - self.first_warp);
        let reader = PlainRead { now: clocks.now(warp), warp, bit };
        let mut closer = 0;
        for lane in lanes(mask) {
            let plain = reader.note_all(&mut self.words, at[lane] as usize, bytes);
            closer |= u32::from(!plain) << lane;
        }
        closer
    }

    /// Notes a read by a warp of the block and checks it against earlier writes.
    pub(crate) fn read(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        let mask = byte_mask(at, bytes);
        let now = clocks.now(warp);
        let bit = 1u32 << (warp - self.first_warp);
        let mut conflict = None;
        for index in at / 4..(at + bytes).div_ceil(4) {
            let word = &mut self.words.split(index..index + 1)[0];
            if word.written_unseen(now.floor, warp, mask) {
                conflict = unseen_write(word, clocks.of(warp), warp).or(conflict);
            }
            if !word.note_reader(now, bit, mask) {
                self.replace_readers(clocks, index, warp);
                self.words.split(index..index + 1)[0].read |= mask;
            }
        }
        conflict
    }

    /// Notes a read by a warp of another block of the cluster.
    pub(crate) fn read_remote(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        let mask = byte_mask(at, bytes);
        let mut conflict = None;
        for index in at / 4..(at + bytes).div_ceil(4) {
            let word = self.words.get(index);
            if word.written & mask != 0 {
                conflict = unseen_write(word, clocks.of(warp), warp).or(conflict);
            }
            self.note_older(index, warp, clocks.now(warp).own);
        }
        conflict
    }

    fn note_older(&mut self, index: usize, agent: u32, clock: u32) {
        self.older.entry(index).or_default().raise(agent, clock);
        self.words.split(index..index + 1)[0].read |= HAS_OLDER;
    }

    /// Notes writes of `bytes` at each lane's aligned address by a warp of the block, as far as they
    /// are plain; returns the lanes whose writes need [`Races::write`], or [`Races::issue`] for
    /// `cp.async`, whose writes stay pending.
    #[inline(always)]
    pub(crate) fn write_lanes(
        &mut self,
        clocks: &Clocks,
        at: &Lanes64,
        mask: u32,
        bytes: usize,
        warp: u32,
        pending: bool,
    ) -> u32 {
        // A word that is pending already is a conflict, so nothing may be noted twice: only whole
        // rows are noted at once.
        if !self.reads.is_empty() || pending && bytes != ROW {
            return mask;
        }
        let clock = if pending { PENDING } else { clocks.now(warp).own };
        let writer = Writer { issuer: warp, agent: warp, clock };
        let (floor, bit) = (clocks.now(warp).floor, 1 << (warp - self.first_warp));
        let writer = PlainWrite { writer, floor, bit };
        let mut closer = 0;
        for lane in lanes(mask) {
            let plain = writer.note_all(&mut self.words, at[lane] as usize, bytes);
            closer |= u32::from(!plain) << lane;
        }
        closer
    }

    /// Notes a write by a warp of the cluster and checks it against earlier accesses.
    pub(crate) fn write(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        let writer = Writer { issuer: warp, agent: warp, clock: clocks.now(warp).own };
        self.write_words(clocks, at, bytes, writer)
    }
    fn write_words(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        writer: Writer,
    ) -> Option<Conflict> {
        let mask = byte_mask(at, bytes);
        let (warp, floor) = (writer.issuer, clocks.now(writer.issuer).floor);
        let mut conflict = self.reader_in_progress(at, bytes);
        for index in at / 4..(at + bytes).div_ceil(4) {
            let word = self.words.split(index..index + 1)[0];
            if word.read_unseen(floor, 0, mask) {
                conflict = self.unseen_read(clocks, index, warp).or(conflict);
            }
            if word.written_unseen(floor, warp, mask) {
                conflict = unseen_write(&word, clocks.of(warp), warp).or(conflict);
            }
            self.words.split(index..index + 1)[0].note_writer(writer, mask);
        }
        conflict
    }

    /// The first reader of a word that the warp has not seen; older readers are forgotten after a
    /// write, because whoever sees the write has seen them or races with it.
    #[cold]
    fn unseen_read(&mut self, clocks: &Clocks, index: usize, warp: u32) -> Option<Conflict> {
        let word = &mut self.words.split(index..index + 1)[0];
        let clock = clocks.of(warp);
        let first = self.first_warp;
        let mut readers = warps_of(word.readers).map(|reader| first + reader);
        let unseen = readers
            .find(|&reader| reader != warp && word.read_clock > clock.get(reader))
            .or_else(|| {
                if word.read & HAS_OLDER == 0 {
                    return None;
                }
                word.read &= !HAS_OLDER;
                let reads = self.older.remove(&index)?;
                let unseen =
                    reads.iter().find(|&(agent, at)| agent != warp && at > clock.get(agent));
                unseen.map(|(agent, _)| agent)
            });
        unseen.map(Conflict::ReadBy)
    }

    /// Makes the warp the word's only reader with its present clock. Earlier readers that it has
    /// seen are dropped: a write that is ordered after this read is ordered after theirs.
    fn replace_readers(&mut self, clocks: &Clocks, index: usize, warp: u32) {
        let word = &mut self.words.split(index..index + 1)[0];
        let now = clocks.now(warp);
        let bit = 1 << (warp - self.first_warp);
        let others = word.readers & !bit;
        if word.read_clock > now.floor {
            let (known, first) = (clocks.of(warp), self.first_warp);
            let mut unseen = warps_of(others)
                .map(|reader| first + reader)
                .filter(|&reader| word.read_clock > known.get(reader))
                .peekable();
            if unseen.peek().is_some() {
                let kept = self.older.entry(index).or_default();
                unseen.for_each(|reader| kept.raise(reader, word.read_clock));
                word.read |= HAS_OLDER;
            }
        }
        word.read &= HAS_OLDER;
        word.read_clock = now.own;
        word.readers = bit;
    }
}
