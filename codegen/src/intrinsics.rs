//! The intrinsic table: one row per device helper. A row holds the emitted text, what it means,
//! the least compute capability and the section of the PTX ISA it follows.
//!
//! Helpers are emitted once per kernel, in table order, and only those that are used.

mod cluster;
mod eight_bit;
mod epilogue;
mod float8;
mod hopper;
mod mma;
mod overlap;
mod slab;

pub use cluster::{CLUSTER_BARRIER, MULTICAST, REMOTE_ARRIVE, REMOTE_LOAD};
pub use hopper::{is_multiply, multiply_name, COMMIT, FENCE, WAIT};
pub use mma::warp_multiply_name;
pub use overlap::WAIT_AHEAD;

use crate::kir::Type;
use mma::multiply;
use qtune_ir::DType;

/// What an intrinsic's argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A value of this type.
    In(Type),
    /// A variable or register array element that is read and written.
    InOut(Type),
    /// A variable or register array element that is written.
    Out(Type),
    /// Address of a buffer element in global memory.
    Global,
    /// Address of a buffer element in shared memory.
    Shared,
    /// A constant known when the kernel is generated.
    Constant,
    /// A row of a register array: this many accumulators, which a warpgroup's multiply owns until it
    /// is waited for.
    Accumulators(Type, u32),
    /// A tensor map among the kernel's parameters.
    TensorMap,
}

