//! Integer arithmetic, logic, comparison and selection.

use crate::program::{BoolOp, Compare, CompareType, Int1, Int2, IntType, PredicateSource, Slot};
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
        Int2::AddSat => (a as i64 + b as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u64,
        Int2::SubSat => (a as i64 - b as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u64,
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
        IntType::U64 => (u128::from(a) * u128::from(b) >> 64) as u64,
        IntType::S64 => (i128::from(a as i64) * i128::from(b as i64) >> 64) as u64,
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
        (_, U64 | S64) => map2_64(w, mask, slots, |a, b| scalar2(op, ty, a, b)),
        _ => map2(w, mask, slots, |a, b| {
            truncate(ty, scalar2(op, ty, extend(ty, a), extend(ty, b)))
        }),
    }
}

/// Shifts clamp: amounts of the width or more give 0, or the sign for signed right shifts.
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
        (IntType::S16, false) => map2(w, mask, [d, a, b], |x, n| {
            u32::from((x as u16 as i16 >> n.min(15)) as u16)
        }),
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
    let counts = matches!(op, Int1::Popc | Int1::Clz | Int1::Bfind);
    if wide && counts {
        let out: Lanes32 = w.get64(a).map(|x| match op {
            Int1::Popc => x.count_ones(),
            Int1::Clz => x.leading_zeros(),
            _ => find_highest(x, 64, ty == IntType::S64),
        });
        w.set32(d, mask, &out);
    } else if wide {
        map1_64(w, mask, d, a, |x| scalar1(op, x, 64));
    } else {
        let bits = if matches!(ty, IntType::U16 | IntType::S16) { 16 } else { 32 };
        map1(w, mask, d, a, |x| match op {
            Int1::Popc => x.count_ones(),
            Int1::Clz => x.leading_zeros(),
            Int1::Bfind => find_highest(u64::from(x), 32, ty == IntType::S32),
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
        Int1::Popc | Int1::Clz | Int1::Bfind => x,
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

pub(crate) fn mul_wide(w: &mut Warp, mask: u32, ty: IntType, [d, a, b]: [Slot; 3], c: Option<Slot>) {
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
        let out: Lanes32 = each_lane!(|l| {
            insert(u64::from(x[l]), u64::from(y[l]), p[l], n[l]) as u32
        });
        w.set32(d, mask, &out);
    }
}

pub(crate) fn lop3(w: &mut Warp, mask: u32, table: u8, slots: [Slot; 4]) {
    match table {
        // The two tables of magic-number dequantisation: (a & b) | c and a ^ b ^ c.
        0xEA => map3(w, mask, slots, |a, b, c| a & b | c),
        0x96 => map3(w, mask, slots, |a, b, c| a ^ b ^ c),
        _ => map3(w, mask, slots, |a, b, c| {
            let mut result = 0;
            for minterm in 0..8u32 {
                let take = 0u32.wrapping_sub(u32::from(table >> minterm) & 1);
                let x = if minterm & 4 != 0 { a } else { !a };
                let y = if minterm & 2 != 0 { b } else { !b };
                let z = if minterm & 1 != 0 { c } else { !c };
                result |= x & y & z & take;
            }
            result
        }),
    }
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

pub(crate) fn dp4a(w: &mut Warp, mask: u32, signs: [bool; 2], slots: [Slot; 4]) {
    let byte = |word: u32, i: u32, signed: bool| {
        let byte = (word >> (8 * i)) as u8;
        if signed {
            i32::from(byte as i8)
        } else {
            i32::from(byte)
        }
    };
    map3(w, mask, slots, |a, b, c| {
        let dot: i32 = (0..4).map(|i| byte(a, i, signs[0]) * byte(b, i, signs[1])).sum();
        c.wrapping_add(dot as u32)
    });
}

/// Mask of the lanes where an integer comparison holds.
fn compare_ints(w: &Warp, compare: Compare, ty: IntType, a: Slot, b: Slot) -> u32 {
    macro_rules! lanes {
        ($get:ident, $as:expr) => {{
            let (x, y) = (w.$get(a), w.$get(b));
            let holds = |f: fn(&std::cmp::Ordering) -> bool| {
                (0..LANES).fold(0, |m, l| m | u32::from(f(&$as(x[l]).cmp(&$as(y[l])))) << l)
            };
            match compare {
                Compare::Eq | Compare::Equ => holds(|o| o.is_eq()),
                Compare::Ne | Compare::Neu => holds(|o| o.is_ne()),
                Compare::Lt | Compare::Ltu => holds(|o| o.is_lt()),
                Compare::Le | Compare::Leu => holds(|o| o.is_le()),
                Compare::Gt | Compare::Gtu => holds(|o| o.is_gt()),
                Compare::Ge | Compare::Geu => holds(|o| o.is_ge()),
                Compare::Num => u32::MAX,
                Compare::Nan => 0,
            }
        }};
    }
    match ty {
        IntType::U16 => lanes!(get32, |v: u32| v as u16),
        IntType::S16 => lanes!(get32, |v: u32| v as i16),
        IntType::U32 => lanes!(get32, |v: u32| v),
        IntType::S32 => lanes!(get32, |v: u32| v as i32),
        IntType::U64 => lanes!(get64, |v: u64| v),
        IntType::S64 => lanes!(get64, |v: u64| v as i64),
    }
}

/// Operands of `setp`.
pub(crate) struct Setp {
    pub compare: Compare,
    pub ty: CompareType,
    pub p: Slot,
    pub q: Option<Slot>,
    pub a: Slot,
    pub b: Slot,
    pub combine: Option<(BoolOp, PredicateSource)>,
}

fn combine(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

/// `setp`: p gets the comparison, q its complement, each combined with a third predicate. Packed
/// types compare their low half into p and their high half into q.
pub(crate) fn setp(w: &mut Warp, mask: u32, s: &Setp) {
    let (mut p, mut q) = match s.ty {
        CompareType::Int(ty) => {
            let holds = compare_ints(w, s.compare, ty, s.a, s.b);
            (holds, !holds)
        }
        CompareType::Float(ty) => super::float::compare(w, s.compare, ty, s.a, s.b),
    };
    if let Some((op, source)) = s.combine {
        let third = w.predicate(source);
        (p, q) = (combine(op, p, third), combine(op, q, third));
    }
    w.set_predicate(s.p, mask, p);
    if let Some(slot) = s.q {
        w.set_predicate(slot, mask, q);
    }
}

pub(crate) fn set(
    w: &mut Warp,
    mask: u32,
    compare: Compare,
    ty: CompareType,
    float_result: bool,
    [d, a, b]: [Slot; 3],
) {
    use crate::program::FloatType;
    let out: Lanes32 = match ty {
        CompareType::Float(packed @ (FloatType::F16x2 | FloatType::Bf16x2)) => {
            let (low, high) = super::float::compare(w, compare, packed, a, b);
            let one = match (float_result, packed) {
                (false, _) => 0xFFFF,
                (true, FloatType::F16x2) => 0x3C00,
                (true, _) => 0x3F80,
            };
            each_lane!(|l| (low >> l & 1) * one | (high >> l & 1) * one << 16)
        }
        _ => {
            let holds = match ty {
                CompareType::Int(ty) => compare_ints(w, compare, ty, a, b),
                CompareType::Float(ty) => super::float::compare(w, compare, ty, a, b).0,
            };
            let one = if float_result { 1f32.to_bits() } else { u32::MAX };
            each_lane!(|l| if holds >> l & 1 != 0 { one } else { 0 })
        }
    };
    w.set32(d, mask, &out);
}

/// Selects by lane mask.
pub(crate) fn select(w: &mut Warp, mask: u32, wide: bool, [d, a, b]: [Slot; 3], choose_a: u32) {
    if wide {
        let (x, y) = (w.get64(a), w.get64(b));
        let out: Lanes64 =
            each_lane!(|l| if choose_a >> l & 1 != 0 { x[l] } else { y[l] });
        w.set64(d, mask, &out);
    } else {
        let (x, y) = (w.get32(a), w.get32(b));
        let out: Lanes32 =
            each_lane!(|l| if choose_a >> l & 1 != 0 { x[l] } else { y[l] });
        w.set32(d, mask, &out);
    }
}

/// Lanes in which `slct` takes its first operand: c >= 0 (for floats NaN takes the second).
pub(crate) fn non_negative(w: &Warp, float: bool, c: Slot) -> u32 {
    w.get32(c).iter().enumerate().fold(0, |m, (lane, &bits)| {
        let holds = if float { f32::from_bits(bits) >= 0.0 } else { bits as i32 >= 0 };
        m | u32::from(holds) << lane
    })
}

pub(crate) fn predicate_logic(
    w: &mut Warp,
    mask: u32,
    op: BoolOp,
    d: Slot,
    a: PredicateSource,
    b: PredicateSource,
) {
    let value = combine(op, w.predicate(a), w.predicate(b));
    w.set_predicate(d, mask, value);
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
