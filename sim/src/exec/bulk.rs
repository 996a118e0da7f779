//! Bulk copies into shared memory (PTX ISA 9.7.9.25.4, 9.7.9.25.5).
//!
//! Each executing lane issues a copy of its own. The source is read when the copy is issued; how
//! the data lands is in [`super::in_flight`].

use std::rc::Rc;

use super::bulk_global;
use super::bulk_store;
use super::in_flight::{self, InFlight, Signal, Write};
use super::mbarrier::{locate, usable, Location};
use super::memory::addresses;
use super::tensor::{read_map, Tile};
use super::tensor_edit;
use crate::address;
use crate::block::{Block, Place};
use crate::check::{FindingKind, Region, Ticket};
use crate::program::{AsyncStore, BulkExchange, BulkLoad, BulkOp, GlobalSide, Reduction, Space};
use crate::state::{lanes, Warp};

pub(crate) fn execute(block: &mut Block<'_>, w: &mut Warp, op: &BulkOp, mask: u32) {
    match op {
        BulkOp::Load(load) => lanes(mask).for_each(|lane| self::load(block, w, load, lane)),
        BulkOp::Exchange(copy) => lanes(mask).for_each(|lane| exchange(block, w, copy, lane)),
        BulkOp::AsyncStore(store) => {
            lanes(mask).for_each(|lane| async_store(block, w, store, lane));
        }
        BulkOp::Store(store) => {
            lanes(mask).for_each(|lane| bulk_store::issue(block, w, store, lane));
        }
        BulkOp::Prefetch(source) => lanes(mask).for_each(|lane| {
            resolve(block, w, source, lane);
        }),
        BulkOp::CheckMap { map } => {
            let at = addresses(w, (*map).into());
            lanes(mask).for_each(|lane| {
                read_map(block, lane, at[lane]);
            });
        }
        BulkOp::ReplaceField(field) => tensor_edit::replace(block, w, field, mask),
        BulkOp::PublishMap { destination, source } => {
            tensor_edit::publish(block, w, (*destination, *source), mask);
        }
        BulkOp::Commit => w.bulk.commit(mask),
        BulkOp::Wait { newest } => bulk_store::wait(block, w, *newest, mask),
    }
}

/// Global side of one lane's copy.
pub(crate) enum Global {
    Linear { address: u64, bytes: usize },
    Tile(Box<Tile>),
}

impl Global {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Global::Linear { bytes, .. } => *bytes,
            Global::Tile(tile) => tile.map.tile_bytes() as usize,
        }
    }

    /// Alignment of the side in shared memory.
    fn alignment(&self) -> u64 {
        match self {
            Global::Linear { .. } => 16,
            Global::Tile(_) => 128,
        }
    }
}

/// Evaluates and checks the global side of a copy.
pub(crate) fn resolve(
    block: &mut Block<'_>,
    w: &Warp,
    side: &GlobalSide,
    lane: usize,
) -> Option<Global> {
    match *side {
        GlobalSide::Linear { address, bytes } => {
            let address = addresses(w, address.into())[lane];
            let bytes = w.get32(bytes)[lane];
            check_size(block, lane, bytes)?;
            check_alignment(block, lane, address, 16, "the global address of a bulk copy")?;
            Some(Global::Linear { address, bytes: bytes as usize })
        }
        GlobalSide::Tile { map, coordinates, rank } => {
            let map = read_map(block, lane, addresses(w, map.into())[lane])?;
            if map.rank != usize::from(rank) {
                let message =
                    format!("a {rank}-D copy with a tensor map of {} dimensions", map.rank);
                block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
                return None;
            }
            let coordinates = std::array::from_fn(|axis| match axis < map.rank {
                true => w.get32(coordinates[axis])[lane] as i32,
                false => 0,
            });
            Some(Global::Tile(Box::new(Tile { map, coordinates })))
        }
    }
}

fn check_size(block: &mut Block<'_>, lane: usize, bytes: u32) -> Option<()> {
    if bytes % 16 == 0 {
        return Some(());
    }
    let message = format!("a bulk copy of {bytes} bytes, not a multiple of 16");
    block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
    None
}

