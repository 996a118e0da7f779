//! Requests to shared memory: what a warp's lanes touch with one instruction.
//!
//! Requests repeat: an instruction mostly touches bytes of the same shape, a stage or a tile further
//! on. What follows from the shape alone (bank conflicts, which lanes meet, which bytes they cover
//! together) is worked out once per instruction and shape, and looked up from then on.

use std::ops::Range;
use std::rc::Rc;

use crate::counters::SharedTraffic;
use crate::exec::traffic;
use crate::state::{each_lane, lanes, Lanes32, Lanes64, FULL, LANES};

/// Bytes after which the banks begin again; shapes that are so far apart are the same.
const CYCLE: u64 = 128;
/// Bytes that every access aligned to them touches as a whole.
const ROW: u32 = 16;
/// Shapes that are kept of one instruction.
const WAYS: usize = 4;

/// Where lanes stand relative to a multiple of [`CYCLE`], and what follows from that.
#[derive(Debug)]
pub(crate) struct Shape {
    /// By lane; nothing is said of lanes outside the mask.
    distances: Lanes32,
    mask: u32,
    /// Bytes of each lane, a power of two.
    bytes: u32,
    /// A lane with the least address.
    anchor: usize,
    /// The bytes that lanes touch, ascending.
    runs: Box<[Range<u32>]>,
    aligned: bool,
    apart: bool,
    whole: bool,
    ordered: bool,
    traffic: SharedTraffic,
}

impl Shape {
    /// The shape of a request, and its base. Lanes of the mask are inside shared memory.
    fn new(at: &Lanes64, mask: u32, bytes: u32) -> (Shape, u64) {
        let anchor = lanes(mask).min_by_key(|&lane| at[lane]).unwrap_or(0);
        let base = if mask == 0 { 0 } else { at[anchor] / CYCLE * CYCLE };
        let mut distances = [0; LANES];
        lanes(mask).for_each(|lane| distances[lane] = at[lane].wrapping_sub(base) as u32);
        let mut places: Vec<u32> = lanes(mask).map(|lane| distances[lane]).collect();
        let ordered = mask == FULL && places.windows(2).all(|pair| pair[1] == pair[0] + bytes);
        places.sort_unstable();
        let apart = places.windows(2).all(|pair| pair[1] >= pair[0] + bytes);
        let mut runs: Vec<Range<u32>> = Vec::new();
        for place in places {
            match runs.last_mut() {
                Some(last) if place <= last.end => last.end = last.end.max(place + bytes),
                _ => runs.push(place..place + bytes),
            }
        }
        let whole = runs.iter().all(|run| run.start % ROW == 0 && run.end % ROW == 0);
        let aligned = distances.iter().all(|distance| distance % bytes == 0);
        let traffic = traffic::shared_request(&distances, mask, bytes);
        let runs = runs.into();
        let shape =
            Shape { distances, mask, bytes, anchor, runs, aligned, apart, whole, ordered, traffic };
        (shape, base)
    }

    /// The base at which lanes stand like this, if they do.
    #[inline(always)]
    fn base(&self, at: &Lanes64, mask: u32, bytes: u32) -> Option<u64> {
        if (self.mask, self.bytes) != (mask, bytes) {
            return None;
        }
        let base = at[self.anchor] & !(CYCLE - 1);
        let differing = |lane: usize| at[lane].wrapping_sub(base) ^ u64::from(self.distances[lane]);
        let mut elsewhere = 0;
        if mask == FULL {
            for lane in 0..LANES {
                elsewhere |= differing(lane);
            }
        } else {
            lanes(mask).for_each(|lane| elsewhere |= differing(lane));
        }
        (elsewhere == 0).then_some(base)
    }

    /// First byte behind all that lanes touch.
    #[inline(always)]
    fn end(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }
}

/// A shape at its place.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    shape: Rc<Shape>,
    base: u32,
}

