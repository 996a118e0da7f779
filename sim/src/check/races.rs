//! Race detection on shared memory, after FastTrack (Flanagan and Freund 2009).
//!
//! Every warp has a vector clock (see [`super::clocks`]); barriers join the clocks of the warps
//! that arrive into those that wait. Each 4-byte word remembers its last write and its readers by
//! agent and clock. Two accesses to the same byte by different agents, one of them a write, race
//! unless the later one's clock has seen the earlier access. Within a warp, program order holds.
//!
//! A word that is the target of a pending asynchronous copy carries a mark; touching it before the
//! copy was waited for is reported even where the data happens to be there already. What an
//! asynchronous operation still reads stands beside the history, as a region (see
//! [`Races::begin_reads`]).

mod asynchronous;
mod lanes;
mod readers;
#[cfg(test)]
mod tests;
mod word;

use std::rc::Rc;

use super::clocks::{Clocks, PENDING};
use super::histories::{Histories, ROW};
use super::region::Region;
use crate::request::Request;
use crate::state::{lanes, lanes_where};
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
    /// Asynchronous reads in progress. There are few at a time, and far fewer writes to look for
    /// them than bytes that they read.
    reads: Vec<(Ticket, Rc<Region>)>,
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
            reads: Vec::new(),
            next_ticket: 0,
        }
    }

    /// Forgets everything, for the next thread block.
    pub(crate) fn reset(&mut self) {
        self.words.reset();
        self.sets.clear();
        self.reads.clear();
    }

    /// Notes a request that reads, by a warp of the block, as far as it is plain; returns the lanes
    /// whose reads need [`Races::read`].
    #[inline(always)]
    pub(crate) fn read_lanes(&mut self, clocks: &Clocks, request: &Request, warp: u32) -> u32 {
        self.sets.tidy(&mut self.words);
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &mut self.sets);
        let mut reader = PlainRead { floor, reader, sets, first_warp };
        if reader.note_request(&mut self.words, request) {
            return 0;
        }
        let mut closer = 0;
        for lane in lanes(request.mask()) {
            let plain = reader.note_all(&mut self.words, request.at(lane), request.bytes());
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
        self.sets.tidy(&mut self.words);
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &mut self.sets);
        let mask = byte_mask(at, bytes);
        let mut conflict = None;
        self.words.for_range(at, bytes, |word| {
            if word.written_unseen(floor, warp, mask) {
                conflict = unseen_write(word, reader.known, warp).or(conflict);
            }
            sets.note(word, (first_warp, floor), reader, mask);
        });
        conflict
    }

    /// Notes reads of rows by a warp of the block; false, and some of it noted, if a row has several
    /// histories.
    fn read_rows(&mut self, clocks: &Clocks, rows: &[u32], warp: u32) -> bool {
        self.sets.tidy(&mut self.words);
        let (reader, floor) = self.reader(clocks, warp);
        // Rows of a tile mostly have the same history, before and after.
        let mut latest: Option<(Word, Word)> = None;
        for &row in rows {
            let Some(word) = self.words.joined_mut(row) else { return false };
            match latest {
                Some((before, after)) if before == *word => *word = after,
                _ => {
                    let before = *word;
                    self.sets.note(word, (self.first_warp, floor), reader, 0xF);
                    latest = Some((before, *word));
                }
            }
        }
        true
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

    /// Notes a request that writes, by a warp of the block, as far as it is plain; returns the lanes
    /// whose writes need [`Races::write`], or [`Races::issue`] for `cp.async`, whose writes stay
    /// pending.
    #[inline(always)]
    pub(crate) fn write_lanes(
        &mut self,
        clocks: &Clocks,
        request: &Request,
        (warp, pending): (u32, bool),
    ) -> u32 {
        // A word that is pending already is a conflict, so nothing may be noted twice: only whole
        // rows are noted at once, and all or none of a request.
        if pending && request.bytes() != ROW {
            return request.mask();
        }
        let being_read = if request.runs().any(|run| self.being_read(run.start, run.len())) {
            lanes_where(request.mask(), |lane| self.being_read(request.at(lane), request.bytes()))
        } else {
            0
        };
        let clock = if pending { PENDING } else { clocks.now(warp).own };
        let writer = Writer { issuer: warp, agent: warp, clock };
        let (reader, floor) = self.reader(clocks, warp);
        let (first_warp, sets) = (self.first_warp, &self.sets);
        let (bit, known) = (reader.bit, reader.known);
        let mut writer = PlainWrite { writer, floor, bit, known, sets, first_warp };
        if being_read == 0 && writer.note_request(&mut self.words, request) {
            return 0;
        }
        let mut closer = 0;
        for lane in lanes(request.mask() & !being_read) {
            let plain = writer.note_all(&mut self.words, request.at(lane), request.bytes());
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