fn check_alignment(
    block: &mut Block<'_>,
    lane: usize,
    at: u64,
    align: u64,
    what: &str,
) -> Option<()> {
    if at % align == 0 {
        return Some(());
    }
    let message = format!("{what} is not a multiple of {align}");
    block.report(FindingKind::Misaligned, Place::at(lane, at), message);
    None
}

/// Offset and rank of `bytes` bytes of shared memory, checked.
pub(crate) fn shared_side(
    block: &mut Block<'_>,
    lane: usize,
    at: u64,
    bytes: usize,
    align: u64,
) -> Option<Location> {
    let rank = address::cluster_rank(at).unwrap_or(block.rank);
    let offset = address::cluster_offset(at);
    check_alignment(block, lane, offset, align, "the shared address of a bulk copy")?;
    let length = block.shared.len();
    if rank >= block.cluster.blocks() || offset + bytes as u64 > length {
        let message = format!("a bulk copy of {bytes} bytes at {offset} of {length} shared bytes");
        block.report(FindingKind::OutOfBounds, Place::at(lane, at), message);
        return None;
    }
    Some(Location { rank, at: offset as u32 })
}

/// Alignment in shared memory that a copy with this global side needs.
pub(crate) fn shared_alignment(global: &Global) -> u64 {
    global.alignment()
}

fn load(block: &mut Block<'_>, w: &Warp, load: &BulkLoad, lane: usize) {
    let Some(global) = resolve(block, w, &load.source, lane) else { return };
    let at = addresses(w, load.destination.into())[lane];
    let bytes = global.bytes();
    let place = shared_side(block, lane, at, bytes, global.alignment());
    let barrier = locate(block, lane, load.space, addresses(w, load.barrier.into())[lane]);
    let (Some(place), Some(barrier)) = (place, barrier) else { return };
    let Some(data) = read(block, lane, &global, place.at) else { return };
    let data: Rc<[u8]> = data.into();
    let Some(multicast) = load.multicast else {
        return send(block, lane, (place, barrier), Parcel::new(place, data));
    };
    let ranks = w.get32(multicast)[lane] & 0xFFFF;
    let blocks = block.cluster.blocks();
    if ranks == 0 || ranks >> blocks != 0 {
        let message = format!("a multicast to {ranks:#06x} in a cluster of {blocks} blocks");
        block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
    }
    for rank in lanes(ranks).map(|rank| rank as u32).filter(|&rank| rank < blocks) {
        let sides = (Location { rank, ..place }, Location { rank, ..barrier });
        send(block, lane, sides, Parcel::new(place, Rc::clone(&data)));
    }
}

/// The bytes of a copy as they will lie in shared memory from `start` on.
fn read(block: &mut Block<'_>, lane: usize, global: &Global, start: u32) -> Option<Vec<u8>> {
    match global {
        Global::Linear { address, bytes } => {
            let mut data = vec![0; *bytes];
            bulk_global::read(block, lane, *address, &mut data);
            bulk_global::count_request(block, *address, *bytes as u64, false);
            Some(data)
        }
        Global::Tile(tile) => {
            let mut dense = tile.filled();
            let mut inside = 0;
            tile.rows(|row| {
                let part = &mut dense[row.tile_offset..row.tile_offset + row.bytes];
                bulk_global::read(block, lane, row.address, part);
                inside += row.bytes as u64;
            });
            bulk_global::count_request(block, tile.map.address, inside, false);
            let placed = tile.swizzle(start, &dense);
            if placed.is_none() {
                report_span(block, lane, tile);
            }
            placed
        }
    }
}

/// A tile whose rows are shorter than the swizzle moves its units apart.
pub(crate) fn report_span(block: &mut Block<'_>, lane: usize, tile: &Tile) {
    let bytes = tile.map.tile_bytes();
    let message = format!("a tile of {bytes} bytes that {:?} would leave", tile.map.swizzle);
    block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
}

