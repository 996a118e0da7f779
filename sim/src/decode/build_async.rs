//! Rows for clusters and proxy fences (PTX ISA 9.7.9.22, 9.7.9.23, 9.7.13.3, 9.7.13.4).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{ClusterOp, Op};

const fn row(class: Class, form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(Class::MovCvt, "mapa [shared::cluster] <u32|u64>", "9.7.9.22", mapa),
    row(Class::MovCvt, "getctarank [shared::cluster] <u32|u64>", "9.7.9.23", getctarank),
    row(
        Class::Barrier,
        "barrier <cluster> <arrive> [release|relaxed] [aligned]",
        "9.7.13.3",
        |o, m| {
            let (relaxed, aligned) = (m.has("relaxed"), m.has("aligned"));
            nullary(o, Op::Cluster(ClusterOp::Arrive { relaxed, aligned }))
        },
    ),
    row(Class::Barrier, "barrier <cluster> <wait> [acquire] [aligned]", "9.7.13.3", |o, m| {
        nullary(o, Op::Cluster(ClusterOp::Wait { aligned: m.has("aligned") }))
    }),
    row(
        Class::Barrier,
        "fence <proxy> <async> [global|shared::cta|shared::cluster]",
        "9.7.13.4",
        |o, _| nullary(o, Op::ProxyFence),
    ),
];

fn nullary(o: &mut Operands<'_>, op: Op) -> Result<Op, SimError> {
    o.expect(0..=0)?;
    Ok(op)
}

/// Width of the addresses and whether they are generic, which 32-bit ones cannot be.
fn address_kind(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<(bool, bool), SimError> {
    let (wide, generic) = (m.last() == "u64", m.get(0).is_empty());
    if generic && !wide {
        return o.fail("32-bit generic addresses do not exist with .address_size 64");
    }
    Ok((wide, generic))
}

fn mapa(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let (wide, generic) = address_kind(o, m)?;
    let bits = if wide { 64 } else { 32 };
    let (a, rank) = (o.source(1, bits)?, o.source(2, 32)?);
    let d = o.destination(0, bits)?;
    Ok(Op::Cluster(ClusterOp::MapAddress { wide, generic, d, a, rank }))
}

fn getctarank(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let (wide, _) = address_kind(o, m)?;
    let a = o.source(1, if wide { 64 } else { 32 })?;
    Ok(Op::Cluster(ClusterOp::GetRank { wide, d: o.destination(0, 32)?, a }))
}
