//! The global side of bulk copies: ranges of buffers, their checks and counters.

use super::global_order;
use super::memory::GlobalGroup;
use crate::block::{Block, Place};
use crate::check::{FindingKind, GlobalKind};
use crate::counters::GlobalTraffic;
use crate::device_memory;
use crate::exec::reduce;
use crate::memory::{Access, Buffer};
use crate::program::{Reduction, Scope};
use crate::state::{each_lane, FULL, LANES};

/// The buffer that holds a range, or a report that none does.
fn find<'b>(
    block: &mut Block<'b>,
    lane: usize,
    address: u64,
    bytes: usize,
    action: &str,
) -> Option<(&'b Buffer, usize)> {
    let context = block.context;
    let offset = device_memory::offset(address);
    let Some((buffer, _)) = context.memory.get(context.memory.number(address)) else {
        let message = format!("bulk {action} of {bytes} bytes at an unmapped address");
        block.report(FindingKind::OutOfBounds, Place::at(lane, address), message);
        return None;
    };
    if offset + bytes as u64 > buffer.len() as u64 {
        let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
        let length = buffer.len();
        let message = format!(
            "bulk {action} of {bytes} bytes at offset {offset} of a buffer of {length} bytes"
        );
        block.report(FindingKind::OutOfBounds, place, message);
        return None;
    }
    Some((buffer, offset as usize))
}

/// Reads a range; where that is not possible, the bytes stay as they are.
pub(crate) fn read(block: &mut Block<'_>, lane: usize, address: u64, bytes: &mut [u8]) {
    let Some((buffer, offset)) = find(block, lane, address, bytes.len(), "read") else { return };
    if block.checks() && !buffer.is_range_defined(offset..offset + bytes.len()) {
        let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
        let message = format!("bulk read of undefined bytes at offset {offset}");
        block.report(FindingKind::UninitialisedMemory, place, message);
    }
    note(block, address, bytes.len(), GlobalKind::Read, None);
    buffer.read_range(offset, bytes);
    count(block, address, bytes.len() as u64, false);
}

/// Writes a range, or combines it elementwise with what is there.
pub(crate) fn write(
    block: &mut Block<'_>,
    lane: usize,
    address: u64,
    bytes: &[u8],
    reduction: Option<Reduction>,
) {
    let Some((buffer, offset)) = find(block, lane, address, bytes.len(), "write") else { return };
    let place = Place { buffer: Some(&buffer.name), ..Place::at(lane, address) };
    if buffer.access == Access::ReadOnly {
        let message = "bulk write to a read-only buffer".to_owned();
        return block.report(FindingKind::ReadOnlyWrite, place, message);
    }
    // Each element of a reduction is relaxed at the scope of the device (PTX ISA 9.7.9.25.4.2).
    match reduction {
        None => note(block, address, bytes.len(), GlobalKind::Write, Some(bytes)),
        Some(_) => {
            note(block, address, bytes.len(), GlobalKind::StrongWrite(Scope::Device), None);
        }
    }
    match reduction {
        None => buffer.write_range(offset, bytes),
        Some(reduction) => {
            if block.checks() && !buffer.is_range_defined(offset..offset + bytes.len()) {
                let message = format!("bulk reduction of undefined bytes at offset {offset}");
                block.report(FindingKind::UninitialisedMemory, place, message);
            }
            reduce::update_buffer(reduction, buffer, offset, bytes);
        }
    }
    count(block, address, bytes.len() as u64, true);
}

/// Checks a range for races and enters it, as an access of the warp that issued the copy. A store
/// of `stored` where a warp of the same block stored the same is no race.
fn note(
    block: &mut Block<'_>,
    address: u64,
    bytes: usize,
    kind: GlobalKind,
    stored: Option<&[u8]>,
) {
    let context = block.context;
    let buffer = context.memory.number(address);
    let Some((contents, _)) = context.memory.history(buffer).filter(|_| block.checks()) else {
        return;
    };
    let first = device_memory::offset(address);
    let (start, end) = (first, first + bytes as u64);
    // Whole words where the range has them, as a request of up to 32 lanes each.
    let size = if (start | end) % 8 == 0 { 8 } else { 1 };
    for from in (start..end).step_by(LANES * size as usize) {
        let lanes = (end - from).div_ceil(size).min(LANES as u64);
        let offsets = each_lane!(|lane| from + (lane as u64).min(lanes - 1) * size);
        let mask = FULL >> (LANES as u64 - lanes);
        let unchanged = |lane: usize| {
            let (at, size) = (offsets[lane], size as usize);
            stored.is_some_and(|stored| {
                let (new, mut old) = (&stored[(at - first) as usize..][..size], [0; 8]);
                contents.read_range(at as usize, &mut old[..size]);
                contents.is_range_defined(at as usize..at as usize + size) && old[..size] == *new
            })
        };
        let group = GlobalGroup { buffer, mask, offsets };
        global_order::check_store(block, &group, size, kind, (unchanged, |_, _| true));
    }
}

/// Counts the sectors of a range.
fn count(block: &mut Block<'_>, address: u64, bytes: u64, store: bool) {
    let context = block.context;
    let number = context.memory.number(address);
    let Some((_, footprint)) = context.memory.get(number) else { return };
    let sectors = footprint.mark_range(device_memory::offset(address), bytes);
    add(block, number, GlobalTraffic { sectors, bytes, ..GlobalTraffic::default() }, store);
}

/// Counts one copy that moves `bytes` bytes to or from the buffer at an address.
pub(crate) fn count_request(block: &mut Block<'_>, address: u64, bytes: u64, store: bool) {
    let number = block.context.memory.number(address);
    if block.context.memory.get(number).is_some() {
        let ideal_sectors = bytes.div_ceil(super::traffic::SECTOR);
        let traffic = GlobalTraffic { requests: 1, ideal_sectors, ..GlobalTraffic::default() };
        add(block, number, traffic, store);
    }
}

fn add(block: &mut Block<'_>, number: usize, traffic: GlobalTraffic, store: bool) {
    block.counters().global.add(traffic);
    let buffer = &mut block.tally.per_buffer[number];
    if store {
        buffer.stores.add(traffic);
    } else {
        buffer.loads.add(traffic);
    }
}
