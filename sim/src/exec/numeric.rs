//! Scalar number formats: exact conversions between f16, bf16, f32 and f64, and the fused
//! multiply-add of the half formats with its single rounding.
//!
//! Everything is branch-free where it is used in 32-lane loops, so that the loops vectorise.

use crate::program::Rounding;

/// The NaN that PTX arithmetic returns for f16 and bf16 alike.
pub(crate) const HALF_NAN: u16 = 0x7FFF;
/// The NaN that PTX arithmetic returns for f32.
pub(crate) const F32_NAN: u32 = 0x7FFF_FFFF;

/// f16 bits to f32, subnormals included.
#[inline(always)]
pub(crate) fn f16_to_f32(half: u32) -> f32 {
    // Exponent and mantissa moved up sit 112 too low in the exponent; the multiplication by 2^112
    // corrects that and normalises subnormals, exactly.
    let magnitude = f32::from_bits((half & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
    let special = (half & 0x7C00) == 0x7C00;
    let bits = if special { 0x7F80_0000 | (half & 0x3FF) << 13 } else { magnitude.to_bits() };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// f32 to f16 bits, rounding to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u32 {
    let bits = value.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7FFF_FFFF;
    // Below 2^-14 the result is subnormal: adding 0.5 aligns the mantissa so that the FPU rounds
    // at the right bit.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3F00_0000);
    let odd = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xFFF + odd) >> 13;
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let rounded = if magnitude >= 0x4780_0000 { 0x7C00 } else { finite };
    if magnitude > 0x7F80_0000 {
        u32::from(HALF_NAN)
    } else {
        rounded | sign
    }
}

/// f32 to f16 bits, rounding toward zero.
pub(crate) fn f32_to_f16_truncated(value: f32) -> u32 {
    let nearest = f32_to_f16(value);
    if value.is_infinite() || value.is_nan() {
        return nearest;
    }
    if f16_to_f32(nearest).abs() > value.abs() {
        nearest - 1
    } else {
        nearest
    }
}

/// bf16 bits to f32.
#[inline(always)]
pub(crate) fn bf16_to_f32(half: u32) -> f32 {
    f32::from_bits(half << 16)
}

/// f32 to bf16 bits, rounding to nearest even.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if bits & 0x7FFF_FFFF > 0x7F80_0000 {
        u32::from(HALF_NAN)
    } else {
        rounded
    }
}

/// f32 to bf16 bits, rounding toward zero.
pub(crate) fn f32_to_bf16_truncated(value: f32) -> u32 {
    if value.is_nan() {
        u32::from(HALF_NAN)
    } else {
        value.to_bits() >> 16
    }
}

/// `sum` is the rounded value of an exact result that differs from it by `error`; returns the
/// result rounded to odd, from which any shorter format can be rounded to nearest without the
/// double-rounding error (Boldo and Melquiond 2008).
#[inline(always)]
fn to_odd32(sum: f32, error: f32) -> f32 {
    let bits = sum.to_bits();
    let toward_zero = (sum.is_sign_negative()) != (error.is_sign_negative());
    let step = if toward_zero { u32::MAX } else { 1 };
    let inexact_even = error != 0.0 && !error.is_nan() && bits & 1 == 0;
    f32::from_bits(if inexact_even { bits.wrapping_add(step) } else { bits })
}

/// Error of a floating-point addition (Knuth's TwoSum).
#[inline(always)]
fn two_sum_error(a: f32, b: f32, sum: f32) -> f32 {
    let b_part = sum - a;
    (a - (sum - b_part)) + (b - b_part)
}

/// a * b + c in f16 with one rounding; inputs are f16 values held in f32.
///
/// The product is exact in f32. Adding c leaves an error known exactly by TwoSum, so the sum can
/// be rounded to odd in f32 and then to nearest in f16.
#[inline(always)]
pub(crate) fn fma_f16(a: f32, b: f32, c: f32) -> f32 {
    let product = a * b;
    let sum = product + c;
    to_odd32(sum, two_sum_error(product, c, sum))
}

/// f64 to f32 rounded to odd.
#[inline(always)]
pub(crate) fn f64_to_f32_odd(value: f64) -> f32 {
    let near = value as f32;
    let error = value - f64::from(near);
    let bits = near.to_bits();
    let overflowed = near.is_infinite() && value.is_finite();
    let grew = f64::from(near).abs() > value.abs();
    let inexact_even = (error != 0.0 && !error.is_nan() || overflowed) && bits & 1 == 0;
    let step = if grew { u32::MAX } else { 1 };
    f32::from_bits(if inexact_even { bits.wrapping_add(step) } else { bits })
}

