//! Element formats of matrix products, encoded from their definitions.

use super::f16;

/// Element format: PTX name, bits in a register, and the code of a value.
#[derive(Clone, Copy)]
pub struct Format {
    pub name: &'static str,
    pub bits: usize,
    encode: fn(f32) -> u32,
    /// Largest integer up to which all are representable; the tests use integers.
    pub most: u32,
}

pub const F16: Format = Format { name: "f16", bits: 16, encode: |v| u32::from(f16(v)), most: 7 };
pub const BF16: Format = Format { name: "bf16", bits: 16, encode: |v| v.to_bits() >> 16, most: 7 };
pub const TF32: Format = Format { name: "tf32", bits: 32, encode: f32::to_bits, most: 7 };
pub const S8: Format = Format { name: "s8", bits: 8, encode: |v| v as i32 as u32 & 0xFF, most: 7 };
pub const U8: Format = Format { name: "u8", bits: 8, encode: |v| v as u32, most: 255 };
pub const S4: Format = Format { name: "s4", bits: 4, encode: |v| v as i32 as u32 & 0xF, most: 7 };
pub const U4: Format = Format { name: "u4", bits: 4, encode: |v| v as u32, most: 15 };
pub const E4M3: Format = Format { name: "e4m3", bits: 8, encode: |v| small(v, 4, 3), most: 7 };
pub const E5M2: Format = Format { name: "e5m2", bits: 8, encode: |v| small(v, 5, 2), most: 7 };
/// In 8-bit containers, as `.kind::f8f6f4` takes them.
pub const E3M2: Format = Format { name: "e3m2", bits: 8, encode: |v| small(v, 3, 2), most: 7 };
pub const E2M3: Format = Format { name: "e2m3", bits: 8, encode: |v| small(v, 2, 3), most: 7 };
pub const E2M1: Format = Format { name: "e2m1", bits: 8, encode: |v| small(v, 2, 1) << 2, most: 4 };
/// Packed, as the 4-bit kinds take them.
pub const PACKED_E2M1: Format =
    Format { name: "e2m1", bits: 4, encode: |v| small(v, 2, 1), most: 4 };

/// Sign, exponent and the upper mantissa bits of an f32 that is normal in the format.
fn small(value: f32, exponent_bits: u32, mantissa_bits: u32) -> u32 {
    let bits = value.to_bits();
    let bias = (1 << (exponent_bits - 1)) - 1;
    let mantissa = bits >> (23 - mantissa_bits) & ((1 << mantissa_bits) - 1);
    let magnitude = match bits >> 23 & 0xFF {
        0 => 0,
        exponent => (exponent + bias - 127) << mantissa_bits | mantissa,
    };
    bits >> 31 << (exponent_bits + mantissa_bits) | magnitude
}

impl Format {
    /// Elements of K in one `wgmma`.
    pub fn k(self) -> usize {
        256 / self.bits
    }

    /// Elements of a 32-bit register.
    pub fn per_register(self) -> usize {
        32 / self.bits
    }

    /// Code of a value, with the padding it has in a register.
    pub fn code(self, value: f32) -> u32 {
        (self.encode)(value)
    }

    /// One of the integers that the tests use: negative ones too, where the format has them.
    pub fn integer(self, random: u32) -> f32 {
        let most = self.most.min(15);
        match self.name.starts_with('u') {
            true => (random % (most + 1)) as f32,
            false => (random % (2 * most + 1)) as f32 - most as f32,
        }
    }
}
