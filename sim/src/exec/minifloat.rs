//! Floating-point formats of 8 bits and fewer: FP8 (OCP 8-bit floating point specification 1.0),
//! the 6- and 4-bit formats and the scales of OCP microscaling formats 1.0, as PTX ISA 5.2.3 uses
//! them.

use crate::program::Rounding;

/// What the codes with the highest exponent mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    /// Infinity and NaN, as in IEEE 754.
    Ieee,
    /// All bits set is NaN, the others are numbers.
    OneNan,
    /// Numbers only.
    Numbers,
}

/// A signed format with sign, exponent and mantissa from the top down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MiniFloat {
    exponent_bits: u32,
    mantissa_bits: u32,
    top: Top,
}

/// FP8 with range to 448.
pub(crate) const E4M3: MiniFloat =
    MiniFloat { exponent_bits: 4, mantissa_bits: 3, top: Top::OneNan };
/// FP8 with f16's exponents.
pub(crate) const E5M2: MiniFloat = MiniFloat { exponent_bits: 5, mantissa_bits: 2, top: Top::Ieee };
/// FP6 with range to 28.
pub(crate) const E3M2: MiniFloat =
    MiniFloat { exponent_bits: 3, mantissa_bits: 2, top: Top::Numbers };
/// FP6 with range to 7.5.
pub(crate) const E2M3: MiniFloat =
    MiniFloat { exponent_bits: 2, mantissa_bits: 3, top: Top::Numbers };
/// FP4: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
pub(crate) const E2M1: MiniFloat =
    MiniFloat { exponent_bits: 2, mantissa_bits: 1, top: Top::Numbers };

