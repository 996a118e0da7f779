//! Rows for the matrix instructions of a warpgroup (PTX ISA 9.7.15).

use super::build_matrix::{element, float_accumulator};
use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{MmaAccumulator, Op, Wgmma, WgmmaLeft};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::Wgmma, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(
        "wgmma <mma_async> <sync> <aligned> <m64nNk16> <f32|f16> <f16> <f16>",
        "9.7.15.5.2",
        |o, m| wgmma_float(o, m, true),
    ),
    row(
        "wgmma <mma_async> <sync> <aligned> <m64nNk16> <f32> <bf16> <bf16>",
        "9.7.15.5.2",
        |o, m| wgmma_float(o, m, true),
    ),
    row(
        "wgmma <mma_async> <sync> <aligned> <m64nNk8> <f32> <tf32> <tf32>",
        "9.7.15.5.2",
        |o, m| wgmma_float(o, m, false),
    ),
    row(
        "wgmma <mma_async> <sync> <aligned> <m64nNk32> <f32|f16> <e4m3|e5m2> <e4m3|e5m2>",
        "9.7.15.5.2",
        |o, m| wgmma_float(o, m, false),
    ),
    row(
        "wgmma <mma_async> <sync> <aligned> <m64nNk32> [satfinite] <s32> <s8|u8> <s8|u8>",
        "9.7.15.5.2",
        wgmma_int,
    ),
    row("wgmma <fence> <sync> <aligned>", "9.7.15.7.1", |o, _| alone(o, Op::WgmmaFence)),
    row("wgmma <commit_group> <sync> <aligned>", "9.7.15.7.2", |o, _| alone(o, Op::WgmmaCommit)),
    row("wgmma <wait_group> <sync> <aligned>", "9.7.15.7.3", wait_group),
    row("setmaxnreg <inc|dec> <sync> <aligned> <u32>", "9.7.19.5", setmaxnreg),
];

fn alone(o: &mut Operands<'_>, op: Op) -> Result<Op, SimError> {
    o.expect(0..=0)?;
    Ok(op)
}

fn wait_group(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::WgmmaWait { newest: o.literal(0, 0..=u32::MAX)? })
}

fn setmaxnreg(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    let count = o.literal(0, 24..=256)?;
    if count % 8 != 0 {
        return o.fail(format!("{count} registers are no multiple of 8"));
    }
    Ok(Op::SetMaxRegisters { increase: m.get(0) == "inc", count: count as u16 })
}

/// Columns of a shape such as `m64n128k16`.
fn columns(shape: &str) -> u16 {
    let columns = shape.split_once('n').and_then(|(_, rest)| rest.split_once('k'));
    columns.and_then(|(n, _)| n.parse().ok()).unwrap_or(0)
}

/// `d, a, b, scale-d, imm-scale-a, imm-scale-b [, imm-trans-a] [, imm-trans-b]`; a transposition
/// exists for 16-bit operands in shared memory.
fn wgmma_float(o: &mut Operands<'_>, m: &Modifiers<'_>, half: bool) -> Result<Op, SimError> {
    let n = columns(m.get(3));
    if n == 0 || n % 8 != 0 || n > 256 {
        return o.fail(format!("{n} columns; N is a multiple of 8 up to 256"));
    }
    let in_registers = o.is_vector(1);
    let transpositions = if !half {
        0
    } else if in_registers {
        1
    } else {
        2
    };
    o.expect(6 + transpositions..=6 + transpositions)?;
    let (negate_a, negate_b) = (is_negative(o, 4)?, is_negative(o, 5)?);
    let a_transposed = !in_registers && half && o.literal(6, 0..=1)? == 1;
    let b_transposed = half && o.literal(5 + transpositions, 0..=1)? == 1;
    wgmma(o, |a, b, scale_d| Wgmma {
        a_type: element(m.get(5)),
        b_type: element(m.get(6)),
        accumulator: float_accumulator(m.get(4)),
        n,
        a: with_layout(a, a_transposed),
        b,
        b_transposed,
        scale_d,
        negate_a,
        negate_b,
    })
}

/// `d, a, b, scale-d`.
fn wgmma_int(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let n = columns(m.get(3));
    if n == 0 || n > 256 || !(n % 16 == 0 || n == 8 || n == 24) {
        return o.fail(format!("{n} columns; N is 8, 24 or a multiple of 16 up to 256"));
    }
    o.expect(4..=4)?;
    wgmma(o, |a, b, scale_d| Wgmma {
        a_type: element(m.get(6)),
        b_type: element(m.get(7)),
        accumulator: MmaAccumulator::S32 { saturate: m.has("satfinite") },
        n,
        a,
        b,
        b_transposed: false,
        scale_d,
        negate_a: false,
        negate_b: false,
    })
}

fn is_negative(o: &Operands<'_>, index: usize) -> Result<bool, SimError> {
    match o.signed_literal(index)? {
        1 => Ok(false),
        -1 => Ok(true),
        other => o.fail(format!("scale {other}, only 1 and -1 exist")),
    }
}

fn with_layout(a: WgmmaLeft, transposed: bool) -> WgmmaLeft {
    match a {
        WgmmaLeft::Shared { descriptor, .. } => WgmmaLeft::Shared { descriptor, transposed },
        registers => registers,
    }
}

/// The operands that all forms share.
fn wgmma(
    o: &mut Operands<'_>,
    finish: impl FnOnce(WgmmaLeft, crate::program::Slot, crate::program::PredicateSource) -> Wgmma,
) -> Result<Op, SimError> {
    let a = if o.is_vector(1) {
        WgmmaLeft::Registers(o.source_vector::<4>(1, 4, 32)?)
    } else {
        WgmmaLeft::Shared { descriptor: o.source(1, 64)?, transposed: false }
    };
    let b = o.source(2, 64)?;
    let product = finish(a, b, o.predicate(3)?);
    let accumulators = usize::from(product.n) / 8 * product.accumulator.registers();
    // Up to 128 registers: the executor finds them in the list of registers written.
    o.destination_vector::<128>(0, accumulators, 32)?;
    if o.writes.len() != accumulators {
        return o.fail("every accumulator must be a register");
    }
    Ok(Op::Wgmma(product))
}
