//! Rows for integer arithmetic, logic, comparison and selection (PTX ISA 9.7.1, 9.7.2, 9.7.6, 9.7.8).

use super::operands::Operands;
use super::table::{Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{
    BoolOp, Compare, CompareType, FloatType, Int1, Int2, IntType, Op, PredicateSource,
};

const fn row(form: &'static str, section: &'static str, build: super::table::Builder) -> Row {
    Row { form, class: Class::Int, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("add [sat] <u16|s16|u32|s32|u64|s64>", "9.7.1.1", add),
    row("add <u16x2|s16x2>", "9.7.1.1", |o, m| int16x2(o, m, Int2::Add)),
    row("min <u16x2|s16x2>", "9.7.1.12", |o, m| int16x2(o, m, Int2::Min)),
    row("max <u16x2|s16x2>", "9.7.1.13", |o, m| int16x2(o, m, Int2::Max)),
    row("sub [sat] <u16|s16|u32|s32|u64|s64>", "9.7.1.2", sub),
    row("mul <lo|hi|wide> <u16|s16|u32|s32|u64|s64>", "9.7.1.3", mul),
    row("mad <lo|hi|wide> <u16|s16|u32|s32|u64|s64>", "9.7.1.4", mad),
    row("sad <u16|s16|u32|s32|u64|s64>", "9.7.1.7", sad),
    row("div <u16|s16|u32|s32|u64|s64>", "9.7.1.8", |o, m| int2(o, m, Int2::Div)),
    row("rem <u16|s16|u32|s32|u64|s64>", "9.7.1.9", |o, m| int2(o, m, Int2::Rem)),
    row("abs <s16|s32|s64>", "9.7.1.10", |o, m| int1(o, m, Int1::Abs)),
    row("neg <s16|s32|s64>", "9.7.1.11", |o, m| int1(o, m, Int1::Neg)),
    row("min <u16|s16|u32|s32|u64|s64>", "9.7.1.12", |o, m| int2(o, m, Int2::Min)),
    row("max <u16|s16|u32|s32|u64|s64>", "9.7.1.13", |o, m| int2(o, m, Int2::Max)),
    row("popc <b32|b64>", "9.7.1.14", |o, m| count(o, m, Int1::Popc)),
    row("clz <b32|b64>", "9.7.1.15", |o, m| count(o, m, Int1::Clz)),
    row("bfind <u32|s32|u64|s64>", "9.7.1.16", |o, m| count(o, m, Int1::Bfind)),
    row("bfind <shiftamt> <u32|s32|u64|s64>", "9.7.1.16", |o, m| count(o, m, Int1::BfindShift)),
    row("brev <b32|b64>", "9.7.1.18", |o, m| int1(o, m, Int1::Brev)),
    row("fns <b32>", "9.7.1.17", fns),
    row("szext <clamp|wrap> <u32|s32>", "9.7.1.21", szext),
    row("bmsk <clamp|wrap> <b32>", "9.7.1.22", bmsk),
    row("bfe <u32|s32|u64|s64>", "9.7.1.19", bfe),
    row("bfi <b32|b64>", "9.7.1.20", bfi),
    row("dp4a <u32|s32> <u32|s32>", "9.7.1.23", dp4a),
    row("dp2a <lo|hi> <u32|s32> <u32|s32>", "9.7.1.24", dp2a),
    row(
        "setp <eq|ne|lt|le|gt|ge|lo|ls|hi|hs> [and|or|xor] <b16|u16|s16|b32|u32|s32|b64|u64|s64>",
        "9.7.6.2",
        setp,
    ),
    row(
        "set <eq|ne|lt|le|gt|ge|lo|ls|hi|hs> <u32|s32|f32> <b16|u16|s16|b32|u32|s32|b64|u64|s64>",
        "9.7.6.1",
        set,
    ),
    row("selp <b16|u16|s16|f16|bf16|b32|u32|s32|f32|b64|u64|s64|f64>", "9.7.6.3", selp),
    row("slct <b32|u32|s32|f32|b64|u64|s64|f64> <s32|f32>", "9.7.6.4", slct),
    row("and <pred>", "9.7.8.1", |o, _| predicate_logic(o, BoolOp::And)),
    row("or <pred>", "9.7.8.2", |o, _| predicate_logic(o, BoolOp::Or)),
    row("xor <pred>", "9.7.8.3", |o, _| predicate_logic(o, BoolOp::Xor)),
    row("not <pred>", "9.7.8.4", predicate_not),
    row("and <b16|b32|b64>", "9.7.8.1", |o, m| int2(o, m, Int2::And)),
    row("or <b16|b32|b64>", "9.7.8.2", |o, m| int2(o, m, Int2::Or)),
    row("xor <b16|b32|b64>", "9.7.8.3", |o, m| int2(o, m, Int2::Xor)),
    row("not <b16|b32|b64>", "9.7.8.4", |o, m| int1(o, m, Int1::Not)),
    row("cnot <b16|b32|b64>", "9.7.8.5", |o, m| int1(o, m, Int1::Cnot)),
    row("lop3 <b32>", "9.7.8.6", lop3),
    row("shf <l|r> <clamp|wrap> <b32>", "9.7.8.7", shf),
    row("shl <b16|b32|b64>", "9.7.8.8", |o, m| shift(o, m, Int2::Shl)),
    row("shr <b16|u16|s16|b32|u32|s32|b64|u64|s64>", "9.7.8.9", |o, m| shift(o, m, Int2::Shr)),
    row("prmt <b32>", "9.7.9.7", |o, _| prmt(o, 0)),
    row("prmt <b32> <f4e>", "9.7.9.7", |o, _| prmt(o, 1)),
    row("prmt <b32> <b4e>", "9.7.9.7", |o, _| prmt(o, 2)),
    row("prmt <b32> <rc8>", "9.7.9.7", |o, _| prmt(o, 3)),
    row("prmt <b32> <ecl>", "9.7.9.7", |o, _| prmt(o, 4)),
    row("prmt <b32> <ecr>", "9.7.9.7", |o, _| prmt(o, 5)),
    row("prmt <b32> <rc16>", "9.7.9.7", |o, _| prmt(o, 6)),
];

/// Integer type of a modifier; untyped bits count as unsigned.
pub(super) fn int_type(modifier: &str) -> IntType {
    match modifier {
        "u16" | "b16" => IntType::U16,
        "s16" => IntType::S16,
        "s32" => IntType::S32,
        "u64" | "b64" => IntType::U64,
        "s64" => IntType::S64,
        _ => IntType::U32,
    }
}

/// Register width of an integer type.
pub(super) fn int_bits(ty: IntType) -> u32 {
    match ty {
        IntType::U16 | IntType::S16 => 16,
        IntType::U32 | IntType::S32 => 32,
        IntType::U64 | IntType::S64 => 64,
    }
}

fn int2(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Int2) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    Ok(Op::Int2 { op, ty, d: o.destination(0, bits)?, a, b })
}

fn int16x2(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Int2) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    Ok(Op::Int16x2 { op, signed: m.last() == "s16x2", d: o.destination(0, 32)?, a, b })
}

