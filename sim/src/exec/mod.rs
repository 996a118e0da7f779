//! The interpreter: runs one warp until it blocks, dispatching to one executor file per theme.

// Lane loops index several arrays by the lane number; zipped iterators would hide that.
#![allow(clippy::needless_range_loop)]

pub(crate) mod async_copy;
mod atomic;
mod bits;
mod bulk;
mod bulk_global;
pub(crate) mod bulk_store;
pub(crate) mod cluster;
mod compare;
pub(crate) mod control;
mod convert;
mod convert_small;
mod directed;
mod extended;
mod float;
mod float_forms;
mod global_order;
pub(crate) mod in_flight;
mod int;
mod lane_order;
pub(crate) mod machine;
mod matrix;
pub(crate) mod mbarrier;
mod memory;
mod minifloat;
mod numeric;
mod packed;
pub(crate) mod proxy;
mod reduce;
pub(crate) mod shared;
mod shuffle;
mod simd;
mod tensor;
mod tensor_edit;
pub(crate) mod traffic;
pub(crate) mod undefined;
pub(crate) mod warpgroup;
pub(crate) mod wgmma;

use self::machine::Machine;
use crate::block::{Block, Place};
use crate::check::FindingKind;
use crate::error::SimError;
use crate::program::{Clock, Instruction, Op, Tracking};
use crate::state::{Frame, Operands, Status, Warp, FULL, LANES};

/// Runs a warp until it waits, exits or has executed `quantum` instructions.
pub(crate) fn run_warp(block: &mut Block<'_>, w: &mut Warp, quantum: u64) -> Result<(), SimError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(machine) = block.context.avx2 {
        #[target_feature(enable = "avx2,bmi1,bmi2,f16c,fma,lzcnt,popcnt")]
        unsafe fn fast(
            machine: machine::Avx2,
            block: &mut Block<'_>,
            w: &mut Warp,
            quantum: u64,
        ) -> Result<(), SimError> {
            interpret(machine, block, w, quantum)
        }
        // SAFETY: there is an `Avx2` only where these features were detected.
        return unsafe { fast(machine, block, w, quantum) };
    }
    interpret(machine::Portable, block, w, quantum)
}

/// [`run_warp`] as compiled for one machine.
#[inline(always)]
fn interpret<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    quantum: u64,
) -> Result<(), SimError> {
    let program = block.context.program;
    let limit = block.context.options.instruction_limit;
    block.warp = w.index;
    block.agent = block.rank * block.cluster.clocks.warps_per_block() + w.index;
    // The top of the warp's stack, while it is only counted on.
    let mut top: Option<Frame> = None;
    for _ in 0..quantum {
        let mut frame = match top.take() {
            Some(frame) => frame,
            None if w.status != Status::Ready => return Ok(()),
            None => match w.stack.last() {
                Some(frame) => *frame,
                None => {
                    w.status = Status::Exited;
                    return Ok(());
                }
            },
        };
        let pc = frame.pc as usize;
        frame.pc += 1;
        let ends_here = frame.pc == frame.reconverge;
        let Some(instruction) = program.code.get(pc) else {
            // Only the virtual exit lies outside the code, and only exited lanes get there.
            put_back(w, frame);
            control::exit(block, w, frame.mask);
            continue;
        };
        let straight = instruction.straight && !ends_here;
        if !straight {
            put_back(w, frame);
        }
        block.pc = pc;
        if block.executed == limit {
            return Err(limit_exceeded(block, instruction));
        }
        step(m, block, w, instruction, frame.mask);
        if straight {
            top = Some(frame);
        } else if ends_here || w.stack.last().is_none_or(|f| f.mask == 0 || f.pc == f.reconverge) {
            // Branches and exits change the stack; other instructions can only reach its end.
            control::settle(w);
        }
    }
    if let Some(frame) = top {
        put_back(w, frame);
    }
    Ok(())
}

/// Replaces the top of a warp's stack.
#[inline(always)]
fn put_back(w: &mut Warp, frame: Frame) {
    if let Some(top) = w.stack.last_mut() {
        *top = frame;
    }
}

