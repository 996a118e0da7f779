//! Rows for warp collectives (PTX ISA 9.7.9.6 and 9.7.13).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{Op, ReduxOp, ShuffleMode, VoteMode};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::Shfl, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("shfl <sync> <up|down|bfly|idx> <b32>", "9.7.9.6", shfl),
    row("vote <sync> <all|any|uni> <pred>", "9.7.13.9", vote),
    row("vote <sync> <ballot> <b32>", "9.7.13.9", ballot),
    row("match <any|all> <sync> <b32|b64>", "9.7.13.10", match_sync),
    row("redux <sync> <add|min|max> <u32|s32>", "9.7.13.12", redux),
    row("redux <sync> <and|or|xor> <b32>", "9.7.13.12", redux),
    row("redux <sync> <min|max> [abs] [NaN] <f32>", "9.7.13.12", redux_float),
    row("activemask <b32>", "9.7.13.11", activemask),
    row("elect <sync>", "9.7.13.14", elect),
];

fn shfl(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(5..=5)?;
    let mode = match m.get(1) {
        "up" => ShuffleMode::Up,
        "down" => ShuffleMode::Down,
        "bfly" => ShuffleMode::Butterfly,
        _ => ShuffleMode::Index,
    };
    let (a, b, c, members) =
        (o.source(1, 32)?, o.source(2, 32)?, o.source(3, 32)?, o.source(4, 32)?);
    let (d, p) = o.destination_and_predicate(0)?;
    Ok(Op::Shuffle { mode, d, p, a, b, c, members })
}

fn vote(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let mode = match m.get(1) {
        "all" => VoteMode::All,
        "any" => VoteMode::Any,
        _ => VoteMode::Uniform,
    };
    let (p, members) = (o.predicate(1)?, o.source(2, 32)?);
    Ok(Op::Vote { mode, d: o.predicate_destination(0)?, p, members })
}

fn ballot(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (p, members) = (o.predicate(1)?, o.source(2, 32)?);
    Ok(Op::Vote { mode: VoteMode::Ballot, d: o.destination(0, 32)?, p, members })
}

fn match_sync(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (all, wide) = (m.get(0) == "all", m.last() == "b64");
    let (a, members) = (o.source(1, if wide { 64 } else { 32 })?, o.source(2, 32)?);
    let (d, p) = o.destination_and_predicate(0)?;
    if p.is_some() && !all {
        return o.fail("match.any has no predicate result");
    }
    Ok(Op::Match { all, wide, d, p, a, members })
}

fn redux(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let op = match m.get(1) {
        "add" => ReduxOp::Add,
        "min" => ReduxOp::Min,
        "max" => ReduxOp::Max,
        "and" => ReduxOp::And,
        "or" => ReduxOp::Or,
        _ => ReduxOp::Xor,
    };
    let (a, members) = (o.source(1, 32)?, o.source(2, 32)?);
    Ok(Op::Redux { op, signed: m.last() == "s32", d: o.destination(0, 32)?, a, members })
}

fn redux_float(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (a, members) = (o.source(1, 32)?, o.source(2, 32)?);
    let (max, magnitudes, nan) = (m.get(1) == "max", m.has("abs"), m.has("NaN"));
    Ok(Op::ReduxFloat { max, magnitudes, nan, d: o.destination(0, 32)?, a, members })
}

fn activemask(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::ActiveMask { d: o.destination(0, 32)? })
}

fn elect(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let members = o.source(1, 32)?;
    match o.destination_and_predicate(0)? {
        (d, Some(p)) => Ok(Op::Elect { d, p, members }),
        _ => o.fail("elect.sync writes `d|p`"),
    }
}
