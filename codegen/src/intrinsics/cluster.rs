//! Rows by which the thread blocks of a cluster exchange what is in their shared memory.

use super::Arg::{Constant, In, Shared, TensorMap};
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
        name: REMOTE_LOAD,
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
    Intrinsic {
        name: REMOTE_ARRIVE,
        args: &[Shared, In(Type::I32)],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, mapa.shared::cluster and mbarrier.arrive.release.cluster",
        meaning: Effect(
            "arrives at this barrier of a block of the cluster: what this thread did before is done \
             for those who wait",
        ),
        text: "void barrier_arrive_at(void* barrier, int rank) {
  asm volatile(\"{ .reg .b32 a; mapa.shared::cluster.u32 a, %0, %1; \"
               \"mbarrier.arrive.release.cluster.shared::cluster.b64 _, [a]; }\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)), \"r\"(rank) : \"memory\");
}",
    },
    Intrinsic {
        name: "barrier_wait_cluster",
        args: &[Shared, In(Type::U32)],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, mbarrier.try_wait.parity.acquire.cluster",
        meaning: Effect(
            "waits until the phase of this parity is complete, for which any block of the cluster \
             may have arrived",
        ),
        text: "void barrier_wait_cluster(void* barrier, unsigned parity) {
  asm volatile(\"{ .reg .pred done; AGAIN_%=: \"
               \"mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1; \"
               \"@!done bra AGAIN_%=; }\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(barrier)), \"r\"(parity) : \"memory\");
}",
    },
    Intrinsic {
        name: MULTICAST,
        args: &[Shared, TensorMap, In(Type::I32), In(Type::I32), Shared, Constant],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, cp.async.bulk.tensor.2d.shared::cluster.global.tile.multicast::cluster",
        meaning: Effect(
            "copies the map's box at (column, row) to this place of the first blocks of the cluster, \
             so many, and counts the whole box on the barrier of each",
        ),
        text: "void tensor_multicast(void* shared, const TensorMap& map, int column, int row, void* barrier,
                      int blocks) {
  asm volatile(\"cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes\"
               \".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;\"
               :: \"r\"((unsigned)__cvta_generic_to_shared(shared)), \"l\"(&map), \"r\"(column),
                  \"r\"(row), \"r\"((unsigned)__cvta_generic_to_shared(barrier)),
                  \"h\"((unsigned short)((1 << blocks) - 1)) : \"memory\");
}",
    },
];

/// An arrival at a barrier of another block.
pub const REMOTE_ARRIVE: &str = "barrier_arrive_at";
/// A copy to several blocks of the cluster.
pub const MULTICAST: &str = "tensor_multicast";
/// A load from another block.
pub const REMOTE_LOAD: &str = "load_cluster_f32";

/// The barrier of all threads of a cluster.
pub const CLUSTER_BARRIER: &str = "cluster_barrier";
