//! `cp.async` and its groups (PTX ISA 9.7.9.25.3).
//!
//! The source is read when the copy is issued; the data lands in shared memory at issue under the
//! eager schedule and at the covering wait under the lazy one. Under both, the target words are
//! marked pending until the wait, so that a use before it is found either way.

use std::collections::VecDeque;
use std::rc::Rc;

use super::global_order;
use super::in_flight::{land_copies, Write};
use super::mbarrier::Location;
use super::memory::{
    addresses, check_defined, count_global, global_groups, sound_group, Direction, GlobalGroup,
};
use super::shared::{begin_request, check_writes, Writing};
use crate::block::{Block, Place};
use crate::check::{FindingKind, GlobalKind, LaneAccess};
use crate::program::CpAsync;
use crate::request::Request;
use crate::state::{lanes, lanes_where, Lanes64, Warp, LANES};

/// One `cp.async` of a warp that has not been waited for by all its lanes.
#[derive(Debug)]
struct Copy {
    /// Group number within each lane's sequence; the same in all lanes of one entry.
    group: u32,
    /// Lanes still pending.
    mask: u32,
    destinations: Request,
    data: Box<CopyData>,
}

/// Bytes of each lane's copy.
type CopyData = [[u8; 16]; LANES];

/// Pending copies of a warp. Groups are counted per thread, as PTX defines them.
#[derive(Debug, Default)]
pub(crate) struct AsyncCopies {
    pending: VecDeque<Copy>,
    /// Number of closed groups per lane; the open group has this number.
    closed: [u32; LANES],
    /// mbarriers that were told to wait for copies of this warp.
    arrivals: Vec<Location>,
    /// Data of copies that are over, kept for its allocation.
    #[allow(clippy::vec_box, reason = "copies take the boxes out and put them back")]
    spare: Vec<Box<CopyData>>,
}

impl AsyncCopies {
    pub(crate) fn reset(&mut self) {
        self.spare.extend(self.pending.drain(..).map(|copy| copy.data));
        self.closed = [0; LANES];
        self.arrivals.clear();
    }

    fn take_spare(&mut self) -> Box<CopyData> {
        self.spare.pop().unwrap_or_else(|| Box::new([[0; 16]; LANES]))
    }

    /// Takes the pending copies of one lane out, for an mbarrier: place and bytes of each.
    pub(crate) fn detach(&mut self, lane: usize, barrier: Location) -> Vec<Write> {
        self.arrivals.push(barrier);
        let ours = self.pending.iter_mut().filter(|copy| copy.mask >> lane & 1 == 1);
        let detached = ours.map(|copy| {
            copy.mask &= !(1 << lane);
            let bytes = Rc::from(&copy.data[lane][..copy.destinations.bytes()]);
            Write { at: copy.destinations.at(lane) as u32, bytes }
        });
        detached.collect()
    }

    /// Closes the open group of the lanes.
    pub(crate) fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.closed[lane] += 1);
    }
}

/// Bytes read per lane; the rest of the copy is zero.
fn source_sizes(block: &mut Block<'_>, w: &Warp, c: &CpAsync, mask: u32) -> [u32; LANES] {
    let mut sizes = [u32::from(c.bytes); LANES];
    if let Some(slot) = c.source_bytes {
        for lane in lanes(mask) {
            let asked = w.get32(slot)[lane];
            if asked > u32::from(c.bytes) {
                let message = format!("cp.async source size {asked} exceeds {}", c.bytes);
                block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
            }
            sizes[lane] = asked.min(u32::from(c.bytes));
        }
    }
    if let Some(ignore) = c.ignore_source {
        lanes(w.predicate(ignore)).for_each(|lane| sizes[lane] = 0);
    }
    sizes
}

