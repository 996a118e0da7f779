//! Comparing what a kernel wrote with what was expected.

use super::number::Number;
use serde::Serialize;

/// The verdict on one output; the names are a contract, see `docs/cli.md`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Number of the argument, from 0.
    pub arg: usize,
    /// The buffer, as the launch file names it.
    pub buffer: String,
    /// Norm of the difference over the norm of what is expected; not finite, and null in JSON,
    /// where a NaN or an infinity differs or where nothing but zeros was expected.
    pub error: f64,
    /// The most that was allowed.
    pub tolerance: f64,
    /// Elements compared.
    pub elements: u64,
    /// Elements that the kernel should have written and did not.
    pub unwritten: u64,
    /// Whether the error is within the tolerance and everything was written.
    pub passed: bool,
}

/// An output that two schedules left with different bits.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Number of the argument, from 0.
    pub arg: usize,
    /// The buffer, as the launch file names it.
    pub buffer: String,
    /// Elements that differ.
    pub elements: usize,
}

/// Elements of an output.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    /// What each stands for.
    pub number: Number,
    /// Bytes of each.
    pub bytes: usize,
    /// All of them.
    pub data: &'a [u8],
}

/// Sums of squares over the compared elements.
#[derive(Debug, Default)]
pub struct Errors {
    difference: f64,
    expected: f64,
    /// Elements compared.
    pub elements: u64,
}

impl Errors {
    /// Compares the elements that `chosen` names by index.
    pub fn of(actual: Elements, expected: Elements, chosen: impl Fn(usize) -> bool) -> Errors {
        let mut errors = Errors::default();
        let pairs = actual.data.chunks_exact(actual.bytes);
        let pairs = pairs.zip(expected.data.chunks_exact(expected.bytes));
        for (_, (a, e)) in pairs.enumerate().filter(|(index, _)| chosen(*index)) {
            let expected = expected.number.value(e);
            errors.difference += actual.number.value(a).distance(expected).powi(2);
            // What is not finite has no part in the scale that errors are measured on.
            let size = expected.to_f64();
            errors.expected += if size.is_finite() { size.powi(2) } else { 0.0 };
            errors.elements += 1;
        }
        errors
    }

    /// Norm of the difference over the norm of what is expected; 0 where nothing differs.
    pub fn relative(&self) -> f64 {
        match self.difference == 0.0 {
            true => 0.0,
            false => (self.difference / self.expected).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy::Stored;
    use super::*;

    fn errors(actual: &[f32], expected: &[f64], chosen: impl Fn(usize) -> bool) -> Errors {
        let actual: Vec<u8> = actual.iter().flat_map(|v| v.to_le_bytes()).collect();
        let expected: Vec<u8> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
        let double = Number::AsStored(Stored { kind: 'f', bytes: 8 });
        Errors::of(
            Elements { number: Number::F32, bytes: 4, data: &actual },
            Elements { number: double, bytes: 8, data: &expected },
            chosen,
        )
    }

    #[test]
    fn the_error_is_the_norm_of_the_difference_over_that_of_the_expected() {
        let all = errors(&[3.0, 4.5], &[3.0, 4.0], |_| true);
        assert_eq!((all.relative(), all.elements), (0.1, 2));
        let first = errors(&[3.0, 4.5], &[3.0, 4.0], |index| index == 0);
        assert_eq!((first.relative(), first.elements), (0.0, 1));
    }

    #[test]
    fn zeros_and_what_is_not_finite_pass_only_where_they_agree() {
        let error = |a: f32, e: f64| errors(&[a, 1.0], &[e, 1.0], |_| true).relative();
        assert_eq!(errors(&[0.0], &[0.0], |_| true).relative(), 0.0);
        assert_eq!(errors(&[1.0], &[0.0], |_| true).relative(), f64::INFINITY);
        assert_eq!([error(f32::NAN, f64::NAN), error(f32::INFINITY, f64::INFINITY)], [0.0, 0.0]);
        assert!(error(f32::NAN, 1.0).is_nan());
        assert!(error(f32::INFINITY, 1.0).is_infinite() && error(1.0, f64::INFINITY).is_infinite());
    }
}
