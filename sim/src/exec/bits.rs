//! Bit fields, byte permutation, three-input logic and funnel shifts.

use super::int::map3;
use crate::program::{IntType, Slot};
use crate::state::{each_lane, Lanes32, Lanes64, Warp};

/// Bit field extract (PTX ISA 9.7.1.19): past the top the sign (or 0) fills in.
fn extract(value: u64, bits: u32, signed: bool, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xFF, len & 0xFF);
    let msb = bits - 1;
    let sign_at = pos.saturating_add(len).saturating_sub(1).min(msb);
    let sign = signed && len > 0 && value >> sign_at & 1 == 1;
    // Bits of the field above the register's own top are sign copies too.
    let available = if pos > msb { 0 } else { (bits - pos).min(len) };
    let keep = if available >= 64 { u64::MAX } else { (1u64 << available) - 1 };
    let low = value.checked_shr(pos).unwrap_or(0) & keep;
    if sign {
        low | !keep
    } else {
        low
    }
}

/// `bmsk` (PTX ISA 9.7.1.24): `b` ones from bit `a` on; `.clamp` cuts what reaches past the top,
/// `.wrap` takes both numbers modulo 32.
pub(crate) fn mask(wrap: bool, a: u32, b: u32) -> u32 {
    let (start, length) = (a & 31, b & 31);
    let from = if !wrap && a >= 32 { 0 } else { u32::MAX << start };
    if !wrap && (a >= 32 || b >= 32) {
        return from;
    }
    from & !u32::MAX.checked_shl(start + length).unwrap_or(0)
}

/// `szext` (PTX ISA 9.7.1.23): the low `b` bits, sign- or zero-extended.
pub(crate) fn extend(wrap: bool, signed: bool, a: u32, b: u32) -> u32 {
    let bits = b & 31;
    if !wrap && b >= 32 {
        return a;
    }
    let above = u32::MAX << bits;
    let sign = signed && bits > 0 && a >> (bits - 1) & 1 == 1;
    if sign {
        a | above
    } else {
        a & !above
    }
}

/// `fns` (PTX ISA 9.7.1.18): position of the n-th set bit from `base` upward, downward for a
/// negative n, or of `base` itself for 0; all ones when there is none.
pub(crate) fn find_nth_set(a: u32, base: u32, n: i32) -> u32 {
    let set = |position: &u32| a >> position & 1 == 1;
    let skipped = n.unsigned_abs().saturating_sub(1) as usize;
    let found = match n {
        0 => Some(base).filter(|base| *base < 32 && set(base)),
        1.. => (base..32).filter(set).nth(skipped),
        _ => (0..=base.min(31)).rev().filter(set).nth(skipped),
    };
    found.unwrap_or(u32::MAX)
}

pub(crate) fn bfe(w: &mut Warp, mask: u32, ty: IntType, [d, a, pos, len]: [Slot; 4]) {
    let signed = matches!(ty, IntType::S32 | IntType::S64);
    if matches!(ty, IntType::U64 | IntType::S64) {
        let (x, p, n) = (w.get64(a), w.get32(pos), w.get32(len));
        let out: Lanes64 = each_lane!(|l| extract(x[l], 64, signed, p[l], n[l]));
        w.set64(d, mask, &out);
    } else {
        map3(w, mask, [d, a, pos, len], |x, p, n| extract(u64::from(x), 32, signed, p, n) as u32);
    }
}

/// Bit field insert: `len` low bits of `a` into `b` at `pos`.
fn insert(a: u64, b: u64, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xFF, len & 0xFF);
    let field = if len >= 64 { u64::MAX } else { (1u64 << len) - 1 };
    let place = field.checked_shl(pos).unwrap_or(0);
    b & !place | a.checked_shl(pos).unwrap_or(0) & place
}

pub(crate) fn bfi(w: &mut Warp, mask: u32, wide: bool, [d, a, b, pos, len]: [Slot; 5]) {
    let (p, n) = (w.get32(pos), w.get32(len));
    if wide {
        let (x, y) = (w.get64(a), w.get64(b));
        let out: Lanes64 = each_lane!(|l| insert(x[l], y[l], p[l], n[l]));
        w.set64(d, mask, &out);
    } else {
        let (x, y) = (w.get32(a), w.get32(b));
        let out: Lanes32 =
            each_lane!(|l| insert(u64::from(x[l]), u64::from(y[l]), p[l], n[l]) as u32);
        w.set32(d, mask, &out);
    }
}

