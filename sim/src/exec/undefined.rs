//! What undefined registers may do: their values may be moved and computed with, but not matter.
//!
//! Compilers speculate: code ahead of a branch computes with registers that only one side of it
//! has written, and halves of packed values that nobody looks at stay unwritten. As in Memcheck
//! (Seward and Nethercote 2005), a register computation with an undefined source therefore only
//! makes its result undefined; a shuffle moves what the lane it reads from has, which for the idiom of
//! one lane that fetches a number for all is defined. It is a defect when an address, a stored value, a
//! matrix operand, a vote or a branch depends on one. Most registers are written on every path to every use,
//! which [`crate::dataflow`] proves beforehand. Of the others [`Warp::defined`] says where all bytes
//! are defined; definedness by lane and byte is kept here, for the few that have undefined bytes.

use std::collections::HashMap;

use super::shuffle::source_lane;
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::program::{
    BoolOp, Convert, ConvertType, FloatType, Instruction, Int1, Int2, Op, PredicateSource, Program,
    Slot,
};
use crate::state::{lanes, lanes_where, Operands, Warp, FULL};

/// For each byte of a register the lanes in which it is defined. Bytes above a register's width
/// count as defined wherever the register is narrower than the operation that reads it.
type Bytes = [u32; 8];

/// A register that is undefined in part.
#[derive(Debug, Clone, Copy)]
struct Trace {
    bytes: Bytes,
    /// Instruction that first computed with a register that was not written.
    origin: Option<usize>,
}

/// Registers of a warp with undefined bytes, by definedness index.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    registers: HashMap<usize, Trace>,
    /// Results of the instruction that is being executed.
    pending: Vec<(usize, Trace)>,
}

impl Traces {
    /// Forgets everything, for the next thread block.
    pub(crate) fn reset(&mut self) {
        self.registers.clear();
        self.pending.clear();
    }
}

/// An instruction misses a source in some lane: reports it, or notes which bytes of its results
/// will be undefined. Returns whether all results count as defined.
#[cold]
pub(super) fn missing_sources(
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    guard: u32,
    undefined: u32,
) -> bool {
    let program = block.context.program;
    let (reads, _) = program.uses(instruction);
    let traced = reads.iter().map(|&index| index as usize);
    let origin = traced.filter_map(|index| w.traces.registers.get(&index)?.origin).next();
    if guard == 0 && computes(instruction.op) {
        let moves = instruction.propagates_undefined || matches!(instruction.op, Op::Selp { .. });
        let origin = origin.or((!moves).then_some(block.pc));
        let mut results = Vec::new();
        let registers = Registers { program, w };
        registers.results(instruction, &mut |index, bytes| results.push((index, bytes)));
        let pending = results.into_iter().map(|(index, bytes)| (index, Trace { bytes, origin }));
        w.traces.pending.extend(pending);
        return false;
    }
    if block.checks() {
        report(block, origin, (guard | undefined).trailing_zeros() as usize);
    }
    true
}

/// Reports at the instruction that first used the undefined value.
fn report(block: &mut Block<'_>, origin: Option<usize>, lane: usize) {
    let here = block.pc;
    let mut message = "use of a register that was not written".to_owned();
    if let Some(origin) = origin.filter(|&origin| origin != here) {
        let line = block.context.program.code[here].line;
        message += &format!("; the result matters in PTX line {line}");
        block.pc = origin;
    }
    block.report(FindingKind::UninitialisedRegister, Place::lane(lane), message);
    block.pc = here;
}

/// Enters the results that [`missing_sources`] noted, for the lanes of `mask`.
#[cold]
pub(super) fn define_pending(w: &mut Warp, mask: u32) {
    let mut pending = std::mem::take(&mut w.traces.pending);
    for (index, trace) in pending.drain(..) {
        let before = w.bytes(index);
        let bytes: Bytes = std::array::from_fn(|i| before[i] & !mask | trace.bytes[i] & mask);
        let defined = bytes.iter().fold(FULL, |all, byte| all & byte);
        if w.defined[index] == FULL && defined != FULL {
            w.operands.fill(Operands::default());
        }
        w.defined[index] = defined;
        if defined == FULL {
            w.traces.registers.remove(&index);
        } else {
            w.traces.registers.insert(index, Trace { bytes, ..trace });
        }
    }
    w.traces.pending = pending;
}

impl Warp {
    /// Defined lanes of each byte of a register.
    fn bytes(&self, index: usize) -> Bytes {
        let whole = self.defined[index];
        // An entry may be older than a later, defined, value of the register.
        self.traces.registers.get(&index).map_or([whole; 8], |t| t.bytes.map(|byte| byte | whole))
    }
}

