//! Rows for clusters, mbarriers and their fences (PTX ISA 9.7.9.22, 9.7.9.23, 9.7.13.3, 9.7.13.4,
//! 9.7.13.15).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{ClusterOp, MbarrierArrive, MbarrierOp, MbarrierWait, Op, Space};

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
    row(Class::Barrier, "fence <mbarrier_init> <release> <cluster>", "9.7.13.4", |o, _| {
        nullary(o, Op::MbarrierInitFence)
    }),
    row(Class::Mbarrier, "mbarrier <init> [shared|shared::cta] <b64>", "9.7.13.15.9", init),
    row(Class::Mbarrier, "mbarrier <inval> [shared|shared::cta] <b64>", "9.7.13.15.10", inval),
    row(Class::Mbarrier, "mbarrier <expect_tx|complete_tx> [relaxed] [cta|cluster] [shared|shared::cta|shared::cluster] <b64>", "9.7.13.15.11", bytes),
    row(Class::Mbarrier, "mbarrier <arrive|arrive_drop> [expect_tx] [release|relaxed] [cta|cluster] [shared|shared::cta|shared::cluster] <b64>", "9.7.13.15.13", arrive),
    row(Class::Mbarrier, "mbarrier <arrive|arrive_drop> <noComplete> [release] [cta] [shared|shared::cta] <b64>", "9.7.13.15.13", arrive),
    row(Class::Mbarrier, "mbarrier <test_wait|try_wait> [parity] [acquire|relaxed] [cta|cluster] [shared|shared::cta] <b64>", "9.7.13.15.16", wait),
    row(Class::Mbarrier, "mbarrier <pending_count> <b64>", "9.7.13.15.17", pending_count),
    row(Class::Mbarrier, "cp <async> <mbarrier> <arrive> [noinc] [shared|shared::cta] <b64>", "9.7.13.15.15", copy_arrive),
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

/// State space of an mbarrier's address: the block's own window, the cluster's, or generic.
fn space(m: &Modifiers<'_>) -> Space {
    if m.has("shared::cluster") {
        Space::SharedCluster
    } else if m.has("shared") || m.has("shared::cta") {
        Space::Shared
    } else {
        Space::Generic
    }
}

/// `.sem` and `.scope` come together.
fn check_order(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<(), SimError> {
    let order = m.has("release") || m.has("acquire") || m.has("relaxed");
    if order != (m.has("cta") || m.has("cluster")) {
        return o.fail("a memory order needs a scope, and a scope an order");
    }
    Ok(())
}

fn init(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let (address, count) = (o.address(0)?, o.source(1, 32)?);
    Ok(Op::Mbarrier(MbarrierOp::Init { space: space(m), address, count }))
}

fn inval(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::Mbarrier(MbarrierOp::Invalidate { space: space(m), address: o.address(0)? }))
}

fn bytes(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    check_order(o, m)?;
    let (address, bytes) = (o.address(0)?, o.source(1, 32)?);
    let complete = m.get(0) == "complete_tx";
    Ok(Op::Mbarrier(MbarrierOp::Bytes { space: space(m), address, bytes, complete }))
}

fn arrive(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let (expect_bytes, no_complete) = (m.has("expect_tx"), m.has("noComplete"));
    // Only a plain arrival may leave its count out, and only its state.
    let has_state = !matches!(o.len(), 1) && o.is_address(1);
    let first = usize::from(has_state);
    let counted = expect_bytes || no_complete;
    o.expect(first + 1 + usize::from(counted)..=first + 2)?;
    check_order(o, m)?;
    let space = space(m);
    if space != Space::SharedCluster && !has_state {
        return o.fail("the state is missing; `_` discards it");
    }
    if space == Space::SharedCluster && has_state && !o.is_sink(0) {
        return o.fail("an arrival in another block has no state: `_`");
    }
    let address = o.address(first)?;
    let count = if o.len() > first + 1 { Some(o.source(first + 1, 32)?) } else { None };
    let state = if has_state && !o.is_sink(0) { Some(o.destination(0, 64)?) } else { None };
    Ok(Op::Mbarrier(MbarrierOp::Arrive(MbarrierArrive {
        space,
        address,
        count,
        state,
        expect_bytes,
        no_complete,
        drop: m.get(0) == "arrive_drop",
        relaxed: m.has("relaxed"),
    })))
}

/// The optional time limit of `try_wait` is a hint: the simulated wait has no clock.
fn wait(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let timed = m.get(0) == "try_wait";
    o.expect(3..=3 + usize::from(timed))?;
    check_order(o, m)?;
    let parity = m.has("parity");
    let address = o.address(1)?;
    let phase = o.source(2, if parity { 32 } else { 64 })?;
    if o.len() == 4 {
        o.source(3, 32)?;
    }
    let d = o.predicate_destination(0)?;
    let (space, relaxed) = (space(m), m.has("relaxed"));
    Ok(Op::Mbarrier(MbarrierOp::Wait(MbarrierWait { space, address, d, parity, phase, relaxed })))
}

fn pending_count(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    let state = o.source(1, 64)?;
    Ok(Op::Mbarrier(MbarrierOp::PendingCount { d: o.destination(0, 32)?, state }))
}

fn copy_arrive(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    let (space, increment) = (space(m), !m.has("noinc"));
    Ok(Op::Mbarrier(MbarrierOp::CopyArrive { space, address: o.address(0)?, increment }))
}
