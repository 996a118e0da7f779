//! From where to where in the text a register's value may still be wanted.

use std::ops::RangeInclusive;

use super::{for_needed, Blocks, RegisterSet};
use crate::program::Program;

/// By definedness index, the program counters between which a register holds a value that some path
/// reads or an instruction writes it; `None` for registers that no instruction names, and without
/// an answer for kernels that are too large for it. Two registers whose intervals have nothing in
/// common can share one place.
pub(crate) fn intervals(program: &Program) -> Option<Vec<Option<RangeInclusive<usize>>>> {
    let blocks = Blocks::new(program)?;
    let live = live_at_entry(program, &blocks);
    let mut intervals = vec![None; blocks.registers];
    let mut touch = |register: usize, pc: usize| {
        let interval = intervals[register].get_or_insert(pc..=pc);
        *interval = pc.min(*interval.start())..=pc.max(*interval.end());
    };
    for block in 0..blocks.len() {
        let range = blocks.range(block, program);
        live[block].iter().for_each(|register| touch(register, range.start));
        for &successor in blocks.graph.successors[block].iter().filter(|&&s| s < blocks.len()) {
            live[successor].iter().for_each(|register| touch(register, range.end - 1));
        }
        for pc in range {
            let instruction = &program.code[pc];
            for_needed(program, instruction, |register| touch(register, pc));
            let (_, writes) = program.uses(instruction);
            writes.iter().for_each(|&index| touch(index as usize, pc));
        }
    }
    Some(intervals)
}

/// The registers of which each block may read a value from before.
fn live_at_entry(program: &Program, blocks: &Blocks) -> Vec<RegisterSet> {
    let mut live = vec![RegisterSet::none(blocks.registers); blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..blocks.len()).rev() {
            let mut wanted = RegisterSet::none(blocks.registers);
            for &successor in blocks.graph.successors[block].iter().filter(|&&s| s < blocks.len()) {
                wanted.unite(&live[successor]);
            }
            for pc in blocks.range(block, program).rev() {
                let instruction = &program.code[pc];
                if instruction.guard.is_none() {
                    let (_, writes) = program.uses(instruction);
                    writes.iter().for_each(|&index| wanted.remove(index as usize));
                }
                for_needed(program, instruction, |register| wanted.insert(register));
            }
            if live[block] != wanted {
                live[block] = wanted;
                changed = true;
            }
        }
    }
    live
}
