//! Copies and other asynchronous operations in the history of shared memory.

use std::ops::Range;
use std::rc::Rc;

use super::readers::Reader;
use super::word::{alike, unseen_write, Word, Writer, MBARRIER};
use super::{Conflict, Races, Ticket};
use crate::check::clocks::{Clocks, VectorClock, PENDING};
use crate::check::histories::ROW;
use crate::check::region::Region;
use crate::request::Request;

/// All that an agent wrote between two moments of synchronisation. Clock 0 is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Write {
    agent: u16,
    clock: u32,
}

impl Races {
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

    /// This `cp.async` was waited for: from now on it is an ordinary write of the warp.
    pub(crate) fn complete(&mut self, clocks: &Clocks, request: &Request, warp: u32) {
        let own = clocks.now(warp).own;
        request.runs().for_each(|run| self.land(run, warp, (warp, own)));
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
        let unfenced = self.check_async(clocks, range.clone(), issuer, &mut Write::default());
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
        let aligned = range.start % ROW == 0 && range.end % ROW == 0;
        match aligned.then(|| self.words.whole_rows(range.clone())).flatten() {
            Some(rows) if alike(rows) => {
                let mut word = rows.first().copied().unwrap_or_default();
                landed(&mut word);
                rows.fill(word);
            }
            _ => self.words.for_range(range.start, range.len(), landed),
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

    /// Whether an asynchronous operation of `warp` may read a region, as far as that can be told
    /// quickly: by rows, most of which come from the same write as the one before.
    pub(crate) fn is_ordered(&self, clocks: &Clocks, region: &Region, warp: u32) -> bool {
        let mut ordered = Write::default();
        let mut in_order = |row: u32| {
            let Some(word) = self.words.joined(row) else { return false };
            let write = Write { agent: word.writer, clock: word.write_clock };
            let at = row as usize * ROW;
            write == ordered || self.check_async(clocks, at..at + ROW, warp, &mut ordered).is_none()
        };
        region.rows().is_some_and(|rows| rows.iter().all(|&row| in_order(row)))
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
        ordered: &mut Write,
    ) -> Option<Conflict> {
        let (mut index, end) = (range.start / 4, range.end.div_ceil(4));
        while index < end {
            let (word, next) = self.words.run(index);
            index = next;
            let write = Write { agent: word.writer, clock: word.write_clock };
            if word.write_clock == 0 || *ordered == write {
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
            *ordered = write;
        }
        None
    }

    /// An asynchronous operation starts to read a region: until [`Races::end_reads`] nobody may
    /// write to it.
    pub(crate) fn begin_reads(&mut self, region: Rc<Region>) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let ticket = Ticket(self.next_ticket);
        self.reads.push((ticket, region));
        ticket
    }

    /// What the reads of a ticket cover, until they are over.
    pub(crate) fn region(&self, ticket: Ticket) -> Option<Rc<Region>> {
        let read = self.reads.iter().find(|read| read.0 == ticket);
        read.map(|(_, region)| region.clone())
    }

    /// The reads of a ticket are over: from now on they are reads of `agent` at `clock`.
    pub(crate) fn end_reads(&mut self, clocks: &Clocks, ticket: Ticket, agent: u32, clock: u32) {
        let Some(place) = self.reads.iter().position(|read| read.0 == ticket) else { return };
        let (_, region) = self.reads.swap_remove(place);
        let local = agent.wrapping_sub(self.first_warp) < self.warps;
        if local {
            // The write was checked when the reads began; what came since was reported.
            if !region.rows().is_some_and(|rows| self.read_rows(clocks, rows, agent)) {
                for range in region.ranges() {
                    self.read(clocks, range.start, range.len(), agent);
                }
            }
        } else {
            for range in region.ranges() {
                // Whoever it is, what it knew then is not known here.
                let known = &VectorClock::default();
                let reader = Reader { agent, clock, bit: 0, known };
                self.note_remote(range.start, range.len(), reader);
            }
        }
    }

    /// Whether an asynchronous operation is reading some of these bytes.
    #[inline(always)]
    pub(super) fn being_read(&self, at: usize, bytes: usize) -> bool {
        self.reads.iter().any(|(_, region)| region.meets(&(at..at + bytes)))
    }
}
