//! What a warp did in shared memory since its lanes last waited for each other, request by request.
//!
//! As long as no request touches the bytes of an earlier one, but for reads after reads and for
//! lanes that come back to their own bytes, there is no race and nothing to keep for each word.

use std::ops::Range;

use super::lanes::LaneAccess;
use crate::request::Request;

/// Most requests that are listed.
const REQUESTS: usize = 64;

/// A request with the least range that holds the bytes it touches, at hand because every request
/// is compared with all.
#[derive(Debug)]
struct Listed {
    request: Request,
    access: LaneAccess,
    hull: Range<u32>,
}

/// The requests of a warp between two synchronisations.
#[derive(Debug, Default)]
pub(super) struct Interval {
    requests: Vec<Listed>,
    /// Words are kept instead.
    given_up: bool,
}

impl Interval {
    /// The lanes waited for each other.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
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
        self.requests.drain(..).map(|listed| (listed.request, listed.access)).collect()
    }

    /// Lists a request; false if it might be in conflict with another or within itself.
    #[inline(always)]
    pub(super) fn add(&mut self, request: &Request, access: LaneAccess) -> bool {
        let reads = access == LaneAccess::Read;
        if self.requests.len() == REQUESTS || !(reads || request.is_apart()) {
            return false;
        }
        let hull = request.hull();
        for earlier in &self.requests {
            let meet = earlier.hull.start < hull.end && hull.start < earlier.hull.end;
            let matters = meet && !(reads && earlier.access == LaneAccess::Read);
            if matters && !request.is_safe_after(&earlier.request) {
                return false;
            }
        }
        self.requests.push(Listed { request: request.clone(), access, hull });
        true
    }
}
