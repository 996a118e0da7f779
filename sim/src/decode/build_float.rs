//! Rows for floating-point arithmetic and comparison (PTX ISA 9.7.3 to 9.7.6).

use super::build_convert::rounding;
use super::build_int::{set_of, setp_of};
use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{CompareType, Float1, Float2, FloatFlags, FloatProperty, FloatType, Op};

const fn single(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::Fp32, section, build }
}

const fn half(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::Half2, section, build }
}

pub(super) const ROWS: &[Row] = &[
    single("add [rn|rz|rm|rp] [ftz] [sat] <f32>", "9.7.3.3", |o, m| float2(o, m, Float2::Add)),
    single("sub [rn|rz|rm|rp] [ftz] [sat] <f32>", "9.7.3.4", |o, m| float2(o, m, Float2::Sub)),
    single("mul [rn|rz|rm|rp] [ftz] [sat] <f32>", "9.7.3.5", |o, m| float2(o, m, Float2::Mul)),
    single("fma <rn|rz|rm|rp> [ftz] [sat] <f32>", "9.7.3.6", fma),
    single("mad <rn|rz|rm|rp> [ftz] [sat] <f32>", "9.7.3.7", fma),
    single("div <rn|rz|rm|rp|approx|full> [ftz] <f32>", "9.7.3.8", |o, m| float2(o, m, Float2::Div)),
    single("abs [ftz] <f32>", "9.7.3.9", |o, m| float1(o, m, Float1::Abs)),
    single("neg [ftz] <f32>", "9.7.3.10", |o, m| float1(o, m, Float1::Neg)),
    single("rcp <rn|rz|rm|rp|approx> [ftz] <f32>", "9.7.3.13", |o, m| float1(o, m, Float1::Rcp)),
    single("sqrt <rn|rz|rm|rp|approx> [ftz] <f32>", "9.7.3.15", |o, m| float1(o, m, Float1::Sqrt)),
    single("rsqrt <approx> [ftz] <f32>", "9.7.3.16", |o, m| float1(o, m, Float1::Rsqrt)),
    single("sin <approx> [ftz] <f32>", "9.7.3.18", |o, m| float1(o, m, Float1::Sin)),
    single("cos <approx> [ftz] <f32>", "9.7.3.19", |o, m| float1(o, m, Float1::Cos)),
    single("lg2 <approx> [ftz] <f32>", "9.7.3.20", |o, m| float1(o, m, Float1::Lg2)),
    single("ex2 <approx> [ftz] <f32>", "9.7.3.21", |o, m| float1(o, m, Float1::Ex2)),
    single("tanh <approx> <f32>", "9.7.3.22", |o, m| float1(o, m, Float1::Tanh)),
    single("testp <finite|infinite|number|notanumber|normal|subnormal> <f32|f64>", "9.7.3.1", testp),
    single("copysign <f32|f64>", "9.7.3.2", copysign),
    single("add [rn|rz|rm|rp] <f64>", "9.7.3.3", |o, m| float2(o, m, Float2::Add)),
    single("sub [rn|rz|rm|rp] <f64>", "9.7.3.4", |o, m| float2(o, m, Float2::Sub)),
    single("mul [rn|rz|rm|rp] <f64>", "9.7.3.5", |o, m| float2(o, m, Float2::Mul)),
    single("fma <rn|rz|rm|rp> <f64>", "9.7.3.6", fma),
    single("mad <rn|rz|rm|rp> <f64>", "9.7.3.7", fma),
    single("div <rn|rz|rm|rp> <f64>", "9.7.3.8", |o, m| float2(o, m, Float2::Div)),
    single("abs <f64>", "9.7.3.9", |o, m| float1(o, m, Float1::Abs)),
    single("neg <f64>", "9.7.3.10", |o, m| float1(o, m, Float1::Neg)),
    single("min <f64>", "9.7.3.11", min),
    single("max <f64>", "9.7.3.12", max),
    single("rcp <rn|rz|rm|rp> <f64>", "9.7.3.13", |o, m| float1(o, m, Float1::Rcp)),
    single("rcp <approx> <ftz> <f64>", "9.7.3.14", |o, m| float1(o, m, Float1::RcpGross)),
    single("rsqrt <approx> <ftz> <f64>", "9.7.3.17", |o, m| float1(o, m, Float1::RsqrtGross)),
    single("rsqrt <approx> <f64>", "9.7.3.16", |o, m| float1(o, m, Float1::Rsqrt)),
    single("sqrt <rn|rz|rm|rp> <f64>", "9.7.3.15", |o, m| float1(o, m, Float1::Sqrt)),
    single("add [rn|rz|rm|rp] [ftz] <f32x2>", "9.7.3.3", |o, m| float2(o, m, Float2::Add)),
    single("sub [rn|rz|rm|rp] [ftz] <f32x2>", "9.7.3.4", |o, m| float2(o, m, Float2::Sub)),
    single("mul [rn|rz|rm|rp] [ftz] <f32x2>", "9.7.3.5", |o, m| float2(o, m, Float2::Mul)),
    single("fma <rn|rz|rm|rp> [ftz] <f32x2>", "9.7.3.6", fma),
    half("add [rn] [ftz] [sat] <f16|f16x2>", "9.7.4.1", |o, m| float2(o, m, Float2::Add)),
    half("add [rn] <bf16|bf16x2>", "9.7.4.1", |o, m| float2(o, m, Float2::Add)),
    half("sub [rn] [ftz] [sat] <f16|f16x2>", "9.7.4.2", |o, m| float2(o, m, Float2::Sub)),
    half("sub [rn] <bf16|bf16x2>", "9.7.4.2", |o, m| float2(o, m, Float2::Sub)),
    half("mul [rn] [ftz] [sat] <f16|f16x2>", "9.7.4.3", |o, m| float2(o, m, Float2::Mul)),
    half("mul [rn] <bf16|bf16x2>", "9.7.4.3", |o, m| float2(o, m, Float2::Mul)),
    half("fma <rn> [ftz] [sat|relu] <f16|f16x2>", "9.7.4.4", fma),
    half("fma <rn> [relu] <bf16|bf16x2>", "9.7.4.4", fma),
    half("neg [ftz] <f16|f16x2>", "9.7.4.5", |o, m| float1(o, m, Float1::Neg)),
    half("neg <bf16|bf16x2>", "9.7.4.5", |o, m| float1(o, m, Float1::Neg)),
    half("abs [ftz] <f16|f16x2>", "9.7.4.6", |o, m| float1(o, m, Float1::Abs)),
    half("abs <bf16|bf16x2>", "9.7.4.6", |o, m| float1(o, m, Float1::Abs)),
    half("min [ftz] [NaN] <f16|f16x2>", "9.7.4.7", min),
    half("min [NaN] <bf16|bf16x2>", "9.7.4.7", min),
    half("max [ftz] [NaN] <f16|f16x2>", "9.7.4.8", max),
    half("max [NaN] <bf16|bf16x2>", "9.7.4.8", max),
    half("tanh <approx> <f16|f16x2|bf16|bf16x2>", "9.7.4.9", |o, m| float1(o, m, Float1::Tanh)),
    half("ex2 <approx> <f16|f16x2>", "9.7.4.10", |o, m| float1(o, m, Float1::Ex2)),
    half("ex2 <approx> <ftz> <bf16|bf16x2>", "9.7.4.10", |o, m| float1(o, m, Float1::Ex2)),
    Row {
        form: "setp <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> [and|or|xor] [ftz] <f32>",
        class: Class::Int,
        section: "9.7.6.2",
        build: setp,
    },
    Row {
        form: "setp <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> [and|or|xor] <f64>",
        class: Class::Int,
        section: "9.7.6.2",
        build: setp,
    },
    Row {
        form: "setp <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> [and|or|xor] <f16|f16x2|bf16|bf16x2>",
        class: Class::Half2,
        section: "9.7.7.2",
        build: setp,
    },
    Row {
        form: "set <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> <u32|s32|f32> <f32|f64>",
        class: Class::Int,
        section: "9.7.6.1",
        build: set,
    },
    Row {
        form: "set <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> <u32|f16x2> <f16x2>",
        class: Class::Half2,
        section: "9.7.7.1",
        build: set,
    },
    Row {
        form: "set <eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan> <u32|bf16x2> <bf16x2>",
        class: Class::Half2,
        section: "9.7.7.1",
        build: set,
    },
];

