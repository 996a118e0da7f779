//! Every row of the decode table is executed by a test of its semantics, and that test cites the
//! row's section of the PTX ISA.

use std::collections::BTreeMap;

use qtune_sim::covered_instructions;

use crate::support::recorder;
use crate::*;

/// Sections and tests of a file.
type File = (&'static [&'static str], &'static [fn()]);

const FILES: &[File] = &[
    (bulk::SECTIONS, bulk::TESTS),
    (cluster::SECTIONS, cluster::TESTS),
    (compare::SECTIONS, compare::TESTS),
    (control::SECTIONS, control::TESTS),
    (convert::SECTIONS, convert::TESTS),
    (float::SECTIONS, float::TESTS),
    (half::SECTIONS, half::TESTS),
    (integer::SECTIONS, integer::TESTS),
    (matrix::SECTIONS, matrix::TESTS),
    (mbarrier::SECTIONS, mbarrier::TESTS),
    (memory::SECTIONS, memory::TESTS),
    (mma::SECTIONS, mma::TESTS),
    (rare::SECTIONS, rare::TESTS),
    (small_formats::SECTIONS, small_formats::TESTS),
    (tensor::SECTIONS, tensor::TESTS),
    (warp::SECTIONS, warp::TESTS),
    (wgmma::SECTIONS, wgmma::TESTS),
];

/// A group of a form: its bracket and its modifiers.
fn groups(form: &str) -> Vec<(char, Vec<&str>)> {
    form.split_whitespace()
        .skip(1)
        .map(|word| {
            let inside = word.trim_matches(['<', '>', '[', ']', '{', '}']);
            (word.chars().next().unwrap_or_default(), inside.split('|').collect())
        })
        .collect()
}

/// `m64nNk16` stands for every number of columns.
fn is(alternative: &str, modifier: &str) -> bool {
    match alternative.split_once('N') {
        Some((before, after)) if alternative.starts_with('m') => {
            let number = modifier.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            number.is_some_and(|number| number.parse::<u16>().is_ok())
        }
        _ => alternative == modifier,
    }
}

/// Whether an opcode with its modifiers is of a form: each modifier belongs to a group, groups in
/// angle brackets have one, and all but those in braces keep their order.
fn matches(form: &str, opcode: &str) -> bool {
    let mut parts = opcode.split('.');
    if parts.next() != form.split_whitespace().next() {
        return false;
    }
    let groups = groups(form);
    let mut taken = vec![false; groups.len()];
    let mut first = 0;
    for modifier in parts {
        let fits = |at: &usize| {
            !taken[*at] && groups[*at].1.iter().any(|alternative| is(alternative, modifier))
        };
        let Some(at) = (first..groups.len()).find(fits) else { return false };
        taken[at] = true;
        if groups[at].0 != '{' {
            first = at + 1;
        }
    }
    groups.iter().zip(&taken).all(|(group, taken)| group.0 != '<' || *taken)
}

#[test]
fn every_row_of_the_decode_table_is_executed_by_a_test_that_cites_its_section() {
    let mut cited: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (sections, tests) in FILES {
        for opcode in recorder::record(|| tests.iter().for_each(|test| test())) {
            cited.entry(opcode).or_default().extend(*sections);
        }
    }
    let missing: Vec<String> = covered_instructions()
        .into_iter()
        .filter(|row| {
            !cited.iter().any(|(opcode, sections)| {
                let cites = |section: &&str| row.section.starts_with(*section);
                matches(&row.form, opcode) && sections.iter().any(cites)
            })
        })
        .map(|row| format!("{} {}", row.section, row.form))
        .collect();
    assert!(missing.is_empty(), "{} rows without a test:\n{}", missing.len(), missing.join("\n"));
}
