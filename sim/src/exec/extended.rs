//! Extended-precision integer arithmetic: additions that pass a carry on.
//!
//! A subtraction adds the complement, and its flag is the adder's carry: set where there is no
//! borrow. That makes no difference to `subc`, but `addc` after `sub.cc` sees it, and the 128-bit
//! division of NVIDIA's compiler is built on that.

use crate::program::{Extended, ExtendedOp, IntType, PredicateSource, Slot};
use crate::state::{each_lane, Lanes32, Lanes64, Warp, FULL, LANES};

/// The result and the carry of one lane.
fn scalar(op: ExtendedOp, ty: IntType, [a, b, c]: [u64; 3], carry: bool) -> (u64, bool) {
    let (bits, signed) = match ty {
        IntType::U64 => (64, false),
        IntType::S64 => (64, true),
        IntType::S32 | IntType::S16 => (32, true),
        IntType::U32 | IntType::U16 => (32, false),
    };
    let keep = u64::MAX >> (64 - bits);
    let (a, b, c) = (u128::from(a & keep), u128::from(b & keep), u128::from(c & keep));
    let sum = match op {
        ExtendedOp::Add => a + b + u128::from(carry),
        ExtendedOp::Sub => a + (b ^ u128::from(keep)) + u128::from(carry),
        ExtendedOp::MadLo => ((a * b) & u128::from(keep)) + c + u128::from(carry),
        ExtendedOp::MadHi => high(a, b, bits, signed) + c + u128::from(carry),
    };
    (sum as u64 & keep, sum >> bits & 1 == 1)
}

/// The upper `bits` bits of a product.
fn high(a: u128, b: u128, bits: u32, signed: bool) -> u128 {
    let unused = 128 - bits;
    let product = if signed {
        let extend = |value: u128| (value << unused) as i128 >> unused;
        (extend(a) * extend(b)) as u128
    } else {
        a * b
    };
    product >> bits & (u128::MAX >> unused)
}

/// Executes one operation for the lanes of `mask`.
pub(crate) fn execute(w: &mut Warp, mask: u32, operation: &Extended) {
    let Extended { op, ty, d, sources, carry_in, carry_out } = *operation;
    let none = if op == ExtendedOp::Sub { FULL } else { 0 };
    let carry = carry_in.map_or(none, |slot| w.predicate(PredicateSource { slot, negated: false }));
    let wide = matches!(ty, IntType::U64 | IntType::S64);
    let [a, b, c] = sources.map(|slot: Slot| -> Lanes64 {
        if wide {
            *w.get64(slot)
        } else {
            w.get32(slot).map(u64::from)
        }
    });
    let mut carries = 0;
    let mut results: Lanes64 = [0; LANES];
    for lane in 0..LANES {
        let sources = [a[lane], b[lane], c[lane]];
        let (result, carried) = scalar(op, ty, sources, carry >> lane & 1 == 1);
        results[lane] = result;
        carries |= u32::from(carried) << lane;
    }
    if wide {
        w.set64(d, mask, &results);
    } else {
        let narrow: Lanes32 = each_lane!(|lane| results[lane] as u32);
        w.set32(d, mask, &narrow);
    }
    if let Some(slot) = carry_out {
        w.set_predicate(slot, mask, carries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_words_give_the_arithmetic_of_the_whole() {
        let words = |value: u64| [value as u32, (value >> 32) as u32].map(u64::from);
        let interesting = [0, 1, u64::MAX, 1 << 63, 0xFFFF_FFFF, 1 << 32, 0x0123_4567_89AB_CDEF];
        for a in interesting {
            for b in interesting {
                let ([al, ah], [bl, bh]) = (words(a), words(b));
                for (op, whole) in
                    [(ExtendedOp::Add, a.wrapping_add(b)), (ExtendedOp::Sub, a.wrapping_sub(b))]
                {
                    let start = op == ExtendedOp::Sub;
                    let (low, carry) = scalar(op, IntType::U32, [al, bl, 0], start);
                    let (high, _) = scalar(op, IntType::U32, [ah, bh, 0], carry);
                    assert_eq!(high << 32 | low, whole, "{op:?} {a:#x} {b:#x}");
                }
                // a.low * b + b as a 96-bit number.
                let (w0, carry) = scalar(ExtendedOp::MadLo, IntType::U32, [al, bl, bl], false);
                let (w1, top) = scalar(ExtendedOp::MadHi, IntType::U32, [al, bl, bh], carry);
                let (w1, carry) = scalar(ExtendedOp::MadLo, IntType::U32, [al, bh, w1], false);
                let w2 = scalar(ExtendedOp::MadHi, IntType::U32, [al, bh, top.into()], carry).0;
                let whole = u128::from(al) * u128::from(b) + u128::from(b);
                let found = u128::from(w2) << 64 | u128::from(w1) << 32 | u128::from(w0);
                assert_eq!(found, whole, "{a:#x} {b:#x}");
            }
        }
    }

    #[test]
    fn signed_high_products_keep_their_sign() {
        let minus = u64::from((-3i32) as u32);
        assert_eq!(scalar(ExtendedOp::MadHi, IntType::S32, [minus, 5, 7], false), (6, true));
        assert_eq!(scalar(ExtendedOp::MadHi, IntType::U32, [minus, 5, 7], true), (12, false));
        let minus = (-3i64) as u64;
        assert_eq!(
            scalar(ExtendedOp::MadHi, IntType::S64, [minus, 5, 0], false),
            (u64::MAX, false)
        );
    }
}
