// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g64.bf16-bf16.n1024.k4096.m2+bias@sm90a.132
// schedule: gemv tokens=2 rows=1 lanes=8 warps=2x2 unroll=2 split=2 x=shared acc=f32 cache=normal dequant=(* s (sum (* (- (magic q) (+ 1024 z)) x)))

static __device__ __forceinline__ unsigned and_or(unsigned a, unsigned mask, unsigned bits) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
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

static __device__ __forceinline__ unsigned h2_both_high(unsigned a) {
  unsigned d;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h}; }" : "=r"(d) : "r"(a));
  return d;
}

static __device__ __forceinline__ float bf2_low(unsigned a) { return __uint_as_float(a << 16); }

static __device__ __forceinline__ float bf2_high(unsigned a) { return __uint_as_float(a & 0xffff0000u); }

static __device__ __forceinline__ unsigned short to_bf16(float a) {
  unsigned short d;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ float shfl_xor(float a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }

static __device__ __forceinline__ uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }

static __device__ __forceinline__ float load_l2_f32(const float* p) { return __ldcg(p); }

static __device__ __forceinline__ void fence_device() { __threadfence(); }

static __device__ __forceinline__ void count_arrival(unsigned& before, unsigned* counter) { before = atomicAdd(counter, 1u); }

constexpr int N = 1024;
constexpr int K = 4096;
constexpr int STEPS = 16;

