//! Which kernels are verified: every format, on one GPU of each feature level, in every family.

use anyhow::{Context, Result};
use qtune_formats::{FormatRow, FORMATS};
use qtune_ir::{Arch, DType, Family, Group, Problem, WeightSpec};
use std::fmt;
use std::str::FromStr;

/// The default schedules of one family for one matrix, for all of [`TOKENS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// GPU name.
    pub gpu: String,
    /// Format name.
    pub format: String,
    /// Element type of activations and output.
    pub act: DType,
    /// Output features.
    pub n: u32,
    /// Input features.
    pub k: u32,
    /// Kernel family.
    pub family: Family,
}

/// Token counts that are launched: edges of tiles and of buckets, and counts that fill none.
pub const TOKENS: [u32; 12] = [1, 2, 3, 8, 13, 16, 17, 33, 64, 118, 257, 768];
/// One GPU of each feature level: sm_90a, sm_80, sm_89 and sm_120.
const GPUS: [&str; 4] = ["h200", "a100", "rtx4090", "rtx5090"];
/// Rows that fill no tile of any family.
const ODD_ROWS: u32 = 33;
/// Rows that fill some of the smaller ones.
const FEW_ROWS: u32 = 72;

/// Every case: the usual format of each row first, then its other examples.
///
/// # Errors
/// An example of a format row that is no format.
pub fn all() -> Result<Vec<Case>> {
    let first = |row: &&'static FormatRow| row.examples.first();
    let usual: Vec<&str> = FORMATS.iter().filter_map(first).copied().collect();
    let others: Vec<&str> =
        FORMATS.iter().flat_map(|row| row.examples.iter().skip(1)).copied().collect();
    let mut cases = Vec::new();
    for formats in [usual, others] {
        for size in [Size::OneGroup, Size::FewGroups] {
            for gpu in GPUS {
                for format in &formats {
                    cases.extend(families(gpu, format, size)?);
                }
            }
        }
    }
    Ok(cases)
}

/// The cases of a format and size on a GPU.
fn families(gpu: &str, format: &str, size: Size) -> Result<Vec<Case>> {
    let arch = Arch::named(gpu)?;
    let spec = qtune_formats::resolve(format)?;
    let (n, k) = if spec.is_rotated() { size.powers() } else { size.of(spec.group) };
    let exists = |family: &Family| *family != Family::Wgmma || arch.has_wgmma();
    let case =
        |family| Case { gpu: gpu.into(), format: format.into(), act: size.act(), n, k, family };
    Ok(Family::ALL.into_iter().filter(exists).map(case).collect())
}

/// Matrices that are no multiple of any tile.
#[derive(Clone, Copy, Debug)]
enum Size {
    /// K is one quant group, or N is.
    OneGroup,
    /// K, or N, is an odd number of them.
    FewGroups,
}

impl Size {
    /// N and K. Rows with one group, and groups that are too short for one load of activations, have K
    /// of a few such loads.
    fn of(self, group: Group) -> (u32, u32) {
        match (self, group) {
            (Size::OneGroup, Group::Size(size)) if size % 8 == 0 => (ODD_ROWS, size),
            (Size::OneGroup, Group::Rows(rows)) => (rows, 72),
            (Size::OneGroup, _) => (ODD_ROWS, 72),
            (Size::FewGroups, Group::Size(size)) if size % 8 == 0 => {
                let groups = match size {
                    0..=16 => 7,
                    17..=32 => 5,
                    _ => 3,
                };
                (FEW_ROWS, size * groups)
            }
            (Size::FewGroups, Group::Rows(rows)) => (3 * rows, 200),
            (Size::FewGroups, _) => (FEW_ROWS, 200),
        }
    }

    /// N and K of formats whose features are rotated: powers of two.
    fn powers(self) -> (u32, u32) {
        match self {
            Size::OneGroup => (32, 64),
            Size::FewGroups => (64, 256),
        }
    }

    /// The element types take turns.
    fn act(self) -> DType {
        match self {
            Size::OneGroup => DType::F16,
            Size::FewGroups => DType::Bf16,
        }
    }
}

impl Case {
    /// The problem with a bucket's tokens; `spec` is that of the case's format.
    pub fn problem(&self, spec: &WeightSpec, m: u32) -> Problem {
        Problem::of(spec, [self.act; 2], [self.n, self.k, m])
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { gpu, format, act, n, k, family } = self;
        write!(f, "{gpu} {format} {act} {n}x{k} {}", family.name())
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Case> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [gpu, format, act, shape, family] = parts[..] else {
            anyhow::bail!("`{text}` is not a case");
        };
        let (n, k) = shape.split_once('x').context("no shape")?;
        let known = Family::ALL.into_iter().find(|known| known.name() == family);
        Ok(Case {
            gpu: gpu.into(),
            format: format.into(),
            act: act.parse().map_err(|why: String| anyhow::anyhow!(why))?,
            n: n.parse()?,
            k: k.parse()?,
            family: known.with_context(|| format!("unknown family `{family}`"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_print_and_parse_back_and_no_two_are_alike() {
        let cases = all().unwrap();
        let mut names: Vec<String> = cases.iter().map(Case::to_string).collect();
        for (name, case) in names.iter().zip(&cases) {
            assert_eq!(name.parse::<Case>().unwrap(), *case);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len());
    }

    #[test]
    fn every_format_is_there_with_one_group_to_a_row_or_column() {
        let cases = all().unwrap();
        for format in FORMATS.iter().flat_map(|row| row.examples) {
            let group = qtune_formats::resolve(format).unwrap().group;
            let one = |case: &Case| {
                let group = match group {
                    Group::Rows(rows) => case.n == rows,
                    Group::Size(_) | Group::Channel => group.count(case.k) == 1,
                };
                case.format == *format && group
            };
            assert!(cases.iter().any(one) || group == Group::Size(1), "{format}");
        }
    }
}
