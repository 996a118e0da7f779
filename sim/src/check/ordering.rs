//! Order between warps through global memory: releases, acquires and fences (PTX ISA 8.8, 8.9).
//!
//! A release publishes at its location everything its warp has seen; an acquire that reads the
//! location afterwards learns it. A fence before a strong write makes that write a release, a fence
//! after a strong read makes that read an acquire. Inside a cluster, what one warp learned reaches
//! the others through the barriers they share: an acquisition is noted with the clock of its warp,
//! and whoever has seen that clock knows what was acquired.
//!
//! In three points this is more lenient than the memory model, the first two as hardware and much
//! code that relies on it are: a fence also counts for the strong accesses of other warps, when a
//! barrier lies between the two; a location never forgets an earlier release; and the strong writes
//! behind a fence are seen by all who know of the fence, not only through those very writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clocks::{Clocks, VectorClock};
use super::global::GlobalAccess;
use crate::program::Scope;
use crate::state::FULL;

/// Fences of one warp that are remembered: the latest may not be known yet to those who rely on an
/// earlier one.
const FENCES_PER_WARP: usize = 4;
const SHARDS: usize = 16;

/// Latest known moments of warps of any cluster, by number of the cluster and within it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GridClock(BTreeMap<(u32, u16), u32>);

impl GridClock {
    fn new(cluster: u32, clock: &VectorClock) -> GridClock {
        let known = clock.iter().filter(|&(_, moment)| moment != 0);
        GridClock(known.map(|(agent, moment)| ((cluster, agent as u16), moment)).collect())
    }

    fn includes(&self, access: &GlobalAccess) -> bool {
        let known = self.0.get(&(access.cluster, access.agent));
        known.is_some_and(|&moment| moment >= access.clock)
    }

    /// The part about one cluster.
    fn within(&self, cluster: u32) -> GridClock {
        let part = self.0.range((cluster, 0)..=(cluster, u16::MAX));
        GridClock(part.map(|(&warp, &moment)| (warp, moment)).collect())
    }

    fn join(&mut self, other: &GridClock) {
        for (&warp, &moment) in &other.0 {
            let known = self.0.entry(warp).or_default();
            *known = moment.max(*known);
        }
    }
}

/// What was released at each location, for all clusters of a run.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    shards: [Mutex<HashMap<Location, Arc<GridClock>>>; SHARDS],
    used: AtomicBool,
}

/// An address, and the only cluster that a release of narrow scope reaches.
type Location = (u64, Option<u32>);

impl Locations {
    fn shard(&self, address: u64) -> MutexGuard<'_, HashMap<Location, Arc<GridClock>>> {
        // Flags are usually words side by side.
        let shard = &self.shards[(address >> 2) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what is released at an address.
    pub(crate) fn publish(&self, address: u64, cluster: u32, scope: Scope, clock: &Arc<GridClock>) {
        self.used.store(true, Ordering::Relaxed);
        let within = (scope != Scope::Device).then_some(cluster);
        let mut shard = self.shard(address);
        let released = shard.entry((address, within)).or_insert_with(|| clock.clone());
        if !Arc::ptr_eq(released, clock) {
            Arc::make_mut(released).join(clock);
        }
    }

    /// What an acquire at an address by a warp of the cluster learns.
    pub(crate) fn released(
        &self,
        address: u64,
        cluster: u32,
        scope: Scope,
    ) -> Option<Arc<GridClock>> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let shard = self.shard(address);
        let wide = if scope == Scope::Device { shard.get(&(address, None)) } else { None };
        match (wide, shard.get(&(address, Some(cluster)))) {
            (Some(wide), Some(narrow)) => {
                let mut both = (**wide).clone();
                both.join(narrow);
                Some(Arc::new(both))
            }
            (one, other) => one.or(other).cloned(),
        }
    }
}

/// Something learned or fenced by a warp at a moment of its clock.
#[derive(Debug)]
struct Note {
    agent: u32,
    moment: u32,
    /// Lanes of the warp that know of it without having met the others since; all lanes are
    /// [`FULL`], even of a warp that has fewer.
    lanes: u32,
    what: Arc<GridClock>,
}

