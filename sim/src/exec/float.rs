//! Floating-point arithmetic in f32, f64, f16, bf16 and their packed pairs.
//!
//! The common forms are compiled into the interpreter; modifiers and rare operations stand behind a
//! call.

use super::directed;
use super::int::{map1, map1_64, map2, map2_64, map3, map3_64};
use super::machine::Machine;
use super::numeric::{
    bf16_to_f32, canonical, f16_to_f32, f32_to_bf16, f32_to_f16, flush, fma_bf16, fma_f16,
    max_number, min_number, mul_bf16, saturate, sum_to_odd, to_f32,
};
use super::simd;
use crate::program::{
    Compare, Float1, Float2, FloatFlags, FloatProperty, FloatType, Rounding, Slot,
};
use crate::state::{Warp, LANES};

/// f16 or bf16: how one half is widened and rounded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    F16,
    Bf16,
}

impl Half {
    #[inline(always)]
    fn widen(self, bits: u32) -> f32 {
        match self {
            Half::F16 => f16_to_f32(bits & 0xFFFF),
            Half::Bf16 => bf16_to_f32(bits & 0xFFFF),
        }
    }

    #[inline(always)]
    fn round(self, value: f32) -> u32 {
        match self {
            Half::F16 => f32_to_f16(value),
            Half::Bf16 => f32_to_bf16(value),
        }
    }

    fn fma(self, a: f32, b: f32, c: f32) -> u32 {
        match self {
            Half::F16 => f32_to_f16(fma_f16(a, b, c)),
            Half::Bf16 => fma_bf16(a, b, c),
        }
    }
}

fn half_of(ty: FloatType) -> (Half, bool) {
    match ty {
        FloatType::F16 => (Half::F16, false),
        FloatType::F16x2 => (Half::F16, true),
        FloatType::Bf16 => (Half::Bf16, false),
        _ => (Half::Bf16, true),
    }
}

/// Applies a function to the low half, and to the high half of packed values.
#[inline(always)]
fn on_halves(packed: bool, f: impl Fn(u32) -> u32) -> u32 {
    let low = f(0) & 0xFFFF;
    if packed {
        low | f(16) << 16
    } else {
        low
    }
}

fn flush_half(half: Half, value: f32) -> f32 {
    // f16 subnormals lie below 2^-14; bf16 ones are f32's own.
    let smallest = if half == Half::F16 { 6.103_515_6e-5 } else { f32::MIN_POSITIVE };
    if value.abs() < smallest {
        0.0f32.copysign(value)
    } else {
        value
    }
}

/// `.sat` and `.relu` on a rounded half result.
fn clamp_half(half: Half, flags: FloatFlags, bits: u32) -> u32 {
    let value = half.widen(bits);
    let value = if flags.ftz { flush_half(half, value) } else { value };
    if flags.sat {
        half.round(saturate(value))
    } else if flags.relu && value < 0.0 {
        0
    } else {
        half.round(value)
    }
}

fn half2(op: Float2, half: Half, a: f32, b: f32) -> u32 {
    match op {
        Float2::Add => half.round(a + b),
        Float2::Sub => half.round(a - b),
        Float2::Mul if half == Half::Bf16 => mul_bf16(a, b),
        Float2::Mul => half.round(a * b),
        _ => half.round(select2(op, a, b)),
    }
}

/// Minimum, maximum and sign copies.
pub(super) fn select2(op: Float2, a: f32, b: f32) -> f32 {
    match op {
        Float2::Min => min_number(a, b),
        Float2::Max => max_number(a, b),
        Float2::MinNan | Float2::MaxNan if a.is_nan() || b.is_nan() => f32::NAN,
        Float2::MinNan => min_number(a, b),
        Float2::MaxNan => max_number(a, b),
        _ => b.copysign(a),
    }
}

/// Sum, difference or product in a directed rounding mode.
fn directed2(op: Float2, rounding: Rounding, a: f32, b: f32) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let exact = match op {
        Float2::Add => sum_to_odd(x, y),
        Float2::Sub => sum_to_odd(x, -y),
        Float2::Div => directed::odd_quotient(x, y),
        _ => x * y,
    };
    to_f32(rounding, exact)
}

/// An f32 operation with its rounding.
#[inline(always)]
pub(super) fn rounded2(op: Float2, flags: FloatFlags, a: f32, b: f32) -> f32 {
    if flags.rounding == Rounding::Nearest {
        single2(op, a, b)
    } else {
        directed2(op, flags.rounding, a, b)
    }
}

