//! What a warp did in shared memory since its lanes last waited for each other, request by request.
//!
//! As long as no request touches the bytes of an earlier one, but for reads after reads and for
//! lanes that come back to their own bytes, there is no race and nothing to keep for each word.

use super::lanes::LaneAccess;
use crate::state::{each_lane, Lanes32};

/// Most requests that are listed.
const REQUESTS: usize = 64;

/// A request of one warp.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub at: Lanes32,
    pub mask: u32,
    /// Of each lane.
    pub bytes: u32,
    pub access: LaneAccess,
}

impl Request {
    /// The least range of bytes that holds those of all lanes.
    #[inline(always)]
    fn range(&self) -> [u32; 2] {
        let outside: Lanes32 = each_lane!(|lane| (self.mask >> lane & 1).wrapping_sub(1));
        let mut first = u32::MAX;
        let mut last = 0;
        for (at, outside) in self.at.iter().zip(outside) {
            first = first.min(at | outside);
            last = last.max(at & !outside);
        }
        [first, last + self.bytes]
    }

    /// Whether each lane touches what it touches in the other request.
    fn repeats(&self, other: &Request) -> bool {
        (self.mask, self.bytes, &self.at) == (other.mask, other.bytes, &other.at)
    }
}

/// The bytes between the first and the last that a request touches.
#[derive(Debug, Clone, Copy)]
struct Touched {
    first: u32,
    end: u32,
    reads: bool,
}

/// The requests of a warp between two synchronisations.
#[derive(Debug, Default)]
pub(super) struct Interval {
    requests: Vec<Request>,
    /// What each of them touches, close together because every request is compared with all.
    ranges: Vec<Touched>,
    /// Words are kept instead.
    given_up: bool,
}

impl Interval {
    /// The lanes waited for each other.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.ranges.clear();
        self.given_up = false;
    }

    /// Whether requests are listed.
    #[inline(always)]
    pub(super) fn lists(&self) -> bool {
        !self.given_up
    }

    /// Ends the list until the lanes wait for each other; returns it.
    pub(super) fn give_up(&mut self) -> Vec<Request> {
        self.given_up = true;
        self.ranges.clear();
        std::mem::take(&mut self.requests)
    }

    /// Takes an ended list back, for its allocation.
    pub(super) fn reuse(&mut self, mut requests: Vec<Request>) {
        requests.clear();
        self.requests = requests;
    }

    /// Lists a request; false if it might be in conflict with another or within itself. `apart` says
    /// that no two of its lanes touch the same bytes.
    #[inline(always)]
    pub(super) fn add(&mut self, request: Request, apart: bool) -> bool {
        let reads = request.access == LaneAccess::Read;
        if self.requests.len() == REQUESTS || !(reads || apart) {
            return false;
        }
        let [first, end] = request.range();
        for (number, earlier) in self.ranges.iter().enumerate() {
            let meet = earlier.first < end && first < earlier.end && !(reads && earlier.reads);
            // Repeated lanes are apart, because one of the two requests is a write.
            if meet && !request.repeats(&self.requests[number]) {
                return false;
            }
        }
        self.requests.push(request);
        self.ranges.push(Touched { first, end, reads });
        true
    }
}
