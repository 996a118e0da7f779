//! Which clusters run at the same time, and when none of them can go on any more.
//!
//! A device starts thread blocks in order, as many as fit, and the next one when one ends. Blocks
//! that wait for each other through global memory must therefore all be resident. The workers of a
//! run share one [`Residents`]: it hands out clusters up to the residency of the device and sees
//! when every worker has nothing but clusters that poll in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Remembered polls; more places at once only delay the discovery that nothing changes.
const PLACES: usize = 64;

/// Accesses with which the warps of a cluster may be waiting for others.
#[derive(Debug)]
pub(crate) struct Polls {
    /// Since the turn began.
    pub count: u64,
    /// Signs of progress since the turn began.
    pub changes: u64,
    /// What was read last, by warp and instruction.
    seen: [u64; PLACES],
}

impl Default for Polls {
    fn default() -> Polls {
        Polls { count: 0, changes: 0, seen: [0; PLACES] }
    }
}

impl Polls {
    /// Begins a turn of the cluster.
    pub(crate) fn begin_turn(&mut self) {
        (self.count, self.changes) = (0, 0);
    }

    /// Notes a strong read of a warp. Reading something else than the last time at this
    /// instruction is progress.
    pub(crate) fn note(&mut self, (agent, pc): (u32, usize), address: u64, value: u64) {
        self.count += 1;
        let place = (agent as usize).wrapping_mul(31).wrapping_add(pc);
        let read = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ value.wrapping_add(place as u64);
        let seen = &mut self.seen[place % PLACES];
        self.changes += u64::from(*seen != read);
        *seen = read;
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Running,
    /// All its clusters polled in vain since this count of changes.
    Stalled(u64),
    Left,
}

#[derive(Debug, Default)]
struct State {
    started: usize,
    resident: u32,
    workers: Vec<WorkerState>,
    deadlock: bool,
}

/// Why a worker gets no further cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub resident: u32,
    /// Most clusters that fit the device.
    pub most: u32,
    /// Clusters that have not started.
    pub waiting: usize,
}

/// The clusters of a run as its workers share them.
#[derive(Debug)]
pub(crate) struct Residents {
    /// Clusters to run.
    total: usize,
    most: u32,
    state: Mutex<State>,
    /// Changes of global memory and ends of clusters so far, as far as workers told.
    changes: AtomicU64,
}

impl Residents {
    /// `total` clusters, of which at most `most` run at a time.
    pub(crate) fn new(total: usize, most: u32) -> Residents {
        let state = Mutex::default();
        Residents { total, most: most.max(1), state, changes: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker begins; returns its number.
    pub(crate) fn join(&self) -> usize {
        let mut state = self.state();
        state.workers.push(WorkerState::Running);
        state.workers.len() - 1
    }

    /// A worker has no clusters left.
    pub(crate) fn leave(&self, worker: usize) {
        self.state().workers[worker] = WorkerState::Left;
    }

    /// Position of the next cluster in the order of the launch, if there is one and room for it.
    pub(crate) fn start(&self) -> Option<usize> {
        let mut state = self.state();
        if state.deadlock || state.started == self.total || state.resident == self.most {
            return None;
        }
        state.started += 1;
        state.resident += 1;
        self.changed();
        Some(state.started - 1)
    }

    /// A cluster ended.
    pub(crate) fn finish(&self) {
        self.state().resident -= 1;
        self.changed();
    }

    /// No further cluster starts, because the run ends with an error.
    pub(crate) fn stop(&self) {
        self.state().started = self.total;
    }

    /// Something happened that another cluster may be waiting for.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Number of changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// A worker saw all its clusters poll in vain since `changes`. Returns the state of the device
    /// once that holds for all workers and nothing changed since: a deadlock.
    pub(crate) fn stalled(&self, worker: usize, changes: u64) -> Option<Room> {
        let mut state = self.state();
        state.workers[worker] = WorkerState::Stalled(changes);
        let same = state
            .workers
            .iter()
            .all(|&worker| worker == WorkerState::Left || worker == WorkerState::Stalled(changes));
        state.deadlock |= same && self.changes() == changes;
        let waiting = self.total - state.started;
        let room = Room { resident: state.resident, most: self.most, waiting };
        state.deadlock.then_some(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_start_in_order_as_far_as_there_is_room() {
        let residents = Residents::new(3, 2);
        assert_eq!(
            [residents.start(), residents.start(), residents.start()],
            [Some(0), Some(1), None]
        );
        residents.finish();
        assert_eq!([residents.start(), residents.start()], [Some(2), None]);
    }

    #[test]
    fn a_deadlock_needs_all_workers_to_stall_at_the_same_moment() {
        let residents = Residents::new(4, 2);
        let (a, b) = (residents.join(), residents.join());
        assert_eq!([residents.start(), residents.start()], [Some(0), Some(1)]);
        let moment = residents.changes();
        assert_eq!(residents.stalled(a, moment), None);
        residents.changed();
        assert_eq!(residents.stalled(b, moment), None);
        let moment = residents.changes();
        assert_eq!(residents.stalled(b, moment), None);
        let room = Room { resident: 2, most: 2, waiting: 2 };
        assert_eq!(residents.stalled(a, moment), Some(room));
        assert_eq!(residents.start(), None);
    }

    #[test]
    fn reading_the_same_again_is_no_progress() {
        let mut polls = Polls::default();
        polls.note((0, 7), 64, 1);
        polls.begin_turn();
        polls.note((0, 7), 64, 1);
        assert_eq!((polls.count, polls.changes), (1, 0));
        polls.note((0, 7), 68, 1);
        polls.note((0, 7), 68, 2);
        assert_eq!((polls.count, polls.changes), (3, 2));
    }
}
