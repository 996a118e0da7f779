//! Accesses to shared memory that warps ordered, but not the lanes concerned: a lane that released
//! for others which it did not wait for, or one that waited for others which do not know of it yet.
//!
//! Nothing here runs unless one lane of a warp arrived or waited for the rest of it.

use std::ops::Range;

use crate::block::{Block, Place};
use crate::check::{FindingKind, LaneAccess};
use crate::request::Request;
use crate::state::lanes;

/// Checks a request in the shared memory of the running block, lane by lane.
#[cold]
pub(crate) fn check(block: &mut Block<'_>, request: &Request, access: LaneAccess) {
    for lane in lanes(request.mask()) {
        let range = request.at(lane)..request.at(lane) + request.bytes();
        check_range(block, block.rank, (Some(lane), range), access);
    }
}

/// The same for one range of bytes in the shared memory of block `rank`, which a lane or the whole
/// running warp accesses.
#[cold]
pub(crate) fn check_range(
    block: &mut Block<'_>,
    rank: u32,
    (lane, range): (Option<usize>, Range<usize>),
    access: LaneAccess,
) {
    let (agent, does) = (block.agent, access.name());
    let place = Place {
        lane: lane.map(|lane| lane as u32),
        address: Some(range.start as u64),
        ..Place::default()
    };
    let (shared, clocks) = block.shared_of(rank);
    let unaware = shared.races.unaware(clocks, range.clone(), (agent, lane), access);
    let behind = shared.left_behind(clocks, agent, range, access);
    if let Some((other, behind, earlier)) = behind {
        let (name, did) = (block.agent_name(other), earlier.past());
        let message = format!(
            "{does} of shared bytes that lane {behind} of {name} {did}, which did not wait for \
             the lane that arrived (bar.warp.sync is missing before its mbarrier.arrive)"
        );
        block.report(FindingKind::LaneRace, place, message);
    }
    if let Some((other, earlier, lane)) = unaware {
        let (name, did) = (block.agent_name(other), earlier.past());
        let message = format!(
            "{does} of shared bytes that {name} {did}: another lane waited for that, and lane \
             {lane} not for it (bar.warp.sync is missing after the wait)"
        );
        block.report(FindingKind::LaneRace, place, message);
    }
}
