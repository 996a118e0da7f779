// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g64.bf16-f32.n5120.k27648.m40+bias@sm90a.132
// schedule: wgmma tile=40x256x128 groups=2 stages=4 split=2 producer=group raster=rows dequant=(* s (sum (* (- (magic q) (+ 128 z)) x)))

struct alignas(64) TensorMap { unsigned long long opaque[16]; };

static __device__ __forceinline__ unsigned and_or(unsigned a, unsigned mask, unsigned bits) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}

static __device__ __forceinline__ unsigned bf2_fma(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

static __device__ __forceinline__ float h2_low(unsigned a) {
  float d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ float h2_high(unsigned a) {
  float d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ unsigned h2_both_low(unsigned a) {
  unsigned d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l}; }" : "=r"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ unsigned h2_both_high(unsigned a) {
  unsigned d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h}; }" : "=r"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ unsigned bf2_pack(float low, float high) {
  unsigned d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ void warp_sync() { __syncwarp(); }

static __device__ __forceinline__ float load_l2_f32(const float* p) { return __ldcg(p); }

static __device__ __forceinline__ void fence_device() { __threadfence(); }

static __device__ __forceinline__ void count_arrival(unsigned& before, unsigned* counter) { before = atomicAdd(counter, 1u); }

static __device__ __forceinline__ void barrier_init(void* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :: "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(arrivals) : "memory");
}

static __device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void barrier_expect(void* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(bytes) : "memory");
}

static __device__ __forceinline__ void barrier_arrive(void* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
               :: "r"((unsigned)__cvta_generic_to_shared(barrier)) : "memory");
}

static __device__ __forceinline__ void barrier_wait(void* barrier, unsigned parity) {
  asm volatile("{ .reg .pred done; AGAIN_%=: "
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra AGAIN_%=; }"
               :: "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(parity) : "memory");
}

static __device__ __forceinline__ void bulk_copy(void* shared, const void* global, unsigned bytes, void* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1], %2, [%3];"
               :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global), "r"(bytes),
                  "r"((unsigned)__cvta_generic_to_shared(barrier)) : "memory");
}

static __device__ __forceinline__ void tensor_copy(void* shared, const TensorMap& map, int column, int row, void* barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3}], [%4];"
               :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(&map), "r"(column),
                  "r"(row), "r"((unsigned)__cvta_generic_to_shared(barrier)) : "memory");
}

static __device__ __forceinline__ bool elect() {
  unsigned elected;
  asm volatile("{ .reg .pred one; elect.sync _|one, 0xffffffff; selp.u32 %0, 1, 0, one; }"
               : "=r"(elected));
  return elected != 0;
}

static __device__ __forceinline__ unsigned settled(unsigned a) { asm volatile("" : "+r"(a)); return a; }

template <int count> static __device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(count));
}

template <int count> static __device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(count));
}

static __device__ __forceinline__ unsigned long long tile_128b(const void* shared) {
  const unsigned low = (unsigned)__cvta_generic_to_shared(shared) >> 4 | 1u << 16;
  // High word: 128-byte swizzle, 1024 bytes from 8 rows to the next.
  return 0x40000040ull << 32 | __shfl_sync(0xffffffffu, low, 0);
}

static __device__ __forceinline__ unsigned long long tile_behind(unsigned long long tile, int pieces) {
  return tile + pieces;
}

static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int pending> static __device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(pending) : "memory");
}

static __device__ __forceinline__ void wgmma_m64n40k16_bf16(float (&d)[20], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
    unsigned long long tile, int pieces, bool keep) {
  // Added here, a sum is not moved out of the loop to where there are too few uniform registers.
  asm volatile("{ .reg .pred keep; .reg .b64 b; add.s64 b, %24, %25;"
    " setp.ne.b32 keep, %26, 0;"
    " wgmma.mma_async.sync.aligned.m64n40k16.f32.bf16.bf16 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, "
    "%8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19}, "
    "{%20, %21, %22, %23}, b, keep, 1, 1, 0; }"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19])
    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(tile), "l"((long long)pieces),
      "r"((int)keep));
}

constexpr int N = 5120;
constexpr int K = 27648;
constexpr int STEPS = 216;

