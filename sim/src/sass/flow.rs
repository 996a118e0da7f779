//! Basic blocks, dominators and natural loops of one kernel.
//!
//! A loop is what its back edges say: an edge to a block that dominates its source. Taking every
//! backward branch for a loop would be wrong, because the assembler moves rarely executed blocks
//! (the retry of a barrier wait) behind the kernel and branches back from there.

use super::class::Counts;
use super::decode::{Flow, Instruction, INSTRUCTION_BYTES};
use crate::cubin::CubinError;
use std::collections::BTreeMap;
use std::ops::Range;

/// Damaged code may seem to have any number of loops; compiled kernels have a few dozen.
const MAX_LOOPS: usize = 1024;

/// A run of instructions entered only at its first and left only at its last.
struct Block {
    /// Indices of its instructions.
    instructions: Range<usize>,
    successors: Vec<usize>,
    predecessors: Vec<usize>,
}

/// A natural loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Byte offset of the first instruction of an iteration, where the back edges go.
    pub header: u32,
    /// Smallest byte offset of its code.
    pub start: u32,
    /// Byte offset right behind its last code. Code of the loop may be interrupted by code that
    /// is not of it: see [`Self::body`].
    pub end: u32,
    /// Byte offsets of the branches back to the header, ascending.
    pub back_edges: Vec<u32>,
    /// 0 for an outermost loop.
    pub depth: u32,
    /// Index of the loop right around it.
    pub parent: Option<usize>,
    /// Byte offsets of its code, ascending, adjacent runs merged.
    pub body: Vec<Range<u32>>,
    /// Instructions of its body, inner loops included.
    pub counts: Counts,
    /// Instructions of its body that are in no inner loop.
    pub own: Counts,
    /// Sum of the stall counts of `own`: fewest cycles that one warp needs for one iteration
    /// without its inner loops.
    pub own_stall_cycles: u32,
}

impl Loop {
    /// Whether the instruction at `pc` belongs to it.
    pub fn contains(&self, pc: u32) -> bool {
        self.body.iter().any(|range| range.contains(&pc))
    }
}

/// What flow analysis finds.
pub(super) struct Analysis {
    /// Whether control can reach each instruction.
    pub reachable: Vec<bool>,
    /// Outer loops before the loops in them, then by header.
    pub loops: Vec<Loop>,
}

/// Analyses a kernel's instructions, which must be consecutive from offset 0.
///
/// # Errors
/// [`CubinError::BadValue`] for more loops than compiled code has.
pub(super) fn analyse(instructions: &[Instruction]) -> Result<Analysis, CubinError> {
    let blocks = blocks(instructions);
    let order = reverse_postorder(&blocks);
    let mut reachable = vec![false; instructions.len()];
    for &block in &order {
        reachable[blocks[block].instructions.clone()].fill(true);
    }
    let dominators = dominators(&blocks, &order);
    let bodies = natural_loops(&blocks, &order, &dominators)?;
    Ok(Analysis { reachable, loops: nest(instructions, &blocks, bodies) })
}

/// Index of the instruction at byte offset `pc`, if there is one.
fn index_of(pc: u32, count: usize) -> Option<usize> {
    let index = (pc / INSTRUCTION_BYTES) as usize;
    (pc % INSTRUCTION_BYTES == 0 && index < count).then_some(index)
}

fn blocks(instructions: &[Instruction]) -> Vec<Block> {
    let count = instructions.len();
    let mut starts = vec![false; count + 1];
    starts[0] = true;
    for (i, instruction) in instructions.iter().enumerate() {
        if let Flow::Jump(target) | Flow::Branch(target) = instruction.flow {
            if let Some(target) = index_of(target, count) {
                starts[target] = true;
            }
        }
        if instruction.flow != Flow::Next {
            starts[i + 1] = true;
        }
    }
    let firsts: Vec<usize> = (0..count).filter(|&i| starts[i]).collect();
    let block_at = |instruction: usize| firsts.binary_search(&instruction).ok();
    let mut blocks: Vec<Block> = Vec::with_capacity(firsts.len());
    for (b, &first) in firsts.iter().enumerate() {
        let end = firsts.get(b + 1).copied().unwrap_or(count);
        let next = block_at(end);
        let jump = |target| index_of(target, count).and_then(block_at);
        let successors = match instructions[end - 1].flow {
            Flow::Next | Flow::LeaveSome => [next, None],
            Flow::Jump(target) => [jump(target), None],
            Flow::Branch(target) => [next, jump(target)],
            Flow::Leave => [None, None],
        };
        let mut successors: Vec<usize> = successors.into_iter().flatten().collect();
        successors.dedup();
        blocks.push(Block { instructions: first..end, successors, predecessors: Vec::new() });
    }
    for b in 0..blocks.len() {
        for successor in blocks[b].successors.clone() {
            blocks[successor].predecessors.push(b);
        }
    }
    blocks
}

/// Reachable blocks, each before its successors except along back edges.
fn reverse_postorder(blocks: &[Block]) -> Vec<usize> {
    let mut order = Vec::new();
    if blocks.is_empty() {
        return order;
    }
    let mut seen = vec![false; blocks.len()];
    seen[0] = true;
    // (block, next successor to visit): an explicit stack, because code may be long.
    let mut stack = vec![(0, 0)];
    while let Some((block, visited)) = stack.last_mut() {
        match blocks[*block].successors.get(*visited) {
            Some(&successor) => {
                *visited += 1;
                if !seen[successor] {
                    seen[successor] = true;
                    stack.push((successor, 0));
                }
            }
            None => {
                order.push(*block);
                stack.pop();
            }
        }
    }
    order.reverse();
    order
}

