// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g32.f16-f16.n96.k64.m1@sm90a.132
// schedule: gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal dequant=(sum (* (* (- (real q) z) s) x))

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

static __device__ __forceinline__ unsigned h2_pack(float low, float high) {
  unsigned d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

constexpr int N = 96;
constexpr int K = 64;
constexpr int STEPS = 2;

extern "C" __global__ void __launch_bounds__(32, 30)
qtune_gemv_w4a16_awq_g32_f16_f16_n96_k64_m1(const uint4* __restrict__ weights,
    const unsigned* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  float* const red = reinterpret_cast<float*>(shared + 0);
  // prologue: this block's tile, this warp's rows, this lane's part of a row
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = 0;
  const int warp_k = warp;
  const int lane_row = lane;
  const int lane_k = 0;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int warp_tile = row_tile + warp_n;
  const int first = 0;
  const int last = STEPS;
  float total[1][1] = {};

  // mainloop: load the weights of several steps, then use them
  for (int step = first + warp_k; step < last; ++step) {
    unsigned words[1][1][4];
    unsigned entry[1][1][1];
    {
      const uint4 packed = weights[(warp_tile * STEPS + step) * 32 + lane];
      words[0][0][0] = packed.x;
      words[0][0][1] = packed.y;
      words[0][0][2] = packed.z;
      words[0][0][3] = packed.w;
    }
    const int params_from = (warp_tile * 2 + step) * 32;
    entry[0][0][0] = params[params_from + lane_row];
    unsigned invariant0[1][2];
    invariant0[0][0] = h2_both_high(entry[0][0][0]);
    invariant0[0][1] = h2_both_high(entry[0][0][0]);
    unsigned invariant1[1][2];
    invariant1[0][0] = h2_both_low(entry[0][0][0]);
    invariant1[0][1] = h2_both_low(entry[0][0][0]);
    float group_sum0[1][1] = {};
    #pragma unroll
    for (int part = 0; part < 4; ++part) {
      unsigned act[1][4];
      unsigned piece[4] = {};
      if ((token_tile < tokens) && ((step + lane_k) * 4 + part < K / 8)) {
        {
          const uint4 packed = x[token_tile * (K / 8) + ((step + lane_k) * 4 + part)];
          piece[0] = packed.x;
          piece[1] = packed.y;
          piece[2] = packed.z;
          piece[3] = packed.w;
        }
      }
      act[0][0] = piece[0];
      act[0][1] = piece[1];
      act[0][2] = piece[2];
      act[0][3] = piece[3];
      const unsigned word = words[0][0][part];
      const unsigned weight0_0 = h2_mul(h2_sub(h2_pack(static_cast<float>(word & 0x0000000fu), static_cast<float>((word >> 16) & 0x0000000fu)), invariant0[0][0]), invariant1[0][0]);
      const unsigned weight0_1 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 4) & 0x0000000fu), static_cast<float>(((word >> 4) >> 16) & 0x0000000fu)), invariant0[0][1]), invariant1[0][1]);
      const unsigned weight0_2 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 8) & 0x0000000fu), static_cast<float>(((word >> 8) >> 16) & 0x0000000fu)), invariant0[0][0]), invariant1[0][0]);
      const unsigned weight0_3 = h2_mul(h2_sub(h2_pack(static_cast<float>((word >> 12) & 0x0000000fu), static_cast<float>(((word >> 12) >> 16) & 0x0000000fu)), invariant0[0][1]), invariant1[0][1]);
      group_sum0[0][0] = fma_f32(h2_low(weight0_0), h2_low(act[0][0]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_high(weight0_0), h2_high(act[0][0]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_low(weight0_1), h2_low(act[0][1]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_high(weight0_1), h2_high(act[0][1]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_low(weight0_2), h2_low(act[0][2]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_high(weight0_2), h2_high(act[0][2]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_low(weight0_3), h2_low(act[0][3]), group_sum0[0][0]);
      group_sum0[0][0] = fma_f32(h2_high(weight0_3), h2_high(act[0][3]), group_sum0[0][0]);
    }
    const float coefficient0 = 1.0f;
    total[0][0] = fma_f32(coefficient0, group_sum0[0][0], total[0][0]);
  }

  // lanes of a row add up by shuffles; warps meet in shared memory
  if (lane_k == 0) {
    red[warp_k * 32 + warp_n * 32 + lane_row] = total[0][0];
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 32; i += 32) {
    const int row = i % 32;
    const int token = i / 32;
    const int n = row_tile * 32 + row;
    const int m = token_tile + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(red[token * 32 + row]);
    }
  }
}
