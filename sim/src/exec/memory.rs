//! Loads and stores in every state space, with their checks and counters.

use super::shared::{load_shared, store_shared};
use super::{cluster, global_order, traffic};
use crate::address;
use crate::block::{Block, Place, RunContext};
use crate::check::{FindingKind, GlobalKind};
use crate::device_memory;
use crate::memory::Access as BufferAccess;
use crate::program::{Access, Address, Space};
use crate::state::{each_lane, lanes, Lanes64, Warp, FULL, LANES};

/// Direction of an access, for messages and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Load,
    Store,
    Atomic,
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Direction::Load => "load",
            Direction::Store => "store",
            Direction::Atomic => "atomic",
        }
    }
}

/// Addresses of all lanes.
#[inline(always)]
pub(crate) fn addresses(w: &Warp, address: Address) -> Lanes64 {
    let offset = address.offset as u64;
    if address.wide {
        let base = w.get64(address.base);
        each_lane!(|lane| base[lane].wrapping_add(offset))
    } else {
        let base = w.get32(address.base);
        each_lane!(|lane| u64::from(base[lane]).wrapping_add(offset))
    }
}

/// Splits lanes by state space: generic addresses carry it in their high bits.
///
/// Calls `f` with each space, its lanes, and the addresses within the space.
pub(crate) fn by_space(
    block: &mut Block<'_>,
    space: Space,
    addresses: Lanes64,
    mask: u32,
    mut f: impl FnMut(&mut Block<'_>, Space, &Lanes64, u32),
) {
    if space != Space::Generic {
        return f(block, space, &addresses, mask);
    }
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let space = address::space_of(addresses[first]);
        let same = lanes(rest)
            .filter(|&l| address::space_of(addresses[l]) == space)
            .fold(0u32, |m, l| m | 1 << l);
        rest &= !same;
        match space {
            Some(space) => f(block, space, &addresses.map(address::strip_window), same),
            None => {
                let message = "address outside every memory window".to_owned();
                block.report(FindingKind::OutOfBounds, Place::at(first, addresses[first]), message);
            }
        }
    }
}

/// Lanes of one request that hit one buffer, in bounds, aligned and allowed.
pub(crate) struct GlobalGroup {
    pub buffer: usize,
    pub mask: u32,
    pub offsets: Lanes64,
}

/// The one group of a request that touches one buffer and passes all checks, as nearly all do.
#[inline(always)]
pub(crate) fn sound_group(
    block: &Block<'_>,
    addresses: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
) -> Option<GlobalGroup> {
    let first = addresses[mask.trailing_zeros() as usize % LANES];
    let number = block.context.memory.number(first);
    let (buffer, _) = block.context.memory.get(number)?;
    if direction != Direction::Load && buffer.access == BufferAccess::ReadOnly {
        return None;
    }
    let last = (buffer.len() as u64).checked_sub(size)?;
    let base = first - device_memory::offset(first);
    let offsets = each_lane!(|lane| addresses[lane].wrapping_sub(base));
    // The sign says whether an offset is negative or beyond the last.
    let mut wrong = 0;
    for lane in 0..LANES {
        let offset = offsets[lane];
        let outside = (offset | last.wrapping_sub(offset)) & (1 << 63);
        let active = u64::from(mask >> lane & 1).wrapping_neg();
        wrong |= (outside | offset & (size - 1)) & active;
    }
    (wrong == 0).then_some(GlobalGroup { buffer: number, mask, offsets })
}

