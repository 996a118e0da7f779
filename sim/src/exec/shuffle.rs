//! Warp collectives: shuffles, votes, matches, reductions, election.

use super::numeric::{canonical, max_number, min_number};
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::program::{PredicateSource, ReduxOp, ShuffleMode, Slot, VoteMode};
use crate::state::{lanes, Lanes32, Warp, LANES};

/// Checks the member mask of a `.sync` collective: every executing lane must name itself, and all
/// named lanes that have not exited must execute it together.
pub(crate) fn check_members(block: &mut Block<'_>, w: &Warp, mask: u32, members: Slot, what: &str) {
    if !block.checks() {
        return;
    }
    for lane in lanes(mask) {
        let named = w.get32(members)[lane];
        if named & w.live & !mask != 0 || named >> lane & 1 == 0 {
            let message =
                format!("{what} with member mask {named:#010x} executed by lanes {mask:#010x}");
            return block.report(FindingKind::InactiveLane, Place::lane(lane), message);
        }
    }
}

/// Operands of `shfl.sync`.
pub(crate) struct Shuffle {
    pub mode: ShuffleMode,
    pub d: Slot,
    pub p: Option<Slot>,
    pub a: Slot,
    pub b: Slot,
    pub c: Slot,
    pub members: Slot,
}

/// Source lane and whether it is in range (PTX ISA 9.7.9.6).
pub(super) fn source_lane(mode: ShuffleMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (segment, clamp, b) = (c >> 8 & 31, c & 31, b & 31);
    let max = (lane & segment) | (clamp & !segment);
    let min = lane & segment;
    let (source, valid) = match mode {
        // Wraps below lane 0 to a huge number, which must count as out of range.
        ShuffleMode::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= max as i32),
        ShuffleMode::Down => (lane + b, lane + b <= max),
        ShuffleMode::Butterfly => (lane ^ b, lane ^ b <= max),
        ShuffleMode::Index => {
            let source = min | (b & !segment);
            (source, source <= max)
        }
    };
    if valid && source < LANES as u32 {
        (source, true)
    } else {
        (lane, false)
    }
}

pub(crate) fn shuffle(block: &mut Block<'_>, w: &mut Warp, s: &Shuffle, mask: u32) {
    check_members(block, w, mask, s.members, "shfl.sync");
    let (a, b, c) = (*w.get32(s.a), *w.get32(s.b), *w.get32(s.c));
    let mut out: Lanes32 = a;
    let mut in_range = 0;
    for lane in lanes(mask) {
        let (source, valid) = source_lane(s.mode, lane as u32, b[lane], c[lane]);
        out[lane] = a[source as usize];
        in_range |= u32::from(valid) << lane;
        if mask >> source & 1 == 0 && block.checks() {
            let message = format!("shuffle reads inactive lane {source}");
            block.report(FindingKind::InactiveLane, Place::lane(lane), message);
        }
    }
    w.set32(s.d, mask, &out);
    if let Some(p) = s.p {
        w.set_predicate(p, mask, in_range);
    }
}

pub(crate) fn vote(
    block: &mut Block<'_>,
    w: &mut Warp,
    mode: VoteMode,
    d: Slot,
    p: PredicateSource,
    members: Slot,
    mask: u32,
) {
    check_members(block, w, mask, members, "vote.sync");
    let value = w.predicate(p) & mask;
    let everywhere = |condition: bool| if condition { u32::MAX } else { 0 };
    match mode {
        VoteMode::Ballot => w.set32(d, mask, &[value; LANES]),
        VoteMode::All => w.set_predicate(d, mask, everywhere(value == mask)),
        VoteMode::Any => w.set_predicate(d, mask, everywhere(value != 0)),
        VoteMode::Uniform => {
            w.set_predicate(d, mask, everywhere(value == mask || value == 0));
        }
    }
}

/// Operands of `match.sync`.
pub(crate) struct Match {
    pub all: bool,
    pub wide: bool,
    pub d: Slot,
    pub p: Option<Slot>,
    pub a: Slot,
    pub members: Slot,
}

