//! Rows for the matrix instructions of one warp (PTX ISA 9.7.14).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Element, Mma, MmaAccumulator, MmaF64, MmaScales, Op, ScaleSource};

const fn row(class: Class, form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f32> <f16> <f16> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f16> <f16> <f16> <f16>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f32> <bf16> <bf16> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k4|m16n8k8> <row> <col> <f32> <tf32> <tf32> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k16|m16n8k32> <row> <col> <f32> <e4m3|e5m2> <e4m3|e5m2> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k16|m16n8k32> <row> <col> <f16> <e4m3|e5m2> <e4m3|e5m2> <f16>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m8n8k16|m16n8k16|m16n8k32> <row> <col> [satfinite] <s32> <u8|s8> <u8|s8> <s32>", "9.7.14.5.14", mma_int),
    row(Class::Mma, "mma <sync> <aligned> <m8n8k32|m16n8k32|m16n8k64> <row> <col> [satfinite] <s32> <u4|s4> <u4|s4> <s32>", "9.7.14.5.14", mma_int),
    row(Class::Mma, "mma <sync> <aligned> <m8n8k4|m16n8k4|m16n8k8|m16n8k16> <row> <col> [rn] <f64> <f64> <f64> <f64>", "9.7.14.5.14", mma_f64),
    row(Class::Mma, "mma <sync> <aligned> <kind::f8f6f4> <m16n8k32> <row> <col> <f32> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k32> <row> <col> <kind::f8f6f4> <f32> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <kind::f8f6f4> <m16n8k32> <row> <col> <f16> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f16>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k32> <row> <col> <kind::f8f6f4> <f16> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f16>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <kind::mxf8f6f4> <block_scale> [scale_vec::1X] <m16n8k32> <row> <col> <f32> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k32> <row> <col> <kind::mxf8f6f4> <block_scale> [scale_vec::1X] <f32> <e4m3|e5m2|e3m2|e2m3|e2m1> <e4m3|e5m2|e3m2|e2m3|e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <kind::mxf4> <block_scale> [scale_vec::2X] <m16n8k64> <row> <col> <f32> <e2m1> <e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k64> <row> <col> <kind::mxf4> <block_scale> [scale_vec::2X] <f32> <e2m1> <e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <kind::mxf4nvf4> <block_scale> <scale_vec::2X> <m16n8k64> <row> <col> <f32> <e2m1> <e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k64> <row> <col> <kind::mxf4nvf4> <block_scale> <scale_vec::2X> <f32> <e2m1> <e2m1> <f32> <ue8m0>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <kind::mxf4nvf4> <block_scale> <scale_vec::4X> <m16n8k64> <row> <col> <f32> <e2m1> <e2m1> <f32> <ue4m3>", "9.7.14.5.14", mma_scaled),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k64> <row> <col> <kind::mxf4nvf4> <block_scale> <scale_vec::4X> <f32> <e2m1> <e2m1> <f32> <ue4m3>", "9.7.14.5.14", mma_scaled),
    row(Class::Ldmatrix, "ldmatrix <sync> <aligned> <m8n8> <x1|x2|x4> [trans] [shared|shared::cta] <b16>", "9.7.14.5.15", ldmatrix),
    row(Class::Sts, "stmatrix <sync> <aligned> <m8n8> <x1|x2|x4> [trans] [shared|shared::cta] <b16>", "9.7.14.5.16", stmatrix),
    row(Class::Shfl, "movmatrix <sync> <aligned> <m8n8> <trans> <b16>", "9.7.14.5.17", movmatrix),
];

/// Rows and K of the shape, such as `m16n8k16`.
fn shape(m: &Modifiers<'_>) -> (u8, u8) {
    let is_shape = |modifier: &str| modifier.starts_with("m8n") || modifier.starts_with("m16n");
    let number = |text: &str| text.parse().unwrap_or(0);
    let shape = m.find(is_shape).trim_start_matches('m');
    let (rows, rest) = shape.split_once('n').unwrap_or(("0", ""));
    (number(rows), rest.split_once('k').map_or(0, |(_, k)| number(k)))
}

/// Element type by its modifier.
pub(super) fn element(modifier: &str) -> Element {
    match modifier {
        "bf16" => Element::Bf16,
        "tf32" => Element::Tf32,
        "e4m3" => Element::E4m3,
        "e5m2" => Element::E5m2,
        "e3m2" => Element::E3m2,
        "e2m3" => Element::E2m3,
        "e2m1" => Element::E2m1,
        "s8" => Element::S8,
        "u8" => Element::U8,
        "s4" => Element::S4,
        "u4" => Element::U4,
        _ => Element::F16,
    }
}

