//! `mma.sync` (PTX ISA 9.7.14.5).

use super::product::{accumulate, Left, Operands, Scales};
use super::sums::Accumulators;
use crate::block::Block;
use crate::exec::machine::Machine;
use crate::exec::memory::require_full_warp;
use crate::exec::minifloat::{ue8m0_to_f32, E4M3_VALUES};
use crate::program::{Mma, MmaF64, MmaScales, ScaleSource, Slot};
use crate::state::{first_lane, Lanes32, Warp, LANES};

/// Rows 8 to 15 of a shape that has none.
static NO_ROWS: Lanes32 = [0; LANES];

#[inline(always)]
pub(crate) fn mma<M: Machine>(m: M, block: &mut Block<'_>, w: &mut Warp, op: &Mma, mask: u32) {
    require_full_warp(block, mask, "mma.sync");
    let registers = (usize::from(op.k) / op.a_type.per_register() / 4).clamp(1, 2);
    let b = [w.get32(op.b[0]), w.get32(op.b[1])];
    let scales = op.scales.as_ref().map(|scales| block_scales(w, scales, usize::from(op.k), mask));
    let operands = Operands {
        a_type: op.a_type,
        b_type: op.b_type,
        a: Left::Registers(left(w, op)),
        b: &b[..registers],
        scales: scales.as_ref(),
    };
    let accumulators = Accumulators { format: op.accumulator };
    let used = op.accumulator.registers() * usize::from(op.rows) / 16;
    let (c, d): (&[Slot], &[Slot]) = (&op.c[..used], &op.d[..used]);
    let mut sums = accumulators.load(m, w, Some(c));
    accumulate(m, &operands, &mut sums);
    accumulators.store(m, w, mask, (d, Some(c)), &sums);
}

/// Registers of A by k, then half of the rows.
#[inline(always)]
fn left<'w>(w: &'w Warp, op: &Mma) -> [&'w Lanes32; 4] {
    if op.rows == 16 {
        [w.get32(op.a[0]), w.get32(op.a[1]), w.get32(op.a[2]), w.get32(op.a[3])]
    } else {
        [w.get32(op.a[0]), &NO_ROWS, w.get32(op.a[1]), &NO_ROWS]
    }
}

/// Scales of `.block_scale` (PTX ISA 9.7.14.5.7).
///
/// Each lane's register holds four 8-bit scales. A row of A takes its scales from one of two
/// neighbouring lanes of its quad, chosen by the thread number: the first has those of row g, the
/// second those of row g + 8. A column of B takes them from one lane of the quad.
#[cold]
fn block_scales(w: &Warp, scales: &MmaScales, k: usize, mask: u32) -> Scales {
    let value = |code: u32| {
        if scales.e4m3 {
            // Unsigned: the sign bit has no meaning.
            E4M3_VALUES[(code & 0x7F) as usize]
        } else {
            ue8m0_to_f32(code)
        }
    };
    let of = |source: &ScaleSource| {
        let [byte, thread] =
            [source.byte, source.thread].map(|slot| first_lane(w.get32(slot), mask));
        (w.get32(source.data), byte as usize, thread as usize)
    };
    let (a, a_byte, a_thread) = of(&scales.a);
    let (b, b_byte, b_thread) = of(&scales.b);
    let per_row = usize::from(scales.per_row);
    let four = |word: u32, byte: usize| -> [f32; 4] {
        std::array::from_fn(|i| value(word >> (8 * ((byte + i.min(per_row - 1)) & 3)) & 0xFF))
    };
    Scales {
        a: std::array::from_fn(|row| four(a[4 * (row % 8) + 2 * (a_thread & 1) + row / 8], a_byte)),
        b: std::array::from_fn(|column| four(b[4 * column + (b_thread & 3)], b_byte)),
        slices: k / 8 / per_row,
    }
}

/// Products of f64: K one element per register and lane, summed in order with one rounding each.
pub(crate) fn mma_f64(block: &mut Block<'_>, w: &mut Warp, m: &MmaF64, mask: u32) {
    require_full_warp(block, mask, "mma.sync");
    let halves = usize::from(m.rows) / 8;
    let mut out = [[0u64; LANES]; 4];
    for (register, values) in out.iter_mut().enumerate().take(2 * halves) {
        let (half, odd) = (register / 2, register % 2);
        let c = w.get64(m.c[register]);
        for (lane, value) in values.iter_mut().enumerate() {
            let (row, column) = (lane / 4, 2 * (lane % 4) + odd);
            let sum = (0..usize::from(m.k)).fold(f64::from_bits(c[lane]), |sum, k| {
                let a = w.get64(m.a[half + halves * (k / 4)])[4 * row + k % 4];
                let b = w.get64(m.b[k / 4])[4 * column + k % 4];
                f64::from_bits(a).mul_add(f64::from_bits(b), sum)
            });
            *value = sum.to_bits();
        }
    }
    for (&slot, values) in m.d.iter().zip(&out).take(2 * halves) {
        w.set64(slot, mask, values);
    }
}
