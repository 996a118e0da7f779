//! Parts of shared memory that asynchronous operations read.

use std::ops::Range;

use super::histories::ROW;

/// The bytes that one operation reads, as ranges in any order.
#[derive(Debug)]
pub(crate) struct Region {
    ranges: Box<[Range<usize>]>,
    /// Least range that holds all of them.
    hull: Range<usize>,
    /// Numbers of the rows of a history that it consists of; none if some are not read as a whole.
    rows: Box<[u32]>,
}

impl Region {
    pub(crate) fn new(ranges: Vec<Range<usize>>) -> Region {
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let whole = ranges.iter().all(|range| range.start % ROW == 0 && range.end % ROW == 0);
        let rows = ranges.iter().filter(|_| whole).flat_map(|r| r.start / ROW..r.end / ROW);
        let rows = rows.map(|row| row as u32).collect();
        Region { ranges: ranges.into(), hull: start..end, rows }
    }

    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Numbers of the rows of a history that it consists of, where it consists of whole ones.
    pub(super) fn rows(&self) -> Option<&[u32]> {
        (!self.rows.is_empty()).then_some(&*self.rows)
    }

    /// Whether it has bytes in common with a range.
    pub(super) fn meets(&self, other: &Range<usize>) -> bool {
        let meet = |own: &Range<usize>| own.start < other.end && other.start < own.end;
        meet(&self.hull) && self.ranges.iter().any(meet)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is a list of ranges too")]
mod tests {
    use super::*;

    #[test]
    fn a_region_meets_its_ranges_and_not_the_gaps_between_them() {
        let region = Region::new(vec![64..96, 0..32]);
        assert!(region.meets(&(0..4)) && region.meets(&(28..40)) && region.meets(&(92..200)));
        assert!(!region.meets(&(32..64)) && !region.meets(&(96..100)));
        assert!(!Region::new(Vec::new()).meets(&(0..64)));
        assert_eq!(region.rows(), Some(&[4, 5, 0, 1][..]));
        assert_eq!(Region::new(vec![64..96, 0..4]).rows(), None);
    }
}
