//! The history of one word of shared memory, and accesses to it that need no closer look.

use super::readers::{Reader, ReaderSets};
use super::Conflict;
use crate::check::clocks::{Now, VectorClock, PENDING};
use crate::check::histories::{Histories, History, ROW};
use crate::request::Request;

/// Writer of words that belong to an mbarrier.
pub(super) const MBARRIER: u16 = u16::MAX;
/// Flag of [`Word::read`]: the readers are a set of [`super::readers::ReaderSets`].
pub(super) const IN_SET: u8 = 0x80;

/// Access history of one 4-byte word. Clock 0 means never.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Word {
    pub(super) write_clock: u32,
    /// Clock of all `readers`; [`PENDING`] for a set.
    pub(super) read_clock: u32,
    /// Warps of the block, one bit each. Number of the set when they read at different moments or
    /// are warps of other blocks.
    pub(super) readers: u32,
    pub(super) writer: u16,
    /// Bytes of the last write, one bit each.
    pub(super) written: u8,
    /// Bytes of the reads, one bit each, and [`IN_SET`].
    pub(super) read: u8,
}

impl PartialEq for Word {
    /// Without branches, because histories of whole tiles are compared word by word.
    #[inline(always)]
    fn eq(&self, other: &Word) -> bool {
        self.bits() == other.bits()
    }
}
impl History for Word {
    fn stands_alone(&self) -> bool {
        true
    }
}

impl Word {
    /// All of it as one number.
    #[inline(always)]
    fn bits(&self) -> u128 {
        let clocks = u128::from(self.write_clock) | u128::from(self.read_clock) << 32;
        let bytes = u128::from(self.written) << 112 | u128::from(self.read) << 120;
        clocks | u128::from(self.readers) << 64 | u128::from(self.writer) << 96 | bytes
    }

    /// Whether the last write of these bytes may be one that a warp with this floor has not seen.
    #[inline(always)]
    pub(super) fn written_unseen(&self, floor: u32, warp: u32, bytes: u8) -> bool {
        self.write_clock > floor
            && self.written & bytes != 0
            && (u32::from(self.writer) != warp || self.write_clock == PENDING)
    }

    /// Whether one of the reads of these bytes, but for those of the warp `own`, may be one that a
    /// warp with this floor has not seen.
    #[inline(always)]
    pub(super) fn read_unseen(&self, floor: u32, own: u32, bytes: u8) -> bool {
        self.read_clock > floor
            && self.read & bytes != 0
            && (self.readers != own || self.read & IN_SET != 0)
    }

    /// Enters a read; false when earlier readers may have to be kept as well.
    #[inline(always)]
    pub(super) fn note_reader(&mut self, now: Now, bit: u32, bytes: u8) -> bool {
        if self.read_clock == now.own {
            self.readers |= bit;
            self.read |= bytes;
        } else if self.read_clock <= now.floor {
            (self.read_clock, self.readers, self.read) = (now.own, bit, bytes);
        } else {
            return false;
        }
        true
    }

    /// Enters a write.
    #[inline(always)]
    pub(super) fn note_writer(&mut self, writer: Writer, bytes: u8) {
        if bytes == 0xF {
            (self.readers, self.read_clock, self.read) = (0, 0, 0);
        }
        let continues = self.write_clock == writer.clock && u32::from(self.writer) == writer.agent;
        self.written = if continues { self.written | bytes } else { bytes };
        self.write_clock = writer.clock;
        self.writer = writer.agent as u16;
    }
}

/// Bytes of a word that an aligned access touches.
#[inline(always)]
pub(super) fn byte_mask(at: usize, bytes: usize) -> u8 {
    if bytes >= 4 {
        0xF
    } else {
        ((1u8 << bytes) - 1) << (at % 4)
    }
}

/// Whether rows have the same history, as those of a tile mostly do. A plain loop: it vectorises.
#[inline(always)]
pub(super) fn alike(rows: &[Word]) -> bool {
    let first = rows.first().map_or(0, Word::bits);
    let mut differing = 0;
    for row in rows {
        differing |= row.bits() ^ first;
    }
    differing == 0
}

/// Who writes, who vouches for the order of the write, and the clock it gets.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    /// Warp whose knowledge counts.
    pub(super) issuer: u32,
    pub(super) agent: u32,
    pub(super) clock: u32,
}

/// The last write of a word, if the warp has not seen it.
#[inline]
pub(super) fn unseen_write(word: &Word, clock: &VectorClock, warp: u32) -> Option<Conflict> {
    let writer = u32::from(word.writer);
    if word.write_clock == PENDING {
        Some(if word.writer == MBARRIER { Conflict::Mbarrier } else { Conflict::Pending(writer) })
    } else if writer != warp && word.write_clock > clock.get(writer) {
        Some(Conflict::WrittenBy(writer))
    } else {
        None
    }
}

