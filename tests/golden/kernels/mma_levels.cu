// qtune 0.1.0 (generator 8)
// problem:  w4a16.q4_k.f16-f16.n5120.k5120.m8@sm90a.132
// schedule: mma tile=8x128x512 warps=1x4 stages=3 split=1 pad=16 raster=rows dequant=(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 (* d i)) (* (neg (* e j)) (* p 0.00390625))) x)))

static __device__ __forceinline__ unsigned permute(unsigned a, unsigned b, unsigned selectors) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selectors));
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

static __device__ __forceinline__ uint2 pack_u32x2(unsigned a, unsigned b) { return make_uint2(a, b); }

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
constexpr int STEPS = 10;

extern "C" __global__ void __launch_bounds__(128, 1)
qtune_mma_w4a16_q4_k_f16_f16_n5120_k5120_m8(const uint4* __restrict__ weights,
    const uint4* __restrict__ params,
    const uint4* __restrict__ x,
    unsigned short* __restrict__ out,
    const int tokens) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint4* const ring_weights = reinterpret_cast<uint4*>(shared + 0);
  uint4* const ring_x = reinterpret_cast<uint4*>(shared + 98304);
  float* const red = reinterpret_cast<float*>(shared + 0);
  uint4* const ring_params = reinterpret_cast<uint4*>(shared + 123264);
  unsigned* const level_codes = reinterpret_cast<unsigned*>(shared + 123264);
  uint2* const level_floats = reinterpret_cast<uint2*>(shared + 123264);
  uint2* const operands = reinterpret_cast<uint2*>(shared + 138624);
  // prologue: this block's tile and this warp's part of it
  const int thread = threadIdx.x;
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_n = 0;
  const int warp_k = warp;
  const int row_tile = blockIdx.x;
  const int token_tile = blockIdx.y;
  const int first = 0;
  const int last = STEPS;
  const int lane_piece = (warp_n * 8 * 8 + warp_k * 2) * 32 + lane;
  const unsigned lane_weights = shared_place(&ring_weights[lane_piece]);
  const unsigned thread_params = shared_place(&ring_params[thread]);
  int x_from[1] = {};
  unsigned x_to[1] = {};
  const int x_piece = thread;
  const int x_token = x_piece / 16;
  const int x_m = token_tile * 8 + x_token;
  x_from[0] = ((x_m < tokens) ? x_m : tokens - 1) * (K / 8) + x_piece % 16;
  x_to[0] = shared_place(&ring_x[x_token * 65 + x_piece % 16]);
  const unsigned lane_tokens = shared_place(&ring_x[lane % 8 * 65 + (warp_k * 16 + lane / 8)]);
  const int lane_operands = (warp_n * 8 * 16 + warp_k * 4) * 8 + lane / 4;
  const int lane_codes = (warp_n * 8 * 16 + (warp_k * 4 + lane / 8 % 4)) * 8 + lane % 8;
  const int lane_floats = (warp_n * 8 * 2 + warp_k * 4 / 8) * 8 + lane % 8;
  float total[8][1][4] = {};

  // fill the ring: all stages but one
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int step = first + ahead;
    if (step < last) {
      const unsigned weights_to = shared_behind(lane_weights, ahead * 32768);
      const int weights_from = (row_tile * STEPS + step) * 2048 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 8; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 256 + chunk * 32) * 16), &weights[weights_from + (row_part * 256 + chunk * 32)]);
        }
      }
      const int x_stage = ahead * 8320;
      const int x_k8 = step * 64;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 4; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 256), &x[x_k8 + x_from[0] + x_turn * 16]);
      }
      const unsigned params_to = shared_behind(thread_params, ahead * 5120);
      const int params_from = (row_tile * STEPS + step) * 320;
      #pragma unroll
      for (int param_turn = 0; param_turn < 3; ++param_turn) {
        const int param_piece = param_turn * 128 + thread;
        copy_async_16_if(shared_behind(params_to, param_turn * 2048), &params[params_from + param_piece], param_piece < 320);
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
      const unsigned weights_to = shared_behind(lane_weights, free * 32768);
      const int weights_from = (row_tile * STEPS + next) * 2048 + lane_piece;
      #pragma unroll
      for (int row_part = 0; row_part < 8; ++row_part) {
        #pragma unroll
        for (int chunk = 0; chunk < 2; ++chunk) {
          copy_async_16(shared_behind(weights_to, (row_part * 256 + chunk * 32) * 16), &weights[weights_from + (row_part * 256 + chunk * 32)]);
        }
      }
      const int x_stage = free * 8320;
      const int x_k8 = next * 64;
      const int x_copy = thread;
      #pragma unroll
      for (int x_turn = 0; x_turn < 4; ++x_turn) {
        copy_async_16(shared_behind(shared_behind(x_to[0], x_stage), x_turn * 256), &x[x_k8 + x_from[0] + x_turn * 16]);
      }
      const unsigned params_to = shared_behind(thread_params, free * 5120);
      const int params_from = (row_tile * STEPS + next) * 320;
      #pragma unroll
      for (int param_turn = 0; param_turn < 3; ++param_turn) {
        const int param_piece = param_turn * 128 + thread;
        copy_async_16_if(shared_behind(params_to, param_turn * 2048), &params[params_from + param_piece], param_piece < 320);
      }
    }
    copy_commit();
    const int weights_at = slot * 2048 + lane_piece;
    const unsigned tokens_at = shared_behind(lane_tokens, slot * 8320);
    const int codes_at = slot * 1280 + lane_codes;
    const int floats_at = slot * 640 + lane_floats;
    #pragma unroll
    for (int row_turn = 0; row_turn < 8; ++row_turn) {
      unsigned floats[2];
      {
        const uint2 packed = level_floats[floats_at + (row_turn * 2 * 8 + 512)];
        floats[0] = packed.x;
        floats[1] = packed.y;
      }
      const unsigned codes = static_cast<unsigned>(level_codes[codes_at + row_turn * 16 * 8]);
      const unsigned integers0 = h2_sub(permute(codes, 0x64646464u, static_cast<unsigned>(16704)), 0x64006400u);
      const unsigned integers1 = h2_sub(permute(codes, 0x64646464u, static_cast<unsigned>(17218)), 0x64006400u);
      operands[lane_codes + row_turn * 16 * 8] = pack_u32x2(h2_mul(h2_mul(integers0, 0x9c003c00u), h2_mul(floats[0], 0x3c007000u)), h2_mul(h2_mul(integers1, 0xac003c00u), h2_mul(floats[1], 0x3c007000u)));
    }
    warp_sync();
    #pragma unroll
    for (int segment = 0; segment < 4; ++segment) {
      unsigned joined[8][2];
      #pragma unroll
      for (int row_part = 0; row_part < 8; ++row_part) {
        {
          const uint2 packed = operands[lane_operands + (row_part * 16 + segment) * 8];
          joined[row_part][0] = packed.x;
          joined[row_part][1] = packed.y;
        }
      }
      unsigned words[8][4];
      #pragma unroll
      for (int row_part = 0; row_part < 8; ++row_part) {
        {
          const uint4 packed = ring_weights[weights_at + (row_part * 256 + segment / 2 * 32)];
          words[row_part][0] = packed.x;
          words[row_part][1] = packed.y;
          words[row_part][2] = packed.z;
          words[row_part][3] = packed.w;
        }
      }
      unsigned frag_b[2][1][2];
      ldmatrix_x4(frag_b[0][0][0], frag_b[0][0][1], frag_b[1][0][0], frag_b[1][0][1], shared_behind(tokens_at, (segment / 2 * 8 + segment % 2 * 4) * 16));
      #pragma unroll
      for (int k16 = 0; k16 < 2; ++k16) {
        #pragma unroll
        for (int row_part = 0; row_part < 8; ++row_part) {
          const unsigned word = words[row_part][segment % 2 * 2 + k16];
          const unsigned upper0 = permute(word, word, 0x00000321u);
          const unsigned frag0_a0 = h2_fma(word & 0x00780078u, h2_both_low(joined[row_part][0]), h2_both_high(joined[row_part][0]));
          const unsigned frag0_a1 = h2_fma(word & 0x07800780u, h2_both_low(joined[row_part][1]), h2_both_high(joined[row_part][1]));
          const unsigned frag0_a2 = h2_fma(upper0 & 0x00780078u, h2_both_low(joined[row_part][0]), h2_both_high(joined[row_part][0]));
          const unsigned frag0_a3 = h2_fma(upper0 & 0x07800780u, h2_both_low(joined[row_part][1]), h2_both_high(joined[row_part][1]));
          mma_f16(total[row_part][0][0], total[row_part][0][1], total[row_part][0][2], total[row_part][0][3], frag0_a0, frag0_a1, frag0_a2, frag0_a3, frag_b[k16][0][0], frag_b[k16][0][1]);
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
  for (int row_part = 0; row_part < 8; ++row_part) {
    red[(warp_k * 8 + lane % 4 * 2) * 132 + ((warp_n * 8 + row_part) * 16 + lane / 4)] = total[row_part][0][0] * 256.0f;
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 132 + ((warp_n * 8 + row_part) * 16 + lane / 4)] = total[row_part][0][1] * 256.0f;
    red[(warp_k * 8 + lane % 4 * 2) * 132 + ((warp_n * 8 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][2] * 16.0f;
    red[(warp_k * 8 + (lane % 4 * 2 + 1)) * 132 + ((warp_n * 8 + row_part) * 16 + lane / 4 + 8)] = total[row_part][0][3] * 16.0f;
  }

  // epilogue: add the warps' partial sums
  __syncthreads();
  for (int i = thread; i < 1024; i += 128) {
    const int row = i % 128;
    const int token = i / 128;
    float sum = red[token * 132 + row];
    #pragma unroll
    for (int part = 0; part < 3; ++part) {
      sum = sum + red[((part + 1) * 8 + token) * 132 + row];
    }
    const int n = row_tile * 128 + row;
    const int m = token_tile * 8 + token;
    if ((n < N) && (m < tokens)) {
      out[m * N + n] = to_f16(sum);
    }
  }
}