/// Checks a global request of `size` bytes per lane and splits it by buffer. Lanes that fail a
/// check are reported and left out.
pub(crate) fn global_groups(
    block: &mut Block<'_>,
    addresses: &Lanes64,
    mask: u32,
    size: u64,
    direction: Direction,
    mut f: impl FnMut(&mut Block<'_>, &GlobalGroup),
) {
    let context = block.context;
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let number = context.memory.number(addresses[first]);
        let high = addresses[first] >> address::BUFFER_SHIFT;
        let mut same = 0;
        for lane in 0..LANES {
            same |= u32::from(addresses[lane] >> address::BUFFER_SHIFT == high) << lane;
        }
        same &= rest;
        rest &= !same;
        let Some((buffer, _)) = context.memory.get(number) else {
            let message = format!("{size}-byte {} at an unmapped address", direction.name());
            block.report(FindingKind::OutOfBounds, Place::at(first, addresses[first]), message);
            continue;
        };
        let offsets = each_lane!(|lane| device_memory::offset(addresses[lane]));
        let length = buffer.len() as u64;
        let mut bad = 0;
        for lane in 0..LANES {
            let fails = offsets[lane] + size > length || offsets[lane] & (size - 1) != 0;
            bad |= u32::from(fails) << lane;
        }
        bad &= same;
        if bad != 0 {
            report_bad_lane(block, number, addresses, bad, size, direction);
        }
        if direction != Direction::Load && buffer.access == BufferAccess::ReadOnly {
            let place = Place { buffer: Some(&buffer.name), ..Place::at(first, addresses[first]) };
            let message = format!("{} to a read-only buffer", direction.name());
            block.report(FindingKind::ReadOnlyWrite, place, message);
            continue;
        }
        let group = GlobalGroup { buffer: number, mask: same & !bad, offsets };
        if group.mask != 0 {
            f(block, &group);
        }
    }
}

#[cold]
fn report_bad_lane(
    block: &mut Block<'_>,
    number: usize,
    addresses: &Lanes64,
    bad: u32,
    size: u64,
    direction: Direction,
) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(number) else { return };
    for lane in lanes(bad) {
        let (address, name) = (addresses[lane], direction.name());
        let offset = device_memory::offset(address);
        let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
        if offset + size > buffer.len() as u64 {
            let message = format!(
                "{size}-byte {name} at offset {offset} of a buffer of {} bytes",
                buffer.len()
            );
            block.report(FindingKind::OutOfBounds, place, message);
        } else {
            let message = format!("{size}-byte {name} at offset {offset}");
            block.report(FindingKind::Misaligned, place, message);
        }
    }
}

/// Counts a request to one buffer, on the instruction and on the buffer.
#[inline(always)]
pub(crate) fn count_global(
    block: &mut Block<'_>,
    group: &GlobalGroup,
    size: u64,
    direction: Direction,
) {
    let context = block.context;
    let Some((_, footprint)) = context.memory.get(group.buffer) else { return };
    let traffic = traffic::global_request(footprint, &group.offsets, group.mask, size);
    block.counters().global.add(traffic);
    let buffer = &mut block.tally.per_buffer[group.buffer];
    match direction {
        Direction::Load => buffer.loads.add(traffic),
        Direction::Store => buffer.stores.add(traffic),
        Direction::Atomic => buffer.atomics.add(traffic),
    }
}

/// Reports the first lane that read undefined global bytes.
#[inline(always)]
pub(crate) fn check_defined(block: &mut Block<'_>, group: &GlobalGroup, size: u32) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    if buffer.is_all_defined() {
        return;
    }
    for lane in lanes(group.mask) {
        if !buffer.is_defined(group.offsets[lane] as usize, size) {
            return report_undefined(block, group, lane, size);
        }
    }
}

#[cold]
fn report_undefined(block: &mut Block<'_>, group: &GlobalGroup, lane: usize, size: u32) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    let offset = group.offsets[lane];
    let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, offset) };
    let message = format!("{size}-byte load of undefined bytes at offset {offset}");
    block.report(FindingKind::UninitialisedMemory, place, message);
}

pub(crate) fn total_bytes(access: &Access) -> u64 {
    u64::from(access.bytes) * u64::from(access.count)
}

/// A loaded value as its register holds it.
#[inline(always)]
fn extended(access: &Access, value: u64) -> u64 {
    let unused = 64 - 8 * u32::from(access.bytes);
    if access.signed {
        ((value << unused) as i64 >> unused) as u64
    } else {
        value
    }
}

#[inline(always)]
pub(crate) fn write_element(
    w: &mut Warp,
    access: &Access,
    element: usize,
    lane: usize,
    value: u64,
) {
    let value = extended(access, value);
    let slot = access.registers[element] as usize;
    if access.wide {
        w.r64[slot][lane] = value;
    } else {
        w.r32[slot][lane] = value as u32;
    }
}