/// a * b + c in f32 with its rounding.
pub(super) fn rounded_fma(flags: FloatFlags, a: f32, b: f32, c: f32) -> f32 {
    if flags.rounding == Rounding::Nearest {
        a.mul_add(b, c)
    } else {
        to_f32(flags.rounding, sum_to_odd(f64::from(a) * f64::from(b), f64::from(c)))
    }
}

fn single2(op: Float2, a: f32, b: f32) -> f32 {
    match op {
        Float2::Add => a + b,
        Float2::Sub => a - b,
        Float2::Mul => a * b,
        Float2::Div => a / b,
        _ => select2(op, a, b),
    }
}

pub(super) fn nearest2(op: Float2, a: f64, b: f64) -> f64 {
    match op {
        Float2::Add => a + b,
        Float2::Sub => a - b,
        Float2::Mul => a * b,
        Float2::Div => a / b,
        Float2::Min | Float2::MinNan => a.min(b),
        Float2::Max | Float2::MaxNan => a.max(b),
        Float2::CopySign => b.copysign(a),
    }
}

/// An f32 operation with its modifiers.
#[inline(always)]
pub(super) fn modified(flags: FloatFlags, result: f32) -> u32 {
    let result = if flags.ftz { flush(result) } else { result };
    canonical(if flags.sat { saturate(result) } else { result })
}

pub(super) fn operand(flags: FloatFlags, bits: u32) -> f32 {
    let value = f32::from_bits(bits);
    if flags.ftz {
        flush(value)
    } else {
        value
    }
}

/// Applies an f32 function to both halves of a 64-bit pair.
fn on_pair(a: u64, b: u64, c: u64, f: impl Fn(u32, u32, u32) -> u32) -> u64 {
    let low = f(a as u32, b as u32, c as u32);
    let high = f((a >> 32) as u32, (b >> 32) as u32, (c >> 32) as u32);
    u64::from(low) | u64::from(high) << 32
}

/// The gross approximations in f64: only the upper 32 bits of the operand count, and the lower 32
/// of the result are 0 (PTX ISA 9.7.3.14, 9.7.3.17). Subnormals are 0.
fn gross(x: f64, f: impl Fn(f64) -> f64) -> f64 {
    let upper = |x: f64| f64::from_bits(x.to_bits() & 0xFFFF_FFFF_0000_0000);
    let flushed = |x: f64| if x.is_subnormal() { 0f64.copysign(x) } else { x };
    upper(flushed(f(flushed(upper(x)))))
}

#[inline(always)]
pub(crate) fn float2<M: Machine>(
    m: M,
    w: &mut Warp,
    mask: u32,
    op: Float2,
    ty: FloatType,
    flags: FloatFlags,
    slots: [Slot; 3],
) {
    let plain = flags == FloatFlags::default();
    match (ty, op) {
        (FloatType::F32, Float2::Add) if plain => {
            map2(w, mask, slots, |a, b| canonical(f32::from_bits(a) + f32::from_bits(b)));
        }
        (FloatType::F32, Float2::Sub) if plain => {
            map2(w, mask, slots, |a, b| canonical(f32::from_bits(a) - f32::from_bits(b)));
        }
        (FloatType::F32, Float2::Mul) if plain => {
            map2(w, mask, slots, |a, b| canonical(f32::from_bits(a) * f32::from_bits(b)));
        }
        (FloatType::F16x2, Float2::Add | Float2::Sub | Float2::Mul) if plain => {
            let [d, a, b] = slots;
            let out = simd::f16x2_arithmetic(m, op, w.get32(a), w.get32(b));
            w.set32(d, mask, &out);
        }
        _ => rare2(w, mask, op, ty, flags, slots),
    }
}

/// Forms that few kernels use, or use rarely.
fn rare2(w: &mut Warp, mask: u32, op: Float2, ty: FloatType, flags: FloatFlags, slots: [Slot; 3]) {
    match (ty, op) {
        (FloatType::F32, _) => map2(w, mask, slots, |a, b| {
            modified(flags, rounded2(op, flags, operand(flags, a), operand(flags, b)))
        }),
        (FloatType::F32x2, _) => map2_64(w, mask, slots, |a, b| {
            on_pair(a, b, 0, |a, b, _| {
                modified(flags, rounded2(op, flags, operand(flags, a), operand(flags, b)))
            })
        }),
        (FloatType::F64, _) => map2_64(w, mask, slots, |a, b| {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            directed::double2(op, flags.rounding, a, b).to_bits()
        }),
        _ => {
            let plain = flags == FloatFlags::default();
            let (half, packed) = half_of(ty);
            map2(w, mask, slots, |a, b| {
                on_halves(packed, |shift| {
                    let (mut x, mut y) = (half.widen(a >> shift), half.widen(b >> shift));
                    if flags.ftz {
                        (x, y) = (flush_half(half, x), flush_half(half, y));
                    }
                    let result = half2(op, half, x, y);
                    if plain {
                        result
                    } else {
                        clamp_half(half, flags, result)
                    }
                })
            });
        }
    }
}

