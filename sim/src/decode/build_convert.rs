//! Rows for conversions between number formats (PTX ISA 9.7.9.21).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{
    Convert, ConvertPair, ConvertTf32, ConvertType, NarrowPair, Op, PairSource, Rounding,
    SmallFormat, WidenPair,
};

const fn row(form: &'static str, build: Builder) -> Row {
    Row { form, class: Class::MovCvt, section: "9.7.9.21", build }
}

pub(super) const ROWS: &[Row] = &[
    row("cvt [rn|rz|rm|rp|rni|rzi|rmi|rpi] [ftz] [relu] [sat] <u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64> <u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64>", cvt),
    row("cvt <rn|rz> {relu} {satfinite} <f16|bf16> <f32>", cvt),
    row("cvt <rn|rz> {relu} {satfinite} <f16x2|bf16x2> <f32>", cvt_pair),
    row("cvt <rn|rz> {relu} {satfinite} <tf32> <f32>", cvt_tf32),
    row("cvt <rna> [satfinite] <tf32> <f32>", cvt_tf32),
    row("cvt <rn> <satfinite> [relu] <e4m3x2|e5m2x2> <f32|f16x2>", narrow),
    row("cvt <rn> <satfinite> [relu] <e3m2x2|e2m3x2|e2m1x2> <f32>", narrow),
    row("cvt <rz|rp> [satfinite] <ue8m0x2> <f32|bf16x2>", narrow),
    row("cvt <rn> [relu] <f16x2|bf16x2> <e4m3x2|e5m2x2|e3m2x2|e2m3x2|e2m1x2>", widen),
    row("cvt <rn> <bf16x2> <ue8m0x2>", widen),
];

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
    let (to, to_bits) = convert_type(m.nth_last(1));
    let (from, from_bits) = convert_type(m.last());
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
    Ok(Op::Convert(Convert {
        to,
        from,
        rounding: rounding(m.get(0)),
        to_integral: integral,
        sat: m.has("sat"),
        saturate_finite: m.has("satfinite"),
        relu: m.has("relu"),
        ftz: m.has("ftz"),
        d,
        d_wide,
        a,
        a_wide,
    }))
}

fn cvt_pair(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    Ok(Op::ConvertPair(ConvertPair {
        bf16: m.nth_last(1) == "bf16x2",
        truncate: m.get(0) == "rz",
        relu: m.has("relu"),
        saturate_finite: m.has("satfinite"),
        d: o.destination(0, 32)?,
        a,
        b,
    }))
}

fn cvt_tf32(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let a = o.source(1, 32)?;
    Ok(Op::ConvertTf32(ConvertTf32 {
        rounding: rounding(m.get(0)),
        relu: m.has("relu"),
        saturate_finite: m.has("satfinite"),
        d: o.destination(0, 32)?,
        a,
    }))
}

fn small_format(modifier: &str) -> SmallFormat {
    match modifier {
        "e4m3x2" => SmallFormat::E4m3,
        "e5m2x2" => SmallFormat::E5m2,
        "e3m2x2" => SmallFormat::E3m2,
        "e2m3x2" => SmallFormat::E2m3,
        "e2m1x2" => SmallFormat::E2m1,
        _ => SmallFormat::Ue8m0,
    }
}

fn narrow(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let format = small_format(m.nth_last(1));
    let source = match m.last() {
        "f32" => {
            o.expect(3..=3)?;
            PairSource::F32([o.source(1, 32)?, o.source(2, 32)?])
        }
        packed => {
            o.expect(2..=2)?;
            let a = o.source(1, 32)?;
            if packed == "f16x2" {
                PairSource::F16x2(a)
            } else {
                PairSource::Bf16x2(a)
            }
        }
    };
    Ok(Op::NarrowPair(NarrowPair {
        format,
        source,
        rounding: rounding(m.get(0)),
        relu: m.has("relu"),
        saturate_finite: m.has("satfinite"),
        d: o.destination(0, 2 * format.container_bits())?,
    }))
}

fn widen(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let format = small_format(m.last());
    let a = o.source(1, 2 * format.container_bits())?;
    let (bf16, relu) = (m.has("bf16x2"), m.has("relu"));
    Ok(Op::WidenPair(WidenPair { format, bf16, relu, d: o.destination(0, 32)?, a }))
}
