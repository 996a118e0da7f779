//! Tiles of tensors: which bytes of global memory a box covers, and where each lies in shared
//! memory (PTX ISA 5.5).

use crate::address;
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::device_memory;
use crate::program::Space;
use crate::tensor_map::{TensorMap, MAP_BYTES, MAX_RANK};

/// A tile of a tensor: the box of a map at some coordinates.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    pub map: TensorMap,
    /// Of the first element, innermost first; may lie outside the tensor.
    pub coordinates: [i32; MAX_RANK],
}

/// One innermost row of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Bytes from the tile's start in shared memory, before the swizzle.
    pub tile_offset: usize,
    /// Global address of the part that lies inside the tensor.
    pub address: u64,
    /// Bytes of that part; the rest of the row lies outside.
    pub bytes: usize,
}

impl Tile {
    /// Calls `f` for every row that has elements inside the tensor.
    pub(crate) fn rows(&self, mut f: impl FnMut(Row)) {
        let map = &self.map;
        let size = map.dtype.bytes();
        let (inner, start) = (i64::from(map.extent(0)), i64::from(self.coordinates[0]));
        let low = (-start).clamp(0, inner);
        let high = (map.dims[0] as i64 - start).clamp(low, inner);
        let row_bytes = inner as usize * size as usize;
        let rows: usize = (1..map.rank).map(|axis| map.extent(axis) as usize).product();
        for row in 0..rows {
            let Some(outside) = self.row_offset(row) else { continue };
            if low == high {
                continue;
            }
            f(Row {
                tile_offset: row * row_bytes + low as usize * size as usize,
                address: map
                    .address
                    .wrapping_add(outside)
                    .wrapping_add((start + low) as u64 * size),
                bytes: (high - low) as usize * size as usize,
            });
        }
    }

    /// Bytes from the tensor's start to a row of the tile; `None` for rows outside the tensor.
    fn row_offset(&self, row: usize) -> Option<u64> {
        let mut rest = row;
        let mut offset = 0u64;
        for axis in 1..self.map.rank {
            let extent = self.map.extent(axis) as usize;
            let index = (rest % extent) as i64 * i64::from(self.map.steps[axis]);
            rest /= extent;
            let at = i64::from(self.coordinates[axis]) + index;
            if at < 0 || at as u64 >= self.map.dims[axis] {
                return None;
            }
            offset = offset.wrapping_add((at as u64).wrapping_mul(self.map.strides[axis - 1]));
        }
        Some(offset)
    }

    /// The tile with every element outside the tensor.
    pub(crate) fn filled(&self) -> Vec<u8> {
        let fill = self.map.fill_bytes();
        let size = self.map.dtype.bytes() as usize;
        let elements = self.map.tile_bytes() as usize / size;
        fill[..size].repeat(elements)
    }

    /// Moves the 16-byte units of a dense tile to where they lie in shared memory when the tile
    /// starts at `start`; `None` when that would leave the tile's own bytes.
    pub(crate) fn swizzle(&self, start: u32, dense: &[u8]) -> Option<Vec<u8>> {
        self.permute(start, dense, |unit, place| (place, unit))
    }

    /// The inverse of [`Tile::swizzle`].
    pub(crate) fn unswizzle(&self, start: u32, placed: &[u8]) -> Option<Vec<u8>> {
        self.permute(start, placed, |unit, place| (unit, place))
    }

    fn permute(
        &self,
        start: u32,
        bytes: &[u8],
        direction: impl Fn(usize, usize) -> (usize, usize),
    ) -> Option<Vec<u8>> {
        let mut result = vec![0; bytes.len()];
        for unit in (0..bytes.len()).step_by(16) {
            let place = self.map.swizzle.apply(start + unit as u32).checked_sub(start)? as usize;
            let (to, from) = direction(unit, place);
            let from = bytes.get(from..from + 16)?;
            result.get_mut(to..to + 16)?.copy_from_slice(from);
        }
        Some(result)
    }
}

/// Reads the tensor map that a generic address names; reports one that is none.
pub(crate) fn read_map(block: &mut Block<'_>, lane: usize, at: u64) -> Option<TensorMap> {
    let place = Place::at(lane, at);
    if at % 64 != 0 {
        let message = "a tensor map that is not aligned to 64 bytes".to_owned();
        block.report(FindingKind::Misaligned, place, message);
        return None;
    }
    let Some(bytes) = map_bytes(block, at) else {
        let message = "a tensor map outside parameter, constant and global memory".to_owned();
        block.report(FindingKind::OutOfBounds, place, message);
        return None;
    };
    let decoded = TensorMap::decode(&bytes).and_then(|map| map.check().map(|()| map));
    match decoded {
        Ok(map) => Some(map),
        Err(error) => {
            block.report(FindingKind::InvalidOperand, place, error.to_string());
            None
        }
    }
}

fn map_bytes(block: &Block<'_>, at: u64) -> Option<[u8; MAP_BYTES]> {
    let context = block.context;
    let offset = address::strip_window(at) as usize;
    let end = offset.checked_add(MAP_BYTES)?;
    let mut map = [0; MAP_BYTES];
    match address::space_of(at)? {
        Space::Param => map.copy_from_slice(context.parameters.get(offset..end)?),
        Space::Const => map.copy_from_slice(context.program.constant_bank.get(offset..end)?),
        Space::Global => {
            let (buffer, _) = context.memory.get(context.memory.number(at))?;
            let offset = device_memory::offset(at) as usize;
            if offset.checked_add(MAP_BYTES)? > buffer.len() {
                return None;
            }
            buffer.read_range(offset, &mut map);
        }
        _ => return None,
    }
    Some(map)
}
