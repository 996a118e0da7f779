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
        Space::Shared => 1,
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