fn saturating(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    plain: Int2,
    saturated: Int2,
) -> Result<Op, SimError> {
    if !m.has("sat") {
        return int2(o, m, plain);
    }
    if m.last() != "s32" {
        return o.fail("`.sat` exists for .s32 only");
    }
    int2(o, m, saturated)
}

fn add(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    saturating(o, m, Int2::Add, Int2::AddSat)
}

fn sub(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    saturating(o, m, Int2::Sub, Int2::SubSat)
}

fn mul(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    match m.get(0) {
        "lo" => int2(o, m, Int2::MulLo),
        "hi" => int2(o, m, Int2::MulHi),
        _ => wide_product(o, m, false),
    }
}

fn mad(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    if m.get(0) == "wide" {
        return wide_product(o, m, true);
    }
    o.expect(4..=4)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let (a, b, c) = (o.source(1, bits)?, o.source(2, bits)?, o.source(3, bits)?);
    Ok(Op::Mad { hi: m.get(0) == "hi", ty, d: o.destination(0, bits)?, a, b, c })
}

fn wide_product(o: &mut Operands<'_>, m: &Modifiers<'_>, add: bool) -> Result<Op, SimError> {
    let count = if add { 4 } else { 3 };
    o.expect(count..=count)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    if bits == 64 {
        return o.fail("there is no 128-bit product");
    }
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    let c = if add { Some(o.source(3, 2 * bits)?) } else { None };
    Ok(Op::MulWide { ty, d: o.destination(0, 2 * bits)?, a, b, c })
}

