//! Conversions of pairs to and from formats of 8 bits and fewer (PTX ISA 9.7.9.21).

use super::int::{map1, map2};
use super::minifloat::{
    f32_to_ue8m0, ue8m0_to_f32, MiniFloat, E2M1, E2M1_VALUES, E2M3, E2M3_VALUES, E3M2, E3M2_VALUES,
    E4M3, E4M3_VALUES, E5M2, E5M2_VALUES,
};
use super::numeric::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::program::{NarrowPair, PairSource, SmallFormat, WidenPair};
use crate::state::Warp;

/// Rounding rules and values by code; exponent-only scales have neither.
fn rules(format: SmallFormat) -> Option<(MiniFloat, &'static [f32; 256])> {
    match format {
        SmallFormat::E4m3 => Some((E4M3, &E4M3_VALUES)),
        SmallFormat::E5m2 => Some((E5M2, &E5M2_VALUES)),
        SmallFormat::E3m2 => Some((E3M2, &E3M2_VALUES)),
        SmallFormat::E2m3 => Some((E2M3, &E2M3_VALUES)),
        SmallFormat::E2m1 => Some((E2M1, &E2M1_VALUES)),
        SmallFormat::Ue8m0 => None,
    }
}

fn encode(c: &NarrowPair, value: f32) -> u32 {
    let value = if c.relu && value.is_sign_negative() && !value.is_nan() { 0.0 } else { value };
    match rules(c.format) {
        Some((format, _)) => format.encode(c.rounding, value),
        None => f32_to_ue8m0(c.rounding, c.saturate_finite, value),
    }
}

/// A pair to two small elements, the first (or high) one in the upper half of the result.
pub(crate) fn narrow(w: &mut Warp, mask: u32, c: &NarrowPair) {
    let bits = c.format.container_bits();
    let pair = |high: f32, low: f32| encode(c, high) << bits | encode(c, low);
    match c.source {
        PairSource::F32([a, b]) => {
            map2(w, mask, [c.d, a, b], |a, b| pair(f32::from_bits(a), f32::from_bits(b)));
        }
        PairSource::F16x2(a) => {
            map1(w, mask, c.d, a, |a| pair(f16_to_f32(a >> 16), f16_to_f32(a & 0xFFFF)));
        }
        PairSource::Bf16x2(a) => {
            map1(w, mask, c.d, a, |a| pair(bf16_to_f32(a >> 16), bf16_to_f32(a & 0xFFFF)));
        }
    }
}

/// Two small elements to f16x2 or bf16x2; every value is representable.
pub(crate) fn widen(w: &mut Warp, mask: u32, c: &WidenPair) {
    let bits = c.format.container_bits();
    let one = |code: u32| {
        let value = match rules(c.format) {
            Some((format, values)) => values[(code & ((1 << format.bits()) - 1)) as usize],
            None => ue8m0_to_f32(code),
        };
        let clamped = c.relu && value.is_sign_negative() && !value.is_nan();
        let value = if clamped { 0.0 } else { value };
        if c.bf16 {
            f32_to_bf16(value)
        } else {
            f32_to_f16(value)
        }
    };
    map1(w, mask, c.d, c.a, |a| one(a >> bits) << 16 | one(a));
}
