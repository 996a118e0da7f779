// qtune 0.1.0 (generator 8)
// problem:  w4a16.fp4-b64.f16-f16.n5120.k5120.m8@sm90a.132
// schedule: mma tile=8x64x128 warps=2x2 stages=4 split=1 pad=16 raster=rows dequant=(* (* s 0.6666666865348816) (sum (* (short q) x)))

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

static __device__ __forceinline__ float bits_f32(unsigned a) { return __uint_as_float(a); }

static __device__ __forceinline__ unsigned short to_f16(float a) {
  unsigned short d;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(a));
  return d;
}

static __device__ __forceinline__ float fma_f32(float a, float b, float c) { return __fmaf_rn(a, b, c); }

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

static __device__ __forceinline__ void mma_f16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
             unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

constexpr int N = 5120;
constexpr int K = 5120;
constexpr int STEPS = 40;

extern "C" __global__ void __launch_bounds__(128, 3)
qtune_mma_w4a16_fp4_b64_f16_f16_n5120_k5120_m8(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 16384);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 25088);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 25088);
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
  const int lane_piece = (warp_n * 2 * 2 + warp_k) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 16;
  const int x_m = token_tile * 8 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 16;
  x_to[0] = shared_place(&ring_x[x_token * 17 + x_piece % 16]);
  const unsigned lane_tokens = shared_place(&ring_x[lane % 8 * 17 + (warp_k * 8 + lane / 8)]);
  float total[2][1][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 3; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(lane_weights, ahead * 4096);
      const int weights_from = (row_tile * STEPS + step) * 256 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        copy_async_16(shared_behind(weights_to, row_part * 64 * 16), &weights[weights_from + row_part * 64]);
      }
      const int x_stage = ahead * 2176;
      const int x_k8 = step * 16;
      const int x_copy = thread;
      copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), 0), &x[x_k8 + x_from[0]]);
      const unsigned params_to = shared_behind(thread_params, ahead * 512);
      const int params_from = (row_tile * STEPS + step) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
  }

  // mainloop: wait for the oldest stage, refill the one before it, compute
  int slot = 0;
  int free = 3;
  for (int step = first; step < last; ++step) {
    copy_wait<2>();
    __syncthreads();
    const int next = step + 3;
    if (next < last) {
      const unsigned weights_to = shared_behind(lane_weights, free * 4096);
      const int weights_from = (row_tile * STEPS + next) * 256 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        copy_async_16(shared_behind(weights_to, row_part * 64 * 16), &weights[weights_from + row_part * 64]);
      }
      const int x_stage = free * 2176;
      const int x_k8 = next * 16;
      const int x_copy = thread;
      copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), 0), &x[x_k8 + x_from[0]]);
      const unsigned params_to = shared_behind(thread_params, free * 512);
      const int params_from = (row_tile * STEPS + next) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
    const int weights_at = slot * 256 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 2176);
    float group_sum0[2][1][4] = {};
    unsigned row_words[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint2 packed = row_pairs[(slot * 2 + warp_k * 64 / 64) * 32 + (warp_n * 2 + row_part) * 8 + lane / 4];
        row_words[row_part][0] = packed.x;
        row_words[row_part][1] = packed.y;
      }
    }
    unsigned words[2][4];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint4 packed = ring_weights[weights_at + row_part * 64];
        words[row_part][0] = packed.x;
        words[row_part][1] = packed.y;
        words[row_part][2] = packed.z;
        words[row_part][3] = packed.w;
      }
    }
    #pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned frag_b[2][1][2];
      ldmatrix_x4(frag_b[0][0][0], frag_b[0][0][1], frag_b[1][0][0], frag_b[1][0][1], shared_behind(tokens_at, half * 4 * 16));
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        #pragma unroll
        for (int row_part = 0; row_part < 2; ++row_part) {
          const unsigned word = words[row_part][half * 2 + k16];
          const unsigned value0_4_entry = word & 0x77777777u;
          const unsigned value0_4_half = and_or(word >> 1, 0x44444444u, 0x32103210u);
          const unsigned value0_4_upper_entry = value0_4_entry >> 16;
          const unsigned value0_4_upper_half = value0_4_half >> 16;
          const unsigned value0_4_0_high_lower = permute(0x3e3c2000u, 0x36343a38u, value0_4_entry);
          const unsigned value0_4_0_high_upper = permute(0xbebca000u, 0xb6b4bab8u, value0_4_entry);
          const unsigned value0_4_0_high = permute(value0_4_0_high_lower, value0_4_0_high_upper, value0_4_half);
          const unsigned value0_4_1_high_lower = permute(0x3e3c2000u, 0x36343a38u, value0_4_upper_entry);
          const unsigned value0_4_1_high_upper = permute(0xbebca000u, 0xb6b4bab8u, value0_4_upper_entry);
          const unsigned value0_4_1_high = permute(value0_4_1_high_lower, value0_4_1_high_upper, value0_4_upper_half);
          const unsigned frag0_a0 = permute(0x00000000u, value0_4_0_high, 0x00005140u);
          const unsigned frag0_a1 = permute(0x00000000u, value0_4_0_high, 0x00007362u);
          const unsigned frag0_a2 = permute(0x00000000u, value0_4_1_high, 0x00005140u);
          const unsigned frag0_a3 = permute(0x00000000u, value0_4_1_high, 0x00007362u);
          mma_f16(group_sum0[row_part][0][0], group_sum0[row_part][0][1], group_sum0[row_part][0][2], group_sum0[row_part][0][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][0][0], frag_b[k16][0][1]);
        }
      }
    }
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      const float coefficient0_0 = 0.6666667f * bits_f32(row_words[row_part][0]);
      total[row_part][0][0] = fma_f32(coefficient0_0, group_sum0[row_part][0][0], total[row_part][0][0]);
      total[row_part][0][1] = fma_f32(coefficient0_0, group_sum0[row_part][0][1], total[row_part][0][1]);
      const float coefficient0_1 = 0.6666667f * bits_f32(row_words[row_part][1]);
      total[row_part][0][2] = fma_f32(coefficient0_1, group_sum0[row_part][0][2], total[row_part][0][2]);
      total[row_part][0][3] = fma_f32(coefficient0_1, group_sum0[row_part][0][3], total[row_part][0][3]);
    }
    free = slot;
    slot = (slot + 1 == 4) ? 0 : slot + 1;
  }
  copy_wait<0>();

  // partial sums of all warps meet in shared memory
  __syncthreads();
  #pragma unroll
  for (int row_part = 0; row_part < 2; ++row_part) {
    red[(warp_k * 8 + lane % 4 * 2) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][0][0];
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][0][1];
    red[(warp_k * 8 + lane % 4 * 2) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][2];
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][3];
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 512; i += 128) {
    const int row = i % 64;
    const int token = i / 64;
    float sum = red[token * 68 + row];
    sum = sum + red[(8 + token) * 68 + row];
    const int n = row_tile * 64 + row;
    const int m = token_tile * 8 + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(sum);
    }
  }
}
