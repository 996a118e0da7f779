//! The generic address map: which bits of a 64-bit address say where it points.
//!
//! Global buffers lie 2^36 bytes apart, so `address >> 36` names the buffer and an access just past
//! the end of one never lands in another. The other state spaces get windows in the top byte, as
//! PTX's generic addressing (PTX ISA 5.1) wants them to be convertible.

use crate::program::Space;

/// Distance of two buffers as a power of two.
pub(crate) const BUFFER_SHIFT: u32 = 36;
/// Buffer numbers from here on are module variables (`.global` data of the kernel itself).
pub(crate) const FIRST_STATIC_BUFFER: u64 = 1 << 16;
/// Most bytes of shared, local or constant variables that a module may declare.
pub(crate) const MAX_SMALL_SPACE_BYTES: u64 = 1 << 24;

const WINDOW_SHIFT: u32 = 56;
/// Where an address of the `shared::cluster` window holds the rank of its block, plus one.
const RANK_SHIFT: u32 = MAX_SMALL_SPACE_BYTES.trailing_zeros();
const RANK_MASK: u64 = 0xFF;

/// First address of buffer number `index`; number 0 is address 2^36, so null is never mapped.
pub(crate) fn buffer(index: usize) -> u64 {
    (index as u64 + 1) << BUFFER_SHIFT
}

/// First address of module variable number `index`.
pub(crate) fn static_buffer(index: usize) -> u64 {
    (FIRST_STATIC_BUFFER + index as u64) << BUFFER_SHIFT
}

/// What a generic address of `space` has in its top byte; 0 is global.
pub(crate) fn window(space: Space) -> u64 {
    let tag = match space {
        Space::Global | Space::Generic => 0,
        Space::Shared | Space::SharedCluster => 1,
        Space::Local => 2,
        Space::Param => 3,
        Space::Const => 4,
    };
    tag << WINDOW_SHIFT
}

/// State space of a generic address, `None` for a window that does not exist.
pub(crate) fn space_of(generic: u64) -> Option<Space> {
    Some(match generic >> WINDOW_SHIFT {
        0 => Space::Global,
        1 if cluster_rank(generic).is_some() => Space::SharedCluster,
        1 => Space::Shared,
        2 => Space::Local,
        3 => Space::Param,
        4 => Space::Const,
        _ => return None,
    })
}

/// The address within its state space.
pub(crate) fn strip_window(generic: u64) -> u64 {
    generic & ((1 << WINDOW_SHIFT) - 1)
}

/// Rank of the block whose shared memory an address names, `None` for the executing block's.
#[inline(always)]
pub(crate) fn cluster_rank(address: u64) -> Option<u32> {
    (address >> RANK_SHIFT & RANK_MASK).checked_sub(1).map(|rank| rank as u32)
}

/// Offset of a shared address, generic or not, within its block's memory.
#[inline(always)]
pub(crate) fn cluster_offset(address: u64) -> u64 {
    strip_window(address) & !(RANK_MASK << RANK_SHIFT)
}

/// The same offset in the shared memory of a block of the cluster.
#[inline(always)]
pub(crate) fn map_rank(address: u64, rank: u32) -> u64 {
    address & !(RANK_MASK << RANK_SHIFT) | (u64::from(rank) + 1) << RANK_SHIFT
}

/// Whether a generic address lies in a space; the cluster's window contains the block's own.
pub(crate) fn lies_in(generic: u64, space: Space) -> bool {
    let found = space_of(generic);
    found == Some(space) || (space == Space::SharedCluster && found == Some(Space::Shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_keep_their_offset_and_window() {
        let generic = window(Space::Shared) | 0x1234;
        let mapped = map_rank(generic, 0);
        assert_eq!(space_of(generic), Some(Space::Shared));
        assert_eq!(space_of(mapped), Some(Space::SharedCluster));
        assert_eq!((cluster_rank(generic), cluster_rank(mapped)), (None, Some(0)));
        assert_eq!(cluster_rank(map_rank(mapped, 15)), Some(15));
        assert_eq!(cluster_offset(map_rank(mapped, 15)), 0x1234);
        // 32-bit addresses of the window itself work alike.
        assert!(u32::try_from(map_rank(0x1234, 15)).is_ok());
    }
}
