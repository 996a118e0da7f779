//! The dry run: what a search would try, with nothing compiled.

use crate::ladder::Ladder;
use crate::request::{Limits, Task};
use crate::terms::Terms;
use crate::{SearchError, TuneRequest};
use qtune_ir::tile::Space;
use rayon::prelude::*;
use std::collections::HashSet;

/// Seconds of one core that compiling a candidate takes.
const COMPILE_SECONDS: f64 = 0.7;
/// Seconds of one core that verifying a row tile in the simulator takes.
const TILE_SECONDS: f64 = 1.2;

/// What would be done for one problem.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PlannedProblem {
    /// What the request calls the shape.
    pub shape: String,
    /// The problem key.
    pub problem: String,
    /// Nests that the tiling e-graph offers.
    pub sketches_considered: usize,
    /// Legal schedules that the ladder ranks.
    pub candidates: usize,
    /// Schedules that would be compiled, with their modelled time in microseconds, best first.
    pub finalists: Vec<(String, f64)>,
    /// The space by family: dimensions with their values, sizes before and after pruning, and why.
    /// Sketches are complete nests; of the dimensions that later rungs vary, the neighbours of the
    /// candidates that were kept count.
    pub space: Space,
    /// Expected wall-clock seconds on this machine, alone.
    pub seconds: f64,
}

/// Climbs the ladder for every problem of the request and stops there.
///
/// # Errors
/// [`SearchError::Format`] for an unknown format, [`SearchError::Tile`] for a problem that no
/// schedule computes.
pub fn plan(request: &TuneRequest) -> Result<Vec<PlannedProblem>, SearchError> {
    let tasks = request.tasks()?;
    let limits = request.effort.limits();
    let terms = Terms::new(&request.arch, request.exact);
    let poisoned = HashSet::new();
    let planned = |task: &Task| {
        let ladder =
            Ladder { task, arch: &request.arch, terms: &terms, limits, poisoned: &poisoned };
        let climb = ladder.survey()?;
        let finalists = climb.finalists.into_iter().map(|c| (c.text, c.estimate.time_us));
        Ok(PlannedProblem {
            shape: task.name.clone(),
            problem: task.problem.to_string(),
            sketches_considered: climb.sketches_considered,
            candidates: climb.ranked.len(),
            finalists: finalists.collect(),
            space: climb.space.unwrap_or_default(),
            seconds: seconds(limits),
        })
    };
    tasks.par_iter().map(planned).collect()
}

fn seconds(limits: Limits) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let compiling = (limits.finalists + 1) as f64 * COMPILE_SECONDS;
    (compiling + limits.verified_row_tiles as f64 * TILE_SECONDS) / cores
}
