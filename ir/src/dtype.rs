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
            DType::F16 => half::f16::from_f64(value).to_f64(),
            DType::Bf16 => half::bf16::from_f64(value).to_f64(),
            DType::F32 => value as f32 as f64,
        }
    }
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
