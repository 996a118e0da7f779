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
mod lanes;
mod readers;
#[cfg(test)]
mod tests;
mod word;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::clocks::{Clocks, PENDING};
use super::histories::{Histories, ROW};
use super::span::Span;
use crate::state::{lanes, lanes_where, Lanes32};
use readers::{Reader, ReaderSets};
use word::{byte_mask, unseen_write, Plain, PlainRead, PlainWrite, Word, Writer};

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
    sets: ReaderSets,
    /// Asynchronous reads in progress, by unit; empty before the first.
    reading: Vec<u16>,
    /// Ranges of each of them.
    reads: HashMap<Ticket, Rc<[Range<usize>]>>,
    next_ticket: u32,
}

impl Races {
    /// Histories for `bytes` of shared memory (a multiple of 16) of the block whose `warps` warps
    /// are numbered from `first_warp`.
    pub(crate) fn new(bytes: usize, first_warp: u32, warps: u32) -> Races {
        Races {
            words: Histories::new(bytes),
            first_warp,
            warps,
            sets: ReaderSets::new(),
            reading: Vec::new(),
            reads: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// Forgets everything, for the next thread block.
    pub(crate) fn reset(&mut self) {
        self.words.reset();
        self.sets.clear();
        self.reading.fill(0);
        self.reads.clear();
    }

    /// Notes reads of `bytes` at each lane's aligned address by a warp of the block, as far as they
    /// are plain; returns the lanes whose reads need [`Races::read`]. `span` is what the lanes cover
    /// together.
    #[inline(always)]
    pub(crate) fn read_lanes(
        &mut self,
        clocks: &Clocks,
        (at, span): (&Lanes32, Option<Span>),
        mask: u32,
        bytes: usize,
        warp: u32,
    ) -> u32 {
        self.sets.tidy(&mut self.words);
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &mut self.sets);
        let mut reader = PlainRead { floor, reader, sets, first_warp };
        if let Some(rows) = span.and_then(Span::rows) {
            if reader.note_all(&mut self.words, rows.start, rows.len()) {
                return 0;
            }
        }
        let mut closer = 0;
        for lane in lanes(mask) {
            let plain = reader.note_all(&mut self.words, at[lane] as usize, bytes);
            closer |= u32::from(!plain) << lane;
        }
        closer
    }

    /// A warp of the block as a reader, with its floor.
    #[inline(always)]
    fn reader<'c>(&self, clocks: &'c Clocks, warp: u32) -> (Reader<'c>, u32) {
        let (now, known) = (clocks.now(warp), clocks.of(warp));
        let bit = 1 << (warp - self.first_warp);
        (Reader { agent: warp, clock: now.own, bit, known }, now.floor)
    }

    /// Notes a read by a warp of the block and checks it against earlier writes.
    pub(crate) fn read(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        self.read_ranges(clocks, std::iter::once(at..at + bytes), warp)
    }

    /// [`Races::read`] of several ranges.
    fn read_ranges(
        &mut self,
        clocks: &Clocks,
        ranges: impl Iterator<Item = Range<usize>>,
        warp: u32,
    ) -> Option<Conflict> {
        self.sets.tidy(&mut self.words);
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &mut self.sets);
        let now = clocks.now(warp);
        let mut conflict = None;
        // Words next to each other mostly have the same history, before and after.
        let mut latest = (Word::default(), 0, Word::default());
        for range in ranges {
            let mask = byte_mask(range.start, range.len());
            self.words.for_range(range.start, range.len(), |word| {
                if (latest.0, latest.1) == (*word, mask) {
                    *word = latest.2;
                    return;
                }
                (latest.0, latest.1) = (*word, mask);
                if word.written_unseen(floor, warp, mask) {
                    conflict = unseen_write(word, reader.known, warp).or(conflict);
                }
                if !word.note_reader(now, reader.bit, mask) {
                    sets.join(word, first_warp, reader);
                    word.read |= mask;
                }
                latest.2 = *word;
            });
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
        let known = clocks.of(warp);
        let reader = Reader { agent: warp, clock: clocks.now(warp).own, bit: 0, known };
        let mask = byte_mask(at, bytes);
        let mut conflict = None;
        self.words.for_range(at, bytes, |word| {
            if word.written & mask != 0 {
                conflict = unseen_write(word, known, warp).or(conflict);
            }
        });
        self.note_remote(at, bytes, reader);
        conflict
    }