#[inline(always)]
pub(crate) fn read_element(w: &Warp, access: &Access, element: usize, lane: usize) -> u64 {
    let slot = access.registers[element];
    if access.wide {
        w.get64(slot)[lane]
    } else {
        u64::from(w.get32(slot)[lane])
    }
}

/// Writes zero where a load could not be done, so that the run goes on from a known state.
pub(crate) fn clear_destination(w: &mut Warp, access: &Access, mask: u32) {
    for element in 0..access.count as usize {
        lanes(mask).for_each(|lane| write_element(w, access, element, lane, 0));
    }
}

#[inline(always)]
pub(crate) fn load(block: &mut Block<'_>, w: &mut Warp, access: &Access, mask: u32) {
    let at = addresses(w, access.address);
    match access.space {
        Space::Global => load_global(block, w, access, &at, mask),
        Space::Shared => load_shared(block, w, access, &at, mask),
        Space::Param => load_bytes(block, w, access, Space::Param, &at, mask),
        _ => load_elsewhere(block, w, access, &at, mask),
    }
    if access.order.scope.is_some() {
        note_poll(block, w, access, &at, mask);
    }
}

/// A strong load may be waiting for what another warp writes.
fn note_poll(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    let lane = mask.trailing_zeros() as usize % LANES;
    let value = read_element(w, access, 0, lane);
    w.polled_at = block.pc;
    block.polls.note((block.agent, block.pc), at[lane], value);
}

fn load_elsewhere(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    by_space(block, access.space, *at, mask, |block, space, at, mask| match space {
        Space::Global | Space::Generic => load_global(block, w, access, at, mask),
        Space::Shared => load_shared(block, w, access, at, mask),
        Space::SharedCluster => cluster::load(block, w, access, at, mask),
        Space::Local => load_local(block, w, access, at, mask),
        Space::Param | Space::Const => load_bytes(block, w, access, space, at, mask),
    });
}

#[inline(always)]
fn load_global(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    match sound_group(block, at, mask, total_bytes(access), Direction::Load) {
        Some(group) => load_group(block, w, access, &group),
        None => load_groups(block, w, access, at, mask),
    }
}

/// A load that touches several buffers, or with a lane that may not load.
fn load_groups(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    let mut loaded = 0;
    global_groups(block, at, mask, total_bytes(access), Direction::Load, |block, group| {
        loaded |= group.mask;
        load_group(block, w, access, group);
    });
    if loaded != mask {
        clear_destination(w, access, mask & !loaded);
    }
}

#[inline(always)]
fn load_group(block: &mut Block<'_>, w: &mut Warp, access: &Access, group: &GlobalGroup) {
    let size = total_bytes(access);
    count_global(block, group, size, Direction::Load);
    if block.checks() {
        check_defined(block, group, size as u32);
        let kind = access.order.scope.map_or(GlobalKind::Read, GlobalKind::StrongRead);
        global_order::check(block, group, size, kind);
    }
    copy_loaded(block, w, access, group);
    if block.checks() {
        global_order::acquire(block, group, access.order, w.live);
    }
}

/// Moves the data of a checked global load into registers.
#[inline(always)]
fn copy_loaded(block: &Block<'_>, w: &mut Warp, access: &Access, group: &GlobalGroup) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    if access.bytes == 4 && !access.wide {
        // Nearly all traffic: 32-bit words, register by register.
        for (element, &slot) in access.registers[..usize::from(access.count)].iter().enumerate() {
            let register = &mut w.r32[slot as usize];
            for lane in lanes(group.mask) {
                let offset = group.offsets[lane] as usize + 4 * element;
                register[lane] = buffer.load(offset, 4) as u32;
            }
        }
        return;
    }
    let bytes = u32::from(access.bytes);
    for lane in lanes(group.mask) {
        let offset = group.offsets[lane] as usize;
        for element in 0..access.count as usize {
            let value = buffer.load(offset + element * bytes as usize, bytes);
            write_element(w, access, element, lane, value);
        }
    }
}