impl MiniFloat {
    /// Bits of a code.
    pub(crate) const fn bits(self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Codes without a sign that are numbers run from 0 to this one.
    const fn largest(self) -> u32 {
        let all = (1u32 << (self.exponent_bits + self.mantissa_bits)) - 1;
        match self.top {
            Top::Ieee => all - (1 << self.mantissa_bits),
            Top::OneNan => all - 1,
            Top::Numbers => all,
        }
    }

    /// f32 bits of a code; bits above the code are ignored.
    const fn decode_bits(self, code: u32) -> u32 {
        let magnitude = code & ((1 << (self.bits() - 1)) - 1);
        let sign = (code >> (self.bits() - 1) & 1) << 31;
        let exponent = (magnitude >> self.mantissa_bits) as i32;
        let mantissa = magnitude & ((1 << self.mantissa_bits) - 1);
        if magnitude > self.largest() {
            let infinite = matches!(self.top, Top::Ieee) && mantissa == 0;
            return if infinite { sign | 0x7F80_0000 } else { sign | 0x7FC0_0000 };
        }
        if magnitude == 0 {
            return sign;
        }
        // A subnormal has no hidden bit: its highest set bit becomes one.
        let (exponent, mantissa) = if exponent == 0 {
            let shift = mantissa.leading_zeros() - (31 - self.mantissa_bits);
            (1 - shift as i32, mantissa << shift & ((1 << self.mantissa_bits) - 1))
        } else {
            (exponent, mantissa)
        };
        let biased = (exponent - self.bias() + 127) as u32;
        sign | biased << 23 | mantissa << (23 - self.mantissa_bits)
    }

    /// Values of all codes of up to 8 bits, as f32 (exact).
    const fn table(self) -> [f32; 256] {
        let mut values = [0.0; 256];
        let mut code = 0;
        while code < 256 {
            values[code] = f32::from_bits(self.decode_bits(code as u32));
            code += 1;
        }
        values
    }

    /// Rounds to the format; what is too large becomes the largest number (`.satfinite`). NaN
    /// becomes NaN where the format has one, else the largest number (PTX ISA 9.7.9.21).
    pub(crate) fn encode(self, rounding: Rounding, value: f32) -> u32 {
        if value.is_nan() {
            let all = (1 << (self.bits() - 1)) - 1;
            return if self.top == Top::Numbers { self.largest() } else { all };
        }
        let sign = (value.to_bits() >> 31) << (self.bits() - 1);
        let magnitude = f64::from(value.abs());
        // Spacing of the format's numbers around the value; subnormals share that of the smallest
        // normal ones.
        let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
        let lowest = 1 - self.bias();
        let exponent = exponent.max(lowest);
        let spacing = (exponent - self.mantissa_bits as i32 + 1023) as u64;
        let steps = magnitude / f64::from_bits(spacing << 52);
        let steps = match rounding {
            Rounding::Zero => steps.trunc(),
            _ => steps.round_ties_even(),
        };
        if !steps.is_finite() || exponent > 127 {
            return sign | self.largest();
        }
        // With the hidden bit carried into the exponent the code is a plain sum, and rounding up
        // to the next power of two needs no case of its own.
        let hidden = ((exponent - lowest) as u32) << self.mantissa_bits;
        sign | (steps as u32 + hidden).min(self.largest())
    }
}

/// Values of the formats by code.
pub(crate) static E4M3_VALUES: [f32; 256] = E4M3.table();
pub(crate) static E5M2_VALUES: [f32; 256] = E5M2.table();
pub(crate) static E3M2_VALUES: [f32; 256] = E3M2.table();
pub(crate) static E2M3_VALUES: [f32; 256] = E2M3.table();
pub(crate) static E2M1_VALUES: [f32; 256] = E2M1.table();

/// The value of an exponent-only scale: 2^(code - 127), 0xFF is NaN.
pub(crate) fn ue8m0_to_f32(code: u32) -> f32 {
    match code & 0xFF {
        0xFF => f32::NAN,
        // 2^-127 is subnormal in f32.
        0 => f32::from_bits(1 << 22),
        code => f32::from_bits(code << 23),
    }
}

/// The power of two next to a value, toward zero or up; signs are dropped. What is too large becomes
/// the largest power, or NaN unless `saturate`.
pub(crate) fn f32_to_ue8m0(rounding: Rounding, saturate: bool, value: f32) -> u32 {
    let bits = value.to_bits() & 0x7FFF_FFFF;
    if value.is_nan() {
        return 0xFF;
    }
    // A subnormal lies above 2^-127 from 2^22 steps on.
    let (exponent, inexact) =
        if bits < 1 << 23 { (0, bits > 1 << 22) } else { (bits >> 23, bits & 0x7F_FFFF != 0) };
    let up = rounding == Rounding::Up && inexact;
    let code = exponent + u32::from(up);
    code.min(if saturate { 0xFE } else { 0xFF })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a code from the definition: (-1)^s 2^(e - bias) (1 + m / 2^bits).
    fn defined(format: MiniFloat, bias: i32, code: u32) -> f64 {
        let m = code & ((1 << format.mantissa_bits) - 1);
        let e = (code >> format.mantissa_bits & ((1 << format.exponent_bits) - 1)) as i32;
        let sign = if code >> (format.bits() - 1) & 1 == 1 { -1.0 } else { 1.0 };
        let fraction = f64::from(m) / f64::from(1 << format.mantissa_bits);
        let magnitude = match e {
            0 => fraction * 2f64.powi(1 - bias),
            e => (1.0 + fraction) * 2f64.powi(e - bias),
        };
        sign * magnitude
    }

    const FORMATS: [(MiniFloat, i32, &[f32; 256], f64); 5] = [
        (E4M3, 7, &E4M3_VALUES, 448.0),
        (E5M2, 15, &E5M2_VALUES, 57344.0),
        (E3M2, 3, &E3M2_VALUES, 28.0),
        (E2M3, 1, &E2M3_VALUES, 7.5),
        (E2M1, 1, &E2M1_VALUES, 6.0),
    ];

    #[test]
    fn every_code_has_the_value_of_its_definition() {
        for (format, bias, values, largest) in FORMATS {
            let mut seen_largest = 0.0f64;
            for code in 0..1u32 << format.bits() {
                let value = values[code as usize];
                if value.is_finite() {
                    assert_eq!(f64::from(value), defined(format, bias, code), "{format:?} {code}");
                    seen_largest = seen_largest.max(f64::from(value));
                }
            }
            assert_eq!(seen_largest, largest, "{format:?}");
        }
        assert!(E4M3_VALUES[0x7F].is_nan() && E4M3_VALUES[0xFF].is_nan());
        assert!(E5M2_VALUES[0x7C] == f32::INFINITY && E5M2_VALUES[0xFD].is_nan());
        assert_eq!(E2M1_VALUES[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    }

    #[test]
    fn rounding_picks_the_nearest_code_and_the_even_one_of_two() {
        for (format, _, values, _) in FORMATS {
            let positive: Vec<f32> =
                (0..=format.largest()).map(|code| values[code as usize]).collect();
            for (code, pair) in positive.windows(2).enumerate() {
                let (code, middle) = (code as u32, (pair[0] + pair[1]) / 2.0);
                let even = code + code % 2;
                let at = |value: f32| format.encode(Rounding::Nearest, value);
                assert_eq!(at(pair[0]), code);
                assert_eq!(at(middle), even, "{format:?} {middle}");
                assert_eq!(at(middle.next_down()), code, "{format:?} {middle}");
                assert_eq!(at(middle.next_up()), code + 1);
                assert_eq!(at(-middle.next_up()), (code + 1) | (1 << (format.bits() - 1)));
                assert_eq!(format.encode(Rounding::Zero, pair[1].next_down()), code);
            }
            for huge in [1e6, f32::MAX, f32::INFINITY] {
                assert_eq!(format.encode(Rounding::Nearest, huge), format.largest());
            }
        }
        assert_eq!(E4M3.encode(Rounding::Nearest, f32::NAN), 0x7F);
        assert_eq!(E2M1.encode(Rounding::Nearest, f32::NAN), 7);
        assert_eq!(E2M1.encode(Rounding::Nearest, 1e-40), 0);
    }

    #[test]
    fn scales_are_powers_of_two() {
        for code in 0..255u32 {
            let value = ue8m0_to_f32(code);
            assert_eq!(f64::from(value), 2f64.powi(code as i32 - 127));
            assert_eq!(f32_to_ue8m0(Rounding::Zero, true, value), code);
            assert_eq!(f32_to_ue8m0(Rounding::Up, true, value), code);
            assert_eq!(f32_to_ue8m0(Rounding::Up, true, value.next_up()), (code + 1).min(254));
            assert_eq!(f32_to_ue8m0(Rounding::Zero, true, value * 1.5), code);
        }
        assert!(ue8m0_to_f32(255).is_nan());
        assert_eq!(f32_to_ue8m0(Rounding::Up, true, f32::NAN), 255);
        assert_eq!(f32_to_ue8m0(Rounding::Up, true, f32::INFINITY), 254);
        assert_eq!(f32_to_ue8m0(Rounding::Up, false, f32::INFINITY), 255);
    }
}
