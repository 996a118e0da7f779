//! Elementwise reductions of bulk copies (PTX ISA 9.7.9.25.4.2).

use super::atomic::apply;
use crate::program::{AtomicOp, AtomicType};

/// Operation and element type of a `cp.reduce.async.bulk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reduction {
    pub op: AtomicOp,
    pub ty: AtomicType,
}

impl Reduction {
    /// Combines each element of `new` into `old`; both hold whole elements.
    pub(crate) fn apply(&self, old: &mut [u8], new: &[u8]) {
        let size = self.ty.bytes() as usize;
        for (old, new) in old.chunks_exact_mut(size).zip(new.chunks_exact(size)) {
            let value = apply(self.op, self.ty, word(old), word(new), 0);
            old.copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
}

/// Little-endian value of up to 8 bytes.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_combined_one_by_one() {
        let mut old = [1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        let add = Reduction { op: AtomicOp::Add, ty: AtomicType::U32 };
        add.apply(&mut old, &[2, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(old, [3, 0, 0, 0, 1, 0, 0, 0]);
        let min = Reduction { op: AtomicOp::Min, ty: AtomicType::S32 };
        min.apply(&mut old, &[0xFF; 8]);
        assert_eq!(old, [0xFF; 8]);
        let mut halves = [0x00, 0x3C];
        let add = Reduction { op: AtomicOp::Add, ty: AtomicType::F16 };
        add.apply(&mut halves, &[0x00, 0x40]);
        assert_eq!(halves, [0x00, 0x42]);
    }
}
