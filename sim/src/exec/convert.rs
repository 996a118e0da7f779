//! Conversions between number formats, packing, and address casts.

use super::directed::neighbour;
use super::int::{map1, map1_64, map2};
use super::machine::Machine;
use super::numeric::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_bf16_truncated, f32_to_f16, f32_to_f16_truncated,
    f64_to_f32_odd, flush, to_f32, F32_NAN,
};
use super::simd;
use crate::address;
use crate::program::{Convert, ConvertPair, ConvertTf32, ConvertType, Rounding, Slot, Space};
use crate::state::{each_lane, Lanes32, Lanes64, Warp, LANES};

/// A value between source and destination format.
#[derive(Clone, Copy)]
enum Value {
    Int(i128),
    Float(f64),
}

fn read(from: ConvertType, bits: u64) -> Value {
    match from {
        ConvertType::U64 => Value::Int(i128::from(bits)),
        ConvertType::F16 => Value::Float(f64::from(f16_to_f32(bits as u32 & 0xFFFF))),
        ConvertType::Bf16 => Value::Float(f64::from(bf16_to_f32(bits as u32 & 0xFFFF))),
        ConvertType::F32 => Value::Float(f64::from(f32::from_bits(bits as u32))),
        ConvertType::F64 => Value::Float(f64::from_bits(bits)),
        integer => Value::Int(i128::from(resize(integer, bits) as i64)),
    }
}

/// Range of an integer type.
fn range(ty: ConvertType) -> (i128, i128) {
    match ty {
        ConvertType::U8 => (0, i128::from(u8::MAX)),
        ConvertType::S8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
        ConvertType::U16 => (0, i128::from(u16::MAX)),
        ConvertType::S16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
        ConvertType::S32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        ConvertType::U64 => (0, i128::from(u64::MAX)),
        ConvertType::S64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
        _ => (0, i128::from(u32::MAX)),
    }
}

fn round_integral(rounding: Rounding, value: f64) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
        Rounding::NearestAway => value.round(),
    }
}

/// An integer to f64 rounded to odd, from which any shorter rounding is correct.
fn int_to_f64_odd(value: i128) -> f64 {
    let near = value as f64;
    let back = near as i128;
    let bits = near.to_bits();
    if back == value || bits & 1 == 1 {
        near
    } else if back.abs() > value.abs() {
        f64::from_bits(bits - 1)
    } else {
        f64::from_bits(bits + 1)
    }
}

/// An integer to f64 in a rounding mode.
fn int_to_f64(rounding: Rounding, value: i128) -> f64 {
    let near = value as f64;
    let back = near as i128;
    match rounding {
        Rounding::Down if back > value => neighbour(near, false),
        Rounding::Up if back < value => neighbour(near, true),
        Rounding::Zero if back > value && value > 0 => neighbour(near, false),
        Rounding::Zero if back < value && value < 0 => neighbour(near, true),
        _ => near,
    }
}

fn write_float(c: &Convert, value: Value) -> u64 {
    let mut wide = match value {
        Value::Int(value) if c.to == ConvertType::F64 => int_to_f64(c.rounding, value),
        Value::Int(value) => int_to_f64_odd(value),
        Value::Float(value) => value,
    };
    if c.to_integral {
        wide = round_integral(c.rounding, wide);
    }
    if c.relu && wide < 0.0 {
        wide = 0.0;
    }
    if c.sat {
        wide = if wide > 0.0 { wide.min(1.0) } else { 0.0 };
    }
    if c.saturate_finite {
        wide = saturate_finite(c.to == ConvertType::Bf16, wide);
    }
    match c.to {
        ConvertType::F64 => wide.to_bits(),
        ConvertType::F32 => {
            let value = to_f32(c.rounding, wide);
            let value = if c.ftz { flush(value) } else { value };
            u64::from(if value.is_nan() { F32_NAN } else { value.to_bits() })
        }
        ConvertType::F16 if c.rounding == Rounding::Zero => {
            u64::from(f32_to_f16_truncated(to_f32(Rounding::Zero, wide)))
        }
        ConvertType::Bf16 if c.rounding == Rounding::Zero => {
            u64::from(f32_to_bf16_truncated(to_f32(Rounding::Zero, wide)))
        }
        ConvertType::F16 => u64::from(f32_to_f16(f64_to_f32_odd(wide))),
        _ => u64::from(f32_to_bf16(f64_to_f32_odd(wide))),
    }
}

