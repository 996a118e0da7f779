//! 24-bit products and SIMD video instructions (PTX ISA 9.7.1.5, 9.7.1.6, 9.7.18).

use super::int::{map2, map3};
use crate::program::{PackedInt, PackedOp, Slot};
use crate::state::Warp;

pub(crate) fn mul24(
    w: &mut Warp,
    mask: u32,
    [hi, signed]: [bool; 2],
    [d, a, b]: [Slot; 3],
    c: Option<Slot>,
) {
    let product = |a: u32, b: u32| {
        let [a, b] = [a, b].map(|x| part(x, 0, 24, signed));
        (if hi { (a * b) >> 16 } else { a * b }) as u32
    };
    match c {
        Some(c) => map3(w, mask, [d, a, b, c], |a, b, c| product(a, b).wrapping_add(c)),
        None => map2(w, mask, [d, a, b], product),
    }
}

pub(crate) fn execute(w: &mut Warp, mask: u32, packed: &PackedInt) {
    map3(w, mask, packed.slots, |a, b, c| combine(packed, a, b, c));
}

/// Part number `index` of a word.
fn part(word: u32, index: u32, bits: u32, signed: bool) -> i64 {
    let unused = 64 - bits;
    let raised = u64::from(word) >> (index * bits) << unused;
    if signed {
        raised as i64 >> unused
    } else {
        (raised >> unused) as i64
    }
}

fn combine(packed: &PackedInt, a: u32, b: u32, c: u32) -> u32 {
    let PackedInt { bits, signed, sat, sum, .. } = *packed;
    let ones = (1i64 << bits) - 1;
    let (least, most) = if signed[0] { (-(ones + 1) / 2, ones / 2) } else { (0, ones) };
    let mut out = if sum { c } else { 0 };
    for index in 0..32 / bits {
        let value =
            one(packed.op, part(a, index, bits, signed[1]), part(b, index, bits, signed[2]));
        let value = if sat { value.clamp(least, most) } else { value };
        if sum {
            out = out.wrapping_add(value as u32);
        } else {
            out |= ((value & ones) as u32) << (index * bits);
        }
    }
    out
}

fn one(op: PackedOp, a: i64, b: i64) -> i64 {
    match op {
        PackedOp::Add => a + b,
        PackedOp::Sub => a - b,
        PackedOp::Average => (a + b + i64::from(a + b >= 0)) >> 1,
        PackedOp::Distance => (a - b).abs(),
        PackedOp::Min => a.min(b),
        PackedOp::Max => a.max(b),
    }
}