/// Parameter and constant space: read-only bytes, usually the same address in all lanes.
fn load_bytes(
    block: &mut Block<'_>,
    w: &mut Warp,
    access: &Access,
    space: Space,
    at: &Lanes64,
    mask: u32,
) {
    let context = block.context;
    let bytes = match space {
        Space::Param => &context.parameters,
        _ => &context.program.constant_bank,
    };
    let size = usize::from(access.bytes);
    if at.iter().all(|&other| other == at[0]) && broadcast(w, access, bytes, at[0], mask) {
        return;
    }
    for lane in lanes(mask) {
        for element in 0..usize::from(access.count) {
            let from = (at[lane] as usize).saturating_add(element * size);
            let Some(value) = bytes.get(from..from.saturating_add(size)) else {
                let message = format!("{size}-byte load at {from} of {} bytes", bytes.len());
                block.report(FindingKind::OutOfBounds, Place::at(lane, at[lane]), message);
                write_element(w, access, element, lane, 0);
                continue;
            };
            let mut word = [0; 8];
            word[..size].copy_from_slice(value);
            write_element(w, access, element, lane, u64::from_le_bytes(word));
        }
    }
}

/// Loads the same bytes in all lanes; false if they do not exist.
fn broadcast(w: &mut Warp, access: &Access, bytes: &[u8], at: u64, mask: u32) -> bool {
    let (size, from) = (usize::from(access.bytes), at as usize);
    let Some(found) = bytes.get(from..from.saturating_add(total_bytes(access) as usize)) else {
        return false;
    };
    for (element, value) in found.chunks_exact(size).enumerate() {
        let mut word = [0; 8];
        word[..size].copy_from_slice(value);
        let (slot, value) = (access.registers[element], extended(access, u64::from_le_bytes(word)));
        if access.wide {
            w.set64(slot, mask, &[value; LANES]);
        } else {
            w.set32(slot, mask, &[value as u32; LANES]);
        }
    }
    true
}

/// Range of one lane's local bytes in the warp's storage.
fn local_range(
    block: &mut Block<'_>,
    lane: usize,
    at: u64,
    size: u64,
    direction: Direction,
) -> Option<usize> {
    let length = u64::from(block.context.program.local_bytes);
    if at.checked_add(size).is_none_or(|end| end > length) {
        let message = format!("{size}-byte local {} of {length} bytes", direction.name());
        block.report(FindingKind::OutOfBounds, Place::at(lane, at), message);
        return None;
    }
    if at % size != 0 {
        let message = format!("{size}-byte local {}", direction.name());
        block.report(FindingKind::Misaligned, Place::at(lane, at), message);
        return None;
    }
    Some((lane as u64 * length + at) as usize)
}

fn load_local(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    let (size, bytes) = (total_bytes(access), usize::from(access.bytes));
    for lane in lanes(mask) {
        let Some(start) = local_range(block, lane, at[lane], size, Direction::Load) else {
            clear_destination(w, access, 1 << lane);
            continue;
        };
        if block.checks() && w.local_defined[start..start + size as usize].contains(&false) {
            let message = format!("{size}-byte load of undefined local bytes");
            block.report(FindingKind::UninitialisedMemory, Place::at(lane, at[lane]), message);
        }
        for element in 0..usize::from(access.count) {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(&w.local[start + element * bytes..][..bytes]);
            write_element(w, access, element, lane, u64::from_le_bytes(word));
        }
    }
}

#[inline(always)]
pub(crate) fn store(block: &mut Block<'_>, w: &mut Warp, access: &Access, mask: u32) {
    let at = addresses(w, access.address);
    match access.space {
        Space::Shared => store_shared(block, w, access, &at, mask),
        Space::Global => store_global(block, w, access, &at, mask),
        _ => store_elsewhere(block, w, access, &at, mask),
    }
}

fn store_elsewhere(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    by_space(block, access.space, *at, mask, |block, space, at, mask| match space {
        Space::Global | Space::Generic => store_global(block, w, access, at, mask),
        Space::Shared => store_shared(block, w, access, at, mask),
        Space::SharedCluster => cluster::store(block, w, access, at, mask),
        Space::Local => store_local(block, w, access, at, mask),
        Space::Param | Space::Const => {
            let lane = mask.trailing_zeros() as usize;
            let message = "store to parameters or constants".to_owned();
            block.report(FindingKind::ReadOnlyWrite, Place::lane(lane), message);
        }
    });
}