fn sad(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let (a, b, c) = (o.source(1, bits)?, o.source(2, bits)?, o.source(3, bits)?);
    Ok(Op::Sad { ty, d: o.destination(0, bits)?, a, b, c })
}

fn int1(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Int1) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let a = o.source(1, bits)?;
    Ok(Op::Int1 { op, ty, d: o.destination(0, bits)?, a })
}

/// Results of counting instructions have 32 bits whatever the source.
fn count(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Int1) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let ty = int_type(m.last());
    let a = o.source(1, int_bits(ty))?;
    Ok(Op::Int1 { op, ty, d: o.destination(0, 32)?, a })
}

fn fns(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, base, n) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    Ok(Op::FindNthSet { d: o.destination(0, 32)?, a, base, n })
}

fn szext(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    let (wrap, signed) = (m.get(0) == "wrap", m.last() == "s32");
    Ok(Op::Extend { wrap, signed, d: o.destination(0, 32)?, a, b })
}

fn bmsk(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, 32)?, o.source(2, 32)?);
    Ok(Op::BitMask { wrap: m.get(0) == "wrap", d: o.destination(0, 32)?, a, b })
}

fn bfe(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let ty = int_type(m.last());
    let bits = int_bits(ty);
    let (a, pos, len) = (o.source(1, bits)?, o.source(2, 32)?, o.source(3, 32)?);
    Ok(Op::Bfe { ty, d: o.destination(0, bits)?, a, pos, len })
}

fn bfi(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(5..=5)?;
    let wide = m.last() == "b64";
    let bits = if wide { 64 } else { 32 };
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    let (pos, len) = (o.source(3, 32)?, o.source(4, 32)?);
    Ok(Op::Bfi { wide, d: o.destination(0, bits)?, a, b, pos, len })
}

fn dp4a(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    let (a_signed, b_signed) = (m.get(0) == "s32", m.get(1) == "s32");
    Ok(Op::Dp4a { a_signed, b_signed, d: o.destination(0, 32)?, a, b, c })
}

fn dp2a(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    let (a_signed, b_signed) = (m.get(1) == "s32", m.get(2) == "s32");
    let d = o.destination(0, 32)?;
    Ok(Op::Dp2a { high: m.get(0) == "hi", a_signed, b_signed, d, a, b, c })
}

/// Comparison named by a modifier; `lo ls hi hs` are unsigned whatever the type.
pub(super) fn compare(modifier: &str) -> Compare {
    match modifier {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" | "lo" => Compare::Lt,
        "le" | "ls" => Compare::Le,
        "gt" | "hi" => Compare::Gt,
        "ge" | "hs" => Compare::Ge,
        "equ" => Compare::Equ,
        "neu" => Compare::Neu,
        "ltu" => Compare::Ltu,
        "leu" => Compare::Leu,
        "gtu" => Compare::Gtu,
        "geu" => Compare::Geu,
        "num" => Compare::Num,
        _ => Compare::Nan,
    }
}

fn unsigned(ty: IntType) -> IntType {
    match ty {
        IntType::S16 => IntType::U16,
        IntType::S32 => IntType::U32,
        IntType::S64 => IntType::U64,
        other => other,
    }
}

fn int_compare_type(m: &Modifiers<'_>) -> IntType {
    let ty = int_type(m.last());
    if matches!(m.get(0), "lo" | "ls" | "hi" | "hs") {
        unsigned(ty)
    } else {
        ty
    }
}