#[inline(always)]
pub(crate) fn issue(block: &mut Block<'_>, w: &mut Warp, c: &CpAsync, mask: u32) {
    let partial = c.source_bytes.is_some() || c.ignore_source.is_some();
    let sizes = partial.then(|| source_sizes(block, w, c, mask));
    let destinations = addresses(w, c.destination);
    let size = u64::from(c.bytes);
    // The shared side costs what a store of the same width costs.
    let destinations = begin_request(block, &destinations, mask, size, Direction::Store);
    let good = destinations.mask();
    let mut data = w.copies.take_spare();
    let sources = addresses(w, c.source);
    read_sources(block, &sources, sizes.as_ref(), good, size, &mut data);
    if block.checks() {
        check_writes(block, Writing::Copy, &destinations, |_, _| false, |_, _| false);
    }
    if block.eager() {
        store_data(block, &destinations, &data);
    }
    enqueue(w, destinations, data);
}

/// Reads the source bytes of all lanes, those that read all `size` together so that they are counted
/// as one request.
#[inline(always)]
fn read_sources(
    block: &mut Block<'_>,
    sources: &Lanes64,
    sizes: Option<&[u32; LANES]>,
    mask: u32,
    size: u64,
    data: &mut [[u8; 16]; LANES],
) {
    let full = match sizes {
        Some(sizes) => lanes_where(mask, |lane| u64::from(sizes[lane]) == size),
        None => mask,
    };
    if full != 0 {
        match sound_group(block, sources, full, size, Direction::Load) {
            Some(group) => read_group(block, &group, size, data),
            None => global_groups(block, sources, full, size, Direction::Load, |block, group| {
                read_group(block, group, size, data);
            }),
        }
    }
    let Some(sizes) = sizes else { return };
    for lane in lanes(mask & !full) {
        data[lane] = [0; 16];
        if sizes[lane] > 0 {
            read_partial(block, sources, lane, sizes[lane], size, &mut data[lane]);
        }
    }
}

#[inline(always)]
fn read_group(block: &mut Block<'_>, group: &GlobalGroup, size: u64, data: &mut [[u8; 16]; LANES]) {
    count_global(block, group, size, Direction::Load);
    if block.checks() {
        check_defined(block, group, size as u32);
        global_order::check(block, group, size, GlobalKind::Read);
    }
    let Some((buffer, _)) = block.context.memory.get(group.buffer) else { return };
    for lane in lanes(group.mask) {
        let offset = group.offsets[lane] as usize;
        let low = match size {
            4 => buffer.load(offset, 4),
            _ => buffer.load(offset, 8),
        };
        data[lane][..8].copy_from_slice(&low.to_le_bytes());
        if size == 16 {
            data[lane][8..].copy_from_slice(&buffer.load(offset + 8, 8).to_le_bytes());
        }
    }
}

/// A copy that reads fewer bytes than it writes; alignment is still that of the whole copy.
fn read_partial(
    block: &mut Block<'_>,
    sources: &Lanes64,
    lane: usize,
    wanted: u32,
    size: u64,
    data: &mut [u8; 16],
) {
    if sources[lane] & (size - 1) != 0 {
        let message = format!("{size}-byte cp.async source");
        block.report(FindingKind::Misaligned, Place::at(lane, sources[lane]), message);
        return;
    }
    for byte in 0..wanted as usize {
        let mut one = [0; LANES];
        one[lane] = sources[lane] + byte as u64;
        global_groups(block, &one, 1 << lane, 1, Direction::Load, |block, group| {
            let context = block.context;
            let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
            if block.checks() {
                check_defined(block, group, 1);
                global_order::check(block, group, 1, GlobalKind::Read);
            }
            data[byte] = buffer.load(group.offsets[lane] as usize, 1) as u8;
            if byte == 0 {
                count_partial(block, group, wanted);
            }
        });
    }
}

/// A partial copy lies inside one sector because its start is aligned to the whole copy.
fn count_partial(block: &mut Block<'_>, group: &GlobalGroup, wanted: u32) {
    count_global(block, group, 1, Direction::Load);
    let more = u64::from(wanted) - 1;
    block.counters().global.bytes += more;
    block.tally.per_buffer[group.buffer].loads.bytes += more;
}

