//! What can be told about a kernel's registers before it runs.
//!
//! Both analyses speak of one lane: it takes a path through the control-flow graph of its own,
//! whatever the other lanes of its warp do meanwhile, and only its own instructions write its part
//! of a register. So what holds on every path holds under divergence too.

mod definite;
mod liveness;
mod set;

use crate::cfg::Graph;
use crate::program::{Instruction, Op, Program};
use set::RegisterSet;

pub(crate) use definite::Definite;
pub(crate) use liveness::intervals;

/// Most words of register sets that an analysis may take, 8 bytes each. A kernel that needs more is
/// run without what the analyses would have told.
const MOST_WORDS: usize = 1 << 21;

/// Basic blocks with their register sets at one end.
struct Blocks {
    graph: Graph,
    predecessors: Vec<Vec<usize>>,
    registers: usize,
}

impl Blocks {
    /// The blocks of a program; `None` if its sets would be too large.
    fn new(program: &Program) -> Option<Blocks> {
        let graph = Graph::new(&program.code, &program.tables);
        let registers = program.count32 + program.count64 + program.count_predicates;
        if graph.starts.len().saturating_mul(registers / 64 + 1) > MOST_WORDS {
            return None;
        }
        let mut predecessors = vec![Vec::new(); graph.starts.len() + 1];
        for (block, successors) in graph.successors.iter().enumerate() {
            successors.iter().for_each(|&successor| predecessors[successor].push(block));
        }
        Some(Blocks { graph, predecessors, registers })
    }

    fn len(&self) -> usize {
        self.graph.starts.len()
    }

    /// Program counters of a block.
    fn range(&self, block: usize, program: &Program) -> std::ops::Range<usize> {
        let end = self.graph.starts.get(block + 1).copied().unwrap_or(program.code.len());
        self.graph.starts[block]..end
    }
}

/// Calls `f` with every register that an instruction needs, as a definedness index: its sources, its
/// guard, and the accumulators of a `wgmma`, which stand among its results.
fn for_needed(program: &Program, instruction: &Instruction, mut f: impl FnMut(usize)) {
    let (reads, writes) = program.uses(instruction);
    reads.iter().for_each(|&index| f(index as usize));
    if let Some(guard) = instruction.guard {
        f(program.index_predicate(guard.slot));
    }
    if matches!(instruction.op, Op::Wgmma(_)) {
        writes.iter().for_each(|&index| f(index as usize));
    }
}

#[cfg(test)]
mod tests {
    use crate::program::Tracking;
    use crate::Module;

    /// Tracking of each instruction of a kernel with this body, and its 32-bit registers.
    fn decoded(body: &str) -> (Vec<Tracking>, usize) {
        let text = format!(
            ".version 8.0 .target sm_80 .address_size 64
             .visible .entry kernel() {{ .reg .pred %p<9>; .reg .b32 %r<99>; {body} }}"
        );
        let module = Module::parse(&text).unwrap();
        let program = module.program("kernel").unwrap();
        (program.code.iter().map(|instruction| instruction.tracking).collect(), program.count32)
    }

    #[test]
    fn registers_that_some_path_does_not_write_are_tracked_and_others_are_not() {
        use Tracking::{Full, None, Results};
        let (tracking, _) = decoded(
            "mov.u32 %r1, %tid.x;
             setp.eq.s32 %p1, %r1, 0;
             @%p1 mov.u32 %r2, 7;
             @%p1 bra DONE;
             mov.u32 %r3, %r1;
             DONE:
             add.s32 %r4, %r2, %r1;
             add.s32 %r5, %r4, %r1;
             add.s32 %r6, %r1, %r1;
             ret;",
        );
        // %r1 is read where %r2 may be undefined, so its definedness is kept as well.
        let expected = [Results, None, Results, None, None, Full, Full, None, None, None];
        assert_eq!(tracking, expected);
    }

    #[test]
    fn registers_that_are_not_alive_together_share_a_place() {
        let chain: String =
            (1..40).map(|i| format!("add.s32 %r{}, %r{i}, %r{i};", i + 1)).collect();
        // Source and result alternate; the special register has a place of its own.
        let (_, registers) = decoded(&format!("mov.u32 %r1, %tid.x; {chain} ret;"));
        assert_eq!(registers, 3);
        let sum: String = (1..40).map(|i| format!("add.s32 %r50, %r50, %r{i};")).collect();
        let all: String = (1..40).map(|i| format!("mov.u32 %r{i}, %tid.x;")).collect();
        let (_, registers) = decoded(&format!("mov.u32 %r50, %tid.x; {all} {sum} ret;"));
        assert_eq!(registers, 41);
    }

    #[test]
    fn a_value_wanted_in_the_next_turn_of_a_loop_keeps_its_place() {
        let (_, registers) = decoded(
            "mov.u32 %r1, %tid.x;
             mov.u32 %r2, %tid.x;
             LOOP:
             add.s32 %r3, %r1, %r1;
             add.s32 %r4, %r3, %r2;
             add.s32 %r2, %r4, %r4;
             setp.ne.s32 %p1, %r2, %r1;
             @%p1 bra LOOP;
             ret;",
        );
        // %r1 and %r2 all along, %r3 and %r4 in turns, and the special register.
        assert_eq!(registers, 5);
    }
}