#[inline(always)]
pub(crate) fn fma<M: Machine>(
    m: M,
    w: &mut Warp,
    mask: u32,
    ty: FloatType,
    flags: FloatFlags,
    slots: [Slot; 4],
) {
    let plain = flags == FloatFlags::default();
    let [d, a, b, c] = slots;
    match ty {
        FloatType::F32 if plain => map3(w, mask, slots, |a, b, c| {
            canonical(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))
        }),
        FloatType::F16x2 if plain => {
            let out = simd::fma_f16x2(m, w.get32(a), w.get32(b), w.get32(c));
            w.set32(d, mask, &out);
        }
        FloatType::Bf16x2 if plain => {
            let out = simd::fma_bf16x2(w.get32(a), w.get32(b), w.get32(c));
            w.set32(d, mask, &out);
        }
        _ => rare_fma(w, mask, ty, flags, slots),
    }
}

fn rare_fma(w: &mut Warp, mask: u32, ty: FloatType, flags: FloatFlags, slots: [Slot; 4]) {
    match ty {
        FloatType::F32 => map3(w, mask, slots, |a, b, c| {
            let [x, y, z] = [a, b, c].map(|bits| operand(flags, bits));
            modified(flags, rounded_fma(flags, x, y, z))
        }),
        FloatType::F32x2 => map3_64(w, mask, slots, |a, b, c| {
            on_pair(a, b, c, |a, b, c| {
                let [x, y, z] = [a, b, c].map(|bits| operand(flags, bits));
                modified(flags, rounded_fma(flags, x, y, z))
            })
        }),
        FloatType::F64 => map3_64(w, mask, slots, |a, b, c| {
            let [a, b, c] = [a, b, c].map(f64::from_bits);
            directed::fma(flags.rounding, a, b, c).to_bits()
        }),
        _ => {
            let plain = flags == FloatFlags::default();
            let (half, packed) = half_of(ty);
            map3(w, mask, slots, |a, b, c| {
                on_halves(packed, |shift| {
                    let mut values = [a, b, c].map(|bits| half.widen(bits >> shift));
                    if flags.ftz {
                        values = values.map(|v| flush_half(half, v));
                    }
                    let [x, y, z] = values;
                    let result = half.fma(x, y, z);
                    if plain {
                        result
                    } else {
                        clamp_half(half, flags, result)
                    }
                })
            });
        }
    }
}

/// Approximate functions are computed exactly rounded from f64: the device's error (PTX ISA 9.7.3)
/// is not modelled.
fn single1(op: Float1, x: f32) -> f32 {
    let wide = f64::from(x);
    match op {
        Float1::Neg => -x,
        Float1::Abs => x.abs(),
        Float1::Rcp | Float1::RcpGross => 1.0 / x,
        Float1::Sqrt => x.sqrt(),
        Float1::Rsqrt | Float1::RsqrtGross => (1.0 / wide.sqrt()) as f32,
        Float1::Ex2 => wide.exp2() as f32,
        Float1::Lg2 => wide.log2() as f32,
        Float1::Sin => wide.sin() as f32,
        Float1::Cos => wide.cos() as f32,
        Float1::Tanh => wide.tanh() as f32,
    }
}

/// An f32 function with its rounding.
fn rounded1(op: Float1, flags: FloatFlags, x: f32) -> f32 {
    let wide = f64::from(x);
    match (flags.rounding, op) {
        (Rounding::Nearest, _) => single1(op, x),
        (rounding, Float1::Sqrt) => to_f32(rounding, directed::odd_sqrt(wide)),
        (rounding, _) => to_f32(rounding, directed::odd_quotient(1.0, wide)),
    }
}

#[inline(always)]
pub(crate) fn float1(
    w: &mut Warp,
    mask: u32,
    op: Float1,
    ty: FloatType,
    flags: FloatFlags,
    [d, a]: [Slot; 2],
) {
    let plain = flags == FloatFlags::default();
    match (ty, op) {
        (FloatType::F32, Float1::Neg) if plain => {
            map1(w, mask, d, a, |x| canonical(-f32::from_bits(x)));
        }
        (FloatType::F32, Float1::Abs) if plain => {
            map1(w, mask, d, a, |x| canonical(f32::from_bits(x).abs()));
        }
        _ => rare1(w, mask, op, ty, flags, [d, a]),
    }
}

