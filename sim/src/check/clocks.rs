//! Vector clocks of a cluster: what each warp knows of the progress of everybody else.
//!
//! Agents are numbered over the whole cluster: first the warps, block after block, then the
//! asynchronous agents, one per mbarrier. The clock of an asynchronous agent counts the phases of
//! its mbarrier: whoever waits for a phase has seen what landed in it, and nothing later.

use super::lane_acquires::LaneAcquires;
use super::lane_releases::{LaneRelease, LaneReleases, SeenIntervals};

/// Write clock of words with a pending asynchronous copy: later than every real clock.
pub(crate) const PENDING: u32 = u32::MAX;

/// Latest moment known of every agent; agents past the end are known up to 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VectorClock(Vec<u32>);

impl VectorClock {
    /// Latest known moment of an agent.
    #[inline]
    pub(crate) fn get(&self, agent: u32) -> u32 {
        self.0.get(agent as usize).copied().unwrap_or(0)
    }

    /// Learns of a moment of an agent.
    pub(crate) fn raise(&mut self, agent: u32, clock: u32) {
        let agent = agent as usize;
        if agent >= self.0.len() {
            self.0.resize(agent + 1, 0);
        }
        self.0[agent] = self.0[agent].max(clock);
    }

    /// Learns everything that `other` knows.
    pub(crate) fn join(&mut self, other: &VectorClock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = (*a).max(*b);
        }
    }

    /// Known agents with their moments.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..).zip(self.0.iter().copied())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The part of a warp's knowledge that every access looks at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// The warp's own clock.
    pub own: u32,
    /// Least moment the warp knows of any other agent: what is not later is seen by it, whoever
    /// did it.
    pub floor: u32,
}

/// Clocks of all warps of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    warps: Vec<VectorClock>,
    now: Vec<Now>,
    warps_per_block: u32,
    asynchronous: u32,
    /// By block: joined clocks of its warps that exited, which every later barrier sees.
    exited: Vec<VectorClock>,
    /// By warp: its `fence.proxy.async`, in order.
    fences: Vec<Vec<ProxyFence>>,
    /// By warp: its own clock at its last `fence.mbarrier_init`.
    init_fences: Vec<u32>,
    /// Those of them before the last barrier of the cluster, which everybody knows even where the
    /// arrivals were relaxed.
    published: VectorClock,
    lane_releases: LaneReleases,
    lane_acquires: LaneAcquires,
    /// By warp: it knows another one by a release of some lanes only.
    hears_lanes: Vec<bool>,
    /// By warp: that, or some of its lanes know less than others.
    asks_lanes: Vec<bool>,
}

/// A `fence.proxy.async`.
#[derive(Debug, Clone)]
struct ProxyFence {
    /// Own clock of the warp that executed it.
    at: u32,
    /// What that warp knew then.
    covered: VectorClock,
}

impl Clocks {
    /// Clocks for `blocks` thread blocks of equally many warps.
    pub(crate) fn new(blocks: u32, warps_per_block: u32) -> Clocks {
        let warps = (blocks * warps_per_block) as usize;
        let mut clocks = Clocks {
            warps: vec![VectorClock::default(); warps],
            now: vec![Now::default(); warps],
            warps_per_block,
            asynchronous: 0,
            exited: vec![VectorClock::default(); blocks as usize],
            fences: vec![Vec::new(); warps],
            init_fences: vec![0; warps],
            published: VectorClock::default(),
            lane_releases: LaneReleases::new(warps),
            lane_acquires: LaneAcquires::new(warps),
            hears_lanes: vec![false; warps],
            asks_lanes: vec![false; warps],
        };
        clocks.reset();
        clocks
    }

    /// Forgets everything, for the next cluster.
    pub(crate) fn reset(&mut self) {
        self.asynchronous = 0;
        self.exited.iter_mut().for_each(VectorClock::clear);
        self.fences.iter_mut().for_each(Vec::clear);
        self.init_fences.fill(0);
        self.published.clear();
        self.lane_releases.reset();
        self.lane_acquires.reset();
        self.hears_lanes.fill(false);
        self.asks_lanes.fill(false);
        for (warp, clock) in self.warps.iter_mut().enumerate() {
            clock.clear();
            clock.raise(warp as u32, 1);
            self.now[warp].own = 1;
        }
        (0..self.warps.len()).for_each(|warp| self.update_floor(warp));
    }

    /// Own clock and floor of a warp.
    #[inline(always)]
    pub(crate) fn now(&self, warp: u32) -> Now {
        self.now[warp as usize]
    }

    /// Everything a warp knows.
    #[inline]
    pub(crate) fn of(&self, warp: u32) -> &VectorClock {
        &self.warps[warp as usize]
    }

    /// Number of warps of the cluster; agents from here on are asynchronous.
    pub(crate) fn warp_count(&self) -> u32 {
        self.warps.len() as u32
    }

    /// Warps of one block.
    pub(crate) fn warps_per_block(&self) -> u32 {
        self.warps_per_block
    }

