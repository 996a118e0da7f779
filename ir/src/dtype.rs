//! Element types of activations, outputs and group parameters.

use std::fmt;
use std::str::FromStr;

/// A 16- or 32-bit floating-point element type.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum DType {
    /// IEEE binary16: 5 exponent and 10 mantissa bits.
    F16,
    /// bfloat16: 8 exponent and 7 mantissa bits.
    Bf16,
    /// IEEE binary32.
    F32,
}

impl DType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> u32 {
        match self {
            DType::F16 | DType::Bf16 => 2,
            DType::F32 => 4,
        }
    }

    /// Explicit mantissa bits.
    pub fn mantissa_bits(self) -> u32 {
        match self {
            DType::F16 => 10,
            DType::Bf16 => 7,
            DType::F32 => 23,
        }
    }

    /// Half a unit in the last place, relative to the value: the largest relative error of one
    /// rounding to nearest of a normal number.
    pub fn unit_roundoff(self) -> f64 {
        (2.0f64).powi(-(self.mantissa_bits() as i32) - 1)
    }

    /// Half the spacing of subnormal numbers: the largest absolute error of rounding a tiny value.
    pub fn tiny_roundoff(self) -> f64 {
        match self {
            DType::F16 => 2.0f64.powi(-25),
            DType::Bf16 => 2.0f64.powi(-134),
            DType::F32 => 2.0f64.powi(-150),
        }
    }

    /// The largest finite value.
    pub fn max_finite(self) -> f64 {
        match self {
            DType::F16 => 65504.0,
            DType::Bf16 => 3.3895313892515355e38,
            DType::F32 => f32::MAX as f64,
        }
    }

    /// `value` rounded to this type (nearest even), widened again.
    pub fn round(self, value: f64) -> f64 {
        match self {
            DType::F16 => half::f16::from_f32(to_odd(value)).to_f64(),
            DType::Bf16 => half::bf16::from_f32(to_odd(value)).to_f64(),
            DType::F32 => value as f32 as f64,
        }
    }
}

/// `value` as an f32 rounded to odd: rounding that again to a type with at least two mantissa bits
/// less is the same as rounding once (Boldo and Melquiond, "When double rounding is odd", 2005).
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if !nearest.is_finite() || f64::from(nearest) == value || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let toward_zero = f64::from(nearest).abs() > value.abs();
    let bits = nearest.to_bits();
    f32::from_bits(if toward_zero { bits - 1 } else { bits + 1 })
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F32 => "f32",
        })
    }
}

impl FromStr for DType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f16" | "fp16" => Ok(DType::F16),
            "bf16" => Ok(DType::Bf16),
            "f32" | "fp32" => Ok(DType::F32),
            _ => Err(format!("unknown element type `{text}`; known: f16, bf16, f32")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beside_a_tie_round_once() {
        let tie = 1.0 + 2.0f64.powi(-11);
        assert_eq!(DType::F16.round(tie), 1.0);
        let above = tie + 2.0f64.powi(-40);
        assert_eq!(DType::F16.round(above), 1.0 + 2.0f64.powi(-10));
        assert_eq!(DType::F16.round(-above), -1.0 - 2.0f64.powi(-10));
        assert_eq!(
            DType::Bf16.round(1.0 + 2.0f64.powi(-8) + 2.0f64.powi(-45)),
            1.0 + 2.0f64.powi(-7)
        );
        assert_eq!(DType::F16.round(2.0f64.powi(-25) * 1.5), 2.0f64.powi(-24));
        assert_eq!(DType::F16.round(1e300), f64::INFINITY);
    }
}
