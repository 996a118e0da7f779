//! Races between the lanes of one warp in global memory.
//!
//! A warp remembers its latest requests to writable buffers since it last synchronised. They are
//! looked at only when the access history (see [`super::global`]) shows that the warp touches the
//! same bytes again, so that lanes which keep to their own bytes cost next to nothing. Atomics and
//! other strong accesses are left out: code relies on them within a warp.

use std::collections::VecDeque;

use crate::state::{lanes, LANES};

/// Most requests that are remembered.
const REQUESTS: usize = 64;

/// One request of a warp to one buffer.
#[derive(Debug, Clone)]
pub(crate) struct LaneRequest {
    pub buffer: usize,
    pub offsets: [u64; LANES],
    pub mask: u32,
    pub size: u64,
    pub writes: bool,
}

impl LaneRequest {
    /// A lane of the request and one of an earlier request that touch the same bytes.
    fn overlap(&self, earlier: &LaneRequest) -> Option<(usize, usize)> {
        lanes(self.mask).find_map(|lane| {
            let (start, end) = (self.offsets[lane], self.offsets[lane] + self.size);
            let other = lanes(earlier.mask).find(|&other| {
                let from = earlier.offsets[other];
                other != lane && from < end && start < from + earlier.size
            });
            other.map(|other| (lane, other))
        })
    }

    /// Two lanes of a plain write that touch the same bytes.
    pub(crate) fn within(&self) -> Option<(usize, usize)> {
        if self.writes {
            self.overlap(self)
        } else {
            None
        }
    }

    fn conflicts(&self, earlier: &LaneRequest) -> bool {
        self.buffer == earlier.buffer && (self.writes || earlier.writes)
    }
}

/// The requests of one warp since its lanes last waited for each other.
#[derive(Debug, Default)]
pub(crate) struct LaneLog(VecDeque<LaneRequest>);

impl LaneLog {
    /// The lanes waited for each other, or the warp begins.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, request: LaneRequest) {
        if self.0.len() == REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back(request);
    }

    /// A lane of the request, and the lane that accessed the same bytes, with whether that wrote.
    pub(crate) fn conflict(&self, request: &LaneRequest) -> Option<(usize, usize, bool)> {
        self.0.iter().rev().filter(|earlier| request.conflicts(earlier)).find_map(|earlier| {
            request.overlap(earlier).map(|(lane, other)| (lane, other, earlier.writes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(offset: impl Fn(u64) -> u64, writes: bool) -> LaneRequest {
        LaneRequest {
            buffer: 0,
            offsets: std::array::from_fn(|lane| offset(lane as u64)),
            mask: u32::MAX,
            size: 4,
            writes,
        }
    }

    #[test]
    fn another_lanes_bytes_conflict_until_the_log_is_cleared() {
        let mut log = LaneLog::default();
        log.push(request(|lane| lane * 4, true));
        assert_eq!(log.conflict(&request(|lane| lane * 4, false)), None);
        let neighbour = request(|lane| (lane ^ 1) * 4, false);
        assert_eq!(log.conflict(&neighbour), Some((0, 1, true)));
        log.clear();
        assert_eq!(log.conflict(&neighbour), None);
        log.push(neighbour);
        assert_eq!(log.conflict(&request(|lane| lane * 4, false)), None);
        assert_eq!(log.conflict(&request(|lane| lane * 4, true)), Some((0, 1, false)));
    }
}