/// Clamps to the numbers of f16 or bf16; NaN stays.
fn saturate_finite(bf16: bool, value: f64) -> f64 {
    let largest = if bf16 { bf16_to_f32(0x7F7F) } else { f16_to_f32(0x7BFF) };
    value.clamp(f64::from(-largest), f64::from(largest))
}

/// Floats clamp to the integer's range, NaN becomes 0 (PTX ISA 9.7.9.21); integers wrap unless
/// `.sat`.
fn write_int(c: &Convert, value: Value) -> u64 {
    let (low, high) = range(c.to);
    let result = match value {
        Value::Int(value) if c.sat => value.clamp(low, high),
        Value::Int(value) => value,
        Value::Float(value) if value.is_nan() => 0,
        Value::Float(value) => (round_integral(c.rounding, value) as i128).clamp(low, high),
    };
    // A narrow result fills the register: sign-extended for signed types, else zero-extended.
    resize(c.to, result as u64)
}

fn is_float(ty: ConvertType) -> bool {
    matches!(ty, ConvertType::F16 | ConvertType::Bf16 | ConvertType::F32 | ConvertType::F64)
}

fn scalar(c: &Convert, bits: u64) -> u64 {
    let mut value = read(c.from, bits);
    if let (true, Value::Float(float)) = (c.ftz && c.from == ConvertType::F32, value) {
        value = Value::Float(f64::from(flush(float as f32)));
    }
    if is_float(c.to) {
        write_float(c, value)
    } else {
        write_int(c, value)
    }
}

#[inline(always)]
pub(crate) fn convert<M: Machine>(m: M, w: &mut Warp, mask: u32, c: &Convert) {
    if !common(m, w, mask, c) {
        rare(w, mask, c);
    }
}

fn rare(w: &mut Warp, mask: u32, c: &Convert) {
    let source: Lanes64 = if c.a_wide { *w.get64(c.a) } else { w.get32(c.a).map(u64::from) };
    let out: Lanes64 = if c.sat || is_float(c.to) || is_float(c.from) {
        source.map(|bits| scalar(c, bits))
    } else {
        each_lane!(|lane| resize(c.to, resize(c.from, source[lane])))
    };
    if c.d_wide {
        w.set64(c.d, mask, &out);
    } else {
        let out: Lanes32 = each_lane!(|lane| out[lane] as u32);
        w.set32(c.d, mask, &out);
    }
}

/// The low bits of an integer that its type keeps, extended to 64 bits by its signedness.
#[inline(always)]
fn resize(ty: ConvertType, bits: u64) -> u64 {
    match ty {
        ConvertType::U8 => u64::from(bits as u8),
        ConvertType::S8 => bits as i8 as i64 as u64,
        ConvertType::U16 => u64::from(bits as u16),
        ConvertType::S16 => bits as i16 as i64 as u64,
        ConvertType::U32 => u64::from(bits as u32),
        ConvertType::S32 => bits as i32 as i64 as u64,
        _ => bits,
    }
}

/// The conversions that fill real kernels, as loops that vectorise; false for any other.
#[inline(always)]
fn common<M: Machine>(m: M, w: &mut Warp, mask: u32, c: &Convert) -> bool {
    use ConvertType::{Bf16, F16, F32, S32, S64, U32, U64};
    let modified = c.sat || c.saturate_finite || c.relu || c.ftz;
    if modified || c.to_integral && is_float(c.to) {
        return false;
    }
    let nearest = c.rounding == Rounding::Nearest;
    match (c.to, c.from, c.d_wide, c.a_wide) {
        (S64, S32, true, false) => widen(w, mask, c, |x| x as i32 as i64 as u64),
        (U64 | S64, U32, true, false) => widen(w, mask, c, u64::from),
        (U32 | S32, U64 | S64, false, true) => {
            let x = w.get64(c.a);
            let out: Lanes32 = each_lane!(|lane| x[lane] as u32);
            w.set32(c.d, mask, &out);
        }
        (F32, F16, false, false) if nearest => {
            let out = simd::widen_low_f16(m, w.get32(c.a));
            w.set32(c.d, mask, &out);
        }
        (F32, Bf16, false, false) if nearest => map1(w, mask, c.d, c.a, |x| x << 16),
        (F16, F32, false, false) if nearest => {
            let out = simd::narrow_pair_f16(m, w.get32(c.a), &[0; LANES]);
            w.set32(c.d, mask, &out);
        }
        (F32, S32, false, false) if nearest => {
            map1(w, mask, c.d, c.a, |x| (x as i32 as f32).to_bits());
        }
        (F32, U32, false, false) if nearest => map1(w, mask, c.d, c.a, |x| (x as f32).to_bits()),
        _ => return false,
    }
    true
}

