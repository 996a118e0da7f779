//! What a search is asked to do, and its limits.

use qtune_cache::Extent;
use qtune_formats::FormatError;
use qtune_ir::{Arch, Problem, WeightSpec};
use std::time::Duration;

/// How much is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// A few candidates for each problem.
    Quick,
    /// What a first tuning of a model takes.
    #[default]
    Normal,
    /// The ladder twice, and several times as many kernels compiled.
    Full,
}

/// The limits of an effort, printed in every report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Sketches taken from the tiling e-graph.
    pub sketches: usize,
    /// Candidates of each family that a rung keeps.
    pub kept: usize,
    /// Times that rungs 2 to 5 are climbed.
    pub passes: usize,
    /// Candidates that are compiled, the default schedule not counted.
    pub finalists: usize,
    /// Candidates that are compiled and measured in all, where times are measured.
    pub measured: usize,
    /// Row tiles of a large matrix that a winner is verified on.
    pub verified_row_tiles: usize,
}

impl Effort {
    /// The limits of this effort.
    pub fn limits(self) -> Limits {
        match self {
            Effort::Quick => Limits {
                sketches: 24,
                kept: 3,
                passes: 1,
                finalists: 3,
                measured: 8,
                verified_row_tiles: 2,
            },
            Effort::Normal => Limits {
                sketches: 96,
                kept: 12,
                passes: 1,
                finalists: 20,
                measured: 40,
                verified_row_tiles: 4,
            },
            Effort::Full => Limits {
                sketches: 128,
                kept: 32,
                passes: 2,
                finalists: 64,
                measured: 160,
                verified_row_tiles: 8,
            },
        }
    }
}

impl Effort {
    /// What the cache says of a winner whose search had this effort and came to its end.
    pub(crate) fn extent(self) -> Extent {
        match self {
            Effort::Quick => Extent::Quick,
            Effort::Normal => Extent::Normal,
            Effort::Full => Extent::Full,
        }
    }
}

impl Limits {
    /// The limits of the ladder where times are measured: it compiles a third of what may be
    /// measured, and what those tell leads to the rest.
    pub(crate) fn before_measuring(self) -> Limits {
        Limits { finalists: (self.measured / 3).clamp(1, self.finalists), ..self }
    }

    /// The limits by name, for the header of a trial log.
    pub fn named(&self) -> Vec<(String, String)> {
        let rows = [
            ("sketches", self.sketches),
            ("kept", self.kept),
            ("passes", self.passes),
            ("finalists", self.finalists),
            ("measured", self.measured),
            ("verified_row_tiles", self.verified_row_tiles),
        ];
        rows.into_iter().map(|(name, value)| (name.into(), value.to_string())).collect()
    }
}

/// One problem to tune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What people call it, such as `gate_up`.
    pub name: String,
    /// The problem; its `m` is the bucket.
    pub problem: Problem,
    /// Multiplications with it for one decoded token: what a budget is shared by.
    pub calls: u32,
}

/// `shapes` in order, each problem once: under its first name, with the calls of all of them.
pub fn distinct(shapes: &[Shape]) -> Vec<Shape> {
    let mut distinct: Vec<Shape> = Vec::new();
    for shape in shapes {
        match distinct.iter_mut().find(|other| other.problem == shape.problem) {
            Some(same) => same.calls = same.calls.saturating_add(shape.calls),
            None => distinct.push(shape.clone()),
        }
    }
    distinct
}

/// What to tune, for which GPU, and how hard to try.
#[derive(Clone, Debug)]
pub struct TuneRequest {
    /// The GPU that the kernels are for; the device's own arch where there is a GPU.
    pub arch: Arch,
    /// The problems in order. A problem that comes twice is tuned once, under its first name.
    pub shapes: Vec<Shape>,
    /// How much is tried.
    pub effort: Effort,
    /// Wall-clock time after which no further candidate is begun.
    pub budget: Option<Duration>,
    /// Decides the inputs of every verification.
    pub seed: u64,
    /// Tune even what the cache has.
    pub fresh: bool,
    /// Tune nothing: what the cache does not have is without a winner.
    pub cache_only: bool,
    /// Only dequantization terms that round weights exactly as the checkpoint's reference does.
    pub exact: bool,
    /// Let the finalists of each problem run again among the kernels of all other problems of its
    /// token bucket. Tunes what the cache has, too, because a step needs everybody's kernels.
    pub in_step: bool,
}

/// A problem with what it resolves to.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub name: String,
    pub problem: Problem,
    pub spec: WeightSpec,
    pub calls: u32,
}

impl TuneRequest {
    /// A request of normal effort for `shapes` on `arch`.
    pub fn new(arch: Arch, shapes: Vec<Shape>) -> TuneRequest {
        TuneRequest {
            arch,
            shapes,
            effort: Effort::default(),
            budget: None,
            seed: 1,
            fresh: false,
            cache_only: false,
            exact: false,
            in_step: false,
        }
    }

    /// The distinct problems in order, formats resolved.
    pub(crate) fn tasks(&self) -> Result<Vec<Task>, FormatError> {
        let task = |Shape { name, problem, calls }| {
            let spec = qtune_formats::resolve(&problem.format)?;
            Ok(Task { name, problem, spec, calls })
        };
        distinct(&self.shapes).into_iter().map(task).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_comes_twice_is_tuned_once() {
        let shape = |name: &str, m: u32| Shape {
            name: name.into(),
            problem: format!("w4a16.awq-g128.f16-f16.n64.k256.m{m}").parse().unwrap(),
            calls: 3,
        };
        let arch = Arch::named("h200").unwrap();
        let request = TuneRequest::new(arch, vec![shape("a", 1), shape("b", 1), shape("a", 2)]);
        let tasks = request.tasks().unwrap();
        let found: Vec<(&str, u32)> = tasks.iter().map(|t| (t.name.as_str(), t.calls)).collect();
        assert_eq!(found, [("a", 6), ("a", 3)]);
    }

    #[test]
    fn more_effort_is_never_less_of_anything() {
        let [quick, normal, full] =
            [Effort::Quick, Effort::Normal, Effort::Full].map(Effort::limits);
        for (less, more) in [(quick, normal), (normal, full)] {
            let numbers = |l: Limits| {
                [l.sketches, l.kept, l.passes, l.finalists, l.measured, l.verified_row_tiles]
            };
            assert!(numbers(less).iter().zip(numbers(more)).all(|(a, b)| *a <= b));
        }
    }
}
