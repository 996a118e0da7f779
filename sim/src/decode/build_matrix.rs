//! Rows for the Ampere matrix instructions (PTX ISA 9.7.14).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Mma, MmaAccumulator, MmaInput, Op};

const fn row(class: Class, form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f32> <f16> <f16> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f16> <f16> <f16> <f16>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k8|m16n8k16> <row> <col> <f32> <bf16> <bf16> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k4|m16n8k8> <row> <col> <f32> <tf32> <tf32> <f32>", "9.7.14.5.14", mma_float),
    row(Class::Mma, "mma <sync> <aligned> <m16n8k16|m16n8k32> <row> <col> [satfinite] <s32> <u8|s8> <u8|s8> <s32>", "9.7.14.5.14", mma_int),
    row(Class::Ldmatrix, "ldmatrix <sync> <aligned> <m8n8> <x1|x2|x4> [trans] [shared|shared::cta] <b16>", "9.7.14.5.15", ldmatrix),
    row(Class::Sts, "stmatrix <sync> <aligned> <m8n8> <x1|x2|x4> [trans] [shared|shared::cta] <b16>", "9.7.14.5.16", stmatrix),
    row(Class::Shfl, "movmatrix <sync> <aligned> <m8n8> <trans> <b16>", "9.7.14.5.17", movmatrix),
];

/// K of a shape such as `m16n8k16`.
fn shape_k(modifier: &str) -> u8 {
    match modifier {
        "m16n8k4" => 4,
        "m16n8k8" => 8,
        "m16n8k16" => 16,
        _ => 32,
    }
}

fn mma_float(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let input = match m.get(6) {
        "bf16" => MmaInput::Bf16,
        "tf32" => MmaInput::Tf32,
        _ => MmaInput::F16,
    };
    let accumulator = if m.last() == "f16" { MmaAccumulator::F16 } else { MmaAccumulator::F32 };
    mma(o, input, accumulator, shape_k(m.get(2)))
}

fn mma_int(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let input = MmaInput::Int8 { a_signed: m.get(7) == "s8", b_signed: m.get(8) == "s8" };
    let accumulator = MmaAccumulator::S32 { saturate: m.has("satfinite") };
    mma(o, input, accumulator, shape_k(m.get(2)))
}

fn mma(
    o: &mut Operands<'_>,
    input: MmaInput,
    accumulator: MmaAccumulator,
    k: u8,
) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let element_bits = match input {
        MmaInput::F16 | MmaInput::Bf16 => 16,
        MmaInput::Tf32 => 32,
        MmaInput::Int8 { .. } => 8,
    };
    // A is 16 x k, B is k x 8, spread over 32 lanes of 32-bit registers.
    let a_registers = usize::from(k) * element_bits * 16 / 1024;
    let d_registers = if accumulator == MmaAccumulator::F16 { 2 } else { 4 };
    let a = o.source_vector::<4>(1, a_registers, 32)?;
    let b = o.source_vector::<2>(2, a_registers / 2, 32)?;
    let c = o.source_vector::<4>(3, d_registers, 32)?;
    let d = o.destination_vector::<4>(0, d_registers, 32)?;
    Ok(Op::Mma(Mma { input, accumulator, k, d, a, b, c }))
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