    /// Enters a read by somebody who is no warp of the block.
    fn note_remote(&mut self, at: usize, bytes: usize, reader: Reader<'_>) {
        self.sets.tidy(&mut self.words);
        let mask = byte_mask(at, bytes);
        let (first_warp, sets) = (self.first_warp, &mut self.sets);
        self.words.for_range(at, bytes, |word| {
            sets.join(word, first_warp, reader);
            word.read |= mask;
        });
    }

    /// Clock of the last write of a word by a warp of the block, if nobody wrote it since.
    pub(crate) fn written_at(&self, word: usize, warp: u32) -> Option<u32> {
        let word = self.words.run(word).0;
        let ours = u32::from(word.writer) == self.first_warp + warp;
        (ours && word.write_clock != PENDING && word.write_clock != 0).then_some(word.write_clock)
    }

    /// Clock of the last read of a word by a warp of the block, if that is kept.
    pub(crate) fn read_at(&self, word: usize, warp: u32) -> Option<u32> {
        let reader = self.first_warp + warp;
        let mut readers = self.sets.of(self.words.run(word).0, self.first_warp);
        readers.find(|&(agent, _)| agent == reader).map(|(_, clock)| clock)
    }

    /// Cluster-wide number of the block's first warp.
    pub(crate) fn first_warp(&self) -> u32 {
        self.first_warp
    }

    /// Notes writes of `bytes` at each lane's aligned address by a warp of the block, as far as they
    /// are plain; returns the lanes whose writes need [`Races::write`], or [`Races::issue`] for
    /// `cp.async`, whose writes stay pending. `span` is what the lanes cover together.
    #[inline(always)]
    pub(crate) fn write_lanes(
        &mut self,
        clocks: &Clocks,
        (at, span): (&Lanes32, Option<Span>),
        mask: u32,
        bytes: usize,
        (warp, pending): (u32, bool),
    ) -> u32 {
        // A word that is pending already is a conflict, so nothing may be noted twice: only whole
        // rows are noted at once, and all or none of a span.
        if pending && bytes != ROW {
            return mask;
        }
        let being_read = match self.reads.is_empty() {
            true => 0,
            false => lanes_where(mask, |lane| self.being_read(at[lane] as usize, bytes)),
        };
        let clock = if pending { PENDING } else { clocks.now(warp).own };
        let writer = Writer { issuer: warp, agent: warp, clock };
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &self.sets);
        let (bit, known) = (reader.bit, reader.known);
        let mut writer = PlainWrite { writer, floor, bit, known, sets, first_warp };
        if let Some(rows) = span.and_then(Span::rows).filter(|_| being_read == 0) {
            if writer.note_all(&mut self.words, rows.start, rows.len()) {
                return 0;
            }
        }
        let mut closer = 0;
        for lane in lanes(mask & !being_read) {
            let plain = writer.note_all(&mut self.words, at[lane] as usize, bytes);
            closer |= u32::from(!plain) << lane;
        }
        closer | being_read
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
        let (warp, floor) = (writer.issuer, clocks.now(writer.issuer).floor);
        let known = clocks.of(warp);
        let mask = byte_mask(at, bytes);
        let mut conflict = self.being_read(at, bytes).then_some(Conflict::BeingRead);
        let (first_warp, sets) = (self.first_warp, &self.sets);
        let mut latest = (Word::default(), None);
        self.words.for_range(at, bytes, |word| {
            if latest.1.is_some() && latest.0 == *word {
                *word = latest.1.unwrap_or_default();
                return;
            }
            latest.0 = *word;
            if word.read_unseen(floor, 0, mask) {
                let unseen = sets.unseen(word, first_warp, warp, known);
                conflict = unseen.map(Conflict::ReadBy).or(conflict);
            }
            if word.written_unseen(floor, warp, mask) {
                conflict = unseen_write(word, known, warp).or(conflict);
            }
            word.note_writer(writer, mask);
            latest.1 = Some(*word);
        });
        conflict
    }
}
