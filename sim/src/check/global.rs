//! Access histories of global memory, for races between thread blocks and between warps.
//!
//! Two accesses to the same byte race when they come from different warps, one of them writes, at
//! least one is not strong enough to be atomic for both (PTX ISA 8.7.1, "data race"), and neither
//! is ordered before the other. What a warp has seen of the others is the subject of
//! [`super::ordering`]; here each 32-byte sector of a writable buffer remembers its last write and
//! its last readers, and further ones that are not ordered before them in an overflow list.
//!
//! Histories are allocated by page on first use, so that only memory that kernels may write *and*
//! touch has any. Of many readers or atomics of a sector only a few are remembered: that can hide a
//! race with one of them, never invent one.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::program::Scope;
use crate::state::LANES;

/// Offsets by lane, the lanes concerned and the bytes of each access.
pub(crate) type GlobalLanes<'a> = (&'a [u64; LANES], u32, u64);

/// Bytes of a sector, one bit each in a mask.
const SECTOR: usize = 32;
/// Sectors of a page.
const SECTORS: usize = 128;
/// Most remembered readers, and most remembered atomics, of a sector beyond the first.
const MOST_OLDER: usize = 8;

/// How an access takes part in a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GlobalKind {
    Read,
    Write,
    /// A read that others may write at the same time, up to this scope.
    StrongRead(Scope),
    /// A write or reduction that others may execute at the same time.
    StrongWrite(Scope),
    /// A read-modify-write that returns the old value, so that it comes after every write that the
    /// value shows.
    Update(Scope),
}

impl GlobalKind {
    pub(crate) fn writes(self) -> bool {
        !matches!(self, GlobalKind::Read | GlobalKind::StrongRead(_))
    }

    pub(crate) fn scope(self) -> Option<Scope> {
        match self {
            GlobalKind::Read | GlobalKind::Write => None,
            GlobalKind::StrongRead(scope)
            | GlobalKind::StrongWrite(scope)
            | GlobalKind::Update(scope) => Some(scope),
        }
    }
}

/// One warp's access to some bytes of a sector at one moment of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GlobalAccess {
    /// Number of the cluster of thread blocks.
    pub cluster: u32,
    /// Number of the warp within the cluster.
    pub agent: u16,
    pub kind: GlobalKind,
    pub clock: u32,
    /// Where the kernel does it.
    pub pc: u32,
    /// Bytes of the sector, one bit each.
    mask: u32,
}

impl GlobalAccess {
    /// An access of the warp `agent` of a cluster, still without bytes.
    pub(crate) fn new(
        (cluster, agent): (u32, u16),
        clock: u32,
        pc: u32,
        kind: GlobalKind,
    ) -> GlobalAccess {
        GlobalAccess { cluster, agent, kind, clock, pc, mask: 0 }
    }

    pub(crate) fn writes(&self) -> bool {
        self.kind.writes()
    }

    fn same_warp(&self, other: &GlobalAccess) -> bool {
        self.cluster == other.cluster && self.agent == other.agent
    }

    /// Whether both are the same moment and manner, so that their bytes may be joined.
    fn continues(&self, other: &GlobalAccess) -> bool {
        self.same_warp(other) && self.clock == other.clock && self.kind == other.kind
    }

    /// Whether both may happen at once because each is strong at a scope that includes the other.
    fn both_strong(&self, other: &GlobalAccess) -> bool {
        match (self.kind.scope(), other.kind.scope()) {
            (Some(a), Some(b)) => a.min(b) == Scope::Device || self.cluster == other.cluster,
            _ => false,
        }
    }

    fn conflicts(&self, earlier: &GlobalAccess, known: &impl Fn(&GlobalAccess) -> bool) -> bool {
        earlier.mask & self.mask != 0
            && (earlier.kind.writes() || self.kind.writes())
            && !self.same_warp(earlier)
            && !self.both_strong(earlier)
            && !known(earlier)
    }
}

