//! Memory access costs: sectors of a global request, wavefronts of a shared one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::{GlobalTraffic, SharedTraffic};
use crate::state::{lanes, FULL, LANES};

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 32;

/// Bitmap of the sectors of a buffer that a run touched.
#[derive(Debug)]
pub(crate) struct Footprint(Box<[AtomicU64]>);

impl Footprint {
    pub(crate) fn new(bytes: usize) -> Footprint {
        let sectors = bytes.div_ceil(SECTOR as usize);
        Footprint(crate::memory::zeroed_atomics(sectors.div_ceil(64)))
    }

    #[inline(always)]
    fn mark(&self, sector: u64) {
        self.mark_bits(sector / 64, 1 << (sector % 64));
    }

    /// Marks sectors of one word of the bitmap.
    #[inline(always)]
    fn mark_bits(&self, word: u64, bits: u64) {
        let word = &self.0[word as usize];
        // Nearly every sector is marked many times: skip the locked instruction then.
        if word.load(Ordering::Relaxed) & bits != bits {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Marks the sectors of a range of at least one byte; returns their number.
    #[inline(always)]
    pub(crate) fn mark_range(&self, offset: u64, bytes: u64) -> u64 {
        let (first, last) = (offset / SECTOR, (offset + bytes.max(1) - 1) / SECTOR);
        for word in first / 64..=last / 64 {
            let from = first.max(64 * word) % 64;
            let to = last.min(64 * word + 63) % 64;
            self.mark_bits(word, u64::MAX >> (63 - (to - from)) << from);
        }
        last - first + 1
    }

    /// Number of distinct sectors.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

/// Counts one request of naturally aligned accesses of `size` bytes at `offsets` of one buffer.
#[inline(always)]
pub(crate) fn global_request(
    footprint: &Footprint,
    offsets: &[u64; LANES],
    mask: u32,
    size: u64,
) -> GlobalTraffic {
    let bytes = size * u64::from(mask.count_ones());
    let mut apart = 0;
    for lane in 0..LANES {
        apart |= offsets[lane] ^ offsets[0].wrapping_add(lane as u64 * size);
    }
    let (sectors, distinct) = if mask == FULL && apart == 0 {
        (footprint.mark_range(offsets[0], bytes), bytes)
    } else {
        scattered(footprint, offsets, mask, size)
    };
    GlobalTraffic { requests: 1, sectors, ideal_sectors: distinct.div_ceil(SECTOR), bytes }
}

/// Distinct sectors and distinct bytes of lanes in any order. Aligned accesses of one size are
/// either the same or disjoint, and none straddles a sector.
fn scattered(footprint: &Footprint, offsets: &[u64; LANES], mask: u32, size: u64) -> (u64, u64) {
    let mut sorted = [0u64; LANES];
    let mut count = 0;
    for lane in lanes(mask) {
        sorted[count] = offsets[lane];
        count += 1;
    }
    let sorted = &mut sorted[..count];
    if !sorted.is_sorted() {
        sorted.sort_unstable();
    }
    let (mut sectors, mut accesses) = (0, 0);
    let (mut last_offset, mut last_sector) = (u64::MAX, u64::MAX);
    for &offset in sorted.iter() {
        accesses += u64::from(offset != last_offset);
        last_offset = offset;
        let (from, to) = (offset / SECTOR, (offset + size - 1) / SECTOR);
        for sector in from..=to {
            if sector != last_sector {
                footprint.mark(sector);
                sectors += 1;
                last_sector = sector;
            }
        }
    }
    (sectors, accesses * size)
}

/// Counts one shared request of accesses of `size` bytes (up to 16; wider ones as several).
#[inline(always)]
pub(crate) fn shared_request(addresses: &[u32; LANES], mask: u32, size: u32) -> SharedTraffic {
    let (lanes_per_part, unit) = match size {
        0..=4 => (32, 4),
        5..=8 => (16, 8),
        _ => (8, 16),
    };
    let mut traffic = SharedTraffic { requests: 1, ..Default::default() };
    for start in (0..LANES).step_by(lanes_per_part) {
        let part = mask >> start & (u32::MAX >> (LANES - lanes_per_part));
        if part != 0 {
            traffic.ideal_wavefronts += 1;
            let part_addresses = &addresses[start..start + lanes_per_part];
            traffic.wavefronts += part_wavefronts(part_addresses, part, unit);
        }
    }
    traffic
}

/// Passes for one part, at most 32 lanes: they access `unit` aligned bytes each, the 128 bytes of
/// banks hold `128 / unit` such units side by side.
#[inline(always)]
pub(crate) fn part_wavefronts(addresses: &[u32], part: u32, unit: u32) -> u64 {
    let groups = 128 / unit;
    let shift = unit.trailing_zeros();
    let mut taken = 0u32;
    for (lane, &address) in addresses.iter().enumerate() {
        taken |= (part >> lane & 1) << (address >> shift & (groups - 1));
    }
    if taken.count_ones() == part.count_ones() {
        1
    } else {
        most_in_one_group(addresses, part, unit, groups as usize)
    }
}

/// The most distinct units in one bank group; equal ones are a broadcast.
fn most_in_one_group(addresses: &[u32], part: u32, unit: u32, groups: usize) -> u64 {
    // By group its first unit and the number of units; further units of all groups.
    let (mut first, mut per_group) = ([0u32; 32], [0u64; 32]);
    let (mut more, mut count) = ([0u32; LANES], 0);
    for lane in lanes(part) {
        let id = addresses[lane] / unit;
        let group = id as usize % groups;
        if per_group[group] == 0 {
            (first[group], per_group[group]) = (id, 1);
        } else if first[group] != id && !more[..count].contains(&id) {
            (more[count], count) = (id, count + 1);
            per_group[group] += 1;
        }
    }
    per_group.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(f: impl Fn(u64) -> u64) -> [u64; LANES] {
        std::array::from_fn(|lane| f(lane as u64))
    }

    fn global(mask: u32, size: u64, f: impl Fn(u64) -> u64) -> (u64, u64, u64) {
        let footprint = Footprint::new(1 << 16);
        let t = global_request(&footprint, &offsets(f), mask, size);
        assert_eq!(footprint.count(), t.sectors);
        (t.sectors, t.ideal_sectors, t.bytes)
    }

    #[test]
    fn coalesced_strided_broadcast_and_misplaced_loads_have_their_textbook_sectors() {
        assert_eq!(global(FULL, 4, |l| l * 4), (4, 4, 128));
        assert_eq!(global(FULL, 16, |l| l * 16), (16, 16, 512));
        assert_eq!(global(FULL, 4, |l| l * 128), (32, 4, 128));
        assert_eq!(global(FULL, 4, |_| 64), (1, 1, 128));
        assert_eq!(global(FULL, 4, |l| 16 + l * 4), (5, 4, 128));
        assert_eq!(global(FULL, 4, |l| (31 - l) * 4), (4, 4, 128));
        assert_eq!(global(0xFF, 2, |l| l * 2), (1, 1, 16));
        assert_eq!(global(FULL, 32, |l| l * 32), (32, 32, 1024));
    }

    fn shared(mask: u32, size: u32, f: impl Fn(u32) -> u32) -> (u64, u64) {
        let addresses = std::array::from_fn(|lane| f(lane as u32));
        let t = shared_request(&addresses, mask, size);
        (t.wavefronts, t.ideal_wavefronts)
    }

    #[test]
    fn four_byte_strides_conflict_by_their_power_of_two() {
        for (stride, ways) in [(4, 1), (8, 2), (16, 4), (32, 8), (128, 32), (12, 1)] {
            assert_eq!(shared(FULL, 4, |l| l * stride), (ways, 1), "stride {stride}");
        }
        assert_eq!(shared(FULL, 4, |_| 64), (1, 1));
        assert_eq!(shared(FULL, 2, |l| l * 2), (1, 1));
    }

    #[test]
    fn wide_accesses_are_split_into_half_and_quarter_warps() {
        assert_eq!(shared(FULL, 8, |l| l * 8), (2, 2));
        assert_eq!(shared(FULL, 16, |l| l * 16), (4, 4));
        assert_eq!(shared(FULL, 16, |l| l * 64), (16, 4));
        assert_eq!(shared(FULL, 16, |l| l * 128), (32, 4));
        assert_eq!(shared(0xFF, 16, |l| l * 16), (1, 1));
        assert_eq!(shared(FULL, 16, |_| 0), (4, 4));
    }
}
