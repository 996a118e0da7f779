// qtune 0.1.0 (generator 8)
// problem:  w8a8.fp8-e4m3-g128-a8.bf16-bf16.n7168.k2048.m16@sm90a.132
// schedule: mma tile=16x64x256 warps=2x2 stages=3 split=2 pad=16 raster=rows dequant=(* s (sum (* (e4m3 q) x)))
// K:        pairs of 8-bit codes

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

static __device__ __forceinline__ uint2 pack_u32x2(unsigned a, unsigned b) { return make_uint2(a, b); }

static __device__ __forceinline__ float load_l2_f32(const float* p) { return __ldcg(p); }

static __device__ __forceinline__ void copy_async_16(unsigned place, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(place), "l"(global) : "memory");
}

static __device__ __forceinline__ void copy_async_16_if(unsigned place, const void* global, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; "
               "@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }"
               :: "r"(place), "l"(global), "r"((unsigned)wanted) : "memory");
}

static __device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int pending> static __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory");
}

static __device__ __forceinline__ unsigned shared_place(const void* place) {
  return (unsigned)__cvta_generic_to_shared(place);
}

static __device__ __forceinline__ unsigned shared_behind(unsigned place, int bytes) { return place + bytes; }

static __device__ __forceinline__ void ldmatrix_x4(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(row) : "memory");
}

static __device__ __forceinline__ void fence_device() { __threadfence(); }

static __device__ __forceinline__ void count_arrival(unsigned& before, unsigned* counter) { before = atomicAdd(counter, 1u); }

static __device__ __forceinline__ float largest_f32(float most, float a) { return fmaxf(most, fabsf(a)); }

static __device__ __forceinline__ float divide_f32(float a, float b) { return __fdiv_rn(a, b); }

static __device__ __forceinline__ unsigned e4m3_pair(float low, float high) {
  unsigned short d;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
  return d;
}

static __device__ __forceinline__ void mma_e4m3(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
              unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void prefetch_l2_bytes(const void* p, unsigned bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(p), "r"(bytes));
}

constexpr int N = 7168;
constexpr int K = 1024;
constexpr int STEPS = 8;

extern "C" __global__ void __launch_bounds__(256)
qtune_mma_w8a8_fp8_e4m3_g128_a8_bf16_bf16_n7168_k2048_m16_codes(const uint4* __restrict__ activations,
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
  for (int run = asker; run < 224; run += askers) {
    prefetch_l2_bytes(&weights[run * 4096], 49152);
    prefetch_l2_bytes(&params[run * 128], 1536);
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
      const int scales_at = piece / 16 * ((tokens + 15) / 16 * 16);
      const int tokens_end = (blockIdx.x + 1 == tokens) ? (tokens + 15) / 16 * 16 : blockIdx.x + 1;
      for (int token = blockIdx.x; token < tokens_end; ++token) {
        scales[scales_at + token] = scale;
      }
    }
    if (piece < 256) {
      codes[blockIdx.x * 256 + piece] = pack_u32x2(e4m3_pair(bf2_low(words[0]) * inverse, bf2_high(words[0]) * inverse) | (e4m3_pair(bf2_low(words[1]) * inverse, bf2_high(words[1]) * inverse) << 16), e4m3_pair(bf2_low(words[2]) * inverse, bf2_high(words[2]) * inverse) | (e4m3_pair(bf2_low(words[3]) * inverse, bf2_high(words[3]) * inverse) << 16));
    }
  }
}

