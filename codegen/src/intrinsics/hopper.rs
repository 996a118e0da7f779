//! Rows for sm_90a: barriers in shared memory, copies that the hardware runs by itself, and the
//! matrix multiply of a warpgroup.

use super::Arg::{self, Accumulators, Constant, Global, In, Shared, TensorMap};
use super::Intrinsic;
use super::Meaning::{Effect, Pure, Read};
use crate::kir::Type::{self, Bool, Descriptor, F32, I32, U32};
use qtune_ir::integer_columns;
use std::sync::LazyLock;

const SM_90: (u8, u8) = (9, 0);

/// Statement rows of the asynchronous machinery.
pub(super) const ROWS: &[Intrinsic] = &[
    effect(
        "barrier_init",
        &[Shared, Constant],
        "PTX ISA, mbarrier.init",
        "phase 0 of a barrier that a number of arrivals completes",
        "void barrier_init(void* barrier, unsigned arrivals) {
  asm volatile(\"mbarrier.init.shared::cta.b64 [%0], %1;\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)), \"r\"(arrivals) : \"memory\");
}",
    ),
    effect(
        "barrier_init_fence",
        &[],
        "PTX ISA, fence.mbarrier_init and fence.proxy.async",
        "makes this thread's barriers known to copies that the hardware runs",
        "void barrier_init_fence() {
  asm volatile(\"fence.mbarrier_init.release.cluster;\" ::: \"memory\");
  asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\");
}",
    ),
    effect(
        "barrier_expect",
        &[Shared, In(I32)],
        "PTX ISA, mbarrier.arrive.expect_tx",
        "arrives, and has the phase wait for this many bytes of copies",
        "void barrier_expect(void* barrier, int bytes) {
  asm volatile(\"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)), \"r\"(bytes) : \"memory\");
}",
    ),
    effect(
        "barrier_arrive",
        &[Shared],
        "PTX ISA, mbarrier.arrive",
        "arrives: what this thread did before is done for those who wait",
        "void barrier_arrive(void* barrier) {
  asm volatile(\"mbarrier.arrive.shared::cta.b64 _, [%0];\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)) : \"memory\");
}",
    ),
    effect(
        "barrier_wait",
        &[Shared, In(U32)],
        "PTX ISA, mbarrier.try_wait.parity",
        "waits until the phase of this parity is complete; parity 1 of a new barrier is",
        "void barrier_wait(void* barrier, unsigned parity) {
  asm volatile(\"{ .reg .pred done; AGAIN_%=: \"
               \"mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra AGAIN_%=; }\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)), \"r\"(parity) : \"memory\");
}",
    ),
    effect(
        "bulk_copy",
        &[Shared, Global, Constant, Shared],
        "PTX ISA, cp.async.bulk.shared::cluster.global",
        "copies contiguous bytes to shared memory and counts them on a barrier",
        "void bulk_copy(void* shared, const void* global, unsigned bytes, void* barrier) {
  asm volatile(\"cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes \"
               \"[%0], [%1], %2, [%3];\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(shared)), \"l\"(global), \"r\"(bytes),
                  \"r\"((unsigned)__cvta_generic_to_shared(barrier)) : \"memory\");
}",
    ),
    effect(
        "tensor_copy",
        &[Shared, TensorMap, In(I32), In(I32), Shared],
        "PTX ISA, cp.async.bulk.tensor.2d.shared::cluster.global.tile",
        "copies the map's box at (column, row) to shared memory, zeros where it reaches out of \
         the matrix, and counts the whole box on a barrier",
        "void tensor_copy(void* shared, const TensorMap& map, int column, int row, void* barrier) {
  asm volatile(\"cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \"
               \"[%0], [%1, {%2, %3}], [%4];\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(shared)), \"l\"(&map), \"r\"(column),
                  \"r\"(row), \"r\"((unsigned)__cvta_generic_to_shared(barrier)) : \"memory\");
}",
    ),
    Intrinsic {
        name: "elect",
        args: &[],
        result: Some(Bool),
        capability: SM_90,
        source: "PTX ISA, elect.sync",
        meaning: Read("true in one lane of the warp, all of which take part"),
        text: "bool elect() {
  unsigned elected;
  asm volatile(\"{ .reg .pred one; elect.sync _|one, 0xffffffff; selp.u32 %0, 1, 0, one; }\"
               : \"=r\"(elected));
  return elected != 0;
}",
    },
    Intrinsic {
        name: "settled",
        args: &[In(U32)],
        result: Some(U32),
        capability: (5, 0),
        source: "PTX ISA, wgmma.fence: no other instruction may touch operands behind it",
        // The compiler takes it for a computation whose place among barriers and fences is fixed, and
        // whose result it does not know.
        meaning: Pure(|a| a[0]),
        text: "unsigned settled(unsigned a) { asm volatile(\"\" : \"+r\"(a)); return a; }",
    },
    Intrinsic {
        name: "settled_f32",
        args: &[In(F32)],
        result: Some(F32),
        capability: (5, 0),
        source: "PTX ISA, wgmma.fence: no other instruction may touch operands behind it",
        meaning: Pure(|a| a[0]),
        text: "float settled_f32(float a) { asm volatile(\"\" : \"+f\"(a)); return a; }",
    },
    effect(
        "take_registers",
        &[Constant],
        "PTX ISA, setmaxnreg.inc",
        "waits until every thread of the warpgroup has this many registers",
        "template <int count> void take_registers() {
  asm volatile(\"setmaxnreg.inc.sync.aligned.u32 %0;\" :: \"n\"(count));
}",
    ),
    effect(
        "give_registers",
        &[Constant],
        "PTX ISA, setmaxnreg.dec",
        "leaves every thread of the warpgroup this many registers",
        "template <int count> void give_registers() {
  asm volatile(\"setmaxnreg.dec.sync.aligned.u32 %0;\" :: \"n\"(count));
}",
    ),
    Intrinsic {
        name: "tile_128b",
        args: &[Shared],
        result: Some(Descriptor),
        capability: SM_90,
        source: "PTX ISA, \"Matrix Descriptor Format\": addresses in units of 16 bytes",
        // Descriptors live in uniform registers: told that lane 0's is everyone's, the compiler keeps
        // their sums there. As sums of 64 bits they take one instruction, of a low word three.
        meaning: Read("the descriptor of rows of 128 bytes, swizzled, from this address"),
        text: "unsigned long long tile_128b(const void* shared) {
  const unsigned low = (unsigned)__cvta_generic_to_shared(shared) >> 4 | 1u << 16;
  // High word: 128-byte swizzle, 1024 bytes from 8 rows to the next.
  return 0x40000040ull << 32 | __shfl_sync(0xffffffffu, low, 0);
}",
    },
    Intrinsic {
        name: "tile_behind",
        args: &[In(Descriptor), In(I32)],
        result: Some(Descriptor),
        capability: SM_90,
        source: "PTX ISA, \"Matrix Descriptor Format\": addresses in units of 16 bytes",
        meaning: Read("the descriptor of the tile that lies so many 16-byte pieces behind another"),
        text: "unsigned long long tile_behind(unsigned long long tile, int pieces) {
  return tile + pieces;
}",
    },
    effect(
        FENCE,
        &[],
        "PTX ISA, wgmma.fence",
        "orders register writes of the warpgroup before its next multiply",
        "void wgmma_fence() { asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\"); }",
    ),
    effect(
        COMMIT,
        &[],
        "PTX ISA, wgmma.commit_group",
        "closes the warpgroup's batch of multiplies",
        "void wgmma_commit() { asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\"); }",
    ),
    effect(
        WAIT,
        &[Constant],
        "PTX ISA, wgmma.wait_group",
        "waits until at most that many newest batches of the warpgroup are pending",
        "template <int pending> void wgmma_wait() {
  asm volatile(\"wgmma.wait_group.sync.aligned %0;\" :: \"n\"(pending) : \"memory\");
}",
    ),
];

