//! Control flow: where diverged lanes meet again.
//!
//! PTX carries no reconvergence marks, so a branch reconverges at its immediate post-dominator,
//! computed over basic blocks with a virtual exit (Cooper, Harvey, Kennedy, "A Simple, Fast
//! Dominance Algorithm", on the reversed graph).

use crate::program::{Instruction, Op, NO_PC};

/// Fills [`Instruction::reconverge`] of every branch; `tables` are the targets of the indexed ones.
pub(crate) fn set_reconvergence(code: &mut [Instruction], tables: &[Vec<u32>]) {
    let graph = Graph::new(code, tables);
    let post_dominators = graph.immediate_post_dominators();
    for (block, &start) in graph.starts.iter().enumerate() {
        let end = graph.starts.get(block + 1).copied().unwrap_or(code.len());
        if let Some(last) = code[start..end].last_mut() {
            let meeting = post_dominators[block];
            last.reconverge =
                graph.starts.get(meeting).map_or(NO_PC, |&meeting_start| meeting_start as u32);
        }
    }
}

/// Basic blocks; block number `starts.len()` is the virtual exit.
pub(crate) struct Graph {
    /// First instruction of each block, ascending.
    pub(crate) starts: Vec<usize>,
    pub(crate) successors: Vec<Vec<usize>>,
}

fn ends_block(op: &Op) -> bool {
    matches!(op, Op::Branch { .. } | Op::BranchIndexed { .. } | Op::Exit | Op::Trap)
}

/// Where a branch may go when it is taken.
fn targets<'a>(op: &'a Op, tables: &'a [Vec<u32>]) -> &'a [u32] {
    match op {
        Op::Branch { target, .. } => std::slice::from_ref(target),
        Op::BranchIndexed { table, .. } => tables.get(*table as usize).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

impl Graph {
    pub(crate) fn new(code: &[Instruction], tables: &[Vec<u32>]) -> Graph {
        let mut leader = vec![false; code.len() + 1];
        leader[0] = true;
        for (pc, instruction) in code.iter().enumerate() {
            for &target in targets(&instruction.op, tables) {
                leader[target as usize] = true;
            }
            if ends_block(&instruction.op) {
                leader[pc + 1] = true;
            }
        }
        let starts: Vec<usize> = (0..code.len()).filter(|&pc| leader[pc]).collect();
        let exit = starts.len();
        let block_at = |pc: usize| starts.binary_search(&pc).unwrap_or(exit);
        let successors = starts
            .iter()
            .enumerate()
            .map(|(block, _)| {
                let end = starts.get(block + 1).copied().unwrap_or(code.len());
                let last = &code[end - 1];
                let mut next = Vec::with_capacity(2);
                next.extend(targets(&last.op, tables).iter().map(|&pc| block_at(pc as usize)));
                if matches!(last.op, Op::Exit | Op::Trap) {
                    next.push(exit);
                }
                if !ends_block(&last.op) || last.guard.is_some() {
                    next.push(block_at(end));
                }
                next
            })
            .collect();
        Graph { starts, successors }
    }

    /// Immediate post-dominator of each block; the virtual exit where there is none.
    fn immediate_post_dominators(&self) -> Vec<usize> {
        let exit = self.starts.len();
        let order = self.reverse_post_order();
        let mut rank = vec![usize::MAX; exit + 1];
        for (position, &block) in order.iter().enumerate() {
            rank[block] = position;
        }
        let mut dominator = vec![None; exit + 1];
        dominator[exit] = Some(exit);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order.iter().filter(|&&block| block != exit) {
                let known = self.successors[block].iter().filter(|&&s| dominator[s].is_some());
                let meeting = known.copied().reduce(|a, b| intersect(&dominator, &rank, a, b));
                if meeting.is_some() && dominator[block] != meeting {
                    dominator[block] = meeting;
                    changed = true;
                }
            }
        }
        (0..exit).map(|block| dominator[block].unwrap_or(exit)).collect()
    }

    /// Reverse post-order of the reversed graph, from the virtual exit. Blocks that cannot reach
    /// the exit (endless loops) are left out.
    fn reverse_post_order(&self) -> Vec<usize> {
        let exit = self.starts.len();
        let mut predecessors = vec![Vec::new(); exit + 1];
        for (block, successors) in self.successors.iter().enumerate() {
            for &successor in successors {
                predecessors[successor].push(block);
            }
        }
        let mut visited = vec![false; exit + 1];
        visited[exit] = true;
        let mut order = Vec::with_capacity(exit + 1);
        let mut stack = vec![(exit, 0)];
        while let Some((block, next)) = stack.pop() {
            match predecessors[block].get(next) {
                Some(&predecessor) => {
                    stack.push((block, next + 1));
                    if !visited[predecessor] {
                        visited[predecessor] = true;
                        stack.push((predecessor, 0));
                    }
                }
                None => order.push(block),
            }
        }
        order.reverse();
        order
    }
}

/// Nearest common dominator of two blocks.
fn intersect(dominator: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let later = if rank[a] > rank[b] { &mut a } else { &mut b };
        match dominator[*later] {
            Some(up) => *later = up,
            None => return dominator.len() - 1,
        }
    }
    a
}
