//! A warp: registers as structure of arrays, definedness masks, divergence stack.

use crate::exec::bulk_store::BulkGroups;
use crate::exec::mbarrier::Location;
use crate::program::{PredicateSource, Program, Slot, NO_PC};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// Mask with every lane.
pub(crate) const FULL: u32 = u32::MAX;
/// One 32-bit register of all lanes.
pub(crate) type Lanes32 = [u32; LANES];
/// One 64-bit register of all lanes.
pub(crate) type Lanes64 = [u64; LANES];

/// An array over all lanes from an expression of the lane number.
///
/// A plain loop: it vectorises, which `array::from_fn` and `array::map` do not where their closures
/// stay behind a call.
macro_rules! each_lane {
    (|$lane:ident| $value:expr) => {{
        let mut out = [Default::default(); $crate::state::LANES];
        #[allow(clippy::needless_range_loop, reason = "the value indexes several arrays")]
        for $lane in 0..$crate::state::LANES {
            out[$lane] = $value;
        }
        out
    }};
}
pub(crate) use each_lane;

/// Lanes that run together until they reach `reconverge`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub pc: u32,
    pub reconverge: u32,
    pub mask: u32,
}

/// Whether a warp can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ready,
    /// Waits at the barrier of this number.
    AtBarrier(u32),
    /// A wait for an mbarrier failed; see [`Warp::poll`].
    Polling,
    /// Waits at the barrier of the cluster.
    AtClusterBarrier,
    /// Waits until its threads can have so many registers each.
    AwaitsRegisters(u32),
    Exited,
}

/// The phase of an mbarrier that a warp waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poll {
    pub location: Location,
    /// Number of the phase that was not complete.
    pub phase: u32,
}

/// What a warp knows of the operands of one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Operands {
    /// Not executed yet.
    #[default]
    New,
    /// Executed, so that a look at all of them may pay off.
    Seen,
    /// All are defined in all lanes: nothing to check or to define.
    Defined,
}

/// One warp of a thread block.
#[derive(Debug)]
pub(crate) struct Warp {
    pub index: u32,
    pub r32: Vec<Lanes32>,
    pub r64: Vec<Lanes64>,
    pub predicates: Vec<u32>,
    /// Lanes in which each register is defined, over all three files (see `Program::index64`).
    pub defined: Vec<u32>,
    /// By instruction: what is known of the definedness of its operands.
    pub operands: Vec<Operands>,
    /// What is known of registers that are not.
    pub traces: crate::exec::undefined::Traces,
    pub stack: Vec<Frame>,
    /// Lanes that have not exited.
    pub live: u32,
    pub status: Status,
    /// Where the warp last read memory that another may change.
    pub polled_at: usize,
    /// The wait that failed last, until one succeeds.
    pub poll: Option<Poll>,
    pub copies: crate::exec::async_copy::AsyncCopies,
    pub bulk: BulkGroups,
    pub wgmma: crate::exec::wgmma::WgmmaState,
    /// Local memory of all lanes, lane after lane.
    pub local: Vec<u8>,
    /// One flag per local byte.
    pub local_defined: Vec<bool>,
}

impl Warp {
    /// A warp with `program`'s constants in place; [`Warp::start`] makes it runnable.
    pub(crate) fn new(program: &Program, index: u32) -> Warp {
        let registers = program.count32 + program.count64 + program.count_predicates;
        let local = program.local_bytes as usize * LANES;
        let mut warp = Warp {
            index,
            r32: vec![[0; LANES]; program.count32],
            r64: vec![[0; LANES]; program.count64],
            predicates: vec![0; program.count_predicates],
            defined: vec![0; registers],
            operands: vec![Operands::default(); program.code.len()],
            traces: Default::default(),
            stack: Vec::with_capacity(16),
            live: 0,
            status: Status::Exited,
            polled_at: 0,
            poll: None,
            copies: Default::default(),
            bulk: BulkGroups::default(),
            wgmma: crate::exec::wgmma::WgmmaState::new(program),
            local: vec![0; local],
            local_defined: vec![false; local],
        };
        for &(slot, value) in &program.constants32 {
            warp.r32[slot as usize] = [value; LANES];
        }
        for &(slot, value) in &program.constants64 {
            warp.r64[slot as usize] = [value; LANES];
        }
        for &(slot, value) in &program.constant_predicates {
            warp.predicates[slot as usize] = if value { FULL } else { 0 };
        }
        warp
    }