/// Functions that few kernels use, or use rarely.
fn rare1(w: &mut Warp, mask: u32, op: Float1, ty: FloatType, flags: FloatFlags, [d, a]: [Slot; 2]) {
    match ty {
        FloatType::F32 => {
            map1(w, mask, d, a, |x| modified(flags, rounded1(op, flags, operand(flags, x))));
        }
        FloatType::F64 | FloatType::F32x2 => map1_64(w, mask, d, a, |x| {
            let x = f64::from_bits(x);
            let result = match op {
                Float1::Neg => -x,
                Float1::Abs => x.abs(),
                Float1::RcpGross => gross(x, |x| 1.0 / x),
                Float1::RsqrtGross => gross(x, |x| 1.0 / x.sqrt()),
                Float1::Sqrt => directed::sqrt(flags.rounding, x),
                Float1::Rsqrt => 1.0 / x.sqrt(),
                _ => directed::double2(Float2::Div, flags.rounding, 1.0, x),
            };
            result.to_bits()
        }),
        _ => {
            let (half, packed) = half_of(ty);
            map1(w, mask, d, a, |x| {
                on_halves(packed, |shift| {
                    let value = half.widen(x >> shift);
                    let value = if flags.ftz { flush_half(half, value) } else { value };
                    half.round(single1(op, value))
                })
            });
        }
    }
}

/// Lanes whose number has a property.
pub(crate) fn test(w: &Warp, property: FloatProperty, wide: bool, a: Slot) -> u32 {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal};
    let holds = |lane: usize| {
        let category = match wide {
            true => f64::from_bits(w.get64(a)[lane]).classify(),
            false => f32::from_bits(w.get32(a)[lane]).classify(),
        };
        match property {
            FloatProperty::Finite => !matches!(category, Infinite | Nan),
            FloatProperty::Infinite => category == Infinite,
            FloatProperty::Number => category != Nan,
            FloatProperty::NotANumber => category == Nan,
            FloatProperty::Normal => category == Normal,
            FloatProperty::Subnormal => category == Subnormal,
        }
    };
    (0..LANES).fold(0, |mask, lane| mask | u32::from(holds(lane)) << lane)
}

fn holds(compare: Compare, order: Option<std::cmp::Ordering>) -> bool {
    let Some(order) = order else {
        return matches!(
            compare,
            Compare::Equ
                | Compare::Neu
                | Compare::Ltu
                | Compare::Leu
                | Compare::Gtu
                | Compare::Geu
                | Compare::Nan
        );
    };
    match compare {
        Compare::Eq | Compare::Equ => order.is_eq(),
        Compare::Ne | Compare::Neu => order.is_ne(),
        Compare::Lt | Compare::Ltu => order.is_lt(),
        Compare::Le | Compare::Leu => order.is_le(),
        Compare::Gt | Compare::Gtu => order.is_gt(),
        Compare::Ge | Compare::Geu => order.is_ge(),
        Compare::Num => true,
        Compare::Nan => false,
    }
}

/// Lanes where an f32 comparison with subnormals taken as zero holds.
pub(crate) fn compare_flushed(w: &Warp, how: Compare, a: Slot, b: Slot) -> u32 {
    let (x, y) = (w.get32(a), w.get32(b));
    (0..LANES).fold(0, |mask, l| {
        let (x, y) = (flush(f32::from_bits(x[l])), flush(f32::from_bits(y[l])));
        mask | u32::from(holds(how, x.partial_cmp(&y))) << l
    })
}

/// Lanes where a comparison holds, and its second result: the complement, or for packed types the
/// comparison of the high halves.
pub(crate) fn compare(w: &Warp, how: Compare, ty: FloatType, a: Slot, b: Slot) -> (u32, u32) {
    let gather = |f: &dyn Fn(usize) -> bool| {
        (0..LANES).fold(0u32, |mask, lane| mask | u32::from(f(lane)) << lane)
    };
    match ty {
        FloatType::F64 | FloatType::F32x2 => {
            let (x, y) = (w.get64(a), w.get64(b));
            let p =
                gather(&|l| holds(how, f64::from_bits(x[l]).partial_cmp(&f64::from_bits(y[l]))));
            (p, !p)
        }
        FloatType::F32 => {
            let (x, y) = (w.get32(a), w.get32(b));
            let p =
                gather(&|l| holds(how, f32::from_bits(x[l]).partial_cmp(&f32::from_bits(y[l]))));
            (p, !p)
        }
        _ => {
            let (half, packed) = half_of(ty);
            let (x, y) = (w.get32(a), w.get32(b));
            let at = |shift: u32| {
                gather(&|l| {
                    holds(how, half.widen(x[l] >> shift).partial_cmp(&half.widen(y[l] >> shift)))
                })
            };
            let p = at(0);
            (p, if packed { at(16) } else { !p })
        }
    }
}
