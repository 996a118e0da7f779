//! Atomics and reductions on global and shared memory.

use super::memory::{
    addresses, by_space, check_defined, count_global, global_groups, Direction, GlobalGroup,
};
use super::numeric::{bf16_to_f32, canonical, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::shared::{check_shared, narrow, report_lanes};
use super::{cluster, global_order, traffic};
use crate::block::{Block, Place};
use crate::check::{FindingKind, GlobalKind, LaneAccess};
use crate::program::{Atomic, AtomicOp, AtomicType, Scope, Slot, Space};
use crate::shared::SharedMemory;
use crate::state::{lanes, Lanes64, Warp};

/// New value for an old one.
pub(crate) fn apply(op: AtomicOp, ty: AtomicType, old: u64, operand: u64, swap: u64) -> u64 {
    match op {
        AtomicOp::Exch => operand,
        AtomicOp::Cas => {
            if old == operand {
                swap
            } else {
                old
            }
        }
        AtomicOp::And => old & operand,
        AtomicOp::Or => old | operand,
        AtomicOp::Xor => old ^ operand,
        // inc wraps to 0 at the operand, dec to the operand at 0 (PTX ISA 9.7.13.5).
        AtomicOp::Inc => {
            if old >= operand {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > operand {
                operand
            } else {
                old - 1
            }
        }
        AtomicOp::Min | AtomicOp::Max => extreme(op, ty, old, operand),
        AtomicOp::Add => add(ty, old, operand),
    }
}

fn extreme(op: AtomicOp, ty: AtomicType, old: u64, operand: u64) -> u64 {
    let less = match ty {
        AtomicType::S32 => (operand as i32) < (old as i32),
        AtomicType::S64 => (operand as i64) < (old as i64),
        _ => operand < old,
    };
    if less == (op == AtomicOp::Min) {
        operand
    } else {
        old
    }
}

fn add(ty: AtomicType, old: u64, operand: u64) -> u64 {
    let (a, b) = (old as u32, operand as u32);
    let f16 = |shift: u32| {
        f32_to_f16(f16_to_f32(a >> shift & 0xFFFF) + f16_to_f32(b >> shift & 0xFFFF)) << shift
    };
    let bf16 = |shift: u32| {
        f32_to_bf16(bf16_to_f32(a >> shift & 0xFFFF) + bf16_to_f32(b >> shift & 0xFFFF)) << shift
    };
    match ty {
        AtomicType::U16 => u64::from((a as u16).wrapping_add(b as u16)),
        AtomicType::U32 | AtomicType::S32 => u64::from(a.wrapping_add(b)),
        AtomicType::U64 | AtomicType::S64 => old.wrapping_add(operand),
        AtomicType::F32 => u64::from(canonical(f32::from_bits(a) + f32::from_bits(b))),
        AtomicType::F64 => (f64::from_bits(old) + f64::from_bits(operand)).to_bits(),
        AtomicType::F16 => u64::from(f16(0)),
        AtomicType::Bf16 => u64::from(bf16(0)),
        AtomicType::F16x2 => u64::from(f16(0) | f16(16)),
        AtomicType::Bf16x2 => u64::from(bf16(0) | bf16(16)),
        // Not added, only exchanged.
        AtomicType::B128 => old,
    }
}

fn operand(w: &Warp, atomic: &Atomic, slot: Slot, lane: usize) -> u64 {
    if atomic.ty.wide() {
        w.get64(slot)[lane]
    } else if atomic.ty.bytes() == 2 {
        u64::from(w.get32(slot)[lane] & 0xFFFF)
    } else {
        u64::from(w.get32(slot)[lane])
    }
}

fn write_old(w: &mut Warp, atomic: &Atomic, lane: usize, values: &[u64]) {
    let Some(slots) = atomic.old else { return };
    for (&slot, &value) in slots.iter().zip(values) {
        if atomic.ty.wide() {
            w.r64[slot as usize][lane] = value;
        } else {
            w.r32[slot as usize][lane] = value as u32;
        }
    }
}

/// Changes the elements that a lane addresses through `update`, which is given each element's
/// number and new value from its old one, and returns the old one.
fn update_elements(
    w: &mut Warp,
    atomic: &Atomic,
    lane: usize,
    mut update: impl FnMut(usize, &dyn Fn(u64) -> u64) -> u64,
) {
    let swap = operand(w, atomic, atomic.swap, lane);
    let mut old = [0; 8];
    let elements = &mut old[..usize::from(atomic.count)];
    for (element, old) in elements.iter_mut().enumerate() {
        let value = operand(w, atomic, atomic.operands[element], lane);
        *old = update(element, &|old| apply(atomic.op, atomic.ty, old, value, swap));
    }
    // Results may overwrite operands, so they wait until all of those have been read.
    write_old(w, atomic, lane, elements);
}

/// Exchanges the 16 bytes that a lane addresses: `exchange` is given the new value's two words
/// from the old ones, and returns the old ones.
fn update_wide(
    w: &mut Warp,
    atomic: &Atomic,
    lane: usize,
    exchange: impl FnOnce(&dyn Fn([u64; 2]) -> [u64; 2]) -> [u64; 2],
) {
    let pair = |at: usize| [0, 1].map(|word| w.get64(atomic.operands[at + word])[lane]);
    let (operand, swap) = (pair(0), pair(2));
    let old = exchange(&|old| match atomic.op {
        AtomicOp::Cas if old == operand => swap,
        AtomicOp::Cas => old,
        _ => operand,
    });
    write_old(w, atomic, lane, &old);
}

pub(crate) fn execute(block: &mut Block<'_>, w: &mut Warp, atomic: &Atomic, mask: u32) {
    let at = addresses(w, atomic.address);
    if atomic.old.is_some() {
        w.polled_at = block.pc;
        block.polls.count += 1;
    }
    by_space(block, atomic.space, at, mask, |block, space, at, mask| match space {
        Space::Global | Space::Generic => on_global(block, w, atomic, at, mask),
        Space::Shared => on_shared(block, w, atomic, at, mask),
        Space::SharedCluster => cluster::atomic(block, w, atomic, at, mask),
        other => {
            let message = format!("atomic on {other:?} memory");
            let lane = mask.trailing_zeros() as usize;
            block.report(FindingKind::InvalidOperand, Place::at(lane, at[lane]), message);
        }
    });
}

fn on_global(block: &mut Block<'_>, w: &mut Warp, atomic: &Atomic, at: &Lanes64, mask: u32) {
    let bytes = atomic.ty.bytes();
    let size = u64::from(bytes) * u64::from(atomic.count);
    global_groups(block, at, mask, size, Direction::Atomic, |block, group| {
        count_global(block, group, size, Direction::Atomic);
        if block.checks() && atomic.op != AtomicOp::Exch {
            check_defined(block, group, size as u32);
        }
        if block.checks() {
            order_before(block, group, atomic, size);
        }
        let context = block.context;
        let Some((buffer, _)) = context.memory.get(group.buffer) else { return };
        for lane in lanes(group.mask) {
            let start = group.offsets[lane] as usize;
            let changes = &mut block.polls.changes;
            if atomic.ty == AtomicType::B128 {
                update_wide(w, atomic, lane, |new| {
                    let old = buffer.update_wide(start, new);
                    *changes += u64::from(new(old) != old);
                    old
                });
                buffer.define(start, size as u32);
                continue;
            }
            update_elements(w, atomic, lane, |element, new| {
                let old = buffer.update(start + element * bytes as usize, bytes, new);
                *changes += u64::from(new(old) != old);
                old
            });
            buffer.define(start, size as u32);
        }
        if block.checks() && atomic.old.is_some() {
            global_order::acquire(block, group, atomic.order, w.live);
        }
    });
}

/// Race check and release of a global atomic. Fences are meant for flags and counters: sums of
/// floats publish nothing, which keeps the table of locations small.
fn order_before(block: &mut Block<'_>, group: &GlobalGroup, atomic: &Atomic, size: u64) {
    let scope = atomic.order.scope.unwrap_or(Scope::Device);
    let kind = match atomic.old {
        Some(_) => GlobalKind::Update(scope),
        None => GlobalKind::StrongWrite(scope),
    };
    global_order::check(block, group, size, kind);
    if atomic.order.release || atomic.ty.is_integer() {
        global_order::release(block, group, atomic.order);
    }
}

/// Shared atomics of several warps are no race among themselves, so they are not entered into the
/// race table; a plain access in the same generation still meets the last plain one.
pub(crate) fn on_shared(
    block: &mut Block<'_>,
    w: &mut Warp,
    atomic: &Atomic,
    at: &Lanes64,
    mask: u32,
) {
    let size = atomic.ty.bytes() as usize * usize::from(atomic.count);
    let good = check_shared(block, at, mask, size as u64, Direction::Atomic);
    let traffic = traffic::shared_request(&narrow(at), good, size as u32);
    block.counters().shared.add(traffic);
    for lane in lanes(good) {
        let address = at[lane] as usize;
        if block.checks() && !block.shared.is_defined(address, size) {
            let message = "atomic on undefined shared bytes".to_owned();
            block.report(FindingKind::UninitialisedShared, Place::at(lane, at[lane]), message);
        }
        if block.checks() {
            let who = (block.warp, lane);
            if let Some(other) = block.shared.lanes.access(address, size, who, LaneAccess::Atomic) {
                report_lanes(block, lane, address, "atomic", other);
            }
        }
        update_shared(&mut block.shared, w, atomic, address, lane);
    }
}

/// Performs one lane's atomic on shared bytes.
pub(crate) fn update_shared(
    shared: &mut SharedMemory,
    w: &mut Warp,
    atomic: &Atomic,
    address: usize,
    lane: usize,
) {
    let bytes = atomic.ty.bytes() as usize;
    if atomic.ty == AtomicType::B128 {
        return update_wide(w, atomic, lane, |new| {
            let old = [0, 8].map(|word| shared.load(address + word, 8));
            let [low, high] = new(old);
            shared.store(address, 8, low);
            shared.store(address + 8, 8, high);
            old
        });
    }
    update_elements(w, atomic, lane, |element, new| {
        let place = address + element * bytes;
        let old = shared.load(place, bytes);
        shared.store(place, bytes, new(old));
        old
    });
}