/// f64 to f32 in a directed rounding mode.
pub(crate) fn to_f32(rounding: Rounding, value: f64) -> f32 {
    let near = value as f32;
    let exact = f64::from(near);
    if value.is_nan() || exact == value {
        return near;
    }
    let adjust = match rounding {
        Rounding::Zero => exact.abs() > value.abs(),
        Rounding::Down => exact > value,
        Rounding::Up => exact < value,
        Rounding::Nearest | Rounding::NearestAway => false,
    };
    match (adjust, rounding) {
        (false, _) => near,
        (true, Rounding::Up) => step(near, near >= 0.0),
        (true, Rounding::Down) => step(near, near <= 0.0),
        (true, _) => step(near, false),
    }
}

/// The neighbouring f32, away from zero or toward it.
fn step(value: f32, away: bool) -> f32 {
    match (value.to_bits() << 1, away) {
        // From zero there is only away; callers ask for the sign that the value has.
        (0, _) => f32::from_bits(value.to_bits() | 1),
        (_, true) => f32::from_bits(value.to_bits() + 1),
        (_, false) => f32::from_bits(value.to_bits() - 1),
    }
}

/// a + b in f64 rounded to odd: exact enough to be rounded to any shorter format in any mode.
#[inline(always)]
pub(crate) fn sum_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    let bits = sum.to_bits();
    let toward_zero = sum.is_sign_negative() != error.is_sign_negative();
    let inexact_even = error != 0.0 && !error.is_nan() && bits & 1 == 0;
    let step = if toward_zero { u64::MAX } else { 1 };
    f64::from_bits(if inexact_even { bits.wrapping_add(step) } else { bits })
}

/// a * b + c in bf16 with one rounding, as bits; inputs are bf16 values held in f32.
///
/// bf16 has f32's exponent range, so the product is formed in f64; the sum's error, found by
/// TwoSum, makes it round to odd there.
#[inline(always)]
pub(crate) fn fma_bf16(a: f32, b: f32, c: f32) -> u32 {
    let product = f64::from(a) * f64::from(b);
    f32_to_bf16(f64_to_f32_odd(sum_to_odd(product, f64::from(c))))
}

/// a * b in bf16 with one rounding, as bits.
#[inline(always)]
pub(crate) fn mul_bf16(a: f32, b: f32) -> u32 {
    f32_to_bf16(f64_to_f32_odd(f64::from(a) * f64::from(b)))
}

/// Replaces any NaN by the canonical one.
#[inline(always)]
pub(crate) fn canonical(value: f32) -> u32 {
    if value.is_nan() {
        F32_NAN
    } else {
        value.to_bits()
    }
}

/// Flushes a subnormal f32 to zero of its sign.
#[inline(always)]
pub(crate) fn flush(value: f32) -> f32 {
    if value.to_bits() & 0x7F80_0000 == 0 {
        f32::from_bits(value.to_bits() & 0x8000_0000)
    } else {
        value
    }
}

/// `.sat`: [0, 1], NaN becomes 0.
#[inline(always)]
pub(crate) fn saturate(value: f32) -> f32 {
    if value > 0.0 {
        value.min(1.0)
    } else {
        0.0
    }
}

/// PTX `min`: a number beats NaN, -0 is below +0.
#[inline(always)]
pub(crate) fn min_number(a: f32, b: f32) -> f32 {
    let a_wins = a < b || (a == b && a.is_sign_negative()) || b.is_nan();
    if a_wins {
        a
    } else {
        b
    }
}

