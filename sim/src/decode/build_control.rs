//! Rows for control flow and barriers (PTX ISA 9.7.12, 9.7.13, 9.7.19).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{BarrierKind, BarrierUse, Op};

const fn row(class: Class, form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(Class::Branch, "bra [uni]", "9.7.12.3", bra),
    row(Class::Branch, "brx <idx> [uni]", "9.7.12.4", brx),
    row(Class::Branch, "ret [uni]", "9.7.12.6", |o, _| nullary(o, Op::Exit)),
    row(Class::Branch, "exit", "9.7.12.7", |o, _| nullary(o, Op::Exit)),
    row(Class::Branch, "trap", "9.7.19.4", |o, _| nullary(o, Op::Trap)),
    row(Class::Barrier, "bar [cta] <sync>", "9.7.13.1", |o, _| barrier(o, true)),
    row(Class::Barrier, "barrier [cta] <sync> [aligned]", "9.7.13.1", |o, m| {
        barrier(o, m.has("aligned"))
    }),
    row(Class::Barrier, "bar [cta] <arrive>", "9.7.13.1", |o, _| arrive(o, true)),
    row(Class::Barrier, "barrier [cta] <arrive> [aligned]", "9.7.13.1", |o, m| {
        arrive(o, m.has("aligned"))
    }),
    row(Class::Barrier, "bar [cta] <red> <popc> <u32>", "9.7.13.1", reduce),
    row(Class::Barrier, "bar [cta] <red> <and|or> <pred>", "9.7.13.1", reduce),
    row(Class::Barrier, "barrier [cta] <red> <popc> [aligned] <u32>", "9.7.13.1", reduce),
    row(Class::Barrier, "barrier [cta] <red> <and|or> [aligned] <pred>", "9.7.13.1", reduce),
    row(Class::Barrier, "bar <warp> <sync>", "9.7.13.2", warp_barrier),
    row(Class::Other, "nanosleep <u32>", "9.7.19.1", nanosleep),
    row(Class::Other, "griddepcontrol <wait|launch_dependents>", "9.7.13.13", |o, _| {
        nullary(o, Op::Nothing)
    }),
];

fn nullary(o: &mut Operands<'_>, op: Op) -> Result<Op, SimError> {
    o.expect(0..=0)?;
    Ok(op)
}

fn bra(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::Branch { target: o.label(0)?, uniform: m.has("uni") })
}

fn brx(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let index = o.source(0, 32)?;
    Ok(Op::BranchIndexed { index, table: o.table(1)?, uniform: m.has("uni") })
}

fn barrier(o: &mut Operands<'_>, aligned: bool) -> Result<Op, SimError> {
    o.expect(1..=2)?;
    let id = o.source(0, 32)?;
    let threads = if o.len() == 2 { Some(o.source(1, 32)?) } else { None };
    Ok(Op::Barrier(BarrierUse { id, threads, aligned, kind: BarrierKind::Sync }))
}

fn arrive(o: &mut Operands<'_>, aligned: bool) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let (id, threads) = (o.source(0, 32)?, o.source(1, 32)?);
    Ok(Op::Barrier(BarrierUse { id, threads: Some(threads), aligned, kind: BarrierKind::Arrive }))
}

fn reduce(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=4)?;
    let id = o.source(1, 32)?;
    let threads = if o.len() == 4 { Some(o.source(2, 32)?) } else { None };
    let p = o.predicate(o.len() - 1)?;
    let kind = if m.get(2) == "popc" {
        BarrierKind::Popc { d: o.destination(0, 32)?, p }
    } else {
        BarrierKind::Reduce { all: m.get(2) == "and", d: o.predicate_destination(0)?, p }
    };
    // `bar.red` is aligned by definition, `barrier.red` only when it says so.
    let aligned = m.has("aligned") || !o.opcode().starts_with("barrier");
    Ok(Op::Barrier(BarrierUse { id, threads, aligned, kind }))
}

fn warp_barrier(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::WarpBarrier { members: o.source(0, 32)? })
}

fn nanosleep(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    o.source(0, 32)?;
    Ok(Op::Nanosleep)
}
