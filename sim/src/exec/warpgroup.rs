//! Warpgroups: four consecutive warps that execute the same warpgroup instructions, and the
//! registers that they exchange with `setmaxnreg` (PTX ISA 9.7.15.1 and 9.7.19.5).

use std::collections::VecDeque;

use super::memory::require_full_warp;
use crate::block::{Block, Place, RunContext};
use crate::check::FindingKind;
use crate::program::Op;
use crate::state::{Status, Warp, LANES};

/// Warps of a warpgroup.
pub(crate) const WARPS: u32 = 4;
/// Registers per thread are handed out in multiples of this.
const GRANULE: u32 = 8;

/// One instruction that all warps of a group execute: place in the code and operands that must
/// agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    pc: usize,
    operands: [u64; 2],
}

/// What the warps of one group executed; steps that all have passed are dropped.
#[derive(Debug, Clone, Default)]
struct Group {
    steps: VecDeque<Step>,
    /// Number of the first of `steps`.
    first: u64,
    /// Steps taken, by warp.
    taken: [u64; WARPS as usize],
    exited: [bool; WARPS as usize],
}

/// Warpgroups of a thread block and its registers.
#[derive(Debug, Default)]
pub(crate) struct Warpgroups {
    groups: Vec<Group>,
    /// Registers per thread, by warp; empty before the first `setmaxnreg`.
    held: Vec<u32>,
    /// Registers per thread that could be given to one more warp.
    free: u32,
}

impl Warpgroups {
    /// For the next thread block.
    pub(crate) fn reset(&mut self) {
        self.groups.clear();
        self.held.clear();
        self.free = 0;
    }

    fn group(&mut self, warp: u32) -> &mut Group {
        let index = (warp / WARPS) as usize;
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Group::default);
        }
        &mut self.groups[index]
    }
}

impl Group {
    /// One warp takes its next step; false if another warp took a different one or none.
    fn take(&mut self, warp: usize, step: Step) -> bool {
        let number = self.taken[warp];
        self.taken[warp] += 1;
        let known = self.steps.get((number - self.first) as usize).copied();
        if known.is_none() {
            self.steps.push_back(step);
        }
        let abandoned =
            self.taken.iter().zip(&self.exited).any(|(&taken, &exited)| exited && taken <= number);
        let slowest = self.taken.iter().copied().min().unwrap_or(0);
        while self.first < slowest && self.steps.pop_front().is_some() {
            self.first += 1;
        }
        known.unwrap_or(step) == step && !abandoned
    }
}

/// A warp executes an instruction that its whole warpgroup must execute alike.
pub(crate) fn step(block: &mut Block<'_>, w: &Warp, operands: [u64; 2], what: &str, mask: u32) {
    require_full_warp(block, mask, what);
    if !block.checks() {
        return;
    }
    let threads = (w.index / WARPS + 1) * WARPS * LANES as u32;
    if threads > block.context.threads() {
        let message = format!("{what} in a warp that belongs to no group of four full warps");
        block.report(FindingKind::WarpgroupDivergence, Place::default(), message);
        return;
    }
    let step = Step { pc: block.pc, operands };
    if !block.warpgroups.group(w.index).take((w.index % WARPS) as usize, step) {
        let message = format!("{what} is not what another warp of the warpgroup executes here");
        block.report(FindingKind::WarpgroupDivergence, Place::default(), message);
    }
}

/// A warp exits: the others of its group must not have gone further.
pub(crate) fn exit(block: &mut Block<'_>, w: &Warp) {
    if !block.checks() {
        return;
    }
    let warp = (w.index % WARPS) as usize;
    let group = block.warpgroups.group(w.index);
    group.exited[warp] = true;
    if group.taken.iter().any(|&taken| taken > group.taken[warp]) {
        let message = "the warp exits before warpgroup instructions that others executed";
        block.report(FindingKind::WarpgroupDivergence, Place::default(), message.to_owned());
    }
}

/// Registers per thread that the kernel starts with: what it declares, or else what its launch
/// bounds leave to each thread, but no more than the most it asks for. `None` where neither says
/// it: then ptxas (13.0) ignores `setmaxnreg` and notes that.
fn initial_registers(context: &RunContext<'_>) -> Option<u32> {
    const REGISTERS: u32 = 65_536;
    let program = context.program;
    if let Some(declared) = program.max_registers {
        return Some(declared.next_multiple_of(GRANULE));
    }
    let bound = program.max_threads.or(program.required_threads)?;
    let threads = bound.iter().fold(1u32, |product, &axis| product.saturating_mul(axis));
    let all = threads.saturating_mul(program.min_blocks?).max(1);
    let most = program.code.iter().filter_map(|instruction| match instruction.op {
        Op::SetMaxRegisters { count, .. } => Some(u32::from(count)),
        _ => None,
    });
    Some((REGISTERS / all / GRANULE * GRANULE).min(most.max().unwrap_or(0)))
}

/// `setmaxnreg`: gives registers back at once, waits for more.
pub(crate) fn set_max_registers(
    block: &mut Block<'_>,
    w: &mut Warp,
    increase: bool,
    count: u32,
    mask: u32,
) {
    step(block, w, [0; 2], "setmaxnreg", mask);
    let context = block.context;
    let Some(initial) = initial_registers(context) else { return };
    let groups = &mut block.warpgroups;
    if groups.held.is_empty() {
        groups.held = vec![initial; context.warps() as usize];
    }
    let held = &mut groups.held[w.index as usize];
    let before = *held;
    if increase != (count > before) && count != before {
        let (way, what) = if increase { ("inc", "fewer") } else { ("dec", "more") };
        let message = format!("setmaxnreg.{way} to {count} registers, {what} than {before}");
        block.report(FindingKind::InvalidOperand, Place::default(), message);
    } else if increase {
        w.status = Status::AwaitsRegisters(count);
    } else {
        *held = count;
        groups.free += before - count;
    }
}

/// Gives free registers to the warps that wait for them; returns whether one got them.
pub(crate) fn grant(block: &mut Block<'_>, warps: &mut [Warp]) -> bool {
    let groups = &mut block.warpgroups;
    let mut any = false;
    for w in warps {
        let Status::AwaitsRegisters(count) = w.status else { continue };
        let held = &mut groups.held[w.index as usize];
        let more = count - *held;
        if more <= groups.free {
            groups.free -= more;
            *held = count;
            w.status = Status::Ready;
            any = true;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_notices_different_missing_and_abandoned_steps() {
        let step = |pc| Step { pc, operands: [0; 2] };
        let mut group = Group::default();
        for warp in 0..4 {
            assert!(group.take(warp, step(5)));
        }
        assert!(group.steps.is_empty());
        assert!(group.take(2, step(7)) && group.take(2, step(8)));
        assert!(!group.take(0, step(8)));
        group.exited[1] = true;
        assert!(!group.take(3, step(7)));
        let other = Step { pc: 9, operands: [1, 0] };
        group.exited[1] = false;
        assert!(group.take(2, other) && group.take(3, step(8)));
        assert!(!group.take(3, step(9)));
    }
}
