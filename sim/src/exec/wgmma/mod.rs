//! `wgmma.mma_async` (PTX ISA 9.7.15): products of a warpgroup with operands in shared memory.
//!
//! Each of the four warps computes its own sixteen rows when it issues the instruction, eight
//! columns at a time like an `mma.sync`. That the result is not there before the wait is kept as a
//! rule about registers ([`registers`]), that the operands are read until then as marks on shared
//! memory ([`operand`]).

mod descriptor;
mod operand;
mod registers;

use std::ops::Range;

pub(crate) use operand::Fetches;
use operand::{Operand, Pair};

use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::counters::SharedTraffic;
use crate::exec::machine::Machine;
use crate::exec::matrix::{accumulate, unpack_left, Accumulators, Left, Operands};
use crate::exec::{proxy, warpgroup};
use crate::program::{Element, Instruction, Slot, Tracking, Wgmma, WgmmaLeft};
use crate::state::{Lanes32, Warp, FULL, LANES};
pub(crate) use registers::{
    commit, concerned, exit, fence, mark_operands, touch, wait, WgmmaState,
};

/// Executes one warp's part of a `wgmma.mma_async`.
#[inline(always)]
pub(crate) fn issue<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    op: &Wgmma,
    mask: u32,
) {
    let in_memory = match op.a {
        WgmmaLeft::Shared { descriptor, transposed } => Some((descriptor, transposed)),
        WgmmaLeft::Registers(_) => None,
    };
    let a_descriptor = in_memory.map_or(0, |(descriptor, _)| w.get64(descriptor)[0]);
    warpgroup::step(block, w, [a_descriptor, w.get64(op.b)[0]], "wgmma.mma_async", mask);
    registers::issue(block, w, instruction, op);
    let a_operand = in_memory
        .map(|(descriptor, transposed)| Operand::new(block, w, descriptor, transposed, mask));
    let a = left(block, w, op, a_operand.as_ref());
    let rows = unpack_left(m, op.a_type, [&a[0][0], &a[1][0], &a[0][1], &a[1][1]]);
    let b = Operand::new(block, w, op.b, op.b_transposed, mask);
    count_traffic(block, w, u64::from(op.n));
    let keep = keeps_accumulators(block, w, op, mask);
    let (_, registers) = block.context.program.uses(instruction);
    let accumulators = Accumulators { format: op.accumulator };
    let count = op.accumulator.registers();
    let mut slots: [Slot; 4] = [0; 4];
    for (group, indices) in registers.chunks_exact(count).take(usize::from(op.n) / 8).enumerate() {
        // A register of the 32-bit file has its slot as definedness index.
        slots.iter_mut().zip(indices).for_each(|(slot, &index)| *slot = index as Slot);
        let slots = &slots[..count];
        let old = keep.then_some(slots);
        if instruction.tracking == Tracking::Full {
            check_defined(block, w, old);
        }
        let columns = b.load(block, group);
        let operands = Operands {
            a_type: op.a_type,
            b_type: op.b_type,
            a: Left::Unpacked(&rows),
            b: &[&columns[0], &columns[1]],
            scales: None,
        };
        let mut sums = accumulators.load(m, w, old);
        accumulate(m, &operands, &mut sums);
        accumulators.store(m, w, mask, (slots, old), &sums);
    }
    let [first, second] = own_rows(w);
    if let Some(a) = a_operand {
        begin_reads(block, w, &a, first..second + 1);
    }
    begin_reads(block, w, &b, 0..usize::from(op.n) / 8);
}

/// From now until the wait the product reads these groups of eight rows (or columns).
fn begin_reads(block: &mut Block<'_>, w: &mut Warp, operand: &Operand, groups: Range<usize>) {
    if block.checks() {
        let region = operand.region(block, groups);
        let ticket = proxy::begin_read(block, region, None, "wgmma load");
        w.wgmma.reads(ticket);
    }
}

/// The warp's two groups of eight rows.
fn own_rows(w: &Warp) -> [usize; 2] {
    let warp = (w.index % warpgroup::WARPS) as usize;
    [2 * warp, 2 * warp + 1]
}

/// A's sixteen rows: registers of rows 0 to 7 and of rows 8 to 15.
fn left(block: &mut Block<'_>, w: &Warp, op: &Wgmma, shared: Option<&Operand>) -> [Pair; 2] {
    let mut rows = match (op.a, shared) {
        (WgmmaLeft::Registers([a, b, c, d]), _) => {
            [[a, c], [b, d]].map(|slots| slots.map(|slot| *w.get32(slot)))
        }
        (WgmmaLeft::Shared { .. }, operand) => {
            count_traffic(block, w, 64);
            own_rows(w).map(|group| operand.map_or([[0; LANES]; 2], |o| o.load(block, group)))
        }
    };
    if op.negate_a != op.negate_b {
        rows.iter_mut().flatten().for_each(|register| negate(op.a_type, register));
    }
    rows
}

/// Flips the signs of floating-point elements.
fn negate(ty: Element, register: &mut Lanes32) {
    let signs = match ty.bits() {
        32 => 0x8000_0000,
        16 => 0x8000_8000,
        _ => 0x8080_8080,
    };
    register.iter_mut().for_each(|word| *word ^= signs);
}

fn check_defined(block: &mut Block<'_>, w: &Warp, old: Option<&[Slot]>) {
    let undefined = |slots: &[Slot]| slots.iter().any(|&s| w.defined[usize::from(s)] != FULL);
    if old.is_some_and(undefined) && block.checks() {
        let message = "wgmma adds to an accumulator that was not written".to_owned();
        block.report(FindingKind::UninitialisedRegister, Place::default(), message);
    }
}

/// `scale-d`, which must be the same in all lanes.
fn keeps_accumulators(block: &mut Block<'_>, w: &Warp, op: &Wgmma, mask: u32) -> bool {
    let scale = w.predicate(op.scale_d) & mask;
    if scale != 0 && scale != mask {
        let message = format!("scale-d of wgmma is true in lanes {scale:#010x} only");
        block.report(FindingKind::InvalidOperand, Place::default(), message);
    }
    scale != 0
}

/// An operand is fetched once for all four warps: 32 bytes a row, 128 a wavefront.
fn count_traffic(block: &mut Block<'_>, w: &Warp, rows: u64) {
    if w.index % warpgroup::WARPS == 0 {
        let wavefronts = rows / 4;
        let traffic = SharedTraffic { requests: 1, wavefronts, ideal_wavefronts: wavefronts };
        block.counters().shared.add(traffic);
    }
}