#[inline(always)]
pub(crate) fn lop3(w: &mut Warp, mask: u32, table: u8, slots: [Slot; 4]) {
    match table {
        // The two tables of magic-number dequantisation: (a & b) | c and a ^ b ^ c.
        0xEA => map3(w, mask, slots, |a, b, c| a & b | c),
        0x96 => map3(w, mask, slots, |a, b, c| a ^ b ^ c),
        _ => any_lop3(w, mask, table, slots),
    }
}

/// The sum of minterms that a table names (PTX ISA 9.7.7.6).
fn any_lop3(w: &mut Warp, mask: u32, table: u8, slots: [Slot; 4]) {
    map3(w, mask, slots, |a, b, c| {
        let mut result = 0;
        for minterm in 0..8u32 {
            let take = 0u32.wrapping_sub(u32::from(table >> minterm) & 1);
            let x = if minterm & 4 != 0 { a } else { !a };
            let y = if minterm & 2 != 0 { b } else { !b };
            let z = if minterm & 1 != 0 { c } else { !c };
            result |= x & y & z & take;
        }
        result
    });
}

/// Byte permutation (PTX ISA 9.7.9.7).
fn permute(mode: u8, a: u32, b: u32, c: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let pick = |i: u32| u32::from(bytes[(i & 7) as usize]);
    let n = c & 3;
    let index = |byte: u32| match mode {
        1 => n + byte,
        2 => n.wrapping_sub(byte) & 7,
        3 => n,
        4 => n.max(byte),
        5 => n.min(byte),
        _ => (n & 1) * 2 + (byte & 1),
    };
    (0..4).fold(0, |word, byte| {
        let value = if mode == 0 {
            let selector = c >> (4 * byte);
            let value = pick(selector);
            if selector & 8 == 0 {
                value
            } else if value & 0x80 != 0 {
                0xFF
            } else {
                0
            }
        } else {
            pick(index(byte))
        };
        word | value << (8 * byte)
    })
}

pub(crate) fn prmt(w: &mut Warp, mask: u32, mode: u8, slots: [Slot; 4]) {
    map3(w, mask, slots, |a, b, c| permute(mode, a, b, c));
}

pub(crate) fn funnel_shift(w: &mut Warp, mask: u32, left: bool, wrap: bool, slots: [Slot; 4]) {
    map3(w, mask, slots, |a, b, c| {
        let n = if wrap { c & 31 } else { c.min(32) };
        let both = u64::from(b) << 32 | u64::from(a);
        if left {
            (both << n >> 32) as u32
        } else {
            (both >> n) as u32
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prmt_default_mode_picks_bytes_and_replicates_signs() {
        assert_eq!(permute(0, 0x3322_1100, 0x7766_5544, 0x7531), 0x7755_3311);
        assert_eq!(permute(0, 0x0000_8001, 0, 0x9898), 0xFF00_FF00);
        assert_eq!(permute(1, 0x3322_1100, 0x7766_5544, 1), 0x4433_2211);
        assert_eq!(permute(2, 0x3322_1100, 0x7766_5544, 1), 0x6677_0011);
        assert_eq!(permute(3, 0x3322_1100, 0, 2), 0x2222_2222);
        assert_eq!(permute(4, 0x3322_1100, 0, 2), 0x3322_2222);
        assert_eq!(permute(5, 0x3322_1100, 0, 2), 0x2222_1100);
        assert_eq!(permute(6, 0x3322_1100, 0, 1), 0x3322_3322);
    }

    #[test]
    fn fields_extract_with_sign_fill_and_insert_in_place() {
        assert_eq!(extract(0xF0, 32, false, 4, 4), 0xF);
        assert_eq!(extract(0xF0, 32, true, 4, 4) as u32, u32::MAX);
        assert_eq!(extract(0x8000_0000, 32, true, 28, 8) as u32, 0xFFFF_FFF8);
        assert_eq!(extract(0x8000_0000, 32, false, 28, 8), 8);
        assert_eq!(extract(0x8000_0000, 32, true, 40, 8) as u32, u32::MAX);
        assert_eq!(extract(5, 32, true, 0, 0), 0);
        assert_eq!(insert(0xAB, 0xFFFF_FFFF, 8, 8) as u32, 0xFFFF_ABFF);
        assert_eq!(insert(1, 2, 40, 8) as u32, 2);
    }
}
