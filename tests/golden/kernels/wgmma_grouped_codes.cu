// qtune 0.1.0 (generator 8)
// problem:  w8a8.fp8-e4m3-g128-a8.bf16-bf16.n7168.k2048.m128@sm90a.132
// schedule: wgmma tile=128x128x256 groups=2 stages=3 split=1 producer=group raster=rows dequant=(* s (sum (* (e4m3 q) x)))
// K:        pairs of 8-bit codes

struct alignas(64) TensorMap { unsigned long long opaque[16]; };

static __device__ __forceinline__ float bf2_low(unsigned a) { return __uint_as_float(a << 16); }

static __device__ __forceinline__ float bf2_high(unsigned a) { return __uint_as_float(a & 0xffff0000u); }

static __device__ __forceinline__ float bits_f32(unsigned a) { return __uint_as_float(a); }

static __device__ __forceinline__ unsigned short to_bf16(float a) {
  unsigned short d;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ float shfl_xor(float a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }

static __device__ __forceinline__ void warp_sync() { __syncwarp(); }

static __device__ __forceinline__ uint2 pack_u32x2(unsigned a, unsigned b) { return make_uint2(a, b); }

static __device__ __forceinline__ float largest_f32(float most, float a) { return fmaxf(most, fabsf(a)); }

static __device__ __forceinline__ float divide_f32(float a, float b) { return __fdiv_rn(a, b); }

static __device__ __forceinline__ unsigned e4m3_pair(float low, float high) {
  unsigned short d;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
  return d;
}

static __device__ __forceinline__ void prefetch_l2_bytes(const void* p, unsigned bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(p), "r"(bytes));
}

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

static __device__ __forceinline__ float settled_f32(float a) { asm volatile("" : "+f"(a)); return a; }

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

