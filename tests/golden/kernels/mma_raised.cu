// qtune 0.1.0 (generator 8)
// problem:  w4a16.awq-g128.f16-f16.n5120.k5120.m32@sm90a.132
// schedule: mma tile=32x128x128 warps=4x1 stages=3 split=2 pad=16 raster=rows dequant=(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 s) (* (neg (* z s)) (* p 0.00390625))) x)))

static __device__ __forceinline__ unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selectors));
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

static __device__ __forceinline__ void mma_f16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
             unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void fence_device() { __threadfence(); }

static __device__ __forceinline__ void count_arrival(unsigned& before, unsigned* counter) { before = atomicAdd(counter, 1u); }

constexpr int N = 5120;
constexpr int K = 5120;
constexpr int STEPS = 40;

extern "C" __global__ void __launch_bounds__(128, 3)
qtune_mma_w4a16_awq_g128_f16_f16_n5120_k5120_m32(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    float* __restrict__ partials,
    unsigned* __restrict__ counters,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 24576);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 50688);
  uint2* const row_pairs = reinterpret_cast<uint2*>(shared + 50688);
  unsigned* const arrived = reinterpret_cast<unsigned*>(shared + 0);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = warp % 4;
  const int warp_k = warp / 4;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int split = blockIdx.z;
  const int first = split * STEPS / 2;
  const int last = (split + 1) * STEPS / 2;
  const int lane_piece = (warp_n * 2 * 2 + warp_k * 2) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 4 / 8 * 8 + (x_piece / 4 % 8 % 2 * 4 + x_piece / 4 % 8 / 2);
  const int x_m = token_tile * 32 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 4;
  x_to[0] = shared_place(&ring_x[x_token * 17 + x_piece % 4]);
  const unsigned lane_tokens = shared_place(&ring_x[(lane / 16 * 8 + lane % 8) * 17 + (warp_k * 16 + lane / 8 % 2)]);
  float total[2][4][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(lane_weights, ahead * 8192);
      const int weights_from = (row_tile * STEPS + step) * 512 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 64 + chunk * 32) * 16), &weights[weights_from + (row_part * 64 + chunk * 32)]);
        }
      }
      const int x_stage = ahead * 8704;
      const int x_k8 = step * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 4; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 64), &x[x_k8 + x_from[0] + x_turn * 4]);
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
      const unsigned weights_to = shared_behind(lane_weights, free * 8192);
      const int weights_from = (row_tile * STEPS + next) * 512 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 64 + chunk * 32) * 16), &weights[weights_from + (row_part * 64 + chunk * 32)]);
        }
      }
      const int x_stage = free * 8704;
      const int x_k8 = next * 16;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 4; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 64), &x[x_k8 + x_from[0] + x_turn * 4]);
      }
      const unsigned params_to = shared_behind(thread_params, free * 512);
      const int params_from = (row_tile * STEPS + next) * 32;
      const int param_piece = thread;
      copy_async_16_if(shared_behind(params_to, 0), &params[params_from + param_piece], param_piece < 32);
    }
    copy_commit();
    const int weights_at = slot * 512 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 8704);
    unsigned row_words[2][2];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      {
        const uint2 packed = row_pairs[slot * 64 + (warp_n * 2 + row_part) * 8 + lane / 4];
        row_words[row_part][0] = packed.x;
        row_words[row_part][1] = packed.y;
      }
    }
    unsigned invariant0[2][1];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      invariant0[row_part][0] = h2_mul(permute(row_words[row_part][0], row_words[row_part][1], 0x00005410u), 0x70007000u);
    }
    unsigned invariant1[2][1];
    #pragma unroll
    for (int row_part = 0; row_part < 2; ++row_part) {
      invariant1[row_part][0] = h2_mul(h2_mul(permute(row_words[row_part][0], row_words[row_part][1], 0x00007632u), 0xac009c00u), permute(row_words[row_part][0], row_words[row_part][1], 0x00005410u));
    }
    #pragma unroll
    for (int chunk = 0; chunk < 2; ++chunk) {
      unsigned words[2][4];
      #pragma unroll
      for (int row_part = 0; row_part < 2; ++row_part) {
        {
          const uint4 packed = ring_weights[weights_at + (row_part * 64 + chunk * 32)];
          words[row_part][0] = packed.x;
          words[row_part][1] = packed.y;
          words[row_part][2] = packed.z;
          words[row_part][3] = packed.w;
        }
      }
      #pragma unroll
      for (int half = 0; half < 2; ++half) {
        unsigned frag_b[2][4][2];
        #pragma unroll
        for (int k16 = 0; k16 < 2; ++k16) {
          #pragma unroll
          for (int pair = 0; pair < 2; ++pair) {
            ldmatrix_x4(frag_b[k16][pair * 2][0], frag_b[k16][pair * 2][1], frag_b[k16][pair * 2 + 1][0], frag_b[k16][pair * 2 + 1][1], shared_behind(tokens_at, (chunk * 8 + half * 4 + k16 * 2 + pair * 272) * 16));
          }
        }
        #pragma unroll
        for (int k16 = 0; k16 < 2; ++k16) {
          #pragma unroll
          for (int row_part = 0; row_part < 2; ++row_part) {
            const unsigned word = words[row_part][half * 2 + k16];
            const unsigned upper0 = permute(word, word, 0x00000321u);
            const unsigned frag0_a0 = h2_fma(word & 0x00780078u, h2_both_low(invariant0[row_part][0]), h2_both_low(invariant1[row_part][0]));
            const unsigned frag0_a1 = h2_fma(word & 0x07800780u, h2_both_high(invariant0[row_part][0]), h2_both_high(invariant1[row_part][0]));
            const unsigned frag0_a2 = h2_fma(upper0 & 0x00780078u, h2_both_low(invariant0[row_part][0]), h2_both_low(invariant1[row_part][0]));
            const unsigned frag0_a3 = h2_fma(upper0 & 0x07800780u, h2_both_high(invariant0[row_part][0]), h2_both_high(invariant1[row_part][0]));
            #pragma unroll
            for (int token_part = 0; token_part < 4; ++token_part) {
              mma_f16(total[row_part][token_part][0], total[row_part][token_part][1], total[row_part][token_part][2], total[row_part][token_part][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][token_part][0], frag_b[k16][token_part][1]);
            }
          }
        }
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
    for (int token_part = 0; token_part < 4; ++token_part) {
      red[(warp_k * 32 + (token_part * 8 + lane % 4 * 2)) * 132 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][0] * 256.0f;
      red[(warp_k * 32 + (token_part * 8 + lane % 4 * 2 + 1)) * 132 + ((warp_n * 2 + row_part) * 16 + lane / 4)] = total[row_part][token_part][1] * 256.0f;
      red[(warp_k * 32 + (token_part * 8 + lane % 4 * 2)) * 132 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][2] * 16.0f;
      red[(warp_k * 32 + (token_part * 8 + lane % 4 * 2 + 1)) * 132 + ((warp_n * 2 + row_part) * 16 + lane / 4 + 8)] = total[row_part][token_part][3] * 16.0f;
    }
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  const int tile_id = token_tile * 40 + row_tile;
  for (int i = thread; i < 4096; i += 128) {
    const int row = i % 128;
    const int token = i / 128;
    partials[(tile_id * 2 + split) * 4096 + i] = red[token * 132 + row];
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
    for (int i = thread; i < 4096; i += 128) {
      const int row = i % 128;
      const int token = i / 128;
      float sum = 0.0f;
      #pragma unroll
      for (int part = 0; part < 2; ++part) {
        sum = sum + load_l2_f32(&partials[(tile_id * 2 + part) * 4096 + i]);
      }
      const int n = row_tile * 128 + row;
      const int m = token_tile * 32 + token;
      if ((n < N) && (m < tokens)) {
        out[m * N + n] = to_f16(sum);
      }
    }
    if (thread == 0) {
      counters[tile_id] = 0x00000000u;
    }
  }
}