    /// A new asynchronous agent, of whom nobody knows anything.
    pub(crate) fn add_agent(&mut self) -> u32 {
        let agent = self.warp_count() + self.asynchronous;
        self.asynchronous += 1;
        self.now.iter_mut().for_each(|now| now.floor = 0);
        agent
    }

    /// What a warp did so far becomes visible through `into`.
    pub(crate) fn release(&mut self, warp: u32, into: &mut VectorClock) {
        into.join(&self.warps[warp as usize]);
        self.lane_releases.whole(warp, self.now(warp).own);
        self.advance(warp);
    }

    /// What the lanes of `mask` did so far becomes visible through `into`, and what they have seen
    /// of the other lanes of their warp.
    pub(crate) fn release_lanes(
        &mut self,
        warp: u32,
        mask: u32,
        seen: SeenIntervals,
        into: &mut VectorClock,
    ) {
        into.join(&self.warps[warp as usize]);
        self.lane_releases.part(warp, self.now(warp).own, mask, seen);
        self.advance(warp);
    }

    /// The lanes of `to`, out of `live` ones, learned what those of `from` did and know.
    pub(crate) fn lanes_met(&mut self, warp: u32, (from, to): (u32, u32), live: u32) {
        if live & !(from & to) == 0 {
            self.lane_releases.synchronised(warp);
        }
        if self.lane_acquires.any(warp) {
            self.lane_acquires.pass_on(warp, (from, to), live);
            self.update_asking(warp);
        }
    }

    /// Lanes of a warp that do not know of a moment of another agent which the warp knows: they
    /// have not waited for the lanes that do.
    pub(crate) fn unaware_lanes(&self, warp: u32, agent: u32, clock: u32) -> u32 {
        match self.of(warp).get(agent) >= clock {
            true => self.lane_acquires.unaware(warp, agent, clock),
            false => 0,
        }
    }

    /// Lanes of a warp whose release, since they last waited for each other, came back to it with
    /// what others released.
    pub(crate) fn lanes_heard(&self, warp: u32, released: &VectorClock) -> u32 {
        self.lane_releases.known_by(warp, released.get(warp))
    }

    /// Whether what `warp` knows of others may stop at some of their lanes, or at its own.
    #[inline(always)]
    pub(crate) fn asks_lanes(&self, warp: u32) -> bool {
        self.asks_lanes[warp as usize]
    }

    /// Whether some lanes of `warp` know more of others than its other lanes.
    #[inline(always)]
    pub(crate) fn lanes_differ(&self, warp: u32) -> bool {
        self.lane_acquires.any(warp)
    }

    /// The release of some lanes of `other` by which `warp` knows it, if it was one.
    pub(crate) fn lane_release(&self, warp: u32, other: u32) -> Option<&LaneRelease> {
        self.lane_releases.at(other, self.of(warp).get(other))
    }

    /// Own clock of a warp; what it does afterwards is later.
    pub(crate) fn tick(&mut self, warp: u32) -> u32 {
        let now = self.now(warp).own;
        self.lane_releases.whole(warp, now);
        self.advance(warp);
        now
    }

    fn advance(&mut self, warp: u32) {
        let now = &mut self.now[warp as usize];
        now.own += 1;
        self.warps[warp as usize].raise(warp, now.own);
    }

    /// A warp learns what was released.
    pub(crate) fn acquire(&mut self, warp: u32, released: &VectorClock) {
        self.lane_acquires.whole(warp, released);
        self.learn(warp, released);
    }

    /// The lanes of `mask`, out of `live` ones, learn what was released.
    pub(crate) fn acquire_lanes(
        &mut self,
        warp: u32,
        (mask, live): (u32, u32),
        released: &VectorClock,
    ) {
        if live & !mask == 0 {
            return self.acquire(warp, released);
        }
        let known = &self.warps[warp as usize];
        self.lane_acquires.part(warp, (mask, live), known, released);
        self.learn(warp, released);
    }

    fn learn(&mut self, warp: u32, released: &VectorClock) {
        self.warps[warp as usize].join(released);
        self.update_floor(warp as usize);
        self.hears_lanes[warp as usize] = (0..self.warp_count()).any(|other| {
            other != warp
                && self.lane_releases.any(other)
                && self.lane_release(warp, other).is_some()
        });
        self.update_asking(warp);
    }

    fn update_asking(&mut self, warp: u32) {
        let ahead = self.lane_acquires.any(warp);
        self.asks_lanes[warp as usize] = ahead || self.hears_lanes[warp as usize];
    }

    /// A warp goes on after a barrier of its block, which also counts the warps that exited.
    pub(crate) fn resume(&mut self, warp: u32, released: &VectorClock) {
        let block = (warp / self.warps_per_block) as usize;
        self.warps[warp as usize].join(&self.exited[block]);
        self.acquire(warp, released);
    }

    /// A warp exits: every later barrier counts it as arrived.
    pub(crate) fn exit(&mut self, warp: u32) {
        let block = (warp / self.warps_per_block) as usize;
        self.exited[block].join(&self.warps[warp as usize]);
        self.lane_releases.whole(warp, self.now(warp).own);
        self.advance(warp);
    }