/// Whether an instruction only computes registers from others.
pub(crate) fn computes(op: Op) -> bool {
    matches!(
        op,
        Op::Int2 { .. }
            | Op::Int1 { .. }
            | Op::MulWide { .. }
            | Op::Mad { .. }
            | Op::Int16x2 { .. }
            | Op::Sad { .. }
            | Op::Bfe { .. }
            | Op::Bfi { .. }
            | Op::BitMask { .. }
            | Op::Extend { .. }
            | Op::FindNthSet { .. }
            | Op::Prmt { .. }
            | Op::Lop3 { .. }
            | Op::FunnelShift { .. }
            | Op::Dp2a { .. }
            | Op::Dp4a { .. }
            | Op::Setp { .. }
            | Op::Set { .. }
            | Op::TestFloat { .. }
            | Op::Selp { .. }
            | Op::Slct { .. }
            | Op::PredicateLogic { .. }
            | Op::PredicateMove { .. }
            | Op::Move { .. }
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::Convert(_)
            | Op::ConvertPair(_)
            | Op::ConvertTf32(_)
            | Op::NarrowPair(_)
            | Op::WidenPair(_)
            | Op::CastAddress { .. }
            | Op::IsSpace { .. }
            | Op::Float2 { .. }
            | Op::Float1 { .. }
            | Op::Fma { .. }
            | Op::Extended(_)
            | Op::Extreme(_)
            | Op::MixedFloat(_)
            | Op::Shuffle { .. }
    )
}

/// The registers of a warp before an instruction changes them.
struct Registers<'w> {
    program: &'w Program,
    w: &'w Warp,
}

fn meet(a: Bytes, b: Bytes) -> Bytes {
    std::array::from_fn(|i| a[i] & b[i])
}

/// Groups of `size` bytes are defined only as a whole.
fn coarsen(bytes: Bytes, size: usize) -> Bytes {
    std::array::from_fn(|i| {
        let group = i / size * size;
        bytes[group..group + size].iter().fold(FULL, |all, byte| all & byte)
    })
}

/// Bytes of one part of a packed format; 8 where a value is one number.
fn part_bytes(ty: FloatType) -> usize {
    match ty {
        FloatType::F16x2 | FloatType::Bf16x2 => 2,
        FloatType::F32x2 => 4,
        _ => 8,
    }
}

