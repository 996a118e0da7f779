//! Comparison, selection and predicate logic.

use crate::program::{BoolOp, Compare, CompareType, FloatType, IntType, PredicateSource, Slot};
use crate::state::{each_lane, Lanes32, Lanes64, Warp, LANES};

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
#[inline(always)]
pub(crate) fn setp(w: &mut Warp, mask: u32, s: &Setp) {
    let (mut p, mut q) = match s.ty {
        CompareType::Int(ty) => {
            let holds = compare_ints(w, s.compare, ty, s.a, s.b);
            (holds, !holds)
        }
        CompareType::Float(ty) => super::float::compare(w, s.compare, ty, s.a, s.b),
        CompareType::FlushedF32 => {
            let holds = super::float::compare_flushed(w, s.compare, s.a, s.b);
            (holds, !holds)
        }
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
    let out: Lanes32 = match ty {
        CompareType::Float(packed @ (FloatType::F16x2 | FloatType::Bf16x2)) => {
            let (low, high) = super::float::compare(w, compare, packed, a, b);
            let one = match (float_result, packed) {
                (false, _) => 0xFFFF,
                (true, FloatType::F16x2) => 0x3C00,
                (true, _) => 0x3F80,
            };
            each_lane!(|l| ((low >> l & 1) * one) | (((high >> l & 1) * one) << 16))
        }
        _ => {
            let holds = match ty {
                CompareType::Int(ty) => compare_ints(w, compare, ty, a, b),
                CompareType::Float(ty) => super::float::compare(w, compare, ty, a, b).0,
                CompareType::FlushedF32 => super::float::compare_flushed(w, compare, a, b),
            };
            let one = if float_result { 1f32.to_bits() } else { u32::MAX };
            each_lane!(|l| if holds >> l & 1 != 0 { one } else { 0 })
        }
    };
    w.set32(d, mask, &out);
}

/// Selects by lane mask.
#[inline(always)]
pub(crate) fn select(w: &mut Warp, mask: u32, wide: bool, [d, a, b]: [Slot; 3], choose_a: u32) {
    if wide {
        let (x, y) = (w.get64(a), w.get64(b));
        let out: Lanes64 = each_lane!(|l| if choose_a >> l & 1 != 0 { x[l] } else { y[l] });
        w.set64(d, mask, &out);
    } else {
        let (x, y) = (w.get32(a), w.get32(b));
        let out: Lanes32 = each_lane!(|l| if choose_a >> l & 1 != 0 { x[l] } else { y[l] });
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

#[inline(always)]
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