    /// What the exited warps of a block knew.
    pub(crate) fn exited(&self, block: u32) -> &VectorClock {
        &self.exited[block as usize]
    }

    /// `fence.proxy.async`: ordinary writes of the warp, and those of others that it has seen, may
    /// be read by asynchronous operations of whoever learns of this moment.
    pub(crate) fn proxy_fence(&mut self, warp: u32) {
        let (at, covered) = (self.now[warp as usize].own, self.of(warp).clone());
        self.fences[warp as usize].push(ProxyFence { at, covered });
        self.advance(warp);
    }

    /// `fence.mbarrier_init`: the warp's initialisations so far become visible through the barrier
    /// of the cluster, even by a relaxed arrival.
    pub(crate) fn init_fence(&mut self, warp: u32) {
        self.init_fences[warp as usize] = self.now[warp as usize].own;
        self.advance(warp);
    }

    /// The barrier of the cluster completes.
    pub(crate) fn publish_inits(&mut self) {
        for (warp, &clock) in (0..).zip(&self.init_fences) {
            self.published.raise(warp, clock);
        }
    }

    /// Whether `warp` knows what `writer` initialised at its clock `at`.
    pub(crate) fn knows_init(&self, warp: u32, writer: u32, at: u32) -> bool {
        warp == writer || self.of(warp).get(writer) >= at || self.published.get(writer) >= at
    }

    /// Whether a proxy fence lies on the way from a write, by `writer` at its clock `at`, to
    /// `warp`: executed by the writer, by the warp itself, or by somebody between them (PTX ISA
    /// 8.9.3, proxy-preserved base causality order).
    pub(crate) fn knows_fence(&self, warp: u32, writer: u32, at: u32) -> bool {
        let known = self.of(warp);
        let fenced = |fencer: u32| {
            let fences = &self.fences[fencer as usize];
            let seen = fences.partition_point(|fence| fence.at <= known.get(fencer));
            // Later fences cover more, so the last one that is known decides.
            seen > 0 && fences[seen - 1].covered.get(writer) >= at
        };
        let warps = self.warp_count();
        writer >= warps || fenced(writer) || fenced(warp) || (0..warps).any(fenced)
    }

    fn update_floor(&mut self, warp: usize) {
        let known = &self.warps[warp].0;
        let agents = self.warps.len() + self.asynchronous as usize;
        let others = known.iter().enumerate().filter(|(other, _)| *other != warp);
        self.now[warp].floor = if agents == 1 {
            // A lone warp has nobody to race with but its own copies.
            PENDING - 1
        } else if known.len() < agents {
            0
        } else {
            others.map(|(_, &clock)| clock).min().unwrap_or(0)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_known_only_to_those_who_synchronised_after_it() {
        let mut clocks = Clocks::new(1, 3);
        let written = clocks.now(0).own;
        let mut early = VectorClock::default();
        clocks.release(0, &mut early);
        clocks.proxy_fence(0);
        let mut late = VectorClock::default();
        clocks.release(0, &mut late);
        clocks.acquire(1, &early);
        clocks.acquire(2, &late);
        assert!(!clocks.knows_fence(1, 0, written));
        assert!(clocks.knows_fence(2, 0, written));
        // A write after the fence needs another one.
        assert!(!clocks.knows_fence(2, 0, clocks.now(0).own));
    }

    #[test]
    fn a_fence_may_be_executed_anywhere_between_the_writer_and_the_reader() {
        let mut clocks = Clocks::new(1, 3);
        let written = clocks.now(0).own;
        // A fence before the warp has heard of the write covers nothing.
        clocks.proxy_fence(1);
        let mut released = VectorClock::default();
        clocks.release(0, &mut released);
        clocks.acquire(1, &released);
        assert!(!clocks.knows_fence(1, 0, written));
        clocks.proxy_fence(1);
        assert!(clocks.knows_fence(1, 0, written));
        clocks.acquire(2, &released);
        assert!(!clocks.knows_fence(2, 0, written));
        let mut passed_on = VectorClock::default();
        clocks.release(1, &mut passed_on);
        clocks.acquire(2, &passed_on);
        assert!(clocks.knows_fence(2, 0, written));
    }

    #[test]
    fn the_floor_is_the_least_known_clock_and_falls_with_a_new_agent() {
        let mut clocks = Clocks::new(2, 1);
        assert_eq!(clocks.now(0).floor, 0);
        let mut released = VectorClock::default();
        clocks.release(1, &mut released);
        clocks.acquire(0, &released);
        assert_eq!(clocks.now(0).floor, 1);
        let agent = clocks.add_agent();
        assert_eq!((agent, clocks.now(0).floor), (2, 0));
        released.raise(agent, 5);
        clocks.acquire(0, &released);
        assert_eq!((clocks.now(0).floor, clocks.of(0).get(agent)), (1, 5));
        let lone = Clocks::new(1, 1);
        assert_eq!(lone.now(0).floor, PENDING - 1);
    }
}