/// Immediate dominator of every reachable block, by K. Cooper, T. Harvey and K. Kennedy, "A simple,
/// fast dominance algorithm" (2001). The entry is its own; unreachable blocks have none.
fn dominators(blocks: &[Block], order: &[usize]) -> Vec<Option<usize>> {
    let mut rank = vec![usize::MAX; blocks.len()];
    for (i, &block) in order.iter().enumerate() {
        rank[block] = i;
    }
    let mut idom: Vec<Option<usize>> = vec![None; blocks.len()];
    let Some(&entry) = order.first() else { return idom };
    idom[entry] = Some(entry);
    let mut changed = true;
    while changed {
        changed = false;
        for &block in &order[1..] {
            let mut new = None;
            for &predecessor in &blocks[block].predecessors {
                if idom[predecessor].is_some() {
                    new =
                        Some(new.map_or(predecessor, |n| intersect(&idom, &rank, n, predecessor)));
                }
            }
            changed |= new != idom[block];
            idom[block] = new;
        }
    }
    idom
}

/// The nearest block that dominates both `a` and `b`.
fn intersect(idom: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let later = if rank[a] > rank[b] { &mut a } else { &mut b };
        // Blocks with a dominator lead to the entry, which has the lowest rank of all.
        *later = idom[*later].unwrap_or(*later);
    }
    a
}

fn dominates(idom: &[Option<usize>], a: usize, mut b: usize) -> bool {
    loop {
        if a == b {
            return true;
        }
        match idom[b] {
            Some(up) if up != b => b = up,
            _ => return false,
        }
    }
}

/// A loop before its nesting is known.
struct Body {
    header: usize,
    /// The sources of its back edges.
    latches: Vec<usize>,
    /// Whether each block belongs to it.
    holds: Vec<bool>,
    size: usize,
}

/// The loops by header; back edges to one header make one loop.
fn natural_loops(
    blocks: &[Block],
    order: &[usize],
    idom: &[Option<usize>],
) -> Result<Vec<Body>, CubinError> {
    let mut by_header: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &block in order {
        for &successor in &blocks[block].successors {
            if dominates(idom, successor, block) {
                by_header.entry(successor).or_default().push(block);
            }
        }
    }
    if by_header.len() > MAX_LOOPS {
        let value = by_header.len() as u64;
        return Err(CubinError::BadValue { what: "the number of loops", value });
    }
    let body = |(header, latches): (usize, Vec<usize>)| {
        let mut holds = vec![false; blocks.len()];
        holds[header] = true;
        let mut size = 1;
        let mut open = latches.clone();
        while let Some(block) = open.pop() {
            // Unreachable code may branch into a loop; it is no part of it.
            if !holds[block] && idom[block].is_some() {
                holds[block] = true;
                size += 1;
                open.extend(&blocks[block].predecessors);
            }
        }
        Body { header, latches, holds, size }
    };
    Ok(by_header.into_iter().map(body).collect())
}

/// Finds parents and depths, and counts instructions.
fn nest(instructions: &[Instruction], blocks: &[Block], mut bodies: Vec<Body>) -> Vec<Loop> {
    // Natural loops with different headers are nested or disjoint, so a larger one comes first.
    bodies.sort_by_key(|body| (std::cmp::Reverse(body.size), body.header));
    let mut loops: Vec<Loop> = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let parent = (0..i).rev().find(|&outer| bodies[outer].holds[body.header]);
        let depth = parent.map_or(0, |p| loops[p].depth + 1);
        loops.push(describe(instructions, blocks, body, parent, depth));
    }
    for (b, block) in blocks.iter().enumerate() {
        // The innermost loop that holds a block is the last: inner loops come after outer ones.
        let Some(owner) = (0..bodies.len()).rev().find(|&l| bodies[l].holds[b]) else { continue };
        for instruction in &instructions[block.instructions.clone()] {
            if !instruction.is_workaround() {
                loops[owner].own.add_one(instruction.class);
                loops[owner].own_stall_cycles += u32::from(instruction.stall);
            }
        }
    }
    loops
}

fn describe(
    instructions: &[Instruction],
    blocks: &[Block],
    body: &Body,
    parent: Option<usize>,
    depth: u32,
) -> Loop {
    let pc = |index: usize| index as u32 * INSTRUCTION_BYTES;
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut counts = Counts::default();
    for block in blocks.iter().zip(&body.holds).filter(|(_, &holds)| holds).map(|(b, _)| b) {
        let (start, end) = (pc(block.instructions.start), pc(block.instructions.end));
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
        for instruction in &instructions[block.instructions.clone()] {
            if !instruction.is_workaround() {
                counts.add_one(instruction.class);
            }
        }
    }
    let mut back_edges: Vec<u32> =
        body.latches.iter().map(|&latch| pc(blocks[latch].instructions.end - 1)).collect();
    back_edges.sort_unstable();
    Loop {
        header: pc(blocks[body.header].instructions.start),
        start: ranges.first().map_or(0, |range| range.start),
        end: ranges.last().map_or(0, |range| range.end),
        back_edges,
        depth,
        parent,
        body: ranges,
        counts,
        own: Counts::default(),
        own_stall_cycles: 0,
    }
}