#[inline(always)]
fn store_global(block: &mut Block<'_>, w: &Warp, access: &Access, at: &Lanes64, mask: u32) {
    let size = total_bytes(access);
    match sound_group(block, at, mask, size, Direction::Store) {
        Some(group) => store_group(block, w, access, &group),
        None => global_groups(block, at, mask, size, Direction::Store, |block, group| {
            store_group(block, w, access, group);
        }),
    }
}

#[inline(always)]
fn store_group(block: &mut Block<'_>, w: &Warp, access: &Access, group: &GlobalGroup) {
    let size = total_bytes(access);
    count_global(block, group, size, Direction::Store);
    block.polls.changes += 1;
    if block.checks() {
        let kind = access.order.scope.map_or(GlobalKind::Write, GlobalKind::StrongWrite);
        let unchanged = |lane| stores_what_is_there(block.context, w, access, group, lane);
        let equal = |lane, other| lanes_store_the_same(w, access, lane, other);
        global_order::check_store(block, group, size, kind, (unchanged, equal));
        global_order::release(block, group, access.order);
    }
    copy_stored(block, w, access, group);
}

/// Moves the data of a checked global store into memory.
#[inline(always)]
fn copy_stored(block: &Block<'_>, w: &Warp, access: &Access, group: &GlobalGroup) {
    let context = block.context;
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
    let bytes = u32::from(access.bytes);
    if bytes == 4 && !access.wide {
        for (element, &slot) in access.registers[..usize::from(access.count)].iter().enumerate() {
            let register = w.get32(slot);
            for lane in lanes(group.mask) {
                let offset = group.offsets[lane] as usize + 4 * element;
                buffer.store(offset, 4, register[lane].into());
            }
        }
    } else {
        for lane in lanes(group.mask) {
            let offset = group.offsets[lane] as usize;
            for element in 0..access.count as usize {
                let value = read_element(w, access, element, lane);
                buffer.store(offset + element * bytes as usize, bytes, value);
            }
        }
    }
    if !buffer.is_all_defined() {
        let size = total_bytes(access) as u32;
        lanes(group.mask).for_each(|lane| buffer.define(group.offsets[lane] as usize, size));
    }
}

#[cold]
fn lanes_store_the_same(w: &Warp, access: &Access, lane: usize, other: usize) -> bool {
    let unused = 64 - 8 * u32::from(access.bytes);
    (0..usize::from(access.count)).all(|element| {
        let value = |lane| read_element(w, access, element, lane) << unused;
        value(lane) == value(other)
    })
}

#[cold]
fn stores_what_is_there(
    context: &RunContext<'_>,
    w: &Warp,
    access: &Access,
    group: &GlobalGroup,
    lane: usize,
) -> bool {
    let Some((buffer, _)) = context.memory.get(group.buffer) else { return false };
    let bytes = u32::from(access.bytes);
    (0..usize::from(access.count)).all(|element| {
        let offset = group.offsets[lane] as usize + element * bytes as usize;
        let differing = buffer.load(offset, bytes) ^ read_element(w, access, element, lane);
        differing << (64 - 8 * bytes) == 0
    })
}

fn store_local(block: &mut Block<'_>, w: &mut Warp, access: &Access, at: &Lanes64, mask: u32) {
    let (size, bytes) = (total_bytes(access), usize::from(access.bytes));
    for lane in lanes(mask) {
        let Some(start) = local_range(block, lane, at[lane], size, Direction::Store) else {
            continue;
        };
        for element in 0..usize::from(access.count) {
            let value = read_element(w, access, element, lane).to_le_bytes();
            w.local[start + element * bytes..][..bytes].copy_from_slice(&value[..bytes]);
        }
        w.local_defined[start..start + size as usize].fill(true);
    }
}

/// Matrix instructions need all 32 lanes of the warp together; reports it when some are missing.
pub(crate) fn require_full_warp(block: &mut Block<'_>, mask: u32, what: &str) {
    if mask != FULL {
        let message = format!("{what} executed by lanes {mask:#010x} only");
        block.report(FindingKind::BarrierDivergence, Place::default(), message);
    }
}
