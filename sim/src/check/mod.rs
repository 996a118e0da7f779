//! Findings, how those of many blocks are merged, and the race detectors.

mod finding;
mod lanes;
mod races;
mod sink;

pub use finding::{Finding, FindingKind};
pub(crate) use lanes::{LaneAccess, LaneConflict, LaneRaces};
pub(crate) use races::{Conflict, Races, VectorClock};
pub(crate) use sink::FindingSink;
