//! The defects: by problem and schedule, what is replaced in the text of the right kernel.

pub const MMA_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m9+bias";
/// Long enough for each split to refill its ring.
pub const MMA_LONG: &str = "w4a16.awq-g64.f16-f16.n80.k1024.m9+bias";
pub const MMA: &str = "mma tile=16x32x128 warps=1x2 stages=3 split=2 pad=16 raster=rows \
                   dequant=(* s (- (sum (* (magic q) x)) (* (+ 1024 z) (sum x))))";
pub const GEMV_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m2+bias";
pub const GEMV: &str = "gemv tokens=2 rows=1 lanes=4 warps=1x2 unroll=1 split=1 x=shared acc=f32 \
                    cache=stream dequant=(sum (* (* (- (real q) z) s) x))";

/// A defect: what it is, the text it replaces and by what.
pub type Plant = (&'static str, &'static str, &'static str);

/// Codes, groups, scales and zero-points.
pub const MMA_DEQUANTIZATION: [Plant; 9] = [
    ("group off by one", "row_pairs[(slot * 2 + ", "row_pairs[(slot * 2 + 1 - "),
    ("swapped nibbles", "and_or(word >> 4,", "and_or(word >> 8,"),
    ("nibble twice", "and_or(word >> 12,", "and_or(word >> 4,"),
    ("three bits of a code", "and_or(word, 0x000f000fu", "and_or(word, 0x00070007u"),
    ("missing zero-point", "(1024.0f + h2_high(", "(1032.0f + 0.0f * h2_high("),
    ("zero-point off by one", "(1024.0f + h2_high(", "(1025.0f + h2_high("),
    ("offset not corrected", "-1.0f * h2_low(row_words", "0.0f * h2_low(row_words"),
    (
        "scale of another row",
        "coefficient0_1 = h2_low(row_words[row_part][1])",
        "coefficient0_1 = h2_low(row_words[row_part][0])",
    ),
    (
        "scale and zero-point exchanged",
        "coefficient0_0 = h2_low(row_words[row_part][0])",
        "coefficient0_0 = h2_high(row_words[row_part][0])",
    ),
];

/// The walk over K and the ring of stages.
pub const MMA_MAINLOOP: [Plant; 8] = [
    ("dropped K tail", "step < last; ++step", "step < last - 1; ++step"),
    ("split starts late", "first = split * STEPS / 2", "first = split * STEPS / 2 + split"),
    ("step in two splits", "(split + 1) * STEPS / 2", "(split + 1) * STEPS / 2 + 1 - split"),
    ("lost barrier", "copy_wait<1>();\n    __syncthreads();", "copy_wait<1>();"),
    ("wait too lax", "copy_wait<1>()", "copy_wait<2>()"),
    ("stage refilled while it is read", "free = slot;", "free = (slot + 1 == 3) ? 0 : slot + 1;"),
    ("rows shorter than read", "ring_x[x_token * 17", "ring_x[x_token * 16"),
    ("activations of the wrong step", "x_k8 = next * 16", "x_k8 = step * 16"),
];

/// Partial sums, bias and edges.
pub const MMA_EPILOGUE: [Plant; 10] = [
    ("bias twice", "h2_low(static_cast<unsigned>(bias", "2.0f * h2_low(static_cast<unsigned>(bias"),
    ("bias of another row", "bias[n]", "bias[n ^ 1]"),
    ("M edge written", "(m < tokens)", "(m <= tokens)"),
    ("N edge written", "(n < N)", "(n <= N)"),
    ("tokens exchanged", "token_tile * 16 + token;", "token_tile * 16 + (token ^ 1);"),
    ("lost warp", "sum = sum + red[(16 + token)", "sum = sum + 0.0f * red[(16 + token)"),
    ("lost split", "sum = sum + load_l2_f32(", "sum = 0.0f * sum + load_l2_f32("),
    ("stale workspace", "split) * 512 + i] = sum;", "split) * 512 + i] += sum;"),
    ("first to arrive adds up", "arrived[0] == 0x00000001u", "arrived[0] == 0x00000000u"),
    ("counter left", "counters[tile_id] = 0x00000000u;", ";"),
];

pub const GEMV_PLANTS: [Plant; 11] = [
    ("dropped K tail", "step < last; step += 2", "step < last - 1; step += 2"),
    ("warp starts late", "step = first + warp_k;", "step = first + 2 * warp_k;"),
    ("group off by one", "lane_k * 32 / 64)]", "(3 - lane_k) * 32 / 64)]"),
    ("swapped nibbles", "(word >> 4) & 0x0000000fu), static", "(word >> 8) & 0x0000000fu), static"),
    (
        "scale and zero-point exchanged",
        "h2_both_high(entry[0][0][0])",
        "h2_both_low(entry[0][0][0])",
    ),
    ("lost lane", "shfl_xor(total[token][0], 1)", "0.0f * shfl_xor(total[token][0], 1)"),
    ("lost warp", "sum = sum + red[", "sum = sum + 0.0f * red["),
    ("lost barrier", "  __syncthreads();\n\n  // mainloop", "\n  // mainloop"),
    ("one token for all", "token_tile * 2 + token) * (K / 8)", "token_tile * 2) * (K / 8)"),
    ("lost bias", "h2_low(static_cast<unsigned>(bias", "0.0f * h2_low(static_cast<unsigned>(bias"),
    ("M edge written", "(m < tokens)", "(m <= tokens)"),
];

pub const TABLE_PROBLEM: &str = "w4a16.nf4-b64.f16-f16.n80.k512.m9";
pub const TABLE: &str = "mma tile=16x32x128 warps=1x2 stages=3 split=1 pad=16 raster=rows \
                     dequant=(* s (sum (* (page q) x)))";

pub const TABLE_PLANTS: [Plant; 5] = [
    ("one value off", "0x3c393837u", "0x3b393837u"),
    ("one half twice", "and_or(codes >> 1, 0x44444444u", "and_or(codes >> 1, 0x00000000u"),
    ("another byte", "0x00005514u", "0x00005504u"),
    ("another entry", "piece / 8 * 16", "(piece / 8 ^ 1) * 16"),
    ("half filled", "piece < 2048", "piece < 1024"),
];

pub const RESIDUAL_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m9+bias+residual";

/// With split K, where only the last block to arrive may add the residual.
pub const RESIDUAL_PLANTS: [Plant; 5] = [
    (
        "residual twice",
        "h2_low(static_cast<unsigned>(load_own",
        "2.0f * h2_low(static_cast<unsigned>(load_own",
    ),
    (
        "residual dropped",
        "h2_low(static_cast<unsigned>(load_own",
        "0.0f * h2_low(static_cast<unsigned>(load_own",
    ),
    ("residual of another row", "&residual[m * N + n]", "&residual[m * N + (n ^ 1)]"),
    ("residual of another token", "&residual[m * N + n]", "&residual[m / 2 * N + n]"),
    ("bias lost", "h2_low(static_cast<unsigned>(bias", "0.0f * h2_low(static_cast<unsigned>(bias"),
];

pub const GATED_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m9+bias+silu_mul";

/// With split K: gate and up meet in global memory.
pub const GATED_PLANTS: [Plant; 6] = [
    ("gate taken for up", "silu(gate", "silu(up"),
    ("bias of the gate for both", "bias[n * 2 + 1]", "bias[n * 2]"),
    ("up row of the next pair", "* 512 + (i * 2 + 1)]", "* 512 + ((i + 1) % 256 * 2 + 1)]"),
    ("N edge written", "(n < N / 2)", "(n <= N / 2)"),
    ("sign of the exponent", "__expf(-a)", "__expf(a)"),
    ("gate without its sigmoid", "__fdividef(a, 1.0f + __expf(-a))", "a"),
];

pub const GATED_GEMV_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k512.m2+silu_mul";

/// Without split K: gate and up meet in shared memory.
pub const GATED_GEMV_PLANTS: [Plant; 5] = [
    ("gate and up exchanged", "silu(gate) * up", "silu(up) * gate"),
    ("up dropped", "silu(gate) * up", "silu(gate)"),
    ("no gate", "silu(gate) * up", "gate * up"),
    ("lost warp", "up = up + bits", "up = bits"),
    ("pair of another row", "+ pair];", "+ (pair ^ 1)];"),
];

pub const SLAB_PROBLEM: &str = "w4a16.awq-g32.f16-f16.n80.k512.m9";
pub const SLAB: &str = "dequant slab=32 gemm=mma tile=16x16x64 warps=1x1 stages=2 split=1 pad=16 \
                    raster=rows dequant=(sum (* (* (- (real q) z) s) x))";

/// Between the function that dequantizes and the one that multiplies.
pub const SLAB_PLANTS: [Plant; 7] = [
    ("slab of other rows", "row_tile = first_tile + slab_tile", "row_tile = slab_tile"),
    ("dropped K tail", "? last : STEPS", "? last : STEPS - 1"),
    ("rows exchanged", "row_pairs[pair_at]", "row_pairs[pair_at ^ 1]"),
    ("groups exchanged", "half * 32 / 32", "(1 - half) * 32 / 32"),
    ("fragments exchanged", "(half * 2 + k16) * 32]", "(half * 2 + 1 - k16) * 32]"),
    ("another row tile's place", "to = (slab_tile * STEPS", "to = ((1 - slab_tile) * STEPS"),
    ("stage of another step", "(slab_tile * STEPS + next)", "(slab_tile * STEPS + step)"),
];

pub const STREAM_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n80.k640.m20";
pub const STREAM: &str = "mma tile=16x16x128 warps=1x2 stages=3 split=stream:7 pad=16 \
                      raster=rows dequant=(sum (* (* (- (real q) z) s) x))";

/// Seven blocks have 50 steps of ten tiles.
pub const STREAM_PLANTS: [Plant; 9] = [
    ("step lost between shares", "last = first + share", "last = first + share - 1"),
    ("stage of this tile", "load_tile = next / STEPS", "load_tile = tile"),
    ("activations of the first tile", "x_stage = free", "x_stage = slot"),
    ("share lost", "sum = sum + load_l2_f32(", "sum = 0.0f * sum + load_l2_f32("),
    ("both ends of a share in one place", "(part == first_block) ? 1 : 0", "0"),
    ("last partner left out", "part < last_block + 1", "part < last_block"),
    ("first to arrive adds up", "static_cast<unsigned>(last_block - first_block)", "0u"),
    ("counter left", "counters[tile] = 0x00000000u;", ";"),
    ("sums of the tile before", "float total[", "static float total["),
];

pub const CLUSTER: &str =
    "gemv tokens=2 rows=1 lanes=4 warps=1x2 unroll=1 split=2@cluster x=shared \
                       acc=f32 cache=stream dequant=(sum (* (* (- (real q) z) s) x))";

/// Sums that meet in the shared memory of two blocks.
pub const CLUSTER_PLANTS: [Plant; 5] = [
    ("read before all are there", "add the splits in order\n  cluster_barrier();", "\n"),
    ("block gone while others read", "as its block is\n  cluster_barrier();", "\n"),
    ("own sums for all", "load_cluster_f32(&red[token * 8 + row], part)", "red[token * 8 + row]"),
    ("columns left out", "split * 64 + thread", "split * 64 + thread + 1"),
    ("sums of one warp", "red[token * 8 + row] = sum;", ";"),
];

pub const GROUP_PROBLEM: &str = "w4a16.awq-g64.f16-f16.n256.k640.m20";
pub const GROUP_STREAM: &str =
    "wgmma tile=16x64x128 groups=1 stages=3 split=stream:7 producer=warp \
                            raster=rows dequant=(sum (* (* (- (real q) z) s) x))";

/// Seven blocks have 40 steps of eight tiles: rings run on from tile to tile.
pub const GROUP_STREAM_PLANTS: [Plant; 8] = [
    (
        "tile's last stage kept",
        "if (lane == 0) {\n        barrier_arrive",
        "if (lane == 32) {\n        barrier_arrive",
    ),
    ("stage released twice", "(from < step) && (lane == 0)", "lane == 0"),
    ("sums of the tile before", "(from < step) || (0 <", "(first < step) || (0 <"),
    (
        "ring in step with the tile",
        "full[slot], phase);\n        const int weights",
        "full[slot], 0u);\n        const int weights",
    ),
    ("weights of the first tile", "load_tile % ROW_TILES * STEPS + load_step", "load_step"),
    ("tokens of the first tile", "load_token, &full", "0, &full"),
    (
        "output tile on the ring",
        "red = reinterpret_cast<float*>(shared + 26112)",
        "red = reinterpret_cast<float*>(shared)",
    ),
    ("last partner left out", "part < last_block + 1", "part < last_block"),
];

pub const MULTICAST: &str =
    "wgmma tile=16x64x128 groups=1 stages=3 split=1 producer=warp raster=rows \
                         multicast=2 dequant=(sum (* (* (- (real q) z) s) x))";

/// Two blocks copy half of the tokens to both.
pub const MULTICAST_PLANTS: [Plant; 7] = [
    ("one half twice", "rank = blockIdx.x % 2", "rank = 0"),
    ("half to one block", "&full[slot], 2)", "&full[slot], 1)"),
    ("released to one block", "lane < 2", "lane < 1"),
    ("own warps counted alone", "empty[stage], 8)", "empty[stage], 4)"),
    (
        "copies before all have started",
        "cluster_barrier();\n  if (warp",
        "__syncthreads();\n  if (warp",
    ),
    (
        "block gone while others arrive",
        "memory\n    cluster_barrier();",
        "memory\n    asm volatile(\"bar.sync 1, 128;\" ::: \"memory\");",
    ),
    ("halves exchanged", "* 16 + rank * 8, &full", "* 16 + (1 - rank) * 8, &full"),
];

pub const CODES_PROBLEM: &str = "w8a8.int8-ch-a8.f16-f16.n80.k520.m9";
pub const CODES: &str = "mma tile=16x32x128 warps=2x1 stages=3 split=2 pad=16 raster=rows \
                     dequant=(* s (sum (* (- (real q) 128) x)))";

/// Where activations become codes, and where scales meet the sums of products.
pub const CODES_PLANTS: [Plant; 12] = [
    ("token's scale dropped", "* token_scale", "* (token_scale * 0.0f + 1.0f)"),
    ("scale of another token", "token_scales[m]", "token_scales[m / 2 * 2]"),
    ("row's scale dropped", "h2_low(static_cast<unsigned>(params[n])) * token", "token"),
    ("scale of another row", "params[n]", "params[n ^ 1]"),
    ("codes cut off", "divide_f32(127.0f, largest)", "divide_f32(254.0f, largest)"),
    ("codes half as large", "divide_f32(127.0f, largest)", "divide_f32(63.5f, largest)"),
    ("largest of one warp", "largest_f32(largest, of_warps[warp])", "largest"),
    ("largest of some lanes", "shfl_xor(largest, 16)", "0.0f"),
    ("signs lost", "fmaxf(most, fabsf(a))", "fmaxf(most, a)"),
    ("codes of other tokens", "codes[blockIdx.x * 33 + piece]", "codes[blockIdx.x * 32 + piece]"),
    ("bytes exchanged", "(unsigned)(l & 0xff) |", "(unsigned)(h & 0xff) |"),
    ("integers cut to nothing", "cvt.rni.sat.s8.f32", "cvt.rzi.sat.s8.f32"),
];

pub const STATIC_PROBLEM: &str = "w8a8.int8-ch-a8-static.f16-f16.n80.k520.m9";

/// Where a layer brings the scale of its activations.
pub const STATIC_PLANTS: [Plant; 4] = [
    ("layer's scale not inverted", "divide_f32(1.0f, scale)", "scale"),
    (
        "layer's scale lost behind the codes",
        "scales[blockIdx.x] = scale",
        "scales[blockIdx.x] = 1.0f",
    ),
    ("scale of the first token alone", "if (thread == 0)", "if (thread == 0 && blockIdx.x == 0)"),
    ("codes that wrap around", "cvt.rni.sat.s8.f32", "cvt.rni.s32.f32"),
];

pub const FLOAT8_PROBLEM: &str = "w8a8.fp8-e4m3-ch-a8.bf16-bf16.n40.k520.m9";
pub const FLOAT8: &str = "mma tile=16x32x128 warps=2x1 stages=2 split=1 pad=16 raster=rows \
                      dequant=(* s (sum (* (e4m3 q) x)))";

/// What 8-bit floats have of their own: NaN, and sums that are added up by the stage.
pub const FLOAT8_PLANTS: [Plant; 4] = [
    ("zeros divided by nothing", "largest = 7.888609e-31f", "largest = 0.0f"),
    ("bytes exchanged", "\"f\"(high), \"f\"(low)", "\"f\"(low), \"f\"(high)"),
    ("sums of a stage twice", "coefficient0_0 = 1.0f", "coefficient0_0 = 2.0f"),
    ("sums of the stage before", "float group_sum0[", "static float group_sum0["),
];
