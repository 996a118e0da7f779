//! Rows for bulk and tensor copies (PTX ISA 9.7.9.25.4, 9.7.9.25.5, 9.7.9.27).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{AsyncStore, AtomicOp, AtomicType, BulkExchange, BulkLoad, BulkOp, BulkStore};
use crate::program::{GlobalSide, MapField, Op, Reduction, ReplaceField, Space};

const fn row(form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class: Class::BulkCopy, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row("cp <async> <bulk> <shared::cluster|shared::cta> <global> <mbarrier::complete_tx::bytes> [multicast::cluster] [L2::cache_hint]", "9.7.9.25.4.1", load),
    row("cp <async> <bulk> <shared::cluster> <shared::cta> <mbarrier::complete_tx::bytes>", "9.7.9.25.4.1", exchange),
    row("cp <async> <bulk> <global> <shared::cta> <bulk_group> [L2::cache_hint]", "9.7.9.25.4.1", store),
    row("cp <reduce> <async> <bulk> <shared::cluster> <shared::cta> <mbarrier::complete_tx::bytes> <and|or|xor|add|inc|dec|min|max> <b32|u32|s32|u64|s64>", "9.7.9.25.4.2", exchange),
    row("cp <reduce> <async> <bulk> <global> <shared::cta> <bulk_group> [L2::cache_hint] <and|or|xor|add|inc|dec|min|max> [noftz] <f16|bf16|b32|u32|s32|b64|u64|s64|f32|f64>", "9.7.9.25.4.2", store),
    row("cp <async> <bulk> <prefetch> <L2> <global> [L2::cache_hint]", "9.7.9.25.4.3", prefetch),
    row("cp <async> <bulk> <commit_group>", "9.7.9.25.4.4", |o, _| group(o, BulkOp::Commit)),
    row("cp <async> <bulk> <wait_group> [read]", "9.7.9.25.4.5", wait_group),
    row("cp <async> <bulk> <tensor> <1d|2d|3d|4d|5d> <shared::cluster|shared::cta> <global> [tile] <mbarrier::complete_tx::bytes> [multicast::cluster] [cta_group::1] [L2::cache_hint]", "9.7.9.27.1.1", load_tile),
    row("cp <async> <bulk> <tensor> <1d|2d|3d|4d|5d> <global> <shared::cta> [tile] <bulk_group> [L2::cache_hint]", "9.7.9.27.1.1", store_tile),
    row("cp <reduce> <async> <bulk> <tensor> <1d|2d|3d|4d|5d> <global> <shared::cta> <add|min|max|inc|dec|and|or|xor> [tile] <bulk_group> [L2::cache_hint]", "9.7.9.27.1.2", store_tile),
    row("cp <async> <bulk> <prefetch> <tensor> <1d|2d|3d|4d|5d> <L2> <global> [tile] [L2::cache_hint]", "9.7.9.27.1.3", prefetch_tile),
    row("prefetch [const|param] <tensormap>", "9.7.9.15", prefetch_map),
    row("tensormap <replace> <tile> <global_address|rank|box_dim|global_dim|global_stride|element_stride|elemtype|interleave_layout|swizzle_mode|fill_mode> [global|shared::cta] <b1024> <b32|b64>", "9.7.9.28", replace_field),
    row("tensormap <cp_fenceproxy> <global> <shared::cta> <tensormap::generic> <release> <cta|cluster|gpu|sys> <sync> <aligned>", "9.7.13.16", publish_map),
    row("fence <proxy> <tensormap::generic> <release> <cta|cluster|gpu|sys>", "9.7.13.4", |o, _| {
        o.expect(0..=0)?;
        Ok(Op::Nothing)
    }),
    row("fence <proxy> <tensormap::generic> <acquire> <cta|cluster|gpu|sys>", "9.7.13.4", acquire_map),
    row("st <async> [weak] [shared::cluster] <mbarrier::complete_tx::bytes> [shared::cluster] [v2|v4] <b32|u32|s32|f32|b64|u64|s64|f64>", "9.7.9.12", async_store),
    row("red <async> [relaxed] [cluster] [shared::cluster] <mbarrier::complete_tx::bytes> [shared::cluster] <inc|dec|min|max|add|and|or|xor> <u32|s32|u64|b32>", "9.7.13.8", async_store),
];