extern "C" __global__ void __launch_bounds__(128, 7)
qtune_gemv_w4a16_awq_g64_bf16_bf16_n1024_k4096_m2_bias(const uint4* __restrict__ weights,
    const unsigned* __restrict__ params,
    const uint4* __restrict__ x,
    const unsigned short* __restrict__ bias,
    unsigned short* __restrict__ out,
    float* __restrict__ partials,
    unsigned* __restrict__ counters,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  float* const red = reinterpret_cast<float*>(shared + 8448);
  uint4* const staged_x = reinterpret_cast<uint4*>(shared + 0);
  unsigned* const arrived = reinterpret_cast<unsigned*>(shared + 8448);
  // prologue: this block's tile, this warp's rows, this lane's part of a row
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 2;
  const int warp_k = warp / 2;
  const int lane_row = lane / 8;
  const int lane_k = lane % 8;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int split = blockIdx.z;
  const int warp_tile = row_tile * 2 + warp_n;
  const int first = split * STEPS / 2;
  const int last = (split + 1) * STEPS / 2;
  float total[2][1] = {};

  // stage the activations of this block's k range
  const int chunks = (last - first) * 32;
  #pragma unroll
  for (int token = 0; token < 2; ++token) {
    for (int chunk = thread; chunk < chunks; chunk += 128) {
      unsigned piece[4] = {};
      if ((token_tile * 2 + token < tokens) && (first * 32 + chunk < K / 8)) {
        {
          const uint4 packed = x[(token_tile * 2 + token) * (K / 8) + (first * 32 + chunk)];
          piece[0] = packed.x;
          piece[1] = packed.y;
          piece[2] = packed.z;
          piece[3] = packed.w;
        }
      }
      staged_x[(token * 4 + chunk % 4) * 66 + chunk / 4] = pack_u32x4(piece[0], piece[1], piece[2], piece[3]);
    }
  }
  __syncthreads();

  // mainloop: load the weights of several steps, then use them
  const int from = first + warp_k;
  for (int step = from; step < last - 2; step += 4) {
    unsigned words[2][1][4];
    unsigned entry[2][1][1];
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      {
        const uint4 packed = weights[(warp_tile * STEPS + (step + ahead * 2)) * 32 + lane];
        words[ahead][0][0] = packed.x;
        words[ahead][0][1] = packed.y;
        words[ahead][0][2] = packed.z;
        words[ahead][0][3] = packed.w;
      }
      const int params_from = (warp_tile * 16 + (step + ahead * 2)) * 16;
      entry[ahead][0][0] = params[params_from + (lane_row * 4 + lane_k * 32 / 64)];
    }
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      unsigned invariant0[1][2];
      invariant0[0][0] = h2_add(0x64006400u, h2_both_high(entry[ahead][0][0]));
      invariant0[0][1] = h2_add(0x64006400u, h2_both_high(entry[ahead][0][0]));
      float group_sum0[2][1] = {};
      #pragma unroll
      for (int part = 0; part < 4; ++part) {
        unsigned act[2][4];
        #pragma unroll
        for (int token = 0; token < 2; ++token) {
          {
            const uint4 packed = staged_x[(token * 4 + part) * 66 + ((step + ahead * 2 - first) * 8 + lane_k)];
            act[token][0] = packed.x;
            act[token][1] = packed.y;
            act[token][2] = packed.z;
            act[token][3] = packed.w;
          }
        }
        const unsigned word = words[ahead][0][part];
        const unsigned weight0_0 = h2_sub(and_or(word, 0x000f000fu, 0x64006400u), invariant0[0][0]);
        const unsigned weight0_1 = h2_sub(and_or(word >> 4, 0x000f000fu, 0x64006400u), invariant0[0][1]);
        const unsigned weight0_2 = h2_sub(and_or(word >> 8, 0x000f000fu, 0x64006400u), invariant0[0][0]);
        const unsigned weight0_3 = h2_sub(and_or(word >> 12, 0x000f000fu, 0x64006400u), invariant0[0][1]);
        #pragma unroll
        for (int token = 0; token < 2; ++token) {
          group_sum0[token][0] = fma_f32(h2_low(weight0_0), bf2_low(act[token][0]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_high(weight0_0), bf2_high(act[token][0]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_low(weight0_1), bf2_low(act[token][1]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_high(weight0_1), bf2_high(act[token][1]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_low(weight0_2), bf2_low(act[token][2]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_high(weight0_2), bf2_high(act[token][2]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_low(weight0_3), bf2_low(act[token][3]), group_sum0[token][0]);
          group_sum0[token][0] = fma_f32(h2_high(weight0_3), bf2_high(act[token][3]), group_sum0[token][0]);
        }
      }
      const float coefficient0 = h2_low(entry[ahead][0][0]);
      #pragma unroll
      for (int token = 0; token < 2; ++token) {
        total[token][0] = fma_f32(coefficient0, group_sum0[token][0], total[token][0]);
      }
    }
  }

  // the steps of an incomplete turn
  const int rest = from + (last - 2 + 3 - from) / 4 * 4;
  for (int step = rest; step < last; step += 2) {
    unsigned words[1][1][4];
    unsigned entry[1][1][1];
    {
      const uint4 packed = weights[(warp_tile * STEPS + step) * 32 + lane];
      words[0][0][0] = packed.x;
      words[0][0][1] = packed.y;
      words[0][0][2] = packed.z;
      words[0][0][3] = packed.w;
    }
    const int params_from = (warp_tile * 16 + step) * 16;
    entry[0][0][0] = params[params_from + (lane_row * 4 + lane_k * 32 / 64)];
    unsigned invariant0[1][2];
    invariant0[0][0] = h2_add(0x64006400u, h2_both_high(entry[0][0][0]));
    invariant0[0][1] = h2_add(0x64006400u, h2_both_high(entry[0][0][0]));
    float group_sum0[2][1] = {};
    #pragma unroll
    for (int part = 0; part < 4; ++part) {
      unsigned act[2][4];
      #pragma unroll
      for (int token = 0; token < 2; ++token) {
        {
          const uint4 packed = staged_x[(token * 4 + part) * 66 + ((step - first) * 8 + lane_k)];
          act[token][0] = packed.x;
          act[token][1] = packed.y;
          act[token][2] = packed.z;
          act[token][3] = packed.w;
        }
      }
      const unsigned word = words[0][0][part];
      const unsigned weight0_0 = h2_sub(and_or(word, 0x000f000fu, 0x64006400u), invariant0[0][0]);
      const unsigned weight0_1 = h2_sub(and_or(word >> 4, 0x000f000fu, 0x64006400u), invariant0[0][1]);
      const unsigned weight0_2 = h2_sub(and_or(word >> 8, 0x000f000fu, 0x64006400u), invariant0[0][0]);
      const unsigned weight0_3 = h2_sub(and_or(word >> 12, 0x000f000fu, 0x64006400u), invariant0[0][1]);
      #pragma unroll
      for (int token = 0; token < 2; ++token) {
        group_sum0[token][0] = fma_f32(h2_low(weight0_0), bf2_low(act[token][0]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_high(weight0_0), bf2_high(act[token][0]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_low(weight0_1), bf2_low(act[token][1]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_high(weight0_1), bf2_high(act[token][1]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_low(weight0_2), bf2_low(act[token][2]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_high(weight0_2), bf2_high(act[token][2]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_low(weight0_3), bf2_low(act[token][3]), group_sum0[token][0]);
        group_sum0[token][0] = fma_f32(h2_high(weight0_3), bf2_high(act[token][3]), group_sum0[token][0]);
      }
    }
    const float coefficient0 = h2_low(entry[0][0][0]);
    #pragma unroll
    for (int token = 0; token < 2; ++token) {
      total[token][0] = fma_f32(coefficient0, group_sum0[token][0], total[token][0]);
    }
  }

  // lanes of a row add up by shuffles; warps meet in shared memory
  #pragma unroll
  for (int token = 0; token < 2; ++token) {
    total[token][0] = total[token][0] + shfl_xor(total[token][0], 4);
    total[token][0] = total[token][0] + shfl_xor(total[token][0], 2);
    total[token][0] = total[token][0] + shfl_xor(total[token][0], 1);
    if (lane_k == 0) {
      red[(warp_k * 2 + token) * 8 + warp_n * 4 + lane_row] = total[token][0];
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  const int tile_id = token_tile * 128 + row_tile;
  for (int i = thread; i < 16; i += 128) {
    const int row = i % 8;
    const int token = i / 8;
    float sum = red[token * 8 + row];
    sum = sum + red[(2 + token) * 8 + row];
    partials[(tile_id * 2 + split) * 16 + i] = sum;
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
    for (int i = thread; i < 16; i += 128) {
      const int row = i % 8;
      const int token = i / 8;
      float sum = 0.0f;
      #pragma unroll
      for (int part = 0; part < 2; ++part) {
        sum = sum + load_l2_f32(&partials[(tile_id * 2 + part) * 16 + i]);
      }
      const int n = row_tile * 8 + row;
      const int m = token_tile * 2 + token;
      if ((n < N) && (m < tokens)) {
        out[m * N + n] = to_bf16(sum + bf2_low(static_cast<unsigned>(bias[n])));
      }
    }
    if (thread == 0) {
      counters[tile_id] = 0x00000000u;
    }
  }
}
