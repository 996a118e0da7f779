//! The search space of a problem as text: families, dimensions, what is pruned and why.

use qtune_ir::tile::{Choice, FamilySpace};
use qtune_search::PlannedProblem;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Longest value that is printed; terms of the dequantization algebra are longer and counted.
const VALUE_MAX: usize = 12;

/// One problem's space: a line for each family, its dimensions and the reasons for pruning below.
pub fn text(problem: &PlannedProblem) -> String {
    let mut text = format!("\n{} {}\n", problem.shape, problem.problem);
    for (family, space) in &problem.space.families {
        let FamilySpace { considered, legal, .. } = space;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}: {considered} schedules, {legal} legal", family.name());
        for (name, values) in &space.dimensions {
            let _ = writeln!(text, "    {name:<9} {}", told(values));
        }
        let mut pruned: Vec<(&String, &usize)> = space.pruned.iter().collect();
        pruned.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        for (reason, count) in pruned {
            let _ = writeln!(text, "    {count:>9} pruned: {reason}");
        }
    }
    text
}

fn told(values: &BTreeSet<Choice>) -> String {
    let told: Vec<String> = values.iter().map(Choice::to_string).collect();
    match told.iter().all(|value| value.len() <= VALUE_MAX) {
        true => told.join(" "),
        false => format!("{} terms", told.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::tile::Space;

    #[test]
    fn dimensions_sizes_and_reasons_are_listed_by_family() {
        let mut space = Space::default();
        let line = "mma tile=16x64x256 warps=1x4 stages=4 split=1 pad=16 raster=rows \
                    dequant=(sum (* (* (real q) s) x))";
        let schedule = line.parse().unwrap();
        space.count(&schedule, None);
        space.count(&schedule, Some("# bytes of shared memory of #"));
        let problem = PlannedProblem {
            shape: "o".into(),
            problem: "w4a16.awq-g128.f16-f16.n64.k128.m1".into(),
            sketches_considered: 2,
            candidates: 1,
            finalists: vec![],
            space,
            seconds: 0.0,
        };
        let text = text(&problem);
        for wanted in
            ["mma: 2 schedules, 1 legal", "tile_n    64", "dequant   1 terms", "1 pruned: #"]
        {
            assert!(text.contains(wanted), "{text}");
        }
    }
}
