//! Findings, how those of many blocks are merged, and the race detectors.

mod clocks;
mod finding;
mod global;
mod histories;
mod interval;
mod lane_acquires;
mod lane_log;
mod lane_releases;
mod lanes;
mod ordering;
mod races;
mod sink;
mod span;

pub(crate) use clocks::{Clocks, VectorClock};
pub use finding::{Finding, FindingKind};
pub(crate) use global::{GlobalAccess, GlobalHistory, GlobalKind};
pub(crate) use lane_log::{LaneLog, LaneRequest};
pub(crate) use lanes::{LaneAccess, LaneConflict, LaneRaces};
pub(crate) use ordering::{Knowledge, Locations};
pub(crate) use races::{Conflict, Races, Ticket};
pub(crate) use sink::FindingSink;
pub(crate) use span::Span;