/// Queues the copy, once per group number among its lanes (normally one).
#[inline(always)]
fn enqueue(w: &mut Warp, destinations: Request, data: Box<CopyData>) {
    let first = w.copies.closed[0];
    let differing = w.copies.closed.iter().fold(0, |all, closed| all | closed ^ first);
    if differing == 0 && destinations.mask() != 0 {
        let mask = destinations.mask();
        w.copies.pending.push_back(Copy { group: first, mask, destinations, data });
    } else {
        enqueue_parts(w, &destinations, data);
    }
}

#[cold]
fn enqueue_parts(w: &mut Warp, destinations: &Request, data: Box<CopyData>) {
    let mut rest = destinations.mask();
    while rest != 0 {
        let group = w.copies.closed[rest.trailing_zeros() as usize];
        let mask = lanes_where(rest, |lane| w.copies.closed[lane] == group);
        rest &= !mask;
        let mut part = w.copies.take_spare();
        part.copy_from_slice(&data[..]);
        let destinations = destinations.part(mask);
        w.copies.pending.push_back(Copy { group, mask, destinations, data: part });
    }
    w.copies.spare.push(data);
}

/// `cp.async.wait_group newest`: all but the newest groups of the executing threads complete.
#[inline(always)]
pub(crate) fn wait_group(block: &mut Block<'_>, w: &mut Warp, newest: u32, mask: u32) {
    let limits = w.copies.closed.map(|closed| closed.saturating_sub(newest));
    complete(block, w, mask, &limits);
}

/// `cp.async.wait_all`: as if the open group were committed and waited for.
pub(crate) fn wait_all(block: &mut Block<'_>, w: &mut Warp, mask: u32) {
    let limits = w.copies.closed.map(|closed| closed + 1);
    complete(block, w, mask, &limits);
}

/// Puts the data of the lanes into shared memory.
#[inline(always)]
fn store_data(block: &mut Block<'_>, to: &Request, data: &CopyData) {
    if to.bytes() == 16 && to.is_ordered() {
        return block.shared.store_range(to.at(0), data.as_flattened());
    }
    for lane in lanes(to.mask()) {
        match to.bytes() {
            16 => block.shared.store_row(to.at(lane), &data[lane]),
            size => block.shared.store_bytes(to.at(lane), &data[lane][..size]),
        }
    }
}

/// Completes the copies of the lanes whose group number is below the lane's limit.
#[inline(always)]
fn complete(block: &mut Block<'_>, w: &mut Warp, mask: u32, limits: &[u32; LANES]) {
    if !w.copies.arrivals.is_empty() {
        land_copies(block, std::mem::take(&mut w.copies.arrivals));
    }
    let eager = block.eager();
    let least = limits.iter().fold(u32::MAX, |least, &limit| least.min(limit));
    let most = limits.iter().fold(0, |most, &limit| most.max(limit));
    for copy in &mut w.copies.pending {
        let done = match copy.group {
            group if group >= most => continue,
            group if group < least => copy.mask & mask,
            group => lanes_where(copy.mask & mask, |lane| group < limits[lane]),
        };
        let landed = copy.destinations.part(done);
        if !eager {
            store_data(block, &landed, &copy.data);
        }
        let clocks = &block.cluster.clocks;
        block.shared.races.complete(clocks, &landed, block.agent);
        // Until now nobody could use the data; from now on this lane can.
        let write = LaneAccess::Write;
        for lane in lanes(block.shared.lanes.access_lanes(&landed, block.warp, write)) {
            let (at, own) = (landed.at(lane), (block.warp, lane));
            block.shared.lanes.access(at, landed.bytes(), own, write);
        }
        copy.mask &= !done;
    }
    while w.copies.pending.front().is_some_and(|copy| copy.mask == 0) {
        let emptied = w.copies.pending.pop_front();
        w.copies.spare.extend(emptied.map(|copy| copy.data));
    }
}
