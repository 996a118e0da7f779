//! Loads and stores of the block's own shared memory, and the checks of every access to it.

use super::lane_order;
use super::memory::{clear_destination, read_element, total_bytes, write_element, Direction};
use crate::block::{Block, Place};
use crate::check::{Conflict, FindingKind, LaneAccess, LaneConflict};
use crate::program::Access;
use crate::request::Request;
use crate::shared::SharedMemory;
use crate::state::{each_lane, lanes, lanes_where, Lanes32, Lanes64, Warp, LANES};

/// Checks a shared request of `size` bytes per lane; returns the lanes that may proceed.
#[inline(always)]
pub(crate) fn check_shared(
    block: &mut Block<'_>,
    addresses: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
) -> u32 {
    let length = block.shared.len();
    let mut bad = 0;
    for lane in 0..LANES {
        let (end, overflow) = addresses[lane].overflowing_add(size);
        let fails = overflow || end > length || addresses[lane] & (size - 1) != 0;
        bad |= u32::from(fails) << lane;
    }
    bad &= mask;
    if bad != 0 {
        report_bad_lanes(block, addresses, bad, size, direction);
    }
    mask & !bad
}

/// Checks and counts a shared request of `size` bytes per lane; returns the part of it that may
/// proceed.
#[inline(always)]
pub(crate) fn begin_request(
    block: &mut Block<'_>,
    at: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
) -> Request {
    let length = block.shared.len();
    let known = block.shapes.find(block.pc, (at, mask, size as u32), length);
    let request = known.unwrap_or_else(|| new_request(block, at, mask, size, direction));
    block.counters().shared.add(request.traffic());
    request
}

/// A request of a shape that the instruction did not have lately, or with lanes that may not proceed.
#[inline(never)]
fn new_request(
    block: &mut Block<'_>,
    at: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
) -> Request {
    let good = check_shared(block, at, mask, size, direction);
    let request = Request::new(at, good, size as u32);
    if good == mask && mask != 0 {
        block.shapes.keep(block.pc, &request);
    }
    request
}

#[cold]
fn report_bad_lanes(
    block: &mut Block<'_>,
    addresses: &Lanes64,
    bad: u32,
    size: u64,
    direction: Direction,
) {
    let length = block.shared.len();
    for lane in lanes(bad) {
        let (at, name) = (addresses[lane], direction.name());
        if at & (size - 1) != 0 {
            let message = format!("{size}-byte shared {name} at {at}");
            block.report(FindingKind::Misaligned, Place::at(lane, at), message);
        } else {
            let message = format!("{size}-byte shared {name} at {at} of {length} bytes");
            block.report(FindingKind::OutOfBounds, Place::at(lane, at), message);
        }
    }
}

/// Kind and wording of a conflict of a shared access with an earlier one.
pub(crate) fn describe_conflict(
    block: &Block<'_>,
    action: &str,
    conflict: Conflict,
) -> (FindingKind, String) {
    match conflict {
        Conflict::WrittenBy(agent) if agent >= block.cluster.clocks.warp_count() => (
            FindingKind::AsyncNotAwaited,
            format!(
                "{action} of the target of a bulk copy whose mbarrier phase was not waited for"
            ),
        ),
        Conflict::WrittenBy(agent) => {
            let name = block.agent_name(agent);
            let message =
                format!("{action} of shared bytes that {name} wrote since the last barrier");
            (FindingKind::SharedRace, message)
        }
        Conflict::ReadBy(agent) => {
            let name = block.agent_name(agent);
            let message =
                format!("{action} of shared bytes that {name} read since the last barrier");
            (FindingKind::SharedRace, message)
        }
        Conflict::Pending(agent) => {
            let name = block.agent_name(agent);
            let message =
                format!("{action} of the target of a copy of {name} that was not waited for");
            (FindingKind::AsyncNotAwaited, message)
        }
        Conflict::BeingRead => (
            FindingKind::AsyncRead,
            format!("{action} of shared bytes that an asynchronous operation is still reading"),
        ),
        Conflict::Unfenced(agent) => {
            let name = block.agent_name(agent);
            let message =
                format!("{action} of shared bytes that {name} stored without fence.proxy.async");
            (FindingKind::ProxyFence, message)
        }
        Conflict::Mbarrier => {
            (FindingKind::MbarrierMisuse, format!("{action} of the bytes of an mbarrier"))
        }
    }
}

