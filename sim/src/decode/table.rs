//! The decode table: rows, matching of modifiers, and the list of what is covered.
//!
//! A row's form is written as `opcode [optional|alternatives] <required|alternatives>`. Modifiers
//! must appear in the order of the form; anything else is rejected with the line number, because a
//! modifier that is skipped (`.sat`, `.trans`, `.relu`, `bar.warp` taken for `bar`) would change
//! results or hide defects. Neighbouring groups in braces, `{optional|alternatives}`, may change
//! places: ptxas takes memory order, scope, state space and the operation of an atomic in any
//! order, and compilers use that.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::operands::Operands;
use super::{
    build_async, build_bulk, build_control, build_convert, build_extended, build_float,
    build_float_forms, build_int, build_matrix, build_memory, build_move, build_packed, build_warp,
    build_wgmma,
};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::Op;

/// Turns matched modifiers and operands into an operation.
pub(super) type Builder = fn(&mut Operands<'_>, &Modifiers<'_>) -> Result<Op, SimError>;

/// One instruction form.
pub(super) struct Row {
    /// `opcode {a|b} [c|d] <e|f>`.
    pub form: &'static str,
    /// Counter class; loads, stores and atomics refine it by state space.
    pub class: Class,
    /// Section of the PTX ISA (9.0) that defines it.
    pub section: &'static str,
    pub build: Builder,
}

/// All rows, by theme.
fn rows() -> impl Iterator<Item = &'static Row> {
    [
        build_int::ROWS,
        build_extended::ROWS,
        build_packed::ROWS,
        build_float::ROWS,
        build_float_forms::ROWS,
        build_move::ROWS,
        build_convert::ROWS,
        build_memory::ROWS,
        build_warp::ROWS,
        build_matrix::ROWS,
        build_wgmma::ROWS,
        build_control::ROWS,
        build_async::ROWS,
        build_bulk::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// One instruction form that the simulator executes, for documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveredInstruction {
    /// Form in PTX manner: `[.x|.y]` is optional, `<.x|.y>` required, `{.x|.y}` optional and free
    /// to change places with its neighbours in braces.
    pub form: String,
    /// Counter class.
    pub class: Class,
    /// Section of the PTX ISA that defines the instruction.
    pub section: &'static str,
}

/// Every instruction form of the decode table, in table order.
pub fn covered_instructions() -> Vec<CoveredInstruction> {
    rows()
        .map(|row| CoveredInstruction {
            form: row.form.to_owned(),
            class: row.class,
            section: row.section,
        })
        .collect()
}

struct Group {
    required: bool,
    /// May change places with neighbours of its kind.
    movable: bool,
    alternatives: Vec<&'static str>,
}

impl Group {
    /// An alternative with `nN`, such as `m64nNk16`, stands for every number of columns.
    fn accepts(&self, modifier: &str) -> bool {
        self.alternatives.iter().any(|alternative| match alternative.split_once('N') {
            Some((before, after)) if alternative.starts_with('m') => modifier
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|number| number.parse::<u16>().is_ok()),
            _ => alternative == &modifier,
        })
    }
}

struct Pattern {
    row: &'static Row,
    groups: Vec<Group>,
}

fn parse_form(form: &'static str) -> (&'static str, Vec<Group>) {
    let mut words = form.split_whitespace();
    let opcode = words.next().unwrap_or_default();
    let groups = words
        .map(|word| Group {
            required: word.starts_with('<'),
            movable: word.starts_with('{'),
            alternatives: word.trim_matches(['<', '>', '[', ']', '{', '}']).split('|').collect(),
        })
        .collect();
    (opcode, groups)
}

fn patterns() -> &'static HashMap<&'static str, Vec<Pattern>> {
    static PATTERNS: OnceLock<HashMap<&'static str, Vec<Pattern>>> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        let mut map: HashMap<&'static str, Vec<Pattern>> = HashMap::new();
        for row in rows() {
            let (opcode, groups) = parse_form(row.form);
            map.entry(opcode).or_default().push(Pattern { row, groups });
        }
        map
    })
}

/// The modifiers of an instruction, one entry per group of the matched form ("" when absent).
#[derive(Debug)]
pub(super) struct Modifiers<'a> {
    groups: Vec<&'a str>,
}

