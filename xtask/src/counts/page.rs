//! The summary of the table for people.

use super::cases::{self, GPU};
use super::limits::{self, Limit};
use super::row::{Row, COUNTS};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows of one format and number of tokens.
type Group<'a> = BTreeMap<(&'a str, u32, &'a str), Vec<&'a Row>>;

/// The worst of every format, number of tokens and family, and what is past its limit.
pub fn summary(rows: &[Row]) -> String {
    let mut groups: Group = BTreeMap::new();
    for row in rows.iter().filter(|row| row.case.gpu == GPU) {
        let key = (row.case.format.as_str(), row.case.m, row.family.name());
        groups.entry(key).or_default().push(row);
    }
    let mut text = format!(
        "\nThe worst of the shapes in the table on an H200 ({} of {} cases are measured):\n\n\
         | format | tokens | family | instructions | limit | wavefronts | weight bytes | KB in flight | \
         tensor share |\n|---|---|---|---|---|---|---|---|---|\n",
        rows.len(),
        cases::all().len(),
    );
    for ((format, m, family), group) in &groups {
        let worst = |name: &str| worst(group, name);
        let _ = writeln!(
            text,
            "| `{format}` | {m} | {family} | {:.2} | {} | {:.2} | {:.3} | {:.0} | {} |",
            worst("instructions"),
            limit_of(group, "instructions"),
            worst("wavefronts"),
            worst("weight_bytes"),
            worst("in_flight") / 1024.0,
            if *m < 16 { "-".into() } else { format!("{:.2}", worst("tensor_share")) },
        );
    }
    text + &past_limits(rows) + "\n"
}

fn worst(group: &[&Row], name: &str) -> f64 {
    let lower = COUNTS.iter().any(|count| count.name == name && count.lower_is_better);
    let values = group.iter().map(|row| row.value(name));
    values.reduce(if lower { f64::max } else { f64::min }).unwrap_or(f64::NAN)
}

/// The strictest limit in a group.
fn limit_of(group: &[&Row], name: &str) -> String {
    let limits = group.iter().flat_map(|row| limits::of(&row.case, row.family));
    let values = limits.filter(|limit| limit.count == name).map(|limit| limit.value);
    values.reduce(f64::min).map_or("-".into(), |value| format!("{value:.1}"))
}

/// The cases that do not keep a limit. Their values are ceilings.
fn past_limits(rows: &[Row]) -> String {
    let past = |row: &Row| -> Vec<(Limit, f64)> {
        let limits = limits::of(&row.case, row.family).into_iter();
        let with_values = limits.map(|limit| (limit, row.value(limit.count)));
        with_values.filter(|(limit, value)| !limit.holds(*value)).collect()
    };
    let lines: Vec<String> = rows
        .iter()
        .flat_map(|row| past(row).into_iter().map(move |found| (row, found)))
        .map(|(row, (limit, value))| {
            format!(
                "| {} | {} | {} | {value:.3} | {limit} |\n",
                row.case,
                row.family.name(),
                limit.count
            )
        })
        .collect();
    if lines.is_empty() {
        return format!("\nAll {} cases of the table keep their limits.\n", rows.len());
    }
    format!(
        "\n{} of the {} cases miss a limit today. They may only improve:\n\n\
         | case | family | count | today | limit |\n|---|---|---|---|---|\n{}",
        lines.len(),
        rows.len(),
        lines.concat()
    )
}