/// Reports a conflict of a shared access with an earlier one.
#[cold]
pub(crate) fn report_conflict(
    block: &mut Block<'_>,
    lane: usize,
    at: u64,
    action: &str,
    conflict: Conflict,
) {
    let (kind, message) = describe_conflict(block, action, conflict);
    block.report(kind, Place::at(lane, at), message);
}

/// Reports a conflict of a shared access with one of another lane of the warp.
#[cold]
pub(crate) fn report_lanes(
    block: &mut Block<'_>,
    lane: usize,
    at: usize,
    action: &str,
    conflict: LaneConflict,
) {
    let earlier = conflict.earlier.past();
    let message = format!(
        "{action} of shared bytes that lane {} {earlier} since the last bar.warp.sync",
        conflict.other
    );
    block.report(FindingKind::LaneRace, Place::at(lane, at as u64), message);
}

/// Checks that the shared bytes of every lane of a request are ordered and defined before it reads
/// them.
#[inline(always)]
pub(crate) fn check_reads(block: &mut Block<'_>, request: &Request) {
    if block.cluster.clocks.asks_lanes(block.agent) {
        lane_order::check(block, request, LaneAccess::Read);
    }
    let (shared, clocks) = (&mut block.shared, &block.cluster.clocks);
    let between_warps = shared.races.read_lanes(clocks, request, block.agent);
    let between_lanes = shared.lanes.access_lanes(request, block.warp, LaneAccess::Read);
    let defined = request.runs().all(|run| shared.first_undefined(run).is_none());
    let size = request.bytes();
    let undefined = match defined {
        true => 0,
        false => lanes_where(request.mask(), |lane| !shared.is_defined(request.at(lane), size)),
    };
    for lane in lanes(between_warps | between_lanes | undefined) {
        let closer = [between_warps, between_lanes].map(|mask| mask >> lane & 1 != 0);
        check_read(block, lane, request.at(lane), size, closer);
    }
}

/// The part of [`check_reads`] that looks closer, at other warps and at other lanes.
fn check_read(
    block: &mut Block<'_>,
    lane: usize,
    at: usize,
    size: usize,
    [warps, other_lanes]: [bool; 2],
) {
    let (shared, clocks) = (&mut block.shared, &block.cluster.clocks);
    let conflict = if warps { shared.races.read(clocks, at, size, block.agent) } else { None };
    let lanes = if other_lanes {
        shared.lanes.access(at, size, (block.warp, lane), LaneAccess::Read)
    } else {
        None
    };
    if let Some(conflict) = conflict {
        report_conflict(block, lane, at as u64, "load", conflict);
    } else if let Some(conflict) = lanes {
        report_lanes(block, lane, at, "load", conflict);
    }
    if !block.shared.is_defined(at, size) {
        let message = format!("{size}-byte load of undefined shared bytes at {at}");
        block.report(FindingKind::UninitialisedShared, Place::at(lane, at as u64), message);
    }
}

/// What writes to shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    Store,
    /// `cp.async`, which writes from now on until it is waited for.
    Copy,
}

