// qtune 0.1.0 (generator 8)
// problem:  w8a8.fp8-e4m3-ch-a8-static.bf16-bf16.n5120.k5120.m16@sm90a.132
// schedule: mma tile=16x64x256 warps=2x2 stages=3 split=1 pad=16 raster=rows pdl=on dequant=(* s (sum (* (e4m3 q) x)))
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

static __device__ __forceinline__ uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }

static __device__ __forceinline__ void copy_async_16(unsigned place, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(place), "l"(global) : "memory");
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

static __device__ __forceinline__ void wait_ahead() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

static __device__ __forceinline__ void start_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

static __device__ __forceinline__ void prefetch_l2_bytes(const void* p, unsigned bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(p), "r"(bytes));
}

constexpr int N = 5120;
constexpr int K = 2560;
constexpr int STEPS = 20;

extern "C" __global__ void __launch_bounds__(256)
qtune_mma_w8a8_fp8_e4m3_ch_a8_static_bf16_bf16_n5120_k5120_m16_codes(const float* __restrict__ layer_scale,
    const uint4* __restrict__ activations,
    uint4* __restrict__ codes,
    float* __restrict__ scales,
    const uint4* __restrict__ weights,
    const uint4* __restrict__ params) {
  start_next();
  // each block: the activations of one token
  const int thread = threadIdx.x;
  const int row = blockIdx.x * 640;

  // ask L2 for the first weights of what multiplies
  const int blocks = gridDim.x * gridDim.y;
  const int asker = thread * blocks + (blockIdx.y * gridDim.x + blockIdx.x);
  const int askers = blocks * 256;
  for (int run = asker; run < 80; run += askers) {
    prefetch_l2_bytes(&weights[run * 20480], 49152);
    prefetch_l2_bytes(&params[run * 16], 32);
  }
  const float scale = layer_scale[0];
  const float inverse = divide_f32(1.0f, scale);
  if (thread == 0) {
    scales[blockIdx.x] = scale;
  }
  for (int piece = thread; piece < 320; piece += 256) {
    unsigned words[8] = {};
    {
      const uint4 packed = activations[row + piece * 2];
      words[0] = packed.x;
      words[1] = packed.y;
      words[2] = packed.z;
      words[3] = packed.w;
    }
    const int second = piece * 2 + 1;
    {
      const uint4 packed = activations[row + second];
      words[4] = packed.x;
      words[5] = packed.y;
      words[6] = packed.z;
      words[7] = packed.w;
    }
    codes[blockIdx.x * 320 + piece] = pack_u32x4(e4m3_pair(bf2_low(words[0]) * inverse, bf2_high(words[0]) * inverse) | (e4m3_pair(bf2_low(words[1]) * inverse, bf2_high(words[1]) * inverse) << 16), e4m3_pair(bf2_low(words[2]) * inverse, bf2_high(words[2]) * inverse) | (e4m3_pair(bf2_low(words[3]) * inverse, bf2_high(words[3]) * inverse) << 16), e4m3_pair(bf2_low(words[4]) * inverse, bf2_high(words[4]) * inverse) | (e4m3_pair(bf2_low(words[5]) * inverse, bf2_high(words[5]) * inverse) << 16), e4m3_pair(bf2_low(words[6]) * inverse, bf2_high(words[6]) * inverse) | (e4m3_pair(bf2_low(words[7]) * inverse, bf2_high(words[7]) * inverse) << 16));
  }
}

extern "C" __global__ void __launch_bounds__(128, 2)
qtune_mma_w8a8_fp8_e4m3_ch_a8_static_bf16_bf16_n5120_k5120_m16(const uint4* __restrict__ weights,
    const unsigned* __restrict__ params,
    const uint4* __restrict__ x,
    const float* __restrict__ token_scales,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 49152);
  float* const red = reinterpret_cast<float*>(shared + 0);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 2;
  const int warp_k = warp / 2;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
  const int lane_piece = (warp_n * 2 * 2 + warp_k) * 128 + lane;
  const unsigned thread_weights = shared_place(&ring_weights[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 8;
  const int x_m = token_tile * 16 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 8;
  x_to[0] = shared_place(&ring_x[x_token * 17 + x_piece % 8]);
  const unsigned lane_tokens = shared_place(&ring_x[(lane / 16 * 8 + lane % 8) * 17 + (warp_k * 8 + lane / 8 % 2)]);
  float total[2][2][4] = {};

  // fill the ring with weights, wait for the kernel ahead, then with activations
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
    }
  }
  wait_ahead();
  start_next();
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const int x_stage = ahead * 4352;
      const int x_k8 = step * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 128), &x[x_k8 + x_from[0] + x_turn * 8]);
      }
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
    }
    copy_commit();
    const int weights_at = slot * 1024 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 4352);
    float group_sum0[2][2][4] = {};
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
      const float coefficient0_0 = 1.0f;
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][0] = fma_f32(coefficient0_0, group_sum0[row_part][token_part][0], total[row_part][token_part][0]);
        total[row_part][token_part][1] = fma_f32(coefficient0_0, group_sum0[row_part][token_part][1], total[row_part][token_part][1]);
      }
      const float coefficient0_1 = 1.0f;
      #pragma unroll
      for (int token_part = 0; token_part < 2; ++token_part) {
        total[row_part][token_part][2] = fma_f32(coefficient0_1, group_sum0[row_part][token_part][2], total[row_part][token_part][2]);
        total[row_part][token_part][3] = fma_f32(coefficient0_1, group_sum0[row_part][token_part][3], total[row_part][token_part][3]);
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
  for (int i = thread; i < 1024; i += 128) {
    const int row = i % 64;
    const int token = i / 64;
    float sum = red[token * 68 + row];
    sum = sum + red[(16 + token) * 68 + row];
    const int n = row_tile * 64 + row;
    const int m = token_tile * 16 + token;
    if ((n < N) && (m < tokens)) {
      const float token_scale = token_scales[m];
      out[m * N + n] = to_bf16(sum * (bits_f32(static_cast<unsigned>(params[n])) * token_scale));
    }
  }
}