pub(crate) fn match_sync(block: &mut Block<'_>, w: &mut Warp, m: &Match, mask: u32) {
    check_members(block, w, mask, m.members, "match.sync");
    let values: [u64; LANES] = if m.wide { *w.get64(m.a) } else { w.get32(m.a).map(u64::from) };
    let equal_to =
        |value: u64| lanes(mask).filter(|&l| values[l] == value).fold(0u32, |s, l| s | 1 << l);
    let mut out = [0; LANES];
    let mut all = 0;
    for lane in lanes(mask) {
        let same = equal_to(values[lane]);
        out[lane] = if m.all && same != mask { 0 } else { same };
        all |= u32::from(same == mask) << lane;
    }
    w.set32(m.d, mask, &out);
    if let Some(p) = m.p {
        w.set_predicate(p, mask, all);
    }
}

pub(crate) fn redux(
    block: &mut Block<'_>,
    w: &mut Warp,
    op: ReduxOp,
    signed: bool,
    [d, a, members]: [Slot; 3],
    mask: u32,
) {
    check_members(block, w, mask, members, "redux.sync");
    let values = *w.get32(a);
    let combine = |x: u32, y: u32| match op {
        ReduxOp::Add => x.wrapping_add(y),
        ReduxOp::And => x & y,
        ReduxOp::Or => x | y,
        ReduxOp::Xor => x ^ y,
        ReduxOp::Min if signed => (x as i32).min(y as i32) as u32,
        ReduxOp::Max if signed => (x as i32).max(y as i32) as u32,
        ReduxOp::Min => x.min(y),
        ReduxOp::Max => x.max(y),
    };
    let result = lanes(mask).map(|l| values[l]).reduce(combine).unwrap_or(0);
    w.set32(d, mask, &[result; LANES]);
}

/// `redux.sync` on f32; a number beats NaN unless `.NaN`.
pub(crate) fn redux_float(
    block: &mut Block<'_>,
    w: &mut Warp,
    [max, magnitudes, nan]: [bool; 3],
    [d, a, members]: [Slot; 3],
    mask: u32,
) {
    check_members(block, w, mask, members, "redux.sync");
    let values = w.get32(a);
    let value = |lane: usize| {
        let value = f32::from_bits(values[lane]);
        if magnitudes {
            value.abs()
        } else {
            value
        }
    };
    let combine = |x: f32, y: f32| match max {
        _ if nan && (x.is_nan() || y.is_nan()) => f32::NAN,
        true => max_number(x, y),
        false => min_number(x, y),
    };
    let result = lanes(mask).map(value).reduce(combine).unwrap_or(0.0);
    w.set32(d, mask, &[canonical(result); LANES]);
}

/// Elects the lowest executing lane.
pub(crate) fn elect(block: &mut Block<'_>, w: &mut Warp, [d, p, members]: [Slot; 3], mask: u32) {
    check_members(block, w, mask, members, "elect.sync");
    let leader = mask.trailing_zeros();
    w.set32(d, mask, &[leader; LANES]);
    w.set_predicate(p, mask, 1u32.checked_shl(leader).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_clamp_within_their_segment() {
        use ShuffleMode::{Butterfly, Down, Index, Up};
        assert_eq!(source_lane(Up, 3, 1, 0), (2, true));
        assert_eq!(source_lane(Up, 0, 1, 0), (0, false));
        assert_eq!(source_lane(Down, 30, 1, 31), (31, true));
        assert_eq!(source_lane(Down, 31, 1, 31), (31, false));
        assert_eq!(source_lane(Butterfly, 5, 16, 31), (21, true));
        assert_eq!(source_lane(Index, 9, 3, 31), (3, true));
        // Width 8: segment mask 0x18, clamp 7 within the segment.
        let c = 0x1800 | 31;
        assert_eq!(source_lane(Index, 9, 3, c), (11, true));
        assert_eq!(source_lane(Down, 14, 2, c), (14, false));
        assert_eq!(source_lane(Up, 8, 1, 0x1800), (8, false));
    }
}