#[inline(always)]
fn widen(w: &mut Warp, mask: u32, c: &Convert, f: impl Fn(u32) -> u64) {
    let x = w.get32(c.a);
    let out: Lanes64 = each_lane!(|lane| f(x[lane]));
    w.set64(c.d, mask, &out);
}

/// Two f32 to a packed half pair; `a` goes to the high half.
#[inline(always)]
pub(crate) fn convert_pair<M: Machine>(m: M, w: &mut Warp, mask: u32, c: &ConvertPair) {
    let slots = [c.d, c.a, c.b];
    match (c.bf16, c.truncate || c.relu || c.saturate_finite) {
        (false, false) => {
            let out = simd::narrow_pair_f16(m, w.get32(c.b), w.get32(c.a));
            w.set32(c.d, mask, &out);
        }
        (true, false) => map2(w, mask, slots, |a, b| {
            f32_to_bf16(f32::from_bits(a)) << 16 | f32_to_bf16(f32::from_bits(b))
        }),
        _ => rare_pair(w, mask, c),
    }
}

fn rare_pair(w: &mut Warp, mask: u32, c: &ConvertPair) {
    let round = |bits: u32| {
        let mut value = f32::from_bits(bits);
        if c.relu && value < 0.0 {
            value = 0.0;
        }
        if c.saturate_finite {
            value = saturate_finite(c.bf16, f64::from(value)) as f32;
        }
        match (c.bf16, c.truncate) {
            (false, false) => f32_to_f16(value),
            (false, true) => f32_to_f16_truncated(value),
            (true, false) => f32_to_bf16(value),
            (true, true) => f32_to_bf16_truncated(value),
        }
    };
    map2(w, mask, [c.d, c.a, c.b], |a, b| round(a) << 16 | round(b));
}

/// f32 with its mantissa rounded to tf32's 10 bits.
pub(crate) fn convert_tf32(w: &mut Warp, mask: u32, c: &ConvertTf32) {
    /// Largest number.
    const MOST: u32 = 0x7F7F_E000;
    map1(w, mask, c.d, c.a, |bits| {
        let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7FFF_FFFF);
        if magnitude > 0x7F80_0000 {
            return bits & 0xFFFF_E000 | 1 << 22;
        }
        if c.relu && sign != 0 {
            return 0;
        }
        let addend = match c.rounding {
            Rounding::Nearest => 0xFFF + (bits >> 13 & 1),
            Rounding::NearestAway => 0x1000,
            _ => 0,
        };
        let rounded = if magnitude == 0x7F80_0000 { magnitude } else { magnitude + addend };
        let most = if c.saturate_finite { MOST } else { u32::MAX };
        sign | (rounded & 0x7FFF_E000).min(most)
    });
}

#[inline(always)]
pub(crate) fn cast_address(
    w: &mut Warp,
    mask: u32,
    space: Space,
    to_generic: bool,
    d: Slot,
    a: Slot,
) {
    let window = address::window(space);
    if to_generic {
        map1_64(w, mask, d, a, |x| x | window);
    } else if window == 0 {
        map1_64(w, mask, d, a, |x| x);
    } else {
        map1_64(w, mask, d, a, address::strip_window);
    }
}

#[inline(always)]
pub(crate) fn is_space(w: &mut Warp, mask: u32, space: Space, p: Slot, a: Slot) {
    let values = w.get64(a);
    let hit = (0..LANES).fold(0u32, |m, l| m | u32::from(address::lies_in(values[l], space)) << l);
    w.set_predicate(p, mask, hit);
}

