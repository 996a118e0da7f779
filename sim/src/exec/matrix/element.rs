//! Matrix elements in 32-bit words.

use crate::exec::machine::Machine;
use crate::exec::minifloat::{E2M1_VALUES, E2M3_VALUES, E3M2_VALUES, E4M3_VALUES, E5M2_VALUES};
use crate::exec::numeric::bf16_to_f32;
use crate::program::Element;
use crate::state::Lanes32;

/// The words of four neighbouring lanes.
#[inline(always)]
pub(crate) fn four_lanes(register: &Lanes32, g: usize) -> [u32; 4] {
    [register[4 * g], register[4 * g + 1], register[4 * g + 2], register[4 * g + 3]]
}

/// Slices of eight elements (tf32: four) in four words.
#[inline(always)]
pub(super) fn slices(ty: Element) -> usize {
    match ty.per_register() {
        8 => 4,
        4 => 2,
        _ => 1,
    }
}

/// Slice `part` of four words in order of k, as f32, which holds every format exactly. tf32 fills
/// the first half.
#[inline(always)]
pub(super) fn unpack<M: Machine>(m: M, ty: Element, words: [u32; 4], part: usize) -> [f32; 8] {
    let mut out = [0.0; 8];
    match ty {
        Element::F16 => out = m.widen_f16(words),
        Element::Bf16 => {
            for i in 0..4 {
                out[2 * i] = bf16_to_f32(words[i] & 0xFFFF);
                out[2 * i + 1] = f32::from_bits(words[i] & 0xFFFF_0000);
            }
        }
        Element::Tf32 => {
            for i in 0..4 {
                // The lower 13 bits of the mantissa are ignored.
                out[i] = f32::from_bits(words[i] & 0xFFFF_E000);
            }
        }
        Element::PackedE2m1 | Element::S4 | Element::U4 => {
            for i in 0..8 {
                out[i] = nibble(ty, words[part] >> (4 * i) & 0xF);
            }
        }
        _ => {
            for i in 0..8 {
                out[i] = byte(ty, words[2 * part + i / 4] >> (8 * (i % 4)) & 0xFF);
            }
        }
    }
    out
}

#[inline(always)]
fn nibble(ty: Element, code: u32) -> f32 {
    match ty {
        Element::S4 => ((code << 28) as i32 >> 28) as f32,
        Element::U4 => code as f32,
        _ => E2M1_VALUES[code as usize],
    }
}

#[inline(always)]
fn byte(ty: Element, code: u32) -> f32 {
    match ty {
        Element::S8 => f32::from(code as u8 as i8),
        Element::U8 => f32::from(code as u8),
        Element::E4m3 => E4M3_VALUES[code as usize],
        Element::E5m2 => E5M2_VALUES[code as usize],
        // Padding stands above a 6-bit code (PTX ISA 9.7.14.5.12).
        Element::E3m2 => E3M2_VALUES[code as usize & 0x3F],
        Element::E2m3 => E2M3_VALUES[code as usize & 0x3F],
        // A 4-bit code has two bits of padding on both sides.
        _ => E2M1_VALUES[code as usize >> 2 & 0xF],
    }
}