/// Checks that the shared bytes of every lane of a request may be written; `benign` says whether
/// one lane of the same instruction stores the same value as a later one, `unchanged` whether a
/// lane's value is there already.
///
/// Two warps may store the same value to the same bytes: compilers let every warp that holds a
/// copy of a value write it, and whichever store comes last leaves that value.
#[inline(always)]
pub(crate) fn check_writes(
    block: &mut Block<'_>,
    writing: Writing,
    request: &Request,
    benign: impl Fn(usize, usize) -> bool,
    unchanged: impl Fn(&SharedMemory, usize) -> bool,
) {
    if block.cluster.clocks.asks_lanes(block.agent) {
        lane_order::check(block, request, LaneAccess::Write);
    }
    let (shared, clocks) = (&mut block.shared, &block.cluster.clocks);
    let writer = (block.agent, writing == Writing::Copy);
    let between_warps = shared.races.write_lanes(clocks, request, writer);
    let between_lanes = shared.lanes.access_lanes(request, block.warp, LaneAccess::Write);
    for lane in lanes(between_warps | between_lanes) {
        let closer = [between_warps, between_lanes].map(|mask| mask >> lane & 1 != 0);
        let place = (lane, request.at(lane), request.bytes());
        let benign = |other| benign(other, lane);
        check_write(block, writing, place, closer, benign, |shared| unchanged(shared, lane));
    }
}

/// The part of [`check_writes`] that looks closer, at other warps and at other lanes.
fn check_write(
    block: &mut Block<'_>,
    writing: Writing,
    (lane, at, size): (usize, usize, usize),
    [warps, other_lanes]: [bool; 2],
    benign: impl Fn(usize) -> bool,
    unchanged: impl Fn(&SharedMemory) -> bool,
) {
    let (shared, clocks) = (&mut block.shared, &block.cluster.clocks);
    let (conflict, action) = match writing {
        Writing::Store if warps => (shared.races.write(clocks, at, size, block.agent), "store"),
        Writing::Copy if warps => {
            (shared.races.issue(clocks, at, size, block.agent), "asynchronous write")
        }
        Writing::Store => (None, "store"),
        Writing::Copy => (None, "asynchronous write"),
    };
    let lanes = if other_lanes {
        shared.lanes.access(at, size, (block.warp, lane), LaneAccess::Write)
    } else {
        None
    };
    if let Some(conflict) = conflict {
        if !(matches!(conflict, Conflict::WrittenBy(_)) && unchanged(&block.shared)) {
            report_conflict(block, lane, at as u64, action, conflict);
        }
    } else if let Some(conflict) = lanes {
        if conflict.earlier != LaneAccess::Write || !benign(conflict.other as usize) {
            report_lanes(block, lane, at, action, conflict);
        }
    }
}

/// Shared addresses as the traffic counter wants them.
#[inline(always)]
pub(crate) fn narrow(addresses: &Lanes64) -> Lanes32 {
    each_lane!(|lane| addresses[lane] as u32)
}

#[inline(always)]
pub(crate) fn load_shared(
    block: &mut Block<'_>,
    w: &mut Warp,
    access: &Access,
    at: &Lanes64,
    mask: u32,
) {
    let request = begin_request(block, at, mask, total_bytes(access), Direction::Load);
    if block.checks() {
        check_reads(block, &request);
    }
    let good = request.mask();
    match (access.bytes, access.wide, access.count) {
        // Nearly all traffic.
        (4, false, 1) => load_words::<1>(block, w, access, &request),
        (4, false, 2) => load_words::<2>(block, w, access, &request),
        (4, false, 4) => load_words::<4>(block, w, access, &request),
        _ => load_elements(block, w, access, at, good),
    }
    if good != mask {
        clear_destination(w, access, mask & !good);
    }
}