impl Modifiers<'_> {
    /// Modifier of group `index` of the form, "" when absent.
    pub(super) fn get(&self, index: usize) -> &str {
        self.groups.get(index).copied().unwrap_or("")
    }

    /// Whether a modifier is present in any group.
    pub(super) fn has(&self, modifier: &str) -> bool {
        self.groups.contains(&modifier)
    }

    /// Modifier of the group `back` places before the last one.
    pub(super) fn nth_last(&self, back: usize) -> &str {
        let index = self.groups.len().checked_sub(back + 1);
        index.map_or("", |index| self.get(index))
    }

    /// The first modifier for which `wanted` holds.
    pub(super) fn find(&self, wanted: impl Fn(&str) -> bool) -> &str {
        self.groups.iter().copied().find(|modifier| wanted(modifier)).unwrap_or("")
    }

    /// The last group of the form, by convention the type.
    pub(super) fn last(&self) -> &str {
        self.groups.last().copied().unwrap_or("")
    }
}

impl Pattern {
    /// Matches greedily from left to right; on failure says how many modifiers were understood.
    fn matches<'a>(&self, modifiers: &[&'a str]) -> Result<Modifiers<'a>, usize> {
        let mut groups = Vec::with_capacity(self.groups.len());
        let mut at = 0;
        for run in self.groups.chunk_by(|a, b| a.movable && b.movable) {
            let first = groups.len();
            groups.resize(first + run.len(), "");
            // A fixed group is a run of its own and takes at most one modifier.
            while let Some(modifier) = modifiers.get(at) {
                let free = |index: &usize| {
                    groups[first + index].is_empty() && run[*index].accepts(modifier)
                };
                let Some(index) = (0..run.len()).find(free) else { break };
                groups[first + index] = modifier;
                at += 1;
            }
            if run[0].required && groups[first].is_empty() {
                return Err(at);
            }
        }
        if at == modifiers.len() {
            Ok(Modifiers { groups })
        } else {
            Err(at)
        }
    }
}

/// The row for `opcode` (with modifiers), or what part of it is not in the table.
pub(super) fn find(opcode: &str) -> Result<(&'static Row, Modifiers<'_>), String> {
    let mut parts = opcode.split('.');
    let base = parts.next().unwrap_or_default();
    let modifiers: Vec<&str> = parts.collect();
    let Some(candidates) = patterns().get(base) else {
        return Err(format!("opcode `{base}` is not in the decode table"));
    };
    let mut understood = 0;
    for pattern in candidates {
        match pattern.matches(&modifiers) {
            Ok(found) => return Ok((pattern.row, found)),
            Err(at) => understood = understood.max(at),
        }
    }
    Err(match modifiers.get(understood) {
        Some(modifier) => format!("modifier `.{modifier}` is not supported here"),
        None => "a required modifier is missing".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modifier_outside_the_form_is_named() {
        let error = find("add.sat.f17").map(|_| ()).unwrap_err();
        assert!(error.contains(".f17") || error.contains(".sat"), "{error}");
        assert!(find("frobnicate.s32").is_err());
        assert!(find("add").is_err());
    }

    #[test]
    fn order_scope_and_space_may_change_places_and_nothing_else() {
        let (row, modifiers) = find("atom.global.gpu.acq_rel.add.u32").unwrap();
        let (same, usual) = find("atom.acq_rel.gpu.global.add.u32").unwrap();
        assert_eq!((row.form, &modifiers.groups), (same.form, &usual.groups));
        let (row, modifiers) = find("atom.add.acq_rel.gpu.global.u32").unwrap();
        assert_eq!((row.form, &modifiers.groups), (same.form, &usual.groups));
        assert!(find("atom.u32.add").is_err());
        assert!(find("atom.global.global.add.u32").is_err());
    }

    #[test]
    fn warp_and_block_barriers_are_different_rows() {
        let warp = find("bar.warp.sync").unwrap().0;
        let block = find("bar.sync").unwrap().0;
        assert_ne!(warp.form, block.form);
    }

    #[test]
    fn every_row_matches_an_instruction_spelled_from_its_own_form() {
        for row in rows() {
            let (opcode, groups) = parse_form(row.form);
            let mut spelled = opcode.to_owned();
            for group in groups.iter().filter(|group| group.required) {
                spelled.push('.');
                spelled.push_str(&group.alternatives[0].replace("nN", "n8"));
            }
            assert!(find(&spelled).is_ok(), "{spelled} from {}", row.form);
        }
    }

    #[test]
    fn every_row_names_its_section_and_no_form_appears_twice() {
        let mut forms = std::collections::HashSet::new();
        for row in rows() {
            assert!(row.section.starts_with(|c: char| c.is_ascii_digit()), "{}", row.form);
            assert!(forms.insert(row.form), "{} twice", row.form);
        }
    }
}
