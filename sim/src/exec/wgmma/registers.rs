//! Order between `wgmma` and the registers it uses (PTX ISA 9.7.15.6 and 9.7.15.7).
//!
//! A pending `wgmma` reads A's registers and changes its accumulators at any time until its batch
//! was waited for. Before that nothing may touch the accumulators or write A; and whoever wrote
//! such a register, or read an accumulator, must execute `wgmma.fence` before the next `wgmma` that
//! uses it. Products on the same accumulators in the same shape are ordered among themselves.

use std::collections::VecDeque;

use crate::block::{Block, Place};
use crate::check::{FindingKind, Ticket};
use crate::exec::{proxy, warpgroup};
use crate::program::{Instruction, Op, Program, Wgmma, WgmmaLeft};
use crate::state::Warp;

/// What a 32-bit register means to `wgmma`. Batches count from 1; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// Latest batch that accumulates into the register, and its shape and place therein.
    accumulating: u32,
    shape: u32,
    /// Latest batch that reads it as part of A.
    reading: u32,
    /// Number of fences before the latest access by another instruction, plus one.
    touched: u32,
}

/// The warp's side of its asynchronous products.
#[derive(Debug, Default)]
pub(crate) struct WgmmaState {
    /// By 32-bit register; empty in programs without `wgmma`.
    uses: Vec<Use>,
    /// Batches closed by `wgmma.commit_group`; the open one has the next number.
    committed: u32,
    /// Batches known to be complete.
    completed: u32,
    /// The open batch holds a product.
    open: bool,
    fences: u32,
    /// Reads of shared memory in progress, with their batch.
    reads: VecDeque<(u32, Ticket)>,
}

impl WgmmaState {
    /// State for one warp of a program.
    pub(crate) fn new(program: &Program) -> WgmmaState {
        let used = program.code.iter().any(|i| matches!(i.op, Op::Wgmma(_)));
        let uses = vec![Use::default(); if used { program.count32 } else { 0 }];
        WgmmaState { uses, ..WgmmaState::default() }
    }

    /// For the next thread block.
    pub(crate) fn reset(&mut self) {
        self.uses.fill(Use::default());
        (self.committed, self.completed, self.open, self.fences) = (0, 0, false, 0);
        self.reads.clear();
    }

    /// A product of the open batch reads shared memory until its wait.
    pub(super) fn reads(&mut self, ticket: Option<Ticket>) {
        let batch = self.committed + 1;
        self.reads.extend(ticket.map(|ticket| (batch, ticket)));
    }

    fn is_pending(&self, batch: u32) -> bool {
        batch > self.completed
    }
}

fn hazard(block: &mut Block<'_>, message: impl Into<String>) {
    if block.checks() {
        block.report(FindingKind::WgmmaHazard, Place::default(), message.into());
    }
}

/// By definedness index, the registers of some `wgmma`, and those that are moved from or to them.
pub(crate) fn concerned(program: &Program) -> Vec<bool> {
    let mut concerned = vec![false; program.count32 + program.count64 + program.count_predicates];
    for instruction in program.code.iter().filter(|i| matches!(i.op, Op::Wgmma(_))) {
        let (reads, writes) = program.uses(instruction);
        let registers = reads.iter().chain(writes).map(|&index| index as usize);
        registers.filter(|&index| index < program.count32).for_each(|i| concerned[i] = true);
    }
    if !concerned.contains(&true) {
        return concerned;
    }
    loop {
        let mut grown = false;
        for instruction in program.code.iter().filter(|i| matches!(i.op, Op::Move { .. })) {
            if let ([from], [to]) = program.uses(instruction) {
                let (from, to) = (*from as usize, *to as usize);
                grown |= concerned[from] && !std::mem::replace(&mut concerned[to], true);
            }
        }
        if !grown {
            return concerned;
        }
    }
}

/// Marks the instructions that touch a register of some `wgmma`, directly or through moves.
pub(crate) fn mark_operands(program: &mut Program) {
    let concerned = concerned(program);
    if !concerned.contains(&true) {
        return;
    }
    let touches: Vec<bool> = (program.code.iter())
        .map(|instruction| {
            let (reads, writes) = program.uses(instruction);
            reads.iter().chain(writes).any(|&index| concerned[index as usize])
        })
        .collect();
    for (instruction, touches) in program.code.iter_mut().zip(touches) {
        instruction.touches_wgmma = touches && !matches!(instruction.op, Op::Wgmma(_));
    }
}