/// Loads `COUNT` 32-bit words per lane.
#[inline(always)]
fn load_words<const COUNT: usize>(
    block: &Block<'_>,
    w: &mut Warp,
    access: &Access,
    request: &Request,
) {
    let mut words = [[0; LANES]; COUNT];
    if request.is_ordered() {
        let first = request.at(0);
        let bytes = block.shared.bytes(first..first + 4 * COUNT * LANES);
        for (lane, bytes) in bytes.chunks_exact(4 * COUNT).enumerate().take(LANES) {
            for (register, word) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                register[lane] = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            }
        }
    } else {
        for lane in lanes(request.mask()) {
            let loaded: [u32; COUNT] = block.shared.load_words(request.at(lane));
            for (register, word) in words.iter_mut().zip(loaded) {
                register[lane] = word;
            }
        }
    }
    for (register, &slot) in words.iter().zip(&access.registers) {
        w.set32(slot, request.mask(), register);
    }
}

fn load_elements(block: &Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    let bytes = usize::from(access.bytes);
    for lane in lanes(mask) {
        for element in 0..access.count as usize {
            let value = block.shared.load(at[lane] as usize + element * bytes, bytes);
            write_element(w, access, element, lane, value);
        }
    }
}

#[inline(always)]
pub(crate) fn store_shared(
    block: &mut Block<'_>,
    w: &Warp,
    access: &Access,
    at: &Lanes64,
    mask: u32,
) {
    let request = begin_request(block, at, mask, total_bytes(access), Direction::Store);
    let good = request.mask();
    if block.checks() {
        let same = |other, lane| stores_the_same(w, access, at, good, [other, lane]);
        let unchanged =
            |shared: &SharedMemory, lane| holds_already(shared, w, access, at[lane] as usize, lane);
        check_writes(block, Writing::Store, &request, same, unchanged);
    }
    match (access.bytes, access.wide, access.count) {
        (4, false, 1) => store_words::<1>(block, w, access, at, good),
        (4, false, 2) => store_words::<2>(block, w, access, at, good),
        (4, false, 4) => store_words::<4>(block, w, access, at, good),
        _ => store_elements(block, w, access, at, good),
    }
}

/// Stores `COUNT` 32-bit words per lane.
#[inline(always)]
fn store_words<const COUNT: usize>(
    block: &mut Block<'_>,
    w: &Warp,
    access: &Access,
    at: &Lanes64,
    mask: u32,
) {
    let mut registers = [[0; LANES]; COUNT];
    for (register, &slot) in registers.iter_mut().zip(&access.registers) {
        *register = *w.get32(slot);
    }
    for lane in lanes(mask) {
        let mut words = [0; COUNT];
        for (word, register) in words.iter_mut().zip(&registers) {
            *word = register[lane];
        }
        block.shared.store_words(at[lane] as usize, words);
    }
}

fn store_elements(block: &mut Block<'_>, w: &Warp, access: &Access, at: &Lanes64, mask: u32) {
    let bytes = usize::from(access.bytes);
    for lane in lanes(mask) {
        let address = at[lane] as usize;
        for element in 0..access.count as usize {
            let value = read_element(w, access, element, lane);
            block.shared.store(address + element * bytes, bytes, value);
        }
    }
}

/// Whether shared memory holds what a lane of a store puts there.
#[cold]
fn holds_already(
    shared: &SharedMemory,
    w: &Warp,
    access: &Access,
    address: usize,
    lane: usize,
) -> bool {
    let bytes = usize::from(access.bytes);
    (0..usize::from(access.count)).all(|element| {
        let at = address + element * bytes;
        let differing = shared.load(at, bytes) ^ read_element(w, access, element, lane);
        shared.is_defined(at, bytes) && differing << (64 - 8 * bytes) == 0
    })
}

/// Whether an earlier lane of the same store writes the same value to the same place.
#[cold]
fn stores_the_same(
    w: &Warp,
    access: &Access,
    at: &Lanes64,
    mask: u32,
    [other, lane]: [usize; 2],
) -> bool {
    let value = |element: usize, lane: usize| {
        read_element(w, access, element, lane) << (64 - 8 * u32::from(access.bytes))
    };
    other < lane
        && mask >> other & 1 == 1
        && at[other] == at[lane]
        && (0..usize::from(access.count)).all(|e| value(e, other) == value(e, lane))
}
