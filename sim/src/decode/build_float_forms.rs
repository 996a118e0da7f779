//! Rows for f32 operations with operands of their own kind (PTX ISA 9.7.3.11, 9.7.3.12, 9.7.5).

use super::build_float::{flags, max, min};
use super::operands::Operands;
use super::table::{Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Extreme, Float2, MixedFloat, MixedOp, Op};

const fn row(form: &'static str, section: &'static str, build: super::table::Builder) -> Row {
    Row { form, class: Class::Fp32, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("min [ftz] [NaN] [xorsign] [abs] <f32>", "9.7.3.11", |o, m| match is_plain(o, m) {
        true => min(o, m),
        false => extreme(o, m, Float2::Min, Float2::MinNan),
    }),
    row("max [ftz] [NaN] [xorsign] [abs] <f32>", "9.7.3.12", |o, m| match is_plain(o, m) {
        true => max(o, m),
        false => extreme(o, m, Float2::Max, Float2::MaxNan),
    }),
    row("add [rn|rz|rm|rp] [sat] <f32> <f16|bf16>", "9.7.5.1", |o, m| sum(o, m, MixedOp::Add)),
    row("sub [rn|rz|rm|rp] [sat] <f32> <f16|bf16>", "9.7.5.2", |o, m| sum(o, m, MixedOp::Sub)),
    row("fma <rn|rz|rm|rp> [sat] <f32> <f16|bf16>", "9.7.5.3", fma),
];

/// The ordinary minimum or maximum of two values.
fn is_plain(o: &Operands<'_>, m: &Modifiers<'_>) -> bool {
    o.len() <= 3 && !m.has("abs") && !m.has("xorsign")
}

/// Of three values, or of two by magnitude with the product of their signs.
fn extreme(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    number: Float2,
    nan: Float2,
) -> Result<Op, SimError> {
    let (ftz, magnitudes, xor_sign) = (m.has("ftz"), m.has("abs"), m.has("xorsign"));
    o.expect(3..=4)?;
    let three = o.len() == 4;
    if xor_sign != (magnitudes && !three) {
        return o.fail("`.xorsign.abs` goes with two operands, `.abs` with three");
    }
    let op = if m.has("NaN") { nan } else { number };
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    let c = if three { o.source(3, 32)? } else { b };
    let d = o.destination(0, 32)?;
    Ok(Op::Extreme(Extreme { op, ftz, magnitudes, xor_sign, three, d, sources: [a, b, c] }))
}

/// `d = a + c` or `a - c` with a half-precision `a`.
fn sum(o: &mut Operands<'_>, m: &Modifiers<'_>, op: MixedOp) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, c) = (o.source(1, 16)?, o.source(2, 32)?);
    let d = o.destination(0, 32)?;
    let (bf16, flags) = (m.last() == "bf16", flags(m));
    Ok(Op::MixedFloat(MixedFloat { op, bf16, flags, d, sources: [a, a, c] }))
}

/// `d = a * b + c` with half-precision factors.
fn fma(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 16)?, o.source(2, 16)?, o.source(3, 32)?);
    let d = o.destination(0, 32)?;
    let (bf16, flags) = (m.last() == "bf16", flags(m));
    Ok(Op::MixedFloat(MixedFloat { op: MixedOp::Fma, bf16, flags, d, sources: [a, b, c] }))
}