/// What a copy brings.
struct Parcel {
    writes: Vec<Write>,
    reduction: Option<Reduction>,
    /// Rank and reads of the shared memory that it comes from.
    source: Option<(u32, Ticket)>,
}

impl Parcel {
    fn new(place: Location, bytes: Rc<[u8]>) -> Parcel {
        Parcel { writes: vec![Write { at: place.at, bytes }], reduction: None, source: None }
    }
}

/// Issues writes that complete on an mbarrier of the same block.
fn send(
    block: &mut Block<'_>,
    lane: usize,
    (place, barrier): (Location, Location),
    Parcel { writes, reduction, source }: Parcel,
) {
    if !usable(block, lane, barrier, "a bulk copy") {
        return;
    }
    if place.rank != barrier.rank {
        let message = format!(
            "a copy to rank {} that completes on an mbarrier of rank {}",
            place.rank, barrier.rank
        );
        let at = Place::at(lane, u64::from(barrier.at));
        return block.report(FindingKind::MbarrierMisuse, at, message);
    }
    super::cluster::check_lifetime(block, place.rank, Place::at(lane, u64::from(place.at)));
    let bytes: usize = writes.iter().map(|write| write.bytes.len()).sum();
    block.counters().bulk_bytes += bytes as u64;
    let op = InFlight {
        barrier,
        writes,
        reduction,
        signal: Signal::Bytes,
        source,
        agent: block.agent,
        clock: block.cluster.clocks.tick(block.agent),
        rank: block.rank,
        pc: block.pc,
        lane,
    };
    in_flight::issue(block, op, "a bulk copy");
}

/// From the executing block's shared memory into that of a block of the cluster.
fn exchange(block: &mut Block<'_>, w: &Warp, copy: &BulkExchange, lane: usize) {
    let bytes = w.get32(copy.bytes)[lane];
    let barrier = addresses(w, copy.barrier.into())[lane];
    let (to, from) = (addresses(w, copy.destination.into()), addresses(w, copy.source.into()));
    let sides = check_size(block, lane, bytes).and_then(|()| {
        let to = shared_side(block, lane, to[lane], bytes as usize, 16)?;
        let from = shared_side(block, lane, from[lane], bytes as usize, 16)?;
        Some((to, from, locate(block, lane, Space::SharedCluster, barrier)?))
    });
    let Some((to, from, barrier)) = sides else { return };
    if from.rank != block.rank {
        let message = "the source of a bulk copy in another block".to_owned();
        return block.report(FindingKind::InvalidOperand, Place::lane(lane), message);
    }
    let range = from.at as usize..from.at as usize + bytes as usize;
    let region = Rc::new(Region::new(vec![range.clone()]));
    let ticket = super::proxy::begin_read(block, region, Some(lane), "a bulk copy");
    let rank = block.rank;
    let parcel = Parcel {
        writes: vec![Write { at: to.at, bytes: Rc::from(block.shared.bytes(range)) }],
        reduction: copy.reduction,
        source: ticket.map(|ticket| (rank, ticket)),
    };
    send(block, lane, (to, barrier), parcel);
}

fn async_store(block: &mut Block<'_>, w: &Warp, store: &AsyncStore, lane: usize) {
    let at = addresses(w, store.destination.into())[lane];
    let barrier = addresses(w, store.barrier.into())[lane];
    let size = usize::from(store.bytes);
    let mut data = Vec::with_capacity(size * usize::from(store.count));
    for &slot in &store.registers[..usize::from(store.count)] {
        let value = if size == 8 { w.get64(slot)[lane] } else { u64::from(w.get32(slot)[lane]) };
        data.extend(&value.to_le_bytes()[..size]);
    }
    let place = shared_side(block, lane, at, data.len(), data.len() as u64);
    let barrier = locate(block, lane, Space::SharedCluster, barrier);
    let (Some(place), Some(barrier)) = (place, barrier) else { return };
    let parcel = Parcel { reduction: store.reduction, ..Parcel::new(place, data.into()) };
    send(block, lane, (place, barrier), parcel);
}