impl Request {
    /// The request of lanes at addresses inside shared memory, `bytes` each.
    pub(crate) fn new(at: &Lanes64, mask: u32, bytes: u32) -> Request {
        let (shape, base) = Shape::new(at, mask, bytes);
        Request { shape: Rc::new(shape), base: base as u32 }
    }

    /// The part of some of its lanes.
    pub(crate) fn part(&self, mask: u32) -> Request {
        if mask == self.mask() {
            return self.clone();
        }
        Request::new(&each_lane!(|lane| self.at(lane) as u64), mask, self.shape.bytes)
    }

    /// Lanes that take part.
    #[inline(always)]
    pub(crate) fn mask(&self) -> u32 {
        self.shape.mask
    }

    /// Bytes of each lane.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> usize {
        self.shape.bytes as usize
    }

    /// Address of a lane that takes part.
    #[inline(always)]
    pub(crate) fn at(&self, lane: usize) -> usize {
        self.base as usize + self.shape.distances[lane] as usize
    }

    /// The bytes that lanes touch, ascending.
    #[inline(always)]
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let base = self.base as usize;
        self.shape.runs.iter().map(move |r| base + r.start as usize..base + r.end as usize)
    }

    /// The least range that holds all of them.
    #[inline(always)]
    pub(crate) fn hull(&self) -> Range<u32> {
        let first = self.shape.runs.first().map_or(0, |run| run.start);
        self.base + first..self.base + self.shape.end()
    }

    /// No two lanes touch the same bytes.
    #[inline(always)]
    pub(crate) fn is_apart(&self) -> bool {
        self.shape.apart
    }

    /// Lanes cover whole aligned groups of 16 bytes.
    #[inline(always)]
    pub(crate) fn is_whole(&self) -> bool {
        self.shape.whole
    }

    /// All 32 lanes stand side by side in their order.
    #[inline(always)]
    pub(crate) fn is_ordered(&self) -> bool {
        self.shape.ordered
    }

    /// What it costs.
    #[inline(always)]
    pub(crate) fn traffic(&self) -> SharedTraffic {
        self.shape.traffic
    }

    /// Whether no lane touches what another one touches in the other request, given that lanes are
    /// apart in one of the two.
    pub(crate) fn is_safe_after(&self, other: &Request) -> bool {
        self.misses(other) || self.repeats(other)
    }

    /// Whether the two have no bytes in common.
    fn misses(&self, other: &Request) -> bool {
        let (own, others) = (&self.shape.runs, &other.shape.runs);
        let (mut i, mut j) = (0, 0);
        while i < own.len() && j < others.len() {
            if self.base + own[i].end <= other.base + others[j].start {
                i += 1;
            } else if other.base + others[j].end <= self.base + own[i].start {
                j += 1;
            } else {
                return false;
            }
        }
        true
    }

    /// Whether each lane touches what it touches in the other request.
    fn repeats(&self, other: &Request) -> bool {
        let (own, others) = (&self.shape, &other.shape);
        let same =
            (own.mask, own.bytes, &own.distances) == (others.mask, others.bytes, &others.distances);
        self.base == other.base && (Rc::ptr_eq(own, others) || same)
    }
}

/// The shapes of the latest requests, by instruction.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Vec<Vec<Rc<Shape>>>);

impl Shapes {
    pub(crate) fn new(instructions: usize) -> Shapes {
        Shapes(vec![Vec::new(); instructions])
    }

    /// The request of an instruction, if its shape is known and all its lanes are aligned and
    /// inside `length` bytes.
    #[inline(always)]
    pub(crate) fn find(
        &self,
        pc: usize,
        (at, mask, bytes): (&Lanes64, u32, u32),
        length: u64,
    ) -> Option<Request> {
        for shape in &self.0[pc] {
            if let Some(base) = shape.base(at, mask, bytes) {
                let sound = shape.aligned && base.saturating_add(shape.end().into()) <= length;
                return sound.then(|| Request { shape: shape.clone(), base: base as u32 });
            }
        }
        None
    }

