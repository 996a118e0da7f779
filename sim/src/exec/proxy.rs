//! Reads of shared memory by the async proxy: matrix products and bulk stores (PTX ISA 9.7.9.25.2,
//! 9.7.15.1).
//!
//! Such a read needs what ordinary reads need, and besides that a `fence.proxy.async` of whoever
//! stored the bytes; bytes that a bulk copy wrote need none. It lasts from its issue until somebody
//! waits for it, and meanwhile nobody may write to the bytes.

use std::ops::Range;
use std::rc::Rc;

use super::lane_order;
use super::shared::{describe_conflict, report_lanes};
use crate::block::{Block, Place};
use crate::check::{FindingKind, LaneAccess, Region, Ticket};

/// Checks that an asynchronous operation of the running warp may read a region of the block's memory
/// (multiples of 4, inside it), and marks it as being read until [`end_read`].
///
/// `lane` executes it, or the whole warp. `what` begins the messages, for example "wgmma load".
/// Without checks there is nothing to mark.
pub(crate) fn begin_read(
    block: &mut Block<'_>,
    region: Rc<Region>,
    lane: Option<usize>,
    what: &str,
) -> Option<Ticket> {
    if !block.checks() {
        return None;
    }
    if !block.shared.races.is_ordered(&block.cluster.clocks, &region, block.agent) {
        check_order(block, &region, what);
    }
    for range in region.ranges() {
        check_lanes(block, range.clone(), lane, (what, LaneAccess::Read));
        if let Some(at) = block.shared.first_undefined(range.clone()) {
            let message = format!("{what} of undefined shared bytes at {at}");
            let place = Place { address: Some(at as u64), ..Place::default() };
            block.report(FindingKind::UninitialisedShared, place, message);
        }
    }
    Some(block.shared.races.begin_reads(region))
}

/// The part of [`begin_read`] that looks closer at the order of writes.
fn check_order(block: &mut Block<'_>, region: &Region, what: &str) {
    let mut ordered = Default::default();
    for range in region.ranges() {
        let (races, clocks) = (&block.shared.races, &block.cluster.clocks);
        if let Some(conflict) = races.check_async(clocks, range.clone(), block.agent, &mut ordered)
        {
            let (kind, message) = describe_conflict(block, what, conflict);
            let place = Place { address: Some(range.start as u64), ..Place::default() };
            block.report(kind, place, message);
        }
    }
}

/// Checks a range that `lane`, or the whole running warp, hands to the async proxy against what
/// single lanes did: others of its own warp, and those that another warp's release left behind.
pub(crate) fn check_lanes(
    block: &mut Block<'_>,
    range: Range<usize>,
    lane: Option<usize>,
    (what, access): (&str, LaneAccess),
) {
    if block.cluster.clocks.asks_lanes(block.agent) {
        lane_order::check_range(block, block.rank, (lane, range.clone()), access);
    }
    let Some(lane) = lane else { return };
    let own = (block.warp, lane);
    if let Some(conflict) = block.shared.lanes.unsynchronised(range.clone(), own, access) {
        report_lanes(block, lane, range.start, what, conflict);
    }
}

/// The running warp, or one lane for it, waited for the operation: its reads are over and count as
/// the warp's own.
pub(crate) fn end_read(block: &mut Block<'_>, ticket: Ticket, lane: Option<usize>) {
    if let Some((lane, region)) = lane.zip(block.shared.races.region(ticket)) {
        for range in region.ranges() {
            block.shared.lanes.end_read(range.clone(), (block.warp, lane));
        }
    }
    let (clocks, agent) = (&block.cluster.clocks, block.agent);
    block.shared.races.end_reads(clocks, ticket, agent, clocks.now(agent).own);
}
