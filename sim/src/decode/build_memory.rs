//! Rows for loads, stores, atomics, fences, prefetches and `cp.async` (PTX ISA 9.7.9, 9.7.13).

use super::operands::Operands;
use super::table::{Builder, Modifiers, Row};
use crate::counters::Class;
use crate::error::SimError;
use crate::program::{
    Access, Atomic, AtomicOp, AtomicType, CpAsync, MemoryOrder, Op, Scope, Space,
};

const fn row(class: Class, form: &'static str, section: &'static str, build: Builder) -> Row {
    Row { form, class, section, build }
}

pub(super) const ROWS: &[Row] = &[
    row(Class::Ldg, "ld {weak|volatile|relaxed|acquire} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster|local|param|param::entry|const} [ca|cg|cs|lu|cv] [nc] [L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate] [L2::evict_normal|L2::evict_first|L2::evict_last] [L2::cache_hint] [L2::64B|L2::128B|L2::256B] [v2|v4|v8] <b8|u8|s8|b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64>", "9.7.9.8", load),
    row(Class::Stg, "st {weak|volatile|relaxed|release} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster|local} [wb|cg|cs|wt] [L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate] [L2::evict_normal|L2::evict_first|L2::evict_last] [L2::cache_hint] [v2|v4|v8] <b8|u8|s8|b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64>", "9.7.9.11", store),
    row(Class::Ldg, "ld {weak|volatile|relaxed|acquire} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster|local|param|param::entry|const} [L2::cache_hint] <b128>", "9.7.9.8", |o, m| wide(o, m, false)),
    row(Class::Stg, "st {weak|volatile|relaxed|release} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster|local} [L2::cache_hint] <b128>", "9.7.9.11", |o, m| wide(o, m, true)),
    row(Class::Atomic, "atom {relaxed|acquire|release|acq_rel} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster} {exch|cas} [L2::cache_hint] <b128>", "9.7.13.5", atom_wide),
    row(Class::Atomic, "atom {relaxed|acquire|release|acq_rel} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster} {add|min|max|inc|dec|and|or|xor|exch} [noftz] [L2::cache_hint] [v2|v4|v8] <b32|u32|s32|b64|u64|s64|f32|f64|f16|bf16|f16x2|bf16x2>", "9.7.13.5", |o, m| atom(o, m, false)),
    row(Class::Atomic, "atom {relaxed|acquire|release|acq_rel} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster} {cas} [noftz] [L2::cache_hint] <b16|b32|u32|s32|b64|u64|s64>", "9.7.13.5", |o, m| atom(o, m, true)),
    row(Class::Atomic, "red {relaxed|release} {cta|cluster|gpu|sys} {global|shared|shared::cta|shared::cluster} {add|min|max|inc|dec|and|or|xor} [noftz] [L2::cache_hint] [v2|v4|v8] <b32|u32|s32|b64|u64|s64|f32|f64|f16|bf16|f16x2|bf16x2>", "9.7.13.7", red),
    row(Class::Barrier, "membar <cta|gl|sys>", "9.7.13.4", fence),
    row(Class::Barrier, "fence [sc|acq_rel|acquire|release] <cta|cluster|gpu|sys>", "9.7.13.4", fence),
    row(Class::Other, "prefetch [global|local] <L1|L2>", "9.7.9.15", prefetch),
    row(Class::Other, "prefetch <global> <L2::evict_last|L2::evict_normal>", "9.7.9.15", prefetch),
    row(Class::Other, "createpolicy <fractional> <L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged> [L2::evict_unchanged|L2::evict_first] <b64>", "9.7.9.18", createpolicy),
    row(Class::CpAsync, "cp <async> <ca|cg> <shared|shared::cta> <global> [L2::cache_hint] [L2::64B|L2::128B|L2::256B]", "9.7.9.25.3.1", cp_async),
    row(Class::CpAsync, "cp <async> <commit_group>", "9.7.9.25.3.2", |o, _| nullary(o, Op::CpAsyncCommit)),
    row(Class::CpAsync, "cp <async> <wait_group>", "9.7.9.25.3.3", wait_group),
    row(Class::CpAsync, "cp <async> <wait_all>", "9.7.9.25.3.3", |o, _| nullary(o, Op::CpAsyncWaitAll)),
];