    /// Keeps the shape of a request, in place of the one that was kept longest.
    pub(crate) fn keep(&mut self, pc: usize, request: &Request) {
        let ways = &mut self.0[pc];
        if ways.len() == WAYS {
            ways.remove(0);
        }
        ways.push(request.shape.clone());
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is a list of ranges too")]
mod tests {
    use super::*;

    fn request(mask: u32, bytes: u32, at: impl Fn(u64) -> u64) -> Request {
        Request::new(&std::array::from_fn(|lane| at(lane as u64)), mask, bytes)
    }

    fn runs(mask: u32, bytes: u32, at: impl Fn(u64) -> u64) -> Vec<Range<usize>> {
        request(mask, bytes, at).runs().collect()
    }

    #[test]
    fn lanes_in_any_order_make_runs_of_the_bytes_they_touch() {
        assert_eq!(runs(FULL, 16, |lane| 64 + 16 * lane), [64..576]);
        assert_eq!(runs(FULL, 16, |lane| 64 + 16 * (lane ^ 5)), [64..576]);
        assert_eq!(runs(FULL >> 1, 4, |lane| 200 + 4 * lane), [200..324]);
        assert_eq!(runs(FULL, 4, |lane| 8 * (lane / 16)), [0..4, 8..12]);
        assert_eq!(runs(0, 4, |_| u64::MAX), []);
    }

    #[test]
    fn a_request_knows_whether_lanes_meet_cover_rows_and_stand_in_order() {
        let told = |r: Request| (r.is_apart(), r.is_whole(), r.is_ordered());
        assert_eq!(told(request(FULL, 16, |lane| 16 * lane)), (true, true, true));
        assert_eq!(told(request(FULL, 16, |lane| 16 * (lane ^ 1))), (true, true, false));
        assert_eq!(told(request(FULL, 4, |lane| 4 + 4 * lane)), (true, false, true));
        assert_eq!(told(request(FULL, 4, |lane| 4 * (lane / 2))), (false, true, false));
        assert_eq!(told(request(FULL >> 1, 16, |lane| 16 * lane)), (true, true, false));
    }

    #[test]
    fn requests_are_safe_together_when_lanes_keep_to_bytes_of_their_own() {
        let columns = |first: u64| request(FULL, 4, move |l| 272 * (l % 4) + 4 * (l / 4) + first);
        assert!(columns(0).is_safe_after(&columns(32)) && columns(32).is_safe_after(&columns(0)));
        assert!(columns(4096).is_safe_after(&columns(0)));
        assert!(columns(0).is_safe_after(&columns(0)));
        assert!(!columns(0).is_safe_after(&columns(28)) && !columns(28).is_safe_after(&columns(0)));
    }

    #[test]
    fn a_known_shape_is_found_at_another_place_but_not_outside_or_elsewhere_in_the_banks() {
        let mut shapes = Shapes::new(2);
        let at = |first: u64| -> Lanes64 { each_lane!(|lane| first + 4 * lane as u64) };
        let first = Request::new(&at(128), FULL, 4);
        shapes.keep(1, &first);
        let found = shapes.find(1, (&at(256), FULL, 4), 384).unwrap();
        assert_eq!((found.at(3), found.hull()), (268, 256..384));
        assert!(!found.repeats(&first) && found.repeats(&Request::new(&at(256), FULL, 4)));
        assert_eq!((found.part(6).mask(), found.part(6).hull()), (6, 260..268));
        for other in [(&at(256), FULL, 8), (&at(256), 1, 4), (&at(260), FULL, 4)] {
            assert!(shapes.find(1, other, 384).is_none());
        }
        assert!(shapes.find(1, (&at(256), FULL, 4), 383).is_none());
        assert!(shapes.find(1, (&at(1 << 40), FULL, 4), 384).is_none());
        assert!(shapes.find(0, (&at(128), FULL, 4), 384).is_none());
    }
}
