//! Kernels that do not assemble, launch or end.

use super::*;

#[rustfmt::skip]
pub const ROWS: &[Defect] = &[
    refused("parameter missing", SplitK, &[("column_sums_param_4,\n\t.param .u32 column_sums_param_5", 0, "column_sums_param_4"), ("ld.param.u32 \t%r23, [column_sums_param_5];", 0, "mov.u32 \t%r23, 90;")], "6 arguments for 5 parameters"),
    refused("parameter missing", Exchange, &[("exchange_param_1,\n\t.param .u32 exchange_param_2", 0, "exchange_param_1"), ("ld.param.u32 \t%r22, [exchange_param_2];", 0, "mov.u32 \t%r22, 3;")], "3 arguments for 2 parameters"),
    refused("parameter of another size", StreamK, &[(".param .u32 row_sums_param_6", 0, ".param .u64 row_sums_param_6")], "argument 6 has 4 bytes, not 8"),
    refused("parameter of another size", Mma, &[(".param .u32 gemm_param_3", 0, ".param .u64 gemm_param_3")], "argument 3 has 4 bytes, not 8"),
    refused("more threads than declared", Scan, &[(".maxntid 64, 1, 1", 0, ".maxntid 32, 1, 1")], "64 threads per block, .maxntid is 32"),
    refused("more threads than declared", Gemv, &[(".maxntid 128, 1, 1", 0, ".maxntid 96, 1, 1")], "128 threads per block, .maxntid is 96"),
    refused("other block than required", Exchange, &[(".maxntid 64, 1, 1", 0, ".reqntid 32, 2, 1")], ".reqntid is [32, 2, 1]"),
    refused("other block than required", Mma, &[(".maxntid 128, 1, 1", 0, ".reqntid 256, 1, 1")], ".reqntid is [256, 1, 1]"),
    refused("too much static shared memory", Exchange, &[("stage[4224]", 0, "stage[65536]")], "static shared bytes, allowed are 49152"),
    refused("too much static shared memory", Scan, &[("scratch[256]", 0, "scratch[49152]")], "static shared bytes, allowed are 49152"),
    refused("cluster too large", Gemv, &[(".maxntid 128, 1, 1", 0, ".maxntid 128, 1, 1\n.reqnctapercluster 32, 1, 1")], "allows 1 to 16 blocks"),
    refused("cluster too large", StreamK, &[(".maxntid 64, 1, 1", 0, ".maxntid 64, 1, 1\n.reqnctapercluster 17, 1, 1")], "allows 1 to 16 blocks"),
    refused("grid no multiple of the cluster", Gemv, &[(".maxntid 128, 1, 1", 0, ".maxntid 128, 1, 1\n.reqnctapercluster 2, 1, 1")], "is not a multiple of cluster"),
    refused("grid no multiple of the cluster", StreamK, &[(".maxntid 64, 1, 1", 0, ".maxntid 64, 1, 1\n.reqnctapercluster 2, 1, 1")], "is not a multiple of cluster"),
    refused("instruction that the target lacks", Mma, &[(".target sm_80", 0, ".target sm_75")], "needs .target sm_80 or later"),
    refused("instruction that the target lacks", GeneratedMma, &[("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r294, %r295, %r296, %r297}, [%r298];", 0, "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r298], {%r294, %r295, %r296, %r297};")], "needs .target sm_90 or later"),
    refused("target without its architecture-specific part", Wgmma, &[(".target sm_90a", 0, ".target sm_90")], "needs .target sm_90a"),
    refused("target without its architecture-specific part", Warpgroup, &[(".target sm_90a", 0, ".target sm_100a")], "needs .target sm_90a"),
    refused("endless loop", SplitK, &[("add.s32 \t%r44, %r44, -1;", 0, "")], "exceeded 2000000 warp instructions"),
    refused("endless loop", Exchange, &[("add.s32 \t%r42, %r42, 1;", 0, "")], "exceeded 2000000 warp instructions"),
    refused("misspelled instruction", Scan, &[("bar.warp.sync", 0, "bar.warp.synch")], "cannot decode `bar.warp.synch`"),
    refused("misspelled instruction", Gemv, &[("shfl.sync.bfly.b32", 0, "shfl.bfly.b32")], "cannot decode `shfl.bfly.b32`"),
];