/// Before the first multiply that reads registers written by other instructions.
pub const FENCE: &str = "wgmma_fence";
/// Closes a batch of multiplies.
pub const COMMIT: &str = "wgmma_commit";
/// Waits for batches.
pub const WAIT: &str = "wgmma_wait";

const fn effect(
    name: &'static str,
    args: &'static [Arg],
    source: &'static str,
    meaning: &'static str,
    text: &'static str,
) -> Intrinsic {
    let meaning = Effect(meaning);
    Intrinsic { name, args, result: None, capability: SM_90, source, meaning, text }
}

/// Operand types of a warpgroup multiply.
struct Operands {
    /// As instructions name them.
    name: &'static str,
    /// k of one multiply: 32 bytes.
    k: u32,
    /// Accumulators, in kernel IR, as instructions name them, in CUDA C++ and as an operand.
    sums: (Type, &'static str, &'static str, &'static str),
    /// Immediate operands behind the predicate: signs of A and B, and whether B is transposed.
    immediates: &'static str,
}

const FLOAT_SUMS: (Type, &str, &str, &str) = (F32, "f32", "float", "f");

const OPERANDS: [Operands; 4] = [
    Operands { name: "f16", k: 16, sums: FLOAT_SUMS, immediates: ", 1, 1, 0" },
    Operands { name: "bf16", k: 16, sums: FLOAT_SUMS, immediates: ", 1, 1, 0" },
    Operands { name: "e4m3", k: 32, sums: FLOAT_SUMS, immediates: ", 1, 1" },
    Operands { name: "s8", k: 32, sums: (U32, "s32", "unsigned", "r"), immediates: "" },
];

impl Operands {
    /// Whether there is an instruction of so many columns: of integers not all multiples of 8.
    fn has(&self, columns: u32) -> bool {
        columns % 8 == 0
            && (8..=256).contains(&columns)
            && (self.name != "s8" || integer_columns(columns))
    }

