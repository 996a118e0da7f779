//! Race detection on shared memory, after FastTrack (Flanagan and Freund 2009).
//!
//! Every warp has a vector clock; barriers join the clocks of the warps that arrive into those
//! that wait. Each 4-byte word remembers its last write and its readers by warp and clock. Two
//! accesses to the same byte by different warps, one of them a write, race unless the later warp's
//! clock has seen the earlier access. Within a warp, program order holds.
//!
//! A word that is the target of a pending `cp.async` carries a mark; touching it before the copy
//! was waited for is reported even where the data happens to be there already.

use std::collections::HashMap;

/// Most warps of a thread block.
const WARPS: usize = 32;
/// Write clock of words with a pending asynchronous copy: later than every real clock.
const PENDING: u32 = u32::MAX;

/// What a warp knows of the progress of every warp.
pub(crate) type VectorClock = [u32; WARPS];

/// Access history of one 4-byte word. Clock 0 means never.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    write_clock: u32,
    /// Clock of all `readers`; earlier ones that are not ordered before them are in `Races::older`.
    read_clock: u32,
    readers: u32,
    writer: u8,
    /// Bytes of the last write and of the reads, one bit each.
    written: u8,
    read: u8,
    has_older: bool,
}

/// Two accesses without an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Another warp wrote.
    WrittenBy(u32),
    /// Another warp read (the lowest of them).
    ReadBy(u32),
    /// An asynchronous copy issued by this warp has not been waited for.
    Pending(u32),
}

/// Clocks of all warps and histories of all words of a thread block's shared memory.
#[derive(Debug)]
pub(crate) struct Races {
    words: Vec<Word>,
    clocks: Vec<VectorClock>,
    /// Per warp, the least of its clock's entries: what is not later is seen by it, whoever did it.
    floors: Vec<u32>,
    /// Readers with other clocks than the word's own, by word.
    older: HashMap<usize, VectorClock>,
    /// Joined clocks of the warps that exited, which every later barrier sees.
    exited: VectorClock,
}

