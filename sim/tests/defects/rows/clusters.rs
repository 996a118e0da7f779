//! Clusters and their shared memory.

use super::*;

#[rustfmt::skip]
pub const ROWS: &[Defect] = &[
    found("other block used before it is known to run", Cluster, &[("barrier.cluster.arrive.aligned;", 0, ""), ("barrier.cluster.wait.aligned;", 0, "")], &[ClusterLifetime], "ld.shared::cluster"),
    found("other block used before it is known to run", Gather, &[("barrier.cluster.arrive.aligned;", 0, ""), ("barrier.cluster.wait.aligned;", 0, "")], &[ClusterLifetime], "shared::cluster"),
    found("block exits while others use its memory", Cluster, &[("barrier.cluster.arrive.aligned;", 1, ""), ("barrier.cluster.wait.aligned;", 1, "")], &[ClusterLifetime], ""),
    found("block exits while others use its memory", Gather, &[("barrier.cluster.arrive.aligned;", 1, ""), ("barrier.cluster.wait.aligned;", 1, ""), ("mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%r22], 0;", 0, "setp.eq.u32 done, 0, 0;")], &[ClusterLifetime], ""),
    found("wait for the cluster without arrival", Cluster, &[("barrier.cluster.arrive.aligned;", 0, "")], &[BarrierMisuse], "barrier.cluster.wait"),
    found("wait for the cluster without arrival", Gather, &[("barrier.cluster.arrive.aligned;", 0, "")], &[BarrierMisuse], "barrier.cluster.wait"),
    found("arrival in the cluster twice", Cluster, &[("barrier.cluster.wait.aligned;", 0, "barrier.cluster.arrive.aligned;")], &[BarrierMisuse], "barrier.cluster.arrive"),
    found("arrival in the cluster twice", Gather, &[("barrier.cluster.wait.aligned;", 0, "barrier.cluster.arrive.aligned;")], &[BarrierMisuse], "barrier.cluster.arrive"),
    found("rank outside the cluster", Cluster, &[("xor.b32  \t%r6, %r3, 1;", 0, "xor.b32  \t%r6, %r3, 2;")], &[InvalidOperand], "mapa"),
    found("rank outside the cluster", Gather, &[("and.b32  \t%r23, %r56, 3;", 0, "and.b32  \t%r23, %r56, 7;")], &[InvalidOperand], "mapa"),
    found("arrival without release", Cluster, &[("barrier.cluster.arrive.aligned;", 0, "barrier.cluster.arrive.relaxed.aligned;")], &[SharedRace], "ld.shared::cluster"),
    found("arrival without release", Gather, &[("mbarrier.arrive.release.cluster", 0, "mbarrier.arrive.relaxed.cluster")], &[SharedRace], "ld.shared.u32"),
    found("remote access past the end", Cluster, &[("ld.shared::cluster.f32 %f2, [%r4];", 0, "ld.shared::cluster.f32 %f2, [%r4+256];")], &[OutOfBounds], "[%r4+256]"),
    found("remote access past the end", Gather, &[("st.shared::cluster.u32 [%r16], %r3;", 0, "st.shared::cluster.u32 [%r16+1024], %r3;")], &[OutOfBounds], "[%r16+1024]"),
];
