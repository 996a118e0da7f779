//! Rows for 24-bit products and for SIMD video instructions (PTX ISA 9.7.1.5, 9.7.1.6, 9.7.18).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Op, PackedInt, PackedOp};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::Int, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("mul24 <lo|hi> <u32|s32>", "9.7.1.5", mul24),
    row("mad24 <lo|hi> <u32|s32>", "9.7.1.6", mul24),
    row("vadd2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Add, 16)
    }),
    row("vsub2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Sub, 16)
    }),
    row("vavrg2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Average, 16)
    }),
    row("vabsdiff2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Distance, 16)
    }),
    row("vmin2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Min, 16)
    }),
    row("vmax2 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Max, 16)
    }),
    row("vadd4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Add, 8)
    }),
    row("vsub4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Sub, 8)
    }),
    row("vavrg4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Average, 8)
    }),
    row("vabsdiff4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Distance, 8)
    }),
    row("vmin4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Min, 8)
    }),
    row("vmax4 <u32|s32> <u32|s32> <u32|s32> [sat|add]", "9.7.18.2", |o, m| {
        packed(o, m, PackedOp::Max, 8)
    }),
];

fn mul24(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let adds = o.opcode().starts_with("mad");
    let count = 3 + usize::from(adds);
    o.expect(count..=count)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    let c = if adds { Some(o.source(3, 32)?) } else { None };
    let (hi, signed) = (m.get(0) == "hi", m.last() == "s32");
    Ok(Op::Mul24 { hi, signed, d: o.destination(0, 32)?, a, b, c })
}

/// Without masks and selections of parts, which no compiler writes.
fn packed(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    op: PackedOp,
    bits: u32,
) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    let signed = [0, 1, 2].map(|index| m.get(index) == "s32");
    let slots = [o.destination(0, 32)?, a, b, c];
    let (sat, sum) = (m.has("sat"), m.has("add"));
    Ok(Op::Packed(PackedInt { op, bits, signed, sat, sum, slots }))
}