fn join(into: &mut VectorClock, other: &VectorClock) {
    for (a, b) in into.iter_mut().zip(other) {
        *a = (*a).max(*b);
    }
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
fn warps_of(mask: u32) -> impl Iterator<Item = usize> {
    crate::state::lanes(mask)
}

impl Races {
    /// Histories for `bytes` of shared memory (a multiple of 4) and a number of warps.
    pub(crate) fn new(bytes: usize, warps: usize) -> Races {
        let mut races = Races {
            words: vec![Word::default(); bytes / 4],
            clocks: vec![[0; WARPS]; warps.min(WARPS)],
            floors: vec![0; warps.min(WARPS)],
            older: HashMap::new(),
            exited: [0; WARPS],
        };
        races.reset();
        races
    }

    /// Forgets everything, for the next thread block.
    pub(crate) fn reset(&mut self) {
        self.words.fill(Word::default());
        self.older.clear();
        self.exited = [0; WARPS];
        // A lone warp has nobody to race with but its own copies.
        self.floors.fill(if self.clocks.len() == 1 { PENDING - 1 } else { 0 });
        for (warp, clock) in self.clocks.iter_mut().enumerate() {
            *clock = [0; WARPS];
            clock[warp] = 1;
        }
    }

    /// A warp arrives at a barrier: what it did so far becomes visible through `joined`.
    pub(crate) fn arrive(&mut self, warp: u32, joined: &mut VectorClock) {
        let warp = warp as usize;
        join(joined, &self.clocks[warp]);
        self.clocks[warp][warp] += 1;
    }

    /// A warp exits: every later barrier counts it as arrived.
    pub(crate) fn exit(&mut self, warp: u32) {
        let mut exited = self.exited;
        self.arrive(warp, &mut exited);
        self.exited = exited;
    }

    /// A warp that waited goes on: it has seen what the participants did before they arrived.
    pub(crate) fn resume(&mut self, warp: u32, joined: &VectorClock) {
        let warp = warp as usize;
        let clock = &mut self.clocks[warp];
        join(clock, joined);
        join(clock, &self.exited);
        let others = self.floors.len();
        let known = clock[..others].iter().enumerate().filter(|(other, _)| *other != warp);
        self.floors[warp] = known.map(|(_, &c)| c).min().unwrap_or(PENDING - 1);
    }

    /// Notes a read by a warp and checks it against earlier writes.
    #[inline(always)]
    pub(crate) fn read(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        let mask = byte_mask(at, bytes);
        let clock = &self.clocks[warp as usize];
        let (own, floor) = (clock[warp as usize], self.floors[warp as usize]);
        let mut conflict = None;
        for index in at / 4..(at + bytes).div_ceil(4) {
            let word = &mut self.words[index];
            if word.write_clock > floor && word.written & mask != 0 {
                conflict = unseen_write(word, clock, warp).or(conflict);
            }
            if word.read_clock == own {
                word.readers |= 1 << warp;
                word.read |= mask;
            } else {
                replace_readers(word, index, clock, floor, warp, &mut self.older);
                word.read |= mask;
            }
        }
        conflict
    }

    /// Notes a write by a warp and checks it against earlier accesses.
    #[inline(always)]
    pub(crate) fn write(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        let own = self.clocks[warp as usize][warp as usize];
        self.write_words(at, bytes, warp, own)
    }

    /// Notes the issue of an asynchronous copy: a write that stays pending.
    pub(crate) fn issue(&mut self, at: usize, bytes: usize, warp: u32) -> Option<Conflict> {
        self.write_words(at, bytes, warp, PENDING)
    }

    #[inline(always)]
    fn write_words(&mut self, at: usize, bytes: usize, warp: u32, mark: u32) -> Option<Conflict> {
        let mask = byte_mask(at, bytes);
        let clock = &self.clocks[warp as usize];
        let floor = self.floors[warp as usize];
        let mut conflict = None;
        for index in at / 4..(at + bytes).div_ceil(4) {
            let word = &mut self.words[index];
            if word.has_older || (word.read_clock > floor && word.read & mask != 0) {
                conflict = unseen_read(word, index, clock, warp, &mut self.older).or(conflict);
            }
            if word.write_clock > floor && word.written & mask != 0 {
                conflict = unseen_write(word, clock, warp).or(conflict);
            }
            if mask == 0xF {
                (word.readers, word.read_clock, word.read) = (0, 0, 0);
            }
            let continues = word.write_clock == mark && u32::from(word.writer) == warp;
            word.written = if continues { word.written | mask } else { mask };
            word.write_clock = mark;
            word.writer = warp as u8;
        }
        conflict
    }

    /// The copy into these bytes was waited for: from now on it is an ordinary write of the warp.
    pub(crate) fn complete(&mut self, at: usize, bytes: usize, warp: u32) {
        let own = self.clocks[warp as usize][warp as usize];
        for word in &mut self.words[at / 4..(at + bytes).div_ceil(4)] {
            if word.write_clock == PENDING {
                word.write_clock = own;
            }
        }
    }
}

/// The last write of a word, if the warp has not seen it.
fn unseen_write(word: &Word, clock: &VectorClock, warp: u32) -> Option<Conflict> {
    let writer = u32::from(word.writer);
    if word.write_clock == PENDING {
        Some(Conflict::Pending(writer))
    } else if writer != warp && word.write_clock > clock[writer as usize] {
        Some(Conflict::WrittenBy(writer))
    } else {
        None
    }
}

/// The first reader of a word that the warp has not seen; older readers are forgotten after a
/// write, because whoever sees the write has seen them or races with it.
fn unseen_read(
    word: &mut Word,
    index: usize,
    clock: &VectorClock,
    warp: u32,
    older: &mut HashMap<usize, VectorClock>,
) -> Option<Conflict> {
    let others = word.readers & !(1 << warp);
    let unseen = warps_of(others).find(|&reader| word.read_clock > clock[reader]);
    let unseen = unseen.or_else(|| {
        let reads = if word.has_older { older.remove(&index)? } else { return None };
        word.has_older = false;
        (0..WARPS).find(|&reader| reader != warp as usize && reads[reader] > clock[reader])
    });
    unseen.map(|reader| Conflict::ReadBy(reader as u32))
}

/// Makes the warp the word's only reader with its present clock. Earlier readers that it has seen
/// are dropped: a write that is ordered after this read is ordered after theirs.
fn replace_readers(
    word: &mut Word,
    index: usize,
    clock: &VectorClock,
    floor: u32,
    warp: u32,
    older: &mut HashMap<usize, VectorClock>,
) {
    let others = word.readers & !(1 << warp);
    let seen =
        word.read_clock <= floor || warps_of(others).all(|reader| word.read_clock <= clock[reader]);
    if seen {
        word.read = 0;
    } else {
        let kept = older.entry(index).or_insert([0; WARPS]);
        warps_of(others).for_each(|reader| kept[reader] = kept[reader].max(word.read_clock));
        word.has_older = true;
    }
    word.read_clock = clock[warp as usize];
    word.readers = 1 << warp;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A barrier that all of these warps wait at.
    fn meet(races: &mut Races, warps: &[u32]) {
        let mut joined = [0; WARPS];
        warps.iter().for_each(|&warp| races.arrive(warp, &mut joined));
        warps.iter().for_each(|&warp| races.resume(warp, &joined));
    }

    #[test]
    fn a_write_after_another_warps_read_races_until_a_barrier() {
        let mut races = Races::new(64, 4);
        assert_eq!(races.read(0, 16, 1), None);
        assert_eq!(races.write(8, 4, 0), Some(Conflict::ReadBy(1)));
        meet(&mut races, &[0, 1, 2, 3]);
        assert_eq!(races.write(8, 4, 2), None);
        assert_eq!(races.read(8, 4, 2), None);
        assert_eq!(races.read(8, 4, 3), Some(Conflict::WrittenBy(2)));
    }

    #[test]
    fn a_barrier_orders_only_the_warps_that_meet_at_it() {
        let mut races = Races::new(64, 3);
        assert_eq!(races.write(0, 4, 0), None);
        meet(&mut races, &[0, 1]);
        assert_eq!(races.read(0, 4, 1), None);
        assert_eq!(races.read(0, 4, 2), Some(Conflict::WrittenBy(0)));
        // What warp 1 has seen it passes on.
        meet(&mut races, &[1, 2]);
        assert_eq!(races.read(0, 4, 2), None);
    }

    #[test]
    fn an_arrival_without_waiting_releases_but_does_not_acquire() {
        let mut races = Races::new(64, 2);
        races.write(0, 4, 0);
        races.write(4, 4, 1);
        let mut joined = [0; WARPS];
        races.arrive(0, &mut joined);
        races.arrive(1, &mut joined);
        races.resume(1, &joined);
        assert_eq!(races.read(0, 4, 1), None);
        assert_eq!(races.read(4, 4, 0), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn readers_at_different_clocks_are_all_remembered() {
        let mut races = Races::new(64, 3);
        assert_eq!(races.read(0, 4, 0), None);
        // Warps 1 and 2 advance together; warp 0's read stays unordered with them.
        meet(&mut races, &[1, 2]);
        assert_eq!(races.read(0, 4, 1), None);
        meet(&mut races, &[1, 2]);
        assert_eq!(races.write(0, 4, 2), Some(Conflict::ReadBy(0)));
    }

    #[test]
    fn warps_may_write_neighbouring_bytes_of_one_word() {
        let mut races = Races::new(64, 2);
        assert_eq!(races.write(0, 2, 0), None);
        assert_eq!(races.write(2, 2, 1), None);
        assert_eq!(races.read(0, 2, 0), None);
        assert_eq!(races.write(3, 1, 0), Some(Conflict::WrittenBy(1)));
    }

    #[test]
    fn what_an_exited_warp_did_is_seen_after_the_next_barrier() {
        let mut races = Races::new(64, 3);
        races.write(0, 4, 2);
        races.exit(2);
        assert_eq!(races.read(0, 4, 0), Some(Conflict::WrittenBy(2)));
        meet(&mut races, &[0, 1]);
        assert_eq!(races.read(0, 4, 0), None);
    }

    #[test]
    fn pending_copies_conflict_with_every_access_until_they_are_complete() {
        let mut races = Races::new(64, 2);
        assert_eq!(races.issue(16, 16, 0), None);
        assert_eq!(races.read(20, 4, 0), Some(Conflict::Pending(0)));
        meet(&mut races, &[0, 1]);
        assert_eq!(races.write(16, 4, 1), Some(Conflict::Pending(0)));
        let mut races = Races::new(64, 2);
        races.issue(16, 16, 0);
        races.complete(16, 16, 0);
        assert_eq!(races.read(20, 4, 0), None);
        assert_eq!(races.read(20, 4, 1), Some(Conflict::WrittenBy(0)));
    }
}
