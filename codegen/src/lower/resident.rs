//! How many blocks the registers of an SM must suffice for: what the compiler is told of registers.

use super::Lowering;
use qtune_ir::dequant::{CodeOrder, Op, PairTable, Term};
use qtune_ir::tile::resident_blocks;
use qtune_ir::{Epilogue, GemvSchedule, Producer, Schedule};

/// Blocks of the function that multiplies, see [`Program::resident`](crate::kir::Program::resident). A deep
/// ring leaves room for few; beside one, the sums of gate and up make the compiler's guess too low.
pub(super) fn blocks(cx: &Lowering, schedule: &Schedule, shared_bytes: u32) -> Option<u32> {
    let gated = cx.problem.epilogue == Epilogue::SiluMul;
    match schedule {
        Schedule::Wgmma(s) if s.producer == Producer::Group => Some(1),
        Schedule::Mma(_) if gated => Some(1),
        // Of addresses of vectors it keeps too few, and spills.
        Schedule::Gemv(s) if CodeOrder::of_term(&s.dequant) == CodeOrder::Vectors => Some(1),
        _ if PairTable::of_term(schedule.dequant()).is_some() => Some(1),
        Schedule::Mma(s) => Some(room(cx, s.threads(), shared_bytes)),
        Schedule::Gemv(s) => {
            let registers = gemv_registers(cx, s);
            Some((cx.arch.sm.registers / registers / s.threads()).max(1))
        }
        _ => None,
    }
}

/// Registers that suffice for a thread of most `mma` kernels, and the most that one can have.
const ROOMY: u32 = 168;
const MOST: u32 = 255;

/// Where shared memory has room for so few blocks that each could have many registers: as many of them as leave
/// a thread all that it can have. Else as many as leave it [`ROOMY`]. The compiler guesses more blocks, and spills
/// for its guess.
fn room(cx: &Lowering, threads: u32, shared_bytes: u32) -> u32 {
    // By shared memory alone: as if a thread took one register.
    let blocks = resident_blocks(cx.arch, threads, 1, shared_bytes);
    let registers = cx.arch.sm.registers / threads;
    match blocks == 1 || blocks * ROOMY <= registers {
        true => blocks.min(registers / MOST).max(1),
        false => (registers / ROOMY).max(1),
    }
}

/// Registers of a thread of `gemv`, whatever it sums.
const ANY: u32 = 64;
/// For each row and token.
const SUM: u32 = 4;
/// For each token, where a term has a group sum of activations beside the products'.
const ACTIVATIONS: u32 = 4;

/// Registers that a thread of `gemv` may take. Left to guess, the compiler wants 1024 threads to an SM, and
/// spills for them.
fn gemv_registers(cx: &Lowering, s: &GemvSchedule) -> u32 {
    let sums = s.dequant.parse().map_or(1, |term| sums(&term));
    // Parameters that are the same for all steps are held from the first to the last.
    let held = if cx.layout.groups() == 1 { s.rows * cx.spec.params.len() as u32 } else { 0 };
    ANY + (SUM * s.rows + ACTIVATIONS * sums.saturating_sub(1)) * s.tokens + held
}

/// The sums of a term.
fn sums(term: &Term) -> u32 {
    term.nodes().iter().filter(|op| matches!(op, Op::Sum(_))).count() as u32
}