/// Concatenates parts, lowest first.
#[inline(always)]
pub(crate) fn pack(w: &mut Warp, mask: u32, wide: bool, part_bytes: u8, parts: &[Slot], d: Slot) {
    let bits = 8 * u32::from(part_bytes);
    let keep = (1u64 << bits) - 1;
    let mut out: Lanes64 = [0; LANES];
    for (i, &part) in parts.iter().enumerate() {
        let values = w.get32(part);
        for (o, &v) in out.iter_mut().zip(values) {
            *o |= (u64::from(v) & keep) << (bits * i as u32);
        }
    }
    if wide {
        w.set64(d, mask, &out);
    } else {
        let out: Lanes32 = out.map(|v| v as u32);
        w.set32(d, mask, &out);
    }
}

/// The inverse of [`pack`].
#[inline(always)]
pub(crate) fn unpack(w: &mut Warp, mask: u32, wide: bool, part_bytes: u8, a: Slot, parts: &[Slot]) {
    if let (false, 2, &[low, high]) = (wide, part_bytes, parts) {
        let source = *w.get32(a);
        w.set32(low, mask, &each_lane!(|lane| source[lane] & 0xFFFF));
        w.set32(high, mask, &each_lane!(|lane| source[lane] >> 16));
        return;
    }
    let source: Lanes64 = if wide { *w.get64(a) } else { w.get32(a).map(u64::from) };
    let bits = 8 * u32::from(part_bytes);
    let keep = (1u64 << bits) - 1;
    for (i, &part) in parts.iter().enumerate() {
        let shift = bits * i as u32;
        let out: Lanes32 = each_lane!(|lane| (source[lane] >> shift & keep) as u32);
        w.set32(part, mask, &out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(to: ConvertType, from: ConvertType, rounding: Rounding) -> Convert {
        Convert {
            to,
            from,
            rounding,
            to_integral: false,
            sat: false,
            saturate_finite: false,
            relu: false,
            ftz: false,
            d: 0,
            d_wide: false,
            a: 0,
            a_wide: false,
        }
    }

    #[test]
    fn floats_become_integers_with_the_asked_rounding_and_clamp() {
        let f = |value: f32| u64::from(value.to_bits());
        for (rounding, value, expected) in [
            (Rounding::Nearest, 2.5, 2),
            (Rounding::Zero, -2.7, -2),
            (Rounding::Down, -2.1, -3),
            (Rounding::Up, 2.1, 3),
            (Rounding::Zero, 1e20, i32::MAX),
            (Rounding::Zero, f32::NAN, 0),
        ] {
            let c = plain(ConvertType::S32, ConvertType::F32, rounding);
            assert_eq!(scalar(&c, f(value)) as i32, expected);
        }
    }

    #[test]
    fn narrow_integers_are_sign_extended_or_wrapped_or_saturated() {
        let c = plain(ConvertType::S32, ConvertType::S8, Rounding::Nearest);
        assert_eq!(scalar(&c, 0x80) as i32, -128);
        let c = plain(ConvertType::U8, ConvertType::S32, Rounding::Nearest);
        assert_eq!(scalar(&c, 0x1FF), 0xFF);
        let c = Convert { sat: true, ..c };
        assert_eq!(scalar(&c, -5i32 as u32 as u64), 0);
    }

    #[test]
    fn integers_round_once_on_their_way_to_f16() {
        // 2049 lies between 2048 and 2050: ties to even. 2^40 + 1 must not double-round.
        let c = plain(ConvertType::F16, ConvertType::U64, Rounding::Nearest);
        assert_eq!(scalar(&c, 2049), u64::from(half::f16::from_f32(2048.0).to_bits()));
        let c = plain(ConvertType::F32, ConvertType::U64, Rounding::Nearest);
        let tie_plus_one = (1u64 << 60) + (1 << 36) + 1;
        assert_eq!(
            f32::from_bits(scalar(&c, tie_plus_one) as u32),
            ((1u64 << 60) as f32).next_up()
        );
        let up = plain(ConvertType::F32, ConvertType::U32, Rounding::Up);
        assert_eq!(f32::from_bits(scalar(&up, (1 << 24) + 1) as u32), 16_777_218.0);
    }

    #[test]
    fn saturation_maps_nan_to_zero() {
        let c =
            Convert { sat: true, ..plain(ConvertType::F32, ConvertType::F32, Rounding::Nearest) };
        for (value, expected) in [(f32::NAN, 0.0), (2.0, 1.0), (-1.0, 0.0), (0.5, 0.5)] {
            assert_eq!(f32::from_bits(scalar(&c, u64::from(value.to_bits())) as u32), expected);
        }
    }
}
