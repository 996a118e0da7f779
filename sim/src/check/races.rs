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

use std::collections::HashMap;
use std::ops::Range;

use super::clocks::{Clocks, Now, VectorClock, PENDING};
use super::histories::{Histories, History, ROW};
use crate::state::{lanes, Lanes64};

/// Granularity of asynchronous reads.
const UNIT: usize = 16;
/// Writer of words that belong to an mbarrier.
const MBARRIER: u16 = u16::MAX;
/// Flag of [`Word::read`]: further readers are in `Races::older`.
const HAS_OLDER: u8 = 0x80;

/// Access history of one 4-byte word. Clock 0 means never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Word {
    write_clock: u32,
    /// Clock of all `readers`; earlier ones that are not ordered before them, and those that are
    /// no warps of the block, are in `Races::older`.
    read_clock: u32,
    /// Warps of the block.
    readers: u32,
    writer: u16,
    /// Bytes of the last write, one bit each.
    written: u8,
    /// Bytes of the reads, one bit each, and [`HAS_OLDER`].
    read: u8,
}

impl History for Word {
    fn stands_alone(&self) -> bool {
        self.read & HAS_OLDER == 0
    }
}

impl Word {
    /// Whether the last write of these bytes may be one that a warp with this floor has not seen.
    #[inline(always)]
    fn written_unseen(&self, floor: u32, warp: u32, bytes: u8) -> bool {
        self.write_clock > floor
            && self.written & bytes != 0
            && (u32::from(self.writer) != warp || self.write_clock == PENDING)
    }

    /// Whether one of the reads of these bytes, but for those of the warp `own`, may be one that a
    /// warp with this floor has not seen.
    #[inline(always)]
    fn read_unseen(&self, floor: u32, own: u32, bytes: u8) -> bool {
        self.read & HAS_OLDER != 0
            || self.read_clock > floor && self.read & bytes != 0 && self.readers != own
    }

    /// Enters a read; false when earlier readers may have to be kept as well.
    #[inline(always)]
    fn note_reader(&mut self, now: Now, bit: u32, bytes: u8) -> bool {
        if self.read_clock == now.own {
            self.readers |= bit;
            self.read |= bytes;
        } else if self.read_clock <= now.floor {
            (self.read_clock, self.readers) = (now.own, bit);
            self.read = self.read & HAS_OLDER | bytes;
        } else {
            return false;
        }
        true
    }

    /// Enters a write.
    #[inline(always)]
    fn note_writer(&mut self, writer: Writer, bytes: u8) {
        if bytes == 0xF {
            (self.readers, self.read_clock, self.read) = (0, 0, 0);
        }
        let continues = self.write_clock == writer.clock && u32::from(self.writer) == writer.agent;
        self.written = if continues { self.written | bytes } else { bytes };
        self.write_clock = writer.clock;
        self.writer = writer.agent as u16;
    }
}

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

/// Bytes of a word that an aligned access touches.
#[inline(always)]
fn byte_mask(at: usize, bytes: usize) -> u8 {
    if bytes >= 4 {
        0xF
    } else {
        ((1u8 << bytes) - 1) << (at % 4)
    }
}

/// The warps of a mask.
fn warps_of(mask: u32) -> impl Iterator<Item = u32> {
    lanes(mask).map(|warp| warp as u32)
}

/// All that an agent wrote between two moments of synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    agent: u16,
    clock: u32,
}

/// Who writes, who vouches for the order of the write, and the clock it gets.
#[derive(Clone, Copy)]
struct Writer {
    /// Warp whose knowledge counts.
    issuer: u32,
    agent: u32,
    clock: u32,
}

/// An access that is noted where it needs no closer look.
trait Plain {
    /// Notes the access to these bytes of a word; false, and nothing done, if it is not plain.
    fn note(&self, word: &mut Word, bytes: u8) -> bool;

    /// Notes the access to an aligned range up to the first word where it is not plain, which
    /// makes it false.
    #[inline(always)]
    fn note_all(&self, words: &mut Histories<Word>, at: usize, bytes: usize) -> bool {
        if bytes >= ROW {
            for row in 0..bytes / ROW {
                match words.row(at + row * ROW) {
                    Some(word) => {
                        if !self.note(word, 0xF) {
                            return false;
                        }
                    }
                    None => return false,
                }
            }
        } else {
            let mask = byte_mask(at, bytes);
            for word in words.split(at / 4..(at + bytes).div_ceil(4)) {
                if !self.note(word, mask) {
                    return false;
                }
            }
        }
        true
    }
}

/// Reads by a warp of the block.
struct PlainRead {
    now: Now,
    warp: u32,
    bit: u32,
}

impl Plain for PlainRead {
    #[inline(always)]
    fn note(&self, word: &mut Word, bytes: u8) -> bool {
        !word.written_unseen(self.now.floor, self.warp, bytes)
            && word.note_reader(self.now, self.bit, bytes)
    }
}