fn nullary(o: &mut Operands<'_>, op: Op) -> Result<Op, SimError> {
    o.expect(0..=0)?;
    Ok(op)
}

fn scope(modifier: &str) -> Scope {
    match modifier {
        "cta" => Scope::Block,
        "cluster" => Scope::Cluster,
        _ => Scope::Device,
    }
}

fn fence(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    nullary(o, Op::Fence { scope: scope(m.last()) })
}

/// Order of an access whose first two groups are semantics and scope. Strong semantics need a
/// scope, weak ones have none (PTX ISA 9.7.9.8); `.volatile` is relaxed at system scope.
fn memory_order(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<MemoryOrder, SimError> {
    let (semantics, named) = (m.get(0), m.get(1));
    let scoped = matches!(semantics, "relaxed" | "acquire" | "release");
    if scoped == named.is_empty() {
        return o.fail("`.relaxed`, `.acquire` and `.release` have a scope, and only they");
    }
    Ok(MemoryOrder {
        scope: (scoped || semantics == "volatile").then(|| scope(named)),
        acquire: semantics == "acquire",
        release: semantics == "release",
    })
}

/// Order of an `atom` or `red`: relaxed at device scope unless it says otherwise.
fn atomic_order(m: &Modifiers<'_>) -> MemoryOrder {
    MemoryOrder {
        scope: Some(scope(m.get(1))),
        acquire: matches!(m.get(0), "acquire" | "acq_rel"),
        release: matches!(m.get(0), "release" | "acq_rel"),
    }
}

fn space(modifier: &str) -> Space {
    match modifier {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "shared::cluster" => Space::SharedCluster,
        "local" => Space::Local,
        "param" | "param::entry" => Space::Param,
        "const" => Space::Const,
        _ => Space::Generic,
    }
}

fn element_bytes(ty: &str) -> u8 {
    match ty {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" => 2,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => 4,
    }
}

fn vector_length(modifier: &str) -> u8 {
    match modifier {
        "v2" => 2,
        "v4" => 4,
        "v8" => 8,
        _ => 1,
    }
}

/// Checks the trailing cache-policy operand, which has no effect on results.
fn cache_policy(o: &mut Operands<'_>, m: &Modifiers<'_>, index: usize) -> Result<(), SimError> {
    let hinted = m.has("L2::cache_hint");
    let count = index + usize::from(hinted);
    o.expect(count..=count)?;
    if hinted {
        o.source(index, 64)?;
    }
    Ok(())
}

fn check_vector(o: &Operands<'_>, bytes: u8, count: u8) -> Result<(), SimError> {
    if u32::from(bytes) * u32::from(count) > 32 || (count == 8 && bytes != 4) {
        return o.fail("no vector of this length and type");
    }
    Ok(())
}

/// Class of a load (or the store) by its space.
fn class_of(space: Space, [global, shared]: [Class; 2]) -> Class {
    match space {
        Space::Global | Space::Generic => global,
        Space::Shared | Space::SharedCluster => shared,
        _ => Class::Other,
    }
}

/// A load or store of 16 bytes in one register: two aligned words of eight bytes.
fn wide(o: &mut Operands<'_>, m: &Modifiers<'_>, store: bool) -> Result<Op, SimError> {
    let space = space(m.get(2));
    cache_policy(o, m, 2)?;
    let order = memory_order(o, m)?;
    let address = o.address(usize::from(!store))?;
    let mut registers = [0; 8];
    let access = |registers| Access {
        space,
        address,
        bytes: 8,
        count: 2,
        signed: false,
        wide: true,
        order,
        registers,
    };
    if store {
        registers[..2].copy_from_slice(&o.source_pair(1)?);
        o.class = Some(class_of(space, [Class::Stg, Class::Sts]));
        return Ok(Op::Store(access(registers)));
    }
    registers[..2].copy_from_slice(&o.destination_pair(0)?);
    o.class = Some(class_of(space, [Class::Ldg, Class::Lds]));
    Ok(Op::Load(access(registers)))
}

/// The parts of the 16-byte operands lie in `operands`: operand or comparand, then replacement.
fn atom_wide(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let cas = m.get(3) == "cas";
    if !cas && m.get(3) != "exch" {
        return o.fail("atomics of 16 bytes are `.exch` and `.cas`");
    }
    cache_policy(o, m, if cas { 4 } else { 3 })?;
    let address = o.address(1)?;
    let (mut operands, mut old) = ([0; 8], [0; 8]);
    operands[..2].copy_from_slice(&o.source_pair(2)?);
    if cas {
        operands[2..4].copy_from_slice(&o.source_pair(3)?);
    }
    old[..2].copy_from_slice(&o.destination_pair(0)?);
    Ok(Op::Atomic(Atomic {
        op: atomic_op(m.get(3)),
        ty: AtomicType::B128,
        space: space(m.get(2)),
        order: atomic_order(m),
        address,
        old: Some(old),
        operands,
        swap: operands[0],
        count: 1,
    }))
}

fn load(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let space = space(m.get(2));
    let (bytes, count) = (element_bytes(m.last()), vector_length(m.get(9)));
    check_vector(o, bytes, count)?;
    cache_policy(o, m, 2)?;
    let address = o.address(1)?;
    let bits = u32::from(bytes) * 8;
    let (registers, wide) = o.load_registers(0, usize::from(count), bits)?;
    o.class = Some(class_of(space, [Class::Ldg, Class::Lds]));
    let signed = m.last().starts_with('s');
    let order = memory_order(o, m)?;
    Ok(Op::Load(Access { space, address, bytes, count, signed, wide, order, registers }))
}

fn store(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let space = space(m.get(2));
    let (bytes, count) = (element_bytes(m.last()), vector_length(m.get(7)));
    check_vector(o, bytes, count)?;
    cache_policy(o, m, 2)?;
    let address = o.address(0)?;
    let bits = u32::from(bytes) * 8;
    let (registers, wide) = o.store_registers(1, usize::from(count), bits)?;
    o.class = Some(class_of(space, [Class::Stg, Class::Sts]));
    let (signed, order) = (false, memory_order(o, m)?);
    Ok(Op::Store(Access { space, address, bytes, count, signed, wide, order, registers }))
}

fn atomic_op(modifier: &str) -> AtomicOp {
    match modifier {
        "add" => AtomicOp::Add,
        "min" => AtomicOp::Min,
        "max" => AtomicOp::Max,
        "inc" => AtomicOp::Inc,
        "dec" => AtomicOp::Dec,
        "and" => AtomicOp::And,
        "or" => AtomicOp::Or,
        "xor" => AtomicOp::Xor,
        "cas" => AtomicOp::Cas,
        _ => AtomicOp::Exch,
    }
}

fn atomic_type(modifier: &str) -> AtomicType {
    match modifier {
        "b16" => AtomicType::U16,
        "s32" => AtomicType::S32,
        "b64" | "u64" => AtomicType::U64,
        "s64" => AtomicType::S64,
        "f32" => AtomicType::F32,
        "f64" => AtomicType::F64,
        "f16" => AtomicType::F16,
        "bf16" => AtomicType::Bf16,
        "f16x2" => AtomicType::F16x2,
        "bf16x2" => AtomicType::Bf16x2,
        _ => AtomicType::U32,
    }
}

/// Which operations exist for which types (PTX ISA 9.7.13.5, "Semantics").
fn check_atomic(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<(), SimError> {
    let (op, ty) = (m.get(3), m.last());
    if op.is_empty() {
        return o.fail("an atomic names its operation, `.add` for example");
    }
    let exists = match op {
        "add" => !ty.starts_with('b') || ty.starts_with("bf"),
        "min" | "max" => ty.starts_with('u') || ty.starts_with('s'),
        "inc" | "dec" => ty == "u32",
        _ => ty.starts_with('b') && !ty.starts_with("bf"),
    };
    let typed_cas = op == "cas" && matches!(ty, "u32" | "s32" | "u64" | "s64");
    if !(exists || typed_cas) {
        return o.fail(format!("`.{op}` does not exist for `.{ty}`"));
    }
    let half = matches!(ty, "f16" | "bf16" | "f16x2" | "bf16x2");
    if half != m.has("noftz") {
        return o.fail("`.noftz` belongs to the 16-bit float types and only to them");
    }
    Ok(())
}

/// Elements of a vector atomic (PTX ISA 9.7.13.5, `.vec_16_bit`, `.vec_32_bit`), 1 without.
fn atomic_elements(o: &Operands<'_>, m: &Modifiers<'_>) -> Result<u8, SimError> {
    let count = vector_length(m.get(6));
    let most = match m.last() {
        "f32" | "f16x2" | "bf16x2" => 4,
        "f16" | "bf16" => 8,
        _ => 1,
    };
    if count > most || (count > 1 && (m.get(3) != "add" || m.get(2) != "global")) {
        return o.fail("vector atomics are `.global.add` of up to 16 bytes of f32, f16 or bf16");
    }
    Ok(count)
}

fn atom(o: &mut Operands<'_>, m: &Modifiers<'_>, cas: bool) -> Result<Op, SimError> {
    check_atomic(o, m)?;
    cache_policy(o, m, if cas { 4 } else { 3 })?;
    let ty = atomic_type(m.last());
    let bits = ty.bytes() * 8;
    let count = if cas { 1 } else { atomic_elements(o, m)? };
    let address = o.address(1)?;
    let operands = o.source_vector::<8>(2, usize::from(count), bits)?;
    let swap = if cas { o.source(3, bits)? } else { operands[0] };
    Ok(Op::Atomic(Atomic {
        op: atomic_op(m.get(3)),
        ty,
        space: space(m.get(2)),
        order: atomic_order(m),
        address,
        old: Some(o.destination_vector::<8>(0, usize::from(count), bits)?),
        operands,
        swap,
        count,
    }))
}

fn red(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    check_atomic(o, m)?;
    cache_policy(o, m, 2)?;
    let ty = atomic_type(m.last());
    let count = atomic_elements(o, m)?;
    let address = o.address(0)?;
    let operands = o.source_vector::<8>(1, usize::from(count), ty.bytes() * 8)?;
    Ok(Op::Atomic(Atomic {
        op: atomic_op(m.get(3)),
        ty,
        space: space(m.get(2)),
        order: atomic_order(m),
        address,
        old: None,
        operands,
        swap: operands[0],
        count,
    }))
}

/// A hint: the address is not dereferenced, so it is not checked either.
fn prefetch(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    o.address(0)?;
    Ok(Op::Nothing)
}

/// The policy's value only ever reaches cache hints, which have no effect on results.
fn createpolicy(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=2)?;
    if o.len() == 2 {
        o.source(1, 32)?;
    }
    let a = o.constant(0, 64)?;
    Ok(Op::Move { wide: true, d: o.destination(0, 64)?, a })
}

fn cp_async(o: &mut Operands<'_>, m: &Modifiers<'_>) -> Result<Op, SimError> {
    let hinted = usize::from(m.has("L2::cache_hint"));
    o.expect(3 + hinted..=4 + hinted)?;
    let bytes = o.literal(2, 4..=16)? as u8;
    if !matches!((bytes, m.get(1)), (16, _) | (4 | 8, "ca")) {
        return o.fail("cp.async.ca copies 4, 8 or 16 bytes, cp.async.cg 16");
    }
    let (destination, source) = (o.address(0)?, o.address(1)?);
    let (mut source_bytes, mut ignore_source) = (None, None);
    if o.len() == 4 + hinted {
        // PTX tells the two optional operands apart by type: predicate or 32-bit size.
        if o.register_bits(3) == Some(1) {
            ignore_source = Some(o.predicate(3)?);
        } else {
            source_bytes = Some(o.source(3, 32)?);
        }
    }
    if hinted == 1 {
        o.source(o.len() - 1, 64)?;
    }
    Ok(Op::CpAsync(CpAsync { destination, source, bytes, source_bytes, ignore_source }))
}

fn wait_group(o: &mut Operands<'_>, _: &Modifiers<'_>) -> Result<Op, SimError> {
    o.expect(1..=1)?;
    Ok(Op::CpAsyncWait { newest: o.literal(0, 0..=u32::MAX)? })
}