impl Note {
    /// Whether a warp of the cluster knows of it.
    fn known(&self, clocks: &Clocks, agent: u32) -> bool {
        self.agent == agent || clocks.of(agent).get(self.agent) >= self.moment
    }

    /// Lanes of a warp that do not know of it, although the warp does.
    fn unaware(&self, clocks: &Clocks, agent: u32) -> u32 {
        match self.agent == agent {
            true => !self.lanes,
            false => clocks.unaware_lanes(agent, self.agent, self.moment),
        }
    }
}

/// What a warp saw released with a strong read that is no acquire.
#[derive(Debug)]
struct Seen {
    address: u64,
    note: Note,
}

/// What the warps of one cluster know of the rest of the grid.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// Number of the cluster.
    cluster: u32,
    acquired: Vec<Note>,
    /// Fences of block or cluster scope, and of device scope.
    fences: [Vec<Note>; 2],
    seen: Vec<Seen>,
    /// Some of these are known to a part of a warp only.
    partial: bool,
}

impl Knowledge {
    /// Forgets everything, for another cluster.
    pub(crate) fn reset(&mut self, cluster: u32) {
        *self = Knowledge { cluster, ..Knowledge::default() };
    }

    /// Number of the cluster in the grid.
    pub(crate) fn cluster(&self) -> u32 {
        self.cluster
    }

    /// Whether the access happened before what the warp does next.
    pub(crate) fn includes(&self, clocks: &Clocks, agent: u32, access: &GlobalAccess) -> bool {
        let here = self.cluster == access.cluster
            && clocks.of(agent).get(u32::from(access.agent)) >= access.clock;
        here || self.acquired.iter().any(|n| n.what.includes(access) && n.known(clocks, agent))
    }

    /// Whether the lanes of a warp may know different things.
    #[inline(always)]
    pub(crate) fn asks_lanes(&self, clocks: &Clocks, agent: u32) -> bool {
        self.partial || clocks.lanes_differ(agent)
    }

    /// Lanes out of `mask` for which the access, which their warp knows of, did not happen before
    /// what they do next: they have not waited for the lanes that learned of it.
    pub(crate) fn unaware_lanes(
        &self,
        clocks: &Clocks,
        (agent, mask): (u32, u32),
        access: &GlobalAccess,
    ) -> u32 {
        let writer = u32::from(access.agent);
        let here = self.cluster == access.cluster && clocks.of(agent).get(writer) >= access.clock;
        let direct = if here { clocks.unaware_lanes(agent, writer, access.clock) } else { FULL };
        let notes = self.acquired.iter().filter(|n| n.what.includes(access));
        let notes = notes.filter(|n| n.known(clocks, agent));
        notes.fold(mask & direct, |unaware, note| unaware & note.unaware(clocks, agent))
    }

    /// The lanes of `to`, out of `live` ones of a warp, learned what those of `from` know.
    #[inline]
    pub(crate) fn lanes_met(&mut self, agent: u32, (from, to): (u32, u32), live: u32) {
        if !self.partial {
            return;
        }
        self.partial = false;
        for note in self.acquired.iter_mut().chain(self.seen.iter_mut().map(|seen| &mut seen.note))
        {
            if note.agent == agent && note.lanes & from != 0 {
                note.lanes |= to;
                if live & !note.lanes == 0 {
                    note.lanes = FULL;
                }
            }
            self.partial |= note.lanes != FULL;
        }
    }

    /// Everything the warp knows now; what it does from here on is not part of it.
    pub(crate) fn release(&self, clocks: &mut Clocks, agent: u32) -> Arc<GridClock> {
        let mut own = VectorClock::default();
        clocks.release(agent, &mut own);
        let mut all = GridClock::new(self.cluster, &own);
        for note in self.acquired.iter().filter(|note| note.known(clocks, agent)) {
            all.join(&note.what);
        }
        Arc::new(all)
    }