/// PTX `max`: a number beats NaN, +0 is above -0.
#[inline(always)]
pub(crate) fn max_number(a: f32, b: f32) -> f32 {
    -min_number(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_f16_converts_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            let expected = f16::from_bits(bits).to_f32();
            let value = f16_to_f32(u32::from(bits));
            if expected.is_nan() {
                assert!(value.is_nan());
                assert_eq!(f32_to_f16(value), u32::from(HALF_NAN));
            } else {
                assert_eq!(value.to_bits(), expected.to_bits(), "{bits:04x}");
                assert_eq!(f32_to_f16(value), u32::from(bits));
            }
        }
    }

    /// f32 bit patterns around every f16 and bf16 rounding decision.
    fn interesting() -> impl Iterator<Item = f32> {
        (0..=u16::MAX).flat_map(|high| {
            [0u32, 1, 0xFFF, 0x1000, 0x1001, 0x2000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
                .map(|low| f32::from_bits(u32::from(high) << 16 | low))
        })
    }

    #[test]
    fn rounding_to_half_formats_agrees_with_the_half_crate() {
        for value in interesting().filter(|v| !v.is_nan()) {
            assert_eq!(f32_to_f16(value), u32::from(f16::from_f32(value).to_bits()), "{value:e}");
            assert_eq!(f32_to_bf16(value), u32::from(bf16::from_f32(value).to_bits()), "{value:e}");
        }
    }

    #[test]
    fn truncation_never_grows_the_magnitude_and_stays_within_one_unit() {
        for value in interesting().filter(|v| v.is_finite() && v.abs() < 65504.0) {
            let truncated = f32_to_f16_truncated(value);
            assert!(f16_to_f32(truncated).abs() <= value.abs());
            assert!(f16_to_f32(truncated + 1).abs() > value.abs(), "{value:e}");
        }
    }

    /// Exact reference for f16: all values are multiples of 2^-48 below 2^33, so i128 holds them.
    fn fma_f16_reference(a: f16, b: f16, c: f16) -> u16 {
        let scaled = |v: f16| (v.to_f64() * 2f64.powi(24)) as i128;
        let exact = scaled(a) * scaled(b) + (scaled(c) << 24);
        let magnitude = exact.unsigned_abs();
        let sign = u16::from(exact < 0) << 15;
        // Unit of the result in multiples of 2^-48: 2^24 for subnormals, more above 2^-13.
        let shift = 24.max(128 - magnitude.leading_zeros() as i32 - 11) as u32;
        let (quotient, rest) = (magnitude >> shift, magnitude & ((1 << shift) - 1));
        let half = 1u128 << (shift - 1);
        let up = rest > half || (rest == half && quotient & 1 == 1);
        let bits = (quotient + u128::from(up)) + (u128::from(shift - 24) << 10);
        sign | bits.min(0x7C00) as u16
    }

    /// A small deterministic generator.
    fn random(state: &mut u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 17
    }

    #[test]
    fn f16_fma_rounds_once() {
        let mut state = 1;
        for _ in 0..300_000 {
            let r = random(&mut state);
            let [a, b, c] = [r, r >> 16, r >> 32].map(|bits| f16::from_bits(bits as u16 & 0xFBFF));
            let result = f32_to_f16(fma_f16(a.to_f32(), b.to_f32(), c.to_f32()));
            let expected = fma_f16_reference(a, b, c);
            if expected & 0x7FFF != 0 {
                assert_eq!(result, u32::from(expected), "{a} {b} {c}");
            } else {
                assert_eq!(result & 0x7FFF, 0);
            }
        }
    }

    #[test]
    fn bf16_fma_rounds_once_where_double_rounding_would_not() {
        let one = 1.0f32;
        // 1 + 2^-8 is a tie in bf16 (goes to even, 1); a tiny addend must push it up.
        let near_tie = |tiny: f32| {
            let (a, b) = (1.0 + 2f32.powi(-7), tiny);
            fma_bf16(b, one, a)
        };
        assert_eq!(near_tie(2f32.powi(-8)), f32_to_bf16(1.0 + 2.0 * 2f32.powi(-7)));
        assert_eq!(
            near_tie(2f32.powi(-8) * (1.0 - 2f32.powi(-8))),
            f32_to_bf16(1.0 + 2f32.powi(-7))
        );
        // Exponents too far apart for f64: the tie is broken by a product of 2^-120.
        let tie = 1.0 + 2f32.powi(-7);
        let product = fma_bf16(2f32.powi(-60), 2f32.powi(-60), tie);
        assert_eq!(product, f32_to_bf16(tie));
    }

    #[test]
    fn number_min_and_max_order_zeros_and_prefer_numbers() {
        assert!(min_number(0.0, -0.0).is_sign_negative());
        assert!(max_number(-0.0, 0.0).is_sign_positive());
        assert_eq!(min_number(f32::NAN, 1.0), 1.0);
        assert_eq!(max_number(2.0, f32::NAN), 2.0);
    }
}