/// Executes one instruction for the lanes whose guard holds.
#[inline(always)]
fn step<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    active: u32,
) {
    let mask = match instruction.guard {
        Some(guard) => active & w.predicate(guard),
        None => active,
    };
    block.executed += 1;
    let counters = &mut block.tally.executed[block.pc];
    counters.warp_instructions += 1;
    counters.lanes += u64::from(mask.count_ones());
    let settled =
        instruction.tracking == Tracking::None || w.operands[block.pc] == Operands::Defined;
    let defined = settled || check_sources(block, w, instruction, active, mask);
    if instruction.touches_wgmma && mask != 0 {
        wgmma::touch(block, w, instruction);
    }
    match instruction.op {
        Op::Branch { target, uniform } => {
            branch(block, w, instruction, (target, uniform), active, mask);
        }
        Op::BranchIndexed { index, table, uniform } => {
            control::branch_indexed(block, w, instruction, (index, table, uniform), [active, mask]);
        }
        _ if mask == 0 => {}
        Op::Exit => control::exit(block, w, mask),
        Op::Trap => {
            block.report(FindingKind::Trap, Place::default(), "trap executed".to_owned());
            control::exit(block, w, w.live);
        }
        _ => execute(m, block, w, instruction, mask),
    }
    if !settled {
        define_results(block, w, instruction, mask, defined);
    }
}

#[cold]
fn limit_exceeded(block: &Block<'_>, instruction: &Instruction) -> SimError {
    SimError::InstructionLimit {
        kernel: block.context.program.name.clone(),
        block: block.index,
        limit: block.context.options.instruction_limit,
        ptx_line: instruction.line,
    }
}

/// Whether the results will be defined in all lanes; if not, `w.traces` knows where.
#[inline(always)]
fn check_sources(
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    active: u32,
    mask: u32,
) -> bool {
    if instruction.tracking == Tracking::Results {
        return true;
    }
    let program = block.context.program;
    let (reads, _) = program.uses(instruction);
    let defined = reads.iter().fold(FULL, |m, &index| m & w.defined[index as usize]);
    let guard = match instruction.guard {
        Some(guard) => w.defined[program.index_predicate(guard.slot)],
        None => FULL,
    };
    if defined & mask == mask && guard & active == active {
        return true;
    }
    undefined::missing_sources(block, w, instruction, active & !guard, mask & !defined)
}

#[inline(always)]
fn define_results(
    block: &Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    mask: u32,
    all_defined: bool,
) {
    if !all_defined {
        return undefined::define_pending(w, mask);
    }
    let (_, writes) = block.context.program.uses(instruction);
    for &index in writes {
        w.defined[index as usize] |= mask;
    }
    w.operands[block.pc] = match w.operands[block.pc] {
        Operands::Seen if all_operands_defined(block, w, instruction) => Operands::Defined,
        _ => Operands::Seen,
    };
}

fn all_operands_defined(block: &Block<'_>, w: &Warp, instruction: &Instruction) -> bool {
    let program = block.context.program;
    let (reads, writes) = program.uses(instruction);
    let all = |registers: &[u32]| registers.iter().all(|&r| w.defined[r as usize] == FULL);
    let guard = instruction.guard.map(|guard| w.defined[program.index_predicate(guard.slot)]);
    let sources = all(reads) && guard.is_none_or(|defined| defined == FULL);
    all(writes) && (sources || instruction.tracking == Tracking::Results)
}

#[inline(always)]
fn branch(
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    (target, uniform): (u32, bool),
    active: u32,
    taken: u32,
) {
    if taken == active {
        if let Some(frame) = w.stack.last_mut() {
            frame.pc = target;
        }
    } else if taken != 0 {
        block.counters().divergent += 1;
        if uniform {
            let message = format!("bra.uni taken by lanes {taken:#010x} of {active:#010x}");
            block.report(FindingKind::BarrierDivergence, Place::default(), message);
        }
        let next = block.pc as u32 + 1;
        control::diverge(w, instruction, target, next, taken);
    }
}

