// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g128.f16-f16.n5120.k5120.m128@sm90a.132
// schedule: wgmma tile=128x128x128 groups=2 stages=4 split=1 producer=warp raster=rows dequant=(sum (* (* (- (magic q) (+ 1024 z)) s) x))

struct alignas(64) TensorMap { unsigned long long opaque[16]; };

static __device__ __forceinline__ unsigned and_or(unsigned a, unsigned mask, unsigned bits) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}

static __device__ __forceinline__ unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selectors));
  return d;
}

static __device__ __forceinline__ unsigned h2_add(unsigned a, unsigned b) {
  unsigned d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_sub(unsigned a, unsigned b) {
  unsigned d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_mul(unsigned a, unsigned b) {
  unsigned d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
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

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ void warp_sync() { __syncwarp(); }

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

static __device__ __forceinline__ void wgmma_m64n128k16_f16(float (&d)[64], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
    unsigned long long tile, int pieces, bool keep) {
  // Added here, a sum is not moved out of the loop to where there are too few uniform registers.
  asm volatile("{ .reg .pred keep; .reg .b64 b; add.s64 b, %68, %69;"
    " setp.ne.b32 keep, %70, 0;"
    " wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, "
    "%8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, "
    "%24, %25, %26, %27, %28, %29, %30, %31, "
    "%32, %33, %34, %35, %36, %37, %38, %39, "
    "%40, %41, %42, %43, %44, %45, %46, %47, "
    "%48, %49, %50, %51, %52, %53, %54, %55, "
    "%56, %57, %58, %59, %60, %61, %62, %63}, "
    "{%64, %65, %66, %67}, b, keep, 1, 1, 0; }"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
      "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
      "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
      "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
      "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(tile), "l"((long long)pieces),
      "r"((int)keep));
}

constexpr int N = 5120;
constexpr int K = 5120;
constexpr int STEPS = 40;

extern "C" __global__ void __launch_bounds__(288)
qtune_wgmma_w4a16_awq_g128_f16_f16_n5120_k5120_m128(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const __grid_constant__ TensorMap x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(1024) unsigned char shared[];
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 131072);
  float* const red = reinterpret_cast<float*>(shared + 0);
  unsigned long long* const full = reinterpret_cast<unsigned long long*>(shared + 165888);
  unsigned long long* const empty = reinterpret_cast<unsigned long long*>(shared + 165920);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 163840);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 163840);
  // prologue: this block's tile, the barriers of the ring
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
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
    const int warp_tile = warp / 4 * 4 + warp % 4;
    const int lane_piece = warp_tile * 64 + lane;
    const unsigned long long ring_tile = tile_128b(&ring_x[0]);
    float total[1][64];
    unsigned frag0[2][1][4][4];
    unsigned row_words[1][2];

    // mainloop: a lap of the ring at a time
    unsigned phase = 0x00000000u;
    for (int lap = first; lap < last - 3; lap += 4) {
      #pragma unroll
      for (int slot = 0; slot < 4; ++slot) {
        barrier_wait(&full[slot], phase);
        const int weights_at = slot * 512 + lane_piece;
        const unsigned long long tokens_at = tile_behind(ring_tile, slot * 2048);
        {
          const uint2 packed = row_pairs[slot * 64 + warp_tile * 8 + lane / 4];
          row_words[0][0] = packed.x;
          row_words[0][1] = packed.y;
        }
        unsigned invariant0[1][1];
        invariant0[0][0] = h2_add(0x64006400u, permute(row_words[0][0], row_words[0][1], 0x00007632u));
        unsigned invariant1[1][1];
        invariant1[0][0] = permute(row_words[0][0], row_words[0][1], 0x00005410u);
        #pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          unsigned words[1][4];
          {
            const uint4 packed = ring_weights[weights_at + panel * 32];
            words[0][0] = packed.x;
            words[0][1] = packed.y;
            words[0][2] = packed.z;
            words[0][3] = packed.w;
          }
          #pragma unroll
          for (int k16 = 0; k16 < 4; ++k16) {
            const unsigned word = words[0][k16];
            frag0[panel % 2][0][k16][0] = settled(h2_mul(h2_sub(and_or(word, 0x000f000fu, 0x64006400u), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0])));
            frag0[panel % 2][0][k16][1] = settled(h2_mul(h2_sub(and_or(word >> 4, 0x000f000fu, 0x64006400u), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0])));
            frag0[panel % 2][0][k16][2] = settled(h2_mul(h2_sub(and_or(word >> 8, 0x000f000fu, 0x64006400u), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0])));
            frag0[panel % 2][0][k16][3] = settled(h2_mul(h2_sub(and_or(word >> 12, 0x000f000fu, 0x64006400u), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0])));
          }
          wgmma_fence();
          #pragma unroll
          for (int k16 = 0; k16 < 4; ++k16) {
            wgmma_m64n128k16_f16(total[0], frag0[panel % 2][0][k16][0], frag0[panel % 2][0][k16][1], frag0[panel % 2][0][k16][2], frag0[panel % 2][0][k16][3], tokens_at, panel * 1024 + k16 * 2, (0 < slot) || (first < lap) || (0 < panel + k16));
          }
          wgmma_commit();
          wgmma_wait<1>();
          if (panel == 0) {
            warp_sync();
            if (((0 < slot) || (first < lap)) && (lane == 0)) {
              barrier_arrive(&empty[(slot + 3) % 4]);
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
      const int weights_at = slot * 512 + lane_piece;
      const unsigned long long tokens_at = tile_behind(ring_tile, slot * 2048);
      {
        const uint2 packed = row_pairs[slot * 64 + warp_tile * 8 + lane / 4];
        row_words[0][0] = packed.x;
        row_words[0][1] = packed.y;
      }
      unsigned invariant0[1][1];
      invariant0[0][0] = h2_add(0x64006400u, permute(row_words[0][0], row_words[0][1], 0x00007632u));
      unsigned invariant1[1][1];
      invariant1[0][0] = permute(row_words[0][0], row_words[0][1], 0x00005410u);
      #pragma unroll
      for (int panel = 0; panel < 2; ++panel) {
        unsigned words[1][4];
        {
          const uint4 packed = ring_weights[weights_at + panel * 32];
          words[0][0] = packed.x;
          words[0][1] = packed.y;
          words[0][2] = packed.z;
          words[0][3] = packed.w;
        }
        #pragma unroll
        for (int k16 = 0; k16 < 4; ++k16) {
          const unsigned word = words[0][k16];
          frag0[panel % 2][0][k16][0] = settled(h2_mul(h2_sub(and_or(word, 0x000f000fu, 0x64006400u), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0])));
          frag0[panel % 2][0][k16][1] = settled(h2_mul(h2_sub(and_or(word >> 4, 0x000f000fu, 0x64006400u), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0])));
          frag0[panel % 2][0][k16][2] = settled(h2_mul(h2_sub(and_or(word >> 8, 0x000f000fu, 0x64006400u), h2_both_low(invariant0[0][0])), h2_both_low(invariant1[0][0])));
          frag0[panel % 2][0][k16][3] = settled(h2_mul(h2_sub(and_or(word >> 12, 0x000f000fu, 0x64006400u), h2_both_high(invariant0[0][0])), h2_both_high(invariant1[0][0])));
        }
        wgmma_fence();
        #pragma unroll
        for (int k16 = 0; k16 < 4; ++k16) {
          wgmma_m64n128k16_f16(total[0], frag0[panel % 2][0][k16][0], frag0[panel % 2][0][k16][1], frag0[panel % 2][0][k16][2], frag0[panel % 2][0][k16][3], tokens_at, panel * 1024 + k16 * 2, (first < step) || (0 < panel + k16));
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (panel == 0) {
          warp_sync();
          if ((first < step) && (lane == 0)) {
            barrier_arrive(&empty[(slot == 0) ? 3 : slot - 1]);
          }
        }
      }
    }
    wgmma_wait<0>();

    // the output tile meets in shared memory
    asm volatile("bar.sync 1, 256;" ::: "memory");
    #pragma unroll
    for (int token_part = 0; token_part < 16; ++token_part) {
      red[(token_part * 8 + lane % 4 * 2) * 132 + (warp_tile * 16 + lane / 4)] = total[0][token_part * 4];
      red[(token_part * 8 + lane % 4 * 2 + 1) * 132 + (warp_tile * 16 + lane / 4)] = total[0][token_part * 4 + 1];
      red[(token_part * 8 + lane % 4 * 2) * 132 + (warp_tile * 16 + lane / 4 + 8)] = total[0][token_part * 4 + 2];
      red[(token_part * 8 + lane % 4 * 2 + 1) * 132 + (warp_tile * 16 + lane / 4 + 8)] = total[0][token_part * 4 + 3];
    }

    // epilogue: add the warps' partial sums
    asm volatile("bar.sync 1, 256;" ::: "memory");
    for (int i = thread; i < 16384; i += 256) {
      const int row = i % 128;
      const int token = i / 128;
      const int n = row_tile * 128 + row;
      const int m = token_tile * 128 + token;
      if ((n < N) && (m < tokens)) {
        out[m * N + n] = to_f16(red[token * 132 + row]);
      }
    }
  } else {
    // producer: refill each stage once all consumer warps are done with it
    const bool elected = elect();
    if (elected) {
      int slot = 0;
      unsigned phase = 0x00000001u;
      for (int step = first; step < last; ++step) {
        barrier_wait(&empty[slot], phase);
        barrier_expect(&full[slot], 41472);
        const int stage = row_tile * STEPS + step;
        bulk_copy(&ring_weights[slot * 512], &weights[stage * 512], 8192, &full[slot]);
        bulk_copy(&ring_params[slot * 32], &params[stage * 32], 512, &full[slot]);
        #pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          tensor_copy(&ring_x[slot * 2048 + panel * 1024], x, step * 128 + panel * 64, token_tile * 128, &full[slot]);
        }
        slot = (slot + 1 == 4) ? 0 : slot + 1;
        phase = (slot == 0) ? (phase ^ 0x00000001u) : phase;
      }
    }
  }
}
