//! One row of the matrix.

use super::cases::Case;
use anyhow::{bail, Context, Result};
use std::fmt;
use std::str::FromStr;

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every token count verified; the largest error over its bound.
    Passed(f64),
    /// No schedule of the family is legal, for this reason.
    Refused(String),
    /// A kernel is wrong, or does not compile.
    Failed(String),
}

/// A case that was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was verified.
    pub case: Case,
    /// Version of the generator that made the kernels.
    pub generator: u32,
    /// What became of it.
    pub outcome: Outcome,
}

impl Row {
    /// The first line of the table.
    pub const HEADER: &'static str = "case,generator,outcome,detail";

    /// The row as a line of the table.
    pub fn line(&self) -> String {
        let Row { case, generator, outcome } = self;
        let (word, detail) = match outcome {
            Outcome::Passed(worst) => ("passed", format!("{worst:.3}")),
            Outcome::Refused(reason) => ("refused", one_line(reason)),
            Outcome::Failed(reason) => ("failed", one_line(reason)),
        };
        format!("{case},{generator},{word},{detail}")
    }
}

/// Longer texts are cut.
const DETAIL_MAX: usize = 200;

fn one_line(text: &str) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().take(DETAIL_MAX).collect();
    line.trim().to_owned()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Passed(worst) => write!(f, "passed, error over bound {worst:.3}"),
            Outcome::Refused(reason) => write!(f, "refused: {reason}"),
            Outcome::Failed(reason) => write!(f, "FAILED: {reason}"),
        }
    }
}

impl FromStr for Row {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Row> {
        let mut fields = line.splitn(4, ',');
        let mut field = |name: &str| fields.next().with_context(|| format!("no {name}"));
        let case = field("case")?.parse()?;
        let generator = field("generator")?.parse()?;
        let (word, detail) = (field("outcome")?, field("detail")?);
        let outcome = match word {
            "passed" => Outcome::Passed(detail.parse()?),
            "refused" => Outcome::Refused(detail.into()),
            "failed" => Outcome::Failed(detail.into()),
            other => bail!("unknown outcome `{other}`"),
        };
        Ok(Row { case, generator, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_print_and_parse_back() {
        for line in [
            "h200 awq-g128 f16 33x128 gemv,4,passed,0.513",
            "h200 hqq-g1 f16 33x72 mma,4,refused,quant group 1 is not k32, nor half of it",
            "a100 q4_k bf16 72x160 dequant,4,failed,m 13: C[0, 1] is 2, not 3",
        ] {
            assert_eq!(line.parse::<Row>().unwrap().line(), line);
        }
        assert!("h200 awq-g128 f16 33x128 gemv,4,lost,1".parse::<Row>().is_err());
    }
}