    fn multiply(&self, columns: u32) -> String {
        format!("wgmma_m64n{columns}k{}_{}", self.k, self.name)
    }
}

/// One row per operand type and number of columns: made once, as texts differ in their operand
/// lists alone.
pub(super) static MULTIPLIES: LazyLock<Vec<Intrinsic>> = LazyLock::new(|| {
    let of = |ty: &'static Operands| {
        let columns = (8..=256).step_by(8).filter(|columns| ty.has(*columns));
        columns.map(|columns| multiply(ty, columns))
    };
    OPERANDS.iter().flat_map(of).collect()
});

/// The name of the multiply of 64 rows by `columns` columns by 32 bytes of k.
///
/// # Panics
/// If there is no such instruction: schedules are checked before they are lowered.
pub fn multiply_name(operands: &str, columns: u32) -> &'static str {
    let of_type = OPERANDS.iter().find(|ty| ty.name == operands).map(|ty| ty.multiply(columns));
    let row = MULTIPLIES.iter().find(|row| Some(row.name) == of_type.as_deref());
    row.unwrap_or_else(|| panic!("no wgmma of {operands} has {columns} columns")).name
}

/// Whether an intrinsic is a multiply of a warpgroup.
pub fn is_multiply(name: &str) -> bool {
    name.starts_with("wgmma_m64")
}

fn multiply(ty: &Operands, columns: u32) -> Intrinsic {
    let name = ty.multiply(columns);
    let (operands, k, immediates) = (ty.name, ty.k, ty.immediates);
    let (sum, sums, declared, constraint) = ty.sums;
    let count = columns as usize / 2;
    let list = |item: &dyn Fn(usize) -> String| {
        let rows: Vec<String> = (0..count)
            .collect::<Vec<_>>()
            .chunks(8)
            .map(|row| row.iter().map(|i| item(*i)).collect::<Vec<_>>().join(", "))
            .collect();
        rows
    };
    let places = list(&|i| format!("%{i}")).join(", \"\n    \"");
    let bound = list(&|i| format!("\"+{constraint}\"(d[{i}])")).join(",\n      ");
    let [a0, a1, a2, a3, tile, pieces, keep] = std::array::from_fn(|i| count + i);
    let text = format!(
        "void {name}({declared} (&d)[{count}], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
    unsigned long long tile, int pieces, bool keep) {{
  // Added here, a sum is not moved out of the loop to where there are too few uniform registers.
  asm volatile(\"{{ .reg .pred keep; .reg .b64 b; add.s64 b, %{tile}, %{pieces};\"
    \" setp.ne.b32 keep, %{keep}, 0;\"
    \" wgmma.mma_async.sync.aligned.m64n{columns}k{k}.{sums}.{operands}.{operands} {{\"
    \"{places}}}, \"
    \"{{%{a0}, %{a1}, %{a2}, %{a3}}}, b, keep{immediates}; }}\"
    : {bound}
    : \"r\"(a0), \"r\"(a1), \"r\"(a2), \"r\"(a3), \"l\"(tile), \"l\"((long long)pieces),
      \"r\"((int)keep));
}}"
    );
    let mut args = vec![Accumulators(sum, columns / 2)];
    args.extend([In(U32); 4]);
    args.extend([In(Descriptor), In(I32), In(Bool)]);
    Intrinsic {
        name: name.leak(),
        args: args.leak(),
        result: None,
        capability: SM_90,
        source: "PTX ISA, wgmma.mma_async.sync.aligned.m64nNk16, m64nNk32",
        meaning: Effect(
            "d[64xN] = a[64xK] * b[KxN], plus d if `keep`, some time before the wait; b lies so \
             many 16-byte pieces behind the described tile",
        ),
        text: text.leak(),
    }
}
