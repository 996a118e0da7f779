//! Integer arithmetic, logic and shifts, and the lane loops that other executors share.

use crate::program::{Int1, Int2, IntType, Slot};
use crate::state::{each_lane, Lanes32, Lanes64, Warp, LANES};

/// d = f(a, b) in the 32-bit file.
#[inline(always)]
pub(crate) fn map2(w: &mut Warp, mask: u32, [d, a, b]: [Slot; 3], f: impl Fn(u32, u32) -> u32) {
    let (x, y) = (w.get32(a), w.get32(b));
    let out: Lanes32 = each_lane!(|lane| f(x[lane], y[lane]));
    w.set32(d, mask, &out);
}

/// d = f(a, b) in the 64-bit file.
#[inline(always)]
pub(crate) fn map2_64(w: &mut Warp, mask: u32, [d, a, b]: [Slot; 3], f: impl Fn(u64, u64) -> u64) {
    let (x, y) = (w.get64(a), w.get64(b));
    let out: Lanes64 = each_lane!(|lane| f(x[lane], y[lane]));
    w.set64(d, mask, &out);
}

/// d = f(a) in the 32-bit file.
#[inline(always)]
pub(crate) fn map1(w: &mut Warp, mask: u32, d: Slot, a: Slot, f: impl Fn(u32) -> u32) {
    let x = w.get32(a);
    let out: Lanes32 = each_lane!(|lane| f(x[lane]));
    w.set32(d, mask, &out);
}

/// d = f(a) in the 64-bit file.
#[inline(always)]
pub(crate) fn map1_64(w: &mut Warp, mask: u32, d: Slot, a: Slot, f: impl Fn(u64) -> u64) {
    let x = w.get64(a);
    let out: Lanes64 = each_lane!(|lane| f(x[lane]));
    w.set64(d, mask, &out);
}

/// d = f(a, b, c) in the 32-bit file.
#[inline(always)]
pub(crate) fn map3(
    w: &mut Warp,
    mask: u32,
    [d, a, b, c]: [Slot; 4],
    f: impl Fn(u32, u32, u32) -> u32,
) {
    let (x, y, z) = (w.get32(a), w.get32(b), w.get32(c));
    let out: Lanes32 = each_lane!(|lane| f(x[lane], y[lane], z[lane]));
    w.set32(d, mask, &out);
}

/// d = f(a, b, c) in the 64-bit file.
#[inline(always)]
pub(crate) fn map3_64(
    w: &mut Warp,
    mask: u32,
    [d, a, b, c]: [Slot; 4],
    f: impl Fn(u64, u64, u64) -> u64,
) {
    let (x, y, z) = (w.get64(a), w.get64(b), w.get64(c));
    let out: Lanes64 = each_lane!(|lane| f(x[lane], y[lane], z[lane]));
    w.set64(d, mask, &out);
}

/// Quotient or remainder; division by zero gives all ones, the machine's answer where PTX leaves
/// it open.
macro_rules! division {
    ($op:ident, $ty:ty, $a:expr, $b:expr) => {
        if $b == 0 {
            <$ty>::MAX as u64
        } else {
            ($a as $ty).$op($b as $ty) as u64
        }
    };
}