extern "C" __global__ void __launch_bounds__(128, 2)
qtune_mma_w8a8_fp8_e4m3_g128_a8_bf16_bf16_n7168_k2048_m16(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    const uint2* __restrict__ token_scales,
    unsigned short* __restrict__ out,
    float* __restrict__ partials,
    unsigned* __restrict__ counters,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 49152);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 62208);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 62208);
  unsigned* const arrived = reinterpret_cast<unsigned*>(shared + 0);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 2;
  const int warp_k = warp / 2;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int split = blockIdx.z;
  const int first = split * STEPS / 2;
  const int last = (split + 1) * STEPS / 2;
  const int lane_piece = (warp_n * 2 * 2 + warp_k) * 128 + lane;
  const unsigned thread_weights = shared_place(&ring_weights[thread]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 8;
  const int x_m = token_tile * 16 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 8;
  x_to[0] = shared_place(&ring_x[x_token * 17 + x_piece % 8]);
  const unsigned lane_tokens = shared_place(&ring_x[(lane / 16 * 8 + lane % 8) * 17 + (warp_k * 8 + lane / 8 % 2)]);
  float total[2][2][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(thread_weights, ahead * 16384);
      const int weights_from = (row_tile * STEPS + step) * 1024;
      #pragma unroll
      for (int weight_turn = 0; weight_turn < 8; ++weight_turn) {
        const int weight_piece = weight_turn * 128 + thread;
        copy_async_16(shared_behind(weights_to, weight_turn * 2048), &weights[weights_from + weight_piece]);
      }
      const int x_stage = ahead * 4352;
      const int x_k8 = step * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 128), &x[x_k8 + x_from[0] + x_turn * 8]);
      }
      const unsigned params_to = shared_behind(thread_params, ahead * 512);
      const int params_from = (row_tile * STEPS + step) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
  }

  // mainloop: wait for the oldest stage, refill the one before it, compute
  int slot = 0;
  int free = 2;
  for (int step = first; step < last; ++step) {
    copy_wait<1>();
    __syncthreads();
    const int next = step + 2;
    if (next < last) {
      const unsigned weights_to = shared_behind(thread_weights, free * 16384);
      const int weights_from = (row_tile * STEPS + next) * 1024;
      #pragma unroll
      for (int weight_turn = 0; weight_turn < 8; ++weight_turn) {
        const int weight_piece = weight_turn * 128 + thread;
        copy_async_16(shared_behind(weights_to, weight_turn * 2048), &weights[weights_from + weight_piece]);
      }
      const int x_stage = free * 4352;
      const int x_k8 = next * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 128), &x[x_k8 + x_from[0] + x_turn * 8]);
      }
      const unsigned params_to = shared_behind(thread_params, free * 512);
      const int params_from = (row_tile * STEPS + next) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
    const int weights_at = slot * 1024 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 4352);
    float group_sum0[2][2][4] = {};
    unsigned row_words[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint2 packed = row_pairs[(slot * 2 + warp_k * 64 / 64) * 32 + (warp_n * 2 + row_part) * 8 + lane / 4];
        row_words[row_part][0] = packed.x;
        row_words[row_part][1] = packed.y;
      }
    }
    const int x_group = step * 2 + warp_k * 64 / 64;
    const int x_scales_at = ((x_group < 15) ? x_group : 15) * ((tokens + 15) / 16 * 16 / 2) + token_tile * 8 + lane % 4;
    unsigned x_scales[2][2];
    #pragma unroll
    for (int token_part = 0; token_part < 2; ++token_part) {
      {
        const uint2 packed = token_scales[x_scales_at + token_part * 4];
        x_scales[token_part][0] = packed.x;
        x_scales[token_part][1] = packed.y;
      }
    }
    unsigned words[2][16];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint4 packed = ring_weights[weights_at + row_part * 256];
        words[row_part][0] = packed.x;
        words[row_part][1] = packed.y;
        words[row_part][2] = packed.z;
        words[row_part][3] = packed.w;
      }
      {
        const uint4 packed = ring_weights[weights_at + row_part * 256 + 32];
        words[row_part][4] = packed.x;
        words[row_part][5] = packed.y;
        words[row_part][6] = packed.z;
        words[row_part][7] = packed.w;
      }
      {
        const uint4 packed = ring_weights[weights_at + row_part * 256 + 64];
        words[row_part][8] = packed.x;
        words[row_part][9] = packed.y;
        words[row_part][10] = packed.z;
        words[row_part][11] = packed.w;
      }
      {
        const uint4 packed = ring_weights[weights_at + row_part * 256 + 96];
        words[row_part][12] = packed.x;
        words[row_part][13] = packed.y;
        words[row_part][14] = packed.z;
        words[row_part][15] = packed.w;
      }
    }
    #pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned frag_b[2][2][2];
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        ldmatrix_x4(frag_b[k16][0][0], frag_b[k16][0][1], frag_b[k16][1][0], frag_b[k16][1][1], shared_behind(tokens_at, (half * 4 + k16 * 2) * 16));
      }
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          const unsigned word0 = words[row_part][(half * 2 + k16) * 4];
          const unsigned word1 = words[row_part][(half * 2 + k16) * 4 + 1];
          const unsigned word2 = words[row_part][(half * 2 + k16) * 4 + 2];
          const unsigned word3 = words[row_part][(half * 2 + k16) * 4 + 3];
          const unsigned frag0_a0 = word0;
          const unsigned frag0_a1 = word1;
          const unsigned frag0_a2 = word2;
          const unsigned frag0_a3 = word3;
          #pragma unroll
          for (int token_part = 0; token_part < 2; ++token_part) {
            mma_e4m3(group_sum0[row_part][token_part][0], group_sum0[row_part][token_part][1], group_sum0[row_part][token_part][2], group_sum0[row_part][token_part][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][token_part][0], frag_b[k16][token_part][1]);
          }
        }
      }
    }
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      const float coefficient0_0 = bits_f32(row_words[row_part][0]);
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][0] = fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][0]), group_sum0[row_part][token_part][0], total[row_part][token_part][0]);
        total[row_part][token_part][1] = fma_f32(coefficient0_0 * bits_f32(x_scales[token_part][1]), group_sum0[row_part][token_part][1], total[row_part][token_part][1]);
      }
      const float coefficient0_1 = bits_f32(row_words[row_part][1]);
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][2] = fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][0]), group_sum0[row_part][token_part][2], total[row_part][token_part][2]);
        total[row_part][token_part][3] = fma_f32(coefficient0_1 * bits_f32(x_scales[token_part][1]), group_sum0[row_part][token_part][3], total[row_part][token_part][3]);
      }
    }
    free = slot;
    slot = (slot + 1 == 3) ? 0 : slot + 1;
  }
  copy_wait<0>();

  // partial sums of all warps meet in shared memory
  __syncthreads();
  #pragma unroll
  for (int row_part = 0; row_part < 2; ++row_part) {
    #pragma unroll
    for (int token_part = 0; token_part < 2; ++token_part) {
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][0];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][1];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][2];
      red[(warp_k * 16 + (token_part * 8 + lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][3];
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  const int tile_id = token_tile * 112 + row_tile;
  for (int i = thread; i < 1024; i += 128) {
    const int row = i % 64;
    const int token = i / 64;
    float sum = red[token * 68 + row];
    sum = sum + red[(16 + token) * 68 + row];
    partials[(tile_id * 2 + split) * 1024 + i] = sum;
  }

  // the last block to arrive adds the splits in order
  fence_device();
  __syncthreads();
  if (thread == 0) {
    unsigned before = 0x00000000u;
    count_arrival(before, &counters[tile_id]);
    arrived[0] = before;
  }
  __syncthreads();
  if (arrived[0] == 0x00000001u) {
    fence_device();
    for (int i = thread; i < 1024; i += 128) {
      const int row = i % 64;
      const int token = i / 64;
      float sum = 0.0f;
      #pragma unroll
      for (int part = 0; part < 2; ++part) {
        sum = sum + load_l2_f32(&partials[(tile_id * 2 + part) * 1024 + i]);
      }
      const int n = row_tile * 64 + row;
      const int m = token_tile * 16 + token;
      if ((n < N) && (m < tokens)) {
        out[m * N + n] = to_bf16(sum);
      }
    }
    if (thread == 0) {
      counters[tile_id] = 0x00000000u;
    }
  }
}