/// Operations on registers alone, and everything that touches memory or other lanes.
#[inline(always)]
fn execute<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    mask: u32,
) {
    match instruction.op {
        Op::Int2 { op, ty, d, a, b } => int::int2(w, mask, op, ty, [d, a, b]),
        Op::Int16x2 { op, signed, d, a, b } => int::int16x2(w, mask, op, signed, [d, a, b]),
        Op::Int1 { op, ty, d, a } => int::int1(w, mask, op, ty, d, a),
        Op::MulWide { ty, d, a, b, c } => int::mul_wide(w, mask, ty, [d, a, b], c),
        Op::Mad { hi, ty, d, a, b, c } => int::mad(w, mask, hi, ty, [d, a, b, c]),
        Op::Sad { ty, d, a, b, c } => int::sad(w, mask, ty, [d, a, b, c]),
        Op::Bfe { ty, d, a, pos, len } => bits::bfe(w, mask, ty, [d, a, pos, len]),
        Op::Bfi { wide, d, a, b, pos, len } => bits::bfi(w, mask, wide, [d, a, b, pos, len]),
        Op::BitMask { wrap, d, a, b } => {
            int::map2(w, mask, [d, a, b], |a, b| bits::mask(wrap, a, b))
        }
        Op::Extend { wrap, signed, d, a, b } => {
            int::map2(w, mask, [d, a, b], |a, b| bits::extend(wrap, signed, a, b));
        }
        Op::FindNthSet { d, a, base, n } => {
            int::map3(w, mask, [d, a, base, n], |a, base, n| bits::find_nth_set(a, base, n as i32));
        }
        Op::Prmt { mode, d, a, b, c } => bits::prmt(w, mask, mode, [d, a, b, c]),
        Op::Lop3 { table, d, a, b, c } => bits::lop3(w, mask, table, [d, a, b, c]),
        Op::FunnelShift { left, wrap, d, a, b, c } => {
            bits::funnel_shift(w, mask, left, wrap, [d, a, b, c]);
        }
        Op::Dp2a { high, a_signed, b_signed, d, a, b, c } => {
            int::dp2a(w, mask, high, [a_signed, b_signed], [d, a, b, c]);
        }
        Op::Mul24 { hi, signed, d, a, b, c } => {
            packed::mul24(w, mask, [hi, signed], [d, a, b], c);
        }
        Op::Packed(ref operation) => packed::execute(w, mask, operation),
        Op::Dp4a { a_signed, b_signed, d, a, b, c } => {
            int::dp4a(w, mask, [a_signed, b_signed], [d, a, b, c]);
        }
        Op::Setp { compare, ty, p, q, a, b, combine } => {
            compare::setp(w, mask, &compare::Setp { compare, ty, p, q, a, b, combine });
        }
        Op::TestFloat { property, wide, p, a } => {
            let holds = float::test(w, property, wide, a);
            w.set_predicate(p, mask, holds);
        }
        Op::Set { compare, ty, float_result, d, a, b } => {
            compare::set(w, mask, compare, ty, float_result, [d, a, b]);
        }
        Op::Selp { wide, d, a, b, p } => {
            let choose = w.predicate(p);
            compare::select(w, mask, wide, [d, a, b], choose);
        }
        Op::Slct { wide, float, d, a, b, c } => {
            let choose = compare::non_negative(w, float, c);
            compare::select(w, mask, wide, [d, a, b], choose);
        }
        Op::PredicateLogic { op, d, a, b } => compare::predicate_logic(w, mask, op, d, a, b),
        Op::PredicateMove { d, a } => {
            let value = w.predicate(a);
            w.set_predicate(d, mask, value);
        }
        _ => execute_moves(m, block, w, instruction, mask),
    }
}

/// Moves, conversions and floating point.
#[inline(always)]
fn execute_moves<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    mask: u32,
) {
    match instruction.op {
        Op::Move { wide: false, d, a } => int::map1(w, mask, d, a, |x| x),
        Op::Move { wide: true, d, a } => int::map1_64(w, mask, d, a, |x| x),
        Op::MovePair { d, a } => {
            let values = a.map(|slot| *w.get64(slot));
            d.iter().zip(&values).for_each(|(&slot, values)| w.set64(slot, mask, values));
        }
        Op::Pack { wide, count, part_bytes, d, parts } => {
            convert::pack(w, mask, wide, part_bytes, &parts[..usize::from(count)], d);
        }
        Op::Unpack { wide, count, part_bytes, a, parts } => {
            convert::unpack(w, mask, wide, part_bytes, a, &parts[..usize::from(count)]);
        }
        // Time is counted in warp instructions of the block.
        Op::ReadClock { clock: Clock::Low, d } => w.set32(d, mask, &[block.executed as u32; LANES]),
        Op::ReadClock { clock: Clock::High, d } => {
            w.set32(d, mask, &[(block.executed >> 32) as u32; LANES]);
        }
        Op::ReadClock { clock: Clock::Full, d } => w.set64(d, mask, &[block.executed; LANES]),
        Op::Convert(ref operands) => convert::convert(m, w, mask, operands),
        Op::ConvertPair(ref operands) => convert::convert_pair(m, w, mask, operands),
        Op::ConvertTf32(ref operands) => convert::convert_tf32(w, mask, operands),
        Op::NarrowPair(ref operands) => convert_small::narrow(w, mask, operands),
        Op::WidenPair(ref operands) => convert_small::widen(w, mask, operands),
        Op::CastAddress { space, to_generic, d, a } => {
            convert::cast_address(w, mask, space, to_generic, d, a);
        }
        Op::IsSpace { space, p, a } => convert::is_space(w, mask, space, p, a),
        Op::Float2 { op, ty, flags, d, a, b } => {
            float::float2(m, w, mask, op, ty, flags, [d, a, b]);
        }
        Op::Float1 { op, ty, flags, d, a } => float::float1(w, mask, op, ty, flags, [d, a]),
        Op::Extreme(ref operation) => float_forms::extreme(w, mask, operation),
        Op::MixedFloat(ref operation) => float_forms::mixed(w, mask, operation),
        Op::Extended(ref operation) => extended::execute(w, mask, operation),
        Op::Fma { ty, flags, d, a, b, c } => float::fma(m, w, mask, ty, flags, [d, a, b, c]),
        _ => execute_memory(m, block, w, instruction, mask),
    }
}

