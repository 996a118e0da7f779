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
mod region;
mod sink;

pub(crate) use clocks::{Clocks, VectorClock};
pub use finding::{Finding, FindingKind};
pub(crate) use global::{GlobalAccess, GlobalHistory, GlobalKind};
pub(crate) use lane_log::{LaneLog, LaneRequest};
pub(crate) use lanes::{LaneAccess, LaneConflict, LaneRaces};
pub(crate) use ordering::{Knowledge, Locations};
pub(crate) use races::{Conflict, Races, Ticket};
pub(crate) use region::Region;
pub(crate) use sink::FindingSink;
