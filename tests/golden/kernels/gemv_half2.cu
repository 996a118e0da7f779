// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g128.f16-f16.n5120.k5120.m1@sm90a.132
// schedule: gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared acc=half2 cache=stream dequant=(* (* s 256) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) (* 0.00390625 x))))

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

static __device__ __forceinline__ unsigned h2_mul(unsigned a, unsigned b) {
  unsigned d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

static __device__ __forceinline__ unsigned h2_fma(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
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

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ float shfl_xor(float a, int mask) { return __shfl_xor_sync(0xffffffffu, a, mask); }

static __device__ __forceinline__ uint4 load_stream(const uint4* p) {
  uint4 d;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w) : "l"(p));
  return d;
}

static __device__ __forceinline__ uint4 pack_u32x4(unsigned a, unsigned b, unsigned c, unsigned d) { return make_uint4(a, b, c, d); }

constexpr int N = 5120;
constexpr int K = 5120;
constexpr int STEPS = 5;

extern "C" __global__ void __launch_bounds__(128, 7)
qtune_gemv_w4a16_awq_g128_f16_f16_n5120_k5120_m1(const uint4* __restrict__ weights,
    const uint2* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  float* const red = reinterpret_cast<float*>(shared + 10368);
  uint4* const staged_x = reinterpret_cast<uint4*>(shared + 0);
  // prologue: this block's tile, this warp's rows, this lane's part of a row
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 4;
  const int warp_k = warp / 4;
  const int lane_row = lane / 32;
  const int lane_k = lane % 32;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int warp_tile = row_tile * 4 + warp_n;
  const int first = 0;
  const int last = STEPS;
  float total[1][2] = {};

  // stage the activations of this block's k range
  const int chunks = (last - first) * 128;
  for (int chunk = thread; chunk < chunks; chunk += 128) {
    unsigned piece[4] = {};
    if ((token_tile < tokens) && (first * 128 + chunk < K / 8)) {
      {
        const uint4 packed = x[token_tile * (K / 8) + (first * 128 + chunk)];
        piece[0] = packed.x;
        piece[1] = packed.y;
        piece[2] = packed.z;
        piece[3] = packed.w;
      }
    }
    piece[0] = h2_mul(piece[0], 0x1c001c00u);
    piece[1] = h2_mul(piece[1], 0x1c001c00u);
    piece[2] = h2_mul(piece[2], 0x1c001c00u);
    piece[3] = h2_mul(piece[3], 0x1c001c00u);
    staged_x[chunk % 4 * 162 + chunk / 4] = pack_u32x4(piece[0], piece[1], piece[2], piece[3]);
  }
  __syncthreads();

  // mainloop: load the weights of several steps, then use them
  const int from = first + warp_k;
  for (int step = from; step < last - 1; step += 2) {
    unsigned words[2][2][4];
    unsigned entry[2][2][1];
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        {
          const uint4 packed = load_stream(&weights[((warp_tile * STEPS + (step + ahead)) * 2 + row_part) * 32 + lane]);
          words[ahead][row_part][0] = packed.x;
          words[ahead][row_part][1] = packed.y;
          words[ahead][row_part][2] = packed.z;
          words[ahead][row_part][3] = packed.w;
        }
      }
      const int params_from = (warp_tile * 5 + (step + ahead)) * 8;
      {
        const uint2 packed = params[params_from + (lane_row * 8 + lane_k * 32 / 128)];
        entry[ahead][0][0] = packed.x;
        entry[ahead][1][0] = packed.y;
      }
    }
    #pragma unroll
    for (int ahead = 0; ahead < 2; ++ahead) {
      unsigned invariant0[2][2];
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        invariant0[row_part][0] = h2_sub(0xe400e400u, h2_both_high(entry[ahead][row_part][0]));
        invariant0[row_part][1] = h2_sub(0xd400d400u, h2_both_high(entry[ahead][row_part][0]));
      }
      unsigned group_sum0[1][2] = {};
      #pragma unroll
      for (int part = 0; part < 4; ++part) {
        unsigned act[1][4];
        {
          const uint4 packed = staged_x[part * 162 + ((step + ahead - first) * 32 + lane_k)];
          act[0][0] = packed.x;
          act[0][1] = packed.y;
          act[0][2] = packed.z;
          act[0][3] = packed.w;
        }
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          const unsigned word = words[ahead][row_part][part];
          const unsigned upper0 = word >> 8;
          const unsigned weight0_0 = h2_add(and_or(word, 0x000f000fu, 0x64006400u), invariant0[row_part][0]);
          const unsigned weight0_1 = h2_fma(and_or(word, 0x00f000f0u, 0x64006400u), 0x2c002c00u, invariant0[row_part][1]);
          const unsigned weight0_2 = h2_add(and_or(upper0, 0x000f000fu, 0x64006400u), invariant0[row_part][0]);
          const unsigned weight0_3 = h2_fma(and_or(upper0, 0x00f000f0u, 0x64006400u), 0x2c002c00u, invariant0[row_part][1]);
          group_sum0[0][row_part] = h2_fma(weight0_0, act[0][0], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_1, act[0][1], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_2, act[0][2], group_sum0[0][row_part]);
          group_sum0[0][row_part] = h2_fma(weight0_3, act[0][3], group_sum0[0][row_part]);
        }
      }
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        const float coefficient0 = h2_low(entry[ahead][row_part][0]);
        total[0][row_part] = fma_f32(coefficient0, h2_low(group_sum0[0][row_part]) + h2_high(group_sum0[0][row_part]), total[0][row_part]);
      }
    }
  }

  // the steps of an incomplete turn
  const int rest = from + (last - 1 + 1 - from) / 2 * 2;
  for (int step = rest; step < last; ++step) {
    unsigned words[1][2][4];
    unsigned entry[1][2][1];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint4 packed = load_stream(&weights[((warp_tile * STEPS + step) * 2 + row_part) * 32 + lane]);
        words[0][row_part][0] = packed.x;
        words[0][row_part][1] = packed.y;
        words[0][row_part][2] = packed.z;
        words[0][row_part][3] = packed.w;
      }
    }
    const int params_from = (warp_tile * 5 + step) * 8;
    {
      const uint2 packed = params[params_from + (lane_row * 8 + lane_k * 32 / 128)];
      entry[0][0][0] = packed.x;
      entry[0][1][0] = packed.y;
    }
    unsigned invariant0[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      invariant0[row_part][0] = h2_sub(0xe400e400u, h2_both_high(entry[0][row_part][0]));
      invariant0[row_part][1] = h2_sub(0xd400d400u, h2_both_high(entry[0][row_part][0]));
    }
    unsigned group_sum0[1][2] = {};
    #pragma unroll
    for (int part = 0; part < 4; ++part) {
      unsigned act[1][4];
      {
        const uint4 packed = staged_x[part * 162 + ((step - first) * 32 + lane_k)];
        act[0][0] = packed.x;
        act[0][1] = packed.y;
        act[0][2] = packed.z;
        act[0][3] = packed.w;
      }
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        const unsigned word = words[0][row_part][part];
        const unsigned upper0 = word >> 8;
        const unsigned weight0_0 = h2_add(and_or(word, 0x000f000fu, 0x64006400u), invariant0[row_part][0]);
        const unsigned weight0_1 = h2_fma(and_or(word, 0x00f000f0u, 0x64006400u), 0x2c002c00u, invariant0[row_part][1]);
        const unsigned weight0_2 = h2_add(and_or(upper0, 0x000f000fu, 0x64006400u), invariant0[row_part][0]);
        const unsigned weight0_3 = h2_fma(and_or(upper0, 0x00f000f0u, 0x64006400u), 0x2c002c00u, invariant0[row_part][1]);
        group_sum0[0][row_part] = h2_fma(weight0_0, act[0][0], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_1, act[0][1], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_2, act[0][2], group_sum0[0][row_part]);
        group_sum0[0][row_part] = h2_fma(weight0_3, act[0][3], group_sum0[0][row_part]);
      }
    }
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      const float coefficient0 = h2_low(entry[0][row_part][0]);
      total[0][row_part] = fma_f32(coefficient0, h2_low(group_sum0[0][row_part]) + h2_high(group_sum0[0][row_part]), total[0][row_part]);
    }
  }

  // lanes of a row add up by shuffles; warps meet in shared memory
  #pragma unroll
  for (int row_part = 0; row_part < 2; ++row_part) {
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 16);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 8);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 4);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 2);
    total[0][row_part] = total[0][row_part] + shfl_xor(total[0][row_part], 1);
    if (lane_k == 0) {
      red[warp_k * 8 + (warp_n * 2 + row_part) + lane_row] = total[0][row_part] * 256.0f;
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 8; i += 128) {
    const int row = i % 8;
    const int token = i / 8;
    const int n = row_tile * 8 + row;
    const int m = token_tile + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(red[token * 8 + row]);
    }
  }
}
