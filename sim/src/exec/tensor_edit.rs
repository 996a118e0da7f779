//! Tensor maps that kernels make themselves (PTX ISA 9.7.9.28): fields replaced one by one in shared
//! or global memory, and the copy that publishes a map.

use std::ops::Range;

use super::bulk_global;
use super::memory::addresses;
use super::shared::report_conflict;
use crate::address;
use crate::block::{Block, Place};
use crate::check::{Conflict, FindingKind};
use crate::device_memory;
use crate::program::{MapField, ReplaceField, ShortAddress, Space};
use crate::state::{lanes, Warp};
use crate::tensor_map::{TensorMap, MAP_BYTES, MAX_RANK};

/// `tensormap.replace`: changes one field of a map, in every lane that asks for it.
pub(crate) fn replace(block: &mut Block<'_>, w: &Warp, op: &ReplaceField, mask: u32) {
    let at = addresses(w, op.map.into());
    for lane in lanes(mask) {
        let value = match op.field.wide() {
            true => w.get64(op.value)[lane],
            false => u64::from(w.get32(op.value)[lane]),
        };
        let Some(bytes) = load(block, lane, op.space, at[lane]) else { continue };
        let edited = TensorMap::decode(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|map| edit(map, op.field, usize::from(op.ordinal), value));
        match edited {
            Ok(map) => store(block, lane, op.space, at[lane], &map),
            Err(message) => {
                block.report(FindingKind::InvalidOperand, Place::at(lane, at[lane]), message);
            }
        }
    }
}

/// The map with one field changed; codes are those of PTX ISA 9.7.9.28, table of new values.
fn edit(
    mut map: TensorMap,
    field: MapField,
    ordinal: usize,
    value: u64,
) -> Result<[u8; MAP_BYTES], String> {
    let small = u16::try_from(value).map_err(|_| format!("value {value} of a tensor map's field"));
    match field {
        MapField::Address => map.address = value,
        MapField::Rank if value < MAX_RANK as u64 => map.rank = value as usize + 1,
        MapField::Rank => return Err(format!("a tensor map of {} dimensions", value + 1)),
        MapField::Dim => map.dims[ordinal] = value,
        MapField::Stride => map.strides[ordinal] = value,
        MapField::Box => map.boxes[ordinal] = u32::from(small?),
        MapField::ElementStride => map.steps[ordinal] = u32::from(small?),
        MapField::Type | MapField::Swizzle | MapField::Fill => {
            return map.with_code(field, small?).map_err(|error| error.to_string());
        }
        MapField::Interleave if value == 0 => {}
        MapField::Interleave => return Err("interleaved tensors are not simulated".to_owned()),
    }
    Ok(map.encode())
}

/// Offsets of a map's bytes in shared memory, checked.
fn shared_range(block: &mut Block<'_>, lane: usize, at: u64) -> Option<Range<usize>> {
    let offset = address::cluster_offset(at);
    let end = offset + MAP_BYTES as u64;
    let (kind, problem) = if offset % 128 != 0 {
        (FindingKind::Misaligned, "not aligned to 128 bytes")
    } else if end > block.shared.len() {
        (FindingKind::OutOfBounds, "outside shared memory")
    } else {
        return Some(offset as usize..end as usize);
    };
    block.report(kind, Place::at(lane, at), format!("a tensor map {problem}"));
    None
}

fn report(block: &mut Block<'_>, lane: usize, at: usize, action: &str, found: Option<Conflict>) {
    if let Some(conflict) = found {
        report_conflict(block, lane, at as u64, action, conflict);
    }
}

/// The 128 bytes of a map in shared or global memory.
fn load(block: &mut Block<'_>, lane: usize, space: Space, at: u64) -> Option<[u8; MAP_BYTES]> {
    let mut map = [0; MAP_BYTES];
    if !in_shared(space, at) {
        bulk_global::read(block, lane, at, &mut map);
        return Some(map);
    }
    let range = shared_range(block, lane, at)?;
    if block.checks() {
        let (clocks, agent) = (&block.cluster.clocks, block.agent);
        let found = block.shared.races.read(clocks, range.start, MAP_BYTES, agent);
        report(block, lane, range.start, "tensormap.replace", found);
        if let Some(at) = block.shared.first_undefined(range.clone()) {
            let message = format!("a tensor map with an undefined byte at {at}");
            block.report(FindingKind::UninitialisedShared, Place::at(lane, at as u64), message);
        }
    }
    map.copy_from_slice(block.shared.bytes(range));
    Some(map)
}

fn store(block: &mut Block<'_>, lane: usize, space: Space, at: u64, map: &[u8; MAP_BYTES]) {
    if !in_shared(space, at) {
        return bulk_global::write(block, lane, at, map, None);
    }
    let Some(range) = shared_range(block, lane, at) else { return };
    if block.checks() {
        let (clocks, agent) = (&block.cluster.clocks, block.agent);
        let found = block.shared.races.write(clocks, range.start, MAP_BYTES, agent);
        report(block, lane, range.start, "tensormap.replace", found);
    }
    block.shared.store_range(range.start, map);
}

fn in_shared(space: Space, at: u64) -> bool {
    space == Space::Shared || space == Space::Generic && address::lies_in(at, Space::Shared)
}

/// `tensormap.cp_fenceproxy`: the warp copies a map from shared to global memory.
pub(crate) fn publish(
    block: &mut Block<'_>,
    w: &Warp,
    (destination, source): (ShortAddress, ShortAddress),
    mask: u32,
) {
    super::memory::require_full_warp(block, mask, "tensormap.cp_fenceproxy");
    let lane = mask.trailing_zeros() as usize;
    let (to, from) = (addresses(w, destination.into())[lane], addresses(w, source.into())[lane]);
    if device_memory::offset(to) % 128 != 0 {
        let message = "a tensor map that is not aligned to 128 bytes".to_owned();
        return block.report(FindingKind::Misaligned, Place::at(lane, to), message);
    }
    if let Some(map) = load(block, lane, Space::Shared, from) {
        bulk_global::write(block, lane, to, &map, None);
    }
}
