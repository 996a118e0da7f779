//! Bulk copies from shared to global memory and their groups (PTX ISA 9.7.9.25.4.1, 9.7.9.25.5.3).
//!
//! Groups are counted per thread. The data moves at issue under the eager schedule and at the
//! covering wait under the lazy one; until that wait nobody may write to the source.

use std::rc::Rc;

use super::bulk::{report_span, resolve, shared_alignment, shared_side, Global};
use super::bulk_global;
use super::memory::addresses;
use super::proxy;
use crate::block::{Block, Place};
use crate::check::{FindingKind, Region, Ticket};
use crate::program::{BulkStore, Reduction};
use crate::state::{lanes, Warp, LANES};

/// One copy that its thread has not waited for.
struct Pending {
    lane: usize,
    /// Number within the lane's sequence of groups.
    group: u32,
    /// The read of the source, while it is checked.
    ticket: Option<Ticket>,
    /// What is still to be moved.
    transfer: Option<Transfer>,
    pc: usize,
}

struct Transfer {
    source: u32,
    destination: Global,
    reduction: Option<Reduction>,
}

/// Pending copies of a warp.
#[derive(Default)]
pub(crate) struct BulkGroups {
    pending: Vec<Pending>,
    /// Number of closed groups per lane; the open group has this number.
    closed: [u32; LANES],
}

impl std::fmt::Debug for BulkGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BulkGroups({} pending)", self.pending.len())
    }
}

impl BulkGroups {
    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.closed = [0; LANES];
    }

    /// Closes the open group of the lanes.
    pub(crate) fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.closed[lane] += 1);
    }
}

pub(crate) fn issue(block: &mut Block<'_>, w: &mut Warp, store: &BulkStore, lane: usize) {
    let Some(destination) = resolve(block, w, &store.destination, lane) else { return };
    let (at, bytes) = (addresses(w, store.source.into())[lane], destination.bytes());
    let align = shared_alignment(&destination);
    let Some(source) = shared_side(block, lane, at, bytes, align) else { return };
    if source.rank != block.rank {
        let message = "the source of a bulk copy in another block".to_owned();
        return block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
    }
    block.counters().bulk_bytes += bytes as u64;
    let range = source.at as usize..source.at as usize + bytes;
    let region = Rc::new(Region::new(vec![range]));
    let ticket = proxy::begin_read(block, region, Some(lane), "a bulk store");
    // A tile's elements are of its map's type.
    let reduction = store.reduction.map(|reduction| match &destination {
        Global::Tile(tile) => Reduction { ty: tile.map.dtype.atomic(), ..reduction },
        Global::Linear { .. } => reduction,
    });
    let mut transfer = Some(Transfer { source: source.at, destination, reduction });
    if block.eager() {
        perform(block, lane, transfer.take());
    }
    let (group, pc) = (w.bulk.closed[lane], block.pc);
    w.bulk.pending.push(Pending { lane, group, ticket, transfer, pc });
}

/// `cp.async.bulk.wait_group`: all but the newest groups of the executing threads complete. With
/// `.read` only their reads have to; that the writes take place too is allowed.
pub(crate) fn wait(block: &mut Block<'_>, w: &mut Warp, newest: u32, mask: u32) {
    let closed = w.bulk.closed;
    let covered =
        |p: &Pending| mask >> p.lane & 1 == 1 && p.group < closed[p.lane].saturating_sub(newest);
    let mut position = 0;
    while position < w.bulk.pending.len() {
        if covered(&w.bulk.pending[position]) {
            let done = w.bulk.pending.remove(position);
            complete(block, done);
        } else {
            position += 1;
        }
    }
}

fn complete(block: &mut Block<'_>, done: Pending) {
    let pc = std::mem::replace(&mut block.pc, done.pc);
    perform(block, done.lane, done.transfer);
    block.pc = pc;
    if let Some(ticket) = done.ticket {
        proxy::end_read(block, ticket, Some(done.lane));
    }
}

/// A warp exits: its memory may be given away while copies still read it.
pub(crate) fn exit(block: &mut Block<'_>, w: &mut Warp) {
    let standing = block.pc;
    for left in std::mem::take(&mut w.bulk.pending) {
        block.pc = left.pc;
        let message = "the thread exits without waiting for this copy to read its source";
        block.report(FindingKind::AsyncNotAwaited, Place::lane(left.lane), message.to_owned());
        complete(block, left);
    }
    block.pc = standing;
}

fn perform(block: &mut Block<'_>, lane: usize, transfer: Option<Transfer>) {
    let Some(Transfer { source, destination, reduction }) = transfer else { return };
    let bytes = destination.bytes();
    let data = block.shared.bytes(source as usize..source as usize + bytes).to_vec();
    match destination {
        Global::Linear { address, .. } => {
            bulk_global::write(block, lane, address, &data, reduction);
            bulk_global::count_request(block, address, bytes as u64, true);
        }
        Global::Tile(tile) => {
            let Some(dense) = tile.unswizzle(source, &data) else {
                return report_span(block, lane, &tile);
            };
            let mut inside = 0;
            tile.rows(|row| {
                let part = &dense[row.tile_offset..row.tile_offset + row.bytes];
                bulk_global::write(block, lane, row.address, part, reduction);
                inside += row.bytes as u64;
            });
            bulk_global::count_request(block, tile.map.address, inside, true);
        }
    }
}