static __device__ __forceinline__ void wgmma_m64n128k32_e4m3(float (&d)[64], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
    unsigned long long tile, int pieces, bool keep) {
  // Added here, a sum is not moved out of the loop to where there are too few uniform registers.
  asm volatile("{ .reg .pred keep; .reg .b64 b; add.s64 b, %68, %69;"
    " setp.ne.b32 keep, %70, 0;"
    " wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
    "%0, %1, %2, %3, %4, %5, %6, %7, "
    "%8, %9, %10, %11, %12, %13, %14, %15, "
    "%16, %17, %18, %19, %20, %21, %22, %23, "
    "%24, %25, %26, %27, %28, %29, %30, %31, "
    "%32, %33, %34, %35, %36, %37, %38, %39, "
    "%40, %41, %42, %43, %44, %45, %46, %47, "
    "%48, %49, %50, %51, %52, %53, %54, %55, "
    "%56, %57, %58, %59, %60, %61, %62, %63}, "
    "{%64, %65, %66, %67}, b, keep, 1, 1; }"
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

constexpr int N = 7168;
constexpr int K = 1024;
constexpr int STEPS = 8;

extern "C" __global__ void __launch_bounds__(256)
qtune_wgmma_w8a8_fp8_e4m3_g128_a8_bf16_bf16_n7168_k2048_m128_codes(const uint4* __restrict__ activations,
    uint2* __restrict__ codes,
    float* __restrict__ scales,
    const int tokens,
    const uint4* __restrict__ weights,
    const uint4* __restrict__ params) {
  // each block: the activations of one token, half a warp for each group
  const int thread = threadIdx.x;

  // ask L2 for the first weights of what multiplies
  const int blocks = gridDim.x * gridDim.y;
  const int asker = thread * blocks + (blockIdx.y * gridDim.x + blockIdx.x);
  const int askers = blocks * 256;
  for (int run = asker; run < 56; run += askers) {
    prefetch_l2_bytes(&weights[run * 16384], 98304);
    prefetch_l2_bytes(&params[run * 512], 3072);
  }
  for (int first = 0; first < 256; first += 256) {
    const int piece = first + thread;
    unsigned words[4] = {};
    if (piece < 256) {
      {
        const uint4 packed = activations[blockIdx.x * 256 + piece];
        words[0] = packed.x;
        words[1] = packed.y;
        words[2] = packed.z;
        words[3] = packed.w;
      }
    }
    float largest = 7.888609e-31f;
    largest = largest_f32(largest, bf2_low(words[0]));
    largest = largest_f32(largest, bf2_high(words[0]));
    largest = largest_f32(largest, bf2_low(words[1]));
    largest = largest_f32(largest, bf2_high(words[1]));
    largest = largest_f32(largest, bf2_low(words[2]));
    largest = largest_f32(largest, bf2_high(words[2]));
    largest = largest_f32(largest, bf2_low(words[3]));
    largest = largest_f32(largest, bf2_high(words[3]));
    largest = largest_f32(largest, shfl_xor(largest, 8));
    largest = largest_f32(largest, shfl_xor(largest, 4));
    largest = largest_f32(largest, shfl_xor(largest, 2));
    largest = largest_f32(largest, shfl_xor(largest, 1));
    const float inverse = divide_f32(448.0f, largest);
    if ((piece % 16 == 0) && (piece < 256)) {
      const float scale = divide_f32(largest, 448.0f);
      const int scales_at = piece / 16 * ((tokens + 127) / 128 * 128);
      const int tokens_end = (blockIdx.x + 1 == tokens) ? (tokens + 127) / 128 * 128 : blockIdx.x + 1;
      for (int token = blockIdx.x; token < tokens_end; ++token) {
        scales[scales_at + token] = scale;
      }
    }
    if (piece < 256) {
      codes[blockIdx.x * 256 + piece] = pack_u32x2(e4m3_pair(bf2_low(words[0]) * inverse, bf2_high(words[0]) * inverse) | (e4m3_pair(bf2_low(words[1]) * inverse, bf2_high(words[1]) * inverse) << 16), e4m3_pair(bf2_low(words[2]) * inverse, bf2_high(words[2]) * inverse) | (e4m3_pair(bf2_low(words[3]) * inverse, bf2_high(words[3]) * inverse) << 16));
    }
  }
}

extern "C" __global__ void __launch_bounds__(384, 1)
qtune_wgmma_w8a8_fp8_e4m3_g128_a8_bf16_bf16_n7168_k2048_m128(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const __grid_constant__ TensorMap x,
    const uint2* __restrict__ token_scales,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(1024) unsigned char shared[];
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 98304);
  float* const red = reinterpret_cast<float*>(shared + 0);
  unsigned long long* const full = reinterpret_cast<unsigned long long*>(shared + 199680);
  unsigned long long* const empty = reinterpret_cast<unsigned long long*>(shared + 199704);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 196608);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 196608);
  // prologue: this block's tile, the barriers of the ring
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
  if (thread == 0) {
    for (int stage = 0; stage < 3; ++stage) {
      barrier_init(&full[stage], 1);
      barrier_init(&empty[stage], 8);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (warp < 8) {
    // consumers: convert a unit while the one before it is multiplied
    take_registers<240>();
    const int warp_tile = warp / 4 * 4 + warp % 4;
    const int lane_piece = warp_tile * 256 + lane;
    const unsigned long long ring_tile = tile_128b(&ring_x[0]);
    float group_sum0[1][64];
    float total[1][64] = {};
    unsigned frag0[2][1][2][4];
    unsigned row_words[1][2];

    // mainloop: a lap of the ring at a time
    unsigned phase = 0x00000000u;
    for (int lap = first; lap < last - 2; lap += 3) {
      #pragma unroll
      for (int slot = 0; slot < 3; ++slot) {
        barrier_wait(&full[slot], phase);
        const int weights_at = slot * 2048 + lane_piece;
        const unsigned long long tokens_at = tile_behind(ring_tile, slot * 2048);
        #pragma unroll
        for (int segment = 0; segment < 2; ++segment) {
          {
            const uint2 packed = row_pairs[(slot * 2 + segment) * 64 + warp_tile * 8 + lane / 4];
            row_words[0][0] = packed.x;
            row_words[0][1] = packed.y;
          }
          const int x_group = (lap + slot) * 2 + segment;
          const int x_scales_at = ((x_group < 15) ? x_group : 15) * ((tokens + 127) / 128 * 128 / 2) + token_tile * 64 + lane % 4;
          unsigned x_scales[16][2];
          #pragma unroll
          for (int token_part = 0; token_part < 16; ++token_part) {
            {
              const uint2 packed = token_scales[x_scales_at + token_part * 4];
              x_scales[token_part][0] = packed.x;
              x_scales[token_part][1] = packed.y;
            }
          }
          unsigned words[1][16];
          {
            const uint4 packed = ring_weights[weights_at + segment * 128];
            words[0][0] = packed.x;
            words[0][1] = packed.y;
            words[0][2] = packed.z;
            words[0][3] = packed.w;
          }
          {
            const uint4 packed = ring_weights[weights_at + segment * 128 + 32];
            words[0][4] = packed.x;
            words[0][5] = packed.y;
            words[0][6] = packed.z;
            words[0][7] = packed.w;
          }
          {
            const uint4 packed = ring_weights[weights_at + segment * 128 + 64];
            words[0][8] = packed.x;
            words[0][9] = packed.y;
            words[0][10] = packed.z;
            words[0][11] = packed.w;
          }
          {
            const uint4 packed = ring_weights[weights_at + segment * 128 + 96];
            words[0][12] = packed.x;
            words[0][13] = packed.y;
            words[0][14] = packed.z;
            words[0][15] = packed.w;
          }
          #pragma unroll
          for (int part = 0; part < 2; ++part) {
            #pragma unroll
            for (int k16 = 0; k16 < 2; ++k16) {
              const unsigned word0 = words[0][(part * 2 + k16) * 4];
              const unsigned word1 = words[0][(part * 2 + k16) * 4 + 1];
              const unsigned word2 = words[0][(part * 2 + k16) * 4 + 2];
              const unsigned word3 = words[0][(part * 2 + k16) * 4 + 3];
              frag0[part][0][k16][0] = settled(word0);
              frag0[part][0][k16][1] = settled(word1);
              frag0[part][0][k16][2] = settled(word2);
              frag0[part][0][k16][3] = settled(word3);
            }
            wgmma_fence();
            #pragma unroll
            for (int k16 = 0; k16 < 2; ++k16) {
              wgmma_m64n128k32_e4m3(group_sum0[0], frag0[part][0][k16][0], frag0[part][0][k16][1], frag0[part][0][k16][2], frag0[part][0][k16][3], tokens_at, segment * 1024 + (part * 2 + k16) * 2, 0 < part + k16);
            }
            wgmma_commit();
            wgmma_wait<1>();
            if (segment + part == 0) {
              warp_sync();
              if (((0 < slot) || (first < lap)) && (lane == 0)) {
                barrier_arrive(&empty[(slot + 2) % 3]);
              }
            }
          }
          wgmma_wait<0>();
          const float coefficient0_0 = bits_f32(row_words[0][0]);
          #pragma unroll
          for (int token_part = 0; token_part < 16; ++token_part) {
            total[0][token_part * 4] = settled_f32(fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][0]), group_sum0[0][token_part * 4], total[0][token_part * 4]));
            total[0][token_part * 4 + 1] = settled_f32(fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][1]), group_sum0[0][token_part * 4 + 1], total[0][token_part * 4 + 1]));
          }
          const float coefficient0_1 = bits_f32(row_words[0][1]);
          #pragma unroll
          for (int token_part = 0; token_part < 16; ++token_part) {
            total[0][token_part * 4 + 2] = settled_f32(fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][0]), group_sum0[0][token_part * 4 + 2], total[0][token_part * 4 + 2]));
            total[0][token_part * 4 + 3] = settled_f32(fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][1]), group_sum0[0][token_part * 4 + 3], total[0][token_part * 4 + 3]));
          }
        }
      }
      phase = phase ^ 0x00000001u;
    }

    // the stages of an incomplete lap
    const int rest = last - (last - first) % 3;
    for (int step = rest; step < last; ++step) {
      const int slot = step - rest;
      barrier_wait(&full[slot], phase);
      const int weights_at = slot * 2048 + lane_piece;
      const unsigned long long tokens_at = tile_behind(ring_tile, slot * 2048);
      #pragma unroll
      for (int segment = 0; segment < 2; ++segment) {
        {
          const uint2 packed = row_pairs[(slot * 2 + segment) * 64 + warp_tile * 8 + lane / 4];
          row_words[0][0] = packed.x;
          row_words[0][1] = packed.y;
        }
        const int x_group = step * 2 + segment;
        const int x_scales_at = ((x_group < 15) ? x_group : 15) * ((tokens + 127) / 128 * 128 / 2) + token_tile * 64 + lane % 4;
        unsigned x_scales[16][2];
        #pragma unroll
        for (int token_part = 0; token_part < 16; ++token_part) {
          {
            const uint2 packed = token_scales[x_scales_at + token_part * 4];
            x_scales[token_part][0] = packed.x;
            x_scales[token_part][1] = packed.y;
          }
        }
        unsigned words[1][16];
        {
          const uint4 packed = ring_weights[weights_at + segment * 128];
          words[0][0] = packed.x;
          words[0][1] = packed.y;
          words[0][2] = packed.z;
          words[0][3] = packed.w;
        }
        {
          const uint4 packed = ring_weights[weights_at + segment * 128 + 32];
          words[0][4] = packed.x;
          words[0][5] = packed.y;
          words[0][6] = packed.z;
          words[0][7] = packed.w;
        }
        {
          const uint4 packed = ring_weights[weights_at + segment * 128 + 64];
          words[0][8] = packed.x;
          words[0][9] = packed.y;
          words[0][10] = packed.z;
          words[0][11] = packed.w;
        }
        {
          const uint4 packed = ring_weights[weights_at + segment * 128 + 96];
          words[0][12] = packed.x;
          words[0][13] = packed.y;
          words[0][14] = packed.z;
          words[0][15] = packed.w;
        }
        #pragma unroll
        for (int part = 0; part < 2; ++part) {
          #pragma unroll
          for (int k16 = 0; k16 < 2; ++k16) {
            const unsigned word0 = words[0][(part * 2 + k16) * 4];
            const unsigned word1 = words[0][(part * 2 + k16) * 4 + 1];
            const unsigned word2 = words[0][(part * 2 + k16) * 4 + 2];
            const unsigned word3 = words[0][(part * 2 + k16) * 4 + 3];
            frag0[part][0][k16][0] = settled(word0);
            frag0[part][0][k16][1] = settled(word1);
            frag0[part][0][k16][2] = settled(word2);
            frag0[part][0][k16][3] = settled(word3);
          }
          wgmma_fence();
          #pragma unroll
          for (int k16 = 0; k16 < 2; ++k16) {
            wgmma_m64n128k32_e4m3(group_sum0[0], frag0[part][0][k16][0], frag0[part][0][k16][1], frag0[part][0][k16][2], frag0[part][0][k16][3], tokens_at, segment * 1024 + (part * 2 + k16) * 2, 0 < part + k16);
          }
          wgmma_commit();
          wgmma_wait<1>();
          if (segment + part == 0) {
            warp_sync();
            if ((first < step) && (lane == 0)) {
              barrier_arrive(&empty[(slot == 0) ? 2 : slot - 1]);
            }
          }
        }
        wgmma_wait<0>();
        const float coefficient0_0 = bits_f32(row_words[0][0]);
        #pragma unroll
        for (int token_part = 0; token_part < 16; ++token_part) {
          total[0][token_part * 4] = settled_f32(fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][0]), group_sum0[0][token_part * 4], total[0][token_part * 4]));
          total[0][token_part * 4 + 1] = settled_f32(fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][1]), group_sum0[0][token_part * 4 + 1], total[0][token_part * 4 + 1]));
        }
        const float coefficient0_1 = bits_f32(row_words[0][1]);
        #pragma unroll
        for (int token_part = 0; token_part < 16; ++token_part) {
          total[0][token_part * 4 + 2] = settled_f32(fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][0]), group_sum0[0][token_part * 4 + 2], total[0][token_part * 4 + 2]));
          total[0][token_part * 4 + 3] = settled_f32(fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][1]), group_sum0[0][token_part * 4 + 3], total[0][token_part * 4 + 3]));
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
        out[m * N + n] = to_bf16(red[token * 132 + row]);
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
        barrier_expect(&full[slot], 66560);
        const int stage = row_tile * STEPS + step;
        bulk_copy(&ring_weights[slot * 2048], &weights[stage * 2048], 32768, &full[slot]);
        bulk_copy(&ring_params[slot * 64], &params[stage * 64], 1024, &full[slot]);
        #pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          tensor_copy(&ring_x[slot * 2048 + panel * 1024], x, step * 128 + panel * 64, token_tile * 128, &full[slot]);
        }
        slot = (slot + 1 == 3) ? 0 : slot + 1;
        phase = (slot == 0) ? (phase ^ 0x00000001u) : phase;
      }
    }
  }
}
