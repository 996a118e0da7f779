//! Readers of a word that no single clock describes.
//!
//! Warps that wait for different mbarriers read the same tile at moments of their own. Whole tiles
//! are read alike, so the sets of such readers are kept once, in a table, and words name them by
//! number; what a set becomes when another reader joins is looked up, not computed.

use std::collections::HashMap;

use super::word::{Word, IN_SET};
use crate::check::clocks::{Now, VectorClock, PENDING};
use crate::check::histories::Histories;
use crate::state::lanes;

/// Sets in the table before the first look for those that no word names any more.
const ENOUGH: usize = 1 << 12;

/// An agent with its clock at an access.
type Moment = (u32, u32);

/// The readers of a word as it stores them: number or mask, and clock.
type Stored = (u32, u32);

/// Who reads, when, and what it knows of others.
#[derive(Clone, Copy)]
pub(super) struct Reader<'c> {
    pub(super) agent: u32,
    pub(super) clock: u32,
    /// Bit of a warp of the block; 0 for anybody else.
    pub(super) bit: u32,
    pub(super) known: &'c VectorClock,
}

/// The sets of readers of a thread block's shared memory.
#[derive(Debug)]
pub(super) struct ReaderSets {
    sets: Vec<Box<[Moment]>>,
    /// What readers become when an agent joins them at a moment.
    joined: HashMap<(Stored, Moment), Stored>,
    /// The last of these.
    latest: ((Stored, Moment), Stored),
    limit: usize,
}

impl ReaderSets {
    pub(super) fn new() -> ReaderSets {
        let (sets, joined) = (Vec::new(), HashMap::new());
        ReaderSets { sets, joined, latest: Default::default(), limit: ENOUGH }
    }

    /// Forgets everything; no word may name a set any more.
    pub(super) fn clear(&mut self) {
        self.sets.clear();
        self.joined.clear();
        self.latest = Default::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// All readers of a word; warps of the block are numbered from `first_warp`.
    pub(super) fn of(&self, word: &Word, first_warp: u32) -> impl Iterator<Item = Moment> + '_ {
        let named = word.read & IN_SET != 0;
        let set: &[Moment] = if named { &self.sets[word.readers as usize] } else { &[] };
        let warps = if named { 0 } else { word.readers };
        let clock = word.read_clock;
        let alone = lanes(warps).map(move |warp| (first_warp + warp as u32, clock));
        set.iter().copied().chain(alone)
    }

    /// A reader of a word, other than `warp`, that somebody with this knowledge has not seen.
    #[inline]
    pub(super) fn unseen(
        &self,
        word: &Word,
        first_warp: u32,
        warp: u32,
        known: &VectorClock,
    ) -> Option<u32> {
        let mut readers = self.of(word, first_warp);
        readers.find(|&(agent, at)| agent != warp && at > known.get(agent)).map(|(agent, _)| agent)
    }

    /// Enters a read of some bytes of a word.
    #[inline]
    pub(super) fn note(
        &mut self,
        word: &mut Word,
        (first_warp, floor): (u32, u32),
        reader: Reader<'_>,
        bytes: u8,
    ) {
        if !word.note_reader(Now { own: reader.clock, floor }, reader.bit, bytes) {
            self.join(word, first_warp, reader);
            word.read |= bytes;
        }
    }

    /// Adds a reader to those of a word. Earlier readers that it has seen are dropped: a write that
    /// is ordered after this read is ordered after theirs.
    #[inline]
    pub(super) fn join(&mut self, word: &mut Word, first_warp: u32, reader: Reader<'_>) {
        let key = ((word.readers, word.read_clock), (reader.agent, reader.clock));
        if self.latest.0 != key {
            self.latest = (key, self.look_up(key, word, first_warp, reader));
        }
        (word.readers, word.read_clock) = self.latest.1;
        word.read = if word.read_clock == PENDING { word.read | IN_SET } else { 0 };
    }

    #[inline(never)]
    fn look_up(
        &mut self,
        key: (Stored, Moment),
        word: &Word,
        first_warp: u32,
        reader: Reader<'_>,
    ) -> Stored {
        if let Some(&stored) = self.joined.get(&key) {
            return stored;
        }
        let unseen =
            |&(agent, clock): &Moment| agent != reader.agent && clock > reader.known.get(agent);
        let mut set: Vec<Moment> = self.of(word, first_warp).filter(unseen).collect();
        let stored = if set.is_empty() && reader.bit != 0 {
            (reader.bit, reader.clock)
        } else {
            set.push((reader.agent, reader.clock));
            set.sort_unstable();
            self.sets.push(set.into_boxed_slice());
            (self.sets.len() as u32 - 1, PENDING)
        };
        self.joined.insert(key, stored);
        stored
    }

    /// Drops the sets that no word names, when there are many sets.
    pub(super) fn tidy(&mut self, words: &mut Histories<Word>) {
        if self.sets.len().max(self.joined.len() / 8) < self.limit {
            return;
        }
        let mut old = std::mem::take(&mut self.sets);
        let mut numbers = vec![None; old.len()];
        self.clear();
        words.for_each(|word| {
            if word.read & IN_SET != 0 {
                let number = numbers[word.readers as usize].get_or_insert_with(|| {
                    self.sets.push(std::mem::take(&mut old[word.readers as usize]));
                    self.sets.len() as u32 - 1
                });
                word.readers = *number;
            }
        });
        self.limit = ENOUGH.max(2 * self.sets.len());
    }
}
