//! A survey of a search space: which values each dimension takes, what was pruned and why.

use crate::{Family, Schedule};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The space of one problem, by family.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Space {
    /// Families of which anything was considered.
    pub families: BTreeMap<Family, FamilySpace>,
}

/// The schedules of one family that were considered for a problem.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FamilySpace {
    /// Every dimension with the values that were considered, see [`Schedule::dimensions`].
    pub dimensions: BTreeMap<String, BTreeSet<Choice>>,
    /// Schedules before pruning.
    pub considered: usize,
    /// Schedules that are left.
    pub legal: usize,
    /// Schedules that were pruned, by reason (`#` stands for a number).
    pub pruned: BTreeMap<String, usize>,
}

/// A value of a dimension: numbers in their order before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Choice {
    /// A number.
    Number(u64),
    /// A word.
    Word(String),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Number(number) => number.fmt(f),
            Choice::Word(word) => f.write_str(word),
        }
    }
}

impl Space {
    /// Counts a schedule that was kept, or pruned for a reason.
    pub fn count(&mut self, schedule: &Schedule, pruned: Option<&str>) {
        let family = self.families.entry(schedule.family()).or_default();
        family.considered += 1;
        match pruned {
            Some(reason) => *family.pruned.entry(reason.into()).or_default() += 1,
            None => family.legal += 1,
        }
        for (name, value) in schedule.dimensions() {
            let choice = value.parse().map_or(Choice::Word(value), Choice::Number);
            family.dimensions.entry(name).or_default().insert(choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_reasons_are_kept_by_family() {
        let mut space = Space::default();
        let line = |stages: u32| {
            format!(
                "mma tile=16x64x256 warps=1x4 stages={stages} split=1 pad=16 raster=rows dequant="
            )
        };
        for (stages, pruned) in
            [(4, None), (2, None), (16, Some("# stages")), (12, Some("# stages"))]
        {
            space.count(&line(stages).parse().unwrap(), pruned);
        }
        let mma = &space.families[&Family::Mma];
        assert_eq!((mma.considered, mma.legal, mma.pruned["# stages"]), (4, 2, 2));
        let told: Vec<String> = mma.dimensions["stages"].iter().map(Choice::to_string).collect();
        assert_eq!(told, ["2", "4", "12", "16"]);
        assert_eq!(space.families.len(), 1);
    }
}
