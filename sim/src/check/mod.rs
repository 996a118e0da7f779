//! Findings, how those of many blocks are merged, and the race detector.

mod finding;
mod races;
mod sink;

pub use finding::{Finding, FindingKind};
pub(crate) use races::{Conflict, Races, VectorClock};
pub(crate) use sink::FindingSink;
