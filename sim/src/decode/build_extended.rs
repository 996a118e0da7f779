//! Rows for extended-precision integer arithmetic (PTX ISA 9.7.2).

use super::build_int::{int_bits, int_type};
use super::operands::Operands;
use super::table::{Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Extended, ExtendedOp, Op};

const fn row(form: &'static str, section: &'static str, build: super::table::Builder) -> Row {
    Row { form, class: Class::Int, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("add <cc> <u32|s32|u64|s64>", "9.7.2.1", |o, m| extended(o, m, ExtendedOp::Add)),
    row("addc [cc] <u32|s32|u64|s64>", "9.7.2.2", |o, m| extended(o, m, ExtendedOp::Add)),
    row("sub <cc> <u32|s32|u64|s64>", "9.7.2.3", |o, m| extended(o, m, ExtendedOp::Sub)),
    row("subc [cc] <u32|s32|u64|s64>", "9.7.2.4", |o, m| extended(o, m, ExtendedOp::Sub)),
    row("mad <lo|hi> <cc> <u32|s32|u64|s64>", "9.7.2.5", mad),
    row("madc <lo|hi> [cc] <u32|s32|u64|s64>", "9.7.2.6", mad),
];

fn mad(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    extended(o, m, if m.get(0) == "lo" { ExtendedOp::MadLo } else { ExtendedOp::MadHi })
}

/// An opcode that ends in `c` takes the carry flag, the modifier `.cc` sets it.
fn extended(o: &mut Operands<'_>, m: &Modifiers<'_>, op: ExtendedOp) -> Result<Op, SimError> {
    let count = if matches!(op, ExtendedOp::MadLo | ExtendedOp::MadHi) { 4 } else { 3 };
    o.expect(count..=count)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    let addend = if count == 4 { o.source(3, bits)? } else { b };
    let takes = o.opcode().split('.').next().is_some_and(|base| base.ends_with('c'));
    let carry_in = if takes { Some(o.carry_source()?) } else { None };
    let d = o.destination(0, bits)?;
    let carry_out = if m.has("cc") { Some(o.carry_destination()?) } else { None };
    Ok(Op::Extended(Extended { op, ty, d, sources: [a, b, addend], carry_in, carry_out }))
}