fn setp(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let ty = int_compare_type(m);
    setp_of(o, m, CompareType::Int(ty), int_bits(ty))
}

/// `setp` of any type; shared with the floating-point rows.
pub(super) fn setp_of(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    ty: CompareType,
    bits: u32,
) -> Result<Op, SimError> {
    let combined = !m.get(1).is_empty();
    let count = if combined { 4 } else { 3 };
    o.expect(count..=count)?;
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    let combine = if combined { Some((bool_op(m.get(1)), o.predicate(3)?)) } else { None };
    let (p, q) = o.predicate_pair(0)?;
    let packed = matches!(ty, CompareType::Float(FloatType::F16x2 | FloatType::Bf16x2));
    if packed && q.is_none() {
        return o.fail("a packed comparison writes `p|q`");
    }
    Ok(Op::Setp { compare: compare(m.get(0)), ty, p, q, a, b, combine })
}

fn bool_op(modifier: &str) -> BoolOp {
    match modifier {
        "and" => BoolOp::And,
        "or" => BoolOp::Or,
        _ => BoolOp::Xor,
    }
}

fn set(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let ty = int_compare_type(m);
    set_of(o, m, CompareType::Int(ty), int_bits(ty))
}

/// `set` of any type; group 1 of the form is the result type.
pub(super) fn set_of(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    ty: CompareType,
    bits: u32,
) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.source(1, bits)?, o.source(2, bits)?);
    // A packed result and 1.0f are the "float" results; integers get all ones.
    let float_result = matches!(m.get(1), "f32" | "f16x2" | "bf16x2");
    Ok(Op::Set { compare: compare(m.get(0)), ty, float_result, d: o.destination(0, 32)?, a, b })
}

fn modifier_bits(modifier: &str) -> u32 {
    match modifier {
        "b16" | "u16" | "s16" | "f16" | "bf16" => 16,
        "b64" | "u64" | "s64" | "f64" => 64,
        _ => 32,
    }
}

fn selp(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let bits = modifier_bits(m.last());
    let (a, b, p) = (o.source(1, bits)?, o.source(2, bits)?, o.predicate(3)?);
    Ok(Op::Selp { wide: bits == 64, d: o.destination(0, bits)?, a, b, p })
}

fn slct(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let bits = modifier_bits(m.get(0));
    let (a, b, c) = (o.source(1, bits)?, o.source(2, bits)?, o.source(3, 32)?);
    let float = m.last() == "f32";
    Ok(Op::Slct { wide: bits == 64, float, d: o.destination(0, bits)?, a, b, c })
}

fn predicate_logic(o: &mut Operands<'_>, op: BoolOp) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, b) = (o.predicate(1)?, o.predicate(2)?);
    Ok(Op::PredicateLogic { op, d: o.predicate_destination(0)?, a, b })
}

fn predicate_not(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let a = o.predicate(1)?;
    let a = PredicateSource { negated: !a.negated, ..a };
    Ok(Op::PredicateMove { d: o.predicate_destination(0)?, a })
}

fn lop3(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(5..=5)?;
    let table = o.literal(4, 0..=255)? as u8;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    Ok(Op::Lop3 { table, d: o.destination(0, 32)?, a, b, c })
}

fn shf(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    let (left, wrap) = (m.get(0) == "l", m.get(1) == "wrap");
    Ok(Op::FunnelShift { left, wrap, d: o.destination(0, 32)?, a, b, c })
}

/// The shift amount has 32 bits for every type.
fn shift(o: &mut Operands<'_>, m: &Modifiers<'_>, op: Int2) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let ty = int_type(m.last());
    let (a, b) = (o.source(1, int_bits(ty))?, o.source(2, 32)?);
    Ok(Op::Int2 { op, ty, d: o.destination(0, int_bits(ty))?, a, b })
}

fn prmt(o: &mut Operands<'_>, mode: u8) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (a, b, c) = (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?);
    Ok(Op::Prmt { mode, d: o.destination(0, 32)?, a, b, c })
}
