//! Sets of registers.

/// A set of registers by definedness index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegisterSet(Vec<u64>);

impl RegisterSet {
    /// No registers, with room for `count`.
    pub(super) fn none(count: usize) -> RegisterSet {
        RegisterSet(vec![0; count.div_ceil(64)])
    }

    /// All of `count` registers.
    pub(super) fn all(count: usize) -> RegisterSet {
        RegisterSet(vec![u64::MAX; count.div_ceil(64)])
    }

    pub(super) fn contains(&self, register: usize) -> bool {
        self.0[register / 64] >> (register % 64) & 1 == 1
    }

    pub(super) fn insert(&mut self, register: usize) {
        self.0[register / 64] |= 1 << (register % 64);
    }

    pub(super) fn remove(&mut self, register: usize) {
        self.0[register / 64] &= !(1 << (register % 64));
    }

    /// Keeps what is in the other set too.
    pub(super) fn intersect(&mut self, other: &RegisterSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }

    /// Adds what is in the other set.
    pub(super) fn unite(&mut self, other: &RegisterSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    /// Ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    64 * at + bit
                })
            })
        })
    }
}
