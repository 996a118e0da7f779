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

use super::clocks::{Clocks, VectorClock, PENDING};

/// Granularity of asynchronous reads.
const UNIT: usize = 16;
/// Writer of words that belong to an mbarrier.
const MBARRIER: u16 = u16::MAX;
/// Flag of [`Word::read`]: further readers are in `Races::older`.
const HAS_OLDER: u8 = 0x80;

/// Access history of one 4-byte word. Clock 0 means never.
#[derive(Debug, Clone, Copy, Default)]
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
    words: Vec<Word>,
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
    crate::state::lanes(mask).map(|warp| warp as u32)
}

/// Who writes, who vouches for the order of the write, and the clock it gets.
#[derive(Clone, Copy)]
struct Writer {
    /// Warp whose knowledge counts.
    issuer: u32,
    agent: u32,
    clock: u32,
}

impl Races {
    /// Histories for `bytes` of shared memory (a multiple of 4) of the block whose `warps` warps
    /// are numbered from `first_warp`.
    pub(crate) fn new(bytes: usize, first_warp: u32, warps: u32) -> Races {
        Races {
            words: vec![Word::default(); bytes / 4],
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
        self.words.fill(Word::default());
        self.older.clear();
        self.reading.fill(0);
        self.reads.clear();
    }

    /// Notes a read by a warp of the block and checks it against earlier writes.
    #[inline(always)]
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
            let word = &mut self.words[index];
            if word.write_clock > now.floor && word.written & mask != 0 {
                conflict = unseen_write(word, clocks.of(warp), warp).or(conflict);
            }
            if word.read_clock == now.own {
                word.readers |= bit;
                word.read |= mask;
            } else {
                self.replace_readers(clocks, index, warp);
                self.words[index].read |= mask;
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
            let word = &self.words[index];
            if word.written & mask != 0 {
                conflict = unseen_write(word, clocks.of(warp), warp).or(conflict);
            }
            self.note_older(index, warp, clocks.now(warp).own);
        }
        conflict
    }

    fn note_older(&mut self, index: usize, agent: u32, clock: u32) {
        self.older.entry(index).or_default().raise(agent, clock);
        self.words[index].read |= HAS_OLDER;
    }

    /// Notes a write by a warp of the cluster and checks it against earlier accesses.
    #[inline(always)]
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

    #[inline(always)]
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
            let word = self.words[index];
            if word.read & HAS_OLDER != 0 || (word.read_clock > floor && word.read & mask != 0) {
                conflict = self.unseen_read(clocks, index, warp).or(conflict);
            }
            if word.write_clock > floor && word.written & mask != 0 {
                conflict = unseen_write(&word, clocks.of(warp), warp).or(conflict);
            }
            let word = &mut self.words[index];
            if mask == 0xF {
                (word.readers, word.read_clock, word.read) = (0, 0, 0);
            }
            let continues =
                word.write_clock == writer.clock && u32::from(word.writer) == writer.agent;
            word.written = if continues { word.written | mask } else { mask };
            word.write_clock = writer.clock;
            word.writer = writer.agent as u16;
        }
        conflict
    }

    /// The copy into these bytes was waited for: from now on it is an ordinary write of the warp.
    pub(crate) fn complete(&mut self, clocks: &Clocks, at: usize, bytes: usize, warp: u32) {
        let own = clocks.now(warp).own;
        for word in &mut self.words[at / 4..(at + bytes).div_ceil(4)] {
            if word.write_clock == PENDING && u32::from(word.writer) == warp {
                word.write_clock = own;
            }
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
        let unfenced = self.check_async(clocks, range.clone(), issuer);
        let writer = Writer { issuer, agent, clock: PENDING };
        self.write_words(clocks, range.start, range.len(), writer).or(unfenced)
    }

    /// The data of a bulk copy landed: visible to whoever sees `clock` of the agent.
    pub(crate) fn land(&mut self, range: Range<usize>, agent: u32, clock: u32) {
        for word in &mut self.words[range.start / 4..range.end.div_ceil(4)] {
            if word.write_clock == PENDING && u32::from(word.writer) == agent {
                word.write_clock = clock;
            }
        }
    }

    /// The 8 bytes at `at` become an mbarrier, or stop to be one.
    pub(crate) fn set_mbarrier(&mut self, at: usize, exists: bool) {
        let mut word = Word::default();
        if exists {
            (word.write_clock, word.writer, word.written) = (PENDING, MBARRIER, 0xF);
        }
        self.words[at / 4..at / 4 + 2].fill(word);
    }

    /// The last write of a word that an asynchronous operation of `warp` may not read or
    /// overwrite: unseen, or written by stores without a proxy fence (PTX ISA 8.5, 8.9.2).
    pub(crate) fn check_async(
        &self,
        clocks: &Clocks,
        range: Range<usize>,
        warp: u32,
    ) -> Option<Conflict> {
        let known = clocks.of(warp);
        self.words[range.start / 4..range.end.div_ceil(4)].iter().find_map(|word| {
            let writer = u32::from(word.writer);
            if word.write_clock == 0 {
                return None;
            }
            unseen_write(word, known, warp).or_else(|| {
                let ordinary = writer < clocks.warp_count();
                let fenced = !ordinary || clocks.knows_fence(warp, writer, word.write_clock);
                (!fenced).then_some(Conflict::Unfenced(writer))
            })
        })
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
        let (word, clock) = (&mut self.words[index], clocks.of(warp));
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
        let (word, now) = (&mut self.words[index], clocks.now(warp));
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
        block.races.complete(&block.clocks, 16, 16, 0);
        assert_eq!(block.read(20, 4, 0), None);
        assert_eq!(block.read(20, 4, 1), Some(Conflict::WrittenBy(0)));
    }

    #[test]
    fn asynchronous_readers_need_the_fence_of_the_writer() {
        let mut block = Block::new(2);
        block.write(0, 4, 0);
        block.meet(&[0, 1]);
        assert_eq!(block.races.check_async(&block.clocks, 0..16, 1), Some(Conflict::Unfenced(0)));
        block.clocks.proxy_fence(0);
        block.meet(&[0, 1]);
        assert_eq!(block.races.check_async(&block.clocks, 0..16, 1), None);
        block.write(4, 4, 0);
        assert_eq!(block.races.check_async(&block.clocks, 0..16, 1), Some(Conflict::WrittenBy(0)));
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
        block.races.land(0..16, agent, 3);
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
