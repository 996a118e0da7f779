//! What the bits of an element stand for.

use super::launch_file::DType;
use super::npy::Stored;
use anyhow::ensure;
use half::{bf16, f16};

/// The interpretation of stored elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// What NumPy itself takes them for.
    AsStored(Stored),
    /// 16 bits that are a half-precision float.
    F16,
    /// 16 bits that are a bfloat16.
    Bf16,
    /// 32 bits that are a single-precision float.
    F32,
    /// 8 bits that are a float with 4 exponent bits and no infinities.
    E4m3,
    /// 32 bits that are a signed integer.
    I32,
}

/// The value of an element, exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Int(i128),
    /// A float; each of the formats is a subset of f64.
    Real(f64),
}

impl Value {
    /// The value, rounded if it is an integer beyond 2^53.
    pub fn to_f64(self) -> f64 {
        match self {
            Value::Int(value) => value as f64,
            Value::Real(value) => value,
        }
    }

    /// How far apart two values are; 0 for the same infinity and for two NaNs.
    pub fn distance(self, other: Value) -> f64 {
        if let (Value::Int(a), Value::Int(b)) = (self, other) {
            return a.abs_diff(b) as f64;
        }
        let (a, b) = (self.to_f64(), other.to_f64());
        match a == b || (a.is_nan() && b.is_nan()) {
            true => 0.0,
            false => (a - b).abs(),
        }
    }
}

impl DType {
    /// How NumPy stores such elements.
    pub fn stored(self) -> Stored {
        let (kind, bytes) = match self {
            DType::Fp16 => ('f', 2),
            DType::Bf16 => ('u', 2),
            DType::Fp32 => ('f', 4),
            DType::Fp8e4nv => ('u', 1),
            DType::I32 => ('i', 4),
        };
        Stored { kind, bytes }
    }
}

impl Number {
    /// How elements that are stored as `stored` and declared as `dtype` are to be read.
    pub fn of(stored: Stored, dtype: Option<DType>) -> anyhow::Result<Number> {
        let Some(dtype) = dtype else { return Ok(Number::AsStored(stored)) };
        let (number, name, allowed): (_, _, &[&str]) = match dtype {
            DType::Fp16 => (Number::F16, "fp16", &["f2", "u2"]),
            DType::Bf16 => (Number::Bf16, "bf16", &["u2"]),
            DType::Fp32 => (Number::F32, "fp32", &["f4", "u4"]),
            DType::Fp8e4nv => (Number::E4m3, "fp8e4nv", &["u1"]),
            DType::I32 => (Number::I32, "i32", &["i4", "u4"]),
        };
        ensure!(
            allowed.contains(&stored.to_string().as_str()),
            "`dtype` {name} is stored as {}, the file has {stored}",
            allowed.join(" or ")
        );
        Ok(number)
    }

    /// The value of one element, given by its bytes.
    pub fn value(self, element: &[u8]) -> Value {
        let mut bytes = [0; 8];
        bytes[..element.len()].copy_from_slice(element);
        let bits = u64::from_le_bytes(bytes);
        match self {
            Number::F16 | Number::AsStored(Stored { kind: 'f', bytes: 2 }) => {
                Value::Real(f16::from_bits(bits as u16).to_f64())
            }
            Number::Bf16 => Value::Real(bf16::from_bits(bits as u16).to_f64()),
            Number::F32 | Number::AsStored(Stored { kind: 'f', bytes: 4 }) => {
                Value::Real(f32::from_bits(bits as u32).into())
            }
            Number::AsStored(Stored { kind: 'f', .. }) => Value::Real(f64::from_bits(bits)),
            Number::E4m3 => Value::Real(e4m3(bits as u8)),
            Number::I32 => Value::Int((bits as i32).into()),
            Number::AsStored(Stored { kind: 'i', bytes }) => {
                // The sign bit goes to the top and comes back with copies of itself.
                let unused = 64 - 8 * bytes as u32;
                Value::Int((((bits << unused) as i64) >> unused).into())
            }
            Number::AsStored(_) => Value::Int(bits.into()),
        }
    }
}

/// OCP 8-bit float E4M3 (OCP 8-bit Floating Point Specification 1.0, section 5): bias 7, all ones
/// is the only NaN.
fn e4m3(bits: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * f64::exp2(-6.0),
        _ => (1.0 + mantissa / 8.0) * f64::exp2(f64::from(exponent - 7)),
    };
    if bits >> 7 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: char, bytes: usize) -> Stored {
        Stored { kind, bytes }
    }

    #[test]
    fn every_kind_of_element_has_its_value() {
        let value = |number: Number, element: &[u8]| number.value(element);
        let natural = |kind, bytes| Number::AsStored(stored(kind, bytes));
        assert_eq!(value(natural('f', 2), &[0x00, 0x3e]), Value::Real(1.5));
        assert_eq!(value(Number::Bf16, &[0xc0, 0x3f]), Value::Real(1.5));
        assert_eq!(value(natural('f', 4), &1.5f32.to_le_bytes()), Value::Real(1.5));
        assert_eq!(value(natural('f', 8), &1.5f64.to_le_bytes()), Value::Real(1.5));
        assert_eq!(value(natural('i', 1), &[0xff]), Value::Int(-1));
        assert_eq!(value(natural('u', 1), &[0xff]), Value::Int(255));
        assert_eq!(value(natural('i', 8), &[0xff; 8]), Value::Int(-1));
        assert_eq!(value(natural('u', 8), &[0xff; 8]), Value::Int(u64::MAX.into()));
        assert_eq!(value(Number::I32, &[0xff; 4]), Value::Int(-1));
    }

    #[test]
    fn e4m3_has_the_extremes_of_its_specification() {
        assert_eq!(
            [0x7e, 0x01, 0x08, 0x38, 0xb8].map(e4m3),
            [448.0, 1.0 / 512.0, 1.0 / 64.0, 1.0, -1.0]
        );
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    #[test]
    fn distances_see_the_last_bit_of_large_integers_and_equal_specials() {
        let large = 1i128 << 62;
        assert_eq!(Value::Int(large).distance(Value::Int(large + 1)), 1.0);
        let real = |a: f64, b: f64| Value::Real(a).distance(Value::Real(b));
        assert_eq!(real(f64::INFINITY, f64::INFINITY), 0.0);
        assert_eq!(real(f64::NAN, -f64::NAN), 0.0);
        assert!(real(f64::NAN, 1.0).is_nan() && real(f64::INFINITY, 1.0).is_infinite());
    }

    #[test]
    fn a_dtype_must_fit_how_the_file_stores_it() {
        assert_eq!(Number::of(stored('u', 2), Some(DType::Bf16)).unwrap(), Number::Bf16);
        let error = Number::of(stored('f', 4), Some(DType::Bf16)).unwrap_err().to_string();
        assert!(error.contains("bf16 is stored as u2, the file has f4"), "{error}");
    }
}