/// The operation on zero- or sign-extended 64-bit values, for every type; the caller truncates.
#[inline(always)]
fn scalar2(op: Int2, ty: IntType, a: u64, b: u64) -> u64 {
    let signed = matches!(ty, IntType::S16 | IntType::S32 | IntType::S64);
    match op {
        Int2::Add => a.wrapping_add(b),
        Int2::Sub => a.wrapping_sub(b),
        Int2::MulLo => a.wrapping_mul(b),
        Int2::And => a & b,
        Int2::Or => a | b,
        Int2::Xor => a ^ b,
        Int2::Min if signed => (a as i64).min(b as i64) as u64,
        Int2::Max if signed => (a as i64).max(b as i64) as u64,
        Int2::Min => a.min(b),
        Int2::Max => a.max(b),
        Int2::AddSat => {
            (a as i64 + b as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u64
        }
        Int2::SubSat => {
            (a as i64 - b as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u64
        }
        Int2::MulHi => high_product(ty, a, b),
        Int2::Div if signed => division!(wrapping_div, i64, a, b),
        Int2::Div => division!(wrapping_div, u64, a, b),
        Int2::Rem if signed => {
            if b == 0 {
                a
            } else {
                (a as i64).wrapping_rem(b as i64) as u64
            }
        }
        Int2::Rem => a.checked_rem(b).unwrap_or(a),
        Int2::Shl | Int2::Shr => a,
    }
}

fn high_product(ty: IntType, a: u64, b: u64) -> u64 {
    match ty {
        IntType::U16 | IntType::S16 => a.wrapping_mul(b) >> 16,
        IntType::U32 | IntType::S32 => a.wrapping_mul(b) >> 32,
        IntType::U64 => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        IntType::S64 => ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64,
    }
}

/// The value of a register as its type sees it, extended to 64 bits.
#[inline(always)]
fn extend(ty: IntType, value: u32) -> u64 {
    match ty {
        IntType::U16 => u64::from(value & 0xFFFF),
        IntType::S16 => value as u16 as i16 as i64 as u64,
        IntType::S32 => value as i32 as i64 as u64,
        _ => u64::from(value),
    }
}

/// Truncates a result to the register width of its type.
#[inline(always)]
fn truncate(ty: IntType, value: u64) -> u32 {
    match ty {
        IntType::U16 | IntType::S16 => value as u32 & 0xFFFF,
        _ => value as u32,
    }
}

#[inline(always)]
pub(crate) fn int2(w: &mut Warp, mask: u32, op: Int2, ty: IntType, slots: [Slot; 3]) {
    use IntType::{S32, S64, U32, U64};
    match (op, ty) {
        (Int2::Shl | Int2::Shr, _) => shift(w, mask, op == Int2::Shl, ty, slots),
        (Int2::Add, U32 | S32) => map2(w, mask, slots, u32::wrapping_add),
        (Int2::Sub, U32 | S32) => map2(w, mask, slots, u32::wrapping_sub),
        (Int2::MulLo, U32 | S32) => map2(w, mask, slots, u32::wrapping_mul),
        (Int2::And, U32) => map2(w, mask, slots, |a, b| a & b),
        (Int2::Or, U32) => map2(w, mask, slots, |a, b| a | b),
        (Int2::Xor, U32) => map2(w, mask, slots, |a, b| a ^ b),
        (Int2::Add, U64 | S64) => map2_64(w, mask, slots, u64::wrapping_add),
        (Int2::Sub, U64 | S64) => map2_64(w, mask, slots, u64::wrapping_sub),
        (Int2::Min, S32) => map2(w, mask, slots, |a, b| (a as i32).min(b as i32) as u32),
        (Int2::Max, S32) => map2(w, mask, slots, |a, b| (a as i32).max(b as i32) as u32),
        (Int2::Min, U32) => map2(w, mask, slots, u32::min),
        (Int2::Max, U32) => map2(w, mask, slots, u32::max),
        _ => rare2(w, mask, op, ty, slots),
    }
}

/// Operations and types that few kernels use, or use rarely.
fn rare2(w: &mut Warp, mask: u32, op: Int2, ty: IntType, slots: [Slot; 3]) {
    match ty {
        IntType::U64 | IntType::S64 => map2_64(w, mask, slots, |a, b| scalar2(op, ty, a, b)),
        _ => {
            map2(w, mask, slots, |a, b| truncate(ty, scalar2(op, ty, extend(ty, a), extend(ty, b))))
        }
    }
}

/// Shifts clamp: amounts of the width or more give 0, or the sign for signed right shifts.
#[inline(always)]
fn shift(w: &mut Warp, mask: u32, left: bool, ty: IntType, [d, a, b]: [Slot; 3]) {
    match (ty, left) {
        (IntType::U32 | IntType::S32, true) => {
            map2(w, mask, [d, a, b], |x, n| if n < 32 { x << n } else { 0 });
        }
        (IntType::U32, false) => map2(w, mask, [d, a, b], |x, n| if n < 32 { x >> n } else { 0 }),
        (IntType::S32, false) => map2(w, mask, [d, a, b], |x, n| ((x as i32) >> n.min(31)) as u32),
        (IntType::U16 | IntType::S16, true) => {
            map2(w, mask, [d, a, b], |x, n| if n < 16 { x << n & 0xFFFF } else { 0 });
        }
        (IntType::U16, false) => {
            map2(w, mask, [d, a, b], |x, n| if n < 16 { (x & 0xFFFF) >> n } else { 0 });
        }
        (IntType::S16, false) => {
            map2(w, mask, [d, a, b], |x, n| u32::from((x as u16 as i16 >> n.min(15)) as u16))
        }
        (IntType::U64 | IntType::S64, _) => {
            let signed = ty == IntType::S64;
            let (x, n) = (w.get64(a), w.get32(b));
            let out: Lanes64 = each_lane!(|lane| {
                let (x, n) = (x[lane], n[lane]);
                match (left, signed) {
                    (true, _) => x.checked_shl(n).unwrap_or(0),
                    (false, false) => x.checked_shr(n).unwrap_or(0),
                    (false, true) => ((x as i64) >> n.min(63)) as u64,
                }
            });
            w.set64(d, mask, &out);
        }
    }
}

pub(crate) fn int1(w: &mut Warp, mask: u32, op: Int1, ty: IntType, d: Slot, a: Slot) {
    let wide = matches!(ty, IntType::U64 | IntType::S64);
    let counts = matches!(op, Int1::Popc | Int1::Clz | Int1::Bfind | Int1::BfindShift);
    if wide && counts {
        let out: Lanes32 = w.get64(a).map(|x| match op {
            Int1::Popc => x.count_ones(),
            Int1::Clz => x.leading_zeros(),
            _ => found(op, find_highest(x, 64, ty == IntType::S64), 64),
        });
        w.set32(d, mask, &out);
    } else if wide {
        map1_64(w, mask, d, a, |x| scalar1(op, x, 64));
    } else {
        let bits = if matches!(ty, IntType::U16 | IntType::S16) { 16 } else { 32 };
        map1(w, mask, d, a, |x| match op {
            Int1::Popc => x.count_ones(),
            Int1::Clz => x.leading_zeros(),
            Int1::Bfind | Int1::BfindShift => {
                found(op, find_highest(u64::from(x), 32, ty == IntType::S32), 32)
            }
            _ => truncate(ty, scalar1(op, extend(ty, x), bits)),
        });
    }
}

fn scalar1(op: Int1, x: u64, bits: u32) -> u64 {
    match op {
        Int1::Neg => x.wrapping_neg(),
        Int1::Abs => (x as i64).wrapping_abs() as u64,
        Int1::Not => !x,
        Int1::Cnot => u64::from(x == 0),
        Int1::Brev => x.reverse_bits() >> (64 - bits),
        Int1::Popc | Int1::Clz | Int1::Bfind | Int1::BfindShift => x,
    }
}

/// The position found, or for `.shiftamt` its distance from the top.
fn found(op: Int1, position: u32, bits: u32) -> u32 {
    if op == Int1::BfindShift && position != u32::MAX {
        bits - 1 - position
    } else {
        position
    }
}

/// Position of the most significant bit that differs from the sign; all ones if there is none.
fn find_highest(x: u64, bits: u32, signed: bool) -> u32 {
    let x = if signed && x >> (bits - 1) & 1 == 1 { !x & (u64::MAX >> (64 - bits)) } else { x };
    if x == 0 {
        u32::MAX
    } else {
        63 - x.leading_zeros()
    }
}

#[inline(always)]
pub(crate) fn mul_wide(
    w: &mut Warp,
    mask: u32,
    ty: IntType,
    [d, a, b]: [Slot; 3],
    c: Option<Slot>,
) {
    match ty {
        IntType::U16 | IntType::S16 => {
            let zero = [0; LANES];
            let addend = c.map_or(&zero, |c| w.get32(c));
            let (x, y) = (w.get32(a), w.get32(b));
            let out: Lanes32 = each_lane!(|lane| {
                let product = extend(ty, x[lane]).wrapping_mul(extend(ty, y[lane]));
                (product as u32).wrapping_add(addend[lane])
            });
            w.set32(d, mask, &out);
        }
        _ => {
            let zero = [0; LANES];
            let addend = c.map_or(&zero, |c| w.get64(c));
            let (x, y) = (w.get32(a), w.get32(b));
            let out: Lanes64 = if ty == IntType::S32 {
                each_lane!(|lane| {
                    let product = i64::from(x[lane] as i32) * i64::from(y[lane] as i32);
                    (product as u64).wrapping_add(addend[lane])
                })
            } else {
                each_lane!(|lane| {
                    (u64::from(x[lane]) * u64::from(y[lane])).wrapping_add(addend[lane])
                })
            };
            w.set64(d, mask, &out);
        }
    }
}

#[inline(always)]
pub(crate) fn mad(w: &mut Warp, mask: u32, hi: bool, ty: IntType, slots: [Slot; 4]) {
    let op = if hi { Int2::MulHi } else { Int2::MulLo };
    match ty {
        IntType::U64 | IntType::S64 => {
            map3_64(w, mask, slots, |a, b, c| scalar2(op, ty, a, b).wrapping_add(c));
        }
        IntType::U32 | IntType::S32 if !hi => {
            map3(w, mask, slots, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        }
        _ => map3(w, mask, slots, |a, b, c| {
            let product = scalar2(op, ty, extend(ty, a), extend(ty, b));
            truncate(ty, product.wrapping_add(u64::from(c)))
        }),
    }
}

/// Two 16-bit results, each as its own type would give it.
pub(crate) fn int16x2(w: &mut Warp, mask: u32, op: Int2, signed: bool, slots: [Slot; 3]) {
    let ty = if signed { IntType::S16 } else { IntType::U16 };
    let half = |a: u32, b: u32| truncate(ty, scalar2(op, ty, extend(ty, a), extend(ty, b)));
    map2(w, mask, slots, |a, b| half(a & 0xFFFF, b & 0xFFFF) | half(a >> 16, b >> 16) << 16);
}

pub(crate) fn sad(w: &mut Warp, mask: u32, ty: IntType, slots: [Slot; 4]) {
    let distance = |a: u64, b: u64| match ty {
        IntType::U16 | IntType::U32 | IntType::U64 => a.abs_diff(b),
        _ => (a as i64).abs_diff(b as i64),
    };
    if matches!(ty, IntType::U64 | IntType::S64) {
        map3_64(w, mask, slots, |a, b, c| distance(a, b).wrapping_add(c));
    } else {
        map3(w, mask, slots, |a, b, c| {
            truncate(ty, distance(extend(ty, a), extend(ty, b)).wrapping_add(u64::from(c)))
        });
    }
}

/// Part `index` of a word, `bits` wide, as its signedness reads it.
fn part(word: u32, index: u32, bits: u32, signed: bool) -> i32 {
    let top_aligned = word >> (bits * index) << (32 - bits);
    if signed {
        top_aligned as i32 >> (32 - bits)
    } else {
        (top_aligned >> (32 - bits)) as i32
    }
}

pub(crate) fn dp4a(w: &mut Warp, mask: u32, signs: [bool; 2], slots: [Slot; 4]) {
    map3(w, mask, slots, |a, b, c| {
        let product = |i: u32| part(a, i, 8, signs[0]) * part(b, i, 8, signs[1]);
        c.wrapping_add((0..4).map(product).sum::<i32>() as u32)
    });
}

pub(crate) fn dp2a(w: &mut Warp, mask: u32, high: bool, signs: [bool; 2], slots: [Slot; 4]) {
    let first = if high { 2 } else { 0 };
    map3(w, mask, slots, |a, b, c| {
        let product = |i: u32| part(a, i, 16, signs[0]) * part(b, first + i, 8, signs[1]);
        c.wrapping_add((0..2).map(product).sum::<i32>() as u32)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_products_and_divisions_follow_the_type() {
        assert_eq!(high_product(IntType::S32, -1i64 as u64, 2) as u32, u32::MAX);
        assert_eq!(high_product(IntType::U32, 0xFFFF_FFFF, 2), 1);
        assert_eq!(scalar2(Int2::Div, IntType::S32, -7i64 as u64, 2) as i64, -3);
        assert_eq!(scalar2(Int2::Rem, IntType::S32, -7i64 as u64, 2) as i64, -1);
        assert_eq!(scalar2(Int2::Div, IntType::U32, 7, 0) as u32, u32::MAX);
    }

    #[test]
    fn the_highest_bit_is_found_relative_to_the_sign() {
        assert_eq!(find_highest(0, 32, false), u32::MAX);
        assert_eq!(find_highest(0x80, 32, false), 7);
        assert_eq!(find_highest(0xFFFF_FFFF, 32, true), u32::MAX);
        assert_eq!(find_highest(0xFFFF_FF00, 32, true), 7);
    }
}