/// An access that is noted where it needs no closer look.
pub(super) trait Plain {
    /// Notes the access to these bytes of a word; false, and nothing done, if it is not plain.
    fn note(&mut self, word: &mut Word, bytes: u8) -> bool;

    /// Notes the access to whole rows; false, and perhaps some of it done, if it is not plain.
    fn note_rows(&mut self, rows: &mut [Word]) -> bool;

    /// Notes the access to an aligned range up to the first word where it is not plain, which
    /// makes it false.
    #[inline(always)]
    fn note_all(&mut self, words: &mut Histories<Word>, at: usize, bytes: usize) -> bool {
        if bytes >= ROW {
            return words.whole_rows(at..at + bytes).is_some_and(|rows| self.note_rows(rows));
        }
        if bytes <= 4 {
            return self.note(words.word(at / 4), byte_mask(at, bytes));
        }
        words.split(at / 4..(at + bytes) / 4).iter_mut().all(|word| self.note(word, 0xF))
    }
}

/// Reads by a warp of the block. Those that race are not plain.
pub(super) struct PlainRead<'r> {
    pub(super) floor: u32,
    pub(super) reader: Reader<'r>,
    pub(super) sets: &'r mut ReaderSets,
    pub(super) first_warp: u32,
}

impl PlainRead<'_> {
    /// Notes a request as a whole; false, and perhaps some of it done, if it has to be looked at
    /// lane by lane.
    #[inline(always)]
    pub(super) fn note_request(&mut self, words: &mut Histories<Word>, request: &Request) -> bool {
        if !request.is_whole() {
            return false;
        }
        for run in request.runs() {
            let Some(rows) = words.whole_rows(run) else { return false };
            if !self.note_rows(rows) {
                return false;
            }
        }
        true
    }
}

impl Plain for PlainRead<'_> {
    #[inline(always)]
    fn note(&mut self, word: &mut Word, bytes: u8) -> bool {
        let Reader { agent, known, .. } = self.reader;
        if word.written_unseen(self.floor, agent, bytes)
            && unseen_write(word, known, agent).is_some()
        {
            return false;
        }
        self.sets.note(word, (self.first_warp, self.floor), self.reader, bytes);
        true
    }

    #[inline(always)]
    fn note_rows(&mut self, rows: &mut [Word]) -> bool {
        if !alike(rows) {
            return rows.iter_mut().all(|row| self.note(row, 0xF));
        }
        let mut word = rows.first().copied().unwrap_or_default();
        let plain = self.note(&mut word, 0xF);
        if plain {
            rows.fill(word);
        }
        plain
    }
}

/// Writes by a warp of the block. Those that race are not plain.
pub(super) struct PlainWrite<'r> {
    pub(super) writer: Writer,
    pub(super) floor: u32,
    pub(super) bit: u32,
    pub(super) known: &'r VectorClock,
    pub(super) sets: &'r ReaderSets,
    pub(super) first_warp: u32,
}

impl PlainWrite<'_> {
    /// Notes a request as a whole if it covers whole rows, each lane its own bytes, and none of it
    /// needs a closer look: all of it or nothing.
    #[inline(always)]
    pub(super) fn note_request(&mut self, words: &mut Histories<Word>, request: &Request) -> bool {
        if !(request.is_whole() && request.is_apart()) {
            return false;
        }
        for run in request.runs() {
            let Some(rows) = words.whole_rows(run) else { return false };
            let looked_at = if alike(rows) { rows.len().min(1) } else { rows.len() };
            if rows[..looked_at].iter().any(|row| self.races(row, 0xF)) {
                return false;
            }
        }
        let mut written = Word::default();
        written.note_writer(self.writer, 0xF);
        for run in request.runs() {
            words.whole_rows(run).into_iter().for_each(|rows| rows.fill(written));
        }
        true
    }

    #[inline(always)]
    fn races(&self, word: &Word, bytes: u8) -> bool {
        let issuer = self.writer.issuer;
        word.read_unseen(self.floor, self.bit, bytes)
            && self.sets.unseen(word, self.first_warp, issuer, self.known).is_some()
            || word.written_unseen(self.floor, issuer, bytes)
                && unseen_write(word, self.known, issuer).is_some()
    }
}

impl Plain for PlainWrite<'_> {
    #[inline(always)]
    fn note(&mut self, word: &mut Word, bytes: u8) -> bool {
        let races = self.races(word, bytes);
        if !races {
            word.note_writer(self.writer, bytes);
        }
        !races
    }

    /// All or nothing.
    #[inline(always)]
    fn note_rows(&mut self, rows: &mut [Word]) -> bool {
        let plain = !rows.iter().any(|row| self.races(row, 0xF));
        if plain {
            let mut written = Word::default();
            written.note_writer(self.writer, 0xF);
            rows.fill(written);
        }
        plain
    }
}
