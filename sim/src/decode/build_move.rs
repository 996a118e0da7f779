//! Rows for moves and address casts (PTX ISA 9.7.9).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Clock, Op, Space};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::MovCvt, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("mov <pred>", "9.7.9.2", mov_predicate),
    row("mov <b16|u16|s16|f16|bf16>", "9.7.9.2", |o, _| mov(o, 16)),
    row("mov <b32|u32|s32|f32>", "9.7.9.2", |o, _| mov(o, 32)),
    row("mov <b64|u64|s64|f64>", "9.7.9.2", |o, _| mov(o, 64)),
    row("mov <b128>", "9.7.9.2", mov_wide),
    row(
        "cvta <global|shared|shared::cta|shared::cluster|local|param|const> <u32|u64>",
        "9.7.9.20",
        |o, m| cvta(o, m, true),
    ),
    row(
        "cvta <to> <global|shared|shared::cta|shared::cluster|local|param|const> <u32|u64>",
        "9.7.9.20",
        |o, m| cvta(o, m, false),
    ),
    row(
        "isspacep <global|shared|shared::cta|shared::cluster|local|param|const>",
        "9.7.9.19",
        isspacep,
    ),
];

fn mov_predicate(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    o.propagates_undefined = true;
    let a = o.predicate(1)?;
    Ok(Op::PredicateMove { d: o.predicate_destination(0)?, a })
}

fn mov(o: &mut Operands<'_>, bits: u32) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let clock = match o.name(1) {
        Some("%clock") => Some((Clock::Low, 32)),
        Some("%clock_hi" | "%globaltimer_hi") => Some((Clock::High, 32)),
        Some("%globaltimer_lo") => Some((Clock::Low, 32)),
        Some("%clock64" | "%globaltimer") => Some((Clock::Full, 64)),
        _ => None,
    };
    if let Some((clock, width)) = clock {
        if width != bits {
            return o.fail(format!("this clock has {width} bits"));
        }
        return Ok(Op::ReadClock { clock, d: o.destination(0, bits)? });
    }
    o.propagates_undefined = true;
    match (o.is_vector(0), o.is_vector(1)) {
        (false, false) => {
            let a = o.source(1, bits)?;
            Ok(Op::Move { wide: bits == 64, d: o.destination(0, bits)?, a })
        }
        (false, true) => pack(o, bits),
        (true, false) => unpack(o, bits),
        (true, true) => o.fail("only one side of a move can be a vector"),
    }
}

fn mov_wide(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    if o.is_vector(0) && o.is_vector(1) {
        return o.fail("only one side of a move can be a vector");
    }
    o.propagates_undefined = true;
    let a = o.source_pair(1)?;
    Ok(Op::MovePair { d: o.destination_pair(0)?, a })
}

fn part_bits(o: &Operands<'_>, index: usize, bits: u32) -> Result<(usize, u32), SimError> {
    let count = o.element_count(index);
    match (bits, count) {
        (16, 2) | (32 | 64, 2 | 4) => Ok((count, bits / count as u32)),
        _ => o.fail(format!("{count} parts of a {bits}-bit value")),
    }
}

fn pack(o: &mut Operands<'_>, bits: u32) -> Result<Op, SimError> {
    let (count, part) = part_bits(o, 1, bits)?;
    let parts = o.source_vector::<4>(1, count, part)?;
    let d = o.destination(0, bits)?;
    let part_bytes = (part / 8) as u8;
    Ok(Op::Pack { wide: bits == 64, count: count as u8, part_bytes, d, parts })
}

fn unpack(o: &mut Operands<'_>, bits: u32) -> Result<Op, SimError> {
    let (count, part) = part_bits(o, 0, bits)?;
    let a = o.source(1, bits)?;
    let parts = o.destination_vector::<4>(0, count, part)?;
    let part_bytes = (part / 8) as u8;
    Ok(Op::Unpack { wide: bits == 64, count: count as u8, part_bytes, a, parts })
}

fn space(m: &Modifiers<'_>) -> Space {
    match (m.get(0), m.get(1)) {
        ("shared" | "shared::cta", _) | ("to", "shared" | "shared::cta") => Space::Shared,
        ("shared::cluster", _) | ("to", "shared::cluster") => Space::SharedCluster,
        ("local", _) | ("to", "local") => Space::Local,
        ("param", _) | ("to", "param") => Space::Param,
        ("const", _) | ("to", "const") => Space::Const,
        _ => Space::Global,
    }
}

fn cvta(o: &mut Operands<'_>, m: &Modifiers<'_>, to_generic: bool) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    if m.last() == "u32" {
        return o.fail("32-bit generic addresses do not exist with .address_size 64");
    }
    let a = o.source(1, 64)?;
    Ok(Op::CastAddress { space: space(m), to_generic, d: o.destination(0, 64)?, a })
}

fn isspacep(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let a = o.source(1, 64)?;
    Ok(Op::IsSpace { space: space(m), p: o.predicate_destination(0)?, a })
}
