//! f32 operations with operands of their own kind: smallest and largest of three values or by
//! magnitude, and sums and products with half-precision operands.

use super::float::{modified, operand, rounded2, rounded_fma, select2};
use super::numeric::{bf16_to_f32, f16_to_f32};
use crate::program::{Extreme, Float2, FloatFlags, MixedFloat, MixedOp};
use crate::state::{each_lane, Lanes32, Warp};

/// The extreme of two or three values (PTX ISA 9.7.3.11, 9.7.3.12).
fn extreme_of(e: &Extreme, [a, b, c]: [u32; 3]) -> u32 {
    let flags = FloatFlags { ftz: e.ftz, ..FloatFlags::default() };
    let value = |bits: u32| {
        let value = operand(flags, bits);
        if e.magnitudes {
            value.abs()
        } else {
            value
        }
    };
    let of_two = select2(e.op, value(a), value(b));
    let result = modified(flags, if e.three { select2(e.op, of_two, value(c)) } else { of_two });
    let sign = if e.xor_sign { (a ^ b) & 0x8000_0000 } else { 0 };
    // A NaN has no sign to give.
    if f32::from_bits(result).is_nan() {
        result
    } else {
        result | sign
    }
}

/// Executes `min` or `max` in one of its longer forms.
pub(crate) fn extreme(w: &mut Warp, mask: u32, e: &Extreme) {
    let [a, b, c] = e.sources.map(|slot| *w.get32(slot));
    let out: Lanes32 = each_lane!(|lane| extreme_of(e, [a[lane], b[lane], c[lane]]));
    w.set32(e.d, mask, &out);
}

/// Executes `add`, `sub` or `fma` on f32 with operands in half precision (PTX ISA 9.7.5).
pub(crate) fn mixed(w: &mut Warp, mask: u32, m: &MixedFloat) {
    let [a, b, c] = m.sources.map(|slot| *w.get32(slot));
    let widen = |bits: u32| {
        if m.bf16 {
            bf16_to_f32(bits & 0xFFFF)
        } else {
            f16_to_f32(bits & 0xFFFF)
        }
    };
    let of = |[a, b, c]: [u32; 3]| {
        let c = f32::from_bits(c);
        let result = match m.op {
            MixedOp::Add => rounded2(Float2::Add, m.flags, widen(a), c),
            MixedOp::Sub => rounded2(Float2::Sub, m.flags, widen(a), c),
            MixedOp::Fma => rounded_fma(m.flags, widen(a), widen(b), c),
        };
        modified(m.flags, result)
    };
    let out: Lanes32 = each_lane!(|lane| of([a[lane], b[lane], c[lane]]));
    w.set32(m.d, mask, &out);
}
