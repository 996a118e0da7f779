//! Rows by which the thread blocks of a cluster exchange what is in their shared memory.

use super::Arg::{In, Shared};
use super::Intrinsic;
use super::Meaning::{Effect, Read};
use crate::kir::Type;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: CLUSTER_BARRIER,
        args: &[],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, barrier.cluster.arrive.release and barrier.cluster.wait.acquire",
        meaning: Effect("waits for all threads of the cluster; each sees what all wrote before"),
        text: "void cluster_barrier() {
  asm volatile(\"barrier.cluster.arrive.release.aligned;\\n\\t\"
               \"barrier.cluster.wait.acquire.aligned;\" ::: \"memory\");
}",
    },
    Intrinsic {
        name: "load_cluster_f32",
        args: &[Shared, In(Type::I32)],
        result: Some(Type::F32),
        capability: (9, 0),
        source: "PTX ISA, mapa.shared::cluster and ld.shared::cluster",
        meaning: Read("the f32 at this address of the shared memory of a block of the cluster"),
        text: "float load_cluster_f32(const float* p, int rank) {
  float d;
  asm volatile(\"{ .reg .b32 a; mapa.shared::cluster.u32 a, %1, %2; ld.shared::cluster.f32 %0, [a]; }\"
               : \"=f\"(d) : \"r\"((unsigned)__cvta_generic_to_shared(p)), \"r\"(rank) : \"memory\");
  return d;
}",
    },
];

/// The barrier of all threads of a cluster.
pub const CLUSTER_BARRIER: &str = "cluster_barrier";
