//! Lane loops of the half formats, over all 64 halves of a register at once.

use super::machine::Machine;
use super::matrix::four_lanes;
use super::numeric::{bf16_to_f32, fma_bf16, fma_f16};
use crate::program::Float2;
use crate::state::{each_lane, Lanes32, LANES};

/// The halves of a register as f32, low before high.
type Halves = [f32; 2 * LANES];

/// An array over all halves from an expression of their index; a plain loop, because that
/// vectorises.
macro_rules! each_half {
    (|$i:ident| $value:expr) => {{
        let mut out: Halves = [0.0; 2 * LANES];
        for $i in 0..2 * LANES {
            out[$i] = $value;
        }
        out
    }};
}

/// Widens f16 pairs.
#[inline(always)]
fn widen<M: Machine>(m: M, register: &Lanes32) -> Halves {
    let mut out = [0.0; 2 * LANES];
    for g in 0..LANES / 4 {
        out[8 * g..8 * g + 8].copy_from_slice(&m.widen_f16(four_lanes(register, g)));
    }
    out
}

/// Rounds to f16 pairs.
#[inline(always)]
fn narrow<M: Machine>(m: M, halves: &Halves) -> Lanes32 {
    let mut out = [0; LANES];
    for g in 0..LANES / 4 {
        let mut eight = [0.0; 8];
        eight.copy_from_slice(&halves[8 * g..8 * g + 8]);
        out[4 * g..4 * g + 4].copy_from_slice(&m.narrow_f16(eight));
    }
    out
}

/// f16 in the low halves to f32.
#[inline(always)]
pub(crate) fn widen_low_f16<M: Machine>(m: M, a: &Lanes32) -> Lanes32 {
    let mut out = [0; LANES];
    for first in (0..LANES).step_by(8) {
        let mut words = [0; 8];
        words.copy_from_slice(&a[first..first + 8]);
        let values = m.widen_low_f16(words);
        for i in 0..8 {
            out[first + i] = super::numeric::canonical(values[i]);
        }
    }
    out
}

/// f32 to f16, nearest even: `high` goes to the high halves.
#[inline(always)]
pub(crate) fn narrow_pair_f16<M: Machine>(m: M, low: &Lanes32, high: &Lanes32) -> Lanes32 {
    narrow(m, &each_half!(|i| f32::from_bits(if i % 2 == 0 { low[i / 2] } else { high[i / 2] })))
}

/// Sum, difference or product of f16 pairs.
///
/// f32 holds the product exactly and the sum precisely enough (24 >= 2 * 11 + 2 bits) for the
/// second rounding to be innocuous.
#[inline(always)]
pub(crate) fn f16x2_arithmetic<M: Machine>(m: M, op: Float2, a: &Lanes32, b: &Lanes32) -> Lanes32 {
    let (x, y) = (widen(m, a), widen(m, b));
    let out = match op {
        Float2::Add => each_half!(|i| x[i] + y[i]),
        Float2::Sub => each_half!(|i| x[i] - y[i]),
        _ => each_half!(|i| x[i] * y[i]),
    };
    narrow(m, &out)
}

/// a * b + c on f16 pairs, one rounding.
#[inline(always)]
pub(crate) fn fma_f16x2<M: Machine>(m: M, a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
    let (x, y, z) = (widen(m, a), widen(m, b), widen(m, c));
    narrow(m, &each_half!(|i| fma_f16(x[i], y[i], z[i])))
}

/// a * b + c on bf16 pairs, one rounding.
#[inline(always)]
pub(crate) fn fma_bf16x2(a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
    let low: Lanes32 = each_lane!(|l| fma_bf16(
        bf16_to_f32(a[l] & 0xFFFF),
        bf16_to_f32(b[l] & 0xFFFF),
        bf16_to_f32(c[l] & 0xFFFF)
    ));
    let high: Lanes32 = each_lane!(|l| fma_bf16(
        bf16_to_f32(a[l] >> 16),
        bf16_to_f32(b[l] >> 16),
        bf16_to_f32(c[l] >> 16)
    ));
    each_lane!(|l| low[l] | high[l] << 16)
}