fn float_type(modifier: &str) -> FloatType {
    match modifier {
        "f64" => FloatType::F64,
        "f16" => FloatType::F16,
        "f16x2" => FloatType::F16x2,
        "bf16" => FloatType::Bf16,
        "bf16x2" => FloatType::Bf16x2,
        "f32x2" => FloatType::F32x2,
        _ => FloatType::F32,
    }
}

fn float_bits(ty: FloatType) -> u32 {
    match ty {
        FloatType::F16 | FloatType::Bf16 => 16,
        FloatType::F64 | FloatType::F32x2 => 64,
        FloatType::F32 | FloatType::F16x2 | FloatType::Bf16x2 => 32,
    }
}

pub(super) fn flags(m: &Modifiers<'_>) -> FloatFlags {
    let rounding = rounding(m.get(0));
    FloatFlags { ftz: m.has("ftz"), sat: m.has("sat"), relu: m.has("relu"), rounding }
}

fn float2(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Float2) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let ty = float_type(m.last());
    let bits = float_bits(ty);
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    Ok(Op::Float2 { op, ty, flags: flags(m), d: o.destination(0, bits)?, a, b })
}

pub(super) fn min(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    float2(o, m, if m.has("NaN") { Float2::MinNan } else { Float2::Min })
}

pub(super) fn max(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    float2(o, m, if m.has("NaN") { Float2::MaxNan } else { Float2::Max })
}

