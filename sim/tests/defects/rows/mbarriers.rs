//! mbarriers, bulk and tensor copies.

use super::*;

#[rustfmt::skip]
pub const ROWS: &[Defect] = &[
    found("mbarrier not initialised", Pipeline, &[("mbarrier.init.shared::cta.b64 [%r8], 1;", 0, "")], &[MbarrierMisuse], "mbarrier"),
    found("mbarrier not initialised", Tiles, &[("mbarrier.init.shared::cta.b64 [%r13], 1;", 0, "")], &[MbarrierMisuse], "mbarrier"),
    found("mbarrier initialised twice", Pipeline, &[("fence.mbarrier_init.release.cluster;", 0, "mbarrier.init.shared::cta.b64 [%r8], 1;")], &[MbarrierMisuse], "mbarrier.init"),
    found("mbarrier initialised twice", Tiles, &[("fence.mbarrier_init.release.cluster;", 0, "mbarrier.init.shared::cta.b64 [%r13], 1;")], &[MbarrierMisuse], "mbarrier.init"),
    found("mbarrier used before its initialisation is ordered", Pipeline, &[("bar.sync \t0;", 0, "")], &[MbarrierMisuse], "mbarrier"),
    found("mbarrier used before its initialisation is ordered", Tiles, &[("bar.sync \t0;", 0, "")], &[MbarrierMisuse], "mbarrier"),
    found("data stored over an mbarrier", Pipeline, &[("mov.u64 \t%rd17, _ZZ10chunk_sumsE4sums;", 0, "mov.u64 \t%rd17, _ZZ10chunk_sumsE4sums+1024;")], &[MbarrierMisuse], "st.shared.v4.f32"),
    found("data stored over an mbarrier", Tiles, &[("mov.u64 \t%rd21, _ZZ9transposeE6turned;", 0, "mov.u64 \t%rd21, _ZZ9transposeE6turned+16;")], &[MbarrierMisuse], "st.shared.f32"),
    found("fewer bytes expected than copied", Pipeline, &[("[%r34], 1024;", 0, "[%r34], 512;")], &[Deadlock], "mbarrier.try_wait"),
    found("fewer bytes expected than copied", Tiles, &[("[%r20], 4096;", 0, "[%r20], 2048;")], &[Deadlock], "mbarrier.try_wait"),
    found("more bytes expected than copied", Pipeline, &[("[%r34], 1024;", 0, "[%r34], 1040;")], &[Deadlock], "mbarrier.try_wait"),
    found("more bytes expected than copied", Tiles, &[("[%r20], 4096;", 0, "[%r20], 8192;")], &[Deadlock], "mbarrier.try_wait"),
    found("no bytes expected", Pipeline, &[("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r34], 1024;", 0, "mbarrier.arrive.shared::cta.b64 _, [%r34];")], &[AsyncNotAwaited], "ld.shared.v4.f32"),
    found("no bytes expected", Tiles, &[("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r20], 4096;", 0, "mbarrier.arrive.shared::cta.b64 _, [%r20];")], &[AsyncNotAwaited], "ld.shared.f32"),
    found("arrival at an mbarrier dropped", Pipeline, &[("mbarrier.arrive.shared::cta.b64 _, [%r22];", 0, "")], &[Deadlock], "mbarrier.try_wait"),
    found("arrival at an mbarrier dropped", Gather, &[("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r21];", 0, "")], &[Deadlock], "mbarrier.try_wait"),
    found("more arrivals awaited than come", Pipeline, &[("mbarrier.init.shared::cta.b64 [%r9], 2;", 0, "mbarrier.init.shared::cta.b64 [%r9], 3;")], &[Deadlock], "mbarrier.try_wait"),
    found("more arrivals awaited than come", Gather, &[("[%r11], 192;", 0, "[%r11], 256;")], &[Deadlock], "mbarrier.try_wait"),
    found("fewer arrivals awaited than come", Pipeline, &[("mbarrier.init.shared::cta.b64 [%r9], 2;", 0, "mbarrier.init.shared::cta.b64 [%r9], 1;")], &[MbarrierMisuse], "mbarrier.try_wait"),
    found("fewer arrivals awaited than come", Gather, &[("[%r11], 192;", 0, "[%r11], 64;")], &[SharedRace], "ld.shared.u32"),
    found("wait for the phase before", Pipeline, &[("and.b32  \t%r14, %r20, 1;", 0, "not.b32 \t%r14, %r20;\n\tand.b32 \t%r14, %r14, 1;")], &[AsyncNotAwaited, UninitialisedShared], "ld.shared.v4.f32"),
    found("wait for the phase before", Tiles, &[("and.b32  \t%r28, %r33, 1;", 0, "not.b32 \t%r28, %r33;\n\tand.b32 \t%r28, %r28, 1;")], &[AsyncNotAwaited, UninitialisedShared], "ld.shared.f32"),
    found("wait for an mbarrier dropped", Pipeline, &[("mbarrier.try_wait.parity.shared::cta.b64 done, [%r13], %r14;", 0, "setp.eq.u32 done, 0, 0;")], &[AsyncNotAwaited, UninitialisedShared], "ld.shared.v4.f32"),
    found("wait for an mbarrier dropped", Tiles, &[("mbarrier.try_wait.parity.shared::cta.b64 done, [%r27], %r28;", 0, "setp.eq.u32 done, 0, 0;")], &[AsyncNotAwaited, UninitialisedShared], "ld.shared.f32"),
    found("proxy fence dropped", Pipeline, &[("fence.proxy.async.shared::cta;", 0, "")], &[ProxyFence], "cp.async.bulk.global"),
    found("proxy fence dropped", Tiles, &[("fence.proxy.async.shared::cta;", 0, "")], &[ProxyFence], "cp.async.bulk.tensor.2d.global"),
    found("barrier between the proxy fence and the copy dropped", Pipeline, &[("bar.sync 1, 64;", 0, "")], &[SharedRace, UninitialisedShared], "cp.async.bulk.global"),
    found("barrier between the proxy fence and the copy dropped", Tiles, &[("bar.sync \t0;", 1, "")], &[SharedRace, UninitialisedShared], "cp.async.bulk.tensor"),
    found("bulk copy misaligned", Pipeline, &[("[%r33], [%rd33], 1024", 0, "[%r33], [%rd33+8], 1024")], &[Misaligned], "[%rd33+8]"),
    found("bulk copy misaligned", Tiles, &[("[%r17], [%rd11, {%r18, %r1}]", 0, "[%r17+32], [%rd11, {%r18, %r1}]")], &[Misaligned], "[%r17+32]"),
];