extern "C" __global__ void __launch_bounds__(384, 1)
qtune_wgmma_w4a16_awq_g64_bf16_f32_n5120_k27648_m40_bias(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const __grid_constant__ TensorMap x,
    const float* __restrict__ bias,
    float* __restrict__ out,
    float* __restrict__ partials,
    unsigned* __restrict__ counters,
    const int tokens) {
  extern __shared__ __align__(1024) unsigned char shared[];
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 40960);
  float* const red = reinterpret_cast<float*>(shared + 0);
  unsigned long long* const full = reinterpret_cast<unsigned long long*>(shared + 114688);
  unsigned long long* const empty = reinterpret_cast<unsigned long long*>(shared + 114720);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 106496);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 106496);
  unsigned* const arrived = reinterpret_cast<unsigned*>(shared + 0);
  // prologue: this block's tile, the barriers of the ring
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int split = blockIdx.z;
  const int first = split * STEPS / 2;
  const int last = (split + 1) * STEPS / 2;
  if (thread == 0) {
    for (int stage = 0; stage < 4; ++stage) {
      barrier_init(&full[stage], 1);
      barrier_init(&empty[stage], 8);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (warp < 8) {
    // consumers: convert a unit while the one before it is multiplied
    take_registers<240>();
    const int warp_tile = warp / 4 * 8 + warp % 4;
    const int lane_piece = warp_tile * 64 + lane;
    const unsigned long long ring_tile = tile_128b(&ring_x[0]);
    float group_sum0[2][20];
    float total[2][20] = {};
    unsigned frag0[2][2][4][4];
    unsigned row_words[2][2];

    // mainloop: a lap of the ring at a time
    unsigned phase = 0x00000000u;
    for (int lap = first; lap < last - 3; lap += 4) {
      #pragma unroll
      for (int slot = 0; slot < 4; ++slot) {
        barrier_wait(&full[slot], phase);
        const int weights_at = slot * 1024 + lane_piece;
        const unsigned long long tokens_at = tile_behind(ring_tile, slot * 640);
        #pragma unroll
        for (int segment = 0; segment < 2; ++segment) {
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            {
              const uint2 packed = row_pairs[(slot * 2 + segment) * 128 + warp_tile * 8 + lane / 4 + row_part * 32];
              row_words[row_part][0] = packed.x;
              row_words[row_part][1] = packed.y;
            }
          }
          unsigned invariant0[2][1];
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            invariant0[row_part][0] = bf2_pack(128.0f + h2_high(row_words[row_part][0]), 128.0f + h2_high(row_words[row_part][1]));
          }
          unsigned words[2][4];
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            {
              const uint4 packed = ring_weights[weights_at + (row_part * 256 + segment * 32)];
              words[row_part][0] = packed.x;
              words[row_part][1] = packed.y;
              words[row_part][2] = packed.z;
              words[row_part][3] = packed.w;
            }
          }
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            #pragma unroll
            for (int k16 = 0; k16 < 4; ++k16) {
              const unsigned word = words[row_part][k16];
              frag0[segment % 2][row_part][k16][0] = settled(bf2_fma(h2_both_low(invariant0[row_part][0]), 0xbf80bf80u, and_or(word, 0x000f000fu, 0x43004300u)));
              frag0[segment % 2][row_part][k16][1] = settled(bf2_fma(h2_both_high(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 4, 0x000f000fu, 0x43004300u)));
              frag0[segment % 2][row_part][k16][2] = settled(bf2_fma(h2_both_low(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 8, 0x000f000fu, 0x43004300u)));
              frag0[segment % 2][row_part][k16][3] = settled(bf2_fma(h2_both_high(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 12, 0x000f000fu, 0x43004300u)));
            }
          }
          wgmma_fence();
          #pragma unroll
          for (int k16 = 0; k16 < 4; ++k16) {
            #pragma unroll
            for (int row_part = 0; row_part < 2; ++row_part) {
              wgmma_m64n40k16_bf16(group_sum0[row_part], frag0[segment % 2][row_part][k16][0], frag0[segment % 2][row_part][k16][1], frag0[segment % 2][row_part][k16][2], frag0[segment % 2][row_part][k16][3], tokens_at, segment * 320 + k16 * 2, 0 < k16);
            }
          }
          wgmma_commit();
          wgmma_wait<1>();
          if (segment == 0) {
            warp_sync();
            if (((0 < slot) || (first < lap)) && (lane == 0)) {
              barrier_arrive(&empty[(slot + 3) % 4]);
            }
          }
          wgmma_wait<0>();
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            const float coefficient0_0 = h2_low(row_words[row_part][0]);
            #pragma unroll
            for (int token_part = 0; token_part < 5; ++token_part) {
              total[row_part][token_part * 4] = fma_f32(coefficient0_0, group_sum0[row_part][token_part * 4], total[row_part][token_part * 4]);
              total[row_part][token_part * 4 + 1] = fma_f32(coefficient0_0, group_sum0[row_part][token_part * 4 + 1], total[row_part][token_part * 4 + 1]);
            }
            const float coefficient0_1 = h2_low(row_words[row_part][1]);
            #pragma unroll
            for (int token_part = 0; token_part < 5; ++token_part) {
              total[row_part][token_part * 4 + 2] = fma_f32(coefficient0_1, group_sum0[row_part][token_part * 4 + 2], total[row_part][token_part * 4 + 2]);
              total[row_part][token_part * 4 + 3] = fma_f32(coefficient0_1, group_sum0[row_part][token_part * 4 + 3], total[row_part][token_part * 4 + 3]);
            }
          }
        }
      }
      phase = phase ^ 0x00000001u;
    }

    // the stages of an incomplete lap
    const int rest = last - (last - first) % 4;
    for (int step = rest; step < last; ++step) {
      const int slot = step - rest;
      barrier_wait(&full[slot], phase);
      const int weights_at = slot * 1024 + lane_piece;
      const unsigned long long tokens_at = tile_behind(ring_tile, slot * 640);
      #pragma unroll
      for (int segment = 0; segment < 2; ++segment) {
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          {
            const uint2 packed = row_pairs[(slot * 2 + segment) * 128 + warp_tile * 8 + lane / 4 + row_part * 32];
            row_words[row_part][0] = packed.x;
            row_words[row_part][1] = packed.y;
          }
        }
        unsigned invariant0[2][1];
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          invariant0[row_part][0] = bf2_pack(128.0f + h2_high(row_words[row_part][0]), 128.0f + h2_high(row_words[row_part][1]));
        }
        unsigned words[2][4];
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          {
            const uint4 packed = ring_weights[weights_at + (row_part * 256 + segment * 32)];
            words[row_part][0] = packed.x;
            words[row_part][1] = packed.y;
            words[row_part][2] = packed.z;
            words[row_part][3] = packed.w;
          }
        }
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          #pragma unroll
          for (int k16 = 0; k16 < 4; ++k16) {
            const unsigned word = words[row_part][k16];
            frag0[segment % 2][row_part][k16][0] = settled(bf2_fma(h2_both_low(invariant0[row_part][0]), 0xbf80bf80u, and_or(word, 0x000f000fu, 0x43004300u)));
            frag0[segment % 2][row_part][k16][1] = settled(bf2_fma(h2_both_high(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 4, 0x000f000fu, 0x43004300u)));
            frag0[segment % 2][row_part][k16][2] = settled(bf2_fma(h2_both_low(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 8, 0x000f000fu, 0x43004300u)));
            frag0[segment % 2][row_part][k16][3] = settled(bf2_fma(h2_both_high(invariant0[row_part][0]), 0xbf80bf80u, and_or(word >> 12, 0x000f000fu, 0x43004300u)));
          }
        }
        wgmma_fence();
        #pragma unroll
        for (int k16 = 0; k16 < 4; ++k16) {
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            wgmma_m64n40k16_bf16(group_sum0[row_part], frag0[segment % 2][row_part][k16][0], frag0[segment % 2][row_part][k16][1], frag0[segment % 2][row_part][k16][2], frag0[segment % 2][row_part][k16][3], tokens_at, segment * 320 + k16 * 2, 0 < k16);
          }
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (segment == 0) {
          warp_sync();
          if ((first < step) && (lane == 0)) {
            barrier_arrive(&empty[(slot == 0) ? 3 : slot - 1]);
          }
        }
        wgmma_wait<0>();
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          const float coefficient0_0 = h2_low(row_words[row_part][0]);
          #pragma unroll
          for (int token_part = 0; token_part < 5; ++token_part) {
            total[row_part][token_part * 4] = fma_f32(coefficient0_0, group_sum0[row_part][token_part * 4], total[row_part][token_part * 4]);
            total[row_part][token_part * 4 + 1] = fma_f32(coefficient0_0, group_sum0[row_part][token_part * 4 + 1], total[row_part][token_part * 4 + 1]);
          }
          const float coefficient0_1 = h2_low(row_words[row_part][1]);
          #pragma unroll
          for (int token_part = 0; token_part < 5; ++token_part) {
            total[row_part][token_part * 4 + 2] = fma_f32(coefficient0_1, group_sum0[row_part][token_part * 4 + 2], total[row_part][token_part * 4 + 2]);
            total[row_part][token_part * 4 + 3] = fma_f32(coefficient0_1, group_sum0[row_part][token_part * 4 + 3], total[row_part][token_part * 4 + 3]);
          }
        }
      }
    }
    wgmma_wait<0>();

    // the output tile meets in shared memory
    asm volatile("bar.sync 1, 256;" ::: "memory");
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      #pragma unroll
      for (int token_part = 0; token_part < 5; ++token_part) {
        red[(token_part * 8 + lane % 4 * 2) * 260 + ((warp_tile + row_part * 4) * 16 + lane / 4)] = total[row_part][token_part * 4];
        red[(token_part * 8 + lane % 4 * 2 + 1) * 260 + ((warp_tile + row_part * 4) * 16 + lane / 4)] = total[row_part][token_part * 4 + 1];
        red[(token_part * 8 + lane % 4 * 2) * 260 + ((warp_tile + row_part * 4) * 16 + lane / 4 + 8)] = total[row_part][token_part * 4 + 2];
        red[(token_part * 8 + lane % 4 * 2 + 1) * 260 + ((warp_tile + row_part * 4) * 16 + lane / 4 + 8)] = total[row_part][token_part * 4 + 3];
      }
    }

    // epilogue: add the warps' partial sums
    asm volatile("bar.sync 1, 256;" ::: "memory");
    const int tile_id = token_tile * 20 + row_tile;
    for (int i = thread; i < 10240; i += 256) {
      const int row = i % 256;
      const int token = i / 256;
      partials[(tile_id * 2 + split) * 10240 + i] = red[token * 260 + row];
    }

    // the last block to arrive adds the splits in order
    fence_device();
    asm volatile("bar.sync 1, 256;" ::: "memory");
    if (thread == 0) {
      unsigned before = 0x00000000u;
      count_arrival(before, &counters[tile_id]);
      arrived[0] = before;
    }
    asm volatile("bar.sync 1, 256;" ::: "memory");
    if (arrived[0] == 0x00000001u) {
      fence_device();
      for (int i = thread; i < 10240; i += 256) {
        const int row = i % 256;
        const int token = i / 256;
        float sum = 0.0f;
        #pragma unroll
        for (int part = 0; part < 2; ++part) {
          sum = sum + load_l2_f32(&partials[(tile_id * 2 + part) * 10240 + i]);
        }
        const int n = row_tile * 256 + row;
        const int m = token_tile * 40 + token;
        if ((n < N) && (m < tokens)) {
          out[m * N + n] = sum + bias[n];
        }
      }
      if (thread == 0) {
        counters[tile_id] = 0x00000000u;
      }
    }
  } else {
    // producer: refill each stage once all consumer warps are done with it
    give_registers<24>();
    const bool elected = elect();
    if ((warp == 8) && elected) {
      int slot = 0;
      unsigned phase = 0x00000001u;
      for (int step = first; step < last; ++step) {
        barrier_wait(&empty[slot], phase);
        barrier_expect(&full[slot], 28672);
        const int stage = row_tile * STEPS + step;
        bulk_copy(&ring_weights[slot * 1024], &weights[stage * 1024], 16384, &full[slot]);
        bulk_copy(&ring_params[slot * 128], &params[stage * 128], 2048, &full[slot]);
        #pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          tensor_copy(&ring_x[slot * 640 + panel * 320], x, step * 128 + panel * 64, token_tile * 40, &full[slot]);
        }
        slot = (slot + 1 == 4) ? 0 : slot + 1;
        phase = (slot == 0) ? (phase ^ 0x00000001u) : phase;
      }
    }
  }
}
