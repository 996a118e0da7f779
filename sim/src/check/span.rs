//! Requests whose lanes cover a range of memory together.

use std::ops::Range;

use super::histories::ROW;
use crate::state::{Lanes32, FULL, LANES};

/// A range of shared memory of which each lane of a full warp touches a part of its own, in any
/// order: nearly all copies and most loads are like that, and can be noted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    bytes: usize,
}

impl Span {
    /// The span of aligned accesses of `bytes` per lane, a power of two.
    #[inline(always)]
    pub(crate) fn new(at: &Lanes32, mask: u32, bytes: usize) -> Option<Span> {
        let first = at.iter().fold(u32::MAX, |first, &at| first.min(at));
        let shift = bytes.trailing_zeros();
        let (mut parts, mut beyond) = (0, 0);
        for at in at {
            let part = at.wrapping_sub(first) >> shift;
            beyond |= part;
            parts |= 1u32.wrapping_shl(part);
        }
        let covers = mask == FULL && parts == FULL && (beyond as usize) < LANES;
        covers.then_some(Span { start: first as usize, bytes: bytes * LANES })
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start..self.start + self.bytes
    }

    /// The range, if it consists of whole rows of a history.
    #[inline(always)]
    pub(super) fn rows(self) -> Option<Range<usize>> {
        (self.start % ROW == 0 && self.bytes % ROW == 0).then_some(self.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(mask: u32, bytes: usize, at: impl Fn(u32) -> u32) -> Option<Range<usize>> {
        let at = std::array::from_fn(|lane| at(lane as u32));
        Span::new(&at, mask, bytes).map(Span::range)
    }

    #[test]
    fn lanes_in_any_order_make_a_span_unless_two_meet_or_one_is_missing() {
        assert_eq!(span(FULL, 16, |lane| 64 + 16 * lane), Some(64..576));
        assert_eq!(span(FULL, 16, |lane| 64 + 16 * (lane ^ 5)), Some(64..576));
        assert_eq!(span(FULL, 4, |lane| 4 + 4 * lane), Some(4..132));
        assert_eq!(span(FULL >> 1, 4, |lane| 4 * lane), None);
        assert_eq!(span(FULL, 4, |lane| 4 * (lane / 2)), None);
        assert_eq!(span(FULL, 4, |lane| 8 * lane), None);
        assert_eq!(span(FULL, 4, |lane| 4 * lane + 4096 * (lane / 31)), None);
    }
}