/// The histories of one page, each part allocated when used.
#[derive(Debug, Default)]
struct Page {
    writes: Option<Box<[Option<GlobalAccess>; SECTORS]>>,
    reads: Option<Box<[Option<GlobalAccess>; SECTORS]>>,
    /// Further accesses by sector: those not ordered before the ones above, or to other bytes.
    older: HashMap<u8, Vec<GlobalAccess>>,
}

impl Page {
    /// Checks an access and enters it; returns an earlier one that it races with.
    fn access(
        &mut self,
        sector: usize,
        new: &GlobalAccess,
        known: &impl Fn(&GlobalAccess) -> bool,
    ) -> Option<GlobalAccess> {
        let conflict = self.conflict(sector, new, known);
        if new.kind == GlobalKind::Write {
            self.forget(sector, new.mask);
        }
        let side = if new.kind.writes() { &mut self.writes } else { &mut self.reads };
        let latest = &mut side.get_or_insert_with(|| Box::new([None; SECTORS]))[sector];
        match latest {
            Some(last) if last.continues(new) => {
                (last.mask, last.pc) = (last.mask | new.mask, new.pc);
            }
            Some(last) if !replaces(new, last, known) => {
                add_older(self.older.entry(sector as u8).or_default(), new);
            }
            _ => *latest = Some(*new),
        }
        conflict
    }

    fn conflict(
        &self,
        sector: usize,
        new: &GlobalAccess,
        known: &impl Fn(&GlobalAccess) -> bool,
    ) -> Option<GlobalAccess> {
        let conflict = self.unordered(sector, new, known)?;
        // A warp that updated a counter and then stores to it comes after the updates of others.
        let follows = conflict.kind.scope().is_some() && self.follows_update(sector, new, known);
        (!follows).then_some(conflict)
    }

    /// Whether the same warp accessed some of the bytes before, one of the two times writing.
    fn touched(&self, sector: usize, new: &GlobalAccess) -> bool {
        let latest = |side: &Option<Box<[Option<GlobalAccess>; SECTORS]>>| {
            side.as_ref().and_then(|accesses| accesses[sector])
        };
        let same = |earlier: &GlobalAccess| {
            earlier.mask & new.mask != 0
                && (earlier.writes() || new.writes())
                && earlier.same_warp(new)
        };
        let older = || self.older.get(&(sector as u8)).is_some_and(|older| older.iter().any(same));
        latest(&self.writes).iter().chain(&latest(&self.reads)).any(same)
            || !self.older.is_empty() && older()
    }

    /// Whether an update of the same bytes is ordered before the access.
    fn follows_update(
        &self,
        sector: usize,
        new: &GlobalAccess,
        known: &impl Fn(&GlobalAccess) -> bool,
    ) -> bool {
        let first = self.writes.as_ref().and_then(|writes| writes[sector]);
        let older = self.older.get(&(sector as u8)).into_iter().flatten().copied();
        first.into_iter().chain(older).any(|earlier| {
            matches!(earlier.kind, GlobalKind::Update(_))
                && earlier.mask & new.mask == new.mask
                && (earlier.same_warp(new) || known(&earlier))
        })
    }

    fn unordered(
        &self,
        sector: usize,
        new: &GlobalAccess,
        known: &impl Fn(&GlobalAccess) -> bool,
    ) -> Option<GlobalAccess> {
        let latest = |side: &Option<Box<[Option<GlobalAccess>; SECTORS]>>| {
            side.as_ref().and_then(|accesses| accesses[sector])
        };
        let read = if new.kind.writes() { latest(&self.reads) } else { None };
        let first = latest(&self.writes).into_iter().chain(read);
        let first = first.into_iter().find(|earlier| new.conflicts(earlier, known));
        if first.is_some() || self.older.is_empty() {
            return first;
        }
        let older = self.older.get(&(sector as u8))?;
        older.iter().find(|earlier| new.conflicts(earlier, known)).copied()
    }

