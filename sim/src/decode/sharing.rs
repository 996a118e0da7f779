//! Places of registers, few enough for the processor's cache.
//!
//! NVRTC gives every value a register of its own, so a large kernel names thousands, of which a
//! hundred are alive at a time. A register file of 128 bytes each would not stay in any cache.
//! Registers that are never alive together share a slot here. Kept apart are those whose
//! definedness is watched while the kernel runs, and those that `wgmma` uses while other
//! instructions go on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use super::scope::File;
use crate::dataflow;
use crate::program::{Program, Slot};

/// The slot of each register, by file and by the order in which registers were first named.
#[derive(Debug, Default)]
pub(super) struct Places([Vec<Slot>; 2]);

impl Places {
    /// Places for the registers of a program that was decoded without sharing. `apart` says by
    /// definedness index which registers keep a slot of their own.
    pub(super) fn new(program: &Program, apart: impl Fn(usize) -> bool) -> Option<Places> {
        let intervals = dataflow::intervals(program)?;
        let narrow = share(&intervals[..program.count32], &apart);
        let wide = &intervals[program.count32..][..program.count64];
        let wide = share(wide, |slot| apart(program.count32 + slot));
        Some(Places([narrow, wide]))
    }

    /// The slot of the register that came `number`-th in its file.
    pub(super) fn slot(&self, file: File, number: usize) -> Option<Slot> {
        self.0.get(file as usize).and_then(|slots| slots.get(number)).copied()
    }
}

/// Slots by linear scan (Poletto and Sarkar 1999). The slot that became free last is taken first:
/// it is the one that is still in the cache.
fn share(intervals: &[Option<RangeInclusive<usize>>], apart: impl Fn(usize) -> bool) -> Vec<Slot> {
    let mut order: Vec<(usize, usize, usize)> = (intervals.iter().enumerate())
        .filter(|&(register, _)| !apart(register))
        .filter_map(|(register, interval)| {
            interval.as_ref().map(|i| (*i.start(), *i.end(), register))
        })
        .collect();
    order.sort_unstable();
    let mut slots: Vec<Option<Slot>> = vec![None; intervals.len()];
    let mut taken: BinaryHeap<Reverse<(usize, Slot)>> = BinaryHeap::new();
    let mut free = Vec::new();
    let mut count = 0;
    for (start, end, register) in order {
        while let Some(&Reverse((last, slot))) = taken.peek() {
            if last >= start {
                break;
            }
            taken.pop();
            free.push(slot);
        }
        let slot = free.pop().unwrap_or_else(|| {
            count += 1;
            count - 1
        });
        taken.push(Reverse((end, slot)));
        slots[register] = Some(slot);
    }
    let place = |slot: Option<Slot>| {
        slot.unwrap_or_else(|| {
            count += 1;
            count - 1
        })
    };
    slots.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_share_a_slot_unless_they_meet_or_are_kept_apart() {
        let intervals =
            [Some(0..=3), Some(1..=2), Some(3..=5), Some(4..=9), None, Some(5..=6), Some(12..=13)];
        let slots = share(&intervals, |register| register == 5);
        // 0 and 2 meet at 3; 3 follows 1 and 0; 4 and 5 are alone.
        assert_eq!(slots[0], 0);
        assert_eq!(slots[1], 1);
        assert_eq!(slots[2], 1);
        assert_eq!(slots[3], 0);
        assert_eq!(slots[6], 0);
        assert_eq!([slots[4], slots[5]], [2, 3]);
    }
}