    /// Puts the warp at the kernel's first instruction with the lanes of `mask`, all other
    /// registers undefined.
    pub(crate) fn start(&mut self, program: &Program, mask: u32) {
        self.defined.fill(0);
        self.operands.fill(Operands::default());
        self.traces.reset();
        self.define_constants(program);
        self.stack.clear();
        self.stack.push(Frame { pc: 0, reconverge: NO_PC, mask });
        self.live = mask;
        self.status = if mask == 0 { Status::Exited } else { Status::Ready };
        self.poll = None;
        self.copies.reset();
        self.bulk.reset();
        self.wgmma.reset();
        self.local_defined.fill(false);
    }

    fn define_constants(&mut self, program: &Program) {
        for &(slot, _) in &program.constants32 {
            self.defined[slot as usize] = FULL;
        }
        for &(slot, _) in &program.specials {
            self.defined[slot as usize] = FULL;
        }
        for &(slot, _) in &program.constants64 {
            self.defined[program.index64(slot)] = FULL;
        }
        for &(slot, _) in &program.constant_predicates {
            self.defined[program.index_predicate(slot)] = FULL;
        }
    }

    /// Lanes for which a predicate source is true.
    #[inline(always)]
    pub(crate) fn predicate(&self, source: PredicateSource) -> u32 {
        let value = self.predicates[source.slot as usize];
        if source.negated {
            !value
        } else {
            value
        }
    }

    /// Sets a predicate in the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, slot: Slot, mask: u32, value: u32) {
        let old = &mut self.predicates[slot as usize];
        *old = *old & !mask | value & mask;
    }

    #[inline(always)]
    pub(crate) fn get32(&self, slot: Slot) -> &Lanes32 {
        &self.r32[slot as usize]
    }

    #[inline(always)]
    pub(crate) fn get64(&self, slot: Slot) -> &Lanes64 {
        &self.r64[slot as usize]
    }

    /// Writes a 32-bit register in the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set32(&mut self, slot: Slot, mask: u32, values: &Lanes32) {
        let register = &mut self.r32[slot as usize];
        if mask == FULL {
            *register = *values;
        } else {
            for lane in 0..LANES {
                if mask >> lane & 1 != 0 {
                    register[lane] = values[lane];
                }
            }
        }
    }

    /// Writes a 64-bit register in the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set64(&mut self, slot: Slot, mask: u32, values: &Lanes64) {
        let register = &mut self.r64[slot as usize];
        if mask == FULL {
            *register = *values;
        } else {
            for lane in 0..LANES {
                if mask >> lane & 1 != 0 {
                    register[lane] = values[lane];
                }
            }
        }
    }
}

/// The lanes of a mask, ascending.
#[inline(always)]
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

/// The lanes of a mask for which `holds`; calls it in ascending order.
///
/// A plain loop, because the interpreter's hottest loops are made of it and iterator adapters do not
/// always get inlined there.
#[inline(always)]
pub(crate) fn lanes_where(mask: u32, mut holds: impl FnMut(usize) -> bool) -> u32 {
    let (mut rest, mut found) = (mask, 0);
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        found |= u32::from(holds(lane)) << lane;
    }
    found
}

/// The value of a register that the instruction requires to be the same in all lanes.
#[inline(always)]
pub(crate) fn first_lane(values: &Lanes32, mask: u32) -> u32 {
    values[mask.trailing_zeros() as usize % LANES]
}
