//! The result of a run, summed up from the per-instruction counters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::block::{RunContext, Tally};
use crate::check::Finding;
use crate::counters::{BufferCounters, Class, ClassCount, Counters, LineCounters, PcCounters};
use crate::program::{Instruction, Op};

/// What a run found and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Defects, by PTX line; empty for a kernel without any.
    pub findings: Vec<Finding>,
    /// Counters over all blocks that ran.
    pub counters: Counters,
    /// Thread blocks that ran.
    pub blocks_run: u64,
    /// Thread blocks of the grid.
    pub blocks_total: u64,
    /// Counters by source line, when the PTX has line information.
    pub lines: Vec<LineCounters>,
}

/// Sums up what the workers counted.
pub(crate) fn report(context: &RunContext<'_>, tally: Tally, blocks_total: u64) -> Report {
    let mut counters = Counters::default();
    for (instruction, pc) in context.program.code.iter().zip(&tally.per_pc) {
        add_instruction(&mut counters, instruction, pc);
    }
    add_buffers(&mut counters, context, &tally);
    Report {
        counters,
        lines: lines(context, &tally.per_pc),
        blocks_run: tally.blocks,
        blocks_total,
        findings: tally.findings.into_sorted(context.options.max_findings),
    }
}

fn add_instruction(counters: &mut Counters, instruction: &Instruction, pc: &PcCounters) {
    let class = &mut counters.classes[instruction.class as usize];
    class.warp_instructions += pc.executed.warp_instructions;
    class.lanes += pc.executed.lanes;
    counters.divergent_branches += pc.divergent;
    counters.failed_waits += pc.failed_waits;
    counters.bulk_bytes += pc.bulk_bytes;
    match instruction.class {
        Class::Sts | Class::CpAsync | Class::Stg => counters.shared_stores.add(pc.shared),
        _ => counters.shared_loads.add(pc.shared),
    }
    if matches!(instruction.op, Op::Barrier(_)) {
        counters.barriers += pc.executed.warp_instructions;
    }
}

fn add_buffers(counters: &mut Counters, context: &RunContext<'_>, tally: &Tally) {
    for (number, traffic) in tally.per_buffer.iter().enumerate() {
        let requests = traffic.loads.requests + traffic.stores.requests + traffic.atomics.requests;
        let Some((buffer, footprint)) = context.memory.get(number) else { continue };
        if requests == 0 {
            continue;
        }
        counters.global_loads.add(traffic.loads);
        counters.global_stores.add(traffic.stores);
        counters.global_atomics.add(traffic.atomics);
        counters.buffers.push(BufferCounters {
            buffer: buffer.name.clone(),
            loads: traffic.loads,
            stores: traffic.stores,
            atomics: traffic.atomics,
            footprint_sectors: footprint.count(),
        });
    }
}

fn lines(context: &RunContext<'_>, per_pc: &[PcCounters]) -> Vec<LineCounters> {
    let program = context.program;
    let mut by_line: BTreeMap<(u32, u32), PcCounters> = BTreeMap::new();
    for (instruction, pc) in program.code.iter().zip(per_pc) {
        if let Some(source) = instruction.source {
            by_line.entry((source.file, source.line)).or_default().add(pc);
        }
    }
    let name = |number: u32| {
        program.files.iter().find(|(n, _)| *n == number).map_or("", |(_, name)| name).to_owned()
    };
    by_line
        .into_iter()
        .map(|((file, line), pc)| LineCounters {
            file: name(file),
            line,
            executed: ClassCount { ..pc.executed },
            global: pc.global,
            shared: pc.shared,
            divergent: pc.divergent,
        })
        .collect()
}
