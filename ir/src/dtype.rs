//! Element types of activations, outputs and group parameters.

use half::{bf16, f16};
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
            DType::F16 => f16::from_f32(to_odd(value)).to_f64(),
            DType::Bf16 => bf16::from_f32(to_odd(value)).to_f64(),
            DType::F32 => value as f32 as f64,
        }
    }

    /// `values` rounded to this type, as its little-endian elements.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            DType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The values of little-endian elements of this type.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match self {
            DType::F16 => pairs.map(|bits| f16::from_bits(bits).to_f32()).collect(),
            DType::Bf16 => pairs.map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            DType::F32 => {
                let words = bytes.chunks_exact(4);
                words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
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
    fn values_that_a_type_holds_come_back() {
        let values = [0.0, -1.5, 65504.0, 0.25];
        for dtype in [DType::F16, DType::F32] {
            assert_eq!(dtype.decode(&dtype.encode(&values)), values);
        }
        assert_eq!(DType::Bf16.decode(&DType::Bf16.encode(&[1.0, -2.5])), [1.0, -2.5]);
    }

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
