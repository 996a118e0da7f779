//! Codes that are floats of eight bits: a sign, four bits of exponent with bias 7, three of mantissa
//! (e4m3; OCP 8-bit Floating Point Specification 1.0, section 5.1).
//!
//! Moved under the exponent of a wider float, the seven bits below the sign are that float times a power
//! of two, subnormals included: in f16, whose bias is 15, times `2^-8`; in bf16, whose bias is 127,
//! times `2^-120`. The first is a factor that a scale takes up. The second would leave products among
//! the subnormals of f32, so that the weight is multiplied back at once.
//!
//! The two codes that stand for NaN are worth what their bits go on to, 480 and -480: no checkpoint is
//! loaded that has them.

use super::{Context, Facts, Grid, Role};
use crate::DType;

/// The largest magnitude of a code.
const MAX: f64 = 480.0;
/// Exponent of the spacing of the least numbers.
const ULP: i32 = -9;
/// Where the values of codes lie.
pub(super) const GRID: Grid = Grid { lo: -MAX, hi: MAX, ulp: ULP };
/// What the bits of a code are worth as an f16, over what the code is.
pub(super) const NARROW: f64 = 1.0 / 256.0;

/// The value of a code.
pub fn e4m3(code: u8) -> f64 {
    let (exponent, mantissa) = (code >> 3 & 15, f64::from(code & 7));
    let magnitude = match exponent {
        0 => mantissa * 2.0f64.powi(ULP),
        _ => (8.0 + mantissa) * 2.0f64.powi(i32::from(exponent) - 1 + ULP),
    };
    if code & 0x80 != 0 {
        -magnitude
    } else {
        magnitude
    }
}

/// The code whose value is nearest to `value`, which is at most the largest one's; ties away from zero. Faster
/// than [`e4m3_nearest`].
pub fn e4m3_code(value: f32) -> u8 {
    // As multiples of 2^-120 the bits of a code are those of a f32, less the ones below.
    let small = (value.abs() * 2.0f32.powi(-120)).to_bits();
    (value.to_bits() >> 24 & 0x80) as u8 | ((small + (1 << 19)) >> 20) as u8
}

/// The code whose value is nearest to `value`, ties to even mantissas, magnitudes above 448 to that:
/// `cvt.rn.satfinite.e4m3x2.f32` (PTX ISA, "cvt"). NaN becomes the code 0x7f.
pub fn e4m3_nearest(value: f32) -> u8 {
    const LARGEST: u8 = 0x7e;
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = f64::from(value.abs());
    if magnitude >= e4m3(LARGEST) {
        return sign | LARGEST;
    }
    // Codes of magnitudes grow with them: the first that is not less has its lower neighbour below.
    let above = (0..=LARGEST).find(|code| e4m3(*code) >= magnitude).unwrap_or(LARGEST);
    let below = above.saturating_sub(1);
    let (up, down) = (e4m3(above) - magnitude, magnitude - e4m3(below));
    let nearest = if up < down || (up == down && above & 1 == 0) { above } else { below };
    sign | nearest
}

/// Facts of the value of an integer's code, times `unit`.
pub(super) fn facts(integer: &Facts, unit: f64) -> Result<Facts, String> {
    if integer.role != Role::Integer {
        return Err(format!("floats of 8 bits are made of the code, not of {:?}", integer.role));
    }
    let ulp = ULP + unit.log2() as i32;
    let grid = Grid { lo: -MAX * unit, hi: MAX * unit, ulp };
    Ok(Facts::leaf(Role::Weight, [Some(grid); 2]))
}

/// Whether weights are computed in `dtype`, whose exponent the bits are moved under, and codes have
/// eight bits.
pub(super) fn fits(ctx: &Context, dtype: DType) -> Result<(), String> {
    if ctx.spec.bits != 8 {
        return Err(format!("codes of {} bits are no floats of 8 bits", ctx.spec.bits));
    }
    match ctx.compute() == dtype {
        true => Ok(()),
        false => Err(format!("bits are moved under the exponent of {dtype}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn known_codes_have_their_values() {
        for (code, value) in [
            (0x00, 0.0),
            (0x01, 2.0f64.powi(-9)),
            (0x07, 7.0 * 2.0f64.powi(-9)),
            (0x08, 2.0f64.powi(-6)),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(e4m3(code), value, "{code:#x}");
        }
        for code in 0..=255 {
            assert_eq!(e4m3_code(e4m3(code) as f32), code);
        }
    }

    #[test]
    fn the_nearest_code_of_a_value_is_its_own_and_ties_are_even() {
        for code in (0..=255u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(e4m3_nearest(e4m3(code) as f32), code);
        }
        for lower in 0..0x7eu8 {
            let tie = ((e4m3(lower) + e4m3(lower + 1)) / 2.0) as f32;
            assert_eq!(e4m3_nearest(tie), lower + (lower & 1));
            assert_eq!(e4m3_nearest(tie * (1.0 - f32::EPSILON)), lower);
            assert_eq!(e4m3_nearest(-tie * (1.0 + f32::EPSILON)), 0x80 | (lower + 1));
        }
        assert_eq!([449.0, 1e30, -f32::INFINITY].map(e4m3_nearest), [0x7e, 0x7e, 0xfe]);
    }

    #[test]
    fn moved_bits_are_the_value_times_a_power_of_two() {
        for code in 0..=255u8 {
            let (sign, below, value) =
                (u16::from(code & 0x80) << 8, u16::from(code & 0x7f), e4m3(code));
            let narrow = f16::from_bits(sign | below << 7);
            assert_eq!(narrow.to_f64(), value * NARROW);
            let wide = bf16::from_bits(sign | below << 4);
            assert_eq!(wide.to_f64() * 2.0f64.powi(120), value);
        }
    }
}