fn group(o: &mut Operands<'_>, op: BulkOp) -> Result<Op, SimError> {
    o.expect(0..=0)?;
    Ok(Op::Bulk(op))
}

fn wait_group(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::Bulk(BulkOp::Wait { newest: o.literal(0, 0..=u32::MAX)? }))
}

/// Checks the number of operands, a cache policy at the end included.
fn expect(o: &mut Operands<'_>, m: &Modifiers<'_>, count: usize) -> Result<(), SimError> {
    let hinted = usize::from(m.has("L2::cache_hint"));
    o.expect(count + hinted..=count + hinted)?;
    if hinted == 1 {
        o.source(count, 64)?;
    }
    Ok(())
}

fn linear(o: &mut Operands<'_>, address: usize, bytes: usize) -> Result<GlobalSide, SimError> {
    let address = o.short_address(address)?;
    Ok(GlobalSide::Linear { address, bytes: o.source(bytes, 32)? })
}

fn tile(o: &mut Operands<'_>, m: &Modifiers<'_>, index: usize) -> Result<GlobalSide, SimError> {
    let dimensions =
        (1..=5u8).find(|rank| m.has(["1d", "2d", "3d", "4d", "5d"][usize::from(rank - 1)]));
    let rank = dimensions.unwrap_or(1);
    let (map, coordinates) = o.tensor_address(index, usize::from(rank))?;
    Ok(GlobalSide::Tile { map, coordinates, rank })
}

fn load_space(m: &Modifiers<'_>) -> Space {
    if m.has("shared::cluster") {
        Space::SharedCluster
    } else {
        Space::Shared
    }
}

/// The rest of a load: mbarrier and multicast mask at and after operand `index`.
fn finish_load(
    o: &mut Operands<'_>,
    m: &Modifiers<'_>,
    source: GlobalSide,
    index: usize,
) -> Result<Op, SimError> {
    let multicast = m.has("multicast::cluster");
    expect(o, m, index + 1 + usize::from(multicast))?;
    let space = load_space(m);
    if multicast && space == Space::Shared {
        return o.fail("a multicast needs a destination in shared::cluster");
    }
    let destination = o.short_address(0)?;
    let barrier = o.short_address(index)?;
    let multicast = if multicast { Some(o.source(index + 1, 16)?) } else { None };
    Ok(Op::Bulk(BulkOp::Load(BulkLoad { space, destination, source, barrier, multicast })))
}

fn load(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let source = linear(o, 1, 2)?;
    finish_load(o, m, source, 3)
}

fn load_tile(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let source = tile(o, m, 1)?;
    finish_load(o, m, source, 2)
}

fn reduction_op(m: &Modifiers<'_>) -> Option<AtomicOp> {
    [
        ("and", AtomicOp::And),
        ("or", AtomicOp::Or),
        ("xor", AtomicOp::Xor),
        ("add", AtomicOp::Add),
        ("inc", AtomicOp::Inc),
        ("dec", AtomicOp::Dec),
        ("min", AtomicOp::Min),
        ("max", AtomicOp::Max),
    ]
    .into_iter()
    .find_map(|(name, op)| m.has(name).then_some(op))
}

