//! The mbarrier objects of a thread block's shared memory (PTX ISA 9.7.13.15).
//!
//! An object counts arrivals and, beside them, bytes of bulk copies. Its phase is complete when
//! neither arrivals nor bytes are pending. The 64-bit value in memory is opaque; here the state
//! lives beside the memory, by address.

use std::collections::BTreeMap;

use crate::check::VectorClock;

/// Most arrivals that an object can expect, and most bytes that can be pending (PTX ISA
/// 9.7.13.15.2).
pub(crate) const MOST: i64 = (1 << 20) - 1;

/// One object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mbarrier {
    /// Between `mbarrier.init` and `mbarrier.inval`.
    pub live: bool,
    /// Completed phases since the initialisation.
    pub phase: u32,
    /// Arrivals that make up a phase.
    expected: i64,
    /// Arrivals missing in this phase.
    pub pending: i64,
    /// Bytes that copies still have to bring in this phase; negative while more came than were
    /// announced.
    pub pending_bytes: i64,
    /// Asynchronous agent of the copies that complete here.
    pub agent: u32,
    /// That agent's clock at the end of this phase.
    pub clock: u32,
    /// Warp that initialised it, and its clock then.
    pub initialised: (u32, u32),
    /// Lane that did so, and its warp's interval between synchronisations of the lanes.
    pub by_lane: (usize, u32),
    /// What those who arrived in this phase did before.
    pub joined: VectorClock,
    /// The same of all complete phases.
    pub released: VectorClock,
}

/// Why a change of an object is undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// More arrivals than the phase has left.
    TooManyArrivals,
    /// More bytes, or fewer, than the object can count.
    TooManyBytes,
}

impl Misuse {
    /// What happened, in words.
    pub(crate) fn describe(self, barrier: &Mbarrier) -> String {
        match self {
            Misuse::TooManyArrivals => format!(
                "more arrivals than the {} that phase {} expects",
                barrier.expected, barrier.phase
            ),
            Misuse::TooManyBytes => {
                format!("a transaction count of {} bytes", barrier.pending_bytes)
            }
        }
    }
}

impl Mbarrier {
    /// `mbarrier.init`: `agent` is the asynchronous agent, the same for every object at this
    /// address. `by` is the warp with its clock, `by_lane` the lane with the warp's interval.
    pub(crate) fn initialise(
        &mut self,
        count: i64,
        agent: u32,
        by: (u32, u32),
        by_lane: (usize, u32),
    ) {
        *self = Mbarrier {
            live: true,
            expected: count,
            pending: count,
            agent,
            clock: self.clock + 1,
            initialised: by,
            by_lane,
            ..Mbarrier::default()
        };
    }

    /// Counts down arrivals; `drop` also takes them out of the phases to come.
    pub(crate) fn arrive(&mut self, count: i64, drop: bool) -> Result<(), Misuse> {
        let fits = count <= self.pending;
        self.pending = (self.pending - count).max(0);
        if drop {
            self.expected = (self.expected - count).max(0);
        }
        self.settle();
        fits.then_some(()).ok_or(Misuse::TooManyArrivals)
    }

    /// Raises the arrivals that this phase waits for, as `cp.async.mbarrier.arrive` does.
    pub(crate) fn expect_arrival(&mut self) -> Result<(), Misuse> {
        self.pending += 1;
        (self.pending <= MOST).then_some(()).ok_or(Misuse::TooManyArrivals)
    }

    /// Announces bytes, or with a negative number counts arrived ones.
    pub(crate) fn add_bytes(&mut self, bytes: i64) -> Result<(), Misuse> {
        let sum = self.pending_bytes + bytes;
        self.pending_bytes = sum.clamp(-MOST, MOST);
        if self.pending_bytes != sum {
            return Err(Misuse::TooManyBytes);
        }
        self.settle();
        Ok(())
    }

    /// Completes the phase when nothing is pending.
    fn settle(&mut self) {
        if self.pending != 0 || self.pending_bytes != 0 {
            return;
        }
        self.joined.raise(self.agent, self.clock);
        self.released.join(&self.joined);
        self.joined = VectorClock::default();
        self.phase += 1;
        self.clock += 1;
        self.pending = self.expected;
    }

    /// State in words, for messages.
    pub(crate) fn describe(&self) -> String {
        format!(
            "phase {}, {} of {} arrivals and {} bytes pending",
            self.phase, self.pending, self.expected, self.pending_bytes
        )
    }
}

/// The objects of one block by address, those that were invalidated included.
#[derive(Debug, Default)]
pub(crate) struct Mbarriers(BTreeMap<u32, Mbarrier>);

impl Mbarriers {
    /// The object whose first byte is at `at`, if it is live.
    pub(crate) fn live(&mut self, at: u32) -> Option<&mut Mbarrier> {
        self.0.get_mut(&at).filter(|barrier| barrier.live)
    }

    /// The object at an address, live or not.
    pub(crate) fn get(&self, at: u32) -> Option<&Mbarrier> {
        self.0.get(&at)
    }

    /// The object at an address, a dead one where there was none.
    pub(crate) fn entry(&mut self, at: u32) -> &mut Mbarrier {
        self.0.entry(at).or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(count: i64) -> Mbarrier {
        let mut barrier = Mbarrier::default();
        barrier.initialise(count, 7, (0, 1), (0, 1));
        barrier
    }

    #[test]
    fn a_phase_needs_all_arrivals_and_all_bytes() {
        let mut b = barrier(2);
        b.add_bytes(64).unwrap();
        b.arrive(2, false).unwrap();
        assert_eq!((b.phase, b.pending, b.pending_bytes), (0, 0, 64));
        b.add_bytes(-64).unwrap();
        assert_eq!((b.phase, b.pending, b.released.get(7)), (1, 2, 1));
    }

    #[test]
    fn bytes_may_come_before_they_are_announced() {
        let mut b = barrier(1);
        b.add_bytes(-32).unwrap();
        b.add_bytes(32).unwrap();
        assert_eq!(b.phase, 0);
        b.arrive(1, false).unwrap();
        assert_eq!(b.phase, 1);
    }

    #[test]
    fn dropped_arrivals_are_missing_from_the_next_phase() {
        let mut b = barrier(3);
        b.arrive(1, true).unwrap();
        b.arrive(2, false).unwrap();
        assert_eq!((b.phase, b.pending), (1, 2));
    }

    #[test]
    fn counts_out_of_range_are_misuse() {
        let mut b = barrier(2);
        assert_eq!(b.arrive(3, false), Err(Misuse::TooManyArrivals));
        assert_eq!(barrier(2).add_bytes(MOST + 1), Err(Misuse::TooManyBytes));
        assert_eq!(barrier(2).add_bytes(-MOST - 1), Err(Misuse::TooManyBytes));
    }

    #[test]
    fn a_new_object_at_an_address_goes_on_counting_the_clock_of_its_agent() {
        let mut b = barrier(1);
        b.arrive(1, false).unwrap();
        let seen = b.released.get(7);
        b.initialise(1, 7, (0, 5), (0, 1));
        assert!(b.clock > seen && b.phase == 0);
    }
}
