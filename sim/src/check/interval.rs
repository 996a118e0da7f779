//! What a warp did in shared memory since its lanes last waited for each other, request by request.
//!
//! As long as no request touches the bytes of an earlier one, but for reads after reads and for
//! lanes that come back to their own bytes, there is no race and nothing to keep for each word.

use super::lanes::LaneAccess;
use crate::request::Request;

/// Most requests that are listed.
const REQUESTS: usize = 64;

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
    requests: Vec<(Request, LaneAccess)>,
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
    pub(super) fn give_up(&mut self) -> Vec<(Request, LaneAccess)> {
        self.given_up = true;
        self.ranges.clear();
        std::mem::take(&mut self.requests)
    }

    /// Takes an ended list back, for its allocation.
    pub(super) fn reuse(&mut self, emptied: Vec<(Request, LaneAccess)>) {
        self.requests = emptied;
    }

    /// Lists a request; false if it might be in conflict with another or within itself.
    #[inline(always)]
    pub(super) fn add(&mut self, request: &Request, access: LaneAccess) -> bool {
        let reads = access == LaneAccess::Read;
        if self.requests.len() == REQUESTS || !(reads || request.is_apart()) {
            return false;
        }
        let hull = request.hull();
        for (number, earlier) in self.ranges.iter().enumerate() {
            let meet =
                earlier.first < hull.end && hull.start < earlier.end && !(reads && earlier.reads);
            if meet && !request.is_safe_after(&self.requests[number].0) {
                return false;
            }
        }
        self.requests.push((request.clone(), access));
        self.ranges.push(Touched { first: hull.start, end: hull.end, reads });
        true
    }
}