/// What an intrinsic does.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// A function of the argument bits.
    Pure(fn(&[u32]) -> u32),
    /// Reads memory, and what it returns.
    Read(&'static str),
    /// Changes memory, registers or the order of memory operations.
    Effect(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Intrinsic {
    /// Name in kernel IR and in the emitted text.
    pub name: &'static str,
    /// Arguments.
    pub args: &'static [Arg],
    /// Result, if it is an expression.
    pub result: Option<Type>,
    /// Least compute capability.
    pub capability: (u8, u8),
    /// Section of the PTX ISA (or CUDA C++ Programming Guide) that defines it.
    pub source: &'static str,
    /// What it does.
    pub meaning: Meaning,
    /// Definition in CUDA C++.
    pub text: &'static str,
}

impl std::fmt::Debug for Intrinsic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

use Arg::{Constant, Global, In, Out, Shared};
use Meaning::{Effect, Pure, Read};
use Type::{U32x2, U32x4, F32, U16, U32};

/// The rows that several families use.
pub const TABLE: &[Intrinsic] = &[
    Intrinsic {
        name: "and_or",
        args: &[In(U32), In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 0),
        source: "PTX ISA, lop3 (immLut 0xEA = (a & b) | c)",
        meaning: Pure(|a| (a[0] & a[1]) | a[2]),
        text: "unsigned and_or(unsigned a, unsigned mask, unsigned bits) {
  unsigned d;
  asm(\"lop3.b32 %0, %1, %2, %3, 0xEA;\" : \"=r\"(d) : \"r\"(a), \"r\"(mask), \"r\"(bits));
  return d;
}",
    },
    Intrinsic {
        name: "permute",
        args: &[In(U32), In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 0),
        source: "PTX ISA, prmt.b32 in its generic mode: the upper bit of a selector repeats the sign",
        meaning: Pure(|a| {
            let bytes = u64::from(a[1]) << 32 | u64::from(a[0]);
            (0..4).fold(0, |result, to| {
                let selector = a[2] >> (4 * to) & 15;
                let byte = (bytes >> (8 * (selector & 7))) as u8;
                let repeated = if byte & 0x80 != 0 { 0xff } else { 0 };
                let byte = if selector & 8 != 0 { repeated } else { byte };
                result | u32::from(byte) << (8 * to)
            })
        }),
        text: "unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm(\"prmt.b32 %0, %1, %2, %3;\" : \"=r\"(d) : \"r\"(a), \"r\"(b), \"r\"(selectors));
  return d;
}",
    },
    Intrinsic {
        name: "table_word",
        args: &[Shared, In(U32)],
        result: Some(U32),
        capability: (5, 0),
        source: "PTX ISA, ld.shared",
        meaning: Read("the word of a table in shared memory at a byte offset"),
        text: "unsigned table_word(const unsigned* table, unsigned offset) {
  return *reinterpret_cast<const unsigned*>(reinterpret_cast<const char*>(table) + offset);
}",
    },
    Intrinsic {
        name: "h2_add",
        args: &[In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, add{.rnd}.f16x2",
        meaning: Pure(|a| f16x2(a, |v| v[0] + v[1])),
        text: "unsigned h2_add(unsigned a, unsigned b) {
  unsigned d;
  asm(\"add.rn.f16x2 %0, %1, %2;\" : \"=r\"(d) : \"r\"(a), \"r\"(b));
  return d;
}",
    },
    Intrinsic {
        name: "h2_sub",
        args: &[In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, sub{.rnd}.f16x2",
        meaning: Pure(|a| f16x2(a, |v| v[0] - v[1])),
        text: "unsigned h2_sub(unsigned a, unsigned b) {
  unsigned d;
  asm(\"sub.rn.f16x2 %0, %1, %2;\" : \"=r\"(d) : \"r\"(a), \"r\"(b));
  return d;
}",
    },
    Intrinsic {
        name: "h2_mul",
        args: &[In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, mul{.rnd}.f16x2",
        meaning: Pure(|a| f16x2(a, |v| v[0] * v[1])),
        text: "unsigned h2_mul(unsigned a, unsigned b) {
  unsigned d;
  asm(\"mul.rn.f16x2 %0, %1, %2;\" : \"=r\"(d) : \"r\"(a), \"r\"(b));
  return d;
}",
    },
    Intrinsic {
        name: "h2_fma",
        args: &[In(U32), In(U32), In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, fma.rn.f16x2",
        meaning: Pure(|a| f16x2(a, |v| fused(v[0], v[1], v[2]))),
        text: "unsigned h2_fma(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm(\"fma.rn.f16x2 %0, %1, %2, %3;\" : \"=r\"(d) : \"r\"(a), \"r\"(b), \"r\"(c));
  return d;
}",
    },
    Intrinsic {
        name: "bf2_fma",
        args: &[In(U32), In(U32), In(U32)],
        result: Some(U32),
        capability: (8, 0),
        source: "PTX ISA, fma.rn.bf16x2 (bf16x2 add and mul need sm_90)",
        meaning: Pure(|a| bf16x2(a, |v| fused(v[0], v[1], v[2]))),
        text: "unsigned bf2_fma(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm(\"fma.rn.bf16x2 %0, %1, %2, %3;\" : \"=r\"(d) : \"r\"(a), \"r\"(b), \"r\"(c));
  return d;
}",
    },
    Intrinsic {
        name: "h2_low",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 3),
        source: "PTX ISA, cvt.f32.f16",
        meaning: Pure(|a| half::f16::from_bits(a[0] as u16).to_f32().to_bits()),
        text: "float h2_low(unsigned a) {
  float d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }\" : \"=f\"(d) : \"r\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "h2_high",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 3),
        source: "PTX ISA, cvt.f32.f16",
        meaning: Pure(|a| half::f16::from_bits((a[0] >> 16) as u16).to_f32().to_bits()),
        text: "float h2_high(unsigned a) {
  float d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }\" : \"=f\"(d) : \"r\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "h2_both_low",
        args: &[In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, mov.b32 (packing two 16-bit registers)",
        meaning: Pure(|a| (a[0] & 0xffff) * 0x1_0001),
        text: "unsigned h2_both_low(unsigned a) {
  unsigned d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l}; }\" : \"=r\"(d) : \"r\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "h2_both_high",
        args: &[In(U32)],
        result: Some(U32),
        capability: (5, 3),
        source: "PTX ISA, mov.b32 (packing two 16-bit registers)",
        meaning: Pure(|a| (a[0] >> 16) * 0x1_0001),
        text: "unsigned h2_both_high(unsigned a) {
  unsigned d;
  asm(\"{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h}; }\" : \"=r\"(d) : \"r\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "bf2_low",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 0),
        source: "bfloat16 is the upper half of binary32",
        meaning: Pure(|a| a[0] << 16),
        text: "float bf2_low(unsigned a) { return __uint_as_float(a << 16); }",
    },
    Intrinsic {
        name: "bf2_high",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 0),
        source: "bfloat16 is the upper half of binary32",
        meaning: Pure(|a| a[0] & 0xffff_0000),
        text: "float bf2_high(unsigned a) { return __uint_as_float(a & 0xffff0000u); }",
    },
    Intrinsic {
        name: "bits_f32",
        args: &[In(U32)],
        result: Some(F32),
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, __uint_as_float()",
        meaning: Pure(|a| a[0]),
        text: "float bits_f32(unsigned a) { return __uint_as_float(a); }",
    },
    Intrinsic {
        name: "h2_pack",
        args: &[In(F32), In(F32)],
        result: Some(U32),
        capability: (8, 0),
        source: "PTX ISA, cvt.rn.f16x2.f32 (the first source goes to the upper half)",
        meaning: Pure(|a| {
            let half = |bits| half::f16::from_f32(f32::from_bits(bits)).to_bits() as u32;
            half(a[0]) | half(a[1]) << 16
        }),
        text: "unsigned h2_pack(float low, float high) {
  unsigned d;
  asm(\"cvt.rn.f16x2.f32 %0, %1, %2;\" : \"=r\"(d) : \"f\"(high), \"f\"(low));
  return d;
}",
    },
    Intrinsic {
        name: "bf2_pack",
        args: &[In(F32), In(F32)],
        result: Some(U32),
        capability: (8, 0),
        source: "PTX ISA, cvt.rn.bf16x2.f32 (the first source goes to the upper half)",
        meaning: Pure(|a| {
            let half = |bits| half::bf16::from_f32(f32::from_bits(bits)).to_bits() as u32;
            half(a[0]) | half(a[1]) << 16
        }),
        text: "unsigned bf2_pack(float low, float high) {
  unsigned d;
  asm(\"cvt.rn.bf16x2.f32 %0, %1, %2;\" : \"=r\"(d) : \"f\"(high), \"f\"(low));
  return d;
}",
    },
    Intrinsic {
        name: "to_f16",
        args: &[In(F32)],
        result: Some(U16),
        capability: (5, 3),
        source: "PTX ISA, cvt.rn.f16.f32",
        meaning: Pure(|a| half::f16::from_f32(f32::from_bits(a[0])).to_bits() as u32),
        text: "unsigned short to_f16(float a) {
  unsigned short d;
  asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(d) : \"f\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "to_bf16",
        args: &[In(F32)],
        result: Some(U16),
        capability: (8, 0),
        source: "PTX ISA, cvt.rn.bf16.f32",
        meaning: Pure(|a| half::bf16::from_f32(f32::from_bits(a[0])).to_bits() as u32),
        text: "unsigned short to_bf16(float a) {
  unsigned short d;
  asm(\"cvt.rn.bf16.f32 %0, %1;\" : \"=h\"(d) : \"f\"(a));
  return d;
}",
    },
    Intrinsic {
        name: "fma_f32",
        args: &[In(F32), In(F32), In(F32)],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, fma.rn.f32",
        meaning: Pure(|a| {
            let [x, y, z] = [a[0], a[1], a[2]].map(f32::from_bits);
            x.mul_add(y, z).to_bits()
        }),
        text: "float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }",
    },
    Intrinsic {
        name: "nested_scale",
        args: &[In(F32), In(F32), In(F32)],
        result: Some(U32),
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, __fmul_rn() and __fadd_rn(), which are never one FMA",
        meaning: Pure(|a| {
            let [value, scale, offset] = [a[0], a[1], a[2]].map(f32::from_bits);
            (value * scale + offset).to_bits()
        }),
        text: "unsigned nested_scale(float value, float scale, float offset) {
  return __float_as_uint(__fadd_rn(__fmul_rn(value, scale), offset));
}",
    },
    Intrinsic {
        name: "shfl_xor",
        args: &[In(F32), Constant],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, shfl.sync.bfly",
        meaning: Read("the value of lane `lane ^ mask`; the whole warp takes part"),
        text: "float shfl_xor(float a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }",
    },
    Intrinsic {
        name: "load_stream",
        args: &[Global],
        result: Some(U32x4),
        capability: (8, 0),
        source: "PTX ISA, ld.global.nc.L1::no_allocate",
        meaning: Read("16 bytes that stay out of L1"),
        text: "uint4 load_stream(const uint4* p) {
  uint4 d;
  asm volatile(\"ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\"
               : \"=r\"(d.x), \"=r\"(d.y), \"=r\"(d.z), \"=r\"(d.w) : \"l\"(p));
  return d;
}",
    },
    Intrinsic {
        name: "load_stream_8",
        args: &[Global],
        result: Some(U32x2),
        capability: (8, 0),
        source: "PTX ISA, ld.global.nc.L1::no_allocate",
        meaning: Read("8 bytes that stay out of L1"),
        text: "uint2 load_stream_8(const uint2* p) {
  uint2 d;
  asm volatile(\"ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];\"
               : \"=r\"(d.x), \"=r\"(d.y) : \"l\"(p));
  return d;
}",
    },
    Intrinsic {
        name: "load_stream_4",
        args: &[Global],
        result: Some(U32),
        capability: (8, 0),
        source: "PTX ISA, ld.global.nc.L1::no_allocate",
        meaning: Read("4 bytes that stay out of L1"),
        text: "unsigned load_stream_4(const unsigned* p) {
  unsigned d;
  asm volatile(\"ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];\" : \"=r\"(d) : \"l\"(p));
  return d;
}",
    },
    Intrinsic {
        name: "load_two_words",
        args: &[Global],
        result: Some(U32x2),
        capability: (8, 0),
        source: "CUDA C++ Programming Guide, __ldg",
        meaning: Read("8 bytes of an array of words"),
        text: "uint2 load_two_words(const unsigned* p) {
  return __ldg(reinterpret_cast<const uint2*>(p));
}",
    },
    Intrinsic {
        name: "load_four_words",
        args: &[Global],
        result: Some(U32x4),
        capability: (8, 0),
        source: "CUDA C++ Programming Guide, __ldg",
        meaning: Read("16 bytes of an array of smaller elements"),
        text: "uint4 load_four_words(const void* p) {
  return __ldg(reinterpret_cast<const uint4*>(p));
}",
    },
    Intrinsic {
        name: "warp_sync",
        args: &[],
        result: None,
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, __syncwarp()",
        meaning: Effect("orders the shared-memory accesses of a warp's lanes"),
        text: "void warp_sync() { __syncwarp(); }",
    },
    Intrinsic {
        name: "pack_u32x2",
        args: &[In(U32), In(U32)],
        result: Some(U32x2),
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, make_uint2()",
        meaning: Read("two words as one 8-byte value"),
        text: "uint2 pack_u32x2(unsigned a, unsigned b) { return make_uint2(a, b); }",
    },
    Intrinsic {
        name: "pack_u32x4",
        args: &[In(U32), In(U32), In(U32), In(U32)],
        result: Some(U32x4),
        capability: (5, 0),
        source: "CUDA C++ Programming Guide, make_uint4()",
        meaning: Read("four words as one 16-byte value"),
        text: "uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }",
    },
    Intrinsic {
        name: "load_l2_f32",
        args: &[Global],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, ld.global.cg: other blocks' partial sums must not come from a stale L1",
        meaning: Read("an f32 from L2"),
        text: "float load_l2_f32(const float* p) { return __ldcg(p); }",
    },
    Intrinsic {
        name: "copy_async_16",
        args: &[In(U32), Global],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, cp.async.cg.shared.global",
        meaning: Effect("copies 16 bytes to shared memory, visible to this thread after its wait"),
        text: "void copy_async_16(unsigned place, const void* global) {
  asm volatile(\"cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\"
               :: \"r\"(place), \"l\"(global) : \"memory\");
}",
    },
    Intrinsic {
        name: "copy_async_16_if",
        args: &[In(U32), Global, In(Type::Bool)],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, cp.async.cg.shared.global, predicated",
        meaning: Effect("like copy_async_16, or does nothing"),
        text: "void copy_async_16_if(unsigned place, const void* global, bool wanted) {
  asm volatile(\"{ .reg .pred p; setp.ne.u32 p, %2, 0; \"
               \"@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }\"
               :: \"r\"(place), \"l\"(global), \"r\"((unsigned)wanted) : \"memory\");
}",
    },
    Intrinsic {
        name: "copy_async_16_or_zero",
        args: &[In(U32), Global, In(Type::Bool)],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, cp.async.cg.shared.global with src-size",
        meaning: Effect("like copy_async_16, or writes zeros without reading"),
        text: "void copy_async_16_or_zero(unsigned place, const void* global, bool valid) {
  asm volatile(\"cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\"
               :: \"r\"(place), \"l\"(global),
                  \"r\"(valid ? 16 : 0) : \"memory\");
}",
    },
    Intrinsic {
        name: "copy_commit",
        args: &[],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, cp.async.commit_group",
        meaning: Effect("closes this thread's group of asynchronous copies"),
        text: "void copy_commit() { asm volatile(\"cp.async.commit_group;\" ::: \"memory\"); }",
    },
    Intrinsic {
        name: "copy_wait",
        args: &[Constant],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, cp.async.wait_group",
        meaning: Effect("waits until at most that many newest groups of this thread are pending"),
        text: "template <int pending> void copy_wait() {
  asm volatile(\"cp.async.wait_group %0;\" :: \"n\"(pending) : \"memory\");
}",
    },
    Intrinsic {
        name: "shared_place",
        args: &[Shared],
        result: Some(U32),
        capability: (7, 5),
        source: "PTX ISA, cvta.to.shared",
        meaning: Read("where something lies in shared memory, in bytes"),
        text: "unsigned shared_place(const void* place) {
  return (unsigned)__cvta_generic_to_shared(place);
}",
    },
    Intrinsic {
        name: "shared_behind",
        args: &[In(U32), In(Type::I32)],
        result: Some(U32),
        capability: (7, 5),
        source: "PTX ISA, \"Addresses as Operands\": a register and an offset",
        meaning: Pure(|a| a[0].wrapping_add(a[1])),
        text: "unsigned shared_behind(unsigned place, int bytes) { return place + bytes; }",
    },
    Intrinsic {
        name: "ldmatrix_x4",
        args: &[Out(U32), Out(U32), Out(U32), Out(U32), In(U32)],
        result: None,
        capability: (7, 5),
        source: "PTX ISA, ldmatrix.sync.aligned.m8n8.x4.shared.b16",
        meaning: Effect("four 8x8 matrices of 16-bit elements; lane 8i+r gives the place of row r of matrix i"),
        text: "void ldmatrix_x4(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned row) {
  asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\"
               : \"=r\"(a), \"=r\"(b), \"=r\"(c), \"=r\"(d) : \"r\"(row) : \"memory\");
}",
    },
    multiply!("mma_f16" "             ", "m16n8k16.row.col.f32.f16.f16.f32", F32 "float" "f", (8, 0), "c[16x8] += a[16x16] * b[16x8]"),
    multiply!("mma_bf16" "              ", "m16n8k16.row.col.f32.bf16.bf16.f32", F32 "float" "f", (8, 0), "c[16x8] += a[16x16] * b[16x8]"),
    Intrinsic {
        name: "fence_device",
        args: &[],
        result: None,
        capability: (7, 0),
        source: "CUDA C++ Programming Guide, __threadfence()",
        meaning: Effect("orders this thread's memory operations for all threads of the device"),
        text: "void fence_device() { __threadfence(); }",
    },
    Intrinsic {
        name: "count_arrival",
        args: &[Out(U32), Global],
        result: None,
        capability: (7, 0),
        source: "CUDA C++ Programming Guide, atomicAdd()",
        meaning: Effect("adds one to a counter in global memory and returns its old value"),
        text: "void count_arrival(unsigned& before, unsigned* counter) { before = atomicAdd(counter, 1u); }",
    },
];

