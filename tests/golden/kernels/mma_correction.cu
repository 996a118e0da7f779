// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g128.f16-f16.n5120.k5120.m8@sm90a.132
// schedule: mma tile=8x64x256 warps=2x2 stages=4 split=1 pad=16 raster=rows dequant=(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))

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
constexpr int STEPS = 20;

extern "C" __global__ void __launch_bounds__(128, 3)
qtune_mma_w4a16_awq_g128_f16_f16_n5120_k5120_m8(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 32768);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 49664);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 49664);
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
  const int lane_piece = (warp_n * 2 * 4 + warp_k * 2) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 16;
  const int x_m = token_tile * 8 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 16;
  x_to[0] = shared_place(&ring_x[x_token * 33 + x_piece % 16]);
  const unsigned lane_tokens = shared_place(&ring_x[lane % 8 * 33 + (warp_k * 16 + lane / 8)]);
  float total[2][1][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 3; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(lane_weights, ahead * 8192);
      const int weights_from = (row_tile * STEPS + step) * 512 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 128 + chunk * 32) * 16), &weights[weights_from + (row_part * 128 + chunk * 32)]);
        }
      }
      const int x_stage = ahead * 4224;
      const int x_k8 = step * 32;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 256), &x[x_k8 + x_from[0] + x_turn * 16]);
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
  int free = 3;
  for (int step = first; step < last; ++step) {
    copy_wait<2>();
    __syncthreads();
    const int next = step + 3;
    if (next < last) {
      const unsigned weights_to = shared_behind(lane_weights, free * 8192);
      const int weights_from = (row_tile * STEPS + next) * 512 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 128 + chunk * 32) * 16), &weights[weights_from + (row_part * 128 + chunk * 32)]);
        }
      }
      const int x_stage = free * 4224;
      const int x_k8 = next * 32;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 2; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 256), &x[x_k8 + x_from[0] + x_turn * 16]);
      }
      const unsigned params_to = shared_behind(thread_params, free * 512);
      const int params_from = (row_tile * STEPS + next) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
    const int weights_at = slot * 512 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 4224);
    float group_sum0[2][1][4] = {};
    float group_sum1[1][4] = {};
    unsigned row_words[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint2 packed = row_pairs[(slot * 2 + warp_k * 128 / 128) * 32 + (warp_n * 2 + row_part) * 8 + lane / 4];
        row_words[row_part][0] = packed.x;
        row_words[row_part][1] = packed.y;
      }
    }
    #pragma unroll
    for (int chunk = 0; chunk < 2; ++chunk) {
      unsigned words[2][4];
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        {
          const uint4 packed = ring_weights[weights_at + (row_part * 128 + chunk * 32)];
          words[row_part][0] = packed.x;
          words[row_part][1] = packed.y;
          words[row_part][2] = packed.z;
          words[row_part][3] = packed.w;
        }
      }
      #pragma unroll
      for (int half = 0; half < 2; ++half) {
        unsigned frag_b[2][1][2];
        ldmatrix_x4(frag_b[0][0][0], frag_b[0][0][1], frag_b[1][0][0], frag_b[1][0][1], shared_behind(tokens_at, (chunk * 8 + half * 4) * 16));
        #pragma unroll
        for (int k16 = 0; k16 < 2; ++k16) {
          mma_f16(group_sum1[0][0], group_sum1[0][1], group_sum1[0][2], group_sum1[0][3], 0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u, frag_b[k16][0][0], frag_b[k16][0][1]);
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            const unsigned word = words[row_part][half * 2 + k16];
            const unsigned upper0 = word >> 8;
            const unsigned frag0_a0 = word & 0x000f000fu;
            const unsigned frag0_a1 = word & 0x00f000f0u;
            const unsigned frag0_a2 = upper0 & 0x000f000fu;
            const unsigned frag0_a3 = upper0 & 0x00f000f0u;
            mma_f16(group_sum0[row_part][0][0], group_sum0[row_part][0][1], group_sum0[row_part][0][2], group_sum0[row_part][0][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][0][0], frag_b[k16][0][1]);
          }
        }
      }
    }
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      const float coefficient0_0 = h2_low(row_words[row_part][0]);
      total[row_part][0][0] = fma_f32(coefficient0_0, group_sum0[row_part][0][0], total[row_part][0][0]);
      total[row_part][0][1] = fma_f32(coefficient0_0, group_sum0[row_part][0][1], total[row_part][0][1]);
      const float coefficient1_0 = __uint_as_float(0xb3800000u) * (h2_low(row_words[row_part][0]) * h2_high(row_words[row_part][0]));
      total[row_part][0][0] = fma_f32(coefficient1_0, group_sum1[0][0], total[row_part][0][0]);
      total[row_part][0][1] = fma_f32(coefficient1_0, group_sum1[0][1], total[row_part][0][1]);
      const float coefficient0_1 = h2_low(row_words[row_part][1]);
      total[row_part][0][2] = fma_f32(coefficient0_1, group_sum0[row_part][0][2], total[row_part][0][2]);
      total[row_part][0][3] = fma_f32(coefficient0_1, group_sum0[row_part][0][3], total[row_part][0][3]);
      const float coefficient1_1 = -9.536743e-7f * (h2_low(row_words[row_part][1]) * h2_high(row_words[row_part][1]));
      total[row_part][0][2] = fma_f32(coefficient1_1, group_sum1[0][2], total[row_part][0][2]);
      total[row_part][0][3] = fma_f32(coefficient1_1, group_sum1[0][3], total[row_part][0][3]);
    }
    free = slot;
    slot = (slot + 1 == 4) ? 0 : slot + 1;
  }
  copy_wait<0>();

  // partial sums of all warps meet in shared memory
  __syncthreads();
  #pragma unroll
  for (int row_part = 0; row_part < 2; ++row_part) {
    red[(warp_k * 8 + lane % 4 * 2) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][0][0] * 16777216.0f;
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][0][1] * 16777216.0f;
    red[(warp_k * 8 + lane % 4 * 2) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][2] * 1048576.0f;
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 68 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][3] * 1048576.0f;
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