/// Operation and type of a reduction, where the form has one (PTX ISA 9.7.9.25.4.2, "Semantics").
fn reduction(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<Option<Reduction>, SimError> {
    let Some(op) = reduction_op(m) else { return Ok(None) };
    let name = m.last();
    let (ty, float) = match name {
        "f16" => (AtomicType::F16, true),
        "bf16" => (AtomicType::Bf16, true),
        "f32" => (AtomicType::F32, true),
        "f64" => (AtomicType::F64, true),
        "s32" => (AtomicType::S32, false),
        "s64" => (AtomicType::S64, false),
        "u64" | "b64" => (AtomicType::U64, false),
        _ => (AtomicType::U32, false),
    };
    let bits = name.starts_with('b') && !float;
    let exists = match op {
        AtomicOp::Add => !bits,
        AtomicOp::Min | AtomicOp::Max => !bits && !float,
        AtomicOp::Inc | AtomicOp::Dec => name == "u32",
        _ => bits,
    };
    if !exists {
        return o.fail(format!("this reduction is not simulated for `.{name}`"));
    }
    if m.has("noftz") != matches!(ty, AtomicType::F16 | AtomicType::Bf16) {
        return o.fail("`.noftz` belongs to the 16-bit float types and only to them");
    }
    Ok(Some(Reduction { op, ty }))
}

fn exchange(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(4..=4)?;
    let (destination, source) = (o.short_address(0)?, o.short_address(1)?);
    let (bytes, barrier) = (o.source(2, 32)?, o.short_address(3)?);
    let reduction = reduction(o, m)?;
    let copy = BulkExchange { destination, source, bytes, barrier, reduction };
    Ok(Op::Bulk(BulkOp::Exchange(copy)))
}

fn store(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    expect(o, m, 3)?;
    let (destination, source) = (linear(o, 0, 2)?, o.short_address(1)?);
    let reduction = reduction(o, m)?;
    Ok(Op::Bulk(BulkOp::Store(BulkStore { destination, source, reduction })))
}

/// The element type of a tile's reduction is that of its tensor map.
fn store_tile(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    expect(o, m, 2)?;
    let (destination, source) = (tile(o, m, 0)?, o.short_address(1)?);
    let reduction = reduction_op(m).map(|op| Reduction { op, ty: AtomicType::U32 });
    Ok(Op::Bulk(BulkOp::Store(BulkStore { destination, source, reduction })))
}

fn prefetch(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    expect(o, m, 2)?;
    Ok(Op::Bulk(BulkOp::Prefetch(linear(o, 0, 1)?)))
}

fn prefetch_tile(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    expect(o, m, 1)?;
    Ok(Op::Bulk(BulkOp::Prefetch(tile(o, m, 0)?)))
}

fn prefetch_map(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    if !m.get(0).is_empty() {
        return o.fail("prefetch of a tensor map is simulated for generic addresses");
    }
    Ok(Op::Bulk(BulkOp::CheckMap { map: o.short_address(0)? }))
}

fn replace_field(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let field = match m.get(2) {
        "global_address" => MapField::Address,
        "rank" => MapField::Rank,
        "box_dim" => MapField::Box,
        "global_dim" => MapField::Dim,
        "global_stride" => MapField::Stride,
        "element_stride" => MapField::ElementStride,
        "elemtype" => MapField::Type,
        "interleave_layout" => MapField::Interleave,
        "swizzle_mode" => MapField::Swizzle,
        _ => MapField::Fill,
    };
    let listed = field.entries() > 1;
    o.expect(2 + usize::from(listed)..=2 + usize::from(listed))?;
    let bits = if field.wide() { 64 } else { 32 };
    if m.last() != format!("b{bits}") {
        return o.fail(format!("this field has {bits} bits"));
    }
    let space = match m.get(3) {
        "global" => Space::Global,
        "shared::cta" => Space::Shared,
        _ => Space::Generic,
    };
    let ordinal = if listed { o.literal(1, 0..=field.entries() - 1)? as u8 } else { 0 };
    let map = o.short_address(0)?;
    let value = o.source(1 + usize::from(listed), bits)?;
    Ok(Op::Bulk(BulkOp::ReplaceField(ReplaceField { space, map, field, ordinal, value })))
}

fn publish_map(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    o.literal(2, 128..=128)?;
    let (destination, source) = (o.short_address(0)?, o.short_address(1)?);
    Ok(Op::Bulk(BulkOp::PublishMap { destination, source }))
}

fn acquire_map(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(2..=2)?;
    o.literal(1, 128..=128)?;
    Ok(Op::Bulk(BulkOp::CheckMap { map: o.short_address(0)? }))
}

fn async_store(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(3..=3)?;
    let bytes = if m.last().ends_with("64") { 8 } else { 4 };
    let count = if m.has("v2") {
        2
    } else if m.has("v4") {
        4
    } else {
        1
    };
    if !m.has("shared::cluster") {
        return o.fail("asynchronous stores are simulated for `.shared::cluster` addresses");
    }
    let (destination, barrier) = (o.short_address(0)?, o.short_address(2)?);
    let registers = o.source_vector::<4>(1, count, u32::from(bytes) * 8)?;
    let reduction = reduction(o, m)?;
    let count = count as u8;
    let store = AsyncStore { destination, barrier, registers, bytes, count, reduction };
    Ok(Op::Bulk(BulkOp::AsyncStore(store)))
}