/// Writes by a warp of the block.
struct PlainWrite {
    writer: Writer,
    floor: u32,
    bit: u32,
}

impl Plain for PlainWrite {
    #[inline(always)]
    fn note(&self, word: &mut Word, bytes: u8) -> bool {
        let plain = !word.read_unseen(self.floor, self.bit, bytes)
            && !word.written_unseen(self.floor, self.writer.issuer, bytes);
        if plain {
            word.note_writer(self.writer, bytes);
        }
        plain
    }
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

    /// Notes the issue of a `cp.async`: a write that stays pending.
    pub(crate) fn issue(
        &mut self,
        clocks: &Clocks,
        at: usize,
        bytes: usize,
        warp: u32,
    ) -> Option<Conflict> {
        let writer = Writer { issuer: warp, agent: warp, clock: PENDING };
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

    /// The `cp.async` of these lanes, `bytes` each, were waited for: from now on they are ordinary
    /// writes of the warp.
    pub(crate) fn complete(
        &mut self,
        clocks: &Clocks,
        at: &Lanes64,
        mask: u32,
        bytes: usize,
        warp: u32,
    ) {
        let own = clocks.now(warp).own;
        for at in lanes(mask).map(|lane| at[lane] as usize) {
            self.land(at..at + bytes, warp, (warp, own));
        }
    }

    /// Notes the issue of a bulk copy that will write for an asynchronous agent; `issuer` is the
    /// warp that issues it.
    pub(crate) fn issue_bulk(
        &mut self,
        clocks: &Clocks,
        range: Range<usize>,
        issuer: u32,
        agent: u32,
    ) -> Option<Conflict> {
        let unfenced = self.check_async(clocks, range.clone(), issuer, &mut None);
        let writer = Writer { issuer, agent, clock: PENDING };
        self.write_words(clocks, range.start, range.len(), writer).or(unfenced)
    }

    /// The data of a copy marked as pending for `from` landed: a write of an agent at its clock.
    pub(crate) fn land(&mut self, range: Range<usize>, from: u32, (agent, clock): (u32, u32)) {
        let landed = |word: &mut Word| {
            if word.write_clock == PENDING && u32::from(word.writer) == from {
                (word.write_clock, word.writer) = (clock, agent as u16);
            }
        };
        let mut at = range.start;
        while at < range.end {
            let next = (at / ROW * ROW + ROW).min(range.end);
            match self.words.row(at / ROW * ROW) {
                Some(row) if next - at == ROW => landed(row),
                _ => {
                    let words = at / 4..next.div_ceil(4);
                    self.words.split(words).iter_mut().for_each(landed);
                }
            }
            at = next;
        }
    }

    /// The 8 bytes at `at` become an mbarrier, or stop to be one.
    pub(crate) fn set_mbarrier(&mut self, at: usize, exists: bool) {
        let mut word = Word::default();
        if exists {
            (word.write_clock, word.writer, word.written) = (PENDING, MBARRIER, 0xF);
        }
        self.words.split(at / 4..at / 4 + 2).fill(word);
    }

    /// The last write of a word that an asynchronous operation of `warp` may not read or
    /// overwrite: unseen, or written by stores without a proxy fence (PTX ISA 8.5, 8.9.2).
    ///
    /// `ordered` is the last write that was found in order: neighbouring words mostly come from the
    /// same one, and it need not be looked up for each of them.
    pub(crate) fn check_async(
        &self,
        clocks: &Clocks,
        range: Range<usize>,
        warp: u32,
        ordered: &mut Option<Write>,
    ) -> Option<Conflict> {
        let (mut index, end) = (range.start / 4, range.end.div_ceil(4));
        while index < end {
            let (word, next) = self.words.run(index);
            index = next;
            let write = Write { agent: word.writer, clock: word.write_clock };
            if word.write_clock == 0 || *ordered == Some(write) {
                continue;
            }
            let writer = u32::from(word.writer);
            if let Some(conflict) = unseen_write(word, clocks.of(warp), warp) {
                return Some(conflict);
            }
            let ordinary = writer < clocks.warp_count();
            if ordinary && !clocks.knows_fence(warp, writer, word.write_clock) {
                return Some(Conflict::Unfenced(writer));
            }
            *ordered = Some(write);
        }
        None
    }

    /// An asynchronous operation starts to read these ranges: until [`Races::end_reads`] nobody
    /// may write to them.
    pub(crate) fn begin_reads(&mut self, ranges: Vec<Range<usize>>) -> Ticket {
        if self.reading.is_empty() {
            self.reading = vec![0; (self.words.len() * 4).div_ceil(UNIT)];
        }
        for range in &ranges {
            for count in &mut self.reading[range.start / UNIT..range.end.div_ceil(UNIT)] {
                *count = count.saturating_add(1);
            }
        }
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let ticket = Ticket(self.next_ticket);
        self.reads.insert(ticket, ranges);
        ticket
    }

    /// The reads of a ticket are over: from now on they are reads of `agent` at `clock`.
    pub(crate) fn end_reads(&mut self, clocks: &Clocks, ticket: Ticket, agent: u32, clock: u32) {
        let Some(ranges) = self.reads.remove(&ticket) else { return };
        let local = agent.wrapping_sub(self.first_warp) < self.warps;
        for range in ranges {
            for count in &mut self.reading[range.start / UNIT..range.end.div_ceil(UNIT)] {
                *count = count.saturating_sub(1);
            }
            if local {
                // The write was checked when the reads began; what came since was reported.
                self.read(clocks, range.start, range.len(), agent);
            } else {
                let words = range.start / 4..range.end.div_ceil(4);
                words.for_each(|index| self.note_older(index, agent, clock));
            }
        }
    }

    #[inline(always)]
    fn reader_in_progress(&self, at: usize, bytes: usize) -> Option<Conflict> {
        if self.reads.is_empty() {
            return None;
        }
        let units = &self.reading[at / UNIT..(at + bytes).div_ceil(UNIT)];
        units.iter().any(|&count| count != 0).then_some(Conflict::BeingRead)
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

/// The last write of a word, if the warp has not seen it.
#[cold]
fn unseen_write(word: &Word, clock: &VectorClock, warp: u32) -> Option<Conflict> {
    let writer = u32::from(word.writer);
    if word.write_clock == PENDING {
        Some(if word.writer == MBARRIER { Conflict::Mbarrier } else { Conflict::Pending(writer) })
    } else if writer != warp && word.write_clock > clock.get(writer) {
        Some(Conflict::WrittenBy(writer))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lone block's history together with its clocks.
    struct Block {
        races: Races,
        clocks: Clocks,
    }

    impl Block {
        fn new(warps: u32) -> Block {
            Block { races: Races::new(64, 0, warps), clocks: Clocks::new(1, warps) }
        }

        fn read(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
            self.races.read(&self.clocks, at, bytes, warp)
        }

        fn write(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
            self.races.write(&self.clocks, at, bytes, warp)
        }

        fn issue(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
            self.races.issue(&self.clocks, at, bytes, warp)
        }

        /// A barrier that all of these warps wait at.
        fn meet(&mut self, warps: &[u32]) {
            let mut joined = VectorClock::default();
            warps.iter().for_each(|&warp| self.clocks.release(warp, &mut joined));
            warps.iter().for_each(|&warp| self.clocks.resume(warp, &joined));
        }
    }

    #[test]
    fn a_write_after_another_warps_read_races_until_a_barrier() {
        let mut block = Block::new(4);
        assert_eq!(block.read(0, 16, 1), None);
        assert_eq!(block.write(8, 4, 0), Some(Conflict::ReadBy(1)));
        block.meet(&[0, 1, 2, 3]);
        assert_eq!(block.write(8, 4, 2), None);
        assert_eq!(block.read(8, 4, 2), None);
        assert_eq!(block.read(8, 4, 3), Some(Conflict::WrittenBy(2)));
    }

    #[test]
    fn a_barrier_orders_only_the_warps_that_meet_at_it() {
        let mut block = Block::new(3);
        assert_eq!(block.write(0, 4, 0), None);
        block.meet(&[0, 1]);
        assert_eq!(block.read(0, 4, 1), None);
        assert_eq!(block.read(0, 4, 2), Some(Conflict::WrittenBy(0)));
        // What warp 1 has seen it passes on.
        block.meet(&[1, 2]);
        assert_eq!(block.read(0, 4, 2), None);
    }

    #[test]
    fn an_arrival_without_waiting_releases_but_does_not_acquire() {
        let mut block = Block::new(2);
        block.write(0, 4, 0);
        block.write(4, 4, 1);
        let mut joined = VectorClock::default();
        block.clocks.release(0, &mut joined);
        block.clocks.release(1, &mut joined);
        block.clocks.resume(1, &joined);
        assert_eq!(block.read(0, 4, 1), None);
        assert_eq!(block.read(4, 4, 0), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn readers_at_different_clocks_are_all_remembered() {
        let mut block = Block::new(3);
        assert_eq!(block.read(0, 4, 0), None);
        // Warps 1 and 2 advance together; warp 0's read stays unordered with them.
        block.meet(&[1, 2]);
        assert_eq!(block.read(0, 4, 1), None);
        block.meet(&[1, 2]);
        assert_eq!(block.write(0, 4, 2), Some(Conflict::ReadBy(0)));
    }

    #[test]
    fn warps_may_write_neighbouring_bytes_of_one_word() {
        let mut block = Block::new(2);
        assert_eq!(block.write(0, 2, 0), None);
        assert_eq!(block.write(2, 2, 1), None);
        assert_eq!(block.read(0, 2, 0), None);
        assert_eq!(block.write(3, 1, 0), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn what_an_exited_warp_did_is_seen_after_the_next_barrier() {
        let mut block = Block::new(3);
        block.write(0, 4, 2);
        block.clocks.exit(2);
        assert_eq!(block.read(0, 4, 0), Some(Conflict::WrittenBy(2)));
        block.meet(&[0, 1]);
        assert_eq!(block.read(0, 4, 0), None);
    }

    #[test]
    fn pending_copies_conflict_with_every_access_until_they_are_complete() {
        let mut block = Block::new(2);
        assert_eq!(block.issue(16, 16, 0), None);
        assert_eq!(block.read(20, 4, 0), Some(Conflict::Pending(0)));
        block.meet(&[0, 1]);
        assert_eq!(block.write(16, 4, 1), Some(Conflict::Pending(0)));
        let mut block = Block::new(2);
        block.issue(16, 16, 0);
        block.races.complete(&block.clocks, &[16; 32], 1, 16, 0);
        assert_eq!(block.read(20, 4, 0), None);
        assert_eq!(block.read(20, 4, 1), Some(Conflict::WrittenBy(0)));
    }

    #[test]
    fn asynchronous_readers_need_the_fence_of_the_writer() {
        let mut block = Block::new(2);
        block.write(0, 4, 0);
        block.meet(&[0, 1]);
        assert_eq!(
            block.races.check_async(&block.clocks, 0..16, 1, &mut None),
            Some(Conflict::Unfenced(0))
        );
        block.clocks.proxy_fence(0);
        block.meet(&[0, 1]);
        assert_eq!(block.races.check_async(&block.clocks, 0..16, 1, &mut None), None);
        block.write(4, 4, 0);
        assert_eq!(
            block.races.check_async(&block.clocks, 0..16, 1, &mut None),
            Some(Conflict::WrittenBy(0))
        );
    }

    #[test]
    fn bytes_being_read_asynchronously_may_not_be_written_until_the_reads_end() {
        let mut block = Block::new(2);
        let first = block.races.begin_reads(vec![0..32]);
        let second = block.races.begin_reads(vec![16..48]);
        assert_eq!(block.write(48, 4, 0), None);
        assert_eq!(block.write(40, 4, 0), Some(Conflict::BeingRead));
        let own = block.clocks.now(0).own;
        block.races.end_reads(&block.clocks, second, 0, own);
        assert_eq!(block.write(20, 4, 0), Some(Conflict::BeingRead));
        block.races.end_reads(&block.clocks, first, 0, own);
        assert_eq!(block.write(20, 4, 0), None);
        // The end is a read of the warp that waited for it.
        assert_eq!(block.write(8, 4, 1), Some(Conflict::ReadBy(0)));
    }

    #[test]
    fn what_a_bulk_copy_wrote_is_seen_by_those_who_waited_for_its_phase() {
        let mut block = Block::new(2);
        let agent = block.clocks.add_agent();
        assert_eq!(block.races.issue_bulk(&block.clocks, 0..16, 0, agent), None);
        assert_eq!(block.read(0, 4, 1), Some(Conflict::Pending(agent)));
        block.races.land(0..16, agent, (agent, 3));
        assert_eq!(block.read(0, 4, 1), Some(Conflict::WrittenBy(agent)));
        let mut phase = VectorClock::default();
        phase.raise(agent, 3);
        block.clocks.acquire(1, &phase);
        assert_eq!(block.read(0, 4, 1), None);
    }

    #[test]
    fn reads_from_another_block_race_with_writes_of_the_owner() {
        let (mut races, mut clocks) = (Races::new(64, 0, 2), Clocks::new(2, 2));
        assert_eq!(races.read_remote(&clocks, 0, 4, 3), None);
        assert_eq!(races.write(&clocks, 0, 4, 1), Some(Conflict::ReadBy(3)));
        let mut joined = VectorClock::default();
        clocks.release(1, &mut joined);
        clocks.acquire(2, &joined);
        assert_eq!(races.read_remote(&clocks, 0, 4, 2), None);
        assert_eq!(races.read_remote(&clocks, 0, 4, 3), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn the_bytes_of_an_mbarrier_are_not_for_ordinary_accesses() {
        let mut block = Block::new(1);
        block.races.set_mbarrier(8, true);
        assert_eq!(block.read(8, 4, 0), Some(Conflict::Mbarrier));
        assert_eq!(block.write(0, 16, 0), Some(Conflict::Mbarrier));
        block.races.set_mbarrier(8, false);
        assert_eq!(block.write(8, 8, 0), None);
    }
}