/// An ordinary instruction that touches registers of some `wgmma`.
#[cold]
pub(crate) fn touch(block: &mut Block<'_>, w: &mut Warp, instruction: &Instruction) {
    let program = block.context.program;
    let (reads, writes) = program.uses(instruction);
    if let (Op::Move { .. }, [from], [to]) = (instruction.op, reads, writes) {
        // The compiler's copies of a register in flight are names for it, not accesses.
        let source = w.wgmma.uses.get(*from as usize).copied().unwrap_or_default();
        if w.wgmma.is_pending(source.accumulating) {
            w.wgmma.uses[*to as usize] = source;
            return;
        }
    }
    let now = w.wgmma.fences + 1;
    for &index in reads.iter().chain(writes) {
        let Some(&used) = w.wgmma.uses.get(index as usize) else { continue };
        if w.wgmma.is_pending(used.accumulating) {
            hazard(block, "an accumulator of a pending wgmma touched before wgmma.wait_group");
        }
        if used.accumulating != 0 {
            w.wgmma.uses[index as usize].touched = now;
        }
    }
    for &index in writes {
        let Some(used) = w.wgmma.uses.get_mut(index as usize) else { continue };
        used.touched = now;
        let read_by_product = used.reading;
        if w.wgmma.is_pending(read_by_product) {
            hazard(block, "a register of A written while a wgmma that reads it is pending");
        }
    }
}

/// A `wgmma` uses its registers.
pub(super) fn issue(block: &mut Block<'_>, w: &mut Warp, instruction: &Instruction, m: &Wgmma) {
    let program = block.context.program;
    let (_, accumulators) = program.uses(instruction);
    let state = &w.wgmma;
    let batch = state.committed + 1;
    let mut missing_fence = state.fences == 0;
    let mut tangled = None;
    if let WgmmaLeft::Registers(registers) = m.a {
        for register in registers {
            let used = state.uses[usize::from(register)];
            missing_fence |= used.touched > state.fences;
            if state.is_pending(used.accumulating) {
                tangled = Some("a register of A is an accumulator of a pending wgmma");
            }
        }
    }
    for (place, &register) in accumulators.iter().enumerate() {
        let used = state.uses[register as usize];
        missing_fence |= used.touched > state.fences;
        if state.is_pending(used.reading) {
            tangled = Some("an accumulator is a register of A of a pending wgmma");
        }
        if state.is_pending(used.accumulating) && used.shape != shape(m, place) {
            tangled = Some("an accumulator of a pending wgmma of another shape");
        }
    }
    if missing_fence {
        hazard(block, "no wgmma.fence since the registers of this wgmma were accessed");
    }
    if let Some(message) = tangled {
        hazard(block, message);
    }
    if let WgmmaLeft::Registers(registers) = m.a {
        registers.iter().for_each(|&r| w.wgmma.uses[usize::from(r)].reading = batch);
    }
    for (place, &register) in accumulators.iter().enumerate() {
        let used = &mut w.wgmma.uses[register as usize];
        (used.accumulating, used.shape) = (batch, shape(m, place));
    }
    w.wgmma.open = true;
}

/// Shape of a product and the place of a register in it, as one number.
fn shape(m: &Wgmma, place: usize) -> u32 {
    u32::from(m.n) << 16 | (m.accumulator.registers() as u32) << 8 | place as u32
}

/// `wgmma.fence`.
pub(crate) fn fence(block: &mut Block<'_>, w: &mut Warp, mask: u32) {
    warpgroup::step(block, w, [0; 2], "wgmma.fence", mask);
    w.wgmma.fences += 1;
}

/// `wgmma.commit_group`.
pub(crate) fn commit(block: &mut Block<'_>, w: &mut Warp, mask: u32) {
    warpgroup::step(block, w, [0; 2], "wgmma.commit_group", mask);
    w.wgmma.committed += 1;
    w.wgmma.open = false;
}

/// `wgmma.wait_group newest`.
pub(crate) fn wait(block: &mut Block<'_>, w: &mut Warp, newest: u32, mask: u32) {
    warpgroup::step(block, w, [0; 2], "wgmma.wait_group", mask);
    if newest == 0 && w.wgmma.open {
        hazard(block, "wgmma.wait_group 0 does not cover the wgmma since the last commit_group");
    }
    let complete = w.wgmma.committed.saturating_sub(newest);
    w.wgmma.completed = w.wgmma.completed.max(complete);
    while let Some(&(batch, ticket)) = w.wgmma.reads.front() {
        if w.wgmma.is_pending(batch) {
            break;
        }
        w.wgmma.reads.pop_front();
        proxy::end_read(block, ticket, None);
    }
}

/// The warp exits.
pub(crate) fn exit(block: &mut Block<'_>, w: &Warp) {
    if w.wgmma.open {
        hazard(block, "the warp exits with a wgmma that was not committed");
    } else if w.wgmma.committed > w.wgmma.completed && !w.wgmma.uses.is_empty() {
        hazard(block, "the warp exits with a wgmma that was not waited for");
    }
}