    /// Drops what was known of bytes that are overwritten: whoever is ordered after the write is
    /// ordered after it, or a race was reported.
    fn forget(&mut self, sector: usize, mask: u32) {
        for side in [&mut self.writes, &mut self.reads] {
            let Some(latest) = side.as_mut().map(|side| &mut side[sector]) else { continue };
            if let Some(access) = latest {
                access.mask &= !mask;
                if access.mask == 0 {
                    *latest = None;
                }
            }
        }
        if let Some(older) = self.older.get_mut(&(sector as u8)) {
            older.iter_mut().for_each(|access| access.mask &= !mask);
            older.retain(|access| access.mask != 0);
        }
    }
}

/// Whether the earlier access need not be remembered beside the new one.
fn replaces(
    new: &GlobalAccess,
    last: &GlobalAccess,
    known: &impl Fn(&GlobalAccess) -> bool,
) -> bool {
    last.mask & !new.mask == 0 && last.kind == new.kind && (new.same_warp(last) || known(last))
}

fn add_older(older: &mut Vec<GlobalAccess>, new: &GlobalAccess) {
    if let Some(last) = older.iter_mut().find(|last| last.continues(new)) {
        (last.mask, last.pc) = (last.mask | new.mask, new.pc);
        return;
    }
    let mut alike = older.iter().enumerate().filter(|(_, o)| o.kind.writes() == new.kind.writes());
    let first = alike.next().map(|(at, _)| at);
    let full = alike.count() + 1 >= MOST_OLDER;
    // Plain writes are to different bytes each; of atomics the latest count.
    match (new.kind, first) {
        (GlobalKind::Read | GlobalKind::StrongRead(_), _) if full => return,
        (GlobalKind::StrongWrite(_) | GlobalKind::Update(_), Some(at)) if full => {
            older.remove(at);
        }
        _ => {}
    }
    older.push(*new);
}

/// Histories of one writable buffer.
#[derive(Debug, Default)]
pub(crate) struct GlobalHistory {
    pages: OnceLock<Box<[Mutex<Page>]>>,
}

impl GlobalHistory {
    /// Checks one request of naturally aligned accesses of `size` bytes per lane of a buffer of
    /// `length` bytes, and enters it. Calls `found` with the lane and the earlier access of each
    /// race; tells whether lanes of the warp may be in conflict with each other.
    pub(crate) fn request(
        &self,
        length: usize,
        (offsets, mask, size): GlobalLanes<'_>,
        access: &GlobalAccess,
        known: impl Fn(&GlobalAccess) -> bool,
        mut found: impl FnMut(usize, GlobalAccess),
    ) -> bool {
        let mut touched = false;
        let pages = self.pages.get_or_init(|| {
            (0..length.div_ceil(SECTOR * SECTORS)).map(|_| Mutex::default()).collect()
        });
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let number = offsets[first] as usize / (SECTOR * SECTORS);
            let mut page = pages[number].lock().unwrap_or_else(PoisonError::into_inner);
            // Lanes in order, as long as they stay in the page, sector by sector.
            while rest != 0 {
                let lane = rest.trailing_zeros() as usize;
                let sector = offsets[lane] as usize / SECTOR;
                if sector / SECTORS != number {
                    break;
                }
                let mut new = *access;
                while rest != 0 {
                    let lane = rest.trailing_zeros() as usize;
                    if offsets[lane] as usize / SECTOR != sector {
                        break;
                    }
                    let bytes = bytes_of(offsets[lane], size);
                    touched |= new.mask & bytes != 0 && new.writes();
                    new.mask |= bytes;
                    rest &= rest - 1;
                }
                touched |= page.touched(sector % SECTORS, &new);
                if let Some(earlier) = page.access(sector % SECTORS, &new, &known) {
                    found(lane, earlier);
                }
            }
        }
        touched
    }
}

/// Bytes of a sector that an aligned access of at most 32 bytes touches.
fn bytes_of(offset: u64, size: u64) -> u32 {
    let all = if size >= SECTOR as u64 { u32::MAX } else { (1 << size) - 1 };
    all << (offset % SECTOR as u64)
}
