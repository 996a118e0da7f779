//! Where every source is written on all paths, so that nobody need watch for undefined registers.

use super::{for_needed, Blocks, RegisterSet};
use crate::program::{Instruction, Program, Tracking};

/// The registers of a program as far as their definedness is known beforehand.
pub(crate) struct Definite {
    /// By instruction.
    pub tracking: Vec<Tracking>,
    /// By definedness index: some instruction has to look whether the register is defined.
    pub tracked: Vec<bool>,
}

impl Definite {
    /// Finds out; without an answer for kernels that are too large for it.
    ///
    /// `computes` says of an instruction that undefined sources only make its results undefined;
    /// elsewhere they are reported and the results count as defined.
    pub(crate) fn new(
        program: &Program,
        computes: impl Fn(&Instruction) -> bool,
    ) -> Option<Definite> {
        let blocks = Blocks::new(program)?;
        let entries = entries(program, &blocks, &computes);
        let mut known = vec![true; program.code.len()];
        let mut tracked = vec![false; blocks.registers];
        for (block, entry) in entries.into_iter().enumerate() {
            let mut defined = entry;
            for pc in blocks.range(block, program) {
                let instruction = &program.code[pc];
                known[pc] = execute(program, instruction, &computes, &mut defined);
                if !known[pc] {
                    for_needed(program, instruction, |register| tracked[register] = true);
                }
            }
        }
        let tracking = program.code.iter().zip(&known).map(|(instruction, &known)| {
            let (_, writes) = program.uses(instruction);
            match known {
                false => Tracking::Full,
                true if writes.iter().any(|&index| tracked[index as usize]) => Tracking::Results,
                true => Tracking::None,
            }
        });
        Some(Definite { tracking: tracking.collect(), tracked })
    }
}

/// The registers that are defined on all paths to each block. Of blocks that no path leads to
/// everything may be said.
fn entries(
    program: &Program,
    blocks: &Blocks,
    computes: &impl Fn(&Instruction) -> bool,
) -> Vec<RegisterSet> {
    let all = RegisterSet::all(blocks.registers);
    let mut entries = vec![all.clone(); blocks.len()];
    let mut exits = vec![all.clone(); blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for block in 0..blocks.len() {
            let mut defined = if block == 0 {
                RegisterSet::none(blocks.registers)
            } else {
                let mut defined = all.clone();
                blocks.predecessors[block].iter().for_each(|&p| defined.intersect(&exits[p]));
                defined
            };
            entries[block].clone_from(&defined);
            for pc in blocks.range(block, program) {
                execute(program, &program.code[pc], computes, &mut defined);
            }
            if exits[block] != defined {
                exits[block] = defined;
                changed = true;
            }
        }
    }
    entries
}

/// What an instruction does to the set of defined registers; returns whether all it needs are.
fn execute(
    program: &Program,
    instruction: &Instruction,
    computes: &impl Fn(&Instruction) -> bool,
    defined: &mut RegisterSet,
) -> bool {
    let mut known = true;
    for_needed(program, instruction, |register| known &= defined.contains(register));
    let (_, writes) = program.uses(instruction);
    for &index in writes {
        if !known && computes(instruction) {
            defined.remove(index as usize);
        } else if instruction.guard.is_none() {
            defined.insert(index as usize);
        }
    }
    known
}