/// PTX puts the sign first: `copysign d, a, b` is b with the sign of a.
fn copysign(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    float2(o, m, Float2::CopySign)
}

fn float1(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Float1) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let ty = float_type(m.last());
    let bits = float_bits(ty);
    let a = o.source(1, bits)?;
    Ok(Op::Float1 { op, ty, flags: flags(m), d: o.destination(0, bits)?, a })
}

fn fma(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let ty = float_type(m.last());
    let bits = float_bits(ty);
    let (a, b, c) = (o.source(1, bits)?, o.source(2, bits)?, o.source(3, bits)?);
    Ok(Op::Fma { ty, flags: flags(m), d: o.destination(0, bits)?, a, b, c })
}

fn testp(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let property = match m.get(0) {
        "finite" => FloatProperty::Finite,
        "infinite" => FloatProperty::Infinite,
        "number" => FloatProperty::Number,
        "notanumber" => FloatProperty::NotANumber,
        "normal" => FloatProperty::Normal,
        _ => FloatProperty::Subnormal,
    };
    let wide = m.last() == "f64";
    let a = o.source(1, if wide { 64 } else { 32 })?;
    Ok(Op::TestFloat { property, wide, p: o.predicate_destination(0)?, a })
}

fn setp(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let ty = float_type(m.last());
    let compared = match (m.has("ftz"), ty) {
        (false, _) => CompareType::Float(ty),
        (true, FloatType::F32) => CompareType::FlushedF32,
        (true, _) => return o.fail("`.ftz` comparisons exist for f32 only"),
    };
    setp_of(o, m, compared, float_bits(ty))
}

fn set(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let ty = float_type(m.last());
    set_of(o, m, CompareType::Float(ty), float_bits(ty))
}