impl Registers<'_> {
    fn index(&self, wide: bool, slot: Slot) -> usize {
        if wide {
            self.program.index64(slot)
        } else {
            usize::from(slot)
        }
    }

    fn narrow(&self, slot: Slot) -> Bytes {
        self.w.bytes(usize::from(slot))
    }

    /// Calls `result` with each result's definedness index and bytes.
    fn results(&self, instruction: &Instruction, result: &mut dyn FnMut(usize, Bytes)) {
        let at = |wide, slot| self.w.bytes(self.index(wide, slot));
        match instruction.op {
            Op::Move { wide, d, a } => result(self.index(wide, d), at(wide, a)),
            Op::Pack { wide, part_bytes, d, parts, .. } => {
                let size = usize::from(part_bytes);
                let sources = parts.map(|part| self.narrow(part));
                let byte = |i: usize| sources.get(i / size).map_or(FULL, |part| part[i % size]);
                result(self.index(wide, d), std::array::from_fn(byte));
            }
            Op::Unpack { wide, count, part_bytes, a, parts } => {
                let size = usize::from(part_bytes);
                let whole = at(wide, a);
                let parts = &parts[..usize::from(count)];
                for (&part, bytes) in parts.iter().zip(whole.chunks_exact(size)) {
                    let byte = |i: usize| bytes.get(i).copied().unwrap_or(FULL);
                    result(usize::from(part), std::array::from_fn(byte));
                }
            }
            Op::Selp { wide, d, a, b, p } => {
                let (choose, known) = (self.w.predicate(p), self.predicate(p));
                let (a, b) = (at(wide, a), at(wide, b));
                let byte = |i: usize| (a[i] & choose | b[i] & !choose) & known;
                result(self.index(wide, d), std::array::from_fn(byte));
            }
            Op::PredicateLogic { op, d, a, b } => {
                let bytes = [self.predicate_logic(op, a, b); 8];
                result(self.program.index_predicate(d), bytes);
            }
            Op::Int1 { op: Int1::Not, ty, d, a } => {
                result(self.index(ty.wide(), d), at(ty.wide(), a));
            }
            Op::Int2 { op: Int2::And, ty, d, a, b } => {
                let (zero_a, zero_b) = (self.zeros(ty.wide(), a), self.zeros(ty.wide(), b));
                let (a, b) = (at(ty.wide(), a), at(ty.wide(), b));
                // A byte of zeros settles the result.
                let byte = |i: usize| a[i] & b[i] | a[i] & zero_a[i] | b[i] & zero_b[i];
                result(self.index(ty.wide(), d), std::array::from_fn(byte));
            }
            Op::Int2 { op: Int2::Or | Int2::Xor, ty, d, a, b } => {
                result(self.index(ty.wide(), d), meet(at(ty.wide(), a), at(ty.wide(), b)));
            }
            Op::Shuffle { mode, d, p, a, b, c, members } => {
                let operands = [b, c, members].map(|slot| self.narrow(slot));
                let known = operands.iter().flatten().fold(FULL, |all, byte| all & byte);
                let (b, c) = (self.w.get32(b), self.w.get32(c));
                let from = |lane: usize| source_lane(mode, lane as u32, b[lane], c[lane]).0;
                let moved = self
                    .narrow(a)
                    .map(|byte| known & lanes_where(FULL, |lane| byte >> from(lane) & 1 == 1));
                result(usize::from(d), moved);
                if let Some(p) = p {
                    result(self.program.index_predicate(p), [known; 8]);
                }
            }
            _ => self.packed_results(instruction, result),
        }
    }

    fn packed_results(&self, instruction: &Instruction, result: &mut dyn FnMut(usize, Bytes)) {
        let meet_of = |wide: bool, slots: &[Slot]| {
            let bytes = slots.iter().map(|&slot| self.w.bytes(self.index(wide, slot)));
            bytes.fold([FULL; 8], meet)
        };
        match instruction.op {
            Op::Lop3 { d, a, b, c, .. } => result(usize::from(d), meet_of(false, &[a, b, c])),
            Op::Prmt { mode: 0, d, a, b, c } => result(usize::from(d), self.permuted([a, b, c])),
            Op::Int16x2 { d, a, b, .. } => {
                result(usize::from(d), coarsen(meet_of(false, &[a, b]), 2));
            }
            Op::Float2 { ty, d, a, b, .. } if part_bytes(ty) < 8 => {
                let wide = ty == FloatType::F32x2;
                let bytes = coarsen(meet_of(wide, &[a, b]), part_bytes(ty));
                result(self.index(wide, d), bytes);
            }
            Op::Fma { ty, d, a, b, c, .. } if part_bytes(ty) < 8 => {
                let wide = ty == FloatType::F32x2;
                let bytes = coarsen(meet_of(wide, &[a, b, c]), part_bytes(ty));
                result(self.index(wide, d), bytes);
            }
            Op::Convert(Convert { from, d, d_wide, a, a_wide, .. }) => {
                let source = self.w.bytes(self.index(a_wide, a));
                let read = source[..converted_bytes(from)].iter().fold(FULL, |all, b| all & b);
                result(self.index(d_wide, d), [read; 8]);
            }
            _ => {
                let (reads, writes) = self.program.uses(instruction);
                let all = reads.iter().fold(FULL, |all, &read| all & self.w.defined[read as usize]);
                for &write in writes {
                    result(write as usize, [all; 8]);
                }
            }
        }
    }

    fn predicate(&self, source: PredicateSource) -> u32 {
        self.w.defined[self.program.index_predicate(source.slot)]
    }

    /// `false and x` and `true or x` are known whatever x is.
    fn predicate_logic(&self, op: BoolOp, a: PredicateSource, b: PredicateSource) -> u32 {
        let settles = |source: PredicateSource| match op {
            BoolOp::And => self.predicate(source) & !self.w.predicate(source),
            BoolOp::Or => self.predicate(source) & self.w.predicate(source),
            BoolOp::Xor => 0,
        };
        self.predicate(a) & self.predicate(b) | settles(a) | settles(b)
    }

    /// For each byte of a register the lanes in which it is 0.
    fn zeros(&self, wide: bool, slot: Slot) -> Bytes {
        let mut zeros = [0; 8];
        for lane in 0..crate::state::LANES {
            let value =
                if wide { self.w.get64(slot)[lane] } else { u64::from(self.w.get32(slot)[lane]) };
            for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
                zeros[i] |= u32::from(byte == 0) << lane;
            }
        }
        zeros
    }

    /// Byte permutation by the selector `c`, which picks bytes of `{b, a}` (PTX ISA 9.7.9.7).
    fn permuted(&self, [a, b, c]: [Slot; 3]) -> Bytes {
        let (a, b) = (self.narrow(a), self.narrow(b));
        let selectors = self.w.get32(c);
        let mut bytes = [FULL; 8];
        for lane in lanes(FULL) {
            for (i, byte) in bytes.iter_mut().take(4).enumerate() {
                let pick = (selectors[lane] >> (4 * i) & 7) as usize;
                let from = if pick < 4 { a[pick] } else { b[pick - 4] };
                *byte &= from | !(1 << lane);
            }
        }
        let known = self.w.defined[usize::from(c)];
        bytes.map(|byte| byte & known)
    }
}

/// Bytes of a source that a conversion reads.
fn converted_bytes(from: ConvertType) -> usize {
    match from {
        ConvertType::U8 | ConvertType::S8 => 1,
        ConvertType::U16 | ConvertType::S16 | ConvertType::F16 | ConvertType::Bf16 => 2,
        ConvertType::U32 | ConvertType::S32 | ConvertType::F32 => 4,
        ConvertType::U64 | ConvertType::S64 | ConvertType::F64 => 8,
    }
}
