//! Rows for moves, conversions and address casts (PTX ISA 9.7.9).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Clock, ConvertType, Op, Rounding, Space};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::MovCvt, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("mov <pred>", "9.7.9.2", mov_predicate),
    row("mov <b16|u16|s16|f16|bf16>", "9.7.9.2", |o, _| mov(o, 16)),
    row("mov <b32|u32|s32|f32>", "9.7.9.2", |o, _| mov(o, 32)),
    row("mov <b64|u64|s64|f64>", "9.7.9.2", |o, _| mov(o, 64)),
    row("cvt [rn|rz|rm|rp|rni|rzi|rmi|rpi] [ftz] [relu] [sat] <u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64> <u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64>", "9.7.9.21", cvt),
    row("cvt <rn|rz> [relu] <f16x2|bf16x2> <f32>", "9.7.9.21", cvt_pair),
    row("cvt <rn|rz|rna> <tf32> <f32>", "9.7.9.21", cvt_tf32),
    row("cvta <global|shared|shared::cta|shared::cluster|local|param|const> <u32|u64>", "9.7.9.20", |o, m| cvta(o, m, true)),
    row("cvta <to> <global|shared|shared::cta|shared::cluster|local|param|const> <u32|u64>", "9.7.9.20", |o, m| cvta(o, m, false)),
    row("isspacep <global|shared|shared::cta|shared::cluster|local|param|const>", "9.7.9.19", isspacep),
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

fn part_bits(o: &Operands<'_>, index: usize, bits: u32) -> Result<(usize, u32), SimError> {
    let count = o.element_count(index);
    match (bits, count) {
        (32 | 64, 2 | 4) => Ok((count, bits / count as u32)),
        _ => o.fail(format!("{count} parts of a {bits}-bit value")),
    }
}

fn pack(o: &mut Operands<'_>, bits: u32) -> Result<Op, SimError> {
    let (count, part) = part_bits(o, 1, bits)?;
    let parts = o.source_vector::<4>(1, count, part)?;
    let d = o.destination(0, bits)?;
    Ok(Op::Pack { wide: bits == 64, count: count as u8, d, parts })
}

fn unpack(o: &mut Operands<'_>, bits: u32) -> Result<Op, SimError> {
    let (count, part) = part_bits(o, 0, bits)?;
    let a = o.source(1, bits)?;
    let parts = o.destination_vector::<4>(0, count, part)?;
    Ok(Op::Unpack { wide: bits == 64, count: count as u8, a, parts })
}

fn convert_type(modifier: &str) -> (ConvertType, u32) {
    match modifier {
        "u8" => (ConvertType::U8, 8),
        "s8" => (ConvertType::S8, 8),
        "u16" => (ConvertType::U16, 16),
        "s16" => (ConvertType::S16, 16),
        "u32" => (ConvertType::U32, 32),
        "s32" => (ConvertType::S32, 32),
        "u64" => (ConvertType::U64, 64),
        "s64" => (ConvertType::S64, 64),
        "f16" => (ConvertType::F16, 16),
        "bf16" => (ConvertType::Bf16, 16),
        "f64" => (ConvertType::F64, 64),
        _ => (ConvertType::F32, 32),
    }
}

fn is_float(ty: ConvertType) -> bool {
    matches!(ty, ConvertType::F16 | ConvertType::Bf16 | ConvertType::F32 | ConvertType::F64)
}

/// Rounding named by a modifier; anything else means nearest.
pub(super) fn rounding(modifier: &str) -> Rounding {
    match modifier {
        "rz" | "rzi" => Rounding::Zero,
        "rm" | "rmi" => Rounding::Down,
        "rp" | "rpi" => Rounding::Up,
        "rna" => Rounding::NearestAway,
        _ => Rounding::Nearest,
    }
}

fn cvt(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let (to, to_bits) = convert_type(m.get(4));
    let (from, from_bits) = convert_type(m.get(5));
    let integral = m.get(0).ends_with('i');
    let float_involved = is_float(to) || is_float(from);
    if !m.get(0).is_empty() && !float_involved {
        return o.fail("integer conversions take no rounding");
    }
    if is_float(from) && !is_float(to) && !integral {
        return o.fail("a conversion to integer needs .rni, .rzi, .rmi or .rpi");
    }
    if integral && is_float(to) && to != from {
        return o.fail("integer rounding in a float conversion needs equal types");
    }
    if m.has("relu") && (!is_float(to) || integral) {
        return o.fail("`.relu` is for conversions to a half format");
    }
    let (a, a_wide) = o.loose_source(1, from_bits)?;
    let (d, d_wide) = o.loose_destination(0, to_bits)?;
    Ok(Op::Convert {
        to,
        from,
        rounding: rounding(m.get(0)),
        to_integral: integral,
        sat: m.has("sat"),
        relu: m.has("relu"),
        ftz: m.has("ftz"),
        d,
        d_wide,
        a,
        a_wide,
    })
}

fn cvt_pair(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    Ok(Op::ConvertPair {
        bf16: m.get(2) == "bf16x2",
        truncate: m.get(0) == "rz",
        relu: m.has("relu"),
        d: o.destination(0, 32)?,
        a,
        b,
    })
}

fn cvt_tf32(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let a = o.source(1, 32)?;
    Ok(Op::ConvertTf32 { rounding: rounding(m.get(0)), d: o.destination(0, 32)?, a })
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
