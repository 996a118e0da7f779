//! `wgmma` and what its warpgroup must do together.

use super::*;

#[rustfmt::skip]
pub const ROWS: &[Defect] = &[
    found("wgmma.fence dropped", Wgmma, &[("wgmma.fence.sync.aligned;", 0, "")], &[WgmmaHazard], "wgmma.mma_async"),
    found("wgmma.fence dropped", Warpgroup, &[("wgmma.fence.sync.aligned;", 0, "")], &[WgmmaHazard], "wgmma.mma_async"),
    found("wgmma batch not committed", Wgmma, &[("wgmma.commit_group.sync.aligned;", 0, "")], &[WgmmaHazard], ""),
    found("wgmma batch not committed", Warpgroup, &[("wgmma.commit_group.sync.aligned;", 0, "")], &[WgmmaHazard], ""),
    found("accumulators used before the wait", Wgmma, &[("wgmma.wait_group.sync.aligned 0;", 0, "wgmma.wait_group.sync.aligned 1;")], &[WgmmaHazard], ""),
    found("accumulators used before the wait", Warpgroup, &[("wgmma.wait_group.sync.aligned 0;", 0, "wgmma.wait_group.sync.aligned 1;")], &[WgmmaHazard], "st.global.f32"),
    found("operands overwritten before the wait", Warpgroup, &[("wgmma.wait_group.sync.aligned 1;", 0, "")], &[AsyncRead], "st.shared.v4.u32"),
    found("operands overwritten before the wait", Tiles, &[("cp.async.bulk.wait_group.read 0;", 0, "")], &[AsyncRead], "st.shared.f32"),
    found("stage refilled before all warps have waited", Warpgroup, &[("bar.sync \t0;", 1, "")], &[AsyncRead], "st.shared.v4.u32"),
    found("stage refilled before all warps have waited", Wgmma, &[("wgmma.wait_group.sync.aligned 0;", 0, "")], &[AsyncRead], "st.shared.v4.u32"),
    found("stores not fenced before wgmma", Wgmma, &[("fence.proxy.async.shared::cta;", 0, "")], &[ProxyFence], "wgmma.mma_async"),
    found("stores not fenced before wgmma", Warpgroup, &[("fence.proxy.async.shared::cta;", 1, "")], &[ProxyFence], "wgmma.mma_async"),
    found("barrier before wgmma dropped", Wgmma, &[("bar.sync \t0;", 0, "")], &[SharedRace], "wgmma.mma_async"),
    found("barrier before wgmma dropped", Warpgroup, &[("bar.sync \t0;", 0, "")], &[SharedRace], "wgmma.mma_async"),
    found("descriptor off its pattern", Wgmma, &[("{ .reg .pred p;", 0, "add.s64 \t%rd40, %rd40, 16;\n\t{ .reg .pred p;")], &[InvalidDescriptor], "wgmma.mma_async"),
    found("descriptor off its pattern", Warpgroup, &[("{ .reg .pred p;", 0, "add.s64 \t%rd63, %rd63, 16;\n\t{ .reg .pred p;")], &[InvalidDescriptor], "wgmma.mma_async"),
    found("descriptor past shared memory", Wgmma, &[("{ .reg .pred p;", 0, "add.s64 \t%rd40, %rd40, 4096;\n\t{ .reg .pred p;")], &[InvalidDescriptor], "wgmma.mma_async"),
    found("descriptor past shared memory", Warpgroup, &[("{ .reg .pred p;", 0, "add.s64 \t%rd62, %rd62, 4096;\n\t{ .reg .pred p;")], &[InvalidDescriptor], "wgmma.mma_async"),
    found("one warp of the warpgroup leaves", Wgmma, &[("wgmma.fence.sync.aligned;", 0, "setp.ge.u32 \t%p2, %r1, 96;\n\t@%p2 ret;\n\twgmma.fence.sync.aligned;")], &[WarpgroupDivergence], ""),
    found("one warp of the warpgroup leaves", Warpgroup, &[("wgmma.fence.sync.aligned;", 0, "setp.ge.u32 \t%p1, %r1, 96;\n\t@%p1 ret;\n\twgmma.fence.sync.aligned;")], &[WarpgroupDivergence], ""),
    found("registers raised by setmaxnreg.dec", Wgmma, &[(".maxntid 128, 1, 1", 0, ".maxntid 128, 1, 1\n.maxnreg 128"), ("wgmma.fence.sync.aligned;", 0, "setmaxnreg.dec.sync.aligned.u32 \t160;\n\twgmma.fence.sync.aligned;")], &[InvalidOperand], "setmaxnreg"),
    found("registers raised by setmaxnreg.dec", Warpgroup, &[(".maxntid 128, 1, 1", 0, ".maxntid 128, 1, 1\n.maxnreg 128"), ("wgmma.fence.sync.aligned;", 0, "setmaxnreg.dec.sync.aligned.u32 \t160;\n\twgmma.fence.sync.aligned;")], &[InvalidOperand], "setmaxnreg"),
    found("wgmma.fence dropped", GeneratedWgmma, &[("wgmma.fence.sync.aligned;", 0, "")], &[WgmmaHazard], "wgmma.mma_async"),
    found("wgmma.fence dropped", GeneratedGroup, &[("wgmma.fence.sync.aligned;", 1, "")], &[WgmmaHazard], "wgmma.mma_async"),
    found("accumulators used before the wait", GeneratedWgmma, &[("wgmma.wait_group.sync.aligned 0;", 0, "")], &[WgmmaHazard], ""),
    found("accumulators used before the wait", GeneratedGroup, &[("wgmma.wait_group.sync.aligned 0;", 0, "")], &[WgmmaHazard], ""),
    found("stage handed back while products read it", GeneratedWgmma, &[("wgmma.wait_group.sync.aligned 1;", 0, "wgmma.wait_group.sync.aligned 2;"), ("wgmma.wait_group.sync.aligned 1;", 0, "wgmma.wait_group.sync.aligned 2;")], &[SharedRace, AsyncRead], "cp.async.bulk"),
    found("stage handed back while products read it", GeneratedGroup, &[("wgmma.wait_group.sync.aligned 1;", 0, "wgmma.wait_group.sync.aligned 2;"), ("wgmma.wait_group.sync.aligned 1;", 0, "wgmma.wait_group.sync.aligned 2;")], &[SharedRace, AsyncRead], "cp.async.bulk"),
];