    /// What a strong write of the warp publishes because of earlier fences of device scope, or of
    /// narrower ones.
    pub(crate) fn fenced(
        &self,
        clocks: &Clocks,
        agent: u32,
        device: bool,
    ) -> Option<Arc<GridClock>> {
        let mut known =
            self.fences[usize::from(device)].iter().filter(|note| note.known(clocks, agent));
        let first = &known.next()?.what;
        let rest: Vec<&Note> = known.collect();
        if rest.is_empty() {
            return Some(first.clone());
        }
        let mut all = (**first).clone();
        rest.iter().for_each(|note| all.join(&note.what));
        Some(Arc::new(all))
    }

    /// A fence of some lanes of a warp: what the warp read with strong reads is acquired, and what
    /// it did is released by its strong writes from now on.
    pub(crate) fn fence(&mut self, clocks: &mut Clocks, (agent, lanes): (u32, u32), scope: Scope) {
        let seen: Vec<(u32, Arc<GridClock>)> = self
            .seen
            .iter()
            .filter(|seen| seen.note.known(clocks, agent))
            .map(|seen| {
                let what = match scope {
                    Scope::Device => seen.note.what.clone(),
                    // A narrow fence orders only what the cluster itself did.
                    _ => Arc::new(seen.note.what.within(self.cluster)),
                };
                // Where none of the lanes that read executes the fence, it is taken as theirs.
                let reads = if seen.note.agent == agent { seen.note.lanes & lanes } else { 0 };
                (if reads == 0 { lanes } else { reads }, what)
            })
            .collect();
        seen.into_iter().for_each(|(lanes, what)| self.acquire(clocks, (agent, lanes), what));
        let moment = clocks.now(agent).own;
        let what = self.release(clocks, agent);
        let fences = &mut self.fences[usize::from(scope == Scope::Device)];
        if fences.iter().filter(|note| note.agent == agent).count() >= FENCES_PER_WARP {
            if let Some(oldest) = fences.iter().position(|note| note.agent == agent) {
                fences.remove(oldest);
            }
        }
        fences.push(Note { agent, moment, lanes: FULL, what });
    }

    /// The moment of the warp's latest fence. A strong write after it is the last part of a release
    /// pattern, so whoever learns of the fence through it has seen the write too (PTX ISA 8.8).
    pub(crate) fn latest_fence(&self, agent: u32) -> Option<u32> {
        let notes = self.fences.iter().flatten().filter(|note| note.agent == agent);
        notes.map(|note| note.moment).max()
    }

    /// A strong read of some lanes of a warp saw what was released at an address.
    pub(crate) fn observe(
        &mut self,
        clocks: &Clocks,
        (agent, lanes): (u32, u32),
        address: u64,
        what: Arc<GridClock>,
    ) {
        self.partial |= lanes != FULL;
        let mut note = Note { agent, moment: clocks.now(agent).own, lanes, what };
        // A location only ever gains, so the latest look at it holds the earlier ones.
        match self.seen.iter_mut().find(|s| s.note.agent == agent && s.address == address) {
            Some(seen) => {
                note.lanes |= seen.note.lanes;
                seen.note = note;
            }
            None => self.seen.push(Seen { address, note }),
        }
    }

    /// Some lanes of a warp acquire what was released.
    pub(crate) fn acquire(
        &mut self,
        clocks: &Clocks,
        (agent, lanes): (u32, u32),
        what: Arc<GridClock>,
    ) {
        let mut same = self.acquired.iter_mut().filter(|note| Arc::ptr_eq(&note.what, &what));
        let known = same.find(|note| {
            note.known(clocks, agent)
                && (note.agent == agent || note.unaware(clocks, agent) & lanes == 0)
        });
        match known {
            Some(note) if note.agent == agent => note.lanes |= lanes,
            Some(_) => {}
            None => {
                self.partial |= lanes != FULL;
                let moment = clocks.now(agent).own;
                self.acquired.push(Note { agent, moment, lanes, what });
            }
        }
    }
}
