//! Comparing what a kernel wrote with what it should have written.

use crate::inputs::{decode, Activations};
use crate::reference::Expected;
use qtune_ir::Problem;
use std::ops::Range;

/// Ratios above this are reported as this: infinity has no place in JSON.
pub(crate) const RATIO_MAX: f64 = 1e9;

/// The worst element seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Worst {
    /// Error over bound.
    pub ratio: f64,
    /// Where, and what was found there, if the ratio is above 1.
    pub detail: Option<String>,
    /// Elements compared.
    pub elements: u64,
}

impl Worst {
    /// Takes the worse of two.
    pub fn merge(&mut self, other: Worst) {
        self.elements += other.elements;
        if other.ratio > self.ratio {
            self.ratio = other.ratio;
            self.detail = other.detail;
        }
    }
}

/// Error over bound of one element. Infinity is right where a correct kernel may round to it.
pub(crate) fn ratio(found: f64, expected: &Expected) -> f64 {
    if found == f64::INFINITY.copysign(expected.value) && expected.may_overflow {
        return 0.0;
    }
    let error = (found - expected.value).abs();
    if error == 0.0 {
        return 0.0;
    }
    // NaN and 0/0 compare false: both are as wrong as can be.
    let ratio = error / expected.bound;
    if ratio < RATIO_MAX {
        ratio
    } else {
        RATIO_MAX
    }
}

/// Compares one output tile with its expected values, `[columns][tokens]`.
pub(crate) fn tile(
    output: &[u8],
    problem: &Problem,
    x: &Activations,
    columns: &[u32],
    tokens: Range<u32>,
    expected: &[Vec<Expected>],
) -> Worst {
    let mut worst = Worst::default();
    for (&n, column) in columns.iter().zip(expected) {
        for (m, expected) in tokens.clone().zip(column) {
            let index = m as usize * problem.columns() as usize + n as usize;
            let found = decode(output, index, problem.out);
            let ratio = ratio(found, expected);
            worst.elements += 1;
            if ratio > worst.ratio {
                worst.ratio = ratio;
                worst.detail = (ratio > 1.0).then(|| {
                    format!(
                        "{} x, token {m}, output {n}: {found} where {} +- {:.3e} is right",
                        x.pattern(m).name(),
                        expected.value,
                        expected.bound
                    )
                });
            }
        }
    }
    worst
}

/// Columns that follow each other in the output, none of these runs empty.
pub(crate) fn runs(columns: &[u32]) -> impl Iterator<Item = &[u32]> {
    columns.chunk_by(|one, next| one + 1 == *next)
}

/// The first element outside `tiles`, columns and tokens of each, that is not as it was `before`. Blocks that did not run write nothing, so
/// whoever wrote it strayed out of its tile.
pub(crate) fn stray_write(
    (before, output): (&[u8], &[u8]),
    problem: &Problem,
    tiles: impl Iterator<Item = (Vec<u32>, Range<u32>)>,
) -> Option<String> {
    let element = problem.out.bytes() as usize;
    let width = problem.columns() as usize;
    let mut outside = output.to_vec();
    for (columns, tokens) in tiles {
        for (m, run) in tokens.flat_map(|m| runs(&columns).map(move |run| (m, run))) {
            let start = (m as usize * width + run[0] as usize) * element;
            let end = start + run.len() * element;
            outside[start..end].copy_from_slice(&before[start..end]);
        }
    }
    let at = outside.iter().zip(before).position(|(now, before)| now != before)? / element;
    let (m, n) = (at / width, at % width);
    Some(format!("token {m}, output {n} was written by a block that does not own it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(value: f64, may_overflow: bool) -> Expected {
        Expected { value, bound: 0.5, may_overflow }
    }

    #[test]
    fn errors_are_measured_in_bounds_and_nan_is_never_right() {
        assert_eq!(ratio(1.25, &expected(1.0, false)), 0.5);
        assert_eq!(ratio(f64::NAN, &expected(1.0, true)), RATIO_MAX);
        assert_eq!(ratio(1.0, &Expected { bound: 0.0, ..expected(1.0, false) }), 0.0);
        assert_eq!(ratio(2.0, &Expected { bound: 0.0, ..expected(1.0, false) }), RATIO_MAX);
    }

    #[test]
    fn infinity_is_right_only_where_the_type_overflows_on_that_side() {
        assert_eq!(ratio(f64::INFINITY, &expected(65520.0, true)), 0.0);
        assert_eq!(ratio(f64::NEG_INFINITY, &expected(65520.0, true)), RATIO_MAX);
        assert_eq!(ratio(f64::INFINITY, &expected(6000.0, false)), RATIO_MAX);
    }

    #[test]
    fn a_write_outside_the_tiles_that_ran_is_named() {
        let problem: Problem = "w4a16.awq-g128.f16-f16.n4.k128.m2".parse().unwrap();
        let stray = |before: &[u8], output: &[u8]| {
            stray_write((before, output), &problem, [(vec![2, 3], 0..2)].into_iter())
        };
        let mut output = vec![0xff; 16];
        let before = output.clone();
        output[4] = 0;
        assert_eq!(stray(&before, &output), None);
        output[2] = 0;
        let line = stray(&before, &output).unwrap();
        assert!(line.starts_with("token 0, output 1"), "{line}");
    }
}
