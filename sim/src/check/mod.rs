//! Findings, how those of many blocks are merged, and the race detectors.

mod clocks;
mod finding;
mod global;
mod histories;
mod lane_log;
mod lanes;
mod ordering;
mod races;
mod sink;

pub(crate) use clocks::{Clocks, VectorClock};
pub use finding::{Finding, FindingKind};
pub(crate) use global::{GlobalAccess, GlobalHistory, GlobalKind};
pub(crate) use lane_log::{LaneLog, LaneRequest};
pub(crate) use lanes::{LaneAccess, LaneConflict, LaneRaces};
pub(crate) use ordering::{Knowledge, Locations};
pub(crate) use races::{Conflict, Races, Ticket};
pub(crate) use sink::FindingSink;
