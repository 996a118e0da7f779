//! The generated CUDA source with the simulator's counters beside each line.

use super::machine_code::Compiled;
use crate::table::{Align, Table};
use qtune_device::LineCounters;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// Counters by line of the kernel's own source; headers of the compiler are left out.
fn by_line(compiled: &Compiled) -> BTreeMap<u32, &LineCounters> {
    let file = format!("{}.cu", compiled.image.kernel.main().name);
    let own = |line: &&LineCounters| line.file.rsplit('/').next() == Some(file.as_str());
    compiled.launch.lines.iter().filter(own).map(|line| (line.line, line)).collect()
}

/// A table of all source lines, the counts of those that have any scaled to the whole grid.
pub fn text(compiled: &Compiled) -> String {
    let counters = by_line(compiled);
    let mut table = Table::new(&[
        ("line", Align::Right),
        ("warp instr", Align::Right),
        ("lanes %", Align::Right),
        ("sectors", Align::Right),
        ("/ideal", Align::Right),
        ("wavefronts", Align::Right),
        ("/ideal", Align::Right),
        ("divergent", Align::Right),
        ("source", Align::Left),
    ]);
    for (line, source) in (1..).zip(compiled.image.kernel.source.lines()) {
        let mut cells = match counters.get(&line) {
            Some(counted) => cells(counted, compiled.share()),
            None => Default::default(),
        };
        (cells[0], cells[8]) = (line.to_string(), source.to_owned());
        table.row(cells);
    }
    format!(
        "counts of the simulator by source line, scaled from {} of {} thread blocks\n\n{table}",
        compiled.launch.blocks_run, compiled.launch.blocks_total
    )
}

/// The cells of a line but for its number and text; what does not happen stays empty.
fn cells(line: &LineCounters, share: f64) -> [String; 9] {
    let scaled = |count: u64| match count {
        0 => String::new(),
        count => format!("{:.0}", count as f64 / share),
    };
    let ratio = |count: u64, ideal: u64| match ideal {
        0 => String::new(),
        ideal => format!("{:.2}", count as f64 / ideal as f64),
    };
    let (executed, global, shared) = (&line.executed, &line.global, &line.shared);
    let lanes = 100.0 * executed.lanes as f64 / (32 * executed.warp_instructions.max(1)) as f64;
    [
        String::new(),
        scaled(executed.warp_instructions),
        format!("{lanes:.0}"),
        scaled(global.sectors),
        ratio(global.sectors, global.ideal_sectors),
        scaled(shared.wavefronts),
        ratio(shared.wavefronts, shared.ideal_wavefronts),
        scaled(line.divergent),
        String::new(),
    ]
}

/// Counters by line as they were counted, with what share of the grid that was.
pub fn json(compiled: &Compiled) -> Value {
    let counters = by_line(compiled);
    let counted = |(source, number): (&str, u32)| {
        let counted = counters.get(&number)?;
        Some(json!({ "line": number, "source": source, "counters": counted }))
    };
    let source = &compiled.image.kernel.source;
    let lines: Vec<Value> = source.lines().zip(1..).filter_map(counted).collect();
    json!({
        "blocks_run": compiled.launch.blocks_run,
        "blocks_total": compiled.launch.blocks_total,
        "lines": lines,
    })
}