/// Memory, lane exchange, matrices and barriers.
#[inline(always)]
fn execute_memory<M: Machine>(
    m: M,
    block: &mut Block<'_>,
    w: &mut Warp,
    instruction: &Instruction,
    mask: u32,
) {
    match instruction.op {
        Op::Load(ref access) => memory::load(block, w, access, mask),
        Op::Store(ref access) => memory::store(block, w, access, mask),
        Op::Atomic(ref atomic) => atomic::execute(block, w, atomic, mask),
        Op::Fence { scope } => global_order::fence(block, scope, (mask, w.live)),
        Op::ProxyFence => block.cluster.clocks.proxy_fence(block.agent),
        Op::MbarrierInitFence => block.cluster.clocks.init_fence(block.agent),
        Op::Bulk(ref op) => bulk::execute(block, w, op, mask),
        Op::Mbarrier(ref op) => mbarrier::execute(block, w, op, mask),
        Op::Cluster(ref op) => cluster::execute(block, w, op, mask),
        Op::Shuffle { mode, d, p, a, b, c, members } => {
            shuffle::shuffle(block, w, &shuffle::Shuffle { mode, d, p, a, b, c, members }, mask);
        }
        Op::Vote { mode, d, p, members } => shuffle::vote(block, w, mode, d, p, members, mask),
        Op::Match { all, wide, d, p, a, members } => {
            shuffle::match_sync(block, w, &shuffle::Match { all, wide, d, p, a, members }, mask);
        }
        Op::Redux { op, signed, d, a, members } => {
            shuffle::redux(block, w, op, signed, [d, a, members], mask);
        }
        Op::ReduxFloat { max, magnitudes, nan, d, a, members } => {
            shuffle::redux_float(block, w, [max, magnitudes, nan], [d, a, members], mask);
        }
        Op::ActiveMask { d } => w.set32(d, mask, &[mask; LANES]),
        Op::Elect { d, p, members } => shuffle::elect(block, w, [d, p, members], mask),
        Op::CpAsync(ref copy) => async_copy::issue(block, w, copy, mask),
        Op::CpAsyncCommit => w.copies.commit(mask),
        Op::CpAsyncWait { newest } => async_copy::wait_group(block, w, newest, mask),
        Op::CpAsyncWaitAll => async_copy::wait_all(block, w, mask),
        Op::Ldmatrix { count, transposed, address, registers } => {
            matrix::ldmatrix(block, w, count, transposed, address, registers, mask);
        }
        Op::Stmatrix { count, transposed, address, registers } => {
            matrix::stmatrix(block, w, count, transposed, address, registers, mask);
        }
        Op::Movmatrix { d, a } => matrix::movmatrix(block, w, d, a, mask),
        Op::Mma(ref mma) => matrix::mma(m, block, w, mma, mask),
        Op::MmaF64(ref mma) => matrix::mma_f64(block, w, mma, mask),
        Op::Wgmma(ref product) => wgmma::issue(m, block, w, instruction, product, mask),
        Op::WgmmaFence => wgmma::fence(block, w, mask),
        Op::WgmmaCommit => wgmma::commit(block, w, mask),
        Op::WgmmaWait { newest } => wgmma::wait(block, w, newest, mask),
        Op::SetMaxRegisters { increase, count } => {
            warpgroup::set_max_registers(block, w, increase, u32::from(count), mask);
        }
        Op::Barrier(ref barrier) => control::barrier(block, w, barrier, mask),
        Op::WarpBarrier { members } => control::warp_barrier(block, w, members, mask),
        _ => {}
    }
}