/// Accumulators of floating-point products by their modifier.
pub(super) fn float_accumulator(modifier: &str) -> MmaAccumulator {
    if modifier == "f16" {
        MmaAccumulator::F16
    } else {
        MmaAccumulator::F32
    }
}

/// Formats and shape of an `mma`.
struct Kind {
    a_type: Element,
    b_type: Element,
    accumulator: MmaAccumulator,
    shape: (u8, u8),
}

fn mma_float(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let accumulator = float_accumulator(m.last());
    let (a_type, b_type) = (element(m.nth_last(2)), element(m.nth_last(1)));
    mma(o, 4, Kind { a_type, b_type, accumulator, shape: shape(m) })
}

fn mma_int(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let accumulator = MmaAccumulator::S32 { saturate: m.has("satfinite") };
    let (a_type, b_type) = (element(m.nth_last(2)), element(m.nth_last(1)));
    mma(o, 4, Kind { a_type, b_type, accumulator, shape: shape(m) })
}

/// With scales of both operands: `d, a, b, c, scales of a, {byte, thread}, scales of b, {byte, thread}`.
fn mma_scaled(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let packed = !m.has("kind::mxf8f6f4");
    let ty = |modifier: &str| if packed { Element::PackedE2m1 } else { element(modifier) };
    let (a_type, b_type) = (ty(m.nth_last(3)), ty(m.nth_last(2)));
    let accumulator = MmaAccumulator::F32;
    let mut op = mma(o, 8, Kind { a_type, b_type, accumulator, shape: shape(m) })?;
    let per_row = match packed {
        true if m.has("scale_vec::4X") => 4,
        true => 2,
        false => 1,
    };
    let (a, b) = (scale_source(o, 4)?, scale_source(o, 6)?);
    if let Op::Mma(mma) = &mut op {
        mma.scales = Some(MmaScales { per_row, e4m3: m.last() == "ue4m3", a, b });
    }
    Ok(op)
}

fn scale_source(o: &mut Operands<'_>, index: usize) -> Result<ScaleSource, SimError> {
    let data = o.source(index, 32)?;
    let [byte, thread] = o.source_vector::<2>(index + 1, 2, 16)?;
    Ok(ScaleSource { data, byte, thread })
}

fn mma(o: &mut Operands<'_>, operands: usize, kind: Kind) -> Result<Op, SimError> {
    o.expect(operands..=operands)?;
    let Kind { a_type, b_type, accumulator, shape: (rows, k) } = kind;
    // B is k x 8 over 32 lanes of 32-bit registers; A has as many for every eight rows.
    let b_registers = usize::from(k) / a_type.per_register() / 4;
    let halves = usize::from(rows) / 8;
    let d_registers = accumulator.registers() * halves / 2;
    let a = o.source_vector::<4>(1, b_registers * halves, 32)?;
    let b = o.source_vector::<2>(2, b_registers, 32)?;
    let c = o.source_vector::<4>(3, d_registers, 32)?;
    let d = o.destination_vector::<4>(0, d_registers, 32)?;
    Ok(Op::Mma(Mma { a_type, b_type, accumulator, rows, k, scales: None, d, a, b, c }))
}

fn mma_f64(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (rows, k) = shape(m);
    let (halves, steps) = (usize::from(rows) / 8, usize::from(k) / 4);
    let a = o.source_vector::<8>(1, halves * steps, 64)?;
    let b = o.source_vector::<4>(2, steps, 64)?;
    let c = o.source_vector::<4>(3, 2 * halves, 64)?;
    let d = o.destination_vector::<4>(0, 2 * halves, 64)?;
    Ok(Op::MmaF64(MmaF64 { rows, k, d, a, b, c }))
}

fn matrix_count(m: &Modifiers<'_>) -> u8 {
    match m.get(3) {
        "x1" => 1,
        "x2" => 2,
        _ => 4,
    }
}

fn ldmatrix(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let count = matrix_count(m);
    let address = o.address(1)?;
    let registers = o.destination_vector::<4>(0, usize::from(count), 32)?;
    Ok(Op::Ldmatrix { count, transposed: m.has("trans"), address, registers })
}

fn stmatrix(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let count = matrix_count(m);
    let address = o.address(0)?;
    let registers = o.source_vector::<4>(1, usize::from(count), 32)?;
    Ok(Op::Stmatrix { count, transposed: m.has("trans"), address, registers })
}

fn movmatrix(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let a = o.source(1, 32)?;
    Ok(Op::Movmatrix { d: o.destination(0, 32)?, a })
}
