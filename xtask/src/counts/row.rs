//! One row of the table.

use super::cases::Case;
use anyhow::{Context, Result};
use qtune_ir::Family;
use std::fmt;
use std::str::FromStr;

/// The counts, in the order of the columns.
pub const COUNTS: [Count; 8] = [
    Count { name: "instructions", lower_is_better: true },
    Count { name: "wavefronts", lower_is_better: true },
    Count { name: "sectors", lower_is_better: true },
    Count { name: "weight_bytes", lower_is_better: true },
    Count { name: "in_flight", lower_is_better: false },
    Count { name: "tensor_share", lower_is_better: false },
    Count { name: "spill_bytes", lower_is_better: true },
    Count { name: "serialized", lower_is_better: true },
];

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Its name, explained in `docs/counts.md`.
    pub name: &'static str,
    /// Which way is worse.
    pub lower_is_better: bool,
}

/// Relative change that is none: the compiler's luck with addresses.
const SLACK: f64 = 0.005;

/// The counts of one default schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was counted.
    pub case: Case,
    /// The family of the default schedule.
    pub family: Family,
    /// As [`COUNTS`].
    pub values: [f64; COUNTS.len()],
}

/// A count that is worse than before.
#[derive(Clone, Debug, PartialEq)]
pub struct Worse {
    /// Name of the count.
    pub count: &'static str,
    /// The value in the table.
    pub before: f64,
    /// The value measured.
    pub now: f64,
}

impl Row {
    /// The first line of the table.
    pub const HEADER: &'static str = "case,family,instructions,wavefronts,sectors,weight_bytes,\
                                      in_flight,tensor_share,spill_bytes,serialized";

    /// The row as a line of the table.
    pub fn line(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|value| rounded(*value)).collect();
        format!("{},{},{}", self.case, self.family.name(), values.join(","))
    }

    /// The value of a count.
    pub fn value(&self, name: &str) -> f64 {
        let index = COUNTS.iter().position(|count| count.name == name);
        index.map_or(f64::NAN, |index| self.values[index])
    }

    /// The counts that are worse than in another row. Rows of different families are compared all the
    /// same: the default schedule is what counts.
    pub fn worse_than(&self, before: &Row) -> Vec<Worse> {
        let pairs = self.values.iter().zip(&before.values).zip(&COUNTS);
        let worse = pairs.filter(|((now, before), count)| {
            let slack = SLACK * before.abs();
            // What no tensor core multiplies has none.
            if count.name == "tensor_share" && self.family == Family::Gemv {
                return false;
            }
            match count.lower_is_better {
                true => **now > *before + slack,
                false => **now < *before - slack,
            }
        });
        worse
            .map(|((now, before), count)| Worse { count: count.name, before: *before, now: *now })
            .collect()
    }
}

/// Three decimals, none where there are none.
fn rounded(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.family.name())?;
        let pairs = COUNTS.iter().zip(&self.values);
        pairs.into_iter().try_for_each(|(count, v)| write!(f, " {}={}", count.name, rounded(*v)))
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} went from {} to {}", self.count, rounded(self.before), rounded(self.now))
    }
}

impl FromStr for Row {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Row> {
        let mut fields = line.split(',');
        let case = fields.next().context("no case")?.parse()?;
        let family = fields.next().context("no family")?;
        let family = Family::ALL.into_iter().find(|known| known.name() == family);
        let values: Result<Vec<f64>, _> = fields.map(str::parse).collect();
        let values = values.context("a count is not a number")?;
        let count = values.len();
        let values = values.try_into().ok().with_context(|| format!("{count} counts"))?;
        Ok(Row { case, family: family.context("unknown family")?, values })
    }
}
