//! Elementwise reductions of bulk copies (PTX ISA 9.7.9.25.4.2).

use super::atomic::apply;
use crate::memory::Buffer;
use crate::program::Reduction;

/// Combines each element of `new` into `old`; both hold whole elements.
pub(crate) fn combine(reduction: Reduction, old: &mut [u8], new: &[u8]) {
    let size = reduction.ty.bytes() as usize;
    for (old, new) in old.chunks_exact_mut(size).zip(new.chunks_exact(size)) {
        let value = apply(reduction.op, reduction.ty, word(old), word(new), 0);
        old.copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// The same on a buffer, each element atomically.
pub(crate) fn update_buffer(reduction: Reduction, buffer: &Buffer, offset: usize, new: &[u8]) {
    let size = reduction.ty.bytes() as usize;
    for (element, new) in new.chunks_exact(size).enumerate() {
        let value = word(new);
        buffer.update(offset + element * size, size as u32, |old| {
            apply(reduction.op, reduction.ty, old, value, 0)
        });
    }
}

/// Little-endian value of up to 8 bytes.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{AtomicOp, AtomicType};

    #[test]
    fn elements_are_combined_one_by_one() {
        let mut old = [1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        let add = Reduction { op: AtomicOp::Add, ty: AtomicType::U32 };
        combine(add, &mut old, &[2, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(old, [3, 0, 0, 0, 1, 0, 0, 0]);
        let min = Reduction { op: AtomicOp::Min, ty: AtomicType::S32 };
        combine(min, &mut old, &[0xFF; 8]);
        assert_eq!(old, [0xFF; 8]);
        let mut halves = [0x00, 0x3C];
        let add = Reduction { op: AtomicOp::Add, ty: AtomicType::F16 };
        combine(add, &mut halves, &[0x00, 0x40]);
        assert_eq!(halves, [0x00, 0x42]);
    }
}
