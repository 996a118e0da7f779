//! Classes of machine instructions, and counts by class.

use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign};

/// What an instruction occupies: one pipe of an SM, or one kind of memory or synchronisation
/// traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer add, logic, shift, permute, compare, select, move: the ALU pipe.
    Alu,
    /// Integer multiply-add (`IMAD`, also used as a move) and `IDP`: the FMA pipe.
    Imad,
    /// Single-precision add, multiply, fused multiply-add.
    Fp32,
    /// Packed half or bfloat16 arithmetic (`HFMA2`, `HADD2`, `HMUL2`, ...).
    Half2,
    /// Double-precision arithmetic.
    Fp64,
    /// Packing and unpacking of small floats at ALU rate (`F2FP`, `I2FP`, ...).
    Pack,
    /// Conversions at reduced rate (`I2F`, `F2I`, `F2F`, ...) and bit counts.
    Convert,
    /// Transcendental functions and reciprocals (`MUFU`).
    Sfu,
    /// One warp's matrix multiply (`HMMA`, `IMMA`, `QMMA`, ...).
    Tensor,
    /// A warpgroup's or thread block's matrix multiply (`HGMMA`, `UTCHMMA`, ...).
    TensorGroup,
    /// Warp-uniform arithmetic, on the uniform datapath.
    Uniform,
    /// Loads of constants and kernel parameters.
    ConstantLoad,
    /// Global or generic loads.
    GlobalLoad,
    /// Global or generic stores.
    GlobalStore,
    /// Global atomics and reductions.
    GlobalAtomic,
    /// `cp.async`: global to shared memory without registers.
    AsyncCopy,
    /// Bulk copies by the copy engine (TMA).
    BulkCopy,
    /// Shared-memory loads.
    SharedLoad,
    /// `ldmatrix`.
    MatrixLoad,
    /// Shared-memory stores, `stmatrix` included.
    SharedStore,
    /// Shared-memory atomics.
    SharedAtomic,
    /// Local-memory loads: spills and local arrays.
    LocalLoad,
    /// Local-memory stores: spills and local arrays.
    LocalStore,
    /// Exchange between lanes through the shared-memory crossbar (`SHFL`, `MOVM`).
    Shuffle,
    /// Votes, matches and reductions of a warp.
    WarpVote,
    /// Barriers, fences, mbarrier operations, waits.
    Barrier,
    /// Branches, calls, exits and convergence bookkeeping.
    Branch,
    /// Reads of special registers.
    SpecialRegister,
    /// `NOP`.
    Nop,
    /// Anything that is not in the table (texture, surface, future instructions).
    Other,
}

impl Class {
    /// Every class, in the order of declaration.
    pub const ALL: [Class; 30] = [
        Class::Alu,
        Class::Imad,
        Class::Fp32,
        Class::Half2,
        Class::Fp64,
        Class::Pack,
        Class::Convert,
        Class::Sfu,
        Class::Tensor,
        Class::TensorGroup,
        Class::Uniform,
        Class::ConstantLoad,
        Class::GlobalLoad,
        Class::GlobalStore,
        Class::GlobalAtomic,
        Class::AsyncCopy,
        Class::BulkCopy,
        Class::SharedLoad,
        Class::MatrixLoad,
        Class::SharedStore,
        Class::SharedAtomic,
        Class::LocalLoad,
        Class::LocalStore,
        Class::Shuffle,
        Class::WarpVote,
        Class::Barrier,
        Class::Branch,
        Class::SpecialRegister,
        Class::Nop,
        Class::Other,
    ];
}

/// Warp instructions by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u32; Class::ALL.len()]);

impl Counts {
    /// How many of `class`.
    pub fn get(&self, class: Class) -> u32 {
        self.0[class as usize]
    }

    /// How many of any of `classes`.
    pub fn sum(&self, classes: &[Class]) -> u32 {
        classes.iter().map(|&class| self.get(class)).sum()
    }

    /// How many in all.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// One more of `class`.
    pub fn add_one(&mut self, class: Class) {
        self.0[class as usize] += 1;
    }

    /// The classes that occur, with their counts, in the order of [`Class::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Class, u32)> + '_ {
        Class::ALL.iter().map(|&class| (class, self.get(class))).filter(|&(_, count)| count > 0)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

impl Add for Counts {
    type Output = Counts;
    fn add(mut self, other: Counts) -> Counts {
        self += other;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_counts_in_its_own_place() {
        let mut counts = Counts::default();
        for (i, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, i);
            for _ in 0..=i {
                counts.add_one(class);
            }
        }
        for (i, (class, count)) in counts.iter().enumerate() {
            assert_eq!((class, count as usize), (Class::ALL[i], i + 1));
        }
        assert_eq!((counts + counts).total(), 2 * counts.total());
        assert_eq!(counts.sum(&[Class::Alu, Class::Fp32]), 1 + 3);
    }
}