/// Every row: the table, what finishes an output, meets other kernels and other blocks of a cluster,
/// then what only sm_90a has.
pub fn all() -> impl Iterator<Item = &'static Intrinsic> {
    let common = TABLE
        .iter()
        .chain(float8::ROWS)
        .chain(eight_bit::ROWS)
        .chain(epilogue::ROWS)
        .chain(overlap::ROWS)
        .chain(slab::ROWS);
    let common = common.chain(cluster::ROWS);
    common.chain(hopper::ROWS).chain(hopper::MULTIPLIES.iter())
}

/// The row called `name`.
pub fn find(name: &str) -> Option<&'static Intrinsic> {
    all().find(|row| row.name == name)
}

/// `a * b + c` for 16-bit floats, rounded to odd in f64 so that the next rounding is the only one.
/// The product is exact; what the addition loses is recovered by Knuth's two-sum.
fn fused(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    let back = sum - product;
    let lost = (product - (sum - back)) + (c - back);
    if !sum.is_finite() || lost == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let outward = (lost > 0.0) == (sum > 0.0);
    f64::from_bits(if outward { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// Applies `op` to both halves of packed f16 operands, rounding once.
fn f16x2(args: &[u32], op: fn(&[f64]) -> f64) -> u32 {
    let widen = |bits| half::f16::from_bits(bits).to_f64();
    let narrow = |value| half::f16::from_f64(DType::F16.round(value)).to_bits();
    halves(args, op, widen, narrow)
}

/// Applies `op` to both halves of packed bf16 operands, rounding once.
fn bf16x2(args: &[u32], op: fn(&[f64]) -> f64) -> u32 {
    let widen = |bits| half::bf16::from_bits(bits).to_f64();
    let narrow = |value| half::bf16::from_f64(DType::Bf16.round(value)).to_bits();
    halves(args, op, widen, narrow)
}

fn halves(
    args: &[u32],
    op: fn(&[f64]) -> f64,
    widen: impl Fn(u16) -> f64,
    narrow: impl Fn(f64) -> u16,
) -> u32 {
    let lane = |shift: u32| {
        let values: Vec<f64> = args.iter().map(|a| widen((a >> shift) as u16)).collect();
        u32::from(narrow(op(&values)))
    };
    lane(0) | lane(16) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_their_text_defines_their_name() {
        for (i, row) in all().enumerate() {
            assert!(all().take(i).all(|other| other.name != row.name), "{}", row.name);
            assert!(row.text.contains(&format!("{}(", row.name)), "{}", row.name);
            assert!(!row.source.is_empty());
        }
    }

    #[test]
    fn meanings_follow_the_bits() {
        let pure = |name: &str, args: &[u32]| match find(name).unwrap().meaning {
            Pure(f) => f(args),
            _ => unreachable!("{name} is pure"),
        };
        assert_eq!(pure("and_or", &[0x1234_5678, 0x000f_000f, 0x6400_6400]), 0x6404_6408);
        assert_eq!(pure("h2_sub", &[0x6407_640f, 0x6400_6400]), 0x4700_4b80); // 7, 15
        assert_eq!(pure("h2_pack", &[1.0f32.to_bits(), 2.0f32.to_bits()]), 0x4000_3c00);
        assert_eq!(f32::from_bits(pure("bf2_high", &[0x3f80_4000])), 1.0);
    }
}
